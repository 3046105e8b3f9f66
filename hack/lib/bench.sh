# shellcheck shell=bash
# The bed of the benchmarks: one pair of namespaces in which a registry, crisp and its peers run side by side, each with
# folders, a socket and a processor accounting group of its own. /run is a tmpfs, as on a node. Sourced after env.sh.
for part in process packages; do
  # shellcheck disable=SC1090
  . "$HACK/lib/$part.sh"
done
BENCH=$ROOT/integration/bench
BENCH_IMAGES=$CRISP_CACHE/bench-images
BENCH_REGISTRY=127.0.0.1:5001
PEERS_BIN=${PEERS_BIN:-$CRISP_CACHE/peers}

# Runtimes by name: crisp (CNI bridge), crisp-builtin (its own network), containerd (2.x), with runc.
bench_socket() { echo "/run/bench/$1.sock"; }
bench_accounting() { echo "/sys/fs/cgroup/cpuacct/bench-$LAB-$1"; }

inside() { nsenter -t "$(pid_of node1 namespaces)" -n -m --wd=/ -- "$@"; }

# bench_images [big]: the workload and pause; six layers of this machine's own files for pulls
bench_images() {
  local dir=$BENCH_IMAGES make="$BENCH/images/mkoci.py" applet
  mkdir -p "$dir"
  if [ ! -f "$dir/done" ]; then
    say "making the benchmark's images"
    mkdir -p "$dir"/bb/{bin,dev,etc,proc,root,sys,tmp} "$dir/pz"
    cc -static -O2 -o "$dir/bb/bin/probe" "$BENCH/images/probe.c"
    cp "$(deb busybox-static)/bin/busybox" "$dir/bb/bin/busybox"
    for applet in sh true sleep cat ls echo; do ln -f "$dir/bb/bin/busybox" "$dir/bb/bin/$applet"; done
    echo 'root:x:0:0:root:/root:/bin/sh' >"$dir/bb/etc/passwd"
    cc -static -Os -nostdlib -ffreestanding -fno-stack-protector -o "$dir/pz/pause" "$ROOT/integration/images/src/pause.c"
    (
      cd "$dir" || exit
      tar -C bb -cf bb.tar .
      tar -C pz -cf pause.tar .
      python3 "$make" oci-busybox 1 gzip '{"Cmd":["/bin/sh"]}' bb.tar
      python3 "$make" oci-pause 1 gzip '{"Entrypoint":["/pause"]}' pause.tar
    ) >/dev/null
    touch "$dir/done"
  fi
  [ "${1:-}" = big ] || return 0
  [ ! -f "$dir/done-big" ] || return 0
  say "making the large image, gzip and zstd"
  need_commands zstd
  local n=1 part
  for part in "usr/share/doc usr/share/man" "usr/share/zoneinfo usr/share/perl usr/share/locale" "usr/include usr/lib/python3" "usr/lib/gcc" "usr/lib/x86_64-linux-gnu"; do
    rm -rf "$dir/x"
    mkdir "$dir/x"
    # shellcheck disable=SC2086  # words
    (cd / && find $part -xdev \( -type f -o -type l \) -print0) | sort -z | head -zn 12000 |
      (cd / && xargs -0r du -k --apparent-size) | awk -F'\t' '{sum += $1; if (sum < 150000) print $2}' |
      tar -C / --no-recursion -T - -cf "$dir/l$n.tar"
    n=$((n + 1))
  done
  rm -rf "$dir/x"
  (cd "$dir" && python3 "$make" oci-big 1 gzip '{"Cmd":["/bin/sh"]}' bb.tar l*.tar && python3 "$make" oci-bigz 1 zstd '{"Cmd":["/bin/sh"]}' bb.tar l*.tar
    du -bc bb.tar l*.tar | tail -1 | cut -f1 >unpacked
    rm -f l*.tar) >&2
  touch "$dir/done-big"
}

