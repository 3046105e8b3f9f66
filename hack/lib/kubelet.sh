# shellcheck shell=bash
# A kubelet of a node: standalone (static pods only) or of a cluster.

# kubelet_up NODE standalone|cluster
kubelet_up() {
  local node=$1 mode=$2 root="$CGROUP_ROOT/$1" arguments=()
  sysctls_save
  mkdir -p "$STATE/$node/manifests"
  printf 'nameserver 127.0.0.1\n' >"$STATE/$node/resolv.conf"
  # the ends of the machine come first: what a kubelet asks for and this host cannot give would only be logged
  cat >"$STATE/$node/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: $CRI_ENDPOINT
cgroupDriver: cgroupfs
cgroupRoot: $root
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
maxOpenFiles: $(ulimit -Hn | sed 's/unlimited/1000000/')
staticPodPath: $STATE/$node/manifests
fileCheckFrequency: 2s
resolvConf: $STATE/$node/resolv.conf
volumePluginDir: /var/lib/kubelet/volumeplugins
address: 0.0.0.0
readOnlyPort: 10255
healthzBindAddress: 127.0.0.1
authorization: {mode: AlwaysAllow}
enforceNodeAllocatable: [pods]
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}
imageGCHighThresholdPercent: 100
registryPullQPS: 0
nodeStatusUpdateFrequency: 5s
${KUBELET_SETTINGS:-}
Y
  if [ "$mode" = cluster ]; then
    arguments=("--kubeconfig=$STATE/$node/kubelet.conf")
    cat >>"$STATE/$node/kubelet.yaml" <<Y
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}, x509: {clientCAFile: $STATE/pki/ca.crt}}
tlsCertFile: $STATE/pki/kubelet-$node.crt
tlsPrivateKeyFile: $STATE/pki/kubelet-$node.key
Y
  else
    echo 'authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}' >>"$STATE/$node/kubelet.yaml"
  fi
  kubelet_start "$node" "${arguments[@]}"
}

kubelet_start() {
  local node=$1
  shift
  printf '%s\n' "$@" >"$STATE/$node/kubelet.arguments"
  # without --node-ip it asks the name server for the node's name, again and again, 10 s each time
  spawn "$node" kubelet "${KUBELET:-$BIN/kubelet}" "--config=$STATE/$node/kubelet.yaml" "--hostname-override=$node" \
    "--node-ip=$(node_ip "$node")" \
    "--v=${KUBELET_VERBOSITY:-2}" "$@"
  wait_for 60 "the kubelet of $node" kubelet_answers "$node" || die "$(grep -E '^[EF]' "$STATE/$node/kubelet.log" | tail -5)"
}
kubelet_answers() { alive "$1" kubelet && on "$1" curl -sf --noproxy '*' http://127.0.0.1:10255/pods; }

# kubelet_down NODE: takes the static pods away first, and gives them their grace period
kubelet_down() {
  local node=$1
  if alive "$node" kubelet; then
    rm -f "$STATE/$node/manifests"/*
    wait_for 45 "the end of the pods on $node" no_ready_pods "$node" || true
  fi
  stop "$node" kubelet TERM 20
}
no_ready_pods() {
  local ready
  ready=$(crictl_on "$1" pods -s ready -q 2>/dev/null) || return 0
  [ -z "$ready" ]
}
