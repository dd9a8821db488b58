#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes runs.csv, users.csv, waits.csv, prompts_one_user.csv and steps.csv of this folder.

    python3 import.py SOURCE SESSIONS ORIGINALS

SOURCE is the folder with the files of the branch runs (summary.csv, bmk_aggregates.csv, server_facts.csv,
server_timeseries_10s.csv, requests.csv), SESSIONS is traces/samples/weka-cc-042026.jsonl.zst, ORIGINALS the same sessions as published, one JSON object a line, gzip
(README.md of traces/samples). Needs zstd."""
import csv
import gzip
import json
import os
import statistics
import subprocess
import sys

CONTEXT = 128000  # recorded tokens at which the client ends a session: largest logged prompt 127,642


def rows(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def write(path, columns, lines):
    with open(path, "w", newline="") as f:
        w = csv.writer(f, lineterminator="\n")
        w.writerow(columns)
        w.writerows(lines)


def sessions(path):
    out = {}
    text = subprocess.run(["zstdcat", path], capture_output=True, text=True, check=True).stdout
    for line in text.splitlines()[1:]:
        item = json.loads(line)
        lanes = item.get("lane", [0] * len(item["in"]))
        out[item["id"][len("trace_"):]] = [n for n, lane in zip(item["in"], lanes) if lane == 0]
    return out


def make_waits(originals, path):
    """Where the client waited otherwise than the time between completion and submission that the sessions have: it takes
    think_time as it stands, which after a request without api_time goes back to the last one with it."""
    published = {}
    with gzip.open(originals, "rt") as f:
        for line in f:
            item = json.loads(line)
            published[item["id"]] = item["requests"]
    converted = {}
    text = subprocess.run(["zstdcat", path], capture_output=True, text=True, check=True).stdout
    for line in text.splitlines()[1:]:
        item = json.loads(line)
        converted[item["id"]] = item
    out = []
    for session in dict.fromkeys(r["session"] for r in rows("users.csv")):
        item, requests = converted[session], published[session]
        lanes = item.get("lane", [0] * len(item["in"]))
        places = {}
        for place, lane in enumerate(lanes):
            places.setdefault(lane, []).append(place)
        for lane, here in places.items():
            if lane == 0:
                there = requests
            else:
                there = next(r["requests"] for r in requests if r["type"] == "subagent" and
                             [x["in"] for x in r["requests"]] == [item["in"][i] for i in here])
            # What follows a sub-agent waits for it: the log has no such turn, and it stays as it is.
            kept = [(r, i > 0 and there[i - 1]["type"] != "subagent") for i, r in enumerate(there) if r["type"] != "subagent"]
            assert [r["in"] for r, _ in kept] == [item["in"][i] for i in here]
            for place, (r, follows) in zip(here, kept):
                think = r.get("think_time")
                if follows and think is not None and abs(min(60, think) - min(60, 1e-9 * item["delay_ns"][place])) >= 0.5:
                    out.append([session, place, f"{think:.3f}"])
    out.sort()
    write("waits.csv", ["session", "turn", "wait_s"], out)


def name_of(exp, users, offload):
    """Names of the summary and of the server's files: ..._b200-nb_1 is tp4_u128_off_n1, -dgxc-slurm_5 is ..._d5."""
    tail = exp.rsplit("b200-", 1)[1]
    return f"tp4_u{users}_{offload}_{tail[0]}{tail.rsplit('_', 1)[1]}"


def use_of(run):
    if run == "tp4_u12_off_d8":
        return "no", "stalled: mean TTFT 161 s at a median of 0.85 s"
    if run == "tp4_u256_on_n1":
        return "no", "the same run as tp4_u128_off_n1 under another name"
    return "yes", ""


