#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes hwmodels/evidence from a folder of source tables (see README.md for what they are and where they are from).

    python3 hwmodels/evidence/import.py SOURCE [DESTINATION]

SOURCE has kernels/aiconfigurator (with MANIFEST.tsv), kernels/aiter, kernels/vidur, power and serving. Needs the `zstd`
program. Rows are copied digit for digit and sorted; columns that hold one value in a file go to MANIFEST.csv.
The same input gives the same bytes (zstd -19, one thread)."""
import csv
import gzip
import io
import os
import re
import subprocess
import sys

SYSTEMS = {"h100_sxm": "h100", "h200_sxm": "h200", "b200_sxm": "b200", "b300_sxm": "b300",
           "gb200": "gb200", "gb300": "gb300"}
APACHE, MIT = "Apache-2.0", "MIT"
AIC = "github.com/ai-dynamo/aiconfigurator 095f58a51 (2026-08-21)"
AITER = "github.com/ROCm/aiter e4048607a (2026-08-22)"
VIDUR = "github.com/microsoft/vidur 7d475133 (2024-11)"

# Sort order of rows: categorical columns first, then axes in order of nesting, then what was measured.
KEYS = ["op_name", "phase", "kernel_source", "score_mode", "model", "allreduce_dtype", "nccl_dtype", "gemm_dtype",
        "moe_dtype", "bmm_dtype", "quant_dtype", "attn_dtype", "mla_dtype", "gemm_type", "kv_cache_dtype",
        "hidden_size", "inter_size", "topk", "num_topk", "num_experts", "num_slots", "moe_tp_size", "moe_ep_size",
        "distribution", "dispatch_sms", "combine_sms", "head_dim", "window_size", "num_heads",
        "num_key_value_heads", "num_k_heads", "num_v_heads", "tp_size", "num_gpus", "n", "k", "m", "batch_size",
        "step", "isl", "seq_len", "num_token", "num_tokens", "message_size"]
VALUES = ["rank0_num_tokens", "latency", "power"]
# Columns that repeat another one or that nothing reads.
DROP = {"architecture", "backend", "implementation", "num_sites", "hc_mult", "sinkhorn_iters", "beam_width",
        "source_rows", "repeated_keys_dropped", "device", "version", "compress_ratio", "d_model", "model_name",
        "dp_num_tokens", "global_num_tokens", "node_num", "dispatch_notify_us", "combine_notify_us",
        "dispatch_bandwidth_gbps", "combine_bandwidth_gbps", "simulation_mode", "moe_kernel"}
LEFT_OUT = re.compile(r"^(kda|msa_|glm5_|encoder|gptoss_|quantize_scale_matrix|dsv4_hca_attn|dsv4_paged_mqa_logits)")
# Tables of SGLang on B300 that upstream copied from GB300 or that an older version alone has.
B300_SGLANG_LEFT_OUT = {"gemm", "context_attention", "generation_attention", "dsv4_mhc", "quantize_computescale"}
# Older tables kept beside the newest, and which rows of them. TensorRT-LLM rc23 `moe` holds DeepSeek-V4 only.
ALSO = {("moe", "trtllm", "1.3.0rc20"): None,
        ("mla_context_module", "vllm", "0.22.0"): ("gemm_type", "bfloat16"),
        ("mla_generation_module", "vllm", "0.22.0"): ("gemm_type", "bfloat16")}
# Older tables that alone have watts; kept apart because their times are not those of today's engines.
WATTS = {"gemm", "moe", "context_attention", "generation_attention", "context_mla", "generation_mla",
         "mla_context_module", "mla_generation_module", "dsa_context_module", "dsa_generation_module", "mla_bmm",
         "gdn"}


def version_key(text):
    return [(0, int(p)) if p.isdigit() else (1, p) for p in re.findall(r"\d+|[a-z]+", text)]


def number(text):
    try:
        return (0, float(text), "")
    except ValueError:
        return (1, 0.0, text)


def read_table(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", newline="") as f:
        rows = list(csv.reader(f))
    return rows[0], rows[1:]


def write_table(path, columns, rows):
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(columns)
    out.writerows(rows)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    subprocess.run(["zstd", "-q", "-19", "--single-thread", "-f", "-o", path, "-"],
                   input=text.getvalue().encode(), check=True)


def arrange(columns, rows, keep=None):
    """Known columns in KEYS order, constants split off, rows sorted."""
    order = [c for c in KEYS if c in columns]
    order += [c for c in columns if c not in KEYS and c not in VALUES and c not in DROP]
    order += [c for c in VALUES if c in columns]
    index = [columns.index(c) for c in order]
    rows = [[r[i] for i in index] for r in rows]
    if keep:
        rows = [r for r in rows if r[order.index(keep[0])] == keep[1]]
    constants = []
    for c in [c for c in order if c not in VALUES and not c.endswith("_us")]:
        values = {r[order.index(c)] for r in rows}
        if len(values) == 1 and len(rows) > 1:
            i = order.index(c)
            constants.append(f"{c}={values.pop()}")
            order = order[:i] + order[i + 1:]
            rows = [r[:i] + r[i + 1:] for r in rows]
    rows.sort(key=lambda r: [number(v) for v in r])
    return order, rows, constants


def aiconfigurator(source, destination, manifest):
    folder = os.path.join(source, "kernels", "aiconfigurator")
    constants_of, source_of = {}, {}
    with open(os.path.join(folder, "MANIFEST.tsv"), newline="") as f:
        for row in csv.DictReader(f, delimiter="\t"):
            constants_of[row["file"]] = row["constants"] or ""
            source_of[row["file"]] = row["source"]
    for system, platform in SYSTEMS.items():
        tables = {}
        for name in sorted(os.listdir(os.path.join(folder, system))):
            match = re.match(r"([a-z0-9_]+)\.([a-z]+)([0-9][^/]*?)(\.power)?\.csv(\.gz)?$", name)
            op, engine, version, power, gz = match.groups()
            if LEFT_OUT.match(op):
                continue
            # Of one version the gzip table is the wider one, and with power better than without.
            best = tables.setdefault((op, engine), {})
            rank = (bool(gz), bool(power))
            if version not in best or rank > best[version][0]:
                best[version] = (rank, name)
        for (op, engine), versions in sorted(tables.items()):
            newest = max(versions, key=version_key)
            for version in sorted(versions, key=version_key):
                (gz, power), name = versions[version]
                keep, where = None, ""
                if version == newest:
                    if platform == "b300" and engine == "sglang" and op in B300_SGLANG_LEFT_OUT:
                        continue
                    if (op, engine) in (("context_mla", "vllm"), ("generation_mla", "vllm")):
                        continue
                elif (op, engine, version) in ALSO:
                    keep = ALSO[(op, engine, version)]
                elif power and op in WATTS:
                    where = "watts/"
                else:
                    continue
                todo = [(keep, where)]
                if keep and power and op in WATTS:
                    todo.append((None, "watts/"))
                source_name = f"{system}/{name}"
                columns, rows = read_table(os.path.join(folder, source_name))
                for keep, where in todo:
                    order, kept, constants = arrange(columns, rows, keep)
                    if not kept:
                        continue
                    if where:
                        if "power" not in order:
                            continue
                        kept = [r for r in kept if r[order.index("power")]]
                    for c in constants_of[source_name].split("; "):
                        if c and c.split("=")[0] not in DROP:
                            constants.append(c)
                    # The plain tables of the V4 blocks do not name the KV format, the context tables of the same
                    # collection do.
                    if engine == "sglang" and re.match(r"dsv4_.*_generation_module", op) and not gz:
                        constants.append("kv_cache_dtype=fp8_e4m3")
                    file = f"{where}{platform}/{op}.{engine}{version}.csv.zst"
                    write_table(os.path.join(destination, file), order, kept)
                    manifest.append([file, len(kept), f"{AIC}: {source_of[source_name]}", APACHE,
                                     "; ".join(sorted(set(constants)))])


def aiter(source, destination, manifest):
    """Columns get the names of the other tables, microseconds become milliseconds. Where several kernels were
    kept for one shape, all stay."""
    version = "2026.08.22"
    dtype = {"bf16": "bfloat16", "fp8_ptok": "fp8"}
    columns, rows = read_table(os.path.join(source, "kernels", "aiter", "gemm_best.csv"))
    at = {c: i for i, c in enumerate(columns)}
    moe_columns, moe_rows = read_table(os.path.join(source, "kernels", "aiter", "fused_moe_best.csv"))
    am = {c: i for i, c in enumerate(moe_columns)}

    def milliseconds(us):
        return f"{float(us) / 1000.0:.7g}"

    def moe_dtype(r):
        act, weight, quant = r[am["act_dtype"]], r[am["weight_dtype"]], r[am["quant"]]
        short = {"bfloat16": "bf16", "float8_e4m3fn": "fp8", "float8_e4m3fnuz": "fp8", "float4_e2m1fn_x2": "fp4",
                 "int4": "int4"}
        pair = (short[act], short[weight], quant)
        names = {("fp4", "fp4", "per_1x32"): "w4a4_mxfp4", ("fp8", "fp4", "per_1x32"): "w4a8_mxfp4_mxfp8",
                 ("fp8", "fp8", "per_1x128"): "fp8_block", ("bf16", "int4", "per_1x32"): "int4_wo",
                 ("fp8", "fp8", "per_Token"): "fp8", ("fp8", "fp8", "per_1x32"): "mxfp8",
                 ("bf16", "fp4", "per_1x32"): "w4a16_mxfp4", ("bf16", "bf16", "No"): "bfloat16"}
        return names[pair]

    for gfx, platform in (("gfx942", "mi300x"), ("gfx950", "mi355x")):
        out = [[dtype.get(r[at["dtype"]], r[at["dtype"]]), r[at["N"]], r[at["K"]], r[at["M"]],
                milliseconds(r[at["us"]])] for r in rows if r[at["gfx"]] == gfx]
        order, out, constants = arrange(["gemm_dtype", "n", "k", "m", "latency"], out)
        file = f"{platform}/gemm.aiter{version}.csv.zst"
        write_table(os.path.join(destination, file), order, out)
        manifest.append([file, len(out), f"{AITER}: aiter/configs gemm, {gfx}", MIT, "; ".join(constants)])
        out = [[moe_dtype(r), r[am["model_dim"]], r[am["inter_dim_per_rank"]], r[am["topk"]], r[am["experts"]],
                r[am["tokens"]], milliseconds(r[am["us"]])] for r in moe_rows if r[am["gfx"]] == gfx]
        order, out, constants = arrange(["moe_dtype", "hidden_size", "inter_size", "topk", "num_experts",
                                         "num_tokens", "latency"], out)
        file = f"{platform}/moe.aiter{version}.csv.zst"
        write_table(os.path.join(destination, file), order, out)
        manifest.append([file, len(out), f"{AITER}: aiter/configs fused MoE, {gfx}", MIT,
                         "; ".join(constants + ["moe_tp_size=1", "moe_ep_size=1", "distribution=balanced"])])


def plain(source, destination, manifest):
    """Small tables, unchanged."""
    mlenergy = ("github.com/ml-energy/leaderboard public/data/models 0cd52dab (2026-02-27); ML.ENERGY Benchmark, "
                "NeurIPS Datasets and Benchmarks 2025")
    inferencex = ("github.com/SemiAnalysisAI/InferenceX branches agentx-v0.1-testing (718131450, e872f86cc) and "
                  "experimental/multi-turn-benchmark (2582608b1): unofficial branch runs")
    infera = "github.com/AMD-AGI/Infera b85a44a03 (2026-08-07)"
    points = ("AIConfigurator silicon_sample.csv (" + AIC + ") and InferenceX API measurements as published with "
              "github.com/vngcloud/InferenceX-app 528c4146 (numbers only), settings from InferenceX and srt-slurm")
    files = [("power/mlenergy_llm_configs.csv", mlenergy, APACHE),
             ("power/platform_power.csv", "single facts, `source` column", "facts"),
             ("serving/points.csv", points, APACHE),
             ("serving/kv_reuse_facts.csv", "single facts, `source` column", "facts"),
             ("serving/mi355x_glm52/fixlen_summary.csv", infera, MIT),
             ("serving/mi355x_glm52/solo_summary.csv", infera, MIT),
             ("serving/mi355x_glm52/server_args.csv", infera, MIT)]
    for name in ("summary", "bmk_aggregates", "server_facts"):
        files.append((f"serving/b200_dsr1fp4_agentic/{name}.csv", inferencex, APACHE))
    files.append(("serving/b200_llama70bfp4_multiturn/experiment_summary.csv", inferencex, APACHE))
    for name, origin, licence in files:
        with open(os.path.join(source, name), "rb") as f:
            content = f.read()
        rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
        path = os.path.join(destination, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if len(content) > 65536:
            path += ".zst"
            write_table(path, rows[0], rows[1:])
        elif not os.path.exists(path) or open(path, "rb").read() != content:
            with open(path, "wb") as f:
                f.write(content)
        manifest.append([os.path.relpath(path, destination), len(rows) - 1, origin, licence, ""])
    for name in ("h100_dgx_all_reduce", "a100_dgx_all_reduce", "h100_llama2-70b_mlp"):
        columns, rows = read_table(os.path.join(source, "kernels", "vidur", name + ".csv"))
        file = f"vidur/{name}.csv.zst"
        write_table(os.path.join(destination, file), columns, rows)
        manifest.append([file, len(rows), f"{VIDUR}: data/profiling", MIT, ""])


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    source = sys.argv[1]
    destination = sys.argv[2] if len(sys.argv) > 2 else os.path.dirname(os.path.abspath(__file__))
    manifest = []
    aiconfigurator(source, destination, manifest)
    aiter(source, destination, manifest)
    plain(source, destination, manifest)
    with open(os.path.join(destination, "MANIFEST.csv"), "w", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(["file", "rows", "source", "licence", "constants"])
        out.writerows(sorted(manifest))


if __name__ == "__main__":
    main()
