/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A deployment in simulated time: replicas (engines) behind a router, a load driver, observers, power books. One
 * apmw_sim owns everything and runs in one thread; the same inputs and seed give the same bytes. */
#ifndef APMW_CLUSTER_H
#define APMW_CLUSTER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "apmw/engine.h"
#include "apmw/kv_connector.h"
#include "apmw/records.h"
#include "apmw/status.h"
#include "apmw/trace.h"

typedef struct apmw_sim apmw_sim;

/* A load driver. start is called once at time 0; it schedules on apmw_sim_des and submits requests. Requests are
 * owned by the driver; their on_done is set by the driver. */
typedef struct apmw_workload {
    void *self;
    apmw_status (*start)(void *self, apmw_sim *sim, apmw_error *err);
    void (*free)(void *self);
} apmw_workload;

typedef enum apmw_routing {
    APMW_ROUTING_AFFINITY,     /* an agent stays with the replica (and rank) of its first request, least loaded then */
    APMW_ROUTING_ROUND_ROBIN,
    APMW_ROUTING_LEAST_LOADED,
    APMW_ROUTING_KV_AWARE      /* longest match, least loaded among equals */
} apmw_routing;

/* What routers know of the engines. */
typedef struct apmw_router_knowledge {
    apmw_time delay_ns;  /* age that loads may have, and time until a sending counts; 0 = as it is */
    bool kv_by_sending;  /* kv-aware: matches what the router has sent where and knows of no eviction; false: the pools
                            themselves */
} apmw_router_knowledge;

/* How the KV of a prompt gets from a prefill engine to a decode engine. A transfer takes the way out of one rank and the
 * way into another, each for as long as its bytes take there and first come, first served; it ends when the slower of the
 * two does. Tokens that the decode rank has already are not sent. */
typedef struct apmw_kv_link {
    double out_bytes_per_s, in_bytes_per_s; /* of one prefill and of one decode rank; INFINITY = no limit */
    double bytes_per_token;                 /* of KV, over the accelerators of a rank */
    double bytes_per_request;               /* that a sequence has whatever its length (windows, states) */
    apmw_time latency_ns;                   /* of a transfer: handshake and first byte */
    double handover_ns_per_token;           /* work on each token sent that holds up neither link nor pass, many at a time */
    /* Decode takes its blocks before the prompt is computed (SGLang), so that chunks are sent as they are done: the bytes are
     * on the link from the beginning of the prompt, the last chunk's, of up to `last_chunk_tokens`, from its end.
     * false: all are sent at the end (vLLM, TensorRT-LLM). */
    bool decode_first;
    int64_t last_chunk_tokens; /* 0 = the whole prompt is one chunk */
} apmw_kv_link;

typedef struct apmw_sim_config {
    const apmw_engine_config *engines; /* n_engines replicas; .streams is filled by the sim */
    size_t n_engines;
    /* The first n_prefill of them compute prompts and hand them to the others, which decode; 0 = each does both. */
    size_t n_prefill;
    apmw_kv_link link;
    apmw_router_knowledge knowledge;
    apmw_routing decode_routing; /* `routing` is then that of the prefill engines */
    apmw_routing routing;
    /* Tiers of KV below the HBM of the engines that compute prompts; borrowed, NULL = none. */
    const apmw_tiers_setup *tiers;
    uint64_t seed;
} apmw_sim_config;

/* The workload is owned by the sim from now on, even on failure. Probes are borrowed. */
apmw_status apmw_sim_create(const apmw_sim_config *config, apmw_workload workload, const apmw_probe *const *probes,
                            size_t n_probes, apmw_sim **out, apmw_error *err);
void apmw_sim_free(apmw_sim *sim);
/* Runs until no event is left, `until`, or apmw_sim_stop. Then calls on_end of the probes. */
apmw_status apmw_sim_run(apmw_sim *sim, apmw_time until, apmw_error *err);
void apmw_sim_stop(apmw_sim *sim);
apmw_des *apmw_sim_des(apmw_sim *sim);
apmw_streams *apmw_sim_streams(apmw_sim *sim);
/* Routes and submits now. record.agent is the session for affinity. */
void apmw_sim_submit(apmw_sim *sim, apmw_request *request);
size_t apmw_sim_engines(const apmw_sim *sim);
apmw_engine *apmw_sim_engine(apmw_sim *sim, size_t i);
/* Bytes of KV sent from prefill to decode engines so far, and how long transfers have waited for a link. */
void apmw_sim_transfers(const apmw_sim *sim, double *bytes, apmw_time *waited_ns);

/* NULL if there are none. */
const apmw_tiers *apmw_sim_tiers(const apmw_sim *sim);

/* Load driver of the measured serving points (InferenceX client): `slots` requests in flight, n_requests in all, all
 * slots start at time 0, the next request `gap_ns` after one ends; input and output lengths uniform on
 * [int(ratio * L), L] with numpy's RandomState(seed).randint, all inputs first. No shared prefix. */
