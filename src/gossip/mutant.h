/* mutant.h: rules that are switched off on purpose, in the test programs gossip-*-mutants only (CAKE_MUTANTS):
 * tests.cmake names for each the test that has to fail then. Everywhere else the macro is the constant false and
 * nothing remains. */
#ifndef CAKE_GOSSIP_MUTANT_H
#define CAKE_GOSSIP_MUTANT_H

#ifdef CAKE_MUTANTS
#include <stdlib.h>
#include <string.h>

static inline bool cake__gossip_is_mutant(const char *name)
{
    const char *chosen = getenv("CAKE_GOSSIP_MUTANT");
    return chosen != NULL && strcmp(chosen, name) == 0;
}
#define GOSSIP_MUTANT(name) cake__gossip_is_mutant(#name)
#else
#define GOSSIP_MUTANT(name) false
#endif

#endif
