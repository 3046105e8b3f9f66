#!/bin/bash
# hack/lab.sh up|down|in CMD...|runtime start|runtime kill|runtime stop|kubelet start|kubelet stop
# One node for tests and for trying things out: registry with all images, crisp, and a standalone kubelet on demand.
# LAB=NAME: labs of different names run side by side. Inside, crisp listens at /run/crisp/crisp.sock.
. "$(dirname "$(readlink -f "$0")")/lib/env.sh"
. "$HACK/lib/lab.sh"
need_root
NODE=${NODE:-node1}
[ "$CRISP_RUNTIME" != containerd ] || containerd_find

case ${1:-}:${2:-} in
up:*)
  lab_need crictl
  lab_up
  say "inside: hack/lab.sh in CMD; from outside: $STATE/node1/crisp/crisp.sock" ;;
down:*)
  LAB_OURS=1
  lab_down ;;
in:*)
  shift
  export CONTAINER_RUNTIME_ENDPOINT=$CRI_ENDPOINT IMAGE_SERVICE_ENDPOINT=$CRI_ENDPOINT
  on "$NODE" "$@" ;;
runtime:start) runtime_start "$NODE" ;;
runtime:stop) runtime_stop "$NODE" ;;
runtime:kill) kill -KILL "$(pid_of "$NODE" runtime)" && wait_for 5 "its end" not alive "$NODE" runtime ;;
kubelet:start)
  need_tools kubelet
  kubelet_up "$NODE" standalone ;;
kubelet:stop) kubelet_down "$NODE" ;;
*)
  sed -n '2,4s/^# //p' "$0" >&2
  exit 64 ;;
esac
