/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a router knows: engines as they are, or as it last heard; the KV in them, or what it has sent where. */
#ifndef APMW_ROUTER_VIEW_H
#define APMW_ROUTER_VIEW_H
#include "apmw/cluster.h"

typedef struct apmw_router_view apmw_router_view;
/* engines, des and streams are borrowed; the engines may be made later. NULL when out of memory. */
apmw_router_view *apmw_router_view_create(const apmw_router_knowledge *knowledge, apmw_engine *const *engines,
                                          size_t n_engines, const apmw_des *des, const apmw_streams *streams);
void apmw_router_view_free(apmw_router_view *view);
/* Requests in flight on a rank (-1 = the engine). */
int64_t apmw_router_view_load(apmw_router_view *view, size_t engine, int rank);
/* Tokens of the prompt that the router expects in the pool of this rank. */
int64_t apmw_router_view_match(const apmw_router_view *view, size_t engine, int rank, apmw_stream stream, int64_t n_prompt);
/* A request goes there now. false = out of memory. */
bool apmw_router_view_sent(apmw_router_view *view, size_t engine, int rank, apmw_stream stream, int64_t n_prompt);

#endif
