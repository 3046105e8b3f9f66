#!/usr/bin/env python3
"""One life of a pod through a kubelet of another version: probes, exec, logs, exit codes, a restart, the order of its end,
and nothing that stays. KUBELET_VERSION says which kubelet it must be. Runs inside the node's namespaces."""
import os
import pathlib
import sys

import node
from running import KUBELET, Running
from tap import case, contains, equal, main, until

VERSION = os.environ["KUBELET_VERSION"]
ORDER = pathlib.Path("/srv/kubelets-order")

POD = """
apiVersion: v1
kind: Pod
metadata: {name: life}
spec:
  terminationGracePeriodSeconds: 20
  initContainers:
  - {name: first, image: busybox, command: ["/bin/sh", "-c", "echo first >/shared/made"], volumeMounts: [{name: shared, mountPath: /shared}]}
  - name: sidecar
    image: busybox
    restartPolicy: Always
    command: ["/bin/sh", "-c", "trap 'echo sidecar >>/srv/kubelets-order; exit 0' TERM; while :; do sleep 0.05; done"]
    volumeMounts: [{name: srv, mountPath: /srv}]
  containers:
  - name: main
    image: busybox
    command: ["/bin/sh", "-c", "touch /tmp/alive; cat /shared/made; trap 'echo main >>/srv/kubelets-order; exit 0' TERM; while :; do sleep 0.05; done"]
    resources: {requests: {cpu: 50m, memory: 16Mi}, limits: {cpu: 500m, memory: 64Mi}}
    readinessProbe: {exec: {command: [cat, /shared/made]}, periodSeconds: 1}
    livenessProbe: {exec: {command: [cat, /tmp/alive]}, periodSeconds: 1, failureThreshold: 1}
    lifecycle: {preStop: {exec: {command: ["/bin/sh", "-c", "echo hook >>/srv/kubelets-order"]}}}
    volumeMounts: [{name: shared, mountPath: /shared}, {name: srv, mountPath: /srv}]
  volumes:
  - {name: shared, emptyDir: {medium: Memory}}
  - {name: srv, hostPath: {path: /srv}}
"""

ONCE = """
apiVersion: v1
kind: Pod
metadata: {name: once}
spec:
  restartPolicy: Never
  hostNetwork: true
  containers: [{name: main, image: busybox, command: ["/bin/sh", "-c", "echo to stderr >&2; exit 7"]}]
"""


@case(f"{VERSION}: it is this kubelet, and crisp is its runtime")
def who():
    contains("what it says of itself", node.fetch("http://127.0.0.1:10255/metrics"), f'git_version="{VERSION}"')


@case(f"{VERSION}: a pod's life: init, sidecar, probes, exec, logs, a restart, the order of the end")
def life():
    ORDER.unlink(missing_ok=True)
    with Running(None, "life", POD) as pod:
        pod.await_ready()
        sandbox, first = pod.sandbox(), pod.id("main")
        equal("the log", pod.log("main"), "first\n")
        equal("exec", pod.run("main", "cat", "/shared/made"), "first\n")
        contains("its group", pathlib.Path(f"/proc/{pod.pid('main')}/cgroup").read_text(), "/kubepods/burstable/pod")
        equal("the first restart count", pod.container("main")["restartCount"], 0)
        pod.run("main", "rm", "/tmp/alive")
        until("a restart by the liveness probe", lambda: pod.container("main").get("restartCount") == 1 and pod.container("main").get("ready"))
        assert pod.id("main") != first, "the container is the same one"
        equal("the sandbox", pod.sandbox(), sandbox)
        ORDER.unlink(missing_ok=True)
    equal("who ended when", ORDER.read_text().splitlines(), ["hook", "main", "sidecar"])


@case(f"{VERSION}: exit code, reason and log of a pod that has ended")
def once():
    with Running(None, "once", ONCE) as pod:
        pod.await_phase("Failed")
        ended = pod.state("main")["terminated"]
        equal("how it ended", (ended["exitCode"], ended["reason"]), (7, "Error"))
        equal("its log", pod.log("main"), "to stderr\n")


@case(f"{VERSION}: statistics name the pods' containers")
def statistics():
    with Running(None, "life", POD) as pod:
        pod.await_ready()

        def measured():
            pods = {p["podRef"]["name"].rsplit("-", 1)[0]: p for p in KUBELET.stats()["pods"]}
            names = sorted(c["name"] for c in pods["life"].get("containers", []) if c.get("memory", {}).get("workingSetBytes"))
            return names == ["main", "sidecar"]
        until("memory of both containers", measured)


if __name__ == "__main__":
    main("kubelets", sys.argv[1:])
