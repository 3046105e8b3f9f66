# shellcheck shell=bash
# A whole node up and down. Everything that goes up here comes down here, whatever went wrong in between.
for part in process namespace leftovers packages tools images runtime kubelet; do
  # shellcheck disable=SC1090
  . "$HACK/lib/$part.sh"
done

# lab_need TOOL...: what a lab needs to be there
lab_need() {
  need_commands ip nsenter unshare setsid sysctl python3 curl
  need_package containernetworking-plugins /usr/lib/cni/bridge
  images_make
  deb docker-registry >/dev/null
  need_tools "$@"
  if [ "$CRISP_RUNTIME" = containerd ]; then
    containerd_find
  elif [ -z "${CRISP_FAST:-}" ] || [ ! -x "$OUT/crisp" ]; then
    say "building crisp"
    "$HACK/build.sh" >/dev/null
  fi
}

# lab_claim: nobody else's lab of this name is used, or taken down by our end
LAB_OURS=''
lab_claim() {
  ! alive node1 namespaces || die "the lab '$LAB' is up already ($STATE)"
  LAB_OURS=1
}

# lab_up: the first node with registry and runtime
lab_up() {
  lab_claim
  mkdir -p "$STATE" "$DATA"
  namespaces_up node1
  registry_up node1
  runtime_up node1
}

# node_down NODE [quiet]: pods, kubelet, runtime; then says what the runtime should have taken away and did not
node_down() {
  local node=$1 left
  alive "$node" namespaces || return 0
  kubelet_down "$node"
  runtime_empty "$node"
  runtime_stop "$node"
  stop "$node" registry KILL
  left=$(leftovers "$node" || true)
  if [ -n "$left" ]; then
    say "left behind on $node:"
    head -12 <<<"$left" >&2
    [ "$(wc -l <<<"$left")" -le 12 ] || say "... $(wc -l <<<"$left") in all"
    LAB_LEFT=1
  fi
  namespaces_down "$node"
}

# lab_down: all nodes. Logs stay in $STATE when something failed or LAB_KEEP is set.
LAB_LEFT=''
lab_down() {
  local node
  [ -n "$LAB_OURS" ] || return 0
  set +e
  for node in node2 node1; do node_down "$node"; done
  cgroups_down
  sysctls_restore
  rm -rf --one-file-system "$DATA"
  if [ -n "${LAB_KEEP:-}" ]; then
    say "logs are in $STATE"
  else
    rm -rf --one-file-system "$STATE"
    rmdir /run/crisp-lab /var/lib/crisp-lab 2>/dev/null
  fi
  set -e
  [ -z "$LAB_LEFT" ]
}
