/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "apmw/metrics.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A request in flight: what was asked, to compare with what was delivered. id 0 is a valid id, so slots carry a flag. */
typedef struct open_request {
    uint64_t id;
    apmw_time submitted;
    int64_t n_prompt, n_out;
    int32_t agent, play, turn;
    bool used;
} open_request;

/* What is known of an agent. */
typedef struct agent_books {
    apmw_time last_done;
    int32_t in_flight, play, turn;
    bool seen, ended; /* ended: its last request was the last of a trajectory */
} agent_books;

typedef struct engine_books {
    apmw_time last_end;
} engine_books;

__extension__ typedef __int128 wide;

struct apmw_laws {
    apmw_probe probe;
    apmw_laws_config config;
    apmw_error broken; /* status APMW_OK while all is well */
    open_request *open; /* open addressing, capacity a power of two */
    size_t n_open, cap_open;
    agent_books *agents;
    size_t cap_agents;
    engine_books *engines;
    size_t cap_engines;
    apmw_time now;
    int64_t submitted, terminal;
    int64_t prefilled, computed, recomputed; /* prompt tokens: by the steps, by ended requests */
    int64_t preemptions; /* each amid decoding resumes with one token more than was computed: its last one emitted */
    /* Law L21: the integral of requests in flight against the sum of residence times. Up to 1e6 requests for 1e13 ns
     * exceed 64 bits. */
    wide integral, residence;
};

__attribute__((format(printf, 2, 3))) static void broken(apmw_laws *laws, const char *format, ...)
{
    if (laws->broken.status != APMW_OK) {
        return;
    }
    va_list args;
    va_start(args, format);
    char text[512];
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    apmw_error_set(&laws->broken, APMW_E_INTERNAL, "%s (at %" PRId64 " ns)", text, laws->now);
}

static void *grown(apmw_laws *laws, void *items, size_t *capacity, size_t wanted, size_t size)
{
    if (wanted <= *capacity) {
        return items;
    }
    size_t n = *capacity == 0 ? 64 : *capacity;
    while (n < wanted) {
        n *= 2;
    }
    char *bigger = realloc(items, n * size);
    if (bigger == NULL) {
        if (laws->broken.status == APMW_OK) {
            apmw_error_set(&laws->broken, APMW_E_NOMEM, "out of memory for the laws' books");
        }
        return items;
    }
    memset(bigger + *capacity * size, 0, (n - *capacity) * size);
    *capacity = n;
    return bigger;
}

static size_t slot_of(const apmw_laws *laws, uint64_t id)
{
    size_t i = (size_t)(id * 0x9E3779B97F4A7C15ULL) & (laws->cap_open - 1); /* Fibonacci hashing */
    while (laws->open[i].used && laws->open[i].id != id) {
        i = (i + 1) & (laws->cap_open - 1);
    }
    return i;
}

static bool open_reserve(apmw_laws *laws)
{
    if (laws->cap_open > 0 && (laws->n_open + 1) * 2 <= laws->cap_open) {
        return true;
    }
    open_request *old = laws->open;
    const size_t n = laws->cap_open;
    open_request *bigger = calloc(n == 0 ? 64 : n * 2, sizeof *bigger);
    if (bigger == NULL) {
        apmw_error_set(&laws->broken, APMW_E_NOMEM, "out of memory for the laws' books");
        return false;
    }
    laws->open = bigger;
    laws->cap_open = n == 0 ? 64 : n * 2;
    for (size_t i = 0; i < n; i++) {
        if (old[i].used) {
            laws->open[slot_of(laws, old[i].id)] = old[i];
        }
    }
    free(old);
    return true;
}

/* Removal without tombstones: later entries of the run move up (Knuth, TAOCP 3, 6.4, algorithm R). */
static void open_remove(apmw_laws *laws, size_t i)
{
    const size_t mask = laws->cap_open - 1;
    laws->open[i].used = false;
    laws->n_open--;
    for (size_t j = (i + 1) & mask; laws->open[j].used; j = (j + 1) & mask) {
        const size_t home = (size_t)(laws->open[j].id * 0x9E3779B97F4A7C15ULL) & mask;
        if (((j - home) & mask) >= ((j - i) & mask)) {
            laws->open[i] = laws->open[j];
            laws->open[j].used = false;
            i = j;
        }
    }
}

