#!/bin/sh
# Inside a guest of hack/vm.sh: what must hold on every host. Prints cases as hack/lib/report.sh has them.
# VARIANT: its name in them; DRIVER: cgroup driver. With systemd crisp runs as its packaged unit.
. /hack/vm/node.sh
trap 'tail -5 "$DIR/crisp.log" 2>/dev/null | cut -c1-600 | sed "s/^/    /"; dmesg | tail -5 | sed "s/^/    kernel: /"' EXIT

# before the daemon looks at the policy
if [ "$VARIANT" = selinux ]; then
  semodule -N -i /hack/vm/selinux.cil 2>/dev/null && load_policy || not_ok "the policy has types for containers"
fi
registry_up || exit 1
crisp_configure
if crisp_up; then ok "crisp answers"; else not_ok "crisp answers"; exit 1; fi
has "the kubelet is told the driver" "$(crictl runtime-config 2>&1)" "$(echo "$DRIVER" | tr a-z A-Z)"
if crictl pull "$IMAGE" >/dev/null; then ok "an image is pulled"; else not_ok "an image is pulled"; fi

# ---- limits
all_mounts() { cut -d' ' -f2,3 /proc/mounts | sort; }
all_mounts >"$DIR/mounts.before"
P=$(pod one) || { not_ok "a pod runs"; exit 1; }
ok "a pod runs"
C=$(container "$P" one main 'echo started; sleep 1000' '{"resources": {"memory_limit_in_bytes": 104857600,
  "cpu_quota": 25000, "cpu_period": 100000, "cpu_shares": 512, "unified": {"pids.max": "77"}}}')
crictl start "$C" >/dev/null && is "a container starts" "$(state "$C")" CONTAINER_RUNNING
inside() { crictl exec -s "$C" "$@" 2>&1; }
is "exec" "$(inside sh -c 'echo a; exit 0')" a
is "limits, from inside" "$(inside sh -c 'cd /sys/fs/cgroup; cat memory.max cpu.max cpu.weight pids.max' | xargs)" "104857600 25000 100000 59 77"
is "a cgroup namespace" "$(inside cat /proc/self/cgroup | cut -d/ -f2 | cut -c1-5)" exec-
crictl update --memory 209715200 "$C" >/dev/null
is "resize, from inside" "$(inside cat /sys/fs/cgroup/memory.max)" 209715200
measured() { [ "$(crictl stats -o json "$C" | jq -r '.stats[0] | (.memory.workingSetBytes.value | tonumber > 0) and (.cpu.usageCoreNanoSeconds.value | tonumber > 0)')" = true ]; }
until_true 15 measured && ok "memory and processor time are measured" || not_ok "memory and processor time are measured # $(crictl stats -o json "$C" | jq -c '.stats[0]')"

# ---- devices
has "a device is refused to exec" "$(inside sh -c 'mknod /d c 1 11 && head -c1 /d')" "not permitted"
D=$(container "$P" one device 'mknod /m b 98 0; head -c1 /m; mknod /k c 1 5; head -c1 /k >/dev/null && echo zero')
crictl start "$D" >/dev/null; until_true 20 is_state "$D" EXITED
has "a device is refused to a container" "$(crictl logs "$D" 2>&1)" "not permitted"
has "the usual devices are open" "$(crictl logs "$D" 2>&1)" zero
# a container may be privileged only in a pod that is
R=$(pod root '{"security_context": {"privileged": true}}')
E=$(container "$R" root privileged 'mknod /m b 98 0; head -c1 /m >/dev/null && echo opened' '{"security_context": {"privileged": true}}')
crictl start "$E" >/dev/null; until_true 20 is_state "$E" EXITED
is "a block device is open to a privileged container" "$(crictl logs "$E" 2>&1)" opened
crictl stopp "$R" >/dev/null; crictl rmp "$R" >/dev/null

# ---- out of memory
O=$(container "$P" one hungry 'tail /dev/zero' '{"resources": {"memory_limit_in_bytes": 20971520, "memory_swap_limit_in_bytes": 20971520}}')
crictl start "$O" >/dev/null; until_true 60 is_state "$O" EXITED
is "out of memory: reason and code" "$(crictl inspect "$O" | jq -r '.status|"\(.reason) \(.exitCode)"')" "OOMKilled 137"

# ---- what only some hosts have
case $VARIANT in
cgroupfs) . /hack/vm/users.sh ;;
systemd) . /hack/vm/systemd.sh ;;
apparmor) . /hack/vm/apparmor.sh ;;
selinux) . /hack/vm/selinux.sh ;;
esac

# ---- the daemon dies
before=$(crictl inspect "$C" | jq -c '[.info.pid, .status.startedAt]')
crisp_kill
if crisp_up; then ok "crisp comes back after kill -9"; else not_ok "crisp comes back after kill -9"; exit 1; fi
is "the container goes on" "$(crictl inspect "$C" | jq -c '[.info.pid, .status.startedAt]')" "$before"
is "exec after that" "$(inside echo b)" b
if [ "$VARIANT" = selinux ]; then
  is "SELinux: an exec after that" "$(own "$C")" "$FIRST"
  A=$(started "$P" one later) && is "SELinux: a container after that" "$(current "$A")" "$FIRST"
fi
if [ -d /run/systemd/system ]; then
  systemctl restart crisp; until_true 30 crictl version
  is "the container goes on after systemctl restart" "$(crictl inspect "$C" | jq -c '[.info.pid, .status.startedAt]')" "$before"
  is "the container is a scope" "$(systemctl is-active "crisp-$C.scope")" active
  systemctl daemon-reload
  is "limits stay over daemon-reload" "$(inside cat /sys/fs/cgroup/memory.max)" 209715200
fi
has "its log is there" "$(crictl logs "$C" 2>&1)" started

# ---- the end. Each look is made before too, when it has to find something.
running() { for p in /proc/[0-9]*; do readlink "$p/exe" 2>/dev/null; done | grep -oE 'memfd:crisp-(monitor|infra)' | sort | tr '\n' ' '; }
mounted() { all_mounts | diff "$DIR/mounts.before" - | grep -c '^[<>]'; }
groups() { find /sys/fs/cgroup -type d \( -name "*$P*" -o -name "*$C*" -o -name "*$D*" -o -name "*$O*" \) | wc -l; }
is "one pod: its processes" "$(running)" "memfd:crisp-infra memfd:crisp-monitor "
[ "$(mounted)" -gt 0 ] && [ "$(groups)" -gt 0 ] && ok "one pod: its mounts and cgroups" || not_ok "one pod: its mounts and cgroups # $(mounted), $(groups)"
crictl stop -t 0 "$C" >/dev/null; is "stop" "$(state "$C")" CONTAINER_EXITED
crictl rm "$C" >/dev/null && ok "rm" || not_ok "rm"
crictl stopp "$P" >/dev/null && crictl rmp "$P" >/dev/null && ok "the pod is removed" || not_ok "the pod is removed"
no_process() { [ -z "$(running)" ]; }
until_true 5 no_process
is "no process stays" "$(running)" ""
is "no cgroup stays" "$(groups)" 0
is "no mount stays" "$(mounted)" 0
[ ! -d /run/systemd/system ] || is "no unit stays" "$(systemctl list-units --all --plain --no-legend 'crisp-*' | tr '\n' ' ')" ""

# ---- a kubelet
. /hack/vm/kubelet.sh
trap - EXIT
