#!/bin/bash
# hack/cluster.sh up [--nodes 2] | down | kubectl ARGUMENTS... | in [node2] CMD...
# A Kubernetes cluster whose nodes run on crisp, in private network and mount namespaces: etcd, API server, scheduler,
# controller manager and a kubelet a node. The first `up` builds them from the Go module proxy.
. "$(dirname "$(readlink -f "$0")")/lib/env.sh"
[ "$LAB" != run ] || { LAB=cluster && . "$HACK/lib/env.sh"; }
. "$HACK/lib/lab.sh"
. "$HACK/lib/cluster.sh"
need_root

verb=${1:-}
[ $# = 0 ] || shift
case $verb in
up)
  count=1
  while [ $# -gt 0 ]; do
    case $1 in
    --nodes) count=${2:?how many}; shift ;;
    *) die "unknown: $1" ;;
    esac
    shift
  done
  [[ $count == [12] ]] || die "--nodes 1 or 2"
  # shellcheck disable=SC2119  # cluster_need names the tools
  lab_need
  cluster_need
  images_public
  trap 'status=$?; [ "$status" = 0 ] || { LAB_KEEP=1; cluster_down || true; }' EXIT
  cluster_up "$count"
  kubectl_in get nodes -o wide
  say "use: hack/cluster.sh kubectl get pods -A" ;;
down)
  LAB_OURS=1
  cluster_down ;;
kubectl) kubectl_in "$@" ;;
in)
  node=node1
  case ${1:-} in node[12]) node=$1; shift ;; esac
  KUBECONFIG=$STATE/admin.conf CONTAINER_RUNTIME_ENDPOINT=$CRI_ENDPOINT IMAGE_SERVICE_ENDPOINT=$CRI_ENDPOINT on "$node" "$@" ;;
*)
  sed -n '2,4s/^# //p' "$0" >&2
  exit 64 ;;
esac
