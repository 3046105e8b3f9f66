#!/usr/bin/env python3
"""trace.py LOG [TRACE]: a timeline of one pod start, from the daemon's own records.

LOG is the daemon's log with --set log.format=json --set log.level=info,crisp::stage=debug (stages of operations), TRACE the file of
--set trace.file (spans of requests). Every millisecond between two stages belongs to the first of them. Shows the last RunPodSandbox and what
followed until its container was started; times are milliseconds from the beginning of the request."""

import datetime
import json
import sys


def lines(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                pass


def time(record):
    return datetime.datetime.fromisoformat(record["timestamp"].replace("Z", "+00:00")).timestamp() * 1e3


UNITS = {"ns": 1e-6, "µs": 1e-3, "ms": 1.0, "s": 1e3}


def duration(text):
    unit = text.lstrip("0123456789.")
    return float(text[: len(text) - len(unit)]) * UNITS[unit]


def rows(log, trace):
    found = [(time(r), None, "    " + (r.get("stage") or r["fields"]["stage"])) for r in lines(log) if str(r.get("target")) == "crisp::stage"]
    for record in lines(trace) if trace else []:
        fields, span = record.get("fields", {}), record.get("span", {})
        if "time.busy" in fields and "method" in span:
            took = duration(fields["time.busy"]) + duration(fields["time.idle"])
            found.append((time(record) - took, took, span["method"]))
    return sorted(found, key=lambda row: row[0])


def main():
    found = rows(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
    begins = [i for i, (_, took, what) in enumerate(found) if took is not None and what.endswith("RunPodSandbox")]
    if not begins:
        begins = [i for i, row in enumerate(found) if "making files" in row[2]]
    if not begins:
        sys.exit("no RunPodSandbox in these files")
    chosen = []
    for row in found[begins[-1] :]:
        if "StopContainer" in row[2] or "StopPodSandbox" in row[2]:
            break
        chosen.append(row)
    start = chosen[0][0]
    end = max(at + (took or 0) for at, took, _ in chosen)
    scale = 60 / max(end - start, 0.001)
    for at, took, what in chosen:
        if took is None:
            following = [later for later, *_ in chosen if later > at]
            took = (min(following) if following else end) - at
        bar = " " * int((at - start) * scale) + "#" * max(1, round(took * scale))
        print(f"{at - start:8.2f} {took:8.2f}  {bar:<61} {what}")


if __name__ == "__main__":
    main()
