#!/usr/bin/env python3
"""report.py FOLDER: from the JSON files of hack/bench.sh (SUITE-RUNTIME-ROUND.json) to table.md, results.json and plots (SVG).

A measure of several rounds is the middle one of the rounds' medians (throughput, pulls: the best round)."""

import json
import pathlib
import statistics
import sys

# CRI-O cannot be had from the registries that the bench uses: what was measured next to containerd 2.3.3 on the same machine stands
# for it, scaled by how containerd does today. Name of the measure: (CRI-O then, containerd then)
CRIO = {
    "up": (54.2, 118.5), "up, host network": (35, 97), "down": (146.7, 84.6), "50 pods, 10 at once": (2.4, 5.5),
    "processor time of a life": (80, 197), "exec": (6.9, 18.2), "execs per second, 10 at once": (255, 88),
    "memory a pod adds": (0.56, 5.42), "daemon, no pods": (50.7, 39.6), "daemon, with pods": (71.8, 110.0),
    "ListContainerStats": (179, 192), "ListPodSandboxStats": (204, 112), "at rest": (0.03, 22.2), "polled every second": (0.2, 22.1),
    "log": (211.7, 37.7), "pull gzip": (13.1, 8.0), "pull zstd": (22.1, 6.6), "restart": (1478, 1066),
}


def reader(*path):
    def read(results):
        value = results
        for key in path:
            value = value[key]
        return value["value"] if isinstance(value, dict) else value

    return read


def total(suffix):
    """Processor use of all classes of processes."""
    return lambda r: sum(v["value"] for k, v in r.items() if k.endswith(suffix) and isinstance(v, dict) and "value" in v)


def anywhere(name, field):
    """The field of the table row of that name, whatever its table is called."""

    def read(results):
        return next(table[name][field] for table in results.values() if isinstance(table, dict) and name in table)

    return read


def seconds(read):
    return lambda results: read(results) / 1e3


# measure: suite, how to read it, unit, goal (text), which value of several rounds
MEASURES = [
    ("up", "pod", reader("latency", "up (run+create+start)", "median"), "ms", "≤ 0.45×; built-in ≤ 0.2×"),
    ("up, host network", "host", reader("latency", "up (run+create+start)", "median"), "ms", "≤ 0.3×"),
    ("down", "pod", reader("latency", "down (stop+remove)", "median"), "ms", "≤ 0.6×; built-in ≤ 0.1×"),
    ("50 pods, 10 at once", "parallel", reader("wall"), "s", "≤ 0.5×"),
    ("processor time of a life", "pod", reader("processor_time_per_pod"), "ms", "≤ 0.5×; built-in ≤ 0.2×"),
    ("exec", "exec", reader("sequential_exec", "ExecSync", "median"), "ms", "≤ 0.4×"),
    ("execs per second, 10 at once", "exec", reader("parallel_execs_per_second"), "1/s", "≥ 2.5×"),
    ("memory a pod adds", "density", reader("all_pss_growth_per_pod"), "MiB", "≤ 0.25"),
    ("daemon, no pods", "density", reader("daemon_pss_without_pods"), "MiB", "≤ 10"),
    ("daemon, with pods", "density", reader("daemon_pss"), "MiB", "≤ 15"),
    ("ListContainerStats", "density", reader("lists", "ListContainerStats", "median"), "ms", "≤ 10"),
    ("ListPodSandboxStats", "density", reader("lists", "ListPodSandboxStats", "median"), "ms", "≤ 10"),
    ("at rest", "density", total("_at_rest"), "% of a core", "≤ 0.01"),
    ("polled every second", "density", total("_polled_each_second"), "% of a core", "≤ 0.15"),
    ("log", "logs", anywhere("MB/s", "max"), "MB/s", "≥ 2.5×"),
    ("pull gzip", "pull", seconds(anywhere("PullImage", "min")), "s", "≤ 0.4×"),
    ("pull zstd", "pullz", seconds(anywhere("PullImage", "min")), "s", "≤ 0.4×"),
    ("restart", "restart", anywhere("ExecSync answers", "median"), "ms", "≤ 100"),
]
MORE = {"execs per second, 10 at once", "log"}  # more is better


def load(folder):
    runs = {}
    for path in sorted(folder.glob("*-*-*.json")):
        suite, rest = path.stem.split("-", 1)
        runtime, _ = rest.rsplit("-", 1)
        runs.setdefault((suite, runtime), []).append(json.loads(path.read_text())["results"])
    return runs


def table(runs):
    runtimes = sorted({runtime for _, runtime in runs})
    rows = []
    for name, suite, how, unit, goal in MEASURES:
        values = {}
        for runtime in runtimes:
            found = []
            for results in runs.get((suite, runtime), []):
                try:
                    found.append(how(results))
                except (KeyError, TypeError, StopIteration):
                    pass
            if found:
                best = max(found) if name in MORE else min(found)
                values[runtime] = best if name == "log" or name.startswith("pull") else statistics.median(found)
        if values:
            peer = values.get("containerd")
            if peer is not None:
                then = CRIO[name]
                values["CRI-O, scaled"] = then[0] * peer / then[1]
            rows.append((name, unit, goal, values))
    return rows


def text(value):
    if value is None:
        return ""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def markdown(rows):
    columns = ["crisp", "crisp-builtin", "containerd", "CRI-O, scaled"]
    columns = [c for c in columns if any(c in values for *_, values in rows)]
    lines = ["| measure | " + " | ".join(columns) + " | ratio to the better peer | goal |", "|---" * (len(columns) + 3) + "|"]
    for name, unit, goal, values in rows:
        peers = [v for k, v in values.items() if not k.startswith("crisp")]
        ratio = ""
        if peers:
            better = max(peers) if name in MORE else min(peers)
            own = [f"{values[k] / better:.2g}×" for k in ("crisp", "crisp-builtin") if k in values and better]
            ratio = ", ".join(own)
        cells = " | ".join(text(values.get(c)) for c in columns)
        lines.append(f"| {name}, {unit} | {cells} | {ratio} | {goal} |")
    return "\n".join(lines) + "\n"


COLOURS = {"crisp": "#2f7d5b", "crisp-builtin": "#7cc39f", "containerd": "#8a8f98", "CRI-O, scaled": "#c9ccd1"}


def plot(name, unit, values):
    width, bar, left = 560, 26, 130
    height = 40 + bar * len(values)
    most = max(values.values()) or 1
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/><text x="8" y="20" font-weight="bold">{name} ({unit})</text>',
    ]
    for row, (runtime, value) in enumerate(values.items()):
        y, length = 32 + row * bar, max(1, (width - left - 70) * value / most)
        out.append(f'<text x="{left - 6}" y="{y + 14}" text-anchor="end">{runtime}</text>')
        out.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 8}" fill="{COLOURS.get(runtime, "#888")}"/>')
        out.append(f'<text x="{left + length + 5:.1f}" y="{y + 14}">{text(value)}</text>')
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    folder = pathlib.Path(sys.argv[1])
    rows = table(load(folder))
    (folder / "table.md").write_text(markdown(rows))
    data = [{"measure": n, "unit": u, "goal": g, "values": v} for n, u, g, v in rows]
    (folder / "results.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    for name, unit, _, values in rows:
        file = "".join(c if c.isalnum() else "-" for c in name) + ".svg"
        (folder / file).write_text(plot(name, unit, values))
    print(markdown(rows))


if __name__ == "__main__":
    main()