# bench_up [big]: namespaces and registry
bench_up() {
  local binary script image
  ! alive node1 namespaces || die "the bench '$LAB' is up already ($STATE)"
  bench_images "$@"
  binary=$(deb docker-registry)/usr/bin/docker-registry
  mkdir -p "$STATE/node1" "$DATA/registry" "$DATA/certs.d/$BENCH_REGISTRY"
  script="mount --make-rshared / && mount -t tmpfs -o mode=755 bench /run && mkdir -p /run/bench /run/lock"
  # crun, where it is a peer's runtime, refuses hosts with both versions of cgroups
  script+=" && { umount /sys/fs/cgroup/unified 2>/dev/null; ip link set lo up; sysctl -qw net.ipv4.ip_forward=1; exec sleep infinity; }"
  setsid unshare -n -m --propagation private sh -c "$script" </dev/null >"$STATE/node1/namespaces.log" 2>&1 &
  local pid=$!
  disown $pid
  wait_for 10 "the namespaces" grep -qx sleep "/proc/$pid/comm" || die "no namespaces: $(cat "$STATE/node1/namespaces.log")"
  remember node1 namespaces $pid
  sed "s#@STATE@#$DATA#" "$BENCH/peers/registry.yml" >"$DATA/registry.yml"
  printf 'server = "http://%s"\n[host."http://%s"]\n  capabilities = ["pull", "resolve"]\n' "$BENCH_REGISTRY" "$BENCH_REGISTRY" \
    >"$DATA/certs.d/$BENCH_REGISTRY/hosts.toml"
  spawn node1 registry "$binary" serve "$DATA/registry.yml"
  wait_for 10 "the registry" inside curl -sf --noproxy '*' "http://$BENCH_REGISTRY/v2/" || die "$(tail -3 "$STATE/node1/registry.log")"
  for image in busybox pause ${1:+big bigz}; do
    inside skopeo copy -q --insecure-policy --dest-tls-verify=false "oci:$BENCH_IMAGES/oci-$image:1" "docker://$BENCH_REGISTRY/bench/$image:1"
  done
}

# bench_configure RUNTIME
bench_configure() {
  local name=$1 cni=/nonexistent
  mkdir -p "$DATA/$name"
  case $name in
  crisp*)
    [ "$name" = crisp-builtin ] || cni=$BENCH/peers/cni/bridge
    cat >"$DATA/$name.toml" <<T
root = "$DATA/$name"
state = "/run/bench/$name"
socket = "$(bench_socket "$name")"
monitor = "$OUT/crisp-monitor"
[image]
certs_dirs = ["$DATA/certs.d"]
[network]
cni_conf_dir = "$cni"
cni_bin_dirs = ["/usr/lib/cni"]
[network.builtin]
subnets = ["10.213.0.0/16"]
bridge = "benchb0"
[cgroup]
driver = "cgroupfs"
T
    [ -z "${BENCH_TRACE:-}" ] || printf '[trace]\nfile = "%s"\n' "$BENCH_TRACE-$name.jsonl" >>"$DATA/$name.toml" ;;
  *)
    sed -e "s#@CNI@#$BENCH/peers/cni/bridge#; s#@STATE@#$DATA#; s#@BIN@/runc#$PEERS_BIN/runc#; s#@CRUN@#$(command -v crun || true)#" \
      -e 's#/run/peers/containerd23#/run/bench/containerd#' "$BENCH/peers/containerd23.toml.in" >"$DATA/$name.toml" ;;
  esac
  # a daemon writes its pid itself, so that one that a benchmark starts again is known too
  cat >"$DATA/start-$name" <<S
#!/bin/sh
mkdir -p $(bench_accounting "$name")
echo \$\$ >$(bench_accounting "$name")/cgroup.procs
echo \$\$ >$DATA/$name.pid
export PATH=$PEERS_BIN:\$PATH
for group in /sys/fs/cgroup/cpu/bench-$LAB-$name /sys/fs/cgroup/cpu/bench-pods-$LAB-$name; do
  mkdir -p \$group && echo 200000 >\$group/cpu.shares
done
echo \$\$ >/sys/fs/cgroup/cpu/bench-$LAB-$name/cgroup.procs
exec nice -n -15 $(case $name in crisp*) echo "$OUT/crisp serve --config" ;; *) echo "$PEERS_BIN/containerd -c" ;; esac) $DATA/$name.toml >>$DATA/$name.log 2>&1 </dev/null
S
  chmod +x "$DATA/start-$name"
}

bench_runtime_up() { # RUNTIME
  bench_configure "$1"
  spawn node1 "$1" "$DATA/start-$1"
  wait_for 30 "$1" client "$1" pod --count 1 --warmup 0 || die "$(tail -3 "$DATA/$1.log")"
}

