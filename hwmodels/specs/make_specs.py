#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes hwmodels/specs and hwmodels/models from collected public facts (hardware.json, models.json).

    python3 hwmodels/specs/make_specs.py FACTS_FOLDER

Every number keeps its grade and the text of its source. Node power outside the accelerators is computed here
from the constants of the SemiAnalysis PowerX profiles (facts; see `all_in_source` in each node)."""
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
GRADES = "CFG config file, ENG engine source, MEAS measured, VEN vendor, SA SemiAnalysis, 2nd secondary, DRV derived, ? estimate"

NUMBERS = [("hbm_bytes", "hbm_bytes"), ("hbm_reported_bytes", "hbm_reported_bytes"),
           ("hbm_bytes_per_s", "hbm_bandwidth_bytes_per_s"), ("bf16_flop_per_s", "bf16_dense_flop_per_s"),
           ("fp8_flop_per_s", "fp8_dense_flop_per_s"), ("fp4_flop_per_s", "fp4_dense_flop_per_s"),
           ("tdp_w", "tdp_w"), ("scaleup_bytes_per_s", "scaleup_bandwidth_per_direction_bytes_per_s"),
           ("host_link_bytes_per_s", "host_link_bandwidth_per_direction_bytes_per_s"),
           ("scaleout_bytes_per_s", "scaleout_bandwidth_per_direction_bytes_per_s"), ("idle_w", "idle_w")]
KEEP = ["h100", "h200", "b200", "b300", "gb200", "gb300", "mi300x", "mi325x", "mi355x", "vr200", "mi455x"]


def write(path, value):
    with open(path, "w", encoding="utf-8") as out:
        json.dump(value, out, indent=1)
        out.write("\n")


def number(fact, sources):
    if not isinstance(fact, dict):
        return {"value": fact, "source": "as listed"}
    value = fact.get("value")
    if isinstance(value, list):
        value = sum(value) / len(value)
    entry = {"value": value}
    for key in ("unit", "grade", "note", "reason"):
        if fact.get(key):
            entry[key] = fact[key]
    source = fact.get("source")
    if source:
        entry["source"] = sources.get(source, source) if isinstance(source, str) else source
    return entry


def host_rates(name, link, hw):
    """What KV gets over the host link of one accelerator, to it and from it; the nominal rate is never reached."""
    pcie, c2c = hw["kv_tiers"]["host_pcie5"], hw["kv_tiers"]["host_c2c"]
    nominal = link.get("value") if isinstance(link, dict) else None
    if nominal is None:
        reason = {"value": None, "reason": "the link is not known"}
        return reason, reason
    unit = "B/s per GPU"
    if name in ("gb200", "gb300", "vr200"):
        fact = c2c["gh200_h2d_copy_engine_bytes_per_s"]
        share = fact["value"] / 450e9
        rates = share * nominal, c2c["d2h_factor"]["value"] * share * nominal
        note = "share of the nominal rate that GH200 reaches (346 of 450 GB/s, 15 % less from the GPU); not measured here"
        grade = "DRV"
    elif name in ("h100", "h200"):
        fact = pcie["one_way_measured_bytes_per_s"]
        rates, grade = (fact["value"],) * 2, "MEAS" if name == "h100" else "DRV"
        note = "one way alone; both ways at once 83.4 GB/s in sum" + ("" if name == "h100" else "; measured on H100")
    else:
        fact = pcie["b200_serving_peak_bytes_per_s"]
        up, down = fact["value"]
        rates = up * nominal / 64e9, down * nominal / 64e9
        grade = "MEAS" if name == "b200" else "DRV"
        note = "peak of a serving run with offload" + ("" if name == "b200" else
                                                       " on B200, by the nominal rate; not measured here")
    source = hw["sources"][fact["source"]]
    return tuple({"value": round(r), "unit": unit, "grade": grade, "note": note, "source": source} for r in rates)


def bf16_by_fp8(hw, acc):
    """A bf16 rate that nobody published, as on every part of the same maker that has both."""
    both = [name for name in KEEP if hw["accelerators"][name]["vendor"] == acc["vendor"]
            and (hw["accelerators"][name].get("bf16_dense_flop_per_s") or {}).get("value")]
    ratios = [hw["accelerators"][name]["bf16_dense_flop_per_s"]["value"] /
              hw["accelerators"][name]["fp8_dense_flop_per_s"]["value"] for name in both]
    others = {name: hw["accelerators"][name]["bf16_dense_flop_per_s"]["value"] /
              hw["accelerators"][name]["fp8_dense_flop_per_s"]["value"] for name in KEEP
              if hw["accelerators"][name]["vendor"] != acc["vendor"] and
              (hw["accelerators"][name].get("bf16_dense_flop_per_s") or {}).get("value") and
              (hw["accelerators"][name].get("fp8_dense_flop_per_s") or {}).get("value")}
    least = min(others, key=others.get)
    note = "not published: of the FP8 rate the share that %s have; on %s it is %.2f" % (", ".join(both), least, others[least])
    value = float("%.3g" % (sum(ratios) / len(ratios) * acc["fp8_dense_flop_per_s"]["value"]))
    return {"value": value, "note": note, "source": "computed by make_specs.py"}


def interpolate(x, xs, ys):
    x = min(max(x, xs[0]), xs[-1])
    for i in range(1, len(xs)):
        if x <= xs[i]:
            return ys[i - 1] + (ys[i] - ys[i - 1]) * (x - xs[i - 1]) / (xs[i] - xs[i - 1])
    return ys[-1]


def air8_it_w(px, name, gpu_w):
    """IT watts of an air-cooled node of eight, agentic constants, scale-out NICs off."""
    dc = 8 * gpu_w + px["fixed_dc_w"][name][2]
    full, nameplate = px["fan"][name]
    pwm = min(max(0.22 + 0.58 * min(1.0, dc / full), 0.22), 0.80)
    dc += nameplate * pwm ** 3
    eta = interpolate(dc / px["psu"][name][0], px["psu_eta"]["load"], px["psu_eta"]["eta"])
    return dc / eta + px["network_w_per_server_off_on"][name][0]


def main():
    facts = sys.argv[1]
    hw = json.load(open(os.path.join(facts, "hardware.json"), encoding="utf-8"))
    llm = json.load(open(os.path.join(facts, "models.json"), encoding="utf-8"))
    sources = hw["sources"]
    for name in KEEP:
        acc = hw["accelerators"][name]
        out = {"schema": "apmw.accelerator/1", "id": name, "name": acc["name"], "vendor": acc["vendor"].lower(),
               "grades": GRADES, "projected": acc.get("status") == "projected",
               "scaleup_domain": acc.get("scaleup_domain", acc.get("gpus_per_node", 8))}
        for key, source_key in NUMBERS:
            fact = acc.get(source_key)
            if key == "hbm_reported_bytes" and fact is None:
                fact = dict(acc["hbm_bytes"], note="no other reading: the capacity itself")
            if key == "idle_w" and (fact is None or (isinstance(fact, dict) and fact.get("value") is None)):
                fact = {"value": None, "reason": "no measurement found"}
                other = hw["power"]["idle_w"].get(name)
                if other and other["grade"] != "?":
                    fact = other
            if key == "idle_w" and fact.get("grade") == "?":
                fact = {"value": None, "reason": "not measured; secondary pages: " + fact.get("note", "an estimate")}
            if fact is None:
                fact = {"value": None, "reason": "not published"}
            if key == "bf16_flop_per_s" and name == "mi455x" and fact.get("value") is None:
                fact = dict(bf16_by_fp8(hw, acc), unit="FLOP/s", grade="?")
            out[key] = number(fact, sources)
        out["host_load_bytes_per_s"], out["host_store_bytes_per_s"] = \
            host_rates(name, acc.get("host_link_bandwidth_per_direction_bytes_per_s"), hw)
        dram = acc.get("host_dram_bytes_per_gpu")
        out["host_dram_bytes"] = number(dram, sources) if dram else {"value": None, "reason": "not published"}
        allin = acc.get("allin_it_kw_per_gpu")
        out["all_in_w"] = number(dict(allin, value=allin["value"] * 1000.0, unit="W"), sources) if allin else \
            {"value": None, "reason": "not published"}
        write(os.path.join(HERE, "accelerators", name + ".json"), out)

    px = hw["power"]["powerx"]
    nodes = [("hgx-h100", "h100", 8), ("hgx-h200", "h200", 8), ("hgx-b200", "b200", 8), ("hgx-b300", "b300", 8),
             ("gb200-nvl72", "gb200", 72), ("gb300-nvl72", "gb300", 72), ("mi300x-8", "mi300x", 8),
             ("mi325x-8", "mi325x", 8), ("mi355x-8", "mi355x", 8), ("vr-nvl72", "vr200", 72), ("helios-72", "mi455x", 72)]
    for node, acc, count in nodes:
        out = {"schema": "apmw.node/1", "id": node, "accelerator": acc, "accelerators": count,
               "projected": hw["accelerators"][acc].get("status") == "projected"}
        if acc in px["air8"]["fixed_dc_w"]:
            watts = [150, 350, 600, 800, 1000, 1400]
            tdp = hw["accelerators"][acc]["tdp_w"]["value"]
            watts = [w for w in watts if w < tdp] + [tdp]
            out["all_in"] = [{"accelerator_w": w, "it_w_per_accelerator": round(air8_it_w(px["air8"], acc, w) / 8, 1)}
                             for w in watts]
            out["all_in_source"] = sources["PX"] + "; agentic constants, scale-out NICs off, before PUE; computed by make_specs.py"
            out["pue"] = px["air8"]["pue"]
        elif acc in px["computed_it_kw_per_gpu"]:
            out["all_in"] = [{"accelerator_w": w, "it_w_per_accelerator": round(1000.0 * k, 1)} for w, k in
                             zip(px["computed_it_kw_per_gpu"]["nvl72_gpu_w"], px["computed_it_kw_per_gpu"][acc])]
            out["all_in_source"] = sources["PX"] + "; " + px["computed_it_kw_per_gpu"]["note"]
            out["pue"] = px["nvl72"]["pue"]
        else:
            out["all_in"] = []
            out["all_in_source"] = "none: no power model of this rack is public"
            out["pue"] = None
        write(os.path.join(HERE, "nodes", node + ".json"), out)

    def terms(items, unit):
        return [{"name": t["name"], "layers": t["layers"], "per_entry": t[unit], "div": t["div"],
                 "cap_entries": t["cap_entries"]} for t in items]

    for name, m in llm["models"].items():
        config = {k: v for k, v in m["config"].items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
        curve, curve_source = {}, None
        spec = m.get("spec_decode")
        if spec:
            for c in spec["curves"]:
                on = c.get("on")
                if on and not curve:
                    curve = {str(i + 1): v for i, v in enumerate(on)}
                    curve_source = c["method"] + "; " + llm["sources"].get(spec["source"], spec["source"])
                for key, value in c.items():
                    if key.startswith("at_draft_") and not curve:
                        curve = {key[len("at_draft_"):]: value}
                        curve_source = c["method"] + "; " + llm["sources"].get(spec["source"], spec["source"])
        w, f, kv = m["weights"], m["flops"], m["kv"]
        variants = {k: v for k, v in m.get("variants", {}).items() if isinstance(v, (int, float))}
        out = {"schema": "apmw.llm/1", "id": name, "name": m["name"], "release": m["release"], "grade": m["grade"],
               "sources": [llm["sources"].get(s, s) for s in m["sources"]], "architecture": config,
               "params": {"total": m["params"]["total_params_without_mtp"], "active": m["params"]["active_params_per_token"]},
               "weights": {"scheme": w["scheme"], "always_read_bytes": w["always_read_bytes_per_step"],
                           "moe_layers": w["moe_layers"], "expert_params": w.get("expert_params"),
                           "expert_bytes": w.get("expert_bytes"), "routed_bytes": w.get("routed_bytes_total"),
                           "embed_bytes": w["embed_bytes_resident_only"], "mtp_bytes": w["mtp_or_draft_bytes"],
                           "resident_bytes": w["resident_bytes_total"],
                           "always_read_breakdown_bytes": w.get("always_read_breakdown_bytes", {})},
               "flops": {"dense_per_token": f["dense_flops_per_token"], "recurrent_per_token": f["recurrent_flops_per_token"],
                         "decode_terms": terms(f["attn_decode_terms"], "flops_per_entry"),
                         "prefill_terms": terms(f["attn_prefill_terms"], "flops_per_entry")},
               "kv": {"resident_terms": terms(kv["resident_terms"], "bytes_per_entry"),
                      "read_terms": terms(kv["read_terms"], "bytes_per_entry"),
                      "state_bytes": kv["state_bytes_per_seq"]},
               "variants": variants,
               "acceptance": {"per_draft_length": curve, "source": curve_source,
                              "caution": llm["spec_decode_caution"]},
               "notes": m.get("notes", [])}
        write(os.path.join(HERE, "..", "models", name + ".json"), out)


if __name__ == "__main__":
    main()
