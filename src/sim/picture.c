/* A run as SVG: what happened is gathered while it runs, and drawn at its end.
 *
 *      net      |====cut=====|         marks of the whole cluster
 *      node 1   --[op]----x   |>----   marks above the line, operations on it, its state as the band
 *                 \  /                 messages from row to row
 *      node 2   ---\/------------
 *
 * Bounds: the last MESSAGES_MAX messages, OPS_MAX operations and MARKS_MAX marks; the last WINDOW_NS before the end. */
#include "sim/sim.h"

#include <stdio.h>
#include <stdlib.h>

#define MESSAGES_MAX  6000u
#define MARKS_MAX     4000u
#define OPS_MAX       4000u
#define SPANS_MAX     4000u
#define WINDOW_NS     (40 * CAKE__SECOND_NS)
#define MARK_TEXT     120u
#define LEFT          80.0
#define TOP           90.0
#define ROW           64.0
#define WIDTH_MIN     1000.0
#define PX_PER_SECOND 160.0

typedef struct {
    uint64_t sent_ns, arrives_ns; /* 0: lost */
    uint32_t bytes;
    uint16_t from, to;
    bool is_stream;
} message_t;

typedef struct {
    uint64_t at_ns;
    uint16_t row; /* 0: the net */
    cake__mark_t kind;
    char text[MARK_TEXT];
} mark_t;

typedef struct {
    uint64_t from_ns;
    uint16_t row;
    cake__look_t look;
} span_t;

/* Rings: the newest stay. Entry i of n is at (count - n + i) % max. */
struct cake__picture {
    FILE *out;
    message_t messages[MESSAGES_MAX];
    mark_t marks[MARKS_MAX];
    span_t spans[SPANS_MAX];
    uint64_t message_count, mark_count, span_count;
    uint64_t from_ns, to_ns;
    double px_per_ns;
};

static uint64_t kept(uint64_t count, uint64_t most)
{
    return count < most ? count : most;
}

/* ---- gathering ----------------------------------------------------------------------------------------------------*/

void cake__picture_look(cake__trial_t *trial, uint32_t row, cake__look_t look)
{
    cake__picture_t *picture = trial->picture;
    if (picture != NULL)
        picture->spans[picture->span_count++ % SPANS_MAX] =
            (span_t){cake__world_now_ns(trial->world), (uint16_t)row, look};
}

void cake__picture_mark(cake__trial_t *trial, uint32_t row, cake__mark_t kind, const char *text)
{
    cake__picture_t *picture = trial->picture;
    if (picture == NULL)
        return;
    mark_t *mark = &picture->marks[picture->mark_count++ % MARKS_MAX];
    *mark = (mark_t){.at_ns = cake__world_now_ns(trial->world), .row = (uint16_t)row, .kind = kind};
    snprintf(mark->text, sizeof mark->text, "%s", text);
}

/* Of a host; 0: of no node. */
static uint32_t row_of(const cake__trial_t *trial, uint32_t host)
{
    for (uint32_t i = 0; i < trial->node_count; i++) {
        if (cake__host_number(trial->nodes[i]->host) == host)
            return i + 1;
    }
    return 0;
}

void cake__picture_flight(void *arg, uint32_t from, uint32_t to, uint64_t arrives_ns, size_t bytes, bool is_stream)
{
    cake__trial_t *trial = arg;
    cake__picture_t *picture = trial->picture;
    from = row_of(trial, from);
    to = row_of(trial, to);
    if (from == to || bytes == 0)
        return;
    picture->messages[picture->message_count++ % MESSAGES_MAX] = (message_t){
        cake__world_now_ns(trial->world), arrives_ns, (uint32_t)bytes, (uint16_t)from, (uint16_t)to, is_stream};
}

/* ---- drawing ------------------------------------------------------------------------------------------------------*/

static double x_of(const cake__picture_t *picture, uint64_t at_ns)
{
    uint64_t within = at_ns < picture->from_ns ? 0 : cake__min_u64(at_ns, picture->to_ns) - picture->from_ns;
    return LEFT + (double)within * picture->px_per_ns;
}

static double y_of(uint32_t row)
{
    return TOP + ROW * row;
}

/* No byte of a text can leave its place. */
static void put_text(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '&')
            fputs("&amp;", out);
        else if (*text == '<')
            fputs("&lt;", out);
        else if (*text == '>')
            fputs("&gt;", out);
        else if (*text == '"')
            fputs("&quot;", out);
        else
            fputc((unsigned char)*text < 0x20 || (unsigned char)*text > 0x7e ? '?' : *text, out);
    }
}

static double seconds(uint64_t at_ns)
{
    return (double)at_ns / (double)CAKE__SECOND_NS;
}