def make_runs(source):
    series = {}
    for r in rows(f"{source}/server_timeseries_10s.csv"):
        series.setdefault(r["run"], []).append(r)
    facts = {r["run"]: r for r in rows(f"{source}/server_facts.csv")}
    published = {(r["users"], r["offload_mode"], r["num_requests_successful"]): r
                 for r in rows(f"{source}/bmk_aggregates.csv")}
    out = []
    for s in rows(f"{source}/summary.csv"):
        run = name_of(s["exp_name"], s["users"], s["offload"])
        use, why = use_of(run)
        b = published.get((s["users"], s["offload"], s["num_requests"]))
        last = series[run][-1]
        prompt = float(last["prompt_tokens_total"])
        share = lambda key: f"{100 * float(last[key] or 0) / prompt:.2f}"
        # A prompt is counted with its first token: those that have ended, and those that decode.
        n = float(last["request_success_total"]) + float(last["num_requests_running"] or 0)
        mean = lambda key: sum(float(x[key] or 0) for x in series[run]) / len(series[run])
        # Answers that never ended: the part of the last ten minutes' tokens that belongs to no request that ended then, in
        # sequences, against all requests.
        late = [x for x in series[run] if float(x["relative_time_sec"]) >= float(last["relative_time_sec"]) - 600]
        grown = lambda key: float(late[-1][key] or 0) - float(late[0][key] or 0)
        running = sum(float(x["num_requests_running"] or 0) for x in late) / len(late)
        endless = running * max(0.0, 1 - grown("request_success_total") * float(b["mean_output_tokens_actual"]) /
                                grown("generation_tokens_total")) if b else 0.0
        out.append([
            run, s["users"], s["offload"], use, why,
            f"{float(b['duration_seconds']):.1f}" if b else "", b["num_requests_total"] if b else "", s["num_requests"],
            f"{float(s['p50_ttft_ms']):.1f}", f"{float(s['p50_tpot_ms']):.3f}",
            s["gpu_hit_rate"][:6], s["cpu_hit_rate"][:6] if s["offload"] == "on" else "",
            share("prompt_tokens_local_cache_hit"), share("prompt_tokens_external_kv_transfer"),
            f"{float(b['mean_input_tokens']):.0f}" if b else "",
            f"{float(last['prefill_kv_computed_tokens_sum']):.0f}",
            f"{prompt:.0f}", f"{n:.0f}", f"{float(last['relative_time_sec']):.0f}",
            f"{float(b['mean_output_tokens_actual']):.0f}" if b else "",
            f"{float(b['mean_output_tokens_expected']):.0f}" if b else "",
            f"{100 * endless / (n + endless):.1f}" if b else "",
            facts[run]["kv_cache_tokens"], f"{float(last['num_preemptions_total']):.0f}",
            f"{mean('num_requests_running'):.2f}", f"{mean('num_requests_waiting'):.2f}",
        ])
    out.sort(key=lambda r: (r[2], int(r[1]), r[0]))
    write("runs.csv", ["run", "users", "offload", "use", "why_not", "duration_s", "sent", "requests", "ttft_p50_ms",
                       "tpot_p50_ms", "gpu_hit_percent", "cpu_hit_percent", "prompt_gpu_percent",
                       "prompt_host_percent", "recorded_prompt_tokens", "server_computed_tokens", "server_prompt_tokens",
                       "server_prompts", "server_s", "output_tokens", "recorded_output_tokens", "endless_percent", "kv_tokens", "preemptions",
                       "mean_running", "mean_waiting"], out)


def first_requests(requests):
    """Of each user number the first logged request, of the run with most users that has it (replacements differ)."""
    first = {}
    order = {"tp4_u256_on_d4": 0, "tp4_u32_off_d7": 1, "tp4_u12_off_d8": 2}
    for r in requests:
        if r["run"] not in order or not r["user"].isdigit():
            continue
        users = int(r["run"].split("_")[1][1:])
        number = int(r["user"])
        if number > users and r["run"] != "tp4_u256_on_d4":
            continue  # a replacement: begins with request 0 whatever its place in the order
        key = (order[r["run"]], float(r["start_s"]))
        if number not in first or key < first[number][0]:
            first[number] = (key, r)
    return {n: r for n, (_, r) in first.items()}


def substitute(wanted, corpus, taken):
    """The session outside the order with a prompt nearest to the wanted one, at least ten turns from the limit."""
    best = None
    for name in sorted(corpus):
        if name in taken:
            continue
        prompts = corpus[name]
        for i, n in enumerate(prompts):
            left = next((j for j in range(i, len(prompts)) if prompts[j] > CONTEXT), len(prompts)) - i
            if left >= 10 and (best is None or abs(n - wanted) < best[0]):
                best = (abs(n - wanted), name, i)
    return best[1], best[2]


def make_users(source, corpus):
    requests = rows(f"{source}/requests.csv")
    first = first_requests(requests)
    taken = {r["trace"] for r in first.values()}
    out = []
    for number in sorted(first):
        r = first[number]
        trace, turn, wanted, note = r["trace"], int(r["req"]), int(r["input_tokens"]), ""
        if trace not in corpus:
            trace, turn = substitute(wanted, corpus, taken)
            taken.add(trace)
            note = f"for {r['trace']}, not in the corpus: nearest prompt"
        else:
            near = min(range(len(corpus[trace])), key=lambda i: (abs(corpus[trace][i] - wanted), abs(i - turn)))
            if turn >= len(corpus[trace]) or abs(corpus[trace][turn] - wanted) > 64:
                note = f"logged as request {turn}: the client counts sub-agents"
                turn = near
        out.append([number, f"trace_{trace}", turn, wanted, note])
    write("users.csv", ["user", "session", "turn", "logged_prompt_tokens", "note"], out)


