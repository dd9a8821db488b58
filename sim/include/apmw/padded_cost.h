/* SPDX-License-Identifier: GPL-3.0-or-later */
/* vLLM decodes by CUDA graphs that were captured at some batch sizes; another batch runs at the next larger one (vLLM
 * configuration, cudagraph_capture_sizes: 1, 2, 4, then every 8 up to 256, then every 16 up to 512). Padded rows go
 * through products and experts like others. What they cost in attention depends on the kernel. */
#ifndef APMW_PADDED_COST_H
#define APMW_PADDED_COST_H
#include <stdbool.h>
#include "apmw/step_cost.h"

typedef enum apmw_graph_padding {
    APMW_PADDING_NONE,
    APMW_PADDING_ROWS,     /* a padded row costs nothing in attention */
    APMW_PADDING_SEQUENCES /* as much as the mean sequence: the kernel divides the processor evenly among the rows */
} apmw_graph_padding;

/* The captured size that a batch of n runs at; beyond 512 no graph, so n. */
int64_t apmw_graph_batch(int64_t n);

/* A cost whose passes without prompt tokens run at captured sizes. The inner cost is taken over; NULL when out of memory
 * (it is then still the caller's). */
apmw_step_cost *apmw_step_cost_padded(apmw_step_cost *inner, apmw_graph_padding padding);

#endif
