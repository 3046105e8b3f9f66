#!/bin/bash
# hack/run.sh [my-pod.yaml...]: a real kubelet runs pods through crisp, until Ctrl-C.
# Installs and builds what is missing (the first time takes a while), starts crisp and a standalone kubelet in private
# network and mount namespaces with integration/pods/*.yaml as static pods, and shows them coming up. Ctrl-C stops
# everything and leaves nothing behind. In another terminal: hack/run.sh in crictl ps   (any command, inside).
# CRISP_REGISTRY=local: do not look for a public registry.  CRISP_FAST=1: do not rebuild crisp.
. "$(dirname "$(readlink -f "$0")")/lib/env.sh"
. "$HACK/lib/lab.sh"
need_root

if [ "${1:-}" = in ]; then
  shift
  export CONTAINER_RUNTIME_ENDPOINT=$CRI_ENDPOINT IMAGE_SERVICE_ENDPOINT=$CRI_ENDPOINT
  on node1 "$@"
  exit
fi
pods=("$@")
[ $# -gt 0 ] || pods=("$ROOT"/integration/pods/*.yaml)
for pod in "${pods[@]}"; do [ -f "$pod" ] || die "no such file: $pod"; done

# shellcheck disable=SC2119  # no tools: they may be in PATH
lab_need
KUBELET=$(recent kubelet)
CRICTL=$(recent crictl)
export KUBELET CRICTL
images_public

finish() {
  local status=$?
  trap '' INT TERM
  trap - EXIT
  say "stopping"
  if lab_down; then say "stopped; nothing is left"; elif [ "$status" = 0 ]; then status=1; fi
  exit "$status"
}
trap finish EXIT
trap 'exit 0' INT TERM
lab_up
say "$(crictl_on node1 version | awk '/RuntimeName|RuntimeVersion/ {printf "%s ", $2}') answers at $STATE/node1/crisp/crisp.sock"
kubelet_up node1 standalone
say "$("$KUBELET" --version) runs with --container-runtime-endpoint=$CRI_ENDPOINT"
cp "${pods[@]}" "$STATE/node1/manifests/"

# until every pod has settled (or for a minute), then only when something changes
settled=''
shown=''
for ((second = 0; ; second++)); do
  now=$(on node1 python3 "$ROOT/integration/node/show.py") || now=''
  if [ -n "$now" ] && [ "$now" != "$shown" ]; then
    # the heading once, then the pods that have changed
    grep -vxF "$shown" <<<"$now" || true
    shown=$now
  fi
  if [ -z "$settled" ] && [ "$second" -ge "${CRISP_RUN_SECONDS:-20}" ]; then
    settled=1
    printf '\n'
    crictl_on node1 pods
    printf '\n'
    crictl_on node1 ps -a
    say "both keep running. Look around: hack/run.sh in crictl ps. Ctrl-C stops everything."
    [ -z "${CRISP_RUN_ONCE:-}" ] || exit 0
  fi
  sleep 1
done
