/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Engines decode by CUDA graphs that were captured at some batch sizes; another batch runs at the next larger one. Padded
 * rows go through products and experts like others. What they cost in attention depends on the kernel.
 *
 * Sizes, up to the largest one of the server (its own limit where max_batch is 0), which is itself one:
 *   vllm    1, 2, 4, then every 8 up to 256, then every 16; 512 (vllm/config, cudagraph_capture_sizes)
 *   sglang  1, 2, 4, 8, 12, then every 8 from 16 up to 256, then every 16 (model_executor/cuda_graph_runner.py)
 *   trtllm  1, 2, 4, then every 8 up to 128, then powers of two; 2,048 (llm_args.py, CudaGraphConfig with enable_padding)
 * Beyond the largest size steps run without graphs, at their own batch. */
#ifndef APMW_PADDED_COST_H
#define APMW_PADDED_COST_H
#include <stdbool.h>
#include "apmw/step_cost.h"

typedef enum apmw_graph_padding {
    APMW_PADDING_NONE,
    APMW_PADDING_ROWS,     /* a padded row costs nothing in attention */
    APMW_PADDING_SEQUENCES, /* as much as the mean sequence: the kernel divides the processor evenly among the rows */
    APMW_PADDING_ENGINE    /* scenarios: what the engine's rules say */
} apmw_graph_padding;

typedef enum apmw_graph_sizes { APMW_GRAPHS_NONE, APMW_GRAPHS_VLLM, APMW_GRAPHS_SGLANG, APMW_GRAPHS_TRTLLM } apmw_graph_sizes;

typedef struct apmw_graphs {
    apmw_graph_sizes sizes;
    int64_t max_batch; /* largest captured, 0 = the engine's own limit */
    apmw_graph_padding padding;
} apmw_graphs;

/* "none", "rows", "sequences", "engine". */
const char *apmw_graph_padding_name(apmw_graph_padding padding);

/* The captured size that a batch of n runs at; n itself where no graph holds it. */
int64_t apmw_graph_batch(const apmw_graphs *graphs, int64_t n);

/* A cost whose passes without prompt tokens run at captured sizes. The inner cost is taken over when `own` is set, else it
 * must outlive this one; NULL when out of memory (it is then still the caller's). */
apmw_step_cost *apmw_step_cost_padded(apmw_step_cost *inner, bool own, const apmw_graphs *graphs);

#endif
