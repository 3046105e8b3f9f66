#!/usr/bin/env python3
"""A table of the pods as the kubelet of this node reports them."""
from node import Kubelet


def state(status):
    """One container's state in a few words."""
    (kind, detail), = (status.get("state") or {"waiting": {}}).items()
    if kind == "running":
        return "running" if status.get("ready") else "running, not ready"
    reason = detail.get("reason", "")
    return f"{reason or kind} ({detail['exitCode']})" if kind == "terminated" else reason or kind


def rows():
    for pod in sorted(Kubelet().pods(), key=lambda p: p["metadata"]["name"]):
        status = pod.get("status", {})
        containers = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
        states = ", ".join(f"{c['name']}: {state(c)}" for c in containers)
        restarts = sum(c.get("restartCount", 0) for c in containers)
        yield pod["metadata"]["name"], status.get("phase", "Pending"), str(restarts), status.get("podIP", "-"), states


def main():
    # widths are fixed, so that lines of two tables can be compared
    for row in [("POD", "PHASE", "RESTARTS", "IP", "CONTAINERS"), *rows()]:
        print("  ".join([cell.ljust(width) for cell, width in zip(row, (26, 9, 8, 13))] + [row[4]]))


if __name__ == "__main__":
    main()
