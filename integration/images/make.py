#!/usr/bin/env python3
"""make.py OUT --busybox DIR --nginx DIR: every image that the pods and the validation suite name.

OUT/oci is an OCI layout, OUT/catalog.json says what push.py has to push. --busybox and --nginx are unpacked Debian
packages; needs gcc (with static libc) and ldd. Deterministic: digests change with the packages only.
"""
import argparse
import os
import tempfile

import bases
from layer import Layer
from layout import DOCKER, Layout

HERE = os.path.dirname(os.path.abspath(__file__))
HUB, E2E, STAGING = "docker.io/library/", "registry.k8s.io/e2e-test-images/", "gcr.io/k8s-staging-cri-tools/"
SERVE = {**bases.SHELL, "Cmd": ["nginx", "-g", "daemon off;"], "StopSignal": "SIGQUIT"}
SERVE_80 = {**SERVE, "ExposedPorts": {"80/tcp": {}}}


def pod_images(layout, busybox, web):
    """What integration/pods runs."""
    layout.image([HUB + "busybox:latest"], [busybox], bases.SHELL)
    layout.image([HUB + "debian:latest"], [busybox, bases.bash("/bin/bash")], {**bases.SHELL, "Cmd": ["bash"]}, indexed=True)
    layout.image([HUB + "nginx:latest"], [busybox, web], SERVE_80, DOCKER, indexed=True)
    layout.image([HUB + "voldata:latest"], [Layer().file("/data/hello.txt", "hello from an image volume\n")], {})
    declares = Layer().file("/var/store/seed", "from the image\n", 0o640).file("/var/store/deep/er", "deeper\n")
    over = Layer().file("/var/store/deep/.wh.er", "").file("/var/store/deep/new", "newer\n")
    layout.image([HUB + "declares:latest"], [busybox, declares, over],
                 {**bases.SHELL, "Volumes": {"/var/store": {}, "/not/there": {}, "/asked": {}, "/proc": {}}})
    # two contents for one moving tag
    for version in ("1", "2"):
        layout.image([f"{HUB}changing:{version}"], [busybox, Layer().file("/version", version + "\n")], bases.SHELL)


def suite_images(layout, busybox, web, pause, euid):
    """What critest v1.36 and its benchmarks pull."""
    # one image in two registries with exactly these two tags: a spec removes it
    layout.image(["registry.k8s.io/pause:3.9", "k8s.gcr.io/pause:3.9"], [Layer().copy(pause, "/pause")],
                 {"Entrypoint": ["/pause"], "User": "65535:65535"}, indexed=True)
    layout.image([E2E + "busybox:1.29-2"], [busybox], bases.SHELL)
    layout.image([E2E + "nginx:1.14-2"], [busybox, web], SERVE_80)
    httpd = Layer().file("/usr/local/bin/httpd-foreground",
                         "#!/bin/sh\necho \"Command line: 'httpd -D FOREGROUND'\"\nexec httpd -f -v -p 80 -h /var/www\n", 0o755)
    httpd.file("/var/www/index.html", "<html><body><h1>It works!</h1></body></html>\n")
    layout.image([E2E + "httpd:2.4.39-4"], [busybox, httpd],
                 {**bases.SHELL, "Cmd": ["httpd-foreground"], "ExposedPorts": {"80/tcp": {}}})
    layout.image([E2E + "nonewprivs:1.3"], [Layer().copy(euid, "/nnp", 0o4755).file("/etc/passwd", bases.PASSWD)],
                 {"Entrypoint": ["/nnp"]})
    for name, user in (("uid", "1002"), ("username", "www-data"), ("uid-group", "1003:1004"),
                       ("username-group", "www-data:1004")):
        layout.image([f"{STAGING}test-image-user-{name}:latest"], [busybox], {**bases.SHELL, "User": user}, DOCKER, True)
    member = Layer().file("/etc/passwd", bases.PASSWD + "default-user:x:1000:1000::/home/default-user:/bin/sh\n")
    member.file("/etc/group", bases.GROUP + "default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n")
    layout.image([STAGING + "test-image-predefined-group:latest"], [busybox, member],
                 {**bases.SHELL, "User": "1000"}, DOCKER, True)

    def marked(references, marker, kind=DOCKER):
        layout.image(references, [busybox, Layer().file("/" + marker, "")], bases.SHELL, kind, True)
    for name in ("test-image-1", "test-image-2", "test-image-3", "test-image-latest"):
        marked([f"{STAGING}{name}:latest"], name)
    marked([f"{STAGING}test-image-tags:{tag}" for tag in (1, 2, 3)], "same-image")
    for tag in ("test", "all"):
        marked([f"{STAGING}test-image-tag:{tag}"], tag)
    marked([STAGING + "test-image-digest"], "test-image-digest")
    for tag in ("1.35.0-glibc", "1-uclibc", "1", "1-glibc", "1-musl"):
        marked(["public.ecr.aws/docker/library/busybox:" + tag], tag)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--busybox", required=True)
    parser.add_argument("--nginx", required=True)
    args = parser.parse_args()
    layout = Layout(os.path.abspath(args.out))
    busybox = bases.busybox(args.busybox)
    web, host_web = bases.nginx(args.nginx, 80), bases.nginx(args.nginx, 12003)
    with tempfile.TemporaryDirectory() as built:
        pause = bases.compile_static(HERE + "/src/pause.c", built, "-nostdlib", "-ffreestanding", "-fno-stack-protector")
        euid = bases.compile_static(HERE + "/src/euid.c", built)
        pod_images(layout, busybox, web)
        suite_images(layout, busybox, web, pause, euid)
    layout.image([STAGING + "hostnet-nginx-amd64:latest"], [busybox, host_web], SERVE, DOCKER)
    layout.finish()
    print(f"{len(layout.catalog)} references, {len({e['top']['digest'] for e in layout.catalog.values()})} images")


if __name__ == "__main__":
    main()