static const char style[] =
    "text{font:12px sans-serif;fill:#222}.h{font-weight:bold}.up{fill:#e8f5e9}.down{fill:#bdbdbd}.paused{fill:#bbdefb}"
    ".slow{fill:#fff3c4}.cut{fill:#ffcdd2}.m{stroke:#1565c0;stroke-width:.7;opacity:.55}.d{stroke:#9e9e9e;stroke-width:"
    ".4;"
    "opacity:.5}.l{stroke:#e53935;stroke-width:.8;opacity:.6}.ok{fill:#2e7d32}.no{fill:#e53935}.un{fill:#fb8c00}.rd{"
    "fill:#5e35b1;opacity:.6}.k{fill:#37474f}.v{stroke:#d50000;stroke-width:2}.g{stroke:#ddd;stroke-width:.5}.vt{fill:"
    "#d50000;font-weight:bold}";

static void draw_head(const cake__trial_t *trial, double width, double height)
{
    FILE *out = trial->picture->out;
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\">\n"
            "<style>%s</style>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n<text class=\"h\" x=\"10\" "
            "y=\"20\">seed %llu: ",
            width, height, width, height, style, (unsigned long long)trial->seed);
    put_text(out, trial->result->ok ? "passed" : trial->result->violation);
    fputs("</text>\n<text x=\"10\" y=\"38\">", out);
    put_text(out, trial->result->faults);
    fputs("</text>\n<text x=\"10\" y=\"54\">green: acknowledged, red: refused, orange: unknown, purple: read; blue "
          "lines: "
          "calls, grey: datagrams, red: lost; bands: grey down, blue paused, yellow slow, red cut</text>\n",
          out);
}

static void draw_seconds(const cake__trial_t *trial, double height)
{
    const cake__picture_t *picture = trial->picture;
    for (uint64_t at_ns = picture->from_ns; at_ns <= picture->to_ns; at_ns += CAKE__SECOND_NS) {
        double x = x_of(picture, at_ns);
        fprintf(picture->out,
                "<line class=\"g\" x1=\"%.1f\" y1=\"60\" x2=\"%.1f\" y2=\"%.0f\"/><text x=\"%.1f\" y=\"68\">%.0f "
                "s</text>\n",
                x, x, height - 10, x + 2, seconds(at_ns));
    }
}

/* Row by row: each span lasts until the next one of its row. */
static void draw_bands(const cake__trial_t *trial)
{
    static const char *const classes[] = {"down", "up", "paused", "slow", "cut"};
    const cake__picture_t *picture = trial->picture;
    uint64_t n = kept(picture->span_count, SPANS_MAX);
    for (uint32_t row = 0; row <= trial->node_count; row++) {
        span_t now = {0, (uint16_t)row, row == 0 ? CAKE__LOOKS_UP : CAKE__LOOKS_DOWN};
        for (uint64_t i = 0; i <= n; i++) {
            const span_t *next = &picture->spans[(picture->span_count - n + i) % SPANS_MAX];
            uint64_t until_ns = i == n ? picture->to_ns : next->from_ns;
            if ((i < n && next->row != row) || (i < n && until_ns <= picture->from_ns && (now = *next, true)))
                continue;
            double x = x_of(picture, now.from_ns), end = x_of(picture, until_ns);
            fprintf(picture->out, "<rect class=\"%s\" x=\"%.1f\" y=\"%.0f\" width=\"%.1f\" height=\"16\"/>\n",
                    classes[now.look], x, y_of(row) - 8, end - x);
            if (i < n)
                now = *next;
        }
        fprintf(picture->out, "<text class=\"h\" x=\"10\" y=\"%.0f\">", y_of(row) + 4);
        if (row == 0)
            fputs("net</text>\n", picture->out);
        else
            fprintf(picture->out, "node %u</text>\n", (unsigned)row);
    }
}

static void draw_messages(const cake__trial_t *trial)
{
    const cake__picture_t *picture = trial->picture;
    uint64_t n = kept(picture->message_count, MESSAGES_MAX);
    for (uint64_t i = 0; i < n; i++) {
        const message_t *message = &picture->messages[(picture->message_count - n + i) % MESSAGES_MAX];
        bool is_lost = message->arrives_ns == 0;
        if (message->sent_ns < picture->from_ns || message->from > trial->node_count || message->to > trial->node_count)
            continue;
        double x = x_of(picture, message->sent_ns), y = y_of(message->from), end = y_of(message->to);
        double arrives = is_lost ? x + 3 : x_of(picture, message->arrives_ns);
        fprintf(picture->out, "<line class=\"%s\" x1=\"%.1f\" y1=\"%.0f\" x2=\"%.1f\" y2=\"%.1f\"/>\n",
                is_lost              ? "l"
                : message->is_stream ? "m"
                                     : "d",
                x, y, arrives, is_lost ? y + (end > y ? 20.0 : -20.0) : end);
    }
}

