"""The node under test as its clients see it: the kubelet's API, crictl, and files. Runs inside the node's namespaces."""
import json
import os
import ssl
import subprocess
import urllib.parse
import urllib.request

ENDPOINT = os.environ.get("CONTAINER_RUNTIME_ENDPOINT", "unix:///run/crisp/crisp.sock")
CRICTL = os.environ.get("CRICTL", "crictl")


def fetch(url, method="GET", timeout=10):
    """The body of an HTTP answer; no proxy, and the node's self-made certificates are as good as any."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    with opener.open(urllib.request.Request(url, method=method), timeout=timeout) as answer:
        return answer.read().decode()


class Kubelet:
    """The kubelet's read API, and its exec."""

    def __init__(self, address="127.0.0.1"):
        self.address = address

    def pods(self):
        return json.loads(fetch(f"http://{self.address}:10255/pods"))["items"] or []

    def pod(self, name):
        """The pod NAME (static pods have the node's name behind theirs), or None."""
        for pod in self.pods():
            if pod["metadata"]["name"] == name or pod["metadata"]["name"].rsplit("-", 1)[0] == name:
                return pod
        return None

    def run(self, pod, container, *command):
        """Exec through the kubelet; output and errors together."""
        query = urllib.parse.urlencode([("cmd", " ".join(command))])
        return fetch(f"https://{self.address}:10250/run/default/{pod}/{container}?{query}", "POST", 30)

    def log(self, pod, container):
        return fetch(f"https://{self.address}:10250/containerLogs/default/{pod}/{container}")

    def stats(self):
        return json.loads(fetch(f"http://{self.address}:10255/stats/summary"))

    def metrics(self):
        return fetch(f"http://{self.address}:10255/metrics/cadvisor")


def crictl(*args, check=True, **kwargs):
    """crictl's standard output."""
    command = [CRICTL, "-c", "/dev/null", "-r", ENDPOINT, "-i", ENDPOINT, "-t", "60s", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **kwargs)
    if check and done.returncode != 0:
        raise AssertionError(f"crictl {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def crictl_json(*args):
    return json.loads(crictl(*args, "-o", "json"))


def sandboxes(pod, state=None):
    """Sandboxes of a static pod, newest first."""
    found = [s for s in crictl_json("pods")["items"] if s["metadata"]["name"].rsplit("-", 1)[0] == pod]
    found = [s for s in found if state is None or s["state"] == state]
    return sorted(found, key=lambda s: int(s["createdAt"]), reverse=True)


def containers(pod, name=None):
    """Containers of a static pod, newest first, also those that have ended."""
    ids = {s["id"] for s in sandboxes(pod)}
    found = [c for c in crictl_json("ps", "-a")["containers"] if c["podSandboxId"] in ids]
    found = [c for c in found if name is None or c["metadata"]["name"] == name]
    return sorted(found, key=lambda c: int(c["createdAt"]), reverse=True)


def inspect(container_id):
    return json.loads(crictl("inspect", container_id))


def inspect_pod(sandbox_id):
    return json.loads(crictl("inspectp", sandbox_id))


def execute(container_id, *command, check=True):
    """ExecSync; standard output. crictl ends both its output and its errors with a newline of its own."""
    return crictl("exec", "-s", container_id, *command, check=check).removesuffix("\n\n")
