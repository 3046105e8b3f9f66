# shellcheck shell=bash
# The runtime of a node: crisp, or containerd (CRISP_RUNTIME=containerd) to test the tests and to compare with.
# Inside the node both listen at /run/crisp/crisp.sock, outside the same socket is $STATE/NODE/crisp/crisp.sock.
CRISP_RUNTIME=${CRISP_RUNTIME:-crisp}
CRI_ENDPOINT=unix:///run/crisp/crisp.sock

# runtime_configure NODE
runtime_configure() {
  local node=$1
  hosts_write "$STATE/$node/certs.d"
  if [ "$CRISP_RUNTIME" = containerd ]; then containerd_config "$node" >"$STATE/$node/runtime.toml"; return; fi
  cat >"$STATE/$node/runtime.toml" <<T
# root, state and socket are the defaults: inside the lab these folders are the node's own
monitor = "$OUT/crisp-monitor"

[image]
certs_dirs = ["$STATE/$node/certs.d"]

[network]
cni_conf_dir = "/etc/cni/net.d"
cni_bin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]

[network.builtin]
subnets = ["$(pod_cidr "$node")"]

[stream]
address = "127.0.0.1"

[cgroup]
driver = "cgroupfs"

[log]
level = "${CRISP_LOG:-info}"
T
}

# runtime_start NODE: also after a stop or a kill
runtime_start() {
  local node=$1
  if [ "$CRISP_RUNTIME" = containerd ]; then
    spawn "$node" runtime env "PATH=$CONTAINERD_BIN:$PATH" "$CONTAINERD_BIN/containerd" --config "$STATE/$node/runtime.toml"
  else
    spawn "$node" runtime "$OUT/crisp" serve --config "$STATE/$node/runtime.toml"
  fi
  wait_for 30 "$CRISP_RUNTIME" runtime_answers "$node" || die "$(tail -5 "$STATE/$node/runtime.log")"
}
runtime_answers() { alive "$1" runtime && crictl_on "$1" version >/dev/null 2>&1; }
runtime_stop() { stop "$1" runtime TERM 10; }

runtime_up() { runtime_configure "$1" && runtime_start "$1"; }

# crictl_on NODE ARGUMENTS...
crictl_on() {
  local node=$1
  shift
  on "$node" "${CRICTL:-$BIN/crictl}" -c /dev/null -r "$CRI_ENDPOINT" -i "$CRI_ENDPOINT" -t 30s "$@"
}

# runtime_empty NODE: stop and remove all pods; a runtime that died is started again for that
runtime_empty() {
  local pods
  [ -f "$STATE/$1/runtime.pid" ] || return 0
  if ! runtime_answers "$1"; then
    say "$CRISP_RUNTIME does not answer: $(tail -1 "$STATE/$1/runtime.log" | cut -c1-300)"
    stop "$1" runtime TERM 3
    (runtime_start "$1") || return 0
  fi
  pods=$(crictl_on "$1" pods -q)
  # shellcheck disable=SC2086
  [ -z "$pods" ] || crictl_on "$1" rmp -f $pods >/dev/null || true
}

# The peer: Debian's 1.6 as it is packaged, or a newer one named by CONTAINERD_BIN (containerd, its shim and runc).
CONTAINERD_BIN=${CONTAINERD_BIN:-}
containerd_config() {
  local node=$1 cidr
  cidr=$(pod_cidr "$node")
  mkdir -p "$STATE/$node/cni"
  cat >"$STATE/$node/cni/10-lab.conflist" <<J
{"cniVersion": "0.4.0", "name": "lab", "plugins": [
 {"type": "bridge", "bridge": "lab0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "dataDir": "/var/lib/cni/ipam", "ranges": [[{"subnet": "$cidr"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
 {"type": "portmap", "capabilities": {"portMappings": true}}]}
J
  cat <<T
version = 2
root = "/var/lib/crisp"
state = "/run/crisp/containerd"
oom_score = 0
[grpc]
  address = "/run/crisp/crisp.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.9"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$STATE/$node/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "$STATE/$node/certs.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "$CONTAINERD_BIN/runc"
T
}
containerd_find() {
  local one two
  [ -z "$CONTAINERD_BIN" ] || return 0
  one=$(deb containerd) two=$(deb runc)
  cp -n "$two/usr/sbin/runc" "$one/usr/bin/" 2>/dev/null || true
  CONTAINERD_BIN=$one/usr/bin
}
