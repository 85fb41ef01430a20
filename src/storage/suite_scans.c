/* Cases: scans. Every range is compared with the same range over a sorted list. */
#include "storage/suite.h"

/* In bytewise order. The last ones differ only behind byte 15, or only in length. */
static const struct text {
    const char *bytes;
    size_t len;
} keys[] = {
    {"\0", 1},
    {"\0\0", 2},
    {"\0\xff", 2},
    {"\x01", 1},
    {"a", 1},
    {"a\0", 2},
    {"a\0\0", 3},
    {"a\0b", 3},
    {"aa", 2},
    {"ab", 2},
    {"abcdefghijklmno", 15},
    {"abcdefghijklmno\0", 16},
    {"abcdefghijklmno\0\0", 17},
    {"abcdefghijklmnoa", 16},
    {"abcdefghijklmnoab", 17},
    {"abcdefghijklmnob", 16},
    {"abcdefghijklmno\xff", 16},
    {"abcdefghijklmnp", 15},
    {"ab\xff", 3},
    {"ab\xff\xff", 4},
    {"b", 1},
    {"\x7f", 1},
    {"\x80", 1},
    {"\xff", 1},
    {"\xff\0", 2},
    {"\xff\xff", 2},
    {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 15},
    {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 17},
};

static const struct text ranges[] = {{"", 0},        {"\0", 1},       {"a", 1},  {"a\0", 2},
                                     {"ab", 2},      {"ab\xff", 3},   {"b", 1},  {"abcdefghijklmno", 15},
                                     {"\xff", 1},    {"\xff\xff", 2}, {"zz", 2}, {"abcdefghijklmno\xff", 16},
                                     {"\x01\x01", 2}};

#define KEY_COUNT CAKE_COUNT_OF(keys)

static cake_slice_t slice_of(struct text text)
{
    return cake__slice(text.bytes, text.len);
}

typedef struct scanned {
    const cake_scan_t *range;
    size_t next;  /* the first of keys that may come now */
    size_t count; /* rows so far */
    bool is_right;
} scanned_t;

static bool is_tombstone(size_t i)
{
    return i % 5 == 4;
}

static bool is_in(const cake_scan_t *range, cake_slice_t key)
{
    bool is_above = range->after.len == 0 || cake__slice_compare(key, range->after) > 0;
    return is_above && cake__slice_has_prefix(key, range->prefix);
}

static size_t next_in(const scanned_t *scanned)
{
    size_t i = scanned->next;
    while (i < KEY_COUNT && (is_tombstone(i) || !is_in(scanned->range, slice_of(keys[i]))))
        i++;
    return i;
}

static int take_row(void *arg, const cake_row_t *row)
{
    scanned_t *scanned = arg;
    size_t i = next_in(scanned);
    bool has_value = row->value.len == 1 && *(const char *)row->value.data == (char)i;
    bool value_is_right = scanned->range->keys_only ? row->value.len == 0 || has_value : has_value;
    scanned->is_right = scanned->is_right && i < KEY_COUNT && cake__slice_equal(row->key, slice_of(keys[i])) &&
                        row->hlc == i && !row->is_tombstone && value_is_right;
    scanned->next = i + 1;
    scanned->count++;
    return 0;
}

static void check_range(cake__suite_t *suite, const cake_scan_t *range)
{
    scanned_t scanned = {.range = range, .is_right = true};
    int err = suite->storage->ops->scan(suite->storage, cake__slice_str("k"), range, take_row, &scanned);
    CAKE__CHECK(suite, err == 0);
    bool rows_are_right_and_in_order = scanned.is_right;
    CAKE__CHECK(suite, rows_are_right_and_in_order);
    bool is_full = range->limit != 0 && scanned.count == range->limit;
    bool none_is_missing = is_full || next_in(&scanned) == KEY_COUNT;
    CAKE__CHECK(suite, none_is_missing);
    bool limit_is_kept = range->limit == 0 || scanned.count <= range->limit;
    CAKE__CHECK(suite, limit_is_kept);
}

