/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef APMW_ROUTER_H
#define APMW_ROUTER_H
#include "apmw/cluster.h"

/* Where a request goes. rank -1 = the engine chooses. */
typedef struct apmw_route {
    size_t engine;
    int rank;
} apmw_route;

typedef struct apmw_router apmw_router;
/* What is passed is borrowed; engines may be filled after this call. NULL when out of memory. */
apmw_router *apmw_router_create(apmw_routing routing, const apmw_router_knowledge *knowledge, apmw_engine *const *engines,
                                size_t n_engines, const apmw_des *des, const apmw_streams *streams);
void apmw_router_free(apmw_router *router);
/* false: out of memory; the route is valid nevertheless. */
bool apmw_router_choose(apmw_router *router, const apmw_request *request, apmw_route *out);

#endif
