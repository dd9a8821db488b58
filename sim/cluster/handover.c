/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "handover.h"

#include <math.h>
#include <stdlib.h>

/* A client's request on its way. */
typedef struct hop {
    apmw_handover *owner;
    apmw_request *client;
    apmw_request prefill, decode;
    size_t from, to; /* engines */
    struct hop *prev, *next;
} hop;

struct apmw_handover {
    apmw_handover_config config;
    apmw_connector connector;
    apmw_time *free_at; /* of the link of each rank, engine after engine; made when the first transfer is */
    size_t *first_rank; /* of each engine in it */
    hop *open, *spare;
    double sent_bytes;
    apmw_time waited_ns;
};

static hop *take_hop(apmw_handover *h)
{
    hop *p = h->spare;
    if (p != NULL) {
        h->spare = p->next;
    } else {
        p = malloc(sizeof *p);
        if (p == NULL) {
            h->config.fail(h->config.self);
            return NULL;
        }
    }
    *p = (hop){.owner = h, .next = h->open};
    if (h->open != NULL) {
        h->open->prev = p;
    }
    h->open = p;
    return p;
}

static void drop_hop(hop *p)
{
    apmw_handover *h = p->owner;
    if (p->prev != NULL) {
        p->prev->next = p->next;
    } else {
        h->open = p->next;
    }
    if (p->next != NULL) {
        p->next->prev = p->prev;
    }
    p->next = h->spare;
    h->spare = p;
}

/* What the client sees: one request, from its submission to its end, with the books of both halves. */
static void finish(hop *p, apmw_request_state state, apmw_time now)
{
    apmw_handover *h = p->owner;
    apmw_request *client = p->client;
    apmw_request_record *r = &client->record;
    const apmw_request_record *a = &p->prefill.record, *b = &p->decode.record;
    const bool decoded = r->n_out > 1;
    r->state = state;
    r->engine = decoded ? (int32_t)p->to : (int32_t)p->from;
    r->rank = decoded ? b->rank : a->rank;
    r->n_cached = a->n_cached;
    r->n_fetched = a->n_fetched;
    r->n_transferred = decoded ? b->n_transferred : 0;
    r->n_recomputed = a->n_recomputed + (decoded ? b->n_recomputed : 0);
    r->n_preemptions = a->n_preemptions + (decoded ? b->n_preemptions : 0);
    r->admitted = a->admitted;
    r->first_scheduled = a->first_scheduled;
    r->first_token = decoded ? b->first_token : a->first_token;
    r->last_token = decoded ? b->last_token : a->last_token;
    r->done = now;
    drop_hop(p);
    for (size_t i = 0; i < h->config.n_probes; i++) {
        if (h->config.probes[i]->on_request != NULL) {
            h->config.probes[i]->on_request(h->config.probes[i]->self, now, r);
        }
    }
    if (client->on_done != NULL) {
        client->on_done(client, client->self, now);
    }
}

static void on_decoded(apmw_request *request, void *self, apmw_time now)
{
    hop *p = self;
    (void)request;
    finish(p, p->decode.record.state, now);
}

static void submit_part(hop *p, apmw_request *part, bool decode)
{
    apmw_handover *h = p->owner;
    apmw_route route;
    if (!apmw_router_choose(decode ? h->config.decode : h->config.prefill, part, &route)) {
        h->config.fail(h->config.self);
        return;
    }
    part->rank_hint = route.rank;
    if (decode) {
        p->to = h->config.n_prefill + route.engine;
    } else {
        p->from = route.engine;
    }
    apmw_engine_submit(h->config.engines[decode ? p->to : p->from], part);
}

static void on_transferred(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    (void)argument;
    hop *p = subject;
    const apmw_handover *h = p->owner;
    apmw_engine_release_kv(h->config.engines[p->from], &p->prefill);
    apmw_engine_fetched(h->config.engines[p->to], &p->decode);
}

static apmw_time later(apmw_time a, apmw_time b)
{
    return a > b ? a : b;
}

static apmw_time ns_of(double seconds)
{
    return seconds > 0.0 ? (apmw_time)llround(seconds * 1e9) : 0;
}

