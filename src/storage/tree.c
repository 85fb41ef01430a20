#include "storage/tree.h"

#define NODE_ENTRIES 48
#define HEIGHT_MAX   16 /* a level is added only when the root has all its children */
#define SPARES_KEPT  8

typedef struct tag {
    uint64_t high, low;
} tag_t;

typedef union target {
    cake__row_t *row;
    cake__node_t *child;
} target_t;

typedef struct entry {
    tag_t tag;
    target_t to;
} entry_t;

/* The parts of entries lie apart: a search reads the high halves of tags, in few cache lines, and seldom more. */
struct cake__node {
    cake__node_t *prev, *next; /* of leaves; next also links spares */
    uint16_t count;
    uint16_t level; /* 0: leaf */
    uint64_t high[NODE_ENTRIES], low[NODE_ENTRIES];
    target_t to[NODE_ENTRIES];
};

/* Where a search went: at every level the node and the entry taken. */
typedef struct path {
    cake__node_t *nodes[HEIGHT_MAX];
    unsigned at[HEIGHT_MAX];
} path_t;

static uint64_t load_be64(const uint8_t *from)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | from[i];
    return value;
}

static tag_t tag_of(cake_slice_t key)
{
    uint8_t bytes[16] = {0};
    size_t len = key.len < 15 ? key.len : 15;
    if (len > 0)
        memcpy(bytes, key.data, len);
    bytes[15] = key.len > 15 ? 0xff : (uint8_t)key.len;
    return (tag_t){load_be64(bytes), load_be64(bytes + 8)};
}

static const cake__row_t *leftmost(target_t to, unsigned level)
{
    for (; level > 0; level--)
        to = to.child->to[0];
    return to.row;
}

/* Entry i against the key: below 0, 0 or above. */
static int compare(const cake__node_t *node, unsigned i, tag_t tag, cake_slice_t key)
{
    if (node->high[i] != tag.high)
        return node->high[i] < tag.high ? -1 : 1;
    if (node->low[i] != tag.low)
        return node->low[i] < tag.low ? -1 : 1;
    if ((tag.low & 0xff) <= CAKE_ID_PLAIN_MAX)
        return 0;
    return cake__slice_compare(cake__row_key(leftmost(node->to[i], node->level)), key);
}