static void tick(apmw_laws *laws, apmw_time now)
{
    if (now < laws->now) {
        broken(laws, "law L1: time went back to %" PRId64 " ns", now);
        return;
    }
    laws->integral += (wide)laws->n_open * (now - laws->now);
    laws->now = now;
}

static agent_books *agent_of(apmw_laws *laws, int32_t agent)
{
    if (agent < 0) {
        return NULL;
    }
    laws->agents = grown(laws, laws->agents, &laws->cap_agents, (size_t)agent + 1, sizeof *laws->agents);
    return (size_t)agent < laws->cap_agents ? &laws->agents[agent] : NULL;
}

static void agent_submits(apmw_laws *laws, apmw_time now, const apmw_request_record *r)
{
    agent_books *a = agent_of(laws, r->agent);
    if (a == NULL) {
        return;
    }
    if (a->in_flight > 0) {
        broken(laws, "law L20: agent %d sends request %" PRIu64 " with %d in flight", r->agent, r->id, a->in_flight);
    }
    if (a->seen && now < a->last_done) {
        broken(laws, "law L3: agent %d sends request %" PRIu64 " before its last one ended at %" PRId64 " ns",
               r->agent, r->id, a->last_done);
    }
    if (a->seen && r->play < a->play) {
        broken(laws, "law L20: agent %d goes back from play %d to %d", r->agent, a->play, r->play);
    }
    if (a->seen && r->play == a->play && (r->turn <= a->turn || a->ended)) {
        broken(laws, "law L3: agent %d sends turn %d after turn %d of play %d", r->agent, r->turn, a->turn, a->play);
    }
    if (a->seen && r->play > a->play && !a->ended) {
        broken(laws, "law L20: agent %d takes play %d while play %d has not ended", r->agent, r->play, a->play);
    }
    a->seen = true;
    a->ended = false;
    a->play = r->play;
    a->turn = r->turn;
    a->in_flight++;
}

static void on_submit(void *self, apmw_time now, const apmw_request_record *r)
{
    apmw_laws *laws = self;
    tick(laws, now);
    laws->submitted++;
    if (r->submitted != now) {
        broken(laws, "law L2: request %" PRIu64 " says submitted %" PRId64 " ns", r->id, r->submitted);
    }
    if (r->n_prompt < 1 || r->n_out < 1) {
        broken(laws, "law L5: request %" PRIu64 " asks for %" PRId64 " tokens on %" PRId64, r->id, r->n_out, r->n_prompt);
    }
    if (laws->config.one_request_per_agent) {
        agent_submits(laws, now, r);
    }
    if (!open_reserve(laws)) {
        return;
    }
    const size_t i = slot_of(laws, r->id);
    if (laws->open[i].used) {
        broken(laws, "law L4: request %" PRIu64 " is submitted twice", r->id);
        return;
    }
    laws->open[i] = (open_request){.id = r->id, .submitted = now, .n_prompt = r->n_prompt, .n_out = r->n_out,
                                   .agent = r->agent, .play = r->play, .turn = r->turn, .used = true};
    laws->n_open++;
}

