#!/usr/bin/env python3
"""The pods of the course note through a real kubelet, as static pods. Each case asserts on what the kubelet, the runtime
and the containers themselves report. Runs inside the node's namespaces (run.sh)."""
import os
import pathlib
import pty
import select
import shutil
import signal
import subprocess
import sys
import time

import node
from running import KUBELET, ROOT, Running
from tap import case, client, contains, equal, main, until


def namespace(pid, kind):
    return os.readlink(f"/proc/{pid}/ns/{kind}")


@case("two containers share a folder and localhost")
def two_containers():
    hello = "Hello from the debian container\n"
    shutil.rmtree("/srv/two-containers", ignore_errors=True)
    with Running("01-two-containers.yaml", "two-containers") as pod:
        for name in ("debian-container", "reader"):
            until(f"{name} terminated", lambda name=name: "terminated" in pod.state(name))
            equal(f"{name}'s exit code", pod.state(name)["terminated"]["exitCode"], 0)
        equal("what nginx serves at the pod's address", node.fetch(f"http://{pod.status['podIP']}/"), hello)
        equal("what the third container got over localhost", pod.log("reader"), hello)
        equal("what nginx sees", node.execute(pod.id("nginx-container"), "cat", "/usr/share/nginx/html/index.html"), hello)
        contains("nginx's log", pod.log("nginx-container"), "GET / HTTP/1.1")
        equal("phase", pod.phase, "Running")
        equal("restarts", [c["restartCount"] for c in pod.status["containerStatuses"]], [0, 0, 0])


@case("host namespaces, and a shell with a terminal")
def host_namespaces():
    with Running("02-host-namespaces.yaml", "host-namespaces") as pod:
        pod.await_ready()
        for name in ("nginx", "shell"):
            for kind in ("net", "pid", "ipc"):
                equal(f"{name}'s {kind} namespace", namespace(pod.pid(name), kind), namespace("self", kind))
                equal(f"{kind} as {name} sees it", pod.run(name, "readlink", f"/proc/self/ns/{kind}").strip(), namespace("self", kind))
        contains("nginx on the node's own port 80", node.fetch("http://127.0.0.1/"), "nginx")
        equal("the shell's input", os.readlink(f"/proc/{pod.pid('shell')}/fd/0"), "/dev/pts/0")
        contains("the terminal's answer", terminal(pod.id("shell"), "tty; echo sum is $((40 + 2))\n", "sum is 42"), "/dev/pts/0")
        contains("the shell goes on after detaching", pod.state("shell"), "running")


def terminal(container, text, wanted):
    """Attaches with a terminal, types the text and reads until `wanted`; then hangs up."""
    master, slave = pty.openpty()
    command = [node.CRICTL, "-c", "/dev/null", "-r", node.ENDPOINT, "attach", "-i", "-t", container]
    with client(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True) as process:
        os.close(slave)
        got, end = b"", time.monotonic() + 15
        try:
            os.write(master, text.encode())
            while wanted.encode() not in got and time.monotonic() < end:
                if select.select([master], [], [], 0.2)[0]:
                    got += os.read(master, 4096)
        finally:
            os.close(master)
    return got.decode(errors="replace")


@case("liveness by a file: restarted once, pod stays Running")
def liveness():
    with Running("03-liveness.yaml", "test-liveness-exec") as pod:
        pod.await_ready()
        first, sandbox, address = pod.id("liveness"), pod.sandbox(), pod.status["podIP"]
        equal("restarts", pod.container("liveness")["restartCount"], 0)
        phases = set()

        def restarted():
            phases.add(pod.phase)
            return pod.container("liveness").get("restartCount") == 1 and "running" in pod.state("liveness")
        until("restart count 1", restarted, 30)
        equal("phases on the way", phases, {"Running"})
        equal("the exit of the first", pod.container("liveness")["lastState"]["terminated"]["exitCode"], 137)
        assert pod.id("liveness") != first, "the container is the same one"
        equal("the pod's sandbox", pod.sandbox(), sandbox)
        equal("the pod's address", pod.status["podIP"], address)


@case("postStart writes, preStop ends nginx with code 0")
def lifecycle():
    with Running("04-lifecycle.yaml", "lifecycle-demo") as pod:
        pod.await_ready()
        container = pod.id("lifecycle-demo-container")
        equal("the message", node.execute(container, "cat", "/usr/share/message"), "Hello from the postStart handler\n")
        pod.file.unlink()

        def exit_code():
            status = node.inspect(container)["status"]
            return status["state"] == "CONTAINER_EXITED" and [status["exitCode"]]
        # nginx that was told to quit ends by itself; one that is killed would show a signal
        equal("exit code", until("the end of nginx", exit_code, 20), [0])


