/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Queueing theory: M/D/1 waiting times, Little's law, a machine shared by a fixed population, and the mean
 * number of steps under speculation. */
#include "engine_rig.h"
#include <math.h>
#include "apmw/rng.h"
#include "test_support.h"

enum { SERVICE_NS = 10000000 };

typedef struct flow {
    apmw_time last;
    double area; /* integral of requests in flight */
    int64_t in_flight;
    double residence;
} flow;

static void flow_move(flow *f, apmw_time now, int by)
{
    f->area += (double)f->in_flight * (double)(now - f->last);
    f->in_flight += by;
    f->last = now;
}

static void flow_submit(void *self, apmw_time now, const apmw_request_record *record)
{
    (void)record;
    flow_move(self, now, 1);
}

static void flow_request(void *self, apmw_time now, const apmw_request_record *record)
{
    flow_move(self, now, -1);
    ((flow *)self)->residence += (double)(record->done - record->submitted);
}

/* One server of constant service time D, Poisson arrivals at load rho: the mean wait is rho D / (2 (1 - rho))
 * (Pollaczek-Khinchine; L. Kleinrock, Queueing Systems I, 5.6). An arrival waits for the end of the running
 * step, and the server takes one prompt a step. */
static void waits_of_one_server_follow_pollaczek_khinchine(void **state)
{
    (void)state;
    enum { N = 400000 };
    const double rho = 0.7;
    apmw_engine_config config = rig_config();
    config.max_num_seqs = 1;
    const apmw_linear_cost cost = rig_cost((double)SERVICE_NS * 1e-9, 0.0);
    engine_rig *rig = rig_open(&cost, config);
    apmw_rng rng = apmw_rng_make(3, "arrivals", 0, 0);
    double at = 0.0;
    for (int i = 0; i < N; i++) {
        at += apmw_rng_exponential(&rng, (double)SERVICE_NS / rho);
        rig_add(rig, (apmw_time)at, 5, 1);
    }
    rig_run(rig);
    double wait = 0.0;
    for (int i = 0; i < N; i++) {
        const apmw_request_record *r = &rig->requests[i]->record;
        assert_int_equal(r->done - r->admitted, SERVICE_NS);
        wait += (double)(r->admitted - r->submitted);
    }
    wait /= N;
    /* The wait of M/D/1 has a standard deviation near its mean and a correlation time of about
     * 1 / (1 - rho)^2 services, so the mean of 400,000 is known to about 1 %. */
    assert_near_relative(wait, rho * SERVICE_NS / (2.0 * (1.0 - rho)), 0.03);
    rig_close(rig);
}

static void integral_of_requests_in_flight_is_the_sum_of_residences(void **state)
{
    (void)state;
    for (int batching = 0; batching < 3; batching++) {
        apmw_engine_config config = rig_config();
        config.batching = (apmw_batching)batching;
        config.max_num_seqs = 6;
        config.n_ranks = 2;
        config.kv_blocks = 60;
        const apmw_linear_cost cost = rig_cost(0.01, 1e-5);
        engine_rig *rig = rig_open(&cost, config);
        flow f = {0};
        const apmw_probe probe = {.self = &f, .on_submit = flow_submit, .on_request = flow_request};
        const apmw_probe *probes[] = {&rig->probe, &probe};
        config.cost = rig->cost;
        config.streams = rig->streams;
        apmw_engine_free(rig->engine);
        apmw_error err;
        assert_ok(apmw_engine_create(rig->des, &config, 0, probes, 2, &rig->engine, &err), &err);
        apmw_rng rng = apmw_rng_make(4, "little", 0, 0);
        for (int i = 0; i < 500; i++)
            rig_add(rig, apmw_time_from_s(100.0 * apmw_rng_uniform(&rng)),
                    1 + (int64_t)apmw_rng_below(&rng, 300), 1 + (int64_t)apmw_rng_below(&rng, 300));
        rig_run(rig);
        assert_int_equal(f.in_flight, 0);
        assert_true(f.residence > 0.0);
        assert_same_double(f.area, f.residence); /* whole ns below 2^53: exact */
        rig_close(rig);
    }
}

