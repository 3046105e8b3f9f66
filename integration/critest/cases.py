#!/usr/bin/env python3
"""cases.py REPORT LABEL SKIPS: the specs of a ginkgo JSON report as test cases, one line each.

A spec that is skipped without a reason in SKIPS counts as failed, and so does a run without specs.
"""
import json
import sys

PASSED, SKIPPED = "passed", "skipped"


def name(spec):
    parts = [part.replace("[k8s.io] ", "") for part in spec.get("ContainerHierarchyTexts") or []]
    return " / ".join(parts + [spec["LeafNodeText"]])


def reasons(path):
    with open(path) as f:
        lines = [line.strip() for line in f if line.strip() and not line.startswith("#")]
    return [(begin.strip(), reason.strip()) for begin, reason in (line.split("#", 1) for line in lines)]


def main():
    report, label, skips = sys.argv[1:4]
    allowed = reasons(skips)
    with open(report) as f:
        specs = [s for s in json.load(f)[0]["SpecReports"] if s["LeafNodeType"] == "It" and "benchmark" not in name(s)]
    shown = failed = 0
    for spec in sorted(specs, key=name):
        message = (spec.get("Failure") or {}).get("Message", "")
        title, seconds = f"critest {label}: {name(spec)}", f"({spec['RunTime'] / 1e9:.1f} s)"
        if spec["State"] == SKIPPED and not message:
            continue  # not chosen by the focus
        shown += 1
        reason = next((reason for begin, reason in allowed if name(spec).startswith(begin)), None)
        if spec["State"] == PASSED:
            print(f"ok {title} {seconds}")
        elif spec["State"] == SKIPPED and reason:
            print(f"skip {title} # {reason}")
        else:
            failed += 1
            print(f"not ok {title} {seconds}")
            print(f"    {spec['State']}")
            print("\n".join("    " + line for line in message.splitlines()[:20]))
            where = (spec.get("Failure") or {}).get("Location") or {}
            print(f"    at {where.get('FileName', '').split('cri-tools')[-1]}:{where.get('LineNumber', '')}")
    if shown == 0:
        print(f"not ok critest {label}: no spec ran")
    sys.exit(1 if failed or not shown else 0)


if __name__ == "__main__":
    main()
