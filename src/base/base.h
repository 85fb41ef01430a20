/* base: what every other layer may use and nothing of this project is below it. Never does I/O, keeps no state.
 *
 *   base.h   assertions, the allocator calls, small inline helpers       list.h   intrusive doubly linked list
 *   bytes.h  growable buffer; little-endian and varint codec             heap.h   intrusive pairing heap
 *   map.h    hash map from bytes or numbers to pointers                  lock.h   a mutex
 *   random.h a seeded generator for owners that were given a seed        sort.h   sorting without allocation */
#ifndef CAKE_BASE_BASE_H
#define CAKE_BASE_BASE_H

#include <string.h>

#include <datacake/base.h>

#define CAKE_COUNT_OF(array)                     (sizeof(array) / sizeof((array)[0]))
#define CAKE_CONTAINER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))
#define CAKE_PRINTF(format_at, args_at)          __attribute__((format(printf, format_at, args_at)))

/* Guards an invariant, never input; stays on in release builds. */
#define CAKE_ASSERT(condition) ((condition) ? (void)0 : cake__assert_failed(#condition, __FILE__, __LINE__, __func__))

void cake__assert_failed(const char *text, const char *file, int line, const char *function)
    __attribute__((noreturn, cold));

/* ---- allocation: a NULL hook in a configuration means the C library's heap ------------------------------------- */

extern const cake_alloc_t cake__libc_alloc;

static inline const cake_alloc_t *cake__alloc_or_default(const cake_alloc_t *alloc)
{
    return alloc != NULL ? alloc : &cake__libc_alloc;
}

static inline void *cake__malloc(const cake_alloc_t *alloc, size_t size)
{
    return alloc->resize(alloc->ctx, NULL, size == 0 ? 1 : size);
}

static inline void *cake__realloc(const cake_alloc_t *alloc, void *block, size_t size)
{
    return alloc->resize(alloc->ctx, block, size == 0 ? 1 : size);
}

/* Room for one more element of `size` bytes in an array that doubles; NULL: no memory, and nothing has changed. */
static inline void *cake__grow(const cake_alloc_t *alloc, void *items, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return items;
    size_t more = *capacity == 0 ? 16 : *capacity * 2;
    void *bigger = more > SIZE_MAX / size ? NULL : cake__realloc(alloc, items, more * size);
    if (bigger != NULL)
        *capacity = more;
    return bigger;
}

static inline void cake__free(const cake_alloc_t *alloc, void *block)
{
    if (block != NULL)
        (void)alloc->resize(alloc->ctx, block, 0);
}

void *cake__calloc(const cake_alloc_t *alloc, size_t count, size_t size); /* zeroed; NULL on overflow too */
char *cake__strdup(const cake_alloc_t *alloc, const char *text);          /* NULL text gives NULL: check first */
void *cake__memdup(const cake_alloc_t *alloc, const void *data, size_t len);

/* ---- versioned structs ------------------------------------------------------------------------------------------- */

#define CAKE__OPTIONS_MAX 4096u /* bytes of one that can be meant; a size above it was never set */

/* Copies the options of a program, whose first member is their size, into this version's, of `size` bytes. A
 * program built with older headers gives fewer bytes: the rest is zero, the default. One built with newer headers
 * may give more, as long as these are zero: what they ask for is not known here. CAKE_EINVAL. A new member must
 * begin where the older struct ended, not in the padding behind its last member, which programs leave unset. */
int cake__options_copy(void *options, size_t size, const void *given);

/* ---- small helpers ----------------------------------------------------------------------------------------------- */

static inline uint64_t cake__min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t cake__max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static inline cake_slice_t cake__slice(const void *data, size_t len)
{
    return (cake_slice_t){data, len};
}

static inline cake_slice_t cake__slice_str(const char *text)
{
    return (cake_slice_t){text, strlen(text)};
}

static inline bool cake__slice_equal(cake_slice_t a, cake_slice_t b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline int cake__slice_compare(cake_slice_t a, cake_slice_t b)
{
    size_t common = a.len < b.len ? a.len : b.len;
    int order = common == 0 ? 0 : memcmp(a.data, b.data, common);
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

/* The finaliser of MurmurHash3: every input bit reaches every output bit. */
static inline uint64_t cake__mix64(uint64_t x)
{
    x ^= x >> 33;
    x *= UINT64_C(0xff51afd7ed558ccd);
    x ^= x >> 33;
    x *= UINT64_C(0xc4ceb9fe1a85ec53);
    x ^= x >> 33;
    return x;
}

bool cake__is_utf8(const void *text, size_t len);

/* Valid UTF-8 without control characters: the rule for names of keyspaces, services, data centres, clusters. */
bool cake__is_name(cake_slice_t text, size_t max_len);

/* One log line, cut at 500 bytes. A NULL log or one with no write function says nothing. */
void cake__log(const cake_log_t *log, cake_log_level_t level, const char *format, ...) CAKE_PRINTF(3, 4);

#endif
