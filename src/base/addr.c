/* Numeric addresses and their text form. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"

static int parse_port(const char *text, uint16_t *out)
{
    unsigned long port = 0;
    size_t digits = strlen(text);
    if (digits == 0 || digits > 5 || strspn(text, "0123456789") != digits)
        return CAKE_EPARSE;
    port = strtoul(text, NULL, 10);
    if (port > UINT16_MAX)
        return CAKE_EPARSE;
    *out = (uint16_t)port;
    return 0;
}

int cake_addr_parse(const char *text, cake_addr_t *out)
{
    cake_addr_t addr = {0};
    char host[CAKE_ADDR_TEXT_MAX];
    const char *colon = text == NULL ? NULL : strrchr(text, ':');
    if (colon == NULL || (size_t)(colon - text) >= sizeof host)
        return CAKE_EPARSE;
    size_t len = (size_t)(colon - text);
    bool bracketed = len >= 2 && text[0] == '[' && text[len - 1] == ']';
    memcpy(host, text + (bracketed ? 1 : 0), len - (bracketed ? 2 : 0));
    host[len - (bracketed ? 2 : 0)] = '\0';
    if (inet_pton(bracketed ? AF_INET6 : AF_INET, host, addr.ip) != 1)
        return CAKE_EPARSE;
    addr.family = bracketed ? 6 : 4;
    int err = parse_port(colon + 1, &addr.port);
    if (err != 0)
        return err;
    *out = addr;
    return 0;
}

void cake_addr_format(const cake_addr_t *addr, char out[CAKE_ADDR_TEXT_MAX])
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (addr->family == 0) {
        snprintf(out, CAKE_ADDR_TEXT_MAX, "-");
        return;
    }
    inet_ntop(addr->family == 6 ? AF_INET6 : AF_INET, addr->ip, host, sizeof host);
    snprintf(out, CAKE_ADDR_TEXT_MAX, addr->family == 6 ? "[%s]:%u" : "%s:%u", host, (unsigned)addr->port);
}

bool cake_addr_equal(const cake_addr_t *a, const cake_addr_t *b)
{
    return a->family == b->family && a->port == b->port && memcmp(a->ip, b->ip, sizeof a->ip) == 0;
}
