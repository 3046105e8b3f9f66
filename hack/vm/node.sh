# shellcheck shell=sh
# Sourced inside a guest of hack/vm.sh: a registry with all images, and crisp; no lab, since the guest is one.
# Shared in: /hack, /integration, /images (layouts), /bin-crisp (crisp, crisp-monitor), /tools (crictl, ...). DRIVER: cgroup driver.
PATH=/tools:$PATH
SOCKET=unix:///run/crisp/crisp.sock
DIR=/var/lib/node
REGISTRY=127.0.0.1:5000
# as systemd mounts it: the kernel then guards the borders of cgroup namespaces
mount -o remount,nsdelegate /sys/fs/cgroup
mkdir -p "$DIR/certs.d" "$DIR/registry" /etc/crisp

ok() { echo "ok $VARIANT: $*"; }
not_ok() { echo "not ok $VARIANT: $*"; }
skip() { echo "skip $VARIANT: $1 # $2"; }
# is NAME FOUND WANTED
is() { if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1 # found '$2', not '$3'"; fi; }
# has NAME TEXT WORDS
has() { case $2 in *"$3"*) ok "$1" ;; *) not_ok "$1 # no '$3' in: $(echo "$2" | tr '\n' ' ' | tail -c 400)" ;; esac; }
# until_true SECONDS COMMAND...
until_true() {
  _left=$(($1 * 5)); shift
  until "$@" >/dev/null 2>&1; do
    _left=$((_left - 1)); [ "$_left" -gt 0 ] || return 1
    sleep 0.2
  done
}
crictl() { /tools/crictl -c /dev/null -r "$SOCKET" -i "$SOCKET" -t 60s "$@"; }

registry_up() {
  cat >"$DIR/registry.yml" <<Y
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $DIR/registry}, delete: {enabled: true}}
http: {addr: "$REGISTRY"}
Y
  docker-registry serve "$DIR/registry.yml" >"$DIR/registry.log" 2>&1 &
  until_true 20 curl -sf "http://$REGISTRY/v2/" || { not_ok "the registry starts"; return 1; }
  python3 /integration/images/push.py /images "http://$REGISTRY" >/dev/null || { not_ok "the registry is filled"; return 1; }
  for host in docker.io registry.k8s.io k8s.gcr.io gcr.io public.ecr.aws; do
    mkdir -p "$DIR/certs.d/$host"
    printf 'server = "http://%s"\n\n[host."http://%s"]\n  capabilities = ["pull", "resolve"]\n' "$REGISTRY" "$REGISTRY" \
      >"$DIR/certs.d/$host/hosts.toml"
  done
}

crisp_configure() {
  cat >/etc/crisp/config.toml <<T
monitor = "/bin-crisp/crisp-monitor"
[image]
certs_dirs = ["$DIR/certs.d"]
[network]
cni_conf_dir = "/etc/cni/net.d"
cni_bin_dirs = ["/usr/lib/cni"]
[stream]
address = "127.0.0.1"
[cgroup]
driver = "$DRIVER"
[security]
selinux = true
[log]
level = "info"
T
}

# Under systemd as it is packaged, else as a child.
crisp_up() {
  if [ -d /run/systemd/system ]; then
    if [ ! -e /etc/systemd/system/crisp.service ]; then
      ln -s /bin-crisp/crisp /usr/local/bin/crisp
      cp /hack/packaging/crisp.service /etc/systemd/system/
      systemctl daemon-reload
      systemctl start crisp || { journalctl -u crisp -n 20 --no-pager; return 1; }
    fi
    until_true 60 crictl version
    return
  fi
  /bin-crisp/crisp serve --config /etc/crisp/config.toml >>"$DIR/crisp.log" 2>&1 &
  CRISP=$!
  until_true 30 crictl version
}

crisp_kill() {
  if [ -d /run/systemd/system ]; then systemctl kill -s KILL --kill-who=main crisp; sleep 2; return; fi
  kill -9 "$CRISP"
  wait "$CRISP" 2>/dev/null
}

# pod NAME [LINUX]: a sandbox; LINUX: JSON of its linux part
pod() {
  cat >"$DIR/$1.pod.json" <<J
{"metadata": {"name": "$1", "namespace": "default", "uid": "uid-$1", "attempt": 0}, "log_directory": "$DIR/logs/$1",
 "linux": ${2:-{\}}}
J
  crictl runp "$DIR/$1.pod.json"
}
# container POD-ID POD-NAME NAME COMMAND [LINUX]: created, not started; MOUNTS: JSON of its mounts
IMAGE=registry.k8s.io/e2e-test-images/busybox:1.29-2
container() {
  cat >"$DIR/$3.json" <<J
{"metadata": {"name": "$3", "attempt": 0}, "image": {"image": "$IMAGE"}, "command": ["sh", "-c", $(printf %s "$4" | jq -Rs .)],
 "log_path": "$3.log", "mounts": ${MOUNTS:-[]}, "linux": ${5:-{\}}}
J
  crictl create "$1" "$DIR/$3.json" "$DIR/$2.pod.json"
}
state() { crictl inspect "$1" | jq -r .status.state; }
is_state() { [ "$(state "$1")" = "CONTAINER_$2" ]; }
