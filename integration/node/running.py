"""A static pod of the node's kubelet, for the length of a with block."""
import os
import pathlib

import node
from tap import until

ROOT = pathlib.Path(__file__).resolve().parents[2]
PODS = ROOT / "integration/pods"
MANIFESTS = pathlib.Path(os.environ["STATE"]) / "node1/manifests"
KUBELET = node.Kubelet()


class Running:
    """A static pod for the length of a with block."""

    def __init__(self, path, name, text=None):
        self.name, self.text = name, text or (PODS / path).read_text()
        self.file = MANIFESTS / f"{name}.yaml"

    def __enter__(self):
        # a half-written manifest must not be seen: the kubelet watches the folder, not names with a dot
        hidden = MANIFESTS / f".{self.name}"
        hidden.write_text(self.text)
        hidden.rename(self.file)
        return self

    def __exit__(self, *_):
        self.file.unlink(missing_ok=True)
        until(f"the end of {self.name}", lambda: not node.sandboxes(self.name, "SANDBOX_READY") and not KUBELET.pod(self.name))

    def stop(self):
        self.__exit__()

    @property
    def status(self):
        pod = KUBELET.pod(self.name)
        return pod["status"] if pod else {}

    @property
    def phase(self):
        return self.status.get("phase")

    def container(self, name):
        for status in self.status.get("containerStatuses", []) + self.status.get("initContainerStatuses", []):
            if status["name"] == name:
                return status
        return {}

    def state(self, name):
        return self.container(name).get("state", {})

    def await_phase(self, phase, seconds=60):
        until(f"{self.name} {phase}", lambda: self.phase == phase, seconds)

    def await_ready(self, seconds=60):
        def ready():
            statuses = self.status.get("containerStatuses", [])
            return statuses and all(s.get("ready") for s in statuses)
        until(f"{self.name} ready", ready, seconds)

    def pid(self, container):
        return node.inspect(self.id(container))["info"]["pid"]

    def id(self, container):
        return self.container(container)["containerID"].split("://")[1]

    def sandbox(self):
        return node.sandboxes(self.name, "SANDBOX_READY")[0]["id"]

    def log(self, container):
        return KUBELET.log(KUBELET.pod(self.name)["metadata"]["name"], container)

    def run(self, container, *command):
        """Exec through the kubelet."""
        return KUBELET.run(KUBELET.pod(self.name)["metadata"]["name"], container, *command)
