"""An OCI image layout on disk, and the list of what to push from it."""
import json
import os
import platform
import re
import shutil

from layer import digest

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
OCI = {
    "manifest": "application/vnd.oci.image.manifest.v1+json",
    "index": "application/vnd.oci.image.index.v1+json",
    "config": "application/vnd.oci.image.config.v1+json",
    "layer": "application/vnd.oci.image.layer.v1.tar+gzip",
}
DOCKER = {
    "manifest": "application/vnd.docker.distribution.manifest.v2+json",
    "index": "application/vnd.docker.distribution.manifest.list.v2+json",
    "config": "application/vnd.docker.container.image.v1+json",
    "layer": "application/vnd.docker.image.rootfs.diff.tar.gzip",
}
BIRTH = "2026-01-01T00:00:00Z"


def split(reference):
    """host/path[:tag] -> (path, tag or None)"""
    return re.fullmatch(r"[^/]+/(.+?)(?::([^/:]+))?", reference).groups()


class Layout:
    """ROOT/oci: every blob and an index.json; ROOT/catalog.json: reference -> what a registry needs for it."""

    def __init__(self, root):
        self.root, self.catalog, self.index = root, {}, []
        shutil.rmtree(root + "/oci", ignore_errors=True)
        os.makedirs(root + "/oci/blobs/sha256")

    def blob(self, data):
        name = digest(data)
        with open(f"{self.root}/oci/blobs/sha256/{name[7:]}", "wb") as f:
            f.write(data)
        return {"digest": name, "size": len(data)}

    def image(self, references, layers, config, kind=OCI, indexed=False):
        """One image under several references; one without a tag is pushed by its digest alone."""
        tars = [layer.packed() for layer in layers]
        config_blob = self._json({
            "architecture": ARCHITECTURE, "os": "linux", "created": BIRTH, "config": config,
            "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar, _ in tars]},
            "history": [{"created": BIRTH, "created_by": "integration/images"}] * len(tars),
        }, kind["config"])
        layer_blobs = [{"mediaType": kind["layer"], **self.blob(gz)} for _, gz in tars]
        top = manifest = self._json({
            "schemaVersion": 2, "mediaType": kind["manifest"], "config": config_blob, "layers": layer_blobs,
        }, kind["manifest"])
        if indexed:  # as most published images are: a list, here of one platform
            platforms = [{**manifest, "platform": {"architecture": ARCHITECTURE, "os": "linux"}}]
            top = self._json({"schemaVersion": 2, "mediaType": kind["index"], "manifests": platforms}, kind["index"])
        for reference in references:
            path, tag = split(reference)
            self.catalog[reference] = {
                "repository": path, "tag": tag, "top": top, "manifests": [manifest] if indexed else [],
                "blobs": [config_blob["digest"]] + [b["digest"] for b in layer_blobs],
            }
            name = reference if tag else f"{reference}@{top['digest']}"
            self.index.append({**top, "annotations": {"org.opencontainers.image.ref.name": name}})

    def finish(self):
        self._write("oci/oci-layout", {"imageLayoutVersion": "1.0.0"})
        self._write("oci/index.json", {"schemaVersion": 2, "manifests": self.index})
        self._write("catalog.json", self.catalog)  # last: it says that all is there

    def _json(self, value, media_type):
        return {"mediaType": media_type, **self.blob(json.dumps(value, sort_keys=True).encode())}

    def _write(self, name, value):
        with open(f"{self.root}/{name}.new", "w") as f:
            json.dump(value, f, indent=1)
        os.replace(f"{self.root}/{name}.new", f"{self.root}/{name}")