static void again(apmw_request *request, void *self, apmw_time now)
{
    (void)now;
    engine_rig *rig = self;
    if (rig->n_ended < 64000)
        apmw_engine_submit(rig->engine, request);
}

/* 64 slots that ask again at once, out tokens each, steps of one cost F + s a sequence: when prompts are
 * free, slots emit one token a step, so the rate of tokens is 64 / (F + 64 s) but for the steps that also
 * carry prompts. */
static void a_fixed_population_emits_one_token_a_slot_and_step(void **state)
{
    (void)state;
    apmw_engine_config config = rig_config();
    const apmw_linear_cost cost = rig_cost(0.005, 1e-6);
    engine_rig *rig = rig_open(&cost, config);
    for (int i = 0; i < 64; i++) {
        apmw_request *request = rig_add(rig, i * 7777777, 1, 100 + i % 7);
        request->on_done = again;
        request->self = rig;
    }
    assert_int_equal(apmw_des_run(rig->des, APMW_TIME_NEVER), APMW_OK);
    int64_t steps = 0, tokens = 0;
    apmw_time time = 0;
    for (size_t i = rig->n_steps / 4; i < rig->n_steps / 2; i++) {
        const apmw_step_record *s = &rig->steps[i];
        steps += s->n_steps;
        time += s->end - s->begin;
        /* a prompt is one token, and emits one: every slot emits one in each step */
        tokens += s->decode_tokens + s->prefill_tokens;
    }
    assert_true(steps > 1000);
    assert_int_equal(tokens, 64 * steps);
    assert_near_relative((double)time, (double)steps * 1e9 * (0.005 + 64e-6), 1e-9);
    rig_close(rig);
}

/* The mean number of decode steps is (n_out - 1) / acceptance, within its bounds; one step a token without
 * drafts. */
static void speculation_takes_the_accepted_length_on_average(void **state)
{
    (void)state;
    const struct {
        int draft;
        double acceptance;
        int64_t n_out;
    } cases[] = {{1, 1.7, 2}, {1, 1.0, 50}, {3, 2.5, 101}, {3, 4.0, 101}, {3, 3.9, 6}, {7, 1.2, 400}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        enum { N = 4000 };
        apmw_engine_config config = rig_config();
        config.draft_tokens = cases[c].draft;
        config.acceptance_length = cases[c].acceptance;
        config.max_num_seqs = 1;
        const apmw_linear_cost cost = rig_cost(0.001, 0.0);
        engine_rig *rig = rig_open(&cost, config);
        for (int i = 0; i < N; i++)
            rig_add(rig, 0, 1, cases[c].n_out);
        rig_run(rig);
        const int64_t tokens = cases[c].n_out - 1;
        const int64_t low = (tokens + cases[c].draft) / (1 + cases[c].draft);
        double sum = 0.0, square = 0.0;
        int64_t emitted = 0;
        for (size_t i = 0; i < rig->n_steps; i++)
            emitted += rig->steps[i].decode_tokens;
        for (int i = 0; i < N; i++) {
            const apmw_request_record *r = &rig->requests[i]->record;
            const int64_t steps = (r->last_token - r->first_token) / 1000000;
            assert_in_range(steps, low, tokens);
            sum += (double)steps;
            square += (double)steps * (double)steps;
        }
        const double mean = sum / N, deviation = sqrt(fmax(0.0, square / N - mean * mean) / N);
        const double expected = fmax((double)low, (double)tokens / cases[c].acceptance);
        assert_near(mean, expected, 4.0 * deviation + 1e-12);
        assert_true(cases[c].acceptance == 1.0 + cases[c].draft || cases[c].acceptance == 1.0 ||
                    expected == (double)low || deviation > 0.0);
        /* rates are rounded up to 2^-20 of a token a step */
        assert_true(emitted >= N * tokens && emitted <= N * tokens + N);
        rig_close(rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_of_one_server_follow_pollaczek_khinchine),
        cmocka_unit_test(integral_of_requests_in_flight_is_the_sum_of_residences),
        cmocka_unit_test(a_fixed_population_emits_one_token_a_slot_and_step),
        cmocka_unit_test(speculation_takes_the_accepted_length_on_average)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