static void check_done(apmw_laws *laws, const apmw_request_record *r, const open_request *asked)
{
    const apmw_time order[] = {r->submitted, r->admitted, r->first_scheduled, r->first_token, r->last_token, r->done};
    for (size_t i = 1; i < sizeof order / sizeof order[0]; i++) {
        if (order[i] == APMW_TIME_NEVER || order[i] < order[i - 1]) {
            broken(laws, "law L2: request %" PRIu64 ": moment %zu of submitted, admitted, scheduled, first, last, done "
                   "is %" PRId64 " ns after %" PRId64 " ns", r->id, i, order[i], order[i - 1]);
        }
    }
    if (r->first_token <= r->first_scheduled) {
        broken(laws, "law L1: request %" PRIu64 " has its first token in the instant it is scheduled", r->id);
    }
    if (r->n_out != asked->n_out || r->n_prompt != asked->n_prompt) {
        broken(laws, "law L5: request %" PRIu64 " asked %" PRId64 " tokens on %" PRId64 ", got %" PRId64 " on %" PRId64,
               r->id, asked->n_out, asked->n_prompt, r->n_out, r->n_prompt);
    }
    if (r->n_cached < 0 || r->n_cached > r->n_prompt - 1) {
        broken(laws, "law L13: request %" PRIu64 " hits %" PRId64 " of %" PRId64 " prompt tokens", r->id, r->n_cached,
               r->n_prompt);
    }
    if (r->n_fetched < 0 || r->n_cached + r->n_fetched > r->n_prompt - 1 || r->n_transferred < 0 ||
        r->n_transferred > r->n_prompt) {
        broken(laws, "law L13: request %" PRIu64 " fetches %" PRId64 " and receives %" PRId64 " of %" PRId64
               " prompt tokens", r->id, r->n_fetched, r->n_transferred, r->n_prompt);
    }
    if (r->n_recomputed < 0 || (r->n_preemptions == 0 && r->n_recomputed != 0)) {
        broken(laws, "law L5: request %" PRIu64 " recomputed %" PRId64 " tokens in %d preemptions", r->id,
               r->n_recomputed, r->n_preemptions);
    }
    if (r->n_out == 1 && r->last_token != r->first_token) {
        broken(laws, "law L23: request %" PRIu64 " has one token at two times", r->id);
    }
    laws->computed += r->n_prompt - r->n_cached - r->n_fetched;
    laws->recomputed += r->n_recomputed;
    laws->preemptions += r->n_preemptions;
}

static void on_request(void *self, apmw_time now, const apmw_request_record *r)
{
    apmw_laws *laws = self;
    tick(laws, now);
    laws->terminal++;
    if (r->state != APMW_REQUEST_DONE && r->state != APMW_REQUEST_CANCELLED && r->state != APMW_REQUEST_REJECTED) {
        broken(laws, "law L4: request %" PRIu64 " ends in state %d", r->id, (int)r->state);
    }
    const size_t i = laws->cap_open > 0 ? slot_of(laws, r->id) : 0;
    if (laws->cap_open == 0 || !laws->open[i].used) {
        broken(laws, "law L4: request %" PRIu64 " ends without being in flight", r->id);
        return;
    }
    if (r->state == APMW_REQUEST_DONE) {
        check_done(laws, r, &laws->open[i]);
        if (r->done != now) {
            broken(laws, "law L2: request %" PRIu64 " says done %" PRId64 " ns", r->id, r->done);
        }
    } else if (r->admitted != APMW_TIME_NEVER) {
        /* Its prompt was computed before another engine refused it. */
        laws->computed += r->n_prompt - r->n_cached - r->n_fetched;
        laws->recomputed += r->n_recomputed;
        laws->preemptions += r->n_preemptions;
    }
    laws->residence += now - laws->open[i].submitted;
    open_remove(laws, i);
    agent_books *a = laws->config.one_request_per_agent ? agent_of(laws, r->agent) : NULL;
    if (a != NULL) {
        a->in_flight--;
        a->last_done = now;
        /* A refusal may end the trajectory; what its client gave up is passed over. */
        a->ended = r->last_of_trajectory || r->state == APMW_REQUEST_REJECTED;
    }
}