@case("a postStart that fails: killed and tried again")
def post_start_fails():
    with Running("more/04-poststart-fails.yaml", "poststart-fails") as pod:
        until("two tries", lambda: pod.container("main").get("restartCount", 0) >= 1, 45)
        waiting = until("waiting", lambda: pod.state("main").get("waiting"), 30)
        contains("the reason", ["PostStartHookError", "CrashLoopBackOff"], waiting["reason"])
        assert not pod.container("main")["ready"], "it must not be ready"


@case("preStop ends before the signal comes")
def pre_stop_first():
    log = pathlib.Path("/srv/prestop-first/log")
    log.unlink(missing_ok=True)
    with Running("more/04-prestop-first.yaml", "prestop-first") as pod:
        pod.await_ready()
    equal("the order", log.read_text().splitlines(), ["hook begins", "hook ends", "signal"])


def move_tag(version):
    push = ROOT / "integration/images/push.py"
    subprocess.run([push, os.environ["IMAGES"], "http://" + os.environ["REGISTRY"], "--tag",
                    f"library/changing:{version}", "moving"], check=True)


def changing(policy, name):
    """Runs the pod once and tells which content it got."""
    with Running(f"more/06-pull-{policy}.yaml", name) as pod:
        pod.await_ready()
        return until("a log", lambda: pod.log("main"), 10).strip()


def forget_image():
    node.crictl("rmi", "docker.io/library/changing:moving", check=False)


@case("pull policy Always sees a tag that moved")
def pull_always():
    forget_image()
    move_tag(1)
    equal("first", changing("always", "pull-always"), "1")
    move_tag(2)
    equal("after the tag moved", changing("always", "pull-always"), "2")


@case("pull policy IfNotPresent keeps what is there")
def pull_if_not_present():
    forget_image()
    move_tag(1)
    equal("first", changing("if-not-present", "pull-if-not-present"), "1")
    move_tag(2)
    equal("after the tag moved", changing("if-not-present", "pull-if-not-present"), "1")
    forget_image()
    equal("after the image went", changing("if-not-present", "pull-if-not-present"), "2")


@case("pull policy Never: an error without the image, no pull with it")
def pull_never():
    forget_image()
    move_tag(1)
    with Running("more/06-pull-never.yaml", "pull-never") as pod:
        waiting = until("waiting", lambda: pod.state("main").get("waiting", {}).get("reason") == "ErrImageNeverPull" and pod.state("main")["waiting"])
        contains("the message", waiting["message"], "docker.io/library/changing:moving")
    node.crictl("pull", "docker.io/library/changing:moving")
    move_tag(2)
    equal("with the image there", changing("never", "pull-never"), "1")


@case("three policies side by side")
def pull_policies():
    with Running("06-pull-policies.yaml", "pull-policies") as pod:
        pod.await_ready()
        ids = {c["name"]: c["imageID"] for c in pod.status["containerStatuses"]}
        equal("one image under two names", ids["always"], ids["if-not-present"])
        assert ids["never"] != ids["always"], "debian and busybox are not the same image"


@case("init containers in order, sidecar first to come and last to go")
def sidecar():
    shutil.rmtree("/srv/sidecar", ignore_errors=True)
    with Running("07-sidecar.yaml", "sidecar") as pod:
        pod.await_phase("Succeeded")
        order = pathlib.Path("/srv/sidecar/log").read_text().splitlines()
        equal("the order", order, ["first", "second", "sidecar", "main", "main ends", "sidecar ends"])
        equal("init exit codes", [pod.state(name)["terminated"]["exitCode"] for name in ("first", "second", "sidecar")], [0, 0, 0])


@case("Succeeded and Failed, with code and message")
def succeeded_and_failed():
    with Running("08-succeeded.yaml", "succeeded") as good, Running("08-failed.yaml", "failed") as bad:
        good.await_phase("Succeeded")
        equal("the message it left", good.state("one")["terminated"].get("message"), "done\n")
        bad.await_phase("Failed")
        ended = bad.state("bad")["terminated"]
        equal("how it ended", (ended["exitCode"], ended["reason"], ended.get("message")), (3, "Error", "it went wrong\n"))
        equal("the other one", bad.state("good")["terminated"]["reason"], "Completed")
        assert ended["startedAt"] <= ended["finishedAt"], "it ended before it began"
        equal("restarts", [c["restartCount"] for c in bad.status["containerStatuses"]], [0, 0])


@case("command, args, workingDir, environment, ports")
def command():
    with Running("09-command.yaml", "command") as pod:
        pod.await_ready()
        address = pod.status["podIP"]
        line = "zero one hello /var/log\n"
        equal("its log", pod.log("main"), line)
        equal("at the container's port", node.fetch(f"http://{address}:8080/"), line)
        equal("at the host port over 127.0.0.1", node.fetch("http://127.0.0.1:18080/"), line)
        equal("at the host port over the node's address", node.fetch(f"http://{os.environ['NODE_IP']}:18080/"), line)
        # an exec has the container's environment and working directory
        contains("environment", pod.run("main", "env"), f"POD_IP={address}")
        equal("working directory of an exec", pod.run("main", "pwd"), "/var/log\n")
        contains("the image's own command", pathlib.Path(f"/proc/{pod.pid('image-default')}/cmdline").read_text(), "nginx: master process")


