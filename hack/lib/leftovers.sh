# shellcheck shell=bash
# What remains of a lab when it should be gone. A remainder is a fault of what ran in it: it is named, then ended.

# strays NODE: pids in the node's mount or network namespace or in the lab's cgroups, but for its known daemons.
strays() {
  local node=$1 holder mnt net known pid p file
  holder=$(pid_of "$node" namespaces) || return 0
  mnt=$(readlink "/proc/$holder/ns/mnt") net=$(readlink "/proc/$holder/ns/net")
  [ "$mnt" != "$(readlink /proc/self/ns/mnt)" ] || return 0
  known=" $$ "
  for file in "$STATE/$node"/*.pid; do read -r pid _ <"$file" && known+="$pid "; done
  for p in /proc/[0-9]*; do
    pid=${p#/proc/}
    [[ $known == *" $pid "* ]] && continue
    if [ "$(readlink "$p/ns/mnt" 2>/dev/null)" = "$mnt" ] || [ "$(readlink "$p/ns/net" 2>/dev/null)" = "$net" ] ||
      grep -qs ":$CGROUP_ROOT/$node/" "$p/cgroup"; then
      [ "$(sed 's/.*) //' "$p/stat" 2>/dev/null | cut -c1)" = Z ] || echo "$pid"
    fi
  done
}

end_strays() {
  local pid pids
  pids=$(strays "$1") || true
  for pid in $pids; do
    kill -KILL "$pid" 2>/dev/null || true
  done
  [ -z "$pids" ] || sleep 0.3
}

# leftovers NODE: one line for each thing that the runtime should have taken away with its pods.
leftovers() {
  local node=$1 mount pid
  for pid in $(strays "$node"); do echo "process $pid $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | cut -c1-100)"; done
  # shellcheck disable=SC2016  # awk's own
  on "$node" awk '$5 ~ "^/(run/crisp|var/lib/crisp|var/lib/kubelet)/" {print "mount " $5}' /proc/self/mountinfo
  on "$node" ip -o link show type veth 2>/dev/null | awk -F'[ :@]+' '$2 !~ /^node0p?$/ {print "link " $2}'
  for mount in $(cgroup_mounts); do
    [ ! -d "$mount$CGROUP_ROOT/$node" ] || find "$mount$CGROUP_ROOT/$node" -mindepth 2 -type d -path '*/pod*/*' -printf 'cgroup %p\n'
  done
}

# The kubelet writes sysctls of the whole machine; labs that overlap share what the first of them saw.
sysctls_save() {
  local other
  [ ! -f "$STATE/sysctls" ] || return 0
  for other in /run/crisp-lab/*/sysctls; do
    [ -f "$other" ] && { cp "$other" "$STATE/sysctls"; return 0; }
  done
  sysctl -e vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes 2>/dev/null |
    sed 's/ = /=/' >"$STATE/sysctls"
}
sysctls_restore() {
  local line
  [ -f "$STATE/sysctls" ] || return 0
  while read -r line; do sysctl -qw "$line" || true; done <"$STATE/sysctls"
  rm -f "$STATE/sysctls"
}
