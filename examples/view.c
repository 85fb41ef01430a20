/* A message with a nested list, encoded once and read where it lies. */
#include <datacake/view.h>
#include <stdio.h>

#define ITEM_FIELDS(F, T) F(T, STRING, name, _) F(T, U32, count, 1) F(T, DOUBLE, price, 0)
CAKE_VIEW(item, ITEM_FIELDS)
#define ORDER_FIELDS(F, T) F(T, U64, id, 0) F(T, OPT_STRING, note, _) F(T, MESSAGES, items, item)
CAKE_VIEW(order, ORDER_FIELDS)

int main(void)
{
    const item_t items[] = {{.name = "flour", .count = 2, .price = 1.5}, {.name = "eggs", .count = 6, .price = 0.25}};
    const order_t order = {.id = 7, .items = items, .items_count = 2};
    order_view_t view;
    void *data = NULL;
    size_t len;
    int err;

    if ((err = order_encode(&order, CAKE_VIEW_CHECKSUM, NULL, &data, &len)) != 0 ||
        (err = order_view_init(&view, data, len)) != 0) {
        fprintf(stderr, "view: %s\n", cake_strerror(err));
    } else {
        printf("order %d, %s, in %zu bytes\n", (int)order_id(view), order_has_note(view) ? order_note(view) : "no note",
               len);
        for (size_t i = 0; i < order_items_count(view); i++) {
            item_view_t item = order_items_at(view, i);
            printf("%u %s at %.2f\n", item_count(item), item_name(item), item_price(item));
        }
    }
    cake_view_free(NULL, data);
    return err != 0;
}
