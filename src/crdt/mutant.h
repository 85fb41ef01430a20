/* mutant.h: deliberately broken rules, compiled into the test program crdt-schedule only (CAKE_MUTANTS): the
 * checker must notice each of them. Everywhere else the macro is the constant false and nothing remains of them. */
#ifndef CAKE_CRDT_MUTANT_H
#define CAKE_CRDT_MUTANT_H

#ifdef CAKE_MUTANTS
/* name, what is broken. "caller": broken in the schedule itself, which then does not do what replica.h asks of it.
 *
 * Mutants of the model without a counterpart here: erasefirst, dropnoflush (rows, C, g and H are one batch:
 * killnotatomic, ctxfirst and metasplit tear it); selfmemory (a tombstone and the dots below it become durable in
 * the batch that drops it); stalemarker, norollback, noconfirm (no actor is ever resumed); noreserve (a stamp that
 * left the process is at or below a stored record or H, which the clock begins above). */
#define CAKE__MUTANTS(X)                                                                                               \
    X(none, "the correct protocol")                                                                                    \
    X(seen, "an operation whose dot is in C is processed again")                                                       \
    X(noH, "eager operations at or below H are applied")                                                               \
    X(noS, "delta sessions never look at G")                                                                           \
    X(fincount, "FIN is taken although chunks are missing")                                                            \
    X(earlyfin, "FIN is built before the last chunk")                                                                  \
    X(noG, "FIN does not join g")                                                                                      \
    X(noG2, "G is checked when the session opens, not again later")                                                    \
    X(nokill, "repair does not kill")                                                                                  \
    X(norestamp, "ambiguous inserts are kept as they are")                                                             \
    X(chunkcheck, "G_r is not rechecked at chunks, only FIN is checked")                                               \
    X(fincheck, "G_z is not rechecked at FIN, only chunks are checked")                                                \
    X(noHjoin, "FIN does not join H")                                                                                  \
    X(graw, "G is read as all seq <= g[actor], without the restriction to C")                                          \
    X(stalechunk, "chunks of a closed session are still applied")                                                      \
    X(notoken, "messages of a session are recognised by the id of r alone")                                            \
    X(joinepoch, "the sender may drop during a JOIN session")                                                          \
    X(repairepoch, "the sender may drop during a REPAIR session")                                                      \
    X(latecompare, "FIN does not wait for the comparison")                                                             \
    X(nofloor, "a running repair does not raise the eager floor")                                                      \
    X(noclockraise, "a running repair does not raise the clock above the sender's H")                                  \
    X(shared, "other sessions may write into r during a repair or a join")                                             \
    X(noblanket, "repair keeps tombstones at or below the sender's H")                                                 \
    X(samehlc, "a reissue gets a fresh dot but keeps its hlc")                                                         \
    X(nodrift, "no operation is ever refused as too far ahead")                                                        \
    X(driftskip, "a session goes on after a refused operation")                                                        \
    X(hdrift, "H from a peer is joined without a drift check")                                                         \
    X(noadvance, "an applied operation does not advance the local clock")                                              \
    X(wrapcount, "the 16-bit counter wraps instead of carrying")                                                       \
    X(notie, "writes are ordered by hlc alone")                                                                        \
    X(exactstable, "stable = every peer acknowledged this very dot")                                                   \
    X(noholewait, "holes below a stable tombstone do not delay its drop")                                              \
    X(holeforever, "holes below a stable tombstone block its drop for ever")                                           \
    X(nohold, "writes and eager operations are taken before the first FIN")                                            \
    X(joinpartial, "left-overs of a broken first session count as empty")                                              \
    X(keepsession, "a session survives the abort of a change that held its messages")                                  \
    X(rangeblind, "ranges that differ are answered as equal")                                                          \
    X(rangeunseen, "records that only one side has seen are not asked about")                                          \
    X(rangeround, "ids are asked about before all answers about ranges are there")                                     \
    X(rangelast, "the first ids asked about are taken for the last")                                                   \
    X(blanketpart, "only the first tombstones below the sender's H are dropped")                                       \
    X(foldholes, "actors are retired although dots of them are missing")                                               \
    X(foldunacked, "actors are retired although not all replicas have their dots")                                     \
    X(foldnoG, "what retired actors dropped no longer counts as dropped")                                              \
    X(foldhash, "a reference to a table is taken for whatever table is there")                                         \
    X(folddiff, "records of retired actors are not sent to who lacks them")                                            \
    X(foldjoin, "FIN does not bring the retired actors of the sender")                                                 \
    X(foldforget, "retired actors are forgotten instead of kept in the table")                                         \
    X(foldbase, "a retired actor that writes again begins with nothing")                                               \
    X(reuse, "caller: a restart keeps the actor")                                                                      \
    X(killnotatomic, "caller: the erasures of a batch are written before the rest")                                    \
    X(ctxfirst, "caller: the summary of a batch is written before its rows")                                           \
    X(metasplit, "caller: C of a batch is written before g and H")                                                     \
    X(ackmemory, "caller: contexts are acknowledged before the batch is durable")                                      \
    X(ackvolatile, "caller: operations are acknowledged before the batch is durable")                                  \
    X(ackrejected, "caller: ignored operations are acknowledged too")

enum cake__mutant_name {
#define CAKE__MUTANT_ENUM(name, text) CAKE__MUTANT_##name,
    CAKE__MUTANTS(CAKE__MUTANT_ENUM)
#undef CAKE__MUTANT_ENUM
};

extern enum cake__mutant_name cake__mutant;
#define CAKE__MUTANT(name) (cake__mutant == CAKE__MUTANT_##name)
#else
#define CAKE__MUTANT(name) false
#endif

#endif
