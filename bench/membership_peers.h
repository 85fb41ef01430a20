/* membership_peers.h: what memberlist (the core of serf) and chitchat need for what bench-membership measures. How
 * it was measured is in docs/membership.md. "-": it has no such thing. The worst of the runs, where ours is the p99;
 * sent bytes and processor time as means. */
#ifndef CAKE_BENCH_MEMBERSHIP_PEERS_H
#define CAKE_BENCH_MEMBERSHIP_PEERS_H

#define PEER_CRASH_10       "7.9", "9.0"
#define PEER_CRASH_10_LOSS  "6.8", "10.0"
#define PEER_CRASH_100      "10.0", "11.0"
#define PEER_CRASH_100_LOSS "13.0", "12.9"
#define PEER_STATE_10       "-", "2.0"
#define PEER_STATE_10_LOSS  "-", "3.0"
#define PEER_STATE_100      "-", "2.9"
#define PEER_STATE_100_LOSS "-", "4.1"
#define PEER_BYTES_10       "0.08", "2.7"
#define PEER_BYTES_10_LOSS  "0.26", "1.8"
#define PEER_BYTES_100      "0.08", "26.7"
#define PEER_BYTES_100_LOSS "0.29", "17.5"
#define PEER_CPU_10         "0.13", "0.02"
#define PEER_CPU_100        "0.09", "0.09"
#define PEER_DEATHS_10      "0 in 0.2 h", "0 in 0.2 h"
#define PEER_DEATHS_100     "0 in 1.7 h", "0 in 1.7 h"
#define PEER_START_60       "0.74", "6.1 (100)"

#endif