def make_prompts(source):
    """Prompts as the server counted them beside what was recorded, in the runs of one user, where both can be told."""
    requests = rows(f"{source}/requests.csv")
    series = rows(f"{source}/server_timeseries_10s.csv")
    out = []
    for run in ("tp4_u1_off_d6", "tp4_u1_on_n0"):
        log = sorted((r for r in requests if r["run"] == run), key=lambda r: float(r["start_s"]))
        sent, before = [], (0.0, 0.0)
        for s in series:
            now = (float(s["prefix_cache_queries"] or 0), float(s["prefix_cache_hits"] or 0))
            if s["run"] == run and now[0] != before[0]:
                sent.append((now[0] - before[0], now[1] - before[1]))
                before = now
        assert len(sent) == len(log)
        for r, (prompt, hit) in zip(log, sent):
            out.append([run, r["user"], r["trace"], r["req"], r["input_tokens"], f"{prompt:.0f}", f"{hit:.0f}",
                        r["output_expected"], r["output_actual"], r["ttft_s"], r["itl_s"]])
    write("prompts_one_user.csv", ["run", "user", "session", "request", "recorded_prompt_tokens", "prompt_tokens",
                                   "hit_tokens", "recorded_output_tokens", "output_tokens", "ttft_s", "tpot_s"], out)
    first, growth = [], []
    last = None
    for r in out:
        if last is None or last[:3] != r[:3]:
            first.append(int(r[5]) / int(r[4]))
        else:
            growth.append((int(r[4]) - int(last[4]), int(r[5]) - int(last[5]), int(last[8])))
        last = r
    slope, base = statistics.linear_regression([g[0] for g in growth], [g[1] for g in growth])
    # Within each run, since their means differ.
    runs = {}
    for r in out:
        runs.setdefault(r[0], []).append(int(r[8]))
    spread = statistics.mean([(n / statistics.mean(all_) - 1) ** 2 for all_ in runs.values() for n in all_]) ** 0.5
    print(f"outputs of a run spread by {spread:.3f} of their mean")
    print(f"first prompt x {statistics.mean(first):.4f}; each further one + {slope:.4f} x recorded growth + {base:.0f} tokens")


def make_steps(source):
    """Steps of the engine alone: decode steps from samples 10 s apart between which the batch stayed the same, no prompt came
    and none ended; prompts of one user's runs, each alone (TTFT, so with front end and client)."""
    series = {}
    for r in rows(f"{source}/server_timeseries_10s.csv"):
        series.setdefault(r["run"], []).append(r)
    same = ("num_requests_running", "prompt_tokens_total", "request_success_total")
    cells = {}
    for run in sorted(series):
        if run == "tp4_u256_on_n1":
            continue  # a copy
        for a, b in zip(series[run], series[run][1:]):
            value = lambda x, key: float(x[key] or 0)
            dt = value(b, "relative_time_sec") - value(a, "relative_time_sec")
            tokens = value(b, "generation_tokens_total") - value(a, "generation_tokens_total")
            n = int(value(a, "num_requests_running"))
            if n < 1 or tokens <= 0 or not 8 < dt < 12 or any(value(a, k) != value(b, k) for k in same):
                continue
            used = 0.005 * (value(a, "kv_cache_usage_pct") + value(b, "kv_cache_usage_pct")) * 1901888
            if 1e3 * dt * n / tokens < 200:  # slower (0.6 to 1 s): with chunks of a long prompt that is not counted yet
                cells.setdefault(n, []).append((1e3 * dt * n / tokens, used))
    head = ["b200", "deepseek-v3-r1", "vllm", "fp4", "2026-04-01", 4, 1, 4, 0]
    out = []
    for n in sorted(cells):
        if len(cells[n]) >= 5:
            ms = sorted(c[0] for c in cells[n])
            at = lambda q: f"{ms[round(q * (len(ms) - 1))]:.2f}"
            out.append([f"batch_{n}"] + head + ["decode", n, n, f"{statistics.mean(c[1] for c in cells[n]):.0f}", 0, 0, 0, 1,
                                                 len(ms), f"{statistics.median(ms):.2f}", at(0.1), at(0.9)])
    last = None
    for r in rows("prompts_one_user.csv"):
        first_of_run = last is None or last["run"] != r["run"]
        new = int(r["prompt_tokens"]) - int(r["hit_tokens"])
        if not first_of_run:  # it compiles kernels
            out.append([f"{r['run']}_{r['session']}_{r['request']}"] + head +
                       ["prompt", 1, 1, 0, new, r["hit_tokens"], 8192, 1, 1, f"{1e3 * float(r['ttft_s']):.1f}", "", ""])
        last = r
    write("steps.csv", ["point", "platform", "model", "engine", "precision", "released", "tp", "attention_dp", "moe_ep",
                        "draft_tokens", "kind", "rank_seqs", "total_seqs", "rank_kv_tokens", "new_tokens", "past_tokens",
                        "chunk_tokens", "tokens_a_step", "samples", "ms", "p10_ms", "p90_ms"], out)


if __name__ == "__main__":
    source, trace, originals = (os.path.abspath(a) for a in sys.argv[1:4])
    os.chdir(os.path.dirname(os.path.abspath(__file__)) or ".")
    make_runs(source)
    make_users(source, sessions(trace))
    make_waits(originals, trace)
    make_prompts(source)
    make_steps(source)
