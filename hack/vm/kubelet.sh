# shellcheck shell=sh
# Part of cases.sh: a standalone kubelet with a static pod.
MANIFESTS=$DIR/manifests
# User Mode Linux does not know its processor's clock, without which a kubelet does not start
{ cat /proc/cpuinfo; printf 'cpu MHz\t\t: 2000.000\n'; } >"$DIR/cpuinfo"
mount --bind "$DIR/cpuinfo" /proc/cpuinfo
mkdir -p "$MANIFESTS" /var/lib/kubelet
cat >"$DIR/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: $SOCKET
cgroupDriver: $DRIVER
failSwapOn: false
staticPodPath: $MANIFESTS
fileCheckFrequency: 2s
address: 127.0.0.1
readOnlyPort: 10255
healthzBindAddress: 127.0.0.1
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
enforceNodeAllocatable: [pods]
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}
imageGCHighThresholdPercent: 100
Y
/tools/kubelet "--config=$DIR/kubelet.yaml" --hostname-override=vm --node-ip=127.0.0.1 --v=2 >"$DIR/kubelet.log" 2>&1 &
KUBELET=$!
pods() { curl -sf --noproxy '*' http://127.0.0.1:10255/pods; }
if until_true 60 pods; then ok "the kubelet answers"; else
  not_ok "the kubelet answers"
  grep -E '^[EF]' "$DIR/kubelet.log" | tail -5 | sed 's/^/    /'
  exit 1
fi
cat >"$MANIFESTS/pod.yaml" <<Y
apiVersion: v1
kind: Pod
metadata: {name: static, namespace: default}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: $IMAGE
    command: [sh, -c, 'trap "exit 0" TERM; echo started; while :; do sleep 1; done']
    resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 300m, memory: 64Mi}}
    readinessProbe: {exec: {command: ["true"]}, periodSeconds: 2, timeoutSeconds: 30}
  - name: hungry
    image: $IMAGE
    command: [tail, /dev/zero]
    resources: {limits: {cpu: 500m, memory: 20Mi}}
Y
status() { pods | jq -r ".items[0].status.containerStatuses[]? | select(.name == \"$1\") | $2"; }
ready() { [ "$(status main .ready)" = true ]; }
if until_true 90 ready; then ok "kubelet: a pod is ready"; else not_ok "kubelet: a pod is ready # $(pods | jq -c '.items[0].status' | tail -c 600) $(grep -E '^[EF]' "$DIR/kubelet.log" | tail -3)"; fi
S=$(crictl ps -q --name main); SANDBOX=$(crictl pods -q --name static)
is "kubelet: limits, from inside" "$(crictl exec -s "$S" sh -c 'cd /sys/fs/cgroup; cat memory.max cpu.max' 2>&1 | xargs)" "67108864 30000 100000"
group=$(cut -d: -f3 "/proc/$(crictl inspect "$S" | jq .info.pid)/cgroup")
case $DRIVER in
systemd) has "kubelet: the pod's cgroup" "$group" "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" ;;
*) has "kubelet: the pod's cgroup" "$group" "/kubepods/burstable/pod" ;;
esac
is "kubelet: the pod's limit" "$(cat "/sys/fs/cgroup${group%/*}/memory.max")" $((84 * 1048576))
has "kubelet: a device is refused" "$(crictl exec -s "$S" sh -c 'mknod /d c 1 11 && head -c1 /d' 2>&1)" "not permitted"
ended() { [ -n "$(status hungry '.state.terminated.reason // empty')" ]; }
until_true 60 ended
is "kubelet: out of memory" "$(status hungry '.state.terminated | "\(.reason) \(.exitCode)"')" "OOMKilled 137"
crisp_kill; crisp_up
until_true 30 ready
is "kubelet: the pod goes on after kill -9 of crisp" "$(status main '"\(.restartCount) \(.ready) \(.containerID)"')" "0 true crisp://$S"
rm "$MANIFESTS/pod.yaml"
gone() { [ -z "$(crictl pods -q -s ready)" ] && [ ! -d "/sys/fs/cgroup${group%/*}" ]; }
if until_true 60 gone; then ok "kubelet: the pod goes, its cgroup too"; else not_ok "kubelet: the pod goes, its cgroup too # $(crictl pods) $(find "/sys/fs/cgroup${group%/*}" -type d)"; fi
kill "$KUBELET"; wait "$KUBELET" 2>/dev/null
crictl rmp -f "$SANDBOX" >/dev/null 2>&1
until_true 5 no_process
is "kubelet: no process stays" "$(running)" ""