/* The first entry, from `low` on, that is not below the key. *found: it is the key. */
static unsigned lower_bound(const cake__node_t *node, unsigned low, tag_t tag, cake_slice_t key, bool *found)
{
    unsigned high = node->count;
    *found = false;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        int order = compare(node, middle, tag, key);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Down to the leaf that has the key, or would. */
static bool descend(const cake__tree_t *tree, tag_t tag, cake_slice_t key, path_t *path)
{
    bool found;
    cake__node_t *node = tree->root;
    while (node->level > 0) {
        unsigned at = lower_bound(node, 1, tag, key, &found);
        at -= !found;
        path->nodes[node->level] = node;
        path->at[node->level] = at;
        node = node->to[at].child;
    }
    path->nodes[0] = node;
    path->at[0] = lower_bound(node, 0, tag, key, &found);
    return found;
}

int cake__spares_fill(cake__spares_t *spares, const cake__tree_t *tree)
{
    unsigned need = tree->root == NULL ? 1u : tree->root->level + 2u;
    while (spares->count < need) {
        cake__node_t *node = cake__malloc(spares->alloc, sizeof *node);
        if (node == NULL)
            return CAKE_ENOMEM;
        node->next = spares->first;
        spares->first = node;
        spares->count++;
    }
    return 0;
}

void cake__spares_free(cake__spares_t *spares)
{
    while (spares->first != NULL) {
        cake__node_t *node = spares->first;
        spares->first = node->next;
        cake__free(spares->alloc, node);
    }
    spares->count = 0;
}

static cake__node_t *take_spare(cake__spares_t *spares, unsigned level)
{
    cake__node_t *node = spares->first;
    CAKE_ASSERT(node != NULL);
    spares->first = node->next;
    spares->count--;
    node->prev = node->next = NULL;
    node->count = 0;
    node->level = (uint16_t)level;
    return node;
}

static void give_spare(cake__spares_t *spares, cake__node_t *node)
{
    if (spares->count >= SPARES_KEPT) {
        cake__free(spares->alloc, node);
        return;
    }
    node->next = spares->first;
    spares->first = node;
    spares->count++;
}

static void insert_at(cake__node_t *node, unsigned at, entry_t entry)
{
    CAKE_ASSERT(node->count < NODE_ENTRIES && at <= node->count);
    size_t above = node->count - at;
    memmove(&node->high[at + 1], &node->high[at], above * sizeof node->high[0]);
    memmove(&node->low[at + 1], &node->low[at], above * sizeof node->low[0]);
    memmove(&node->to[at + 1], &node->to[at], above * sizeof node->to[0]);
    node->high[at] = entry.tag.high;
    node->low[at] = entry.tag.low;
    node->to[at] = entry.to;
    node->count++;
}

/* Moves the upper half to a new right neighbour. An append moves nothing: growing keys leave full nodes behind. */
static cake__node_t *split(cake__node_t *node, bool is_append, cake__spares_t *spares)
{
    cake__node_t *right = take_spare(spares, node->level);
    unsigned keep = is_append ? NODE_ENTRIES : NODE_ENTRIES / 2;
    right->count = (uint16_t)(node->count - keep);
    memcpy(right->high, &node->high[keep], right->count * sizeof node->high[0]);
    memcpy(right->low, &node->low[keep], right->count * sizeof node->low[0]);
    memcpy(right->to, &node->to[keep], right->count * sizeof node->to[0]);
    node->count = (uint16_t)keep;
    if (node->level == 0) {
        right->prev = node;
        right->next = node->next;
        if (node->next != NULL)
            node->next->prev = right;
        node->next = right;
    }
    return right;
}

static void insert_and_split(cake__tree_t *tree, cake__spares_t *spares, path_t *path, entry_t entry)
{
    unsigned top = tree->root->level;
    for (unsigned level = 0; level <= top; level++) {
        cake__node_t *node = path->nodes[level];
        unsigned at = path->at[level] + (level > 0); /* a new child stands right of the one that was split */
        if (node->count < NODE_ENTRIES) {
            insert_at(node, at, entry);
            return;
        }
        cake__node_t *right = split(node, at == NODE_ENTRIES, spares);
        if (at <= node->count && node->count < NODE_ENTRIES)
            insert_at(node, at, entry);
        else
            insert_at(right, at - node->count, entry);
        entry = (entry_t){.tag = {right->high[0], right->low[0]}, .to.child = right};
    }
    cake__node_t *root = take_spare(spares, top + 1);
    CAKE_ASSERT(root->level < HEIGHT_MAX);
    insert_at(root, 0, (entry_t){.to.child = tree->root});
    insert_at(root, 1, entry);
    tree->root = root;
}

cake__row_t *cake__tree_put(cake__tree_t *tree, cake__spares_t *spares, cake__row_t *row)
{
    cake_slice_t key = cake__row_key(row);
    entry_t entry = {.tag = tag_of(key), .to.row = row};
    if (tree->root == NULL) {
        tree->root = take_spare(spares, 0);
        insert_at(tree->root, 0, entry);
        return NULL;
    }
    path_t path;
    if (!descend(tree, entry.tag, key, &path)) {
        insert_and_split(tree, spares, &path, entry);
        return NULL;
    }
    target_t *place = &path.nodes[0]->to[path.at[0]];
    cake__row_t *old = place->row;
    place->row = row;
    return old;
}

static void remove_at(cake__node_t *node, unsigned at)
{
    CAKE_ASSERT(at < node->count);
    size_t above = --node->count - at;
    memmove(&node->high[at], &node->high[at + 1], above * sizeof node->high[0]);
    memmove(&node->low[at], &node->low[at + 1], above * sizeof node->low[0]);
    memmove(&node->to[at], &node->to[at + 1], above * sizeof node->to[0]);
}

static void unlink_leaf(cake__node_t *leaf)
{
    if (leaf->prev != NULL)
        leaf->prev->next = leaf->next;
    if (leaf->next != NULL)
        leaf->next->prev = leaf->prev;
}

cake__row_t *cake__tree_remove(cake__tree_t *tree, cake__spares_t *spares, cake_slice_t key)
{
    path_t path;
    if (tree->root == NULL || !descend(tree, tag_of(key), key, &path))
        return NULL;
    cake__row_t *row = path.nodes[0]->to[path.at[0]].row;
    unsigned top = tree->root->level;
    for (unsigned level = 0; level <= top; level++) {
        cake__node_t *node = path.nodes[level];
        unsigned at = path.at[level];
        remove_at(node, at);
        if (node->count > 0)
            break;
        if (level == 0)
            unlink_leaf(node);
        if (level == top)
            tree->root = NULL;
        give_spare(spares, node);
    }
    while (tree->root != NULL && tree->root->level > 0 && tree->root->count == 1) {
        cake__node_t *root = tree->root;
        tree->root = root->to[0].child;
        give_spare(spares, root);
    }
    return row;
}

cake__row_t *cake__tree_get(const cake__tree_t *tree, cake_slice_t key)
{
    path_t path;
    if (tree->root == NULL || !descend(tree, tag_of(key), key, &path))
        return NULL;
    return path.nodes[0]->to[path.at[0]].row;
}

cake__tree_cursor_t cake__tree_seek(const cake__tree_t *tree, cake_slice_t from)
{
    path_t path;
    if (tree->root == NULL)
        return (cake__tree_cursor_t){NULL, 0};
    (void)descend(tree, tag_of(from), from, &path);
    return (cake__tree_cursor_t){path.nodes[0], path.at[0]};
}

const cake__row_t *cake__tree_next(cake__tree_cursor_t *cursor)
{
    if (cursor->leaf != NULL && cursor->at == cursor->leaf->count) {
        cursor->leaf = cursor->leaf->next;
        cursor->at = 0;
    }
    if (cursor->leaf == NULL)
        return NULL;
    return cursor->leaf->to[cursor->at++].row;
}

static void free_node(cake__node_t *node, const cake_alloc_t *alloc)
{
    for (unsigned i = 0; i < node->count; i++) {
        if (node->level > 0)
            free_node(node->to[i].child, alloc);
        else
            cake__free(alloc, node->to[i].row);
    }
    cake__free(alloc, node);
}

void cake__tree_free(cake__tree_t *tree, const cake_alloc_t *alloc)
{
    if (tree->root != NULL)
        free_node(tree->root, alloc);
    tree->root = NULL;
}