def network_of(pid):
    """The namespace and the devices with their indexes and addresses, as one of its processes sees them."""
    text = subprocess.run(["nsenter", "-t", str(pid), "-n", "ip", "-o", "address"], check=True, capture_output=True, text=True).stdout
    # lifetimes count down, and a young IPv6 address is tentative
    return namespace(pid, "net"), [line.split("valid_lft")[0].replace("tentative", "").split() for line in text.splitlines()]


@case("containers die one by one, the pod's network stays; the infra container dies, the pod is made anew")
def survivors():
    with Running("10-survivors.yaml", "survivors") as pod:
        pod.await_ready()
        sandbox, address = pod.sandbox(), pod.status["podIP"]
        network = network_of(pod.pid("one"))
        for name in ("one", "two", "three"):
            os.kill(pod.pid(name), signal.SIGKILL)
            until(f"{name} back", lambda name=name: pod.container(name).get("restartCount") == 1 and "running" in pod.state(name))
            equal(f"how {name} ended", pod.container(name)["lastState"]["terminated"]["exitCode"], 137)
            equal("sandbox", pod.sandbox(), sandbox)
            equal("address", pod.status["podIP"], address)
            equal("network", network_of(pod.pid(name)), network)
            equal("infra container", namespace(node.inspect_pod(sandbox)["info"]["pid"], "net"), network[0])
        os.kill(node.inspect_pod(sandbox)["info"]["pid"], signal.SIGKILL)

        def anew():
            ready = node.sandboxes("survivors", "SANDBOX_READY")
            return ready and ready[0]["id"] != sandbox
        until("a new sandbox", anew, 60)
        pod.await_ready()
        equal("phase", pod.phase, "Running")
        until("a network namespace of its own", lambda: namespace(pod.pid("one"), "net") != network[0], 45)


TICKER = """
apiVersion: v1
kind: Pod
metadata:
  name: NAME
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  containers:
  - name: ticker
    image: busybox
    command: ["/bin/sh", "-c", "i=0; while :; do i=$((i + 1)); echo tick $i; sleep 0.05; done"]
  - name: mortal
    image: busybox
    command: ["/bin/sh", "-c", "until [ -e /tmp/die ]; do sleep 0.05; done; exit 42"]
"""


def runtime(verb):
    done = subprocess.run([ROOT / "hack/lab.sh", "runtime", verb], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"hack/lab.sh runtime {verb}: {done.stderr}"


@case("the daemon is killed with ten pods running: pods, logs, exec and exit codes go on")
def killed_daemon():
    names = [f"ticker{i}" for i in range(10)]
    pods = [Running(None, name, TICKER.replace("NAME", name)).__enter__() for name in names]
    try:
        for pod in pods:
            pod.await_ready()
        before = {pod.name: (pod.sandbox(), pod.id("ticker"), pod.pid("ticker"), pod.status["podIP"]) for pod in pods}
        mortal = pods[3].pid("mortal")
        pods[0].log_path = node.inspect(pods[0].id("ticker"))["status"]["logPath"]
        runtime("kill")
        try:
            # it ends while nobody but its monitor is there to see
            pathlib.Path(f"/proc/{mortal}/root/tmp/die").touch()
            until("the end of a container without the daemon", lambda: not os.path.exists(f"/proc/{mortal}"), 10)
            lines = log_lines(pods[0])
            until("the log goes on", lambda: log_lines(pods[0]) > lines + 5, 10)
        finally:
            runtime("start")
        until("the exit code", lambda: pods[3].state("mortal").get("terminated", {}).get("exitCode") == 42, 30)
        for pod in pods:
            equal("exec", node.execute(before[pod.name][1], "echo", "here"), "here\n")
            equal("as before", (pod.sandbox(), pod.id("ticker"), pod.pid("ticker"), pod.status["podIP"]), before[pod.name])
            equal("restarts", pod.container("ticker")["restartCount"], 0)
            ticks = [int(line.split()[1]) for line in pod.log("ticker").splitlines()]
            equal("ticks, none lost and none twice", ticks, list(range(1, len(ticks) + 1)))
    finally:
        for pod in pods:
            pod.file.unlink(missing_ok=True)
    for pod in pods:
        pod.stop()


def log_lines(pod):
    return pathlib.Path(pod.log_path).read_text().count("\n")


if __name__ == "__main__":
    main("pods", sys.argv[1:])
