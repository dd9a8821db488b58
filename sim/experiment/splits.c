/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "splits.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool apmw_split_list_init(split_list *list, size_t n_tiers, size_t keep)
{
    *list = (split_list){.n_tiers = n_tiers, .keep = keep};
    bool held = true;
    for (size_t t = 0; t < n_tiers; t++) {
        list->best[t] = calloc(keep + 1, sizeof **list->best);
        held = held && list->best[t] != NULL;
    }
    return held;
}

void apmw_split_list_free(split_list *list)
{
    for (size_t t = 0; t < list->n_tiers; t++) {
        free(list->best[t]);
    }
    *list = (split_list){0};
}

static bool same_layouts(const split *a, const split *b)
{
    return a->apart == b->apart && strcmp(a->choice[0].name, b->choice[0].name) == 0 &&
           (!a->apart || strcmp(a->choice[1].name, b->choice[1].name) == 0);
}

static void offer_at(split_list *list, size_t t, const split *o)
{
    split *best = list->best[t];
    size_t n = list->n[t];
    for (size_t i = 0; i < n; i++) {
        if (same_layouts(&best[i], o)) {
            if (o->agents[t] <= best[i].agents[t]) {
                return;
            }
            memmove(&best[i], &best[i + 1], (n - i - 1) * sizeof *best);
            n--;
            break;
        }
    }
    size_t at = n;
    while (at > 0 && best[at - 1].agents[t] < o->agents[t]) {
        at--;
    }
    memmove(&best[at + 1], &best[at], (n - at) * sizeof *best);
    best[at] = *o;
    list->n[t] = n < list->keep ? n + 1 : list->keep;
}

void apmw_split_offer(split_list *list, const split *candidate)
{
    list->considered++;
    for (size_t t = 0; t < list->n_tiers; t++) {
        offer_at(list, t, candidate);
    }
}

void apmw_split_pairs(split_list *list, const split_engine *prefill, size_t n_prefill, const split_engine *decode,
                      size_t n_decode, int accelerators)
{
    for (size_t i = 0; i < n_prefill; i++) {
        const split_engine *a = &prefill[i];
        for (size_t j = 0; j < n_decode; j++) {
            const split_engine *b = &decode[j];
            for (int n = 1; n * a->choice.size < accelerators; n++) {
                const int rest = accelerators - n * a->choice.size;
                if (rest % b->choice.size != 0) {
                    continue;
                }
                split o = {.choice = {a->choice, b->choice}, .apart = true, .draft = b->draft};
                o.choice[0].replicas = n;
                o.choice[1].replicas = rest / b->choice.size;
                for (size_t t = 0; t < list->n_tiers; t++) {
                    o.agents[t] = fmin(n * a->agents[t], o.choice[1].replicas * b->agents[t]);
                }
                for (int k = 0; k < APMW_POOLS; k++) {
                    apmw_layout_rename(&o.choice[k]);
                }
                apmw_split_offer(list, &o);
            }
        }
    }
}

size_t apmw_split_join(const split_list *list, split *out)
{
    size_t count = 0;
    for (size_t place = 0; place < list->keep; place++) {
        for (size_t t = 0; t < list->n_tiers; t++) {
            if (place >= list->n[t]) {
                continue;
            }
            const split *o = &list->best[t][place];
            bool held = false;
            for (size_t i = 0; i < count; i++) {
                held = held || (same_layouts(&out[i], o) && out[i].draft == o->draft);
            }
            if (!held) {
                out[count++] = *o;
            }
        }
    }
    return count;
}
