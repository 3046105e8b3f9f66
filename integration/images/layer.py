"""Image layers, made deterministically: same files, same digest."""
import gzip
import hashlib
import io
import os
import re
import subprocess
import tarfile


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layer:
    """A layer in the making: path -> (kind, mode, content or link target). Owner root, time 0."""

    def __init__(self):
        self.entries = {}
        self._packed = None

    def folder(self, path, mode=0o755):
        path = path.strip("/")
        self._parents(path)
        self.entries.setdefault(path, (tarfile.DIRTYPE, mode, None))
        return self

    def file(self, path, content, mode=0o644):
        return self._put(path, tarfile.REGTYPE, mode, content.encode() if isinstance(content, str) else content)

    def copy(self, source, path, mode=0o755):
        with open(source, "rb") as f:
            return self.file(path, f.read(), mode)

    def hard_link(self, path, target):
        return self._put(path, tarfile.LNKTYPE, 0o755, target.strip("/"))

    def program(self, source, path):
        """A dynamic program with the libraries that the loader names for it."""
        self.copy(source, path)
        out = subprocess.run(["ldd", source], check=True, capture_output=True, text=True).stdout
        for library in re.findall(r"=> (/\S+)", out) + re.findall(r"^\s+(/\S+)", out, re.M):
            self.copy(os.path.realpath(library), library)
        return self

    def packed(self):
        """(tar, tar.gz), made once: most images share a layer."""
        if self._packed is None:
            tar = self._tar()
            self._packed = tar, gzip.compress(tar, 9, mtime=0)
        return self._packed

    def _put(self, path, kind, mode, content):
        path = path.strip("/")
        self._parents(path)
        self.entries[path] = (kind, mode, content)
        return self

    def _parents(self, path):
        parts = path.split("/")[:-1]
        for i in range(1, len(parts) + 1):
            self.entries.setdefault("/".join(parts[:i]), (tarfile.DIRTYPE, 0o755, None))

    def _tar(self):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            # a hard link must follow its target
            for path in sorted(self.entries, key=lambda p: (self.entries[p][0] == tarfile.LNKTYPE, p)):
                kind, mode, content = self.entries[path]
                info = tarfile.TarInfo(path)
                info.type, info.mode, info.mtime = kind, mode, 0
                if kind == tarfile.REGTYPE:
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                else:
                    info.linkname = content or ""
                    tar.addfile(info)
        return buffer.getvalue()