static void write_keys(cake__suite_t *suite)
{
    char values[KEY_COUNT];
    cake_write_t writes[KEY_COUNT];
    for (size_t n = 0; n < KEY_COUNT; n++) {
        size_t i = (n * 11 + 5) % KEY_COUNT; /* in no order; 11 and the count have no common divisor */
        values[i] = (char)i;
        writes[n] = is_tombstone(i) ? cake__suite_tombstone("k", slice_of(keys[i]), i)
                                    : cake__suite_put("k", slice_of(keys[i]), cake__slice(&values[i], 1), i);
    }
    CAKE__CHECK(suite, cake__suite_commit(suite, writes, KEY_COUNT, NULL, 0) == 0);
}

static void scans_are_ordered(cake__suite_t *suite)
{
    const size_t limits[] = {0, 1, 2, 3, 100};
    write_keys(suite);
    for (size_t p = 0; p < CAKE_COUNT_OF(ranges) && !suite->failed; p++) {
        for (size_t a = 0; a < CAKE_COUNT_OF(ranges) + KEY_COUNT && !suite->failed; a++) {
            struct text after = a < CAKE_COUNT_OF(ranges) ? ranges[a] : keys[a - CAKE_COUNT_OF(ranges)];
            cake_scan_t range = {slice_of(ranges[p]), slice_of(after), limits[(a + p) % 5], (a + p) % 2 == 1};
            check_range(suite, &range);
        }
    }
}

typedef struct page {
    uint8_t last[CAKE_KEY_MAX];
    size_t len, count;
} page_t;

static int take_page_row(void *arg, const cake_row_t *row)
{
    page_t *page = arg;
    memcpy(page->last, row->key.data, row->key.len);
    page->len = row->key.len;
    page->count++;
    return 0;
}

static void scans_go_on_page_by_page(cake__suite_t *suite)
{
    page_t page = {.len = 0};
    size_t before, total = 0;
    write_keys(suite);
    for (size_t i = 0; i < KEY_COUNT; i++)
        total += !is_tombstone(i);
    do {
        uint8_t after[CAKE_KEY_MAX];
        memcpy(after, page.last, page.len);
        cake_scan_t range = {.after = cake__slice(after, page.len), .limit = 3};
        before = page.count;
        CAKE__CHECK(suite,
                    suite->storage->ops->scan(suite->storage, cake__slice_str("k"), &range, take_page_row, &page) == 0);
    } while (page.count > before);
    CAKE__CHECK(suite, page.count == total);
}

static int stop_third(void *arg, const cake_row_t *row)
{
    (void)row;
    return ++*(int *)arg == 3 ? CAKE_ECANCELED : 0;
}

static void scans_stop_when_told(cake__suite_t *suite)
{
    int calls = 0;
    cake_scan_t all = {.limit = 0};
    write_keys(suite);
    int err = suite->storage->ops->scan(suite->storage, cake__slice_str("k"), &all, stop_third, &calls);
    CAKE__CHECK(suite, err == CAKE_ECANCELED && calls == 3);
    CAKE__CHECK(suite, cake__suite_commit_one(suite, cake__suite_erase("k", cake__slice_str("b"))) == 0);
}

static void binary_keys_are_found(cake__suite_t *suite)
{
    write_keys(suite);
    for (size_t i = 0; i < KEY_COUNT && !suite->failed; i++) {
        char value = (char)i;
        if (is_tombstone(i))
            cake__suite_expect_tombstone(suite, "k", slice_of(keys[i]), i);
        else
            cake__suite_expect_live(suite, "k", slice_of(keys[i]), cake__slice(&value, 1), i);
    }
}

const cake__suite_case_t cake__suite_scan_cases[] = {
    {"scans: order, prefix, after, limit, bytes 00 and ff", scans_are_ordered, false},
    {"scans go on after the last key of a page", scans_go_on_page_by_page, false},
    {"scans stop when told, and what follows works", scans_stop_when_told, false},
    {"binary keys that differ by little are told apart", binary_keys_are_found, false},
    {NULL, NULL, false},
};