static void on_step(void *self, const apmw_step_record *r)
{
    apmw_laws *laws = self;
    if (r->engine < 0) {
        broken(laws, "law L18: a step of engine %d", r->engine);
        return;
    }
    laws->engines = grown(laws, laws->engines, &laws->cap_engines, (size_t)r->engine + 1, sizeof *laws->engines);
    if ((size_t)r->engine >= laws->cap_engines) {
        return;
    }
    engine_books *e = &laws->engines[r->engine];
    if (r->n_steps < 1 || r->end - r->begin < r->n_steps) {
        broken(laws, "law L1: %" PRId64 " steps of engine %d last %" PRId64 " ns", r->n_steps, r->engine,
               r->end - r->begin);
    }
    if (r->begin < e->last_end) {
        broken(laws, "law L18: engine %d steps at %" PRId64 " ns while it was busy until %" PRId64, r->engine, r->begin,
               e->last_end);
    }
    if (r->kv_used_blocks < 0 || r->kv_used_blocks > r->kv_capacity_blocks) {
        broken(laws, "law L6: engine %d uses %" PRId64 " of %" PRId64 " blocks", r->engine, r->kv_used_blocks,
               r->kv_capacity_blocks);
    }
    if (!(r->kernel_s >= 0.0) || !(r->flops >= 0.0) || !(r->bytes >= 0.0) || r->prefill_tokens < 0 ||
        r->decode_tokens < 0 || r->outside_steps < 0.0 || r->outside_steps > (double)r->n_steps * (1.0 + 1e-12)) {
        broken(laws, "law L19: engine %d reports work below zero or more steps outside than steps", r->engine);
    }
    laws->prefilled += r->prefill_tokens;
    e->last_end = r->end;
}

static void on_end(void *self, apmw_time now)
{
    apmw_laws *laws = self;
    tick(laws, now);
    wide residence = laws->residence;
    int64_t open_prompt = 0;
    for (size_t i = 0; i < laws->cap_open; i++) {
        if (laws->open[i].used) {
            residence += now - laws->open[i].submitted;
            open_prompt += laws->open[i].n_prompt;
        }
    }
    if (laws->submitted != laws->terminal + (int64_t)laws->n_open) {
        broken(laws, "law L4: %" PRId64 " submitted, %" PRId64 " ended, %zu open", laws->submitted, laws->terminal,
               laws->n_open);
    }
    if (residence != laws->integral) {
        broken(laws, "law L21: in flight integrates to %.17g ns, residence sums to %.17g ns", (double)laws->integral,
               (double)residence);
    }
    /* A run that stops with requests open has computed up to their whole prompts, once. What was preempted after its first
     * token computes its last one, which was not in KV yet, as part of a prompt. */
    const int64_t computed = laws->computed + laws->recomputed;
    if (laws->config.tokens_balance &&
        (laws->prefilled < computed || (laws->n_open == 0 && laws->prefilled > computed + laws->preemptions))) {
        broken(laws, "law L5: steps computed %" PRId64 " prompt tokens, requests %" PRId64 " (+ up to %" PRId64 " open)",
               laws->prefilled, computed, open_prompt);
    }
}

apmw_laws *apmw_laws_create(const apmw_laws_config *config)
{
    apmw_laws *laws = calloc(1, sizeof *laws);
    if (laws != NULL) {
        laws->config = *config;
        laws->broken.status = APMW_OK;
        laws->probe = (apmw_probe){
            .self = laws, .on_submit = on_submit, .on_request = on_request, .on_step = on_step, .on_end = on_end};
    }
    return laws;
}

void apmw_laws_free(apmw_laws *laws)
{
    if (laws != NULL) {
        free(laws->open);
        free(laws->agents);
        free(laws->engines);
        free(laws);
    }
}

const apmw_probe *apmw_laws_probe(const apmw_laws *laws)
{
    return &laws->probe;
}

apmw_status apmw_laws_status(const apmw_laws *laws, apmw_error *err)
{
    if (laws->broken.status != APMW_OK) {
        return apmw_error_set(err, laws->broken.status, "%s", laws->broken.message);
    }
    return APMW_OK;
}

int64_t apmw_laws_submitted(const apmw_laws *laws)
{
    return laws->submitted;
}

int64_t apmw_laws_terminal(const apmw_laws *laws)
{
    return laws->terminal;
}
