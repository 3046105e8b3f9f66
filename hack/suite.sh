#!/bin/bash
# hack/suite.sh pods|cluster|crictl [CASE...]: the cases of integration/node, in a lab of their own: pods.py through a
# standalone kubelet, cluster.py through a cluster of two nodes, crictl.py through crictl. CASE: words of names.
# A last case asserts that nothing stays behind.
. "$(dirname "$(readlink -f "$0")")/lib/env.sh"
group=${1:-}
[[ $group == pods || $group == cluster || $group == crictl ]] || die "usage: hack/suite.sh pods|cluster|crictl [CASE...]"
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

lab_need kubelet crictl
if [ "$group" = cluster ]; then
  . "$HACK/lib/cluster.sh"
  cluster_need
  cluster_up 2
else
  lab_up
  [ "$group" = crictl ] || kubelet_up node1 standalone
fi
export LAB STATE CRISP_RUNTIME IMAGES REGISTRY CRICTL="$BIN/crictl" KUBECTL="$BIN/kubectl" KUBECONFIG="$STATE/admin.conf"
NODE_IP=$(node_ip node1)
export NODE_IP CONTAINER_RUNTIME_ENDPOINT=$CRI_ENDPOINT
on node1 python3 "$ROOT/integration/node/$group.py" "$@"