# client RUNTIME SUITE...: cribench inside. Client, daemon and pods have cpu cgroups with a large share, so that what else runs on
# the machine disturbs all runtimes little, and alike (nice alone does not reach across sessions, which the scheduler groups).
client() {
  local name=$1
  shift
  # shellcheck disable=SC2016  # expanded inside
  inside sh -c 'echo $$ >"$1"/cgroup.procs; shift; exec nice -n -15 "$@"' - "/sys/fs/cgroup/cpu/bench-$LAB-$name" \
    "${CRIBENCH:-$CARGO_TARGET_DIR/release/cribench}" --endpoint "unix://$(bench_socket "$name")" --label "$name" \
    --image "$BENCH_REGISTRY/bench/busybox:1" --log-root "/var/log/cribench-$LAB" --cgroup-parent "/bench-pods-$LAB-$name" \
    --cpu-cgroup "$(bench_accounting "$name")" --cpu-cgroup "/sys/fs/cgroup/cpuacct/bench-pods-$LAB-$name" \
    --proc "daemon=(crisp serve --config|containerd -c) $DATA/$name.toml" \
    --proc "supervisor=crisp-monitor /run/bench/$name/|containerd-shim-runc-v2.*/run/bench/$name" \
    --proc 'pause=^/pause$|^pause$|^crisp-infra' "$@"
}

bench_down() {
  local name pid group
  for name in crisp crisp-builtin containerd; do
    pid=$(cat "$DATA/$name.pid" 2>/dev/null) && grep -qs "$DATA/$name.toml" "/proc/$pid/cmdline" && kill "$pid" && tail --pid="$pid" -f /dev/null
  done
  stop node1 registry KILL
  # whatever still lives in the namespaces is ours
  if pid=$(pid_of node1 namespaces); then
    for group in /proc/[0-9]*; do
      [ "$(readlink "$group/ns/mnt" 2>/dev/null)" != "$(readlink "/proc/$pid/ns/mnt")" ] || [ "${group#/proc/}" = "$pid" ] || kill -KILL "${group#/proc/}" 2>/dev/null
    done
  fi
  stop node1 namespaces KILL 2
  sleep 0.3
  for group in /sys/fs/cgroup/*/bench-"$LAB"-* /sys/fs/cgroup/*/bench-pods-"$LAB"-*; do
    [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
  done
  rm -rf --one-file-system "$DATA" "$STATE" "/var/log/cribench-$LAB"
}

# peers_need: containerd, its shim and runc from the Go module proxy, once. Without cgo for containerd; runc needs libseccomp.
CONTAINERD_VERSION=v2.3.3
RUNC_VERSION=v1.5.0
peers_need() {
  local name stamp="$CONTAINERD_VERSION $RUNC_VERSION" package=github.com/containerd/containerd/v2 flags
  [ "$(cat "$PEERS_BIN/stamp" 2>/dev/null)" != "$stamp" ] || return 0
  command -v go >/dev/null || die "building containerd and runc needs Go (1.26 or newer) in PATH"
  need_package libseccomp-dev /usr/include/seccomp.h
  mkdir -p "$PEERS_BIN"
  flags="-s -w -X $package/version.Version=$CONTAINERD_VERSION"
  for name in containerd containerd-shim-runc-v2; do
    say "building $name $CONTAINERD_VERSION (once)"
    (cd "$HACK/tools/containerd" && CGO_ENABLED=0 GOWORK=off GOFLAGS=-mod=readonly nice -n 15 go build -trimpath \
      -tags "no_grpc no_btrfs no_zfs no_devmapper" -ldflags "$flags" -o "$PEERS_BIN/$name" "$package/cmd/$name")
  done
  say "building runc $RUNC_VERSION (once)"
  (cd "$HACK/tools/runc" && CGO_ENABLED=1 GOWORK=off GOFLAGS=-mod=readonly nice -n 15 go build -trimpath -tags seccomp \
    -ldflags "-s -w -X main.version=${RUNC_VERSION#v}" -o "$PEERS_BIN/runc" github.com/opencontainers/runc)
  echo "$stamp" >"$PEERS_BIN/stamp"
}
