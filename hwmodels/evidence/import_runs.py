#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes serving/mi355x_glm52/runs.csv and requests.csv from the client's records and the engine's batch log (once; the program
never runs this).

usage: import_runs.py FOLDER INTO, with FOLDER/fixlen_requests.csv, fixlen_summary.csv, solo_requests.csv, solo_summary.csv and
engine_decode_batches.csv.gz

requests.csv: what was sent, in the order of sending, and what of it was cached when it came. Agents' turns are those after the warm-up;
of the longest shape the client's record is missing: its lengths are the medians of the summary, its cached tokens those of the router
(64 a block; equal to the server's in 89 % of the other rows).
runs.csv: a run a line with the client's statistics. accept_length is the mean of the log's decode lines, weighted by requests; the
log ends before the two longer shapes of turns: theirs is that of the fixed-length run with as many output tokens, alone as well
(accept_from). accept_spread is the relative sd of the time per token between requests that were alone (the fixed-length run with one in
flight, or the turns): a step alone hardly varies, so that is how far texts differ in how well they are drafted."""
import csv
import gzip
import statistics
import sys


def rows(path):
    opener = gzip.open(path, "rt", newline="") if path.endswith(".gz") else open(path, newline="")
    with opener as file:
        return list(csv.DictReader(file))


def main(folder, into):
    accepted = {}
    for r in rows(f"{folder}/engine_decode_batches.csv.gz"):
        if r["phase"] in ("fixlen", "solo"):
            sums = accepted.setdefault((r["phase"], r["point"]), [0.0, 0.0])
            sums[0] += float(r["running_reqs"]) * float(r["accept_len_tokens"])
            sums[1] += float(r["running_reqs"])
    sent, out = [], []
    for r in rows(f"{folder}/fixlen_requests.csv"):
        # The client counts before it encodes: whole blocks of the real prompt may be more.
        prompt = max(int(r["input_tokens"]), 64 * int(r["router_request_blocks"]) + 1, int(r["cached_tokens"]) + 1)
        sent.append([f"fixed_{r['arm']}_c{r['concurrency']}", prompt, r["output_tokens"], r["cached_tokens"], r["ttft_ms"], "", ""])
    fixed = rows(f"{folder}/fixlen_summary.csv")
    spread = {r["arm"]: float(r["tpot_std_ms"]) / float(r["tpot_mean_ms"]) for r in fixed if r["concurrency"] == "1"}
    for r in fixed:
        point = f"{r['arm']}_c{r['concurrency']}"
        sums = accepted[("fixlen", point)]
        out.append([f"fixed_{point}", "fixed", r["concurrency"], f"{sums[0] / sums[1]:.3f}", f"{spread[r['arm']]:.3f}", "log", r["ttft_p50_ms"],
                    r["ttft_mean_ms"], r["tpot_p50_ms"], r["tpot_mean_ms"], r["e2e_p50_ms"]])
    summary = {r["arm"]: r for r in rows(f"{folder}/solo_summary.csv")}
    turns = {}
    for r in rows(f"{folder}/solo_requests.csv"):
        if r["status"] == "ok" and r["driver_phase"] == "sustain":
            turns.setdefault(r["arm"], []).append([r["input_tokens"], r["output_tokens"], r["cached_tokens"], r["ttft_ms"],
                                                   r["tpot_ms"], r["e2e_ms"]])
        elif r["status"] == "no_client_record" and int(r["router_cache_hit_blocks"]) > 3000:  # after the warm-up
            s = summary[r["arm"]]
            turns.setdefault(r["arm"], []).append([s["sustain_prompt_p50_tokens"], s["sustain_gen_p50_tokens"],
                                                   64 * int(r["router_cache_hit_blocks"]), "", "", ""])
    for arm, s in summary.items():
        mine = turns[arm][:int(s["sustain_n"])]
        sent += [[f"turns_{arm}", *t] for t in mine]
        known = ("solo", arm) in accepted
        sums = accepted[("solo", arm) if known else ("fixlen", f"{arm}_c1")]
        median = lambda i, key: f"{statistics.median(float(t[i]) for t in mine):.3f}" if mine[0][i] else s[key]
        known_tpot = [float(t[4]) for t in mine if t[4]]
        sd = statistics.stdev(known_tpot) / statistics.mean(known_tpot) if known_tpot else spread[arm]
        out.append([f"turns_{arm}", "turns", 1, f"{sums[0] / sums[1]:.3f}", f"{sd:.3f}", "log" if known else f"log of fixed_{arm}_c1",
                    median(3, "sustain_ttft_p50_ms"), s["sustain_ttft_mean_ms"], median(4, "sustain_tpot_p50_ms"),
                    s["sustain_tpot_mean_ms"], median(5, "sustain_e2e_p50_ms")])
    for name, head, lines in (
            ("requests", ["run", "prompt_tokens", "output_tokens", "cached_tokens", "ttft_ms", "tpot_ms", "e2e_ms"], sent),
            ("runs", ["run", "kind", "concurrency", "accept_length", "accept_spread", "accept_from", "ttft_p50_ms", "ttft_mean_ms", "tpot_p50_ms",
                      "tpot_mean_ms", "e2e_p50_ms"], out)):
        with open(f"{into}/{name}.csv", "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(head)
            writer.writerows(lines)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
