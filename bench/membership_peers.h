/* membership_peers.h: what memberlist (the core of serf) and chitchat need for what bench-membership measures. How it was
 * measured is in docs/membership.md. "-": it has no such thing. */
#ifndef CAKE_BENCH_MEMBERSHIP_PEERS_H
#define CAKE_BENCH_MEMBERSHIP_PEERS_H

#define PEER_CRASH_10       "", ""
#define PEER_CRASH_10_LOSS  "", ""
#define PEER_CRASH_100      "", ""
#define PEER_CRASH_100_LOSS "", ""
#define PEER_STATE_10       "-", ""
#define PEER_STATE_10_LOSS  "-", ""
#define PEER_STATE_100      "-", ""
#define PEER_STATE_100_LOSS "-", ""
#define PEER_BYTES_10       "", ""
#define PEER_BYTES_10_LOSS  "", ""
#define PEER_BYTES_100      "", ""
#define PEER_BYTES_100_LOSS "", ""
#define PEER_CPU_10         "", ""
#define PEER_CPU_100        "", ""
#define PEER_DEATHS_10      "", ""
#define PEER_DEATHS_100     "", ""
#define PEER_START_60       "", ""

#endif