static void draw_ops(const cake__trial_t *trial)
{
    static const char *const kinds[] = {"put", "del", "get", "get_at", "scan"};
    static const char *const states[] = {"pending", "acknowledged", "refused", "unknown"};
    const cake__picture_t *picture = trial->picture;
    uint64_t drawn = 0;
    for (uint32_t i = trial->op_count; i-- > 0 && drawn < OPS_MAX; drawn++) {
        const cake__op_t *op = trial->ops[i];
        uint64_t done_ns = op->done_ns != 0 ? op->done_ns : op->issued_ns;
        if (done_ns < picture->from_ns)
            continue;
        double x = x_of(picture, op->issued_ns), width = x_of(picture, done_ns) - x;
        bool is_write = op->kind == CAKE__OP_PUT || op->kind == CAKE__OP_DEL;
        static const char *const classes[] = {"un", "ok", "no", "un"};
        fprintf(picture->out,
                "<rect class=\"%s\" x=\"%.1f\" y=\"%.0f\" width=\"%.1f\" height=\"6\"><title>%.3f s: %s #%u %u/k%05u "
                "at %s: "
                "%s%s%s</title></rect>\n",
                is_write ? classes[op->state] : "rd", x, y_of(op->node_id) - 15, width < 2 ? 2 : width,
                seconds(op->issued_ns), kinds[op->kind], op->number, (unsigned)op->keyspace, (unsigned)op->keys[0],
                cake_consistency_name((cake_consistency_t)op->level), states[op->state], op->err != 0 ? ", " : "",
                op->err != 0 ? cake_err_name(op->err) : "");
    }
}

static void draw_marks(const cake__trial_t *trial)
{
    const cake__picture_t *picture = trial->picture;
    uint64_t n = kept(picture->mark_count, MARKS_MAX);
    for (uint64_t i = 0; i < n; i++) {
        const mark_t *mark = &picture->marks[(picture->mark_count - n + i) % MARKS_MAX];
        if (mark->at_ns < picture->from_ns || mark->row > trial->node_count)
            continue;
        double x = x_of(picture, mark->at_ns), y = y_of(mark->row) + 12;
        fprintf(picture->out, "<path class=\"%s\" d=\"M%.1f %.0fl3 7h-6z\"><title>%.3f s: ",
                mark->kind == CAKE__MARK_DEATH ? "no" : "k", x, y, seconds(mark->at_ns));
        put_text(picture->out, mark->text);
        fputs("</title></path>\n", picture->out);
    }
}

static void draw(const cake__trial_t *trial)
{
    cake__picture_t *picture = trial->picture;
    picture->to_ns = cake__world_now_ns(trial->world) + CAKE__SECOND_NS / 10;
    picture->from_ns = picture->to_ns > WINDOW_NS ? picture->to_ns - WINDOW_NS : 0;
    picture->from_ns -= picture->from_ns % CAKE__SECOND_NS;
    double width = seconds(picture->to_ns - picture->from_ns) * PX_PER_SECOND, height = y_of(trial->node_count) + 50;
    width = width < WIDTH_MIN ? WIDTH_MIN : width;
    picture->px_per_ns = width / (double)(picture->to_ns - picture->from_ns);
    draw_head(trial, width + LEFT + 40, height);
    draw_seconds(trial, height);
    draw_bands(trial);
    draw_messages(trial);
    draw_ops(trial);
    draw_marks(trial);
    if (!trial->result->ok) {
        double x = x_of(picture, picture->to_ns - CAKE__SECOND_NS / 10);
        fprintf(picture->out, "<line class=\"v\" x1=\"%.1f\" y1=\"60\" x2=\"%.1f\" y2=\"%.0f\"><title>", x, x,
                height - 10);
        put_text(picture->out, trial->result->violation);
        fprintf(picture->out,
                "</title></line><text class=\"vt\" text-anchor=\"end\" x=\"%.1f\" y=\"%.0f\">violation</text>\n", x - 4,
                height - 14);
    }
    fputs("</svg>\n", picture->out);
}

void cake__picture_end(cake__trial_t *trial)
{
    if (trial->picture != NULL)
        draw(trial);
}

int cake_sim_draw_svg(uint64_t seed, const cake_sim_options_t *options, FILE *out, cake_sim_result_t *result)
{
    cake_sim_result_t *own = result != NULL ? NULL : cake__sim_alloc(sizeof *own);
    cake__picture_t *picture = cake__sim_alloc(sizeof *picture);
    picture->out = out;
    int err = cake__sim_run(seed, options, result != NULL ? result : own, picture);
    if (err == 0 && (fflush(out) != 0 || ferror(out) != 0))
        err = CAKE_EIO;
    cake__free(&cake__libc_alloc, picture);
    cake__free(&cake__libc_alloc, own);
    return err;
}