static bool make_links(apmw_handover *h)
{
    const size_t n = h->config.n_prefill + h->config.n_decode;
    size_t n_ranks = 0;
    h->first_rank = calloc(n, sizeof *h->first_rank);
    for (size_t i = 0; h->first_rank != NULL && i < n; i++) {
        h->first_rank[i] = n_ranks;
        n_ranks += (size_t)apmw_engine_ranks(h->config.engines[i]);
    }
    h->free_at = h->first_rank != NULL ? calloc(n_ranks, sizeof *h->free_at) : NULL;
    return h->free_at != NULL;
}

static apmw_time *link_of(const apmw_handover *h, size_t engine, int32_t rank)
{
    return &h->free_at[h->first_rank[engine] + (size_t)(rank > 0 ? rank : 0)];
}

/* Both halves are ready: the prompt is computed here and there is room for it there. */
static void send(hop *p, int64_t missing_tokens)
{
    apmw_handover *h = p->owner;
    const apmw_kv_link *link = &h->config.link;
    const apmw_time now = apmw_des_now(h->config.des);
    if (h->free_at == NULL && !make_links(h)) {
        h->config.fail(h->config.self);
        return;
    }
    apmw_time *out = link_of(h, p->from, p->prefill.record.rank), *in = link_of(h, p->to, p->decode.record.rank);
    const apmw_request_record *r = &p->prefill.record;
    const double bytes = link->bytes_per_token * (double)missing_tokens + link->bytes_per_request;
    /* Of chunks that were sent before, only the last is left to send now. */
    double last = bytes;
    apmw_time ready = now;
    if (link->decode_first && link->last_chunk_tokens > 0) {
        const int64_t computed = r->n_prompt - r->n_cached - r->n_fetched;
        int64_t chunk = computed % link->last_chunk_tokens;
        chunk = chunk > 0 ? chunk : link->last_chunk_tokens;
        chunk = chunk < missing_tokens ? chunk : missing_tokens;
        last = link->bytes_per_token * (double)chunk + link->bytes_per_request;
        ready = r->first_scheduled;
    }
    const apmw_time out_begin = *out > ready ? *out : ready, in_begin = *in > ready ? *in : ready;
    *out = later(out_begin + ns_of(bytes / link->out_bytes_per_s), now + ns_of(last / link->out_bytes_per_s));
    *in = later(in_begin + ns_of(bytes / link->in_bytes_per_s), now + ns_of(last / link->in_bytes_per_s));
    const apmw_time work = ns_of(1e-9 * link->handover_ns_per_token * (double)missing_tokens);
    h->sent_bytes += bytes;
    h->waited_ns += later(out_begin, in_begin) - ready;
    apmw_des_schedule(h->config.des, later(*out, *in) + link->latency_ns + work, APMW_EVENT_TRANSFER, on_transferred, p, 0);
}

static void on_refused(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    (void)argument;
    hop *p = subject;
    apmw_engine_abandon(p->owner->config.engines[p->to], &p->decode);
}

static void on_prefilled(apmw_request *request, void *self, apmw_time now)
{
    hop *p = self;
    const apmw_handover *h = p->owner;
    const bool failed = request->record.state != APMW_REQUEST_DONE;
    if (failed && h->config.link.decode_first && p->client->record.n_out > 1) {
        /* The decode engine holds blocks for it: it ends there, with what the client is told. */
        apmw_des_schedule(h->config.des, now, APMW_EVENT_TRANSFER, on_refused, p, 0);
        return;
    }
    if (failed || p->client->record.n_out == 1) {
        finish(p, request->record.state, now);
        return;
    }
    if (h->config.link.decode_first) {
        send(p, p->decode.record.n_transferred);
    } else {
        submit_part(p, &p->decode, true);
    }
}

static int64_t nothing(void *self, apmw_engine *engine, const apmw_request *request, int rank, int64_t matched)
{
    (void)self;
    (void)engine;
    (void)request;
    (void)rank;
    (void)matched;
    return 0;
}

