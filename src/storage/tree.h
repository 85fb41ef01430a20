/* tree.h: rows in bytewise order of their keys: a B+ tree of pointers, each beside the first bytes of its key, so that
 * few comparisons leave the node.
 *
 *      inner   [ tag,child | tag,child | ... ]          tag of entry i: a lower bound of all keys below child i
 *      leaf    [ tag,row   | tag,row   | ... ] <-> next leaf
 *
 *      tag     the first 15 bytes of the key, zero padded, then its length; 0xff there when it is longer. Tags compare
 *              like keys, except that equal tags of long keys say nothing: then the keys themselves are compared, in
 *              inner nodes that of the leftmost row below.
 *
 * Invariants: every key below entry i < every key below entry i + 1; no empty nodes; a root has two children or is a
 * leaf. Nodes that become empty go, others are not merged. The tag of the first entry of an inner node is never
 * looked at. Putting needs spare nodes, reserved before; nothing else allocates, so changes can be taken back
 * without fail. */
#ifndef CAKE_STORAGE_TREE_H
#define CAKE_STORAGE_TREE_H

#include "storage/storage.h"

typedef struct cake__row {
    cake_id_t id;
    cake_hlc_t hlc;
    cake_dot_t dot;
    uint32_t value_len;
    uint16_t key_len;
    bool is_tombstone;
    bool is_erased;  /* goes when the batch under way commits */
    uint8_t bytes[]; /* the key, unless it is so short that it lies in the id as it is; the value */
} cake__row_t;

typedef struct cake__node cake__node_t;

typedef struct cake__tree {
    cake__node_t *root; /* NULL: empty */
} cake__tree_t;

typedef struct cake__spares {
    cake__node_t *first;
    unsigned count;
    const cake_alloc_t *alloc;
} cake__spares_t;

typedef struct cake__tree_cursor {
    const cake__node_t *leaf;
    unsigned at;
} cake__tree_cursor_t;

static inline bool cake__row_is_short(const cake__row_t *row)
{
    return row->key_len <= CAKE_ID_PLAIN_MAX;
}

static inline cake_slice_t cake__row_key(const cake__row_t *row)
{
    return cake__slice(cake__row_is_short(row) ? row->id.bytes : row->bytes, row->key_len);
}

static inline cake_slice_t cake__row_value(const cake__row_t *row)
{
    return cake__slice(row->bytes + (cake__row_is_short(row) ? 0 : row->key_len), row->value_len);
}

/* Enough for one cake__tree_put() to this tree. 0 or CAKE_ENOMEM. */
int cake__spares_fill(cake__spares_t *spares, const cake__tree_t *tree);
void cake__spares_free(cake__spares_t *spares);

/* Both return the row that was there, or NULL; it belongs to the caller. */
cake__row_t *cake__tree_put(cake__tree_t *tree, cake__spares_t *spares, cake__row_t *row);
cake__row_t *cake__tree_remove(cake__tree_t *tree, cake__spares_t *spares, cake_slice_t key);

cake__row_t *cake__tree_get(const cake__tree_t *tree, cake_slice_t key);

/* At the first row whose key is not below `from`. */
cake__tree_cursor_t cake__tree_seek(const cake__tree_t *tree, cake_slice_t from);
const cake__row_t *cake__tree_next(cake__tree_cursor_t *cursor); /* NULL at the end */

void cake__tree_free(cake__tree_t *tree, const cake_alloc_t *alloc); /* and every row */

#endif
