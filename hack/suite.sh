#!/bin/bash
# hack/suite.sh pods|kubelets|cluster|crictl [CASE...]: the cases of integration/node, in a lab of their own: pods.py through
# a standalone kubelet, kubelets.py through older and newer ones in turn, cluster.py through a cluster of two nodes, crictl.py
# through crictl. CASE: words of names.
# A last case asserts that nothing stays behind.
. "$(dirname "$(readlink -f "$0")")/lib/env.sh"
group=${1:-}
[[ $group =~ ^(pods|kubelets|cluster|crictl)$ ]] || die "usage: hack/suite.sh pods|kubelets|cluster|crictl [CASE...]"
shift
LAB=test-$group${LAB_SUFFIX:-}
. "$HACK/lib/env.sh"
. "$HACK/lib/lab.sh"
. "$HACK/lib/report.sh"
need_root

finish() {
  local status=$?
  trap '' INT TERM
  trap - EXIT
  [ "$status" = 0 ] || LAB_KEEP=1
  down=lab_down
  [ "$group" != cluster ] || down=cluster_down
  if "$down"; then ok "$group: nothing stays behind"; else
    not_ok "$group: nothing stays behind"
    status=1
  fi
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

cases() { on node1 python3 "$ROOT/integration/node/$group.py" "$@"; }
NODE_IP=$(node_ip node1)
export LAB STATE CRISP_RUNTIME IMAGES REGISTRY NODE_IP CONTAINER_RUNTIME_ENDPOINT=$CRI_ENDPOINT
export CRICTL="$BIN/crictl" KUBECTL="$BIN/kubectl" KUBECONFIG="$STATE/admin.conf"

case $group in
cluster)
  lab_need kubelet crictl
  . "$HACK/lib/cluster.sh"
  cluster_need
  cluster_up 2
  cases "$@" ;;
pods)
  lab_need kubelet crictl
  lab_up
  kubelet_up node1 standalone
  cases "$@" ;;
kubelets)
  # shellcheck disable=SC2086  # words
  lab_need $OTHER_KUBELETS crictl
  lab_up
  failed=0
  for kubelet in $OTHER_KUBELETS; do
    KUBELET_VERSION=$(version_of "$BIN/$kubelet")
    export KUBELET_VERSION
    KUBELET=$BIN/$kubelet kubelet_up node1 standalone
    cases "$@" || failed=1
    kubelet_down node1
    # it is the next kubelet's turn to find a node without anybody else's pods
    runtime_empty node1
  done
  [ "$failed" = 0 ] ;;
crictl)
  lab_need kubelet crictl
  lab_up
  cases "$@" ;;
esac
