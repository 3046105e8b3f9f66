#!/usr/bin/env python3
"""push.py OUT URL [--tag PATH:OLD NEW]: push what make.py made to the plain-HTTP registry at URL.

The repository is the reference without its host, so that a mirror for docker.io, registry.k8s.io, k8s.gcr.io, gcr.io
and public.ecr.aws can simply point at URL. --tag gives a pushed tag's image a second tag, or moves that tag.
"""
import json
import sys
import urllib.error
import urllib.request


def request(method, url, data=None, headers=None):
    # nothing of this goes through a proxy
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(urllib.request.Request(url, data=data, method=method, headers=headers or {}), timeout=30)


class Registry:
    def __init__(self, out, url):
        self.out, self.url, self.there = out, url.rstrip("/"), set()

    def read(self, name):
        with open(f"{self.out}/oci/blobs/sha256/{name[7:]}", "rb") as f:
            return f.read()

    def has(self, repository, name):
        try:
            request("HEAD", f"{self.url}/v2/{repository}/blobs/{name}").close()
            return True
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return False

    def blob(self, repository, name):
        if (repository, name) in self.there:
            return
        self.there.add((repository, name))
        if self.has(repository, name):
            return
        where = request("POST", f"{self.url}/v2/{repository}/blobs/uploads/", b"").headers["Location"]
        where = where if where.startswith("http") else self.url + where
        request("PUT", where + ("&" if "?" in where else "?") + "digest=" + name, self.read(name),
                {"Content-Type": "application/octet-stream"}).close()

    def manifest(self, repository, tag, descriptor):
        request("PUT", f"{self.url}/v2/{repository}/manifests/{tag}", self.read(descriptor["digest"]),
                {"Content-Type": descriptor["mediaType"]}).close()

    def image(self, entry):
        for name in entry["blobs"]:
            self.blob(entry["repository"], name)
        for descriptor in entry["manifests"]:
            self.manifest(entry["repository"], descriptor["digest"], descriptor)
        self.manifest(entry["repository"], entry["tag"] or entry["top"]["digest"], entry["top"])


def main():
    out, url = sys.argv[1:3]
    with open(out + "/catalog.json") as f:
        catalog = json.load(f)
    registry = Registry(out, url)
    if sys.argv[3:4] == ["--tag"]:
        old, new = sys.argv[4:6]
        entry = next(e for e in catalog.values() if f"{e['repository']}:{e['tag']}" == old)
        registry.manifest(entry["repository"], new, entry["top"])
        return
    for entry in catalog.values():
        registry.image(entry)


if __name__ == "__main__":
    main()
