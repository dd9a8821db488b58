#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes serving/mi355x_glm52/steps.csv from the engine's batch log (once; the program never runs this).

usage: import_steps.py FOLDER > steps.csv, with FOLDER/engine_decode_batches.csv.gz, engine_prefill_batches.csv.gz, fixlen_requests.csv,
solo_requests.csv and solo_summary.csv

kind = decode: passes that only decode. A decode line of the log covers 40 passes of one rank. It is kept when nothing but decoding fell into it: the rank held as many
requests as at its line before, no rank logged a prompt in between (all ranks step together), and the clock moved on. Other
ranks' requests are those of their latest lines, none older than the time three of this rank's lines take. Lines are then
grouped by point, requests on the busiest rank and on all; a group of fewer than 10 lines is left out.
kind = prompt: time to first token of requests that were alone on the node, by tokens to compute and tokens cached (medians). Of the
longest agent shape only the summary is known."""
import csv
import gzip
import os
import statistics
import sys

DEPLOYMENT = {"platform": "mi355x", "model": "glm-5.2", "engine": "sglang", "precision": "fp4", "released": "2026-08-06",
              "tp": 1, "attention_dp": 8, "moe_ep": 8, "draft_tokens": 3}
CHUNK = 8192


def read(folder, name):
    path = f"{folder}/{name}.csv"
    opener = open(path, newline="") if os.path.exists(path) else gzip.open(path + ".gz", "rt", newline="")
    with opener as file:
        return list(csv.DictReader(file))


def main(folder):
    decode = sorted(read(folder, "engine_decode_batches"), key=lambda r: int(r["log_line"]))
    prompts = sorted(int(r["log_line"]) for r in read(folder, "engine_prefill_batches"))
    last, groups, at = {}, {}, 0
    recent = 0
    for row in decode:
        line, rank, second = int(row["log_line"]), int(row["dp_rank"]), int(row["t_s"])
        while at < len(prompts) and prompts[at] < line:
            recent = prompts[at]
            at += 1
        before = last.get(rank)
        last[rank] = row
        if row["phase"] not in ("fixlen", "solo") or row["point"].endswith("_warmup") or before is None:
            continue
        step_ms = float(row["derived_step_ms"])
        if before["running_reqs"] != row["running_reqs"] or int(before["log_line"]) < recent or before["point"] != row["point"]:
            continue
        window = max(3 * 40 * step_ms / 1000, 2)
        alive = [r for r in last.values() if second - int(r["t_s"]) <= window and r["point"] == row["point"]]
        running = [int(r["running_reqs"]) for r in alive]
        key = (row["phase"], row["point"], max(running), sum(running))
        kv = max(float(r["kv_tokens"]) for r in alive)
        groups.setdefault(key, []).append((step_ms, kv, float(row["accept_len_tokens"])))
    columns = ["kind", "rank_seqs", "total_seqs", "rank_kv_tokens", "new_tokens", "past_tokens", "chunk_tokens", "tokens_a_step",
               "samples", "ms", "p10_ms", "p90_ms"]
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["point", *DEPLOYMENT, *columns])

    def write(point, *cells):
        out.writerow([point, *DEPLOYMENT.values(), *cells])

    def quantiles(times):
        times = sorted(times)
        return [len(times), round(statistics.median(times), 3), round(times[len(times) // 10], 3),
                round(times[9 * len(times) // 10], 3)]

    for (phase, point, busiest, total), lines in sorted(groups.items()):
        if len(lines) >= 10:
            write(f"{phase}_{point}", "decode", busiest, total, round(statistics.median(k for _, k, _ in lines)), 0, 0, 0,
                  round(statistics.mean(a for _, _, a in lines), 3), *quantiles(t for t, _, _ in lines))
    alone = {}
    for row in read(folder, "fixlen_requests"):
        if row["concurrency"] == "1" and row["cached_tokens"] == "0":
            alone.setdefault(f"fixlen_{row['arm']}_c1", []).append((int(row["input_tokens"]), 0, float(row["ttft_ms"])))
    for row in read(folder, "solo_requests"):
        if row["driver_phase"] == "sustain" and row["status"] == "ok":
            cached = int(row["cached_tokens"])
            alone.setdefault(f"solo_{row['arm']}", []).append((int(row["input_tokens"]) - cached, cached, float(row["ttft_ms"])))
    for point, turns in sorted(alone.items()):
        write(point, "prompt", 0, 0, 0, round(statistics.median(n for n, _, _ in turns)),
              round(statistics.median(p for _, p, _ in turns)), CHUNK, "", *quantiles(t for _, _, t in turns))
    for row in read(folder, "solo_summary"):
        if f"solo_{row['arm']}" not in alone:
            prompt = int(row["sustain_prompt_p50_tokens"])
            past = round(prompt * float(row["sustain_cache_hit_mean"]))
            write(f"solo_{row['arm']}", "prompt", 0, 0, 0, prompt - past, past, CHUNK, "", row["sustain_n"], row["sustain_ttft_p50_ms"],
                  "", row["sustain_ttft_p90_ms"])


main(sys.argv[1])