typedef struct apmw_fixed_loop {
    int64_t slots, n_requests;
    int64_t isl, osl;
    double ratio;        /* 1 = exact lengths */
    uint32_t seed;
    apmw_time gap_ns;
} apmw_fixed_loop;
apmw_status apmw_workload_fixed_loop(const apmw_fixed_loop *config, apmw_workload *out, apmw_error *err);

/* Requests as a log lists them, in a closed loop: `slots` in flight, the next goes out the moment one ends. Each finds the
 * first n_cached tokens of its prompt on every rank, and no more: prompts are branches of one root, which silent requests put
 * there before the first of the list goes out. */
typedef struct apmw_listed_request {
    int64_t n_prompt, n_out, n_cached; /* n_cached in whole blocks of KV, or the rest of the last one is not found */
} apmw_listed_request;
typedef struct apmw_listed {
    const apmw_listed_request *requests; /* borrowed */
    size_t n_requests;
    int64_t slots;
} apmw_listed;
apmw_status apmw_workload_listed(const apmw_listed *config, apmw_workload *out, apmw_error *err);

/* A trajectory from one of its turns on. */
typedef struct apmw_start {
    int32_t trajectory, turn;
    apmw_time after_ns; /* the agent waits so long after its end */
} apmw_start;

/* Closed-loop agents that replay trajectories one after another (AgentPerf): agent i starts at i * spawn_interval,
 * its first trajectory at a random turn 0..max_start_offset, and takes the next trajectory when one ends. Each play
 * is salted: it never hits another's KV, nor another play of itself; with share_global the tools-and-system prefix of
 * the trajectory's group is shared across agents. */
typedef struct apmw_agents {
    const apmw_trace *trace;   /* borrowed */
    int64_t n_agents;
    apmw_time spawn_interval_ns;
    int max_start_offset;
    int64_t max_output_tokens; /* 0 = as recorded */
    bool share_global;
    bool output_cached;        /* generated tokens stay findable where the trace says they recur (shared_out) */
    int64_t max_context;       /* a trajectory ends before the first turn whose prompt + output exceed it; 0 = none */
    double delay_scale;        /* on tool delays, 1 = as recorded */
    bool concurrent_lanes;     /* sub-agents run beside the main line, as recorded; false: in turn order, one request at
                                  a time. A trajectory counts as ended with the last turn of its main line. */
    uint64_t seed;             /* order of trajectories and start offsets */
    int64_t plays_per_agent;   /* stop an agent after so many trajectories; 0 = endless */
    /* Order and start given instead of drawn (borrowed; NULL = drawn): agent i begins with starts[i], and whoever ends a
     * trajectory takes the next that nobody has had, until there is none. Each goes out after the wait of its first turn.
     * A start whose turn does not fit the context is passed over. */
    const apmw_start *starts;
    size_t n_starts;
    /* A client that hears nothing for so long gives the turn up and goes on with the next one after its delay; 0 = it waits.
     * Only what waits for admission by an engine that both computes prompts and decodes is given up: a prompt that is being
     * computed is about to answer. */
    apmw_time first_token_timeout_ns;
} apmw_agents;
apmw_status apmw_workload_agents(const apmw_agents *config, apmw_workload *out, apmw_error *err);

/* Lanes as InferenceX AgentX replays them (sim/protocol/tiers.json): each lane plays one live session, sub-agents beside
 * the main line, and takes the next one from its first turn when the whole tree has drained. The first session of a lane
 * starts at a uniformly drawn share of its main-line turns; before that the warm-up sends the turns that come just before,
 * with one output token each and no waits. The profile begins for all lanes when the last is warm, or at the end of the
 * grace. Output lengths are as recorded. Each play is salted as those of apmw_agents are. A turn beyond max_context is sent
 * and refused, which ends the session; the start is drawn among the turns that fit. */
typedef struct apmw_lanes {
    const apmw_trace *trace;      /* borrowed */
    int64_t n_lanes;
    double start_from, start_to;  /* shares of the first session's main-line turns */
    int warmup_turns;             /* most turns that a lane's warm-up sends */
    apmw_time warmup_grace_ns;    /* the profile begins at the latest then; 0 = whenever all are warm */
    apmw_time profile_ns;         /* nothing is sent after so much of the profile; 0 = endless */
    apmw_time tree_idle_ns;       /* longest wait of a lane with nothing in flight; 0 = as recorded */
    apmw_time system_idle_ns;     /* longest time with nothing at all in flight; 0 = as it comes */
    bool share_global, output_cached; /* as apmw_agents */
    int64_t max_context;          /* 0 = none */
    double delay_scale;
    uint64_t seed;
    int64_t sessions_per_lane;    /* stop a lane after so many; 0 = endless */
    void (*on_profile)(void *self, apmw_time now); /* the profile begins; may be NULL */
    void *self;
} apmw_lanes;
apmw_status apmw_workload_lanes(const apmw_lanes *config, apmw_workload *out, apmw_error *err);

#endif