static void on_room(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    (void)argument;
    hop *p = subject;
    submit_part(p, &p->prefill, false);
}

/* The decode engine has taken the blocks. */
static void fetch(void *self, apmw_engine *engine, apmw_request *request, int rank, int64_t from, int64_t to)
{
    const apmw_handover *h = self;
    (void)engine;
    (void)rank;
    hop *p = request->self;
    if (!h->config.link.decode_first) {
        send(p, to - from);
        return;
    }
    request->record.n_transferred = to - from;
    apmw_des_schedule(h->config.des, apmw_des_now(h->config.des), APMW_EVENT_TRANSFER, on_room, p, 0);
}

static void on_unwanted(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    (void)argument;
    hop *p = subject;
    const apmw_handover *h = p->owner;
    apmw_engine_release_kv(h->config.engines[p->from], &p->prefill);
    finish(p, p->decode.record.state, apmw_des_now(h->config.des));
}

static void on_decode_end(apmw_request *request, void *self, apmw_time now)
{
    hop *p = self;
    const apmw_handover *h = p->owner;
    /* Refused by the decode engine after the prompt was computed: its KV must still be let go, from an event. */
    if (request->record.state != APMW_REQUEST_DONE && !h->config.link.decode_first) {
        apmw_des_schedule(h->config.des, now, APMW_EVENT_TRANSFER, on_unwanted, p, 0);
        return;
    }
    on_decoded(request, self, now);
}

void apmw_handover_submit(apmw_handover *handover, apmw_request *request)
{
    const apmw_time now = apmw_des_now(handover->config.des);
    hop *p = take_hop(handover);
    if (p == NULL) {
        return;
    }
    apmw_request_record *r = &request->record;
    r->state = APMW_REQUEST_WAITING;
    r->engine = r->rank = -1;
    r->n_cached = r->n_fetched = r->n_transferred = r->n_recomputed = 0;
    r->n_preemptions = 0;
    r->submitted = now;
    r->admitted = r->first_scheduled = r->first_token = r->last_token = r->done = APMW_TIME_NEVER;
    for (size_t i = 0; i < handover->config.n_probes; i++) {
        if (handover->config.probes[i]->on_submit != NULL) {
            handover->config.probes[i]->on_submit(handover->config.probes[i]->self, now, r);
        }
    }
    p->client = request;
    p->prefill = (apmw_request){.record = *r,
                                .stream = request->stream,
                                .rank_hint = -1,
                                .max_tokens = 1,
                                .hold_kv = r->n_out > 1,
                                .silent = true,
                                .on_done = on_prefilled,
                                .self = p};
    p->prefill.record.n_out = 1;
    p->decode = (apmw_request){.record = *r,
                               .stream = request->stream,
                               .output_kept = request->output_kept,
                               .rank_hint = -1,
                               .max_tokens = request->max_tokens,
                               .remote_prefill = true,
                               .silent = true,
                               .on_done = on_decode_end,
                               .self = p};
    const bool decode_first = handover->config.link.decode_first && r->n_out > 1;
    submit_part(p, decode_first ? &p->decode : &p->prefill, decode_first);
}

apmw_handover *apmw_handover_create(const apmw_handover_config *config)
{
    apmw_handover *h = calloc(1, sizeof *h);
    if (h == NULL) {
        return NULL;
    }
    h->config = *config;
    h->connector = (apmw_connector){.self = h, .available = nothing, .fetch = fetch};
    return h;
}

void apmw_handover_free(apmw_handover *handover)
{
    if (handover == NULL) {
        return;
    }
    hop *lists[] = {handover->open, handover->spare};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        for (hop *p = lists[i], *next; p != NULL; p = next) {
            next = p->next;
            free(p);
        }
    }
    free(handover->free_at);
    free(handover->first_rank);
    free(handover);
}

const apmw_connector *apmw_handover_connector(const apmw_handover *handover)
{
    return &handover->connector;
}

void apmw_handover_transfers(const apmw_handover *handover, double *bytes, apmw_time *waited_ns)
{
    *bytes = handover->sent_bytes;
    *waited_ns = handover->waited_ns;
}
