/* flow.h - how data flows in each kind of operation. Used on every floor, knows none. */
#ifndef SERRY_FLOW_H
#define SERRY_FLOW_H

#include <serry/call.h>

typedef struct flow {
    bool combine;   /* the pieces of all members are reduced into one */
    bool from_root; /* only the root gives */
    bool to_root;   /* only the root gets */
    bool send_n;    /* a member gives one block for each rank, and gets the one of its number */
    bool recv_n;    /* a member gets one block from each rank */
} flow;

extern const flow serry_flows[SERRY_KINDS];

#endif
