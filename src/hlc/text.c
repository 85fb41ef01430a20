/* text.c: stamps as text, "2026-11-22T10:20:30.123Z+0042". 48 bits of milliseconds reach the year 10889, so years
 * have four or five digits. There is one text per stamp: the parser takes only what the formatter writes. */
#include <stdio.h>
#include <string.h>

#include <datacake/hlc.h>

#include "base/base.h"

#define MS_PER_DAY UINT64_C(86400000)

typedef struct civil {
    uint32_t year, month, day;
} civil_t;

/* Gregorian date of a day counted from 1970-01-01 and back, by eras of 400 years that begin in March, so that the leap
 * day is the last of its year (Hinnant, "chrono-compatible low-level date algorithms"). */
static civil_t civil_of(uint64_t days)
{
    uint64_t shifted = days + 719468, era = shifted / 146097, day_of_era = shifted % 146097;
    uint64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    uint64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint64_t month_from_march = (5 * day_of_year + 2) / 153;
    civil_t date;
    date.day = (uint32_t)(day_of_year - (153 * month_from_march + 2) / 5 + 1);
    date.month = (uint32_t)(month_from_march < 10 ? month_from_march + 3 : month_from_march - 9);
    date.year = (uint32_t)(year_of_era + era * 400 + (date.month <= 2));
    return date;
}

static uint64_t days_of(civil_t date)
{
    uint64_t year = date.year - (date.month <= 2), era = year / 400, year_of_era = year % 400;
    uint64_t month_from_march = date.month > 2 ? date.month - 3 : date.month + 9;
    uint64_t day_of_year = (153 * month_from_march + 2) / 5 + date.day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

int cake_hlc_format(cake_hlc_t ts, char *out, size_t size)
{
    uint64_t ms = cake_hlc_unix_ms(ts), in_day = ms % MS_PER_DAY;
    civil_t date = civil_of(ms / MS_PER_DAY);
    char text[64];
    int len = snprintf(text, sizeof text, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ+%04x", date.year, date.month, date.day,
                       (unsigned)(in_day / 3600000), (unsigned)(in_day / 60000 % 60), (unsigned)(in_day / 1000 % 60),
                       (unsigned)(in_day % 1000), cake_hlc_counter(ts));
    CAKE_ASSERT(len > 0 && (size_t)len < CAKE_HLC_TEXT_MAX);
    if ((size_t)len >= size)
        return CAKE_ETOOBIG;
    memcpy(out, text, (size_t)len + 1);
    return len;
}

/* The value of a digit, 16 for anything else. Hex digits are lower case. */
static uint32_t digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return (uint32_t)(c - '0');
    return c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a') + 10 : 16;
}

static bool read_number(const char **at, int digits, uint32_t base, uint32_t *out)
{
    uint32_t value = 0;
    for (int i = 0; i < digits; i++, (*at)++) {
        uint32_t digit = digit_of(**at);
        if (digit >= base)
            return false;
        value = value * base + digit;
    }
    *out = value;
    return true;
}

static bool read_mark(const char **at, char mark)
{
    return *(*at)++ == mark;
}

int cake_hlc_parse(const char *text, cake_hlc_t *out)
{
    const char *at = text, *dash = text == NULL ? NULL : strchr(text, '-');
    uint32_t hour, minute, second, ms, counter;
    civil_t date;
    if (dash == NULL || dash - text > 5)
        return CAKE_EPARSE;
    bool ok = read_number(&at, (int)(dash - text), 10, &date.year) && read_mark(&at, '-') &&
              read_number(&at, 2, 10, &date.month) && read_mark(&at, '-') && read_number(&at, 2, 10, &date.day) &&
              read_mark(&at, 'T') && read_number(&at, 2, 10, &hour) && read_mark(&at, ':') &&
              read_number(&at, 2, 10, &minute) && read_mark(&at, ':') && read_number(&at, 2, 10, &second) &&
              read_mark(&at, '.') && read_number(&at, 3, 10, &ms) && read_mark(&at, 'Z') && read_mark(&at, '+') &&
              read_number(&at, 4, 16, &counter) && *at == '\0';
    bool in_range = ok && date.year >= 1970 && date.month >= 1 && date.month <= 12 && date.day >= 1 && date.day <= 31;
    if (!in_range)
        return CAKE_EPARSE;
    uint64_t total =
        days_of(date) * MS_PER_DAY + hour * UINT64_C(3600000) + minute * UINT64_C(60000) + second * UINT64_C(1000) + ms;
    cake_hlc_t ts = cake_hlc_from_parts(total, (uint16_t)counter);
    /* 30 February, 24:00, a year of five digits that needs four, a time past the 48 bits: all of them are written in
     * another way, or not at all. */
    char again[CAKE_HLC_TEXT_MAX];
    if (cake_hlc_format(ts, again, sizeof again) < 0 || strcmp(again, text) != 0)
        return CAKE_EPARSE;
    *out = ts;
    return 0;
}
