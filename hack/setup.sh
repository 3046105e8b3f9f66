#!/bin/bash
# hack/setup.sh [TOOL...]: install and build what is missing: Debian packages, tools from the Go module proxy, images.
# Without arguments everything that the tests use; run.sh and test.sh call it with what they need.
. "$(dirname "$(readlink -f "$0")")/lib/env.sh"
. "$HACK/lib/packages.sh"
. "$HACK/lib/tools.sh"
. "$HACK/lib/images.sh"
need_root

[ $# -gt 0 ] || set -- packages images kubelet crictl critest kubectl kube-apiserver kube-controller-manager kube-scheduler etcd
for what in "$@"; do
  case $what in
  packages)
    need_commands gcc ip nsenter unshare setsid nft iptables sysctl python3 openssl curl
    need_package ca-certificates /etc/ssl/certs/ca-certificates.crt
    need_package containernetworking-plugins /usr/lib/cni/bridge
    mkdir -p "$BIN"
    ln -sfn "$(deb docker-registry)/usr/bin/docker-registry" "$BIN/docker-registry" ;;
  images) images_make ;;
  *) need_tools "$what" ;;
  esac
done
