# shellcheck shell=sh
# Part of cases.sh, with the systemd driver: slices as a kubelet makes them, calls of systemd, the packaged unit.
manager() { busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager "$@" >/dev/null; }
property() { systemctl show -p "$2" --value "$1"; }

is "the packaged unit runs" "$(systemctl show -p Type,ActiveState,WatchdogUSec,Delegate,KillMode crisp | sort | tr '\n' ' ')" \
  "ActiveState=active Delegate=yes KillMode=process Type=notify WatchdogUSec=1min "

# a pod's slice as the kubelet asks for it, then the pod in it
SLICE=kubepods-burstable-podvm.slice
for slice in kubepods.slice kubepods-burstable.slice $SLICE; do
  manager StartTransientUnit 'ssa(sv)a(sa(sv))' $slice replace 3 DefaultDependencies b false MemoryAccounting b true \
    Wants as 0 0 || not_ok "$slice is made"
done
manager SetUnitProperties 'sba(sv)' $SLICE true 1 MemoryMax t 268435456
K=$(pod kube "{\"cgroup_parent\": \"$SLICE\"}")
L=$(container "$K" kube limited 'sleep 1000' '{"resources": {"memory_limit_in_bytes": 67108864, "cpu_quota": 30000, "cpu_period": 100000, "cpu_shares": 204}}')
crictl start "$L" >/dev/null
here=/kubepods.slice/kubepods-burstable.slice/$SLICE
is "a container is a scope in the pod's slice" "$(cat "/proc/$(crictl inspect "$L" | jq .info.pid)/cgroup")" "0::$here/crisp-$L.scope"
is "systemd knows its limits" "$(systemctl show -p MemoryMax,CPUQuotaPerSecUSec,CPUWeight,Delegate "crisp-$L.scope" | sort | tr '\n' ' ')" \
  "CPUQuotaPerSecUSec=300ms CPUWeight=29 Delegate=yes MemoryMax=67108864 "
systemctl daemon-reload
is "limits of the scope stay over daemon-reload" "$(crictl exec -s "$L" cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max 2>&1 | xargs)" "67108864 30000 100000"
is "the limit of the slice stays" "$(cat "/sys/fs/cgroup$here/memory.max")" 268435456

# Calls that reach systemd: over the bus, where they can be counted, in place of its private socket
mv /run/systemd/private /run/systemd/private.aside
stdbuf -oL busctl monitor --json=short --match 'type=method_call,destination=org.freedesktop.systemd1' org.freedesktop.systemd1 >"$DIR/calls" 2>/dev/null &
MONITOR=$!
calls() { tail -n "+$((HEARD + 1))" "$DIR/calls" | jq -r 'select(.type == "method_call" and .interface == "org.freedesktop.systemd1.Manager" and .member != "ListJobs") | .member' | sort | uniq -c | awk '{printf "%s %s ", $1, $2}'; }
# mark METHOD: a call of our own, and wait until it is heard
mark() { until_true 20 sh -c "busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager $* >/dev/null; grep -q $1 $DIR/calls"; }
mark GetUnit s crisp.service
HEARD=$(wc -l <"$DIR/calls")
M=$(container "$K" kube counted 'sleep 1000' '{"resources": {"memory_limit_in_bytes": 67108864}}')
crictl start "$M" >/dev/null
for _ in 1 2 3; do crictl exec -s "$M" true; done
mark ListJobs
# Subscribe is the bus', which the private socket does without
is "one call of systemd makes a container, none an exec" "$(calls)" "1 StartTransientUnit 1 Subscribe "
kill "$MONITOR"
mv /run/systemd/private.aside /run/systemd/private

# a scope goes with its last process: the count of kills has to be read before
for i in 1 2 3 4 5; do
  O=$(container "$K" kube "hungry$i" 'tail /dev/zero' '{"resources": {"memory_limit_in_bytes": 20971520, "memory_swap_limit_in_bytes": 20971520}}')
  crictl start "$O" >/dev/null; until_true 60 is_state "$O" EXITED
  OOMS="${OOMS:-}$(crictl inspect "$O" | jq -r .status.reason) "
done
is "out of memory, five times" "$OOMS" "OOMKilled OOMKilled OOMKilled OOMKilled OOMKilled "
N=$(container "$K" kube killed 'kill -9 $$')
crictl start "$N" >/dev/null; until_true 20 is_state "$N" EXITED
is "a container that is killed otherwise" "$(crictl inspect "$N" | jq -r '.status|"\(.reason) \(.exitCode)"')" "Error 137"

# the daemon stops, and comes back
lpid=$(crictl inspect "$L" | jq .info.pid)
systemctl stop crisp
is "pods go on while crisp is stopped" "$(systemctl is-active crisp) $(cut -d' ' -f3 "/proc/$lpid/stat") $(systemctl is-active "crisp-$L.scope")" "inactive S active"
systemctl start crisp; until_true 30 crictl version
is "and are known afterwards" "$(state "$L") $(crictl exec -s "$L" echo a)" "CONTAINER_RUNNING a"
crictl stopp "$K" >/dev/null && crictl rmp "$K" >/dev/null && ok "the pod in the slice is removed" || not_ok "the pod in the slice is removed"
is "nothing is left in its slice" "$(find "/sys/fs/cgroup$here" -mindepth 1 -type d | tr '\n' ' ')" ""
manager StopUnit ss kubepods.slice replace
