#!/usr/bin/env python3
"""Pods through a cluster of two nodes: what needs the API server, the scheduler or kubectl's streams. Each case asserts on
what the API server and the containers report. Runs inside node1's namespaces (run.sh)."""
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import node
from tap import Skip, case, client, contains, equal, main, until

PODS = pathlib.Path(__file__).resolve().parents[2] / "integration/pods"
KUBECTL = os.environ["KUBECTL"]


def kubectl(*args, check=True, text=None, timeout=90):
    done = subprocess.run([KUBECTL, *args], capture_output=True, text=True, input=text, timeout=timeout, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def get(kind, name):
    return json.loads(kubectl("get", kind, name, "-o", "json"))


def events(name):
    """(reason, message) of everything that was said of the object."""
    found = json.loads(kubectl("get", "events", "--field-selector", f"involvedObject.name={name}", "-o", "json"))["items"]
    return [(e["reason"], e.get("message", "")) for e in found]


def event(name, reason, seconds=30):
    return until(f"event {reason} of {name}", lambda: [m for r, m in events(name) if r == reason], seconds)[0]


class Applied:
    """A pod of the API server for the length of a with block."""

    def __init__(self, path, name, text=None):
        self.name, self.text = name, text or (PODS / path).read_text()

    def __enter__(self):
        kubectl("apply", "-f", "-", text=self.text)
        return self

    def __exit__(self, *_):
        kubectl("delete", "pod", self.name, "--wait=true", "--timeout=60s")

    @property
    def pod(self):
        return get("pod", self.name)

    @property
    def status(self):
        return self.pod["status"]

    def container(self, name):
        return next(c for c in self.status.get("containerStatuses", []) if c["name"] == name)

    def await_phase(self, phase, seconds=60):
        until(f"{self.name} {phase}", lambda: self.status["phase"] == phase, seconds)

    def await_ready(self, seconds=60):
        kubectl("wait", "pod", self.name, "--for=condition=Ready", f"--timeout={seconds}s")


def sleeper(name, extra="", container=""):
    """A pod that does nothing, with more lines for its spec and its container."""
    return f"""
apiVersion: v1
kind: Pod
metadata:
  name: {name}
spec:
  terminationGracePeriodSeconds: 1
{extra}
  containers:
  - name: main
    image: busybox
    command: ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.2; done"]
{container}
"""


@case("both nodes are Ready and name their runtime")
def nodes():
    for name in ("node1", "node2"):
        info = get("node", name)["status"]
        equal(f"{name} Ready", [c["status"] for c in info["conditions"] if c["type"] == "Ready"], ["True"])
        contains("the runtime", info["nodeInfo"]["containerRuntimeVersion"], os.environ["CRISP_RUNTIME"] + "://")


@case("nodeSelector, nodeName, and a selector nobody has")
def placement():
    kubectl("label", "node", "node2", "disktype=ssd", "--overwrite")
    with Applied("cluster/05-disktype-ssd.yaml", "disktype-ssd") as ssd, Applied("cluster/05-node-name.yaml", "node-name") as named, \
            Applied("cluster/05-nobody.yaml", "nobody") as nobody:
        for pod in (ssd, named):
            pod.await_ready()
            equal(f"{pod.name}'s node", pod.pod["spec"]["nodeName"], "node2")
        assert "Scheduled" not in [reason for reason, _ in events("node-name")], "the scheduler was asked for a pod with a node"
        contains("what the scheduler said", event("nobody", "FailedScheduling"), "0/2 nodes are available")
        equal("phase", nobody.status["phase"], "Pending")
        equal("why", [(c["type"], c["status"], c["reason"]) for c in nobody.status["conditions"]], [("PodScheduled", "False", "Unschedulable")])


@case("two containers: pods of both nodes reach it, logs and events tell of it")
def two_containers():
    with Applied("01-two-containers.yaml", "two-containers") as pod, \
            Applied(None, "asker", sleeper("asker", "  nodeName: node2")) as asker:
        until("the reader's end", lambda: "terminated" in pod.container("reader")["state"])
        hello = "Hello from the debian container\n"
        equal("its log", kubectl("logs", "two-containers", "-c", "reader"), hello)
        asker.await_ready()
        address = pod.status["podIP"]
        equal("asked from the other node's pod", kubectl("exec", "asker", "--", "wget", "-q", "-O", "-", f"http://{address}/"), hello)
        equal("asked from the node", node.fetch(f"http://{address}/"), hello)
        reasons = [reason for reason, _ in events("two-containers")]
        for reason in ("Scheduled", "Pulled", "Created", "Started"):
            contains("events", reasons, reason)
        assert not [e for e in events("two-containers") if e[0].startswith("Failed")], events("two-containers")


@case("liveness: Unhealthy, Killing, restarted once, still Running")
def liveness():
    with Applied("03-liveness.yaml", "test-liveness-exec") as pod:
        until("restart count 1", lambda: pod.container("liveness")["restartCount"] == 1)
        equal("phase", pod.status["phase"], "Running")
        contains("the probe's message", event("test-liveness-exec", "Unhealthy"), "/tmp/healthy")
        contains("why it was killed", event("test-liveness-exec", "Killing"), "failed liveness probe")
        contains("the table", kubectl("get", "pod", "test-liveness-exec", "--no-headers"), "Running")


@case("a postStart that fails is told as an event")
def post_start():
    with Applied("more/04-poststart-fails.yaml", "poststart-fails") as pod:
        event("poststart-fails", "FailedPostStartHook")
        until("tried again", lambda: pod.container("main")["restartCount"] >= 1)
        event("poststart-fails", "Killing")


@case("preStop ends before the kill, and the pod is gone after its delete")
def pre_stop():
    with Applied(None, "prestop", (PODS / "more/04-prestop-first.yaml").read_text().replace("prestop-first", "prestop")
                 .replace("spec:\n", "spec:\n  nodeName: node1\n", 1)) as pod:
        pod.await_ready()
        begin = time.monotonic()
    took = time.monotonic() - begin
    equal("the order", pathlib.Path("/srv/prestop/log").read_text().splitlines(), ["hook begins", "hook ends", "signal"])
    assert 2 <= took < 12, f"the delete took {took:.1f} s: neither the hook's two seconds nor the whole grace"
    equal("gone", kubectl("get", "pod", "prestop", "--ignore-not-found"), "")


@case("pull policies as events: Pulling, already present, ErrImageNeverPull, no such image")
def pulls():
    def text(name, image, policy):
        return sleeper(name, "  nodeName: node1", f"    imagePullPolicy: {policy}").replace("image: busybox", f"image: {image}")
    with Applied(None, "always", text("always", "busybox", "Always")) as always:
        always.await_ready()
        event("always", "Pulling")
        with Applied(None, "present", text("present", "busybox:latest", "IfNotPresent")) as present:
            present.await_ready()
            contains("what was said", event("present", "Pulled"), "already present")
    with Applied(None, "never", text("never", "docker.io/library/absent:1", "Never")) as never:
        event("never", "ErrImageNeverPull")
        equal("phase", never.status["phase"], "Pending")
    with Applied(None, "missing", text("missing", "docker.io/library/absent:1", "Always")) as missing:
        contains("the error names the image", event("missing", "Failed"), "docker.io/library/absent:1")
        until("waiting", lambda: missing.container("main")["state"]["waiting"]["reason"] in ("ErrImagePull", "ImagePullBackOff"))


@case("kubectl exec: input, output, errors, exit code, terminal")
def kubectl_exec():
    with Applied(None, "shell", sleeper("shell")) as pod:
        pod.await_ready()
        text = "x" * 300000 + "\n"
        equal("300 kB through cat", kubectl("exec", "-i", "shell", "--", "cat", text=text) == text, True)
        done = subprocess.run([KUBECTL, "exec", "shell", "--", "sh", "-c", "echo out; echo err >&2; exit 7"], capture_output=True, text=True, check=False)
        equal("both outputs and the code", (done.stdout, done.stderr.splitlines()[0], done.returncode), ("out\n", "err", 7))
        done = subprocess.run(["script", "-qec", f"{KUBECTL} exec -it shell -- sh -c 'tty; stty size'", "/dev/null"],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30, check=False)
        contains("a terminal", done.stdout, "/dev/pts/0")


@case("kubectl attach, logs -f, cp and port-forward")
def kubectl_streams():
    talker = sleeper("talker", container="    stdin: true").replace(
        "trap 'exit 0' TERM; while :; do sleep 0.2; done", "trap 'exit 0' TERM; while read -r line; do echo got $line; done; exec httpd -f -p 8080 -h /")
    with Applied(None, "talker", talker) as pod:
        pod.await_ready()
        with client([KUBECTL, "attach", "-i", "talker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True) as attached:
            attached.stdin.write("one\n")
            attached.stdin.flush()
            equal("answered", attached.stdout.readline(), "got one\n")
            with client([KUBECTL, "logs", "-f", "talker"], stdout=subprocess.PIPE, text=True) as followed:
                equal("followed from the beginning", followed.stdout.readline(), "got one\n")
                attached.stdin.write("two\n")
                attached.stdin.flush()
                equal("and on", followed.stdout.readline(), "got two\n")
    with Applied("09-command.yaml", "command") as pod:
        pod.await_ready()
        kubectl("cp", str(PODS / "09-command.yaml"), "command:/var/log/copied", "-c", "main")
        equal("copied", kubectl("exec", "command", "-c", "main", "--", "cat", "/var/log/copied"), (PODS / "09-command.yaml").read_text())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with client([KUBECTL, "port-forward", "pod/command", f"{port}:8080"], stdout=subprocess.PIPE, text=True) as forward:
            contains("port-forward", forward.stdout.readline(), "Forwarding from")
            for _ in range(3):
                equal("what it forwards", node.fetch(f"http://127.0.0.1:{port}/"), "zero one hello /var/log\n")


@case("an ephemeral container sees its target's processes")
def ephemeral():
    with Applied(None, "target", sleeper("target")) as pod:
        pod.await_ready()
        kubectl("debug", "target", "--image=busybox", "--target=main", "--container=looker", "--profile=general", "--", "sh", "-c", "tr '\\0' ' ' </proc/1/cmdline; echo; sleep 60")
        until("the first process as it sees it", lambda: contains("log", kubectl("logs", "target", "-c", "looker"), "trap 'exit 0' TERM") is None, 30)


@case("one process namespace for the pod: orphans are reaped by the infra container")
def shared_processes():
    two = "  - name: other\n    image: busybox\n    command: [\"sleep\", \"3600\"]\n"
    with Applied(None, "shared", sleeper("shared", "  shareProcessNamespace: true", two)) as pod:
        pod.await_ready()
        contains("the other's process", kubectl("exec", "shared", "-c", "main", "--", "ps"), "sleep 3600")
        kubectl("exec", "shared", "-c", "main", "--", "sh", "-c", "(sleep 0.1 & ) ; true")
        # an orphan that nobody reaps stays as a zombie
        until("no zombie", lambda: " Z " not in kubectl("exec", "shared", "-c", "main", "--", "ps"), 10)


@case("a deployment of twenty comes up on both nodes and goes")
def deployment():
    kubectl("create", "deployment", "many", "--image=nginx", "--replicas=20")
    try:
        kubectl("rollout", "status", "deployment/many", "--timeout=120s", timeout=150)
        pods = json.loads(kubectl("get", "pods", "-l", "app=many", "-o", "json"))["items"]
        equal("addresses", len({p["status"]["podIP"] for p in pods}), 20)
        equal("nodes", {p["spec"]["nodeName"] for p in pods}, {"node1", "node2"})
        for pod in pods:
            contains("each serves", node.fetch(f"http://{pod['status']['podIP']}/"), "nginx")
    finally:
        kubectl("delete", "deployment", "many")
    until("the end of all", lambda: kubectl("get", "pods", "-l", "app=many", "-o", "name") == "", 90)


def statistics(name, kubelet):
    """The pod and its container as /stats/summary has them, once they have seen some work."""
    found = next(p for p in kubelet.stats()["pods"] if p["podRef"]["name"] == name)
    container = found["containers"][0]
    return container["cpu"]["usageNanoCores"] > 100_000_000 and container["memory"]["workingSetBytes"] > 0 and \
        container["rootfs"]["usedBytes"] >= 0 and found


@case("the kubelet's statistics: processor, memory, file system")
def statistics_by_default():
    with Applied(None, "busy", sleeper("busy", "  nodeName: node1").replace("sleep 0.2", ":")) as pod:
        pod.await_ready()
        until("statistics", lambda: statistics("busy", node.Kubelet()), 60)


@case("the kubelet's statistics from the runtime alone: network too, and metrics")
def statistics_from_runtime():
    """On node2, whose kubelet has PodAndContainerStatsFromCRI."""
    if os.environ["CRISP_RUNTIME"] != "crisp":
        raise Skip("this peer does not serve them")
    with Applied(None, "counted", sleeper("counted", "  nodeName: node2").replace("sleep 0.2", ":")) as pod:
        pod.await_ready()
        with socket.socket() as knock:
            knock.connect_ex((pod.status["podIP"], 80))  # nobody answers, but packets come in
        kubelet = node.Kubelet("10.222.0.2")
        found = until("statistics", lambda: statistics("counted", kubelet), 60)
        assert found["network"]["name"] == "eth0" and found["network"]["rxBytes"] > 0, found["network"]
        assert found["process_stats"]["process_count"] >= 1, found
        metrics = kubelet.metrics()
        contains("metrics", metrics, 'container_cpu_usage_seconds_total{container="main"')
        contains("metrics", metrics, "container_network_receive_bytes_total{")


@case("a container that takes too much memory: OOMKilled")
def out_of_memory():
    text = sleeper("greedy", "  restartPolicy: Never", "    resources: {limits: {memory: 32Mi}}")
    text = text.replace("trap 'exit 0' TERM; while :; do sleep 0.2; done", "tail -c 100000000 /dev/zero")
    with Applied(None, "greedy", text) as pod:
        pod.await_phase("Failed")
        ended = pod.container("main")["state"]["terminated"]
        equal("how it ended", (ended["reason"], ended["exitCode"]), ("OOMKilled", 137))


if __name__ == "__main__":
    main("cluster", sys.argv[1:])
