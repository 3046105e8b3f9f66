# shellcheck shell=bash
# A node is a pair of namespaces, network and mount, held by a sleeping process. Bridges, nftables rules, host-network
# pods and mounts stay inside and are gone with it; the host's network is never touched.

# on NODE COMMAND...: run it inside.
on() {
  local holder node=$1
  shift
  holder=$(pid_of "$node" namespaces) || die "$node: no namespaces"
  nsenter -t "$holder" -n -m --wd="$PWD" -- "$@"
}

# Inside, the usual paths belong to the node: what the runtime and the kubelet keep lies under $STATE and $DATA, and
# folders that they write to whatever they are told, with /srv as our pods' hostPath, are tmpfs.
PRIVATE_FOLDERS="/var/log/containers /var/log/pods /var/lib/cni /etc/cni/net.d /srv"
OWN_FOLDERS="/run/crisp /var/lib/crisp /var/lib/kubelet"
own_folder() { # NODE PATH: where it lies outside
  case $2 in /run/*) echo "$STATE/$1/${2##*/}" ;; *) echo "$DATA/$1/${2##*/}" ;; esac
}

# namespaces_up NODE
namespaces_up() {
  local node=$1 pid folder made='' script
  mkdir -p "$STATE/$node" "$DATA/$node"
  alive "$node" namespaces && return 0
  for folder in $PRIVATE_FOLDERS $OWN_FOLDERS; do
    [ -d "$folder" ] || { mkdir -p "$folder"; made="$folder $made"; }
  done
  echo "$made" >>"$STATE/$node/made-folders"
  # rshared: mounts of pods with propagation need it, and / is private on some machines
  script="set -e; mount --make-rshared /; for f in $PRIVATE_FOLDERS; do mount -t tmpfs -o mode=755 lab \$f; done"
  for folder in $OWN_FOLDERS; do
    mkdir -p "$(own_folder "$node" "$folder")"
    script+="; mount --bind '$(own_folder "$node" "$folder")' $folder"
  done
  script+="; exec sleep infinity"
  setsid unshare --net --mount --propagation private sh -c "$script" </dev/null >"$STATE/$node/namespaces.log" 2>&1 &
  pid=$!
  disown $pid
  wait_for 10 "$node's namespaces" grep -qx sleep "/proc/$pid/comm" || die "no namespaces: $(cat "$STATE/$node/namespaces.log")"
  [ "$(readlink "/proc/$pid/ns/net")" != "$(readlink /proc/self/ns/net)" ] || die "the network namespace is not private"
  remember "$node" namespaces $pid
  on "$node" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 2>/dev/null || true
  on "$node" ip link set lo up
  # veth, since kernels without a dummy driver exist
  on "$node" ip link add node0 type veth peer name node0p
  on "$node" ip addr add "$(node_ip "$node")/24" dev node0
  on "$node" ip link set node0 up
  on "$node" ip link set node0p up
  on "$node" ip route add default dev node0
  cgroups_up "$node"
}

# join_nodes NODE OTHER: OTHER gets the far end of NODE's veth instead of its own, and each a route to the other's pods.
join_nodes() {
  local other_pid
  other_pid=$(pid_of "$2" namespaces) || die "$2: no namespaces"
  on "$2" ip link del node0
  on "$1" ip link set node0p netns "$other_pid" name node0
  on "$2" ip addr add "$(node_ip "$2")/24" dev node0
  on "$2" ip link set node0 up
  on "$2" ip route add default via "$(node_ip "$1")"
  on "$1" ip route add "$(pod_cidr "$2")" via "$(node_ip "$2")"
  on "$2" ip route add "$(pod_cidr "$1")" via "$(node_ip "$1")"
}

# namespaces_down NODE: ends every process that still lives in them (a fault, which is said), then the namespaces.
namespaces_down() {
  local node=$1 folder other pid since
  end_strays "$node"
  stop "$node" namespaces KILL 2
  # Removing a folder that is a mount point elsewhere unmounts it there: while another node lives, it inherits the list.
  for other in /run/crisp-lab/*/*/namespaces.pid; do
    [ "$other" != "$STATE/$node/namespaces.pid" ] || continue
    read -r pid since 2>/dev/null <"$other" || continue
    [ "$(started "$pid")" = "${since:-none}" ] || continue
    cat "$STATE/$node/made-folders" >>"${other%/*}/made-folders" 2>/dev/null || true
    rm -f "$STATE/$node/made-folders"
  done
  # shellcheck disable=SC2013  # words
  for folder in $(cat "$STATE/$node/made-folders" 2>/dev/null); do rmdir "$folder" 2>/dev/null || true; done
  rm -f "$STATE/$node/made-folders"
}

# The lab's own cgroup root, in every hierarchy, with one below it for each node's kubelet.
cgroup_mounts() { awk '$3 == "cgroup" || $3 == "cgroup2" {print $2}' /proc/mounts | sort -u; }
cgroups_up() { # NODE
  local mount group above controller
  for mount in $(cgroup_mounts); do
    above=$mount
    for group in "$mount$CGROUP_ROOT" "$mount$CGROUP_ROOT/$1"; do
      # shellcheck disable=SC2013  # words
      for controller in $(cat "$above/cgroup.controllers" 2>/dev/null); do
        echo "+$controller" >"$above/cgroup.subtree_control" 2>/dev/null || true
      done
      mkdir -p "$group"
      # a cpuset of version 1 is born without processors and memory nodes
      if [ -f "$group/cpuset.cpu_exclusive" ]; then
        cat "$above/cpuset.cpus" >"$group/cpuset.cpus"
        cat "$above/cpuset.mems" >"$group/cpuset.mems"
      fi
      above=$group
    done
  done
}
cgroups_down() {
  local mount
  for mount in $(cgroup_mounts); do
    [ -d "$mount$CGROUP_ROOT" ] || continue
    find "$mount$CGROUP_ROOT" -depth -type d -exec rmdir {} + 2>/dev/null || true
    [ ! -d "$mount$CGROUP_ROOT" ] || say "cgroup left: $(find "$mount$CGROUP_ROOT" -depth -type d | head -3 | tr '\n' ' ')"
  done
}
