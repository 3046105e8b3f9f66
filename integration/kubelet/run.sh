#!/bin/bash
# run.sh pods|cluster [CASE...]: the cases of pods.py on a standalone kubelet, of cluster.py on a cluster of two nodes,
# each in a lab of its own. A last case asserts that nothing stays behind.
. "$(dirname "$(readlink -f "$0")")/../../hack/lib/env.sh"
group=${1:?pods or cluster}
shift
LAB=test-$group
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
  kubelet_up node1 standalone
fi
export LAB STATE CRISP_RUNTIME IMAGES REGISTRY CRICTL="$BIN/crictl" KUBECTL="$BIN/kubectl" KUBECONFIG="$STATE/admin.conf"
NODE_IP=$(node_ip node1)
export NODE_IP CONTAINER_RUNTIME_ENDPOINT=$CRI_ENDPOINT
on node1 python3 "$ROOT/integration/kubelet/$group.py" "$@"
