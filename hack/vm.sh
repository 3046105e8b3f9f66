#!/bin/bash
# vm.sh build [--force] | run [OPTION...] -- COMMAND...
# A throw-away host with cgroup v2 only, as an ordinary process: User Mode Linux (Debian's kernel 6.1um) on a Debian root.
#   run options: --systemd           PID 1 is systemd (else a minimal init); COMMAND is a unit with Delegate=yes
#                --apparmor | --selinux   the security module of the guest's kernel (SELinux: permissive unless --enforcing)
#                --mem 3G  --timeout 600 (seconds; 124 when it runs out)
#                --share HOSTDIR:GUESTDIR[:ro]   a folder of the host (may be repeated)    --env NAME=VALUE (repeated)
# COMMAND runs as root in the guest; its output and exit status come back. The root is copy-on-write and gone afterwards.
. "$(dirname "$(readlink -f "$0")")/lib/env.sh"
. "$HACK/lib/packages.sh"
VM=$CRISP_CACHE/vm
PACKAGES=systemd,systemd-sysv,dbus,libpam-systemd,iproute2,iptables,nftables,kmod,procps,socat,conntrack,ethtool,iputils-ping,curl,jq,\
containernetworking-plugins,libseccomp2,apparmor,busybox,strace,ca-certificates,util-linux,e2fsprogs,python3,sudo,gcc,libc6-dev,\
selinux-policy-default,policycoreutils,selinux-utils,docker-registry,openssl,kmod


build() {
  [ "${1:-}" = --force ] && rm -f "$VM/base.ext4"
  [ -f "$VM/base.ext4" ] && { echo "$VM/base.ext4 is there"; return; }
  local missing=()
  for p in user-mode-linux mmdebstrap e2fsprogs; do dpkg -s "$p" >/dev/null 2>&1 || missing+=("$p"); done
  [ ${#missing[@]} -eq 0 ] || DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
  local root
  mkdir -p "$VM"; root=$(mktemp -d "$VM/root.XXXXXX")
  trap 'rm -rf "$root"' RETURN
  mmdebstrap --quiet --variant=minbase --include="$PACKAGES" bookworm "$root"
  mkdir -p "$root/lib/modules"; cp -a /usr/lib/uml/modules/. "$root/lib/modules/"
  install -m 755 "$HACK/vm/init" "$root/sbin/vm-init"
  install -m 755 "$HACK/vm/run" "$root/sbin/vm-run"
  install -m 644 "$HACK/vm/vm.service" "$root/etc/systemd/system/vm.service"
  mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
  ln -sf ../vm.service "$root/etc/systemd/system/multi-user.target.wants/vm.service"
  for u in systemd-firstboot e2scrub_reap apt-daily.timer e2scrub_all.timer fstrim.timer getty@tty1 docker-registry apparmor selinux-autorelabel-mark systemd-networkd-wait-online; do
    [[ $u == *.timer ]] || u=$u.service
    ln -sf /dev/null "$root/etc/systemd/system/$u"
  done
  echo vm > "$root/etc/hostname"; printf '127.0.0.1 localhost vm\n::1 localhost\n' > "$root/etc/hosts"
  # the kernel's nf_tables has no IPv4 family: iptables means the legacy tables
  for x in iptables ip6tables; do ln -sf "/usr/sbin/$x-legacy" "$root/etc/alternatives/$x"; done
  truncate -s 12G "$VM/base.tmp"; mke2fs -q -F -t ext4 -O ^has_journal -d "$root" "$VM/base.tmp"
  chmod a-w "$VM/base.tmp"; mv -f "$VM/base.tmp" "$VM/base.ext4"
  echo "made $VM/base.ext4 ($(du -h "$VM/base.ext4" | cut -f1))"
}

run() {
  local mem=3G limit=600 init=/sbin/vm-init shares='' lsm=() env=''
  while [ $# -gt 0 ]; do
    case $1 in
    --systemd) init=/lib/systemd/systemd ;;
    --apparmor) lsm=(security=apparmor apparmor=1) ;;
    --selinux) lsm=(security=selinux selinux=1 enforcing=0) ;;
    --enforcing) lsm+=(vm.enforcing=1) ;;
    --mem) mem=$2; shift ;;
    --timeout) limit=$2; shift ;;
    --share) shares+="$2"$'\n'; shift ;;
    --env) env+="export ${2%%=*}=$(printf %q "${2#*=}")"$'\n'; shift ;;
    --) shift; break ;;
    *) die "unknown option $1" ;;
    esac
    shift
  done
  [ $# -gt 0 ] || die "no command"
  [ ${#lsm[@]} -gt 0 ] || lsm=(security=none)
  [ -f "$VM/base.ext4" ] || build >&2
  local t status=0
  t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
  printf '%s' "$shares" > "$t/shares"
  printf '%s' "$env" > "$t/env"
  printf '%q ' "$@" > "$t/command"
  # con0's output is descriptor 3, so that the kernel's own early words (1, 2) stay out of it
  timeout -k 5 "$limit" linux "ubd0=$t/cow,$VM/base.ext4" root=/dev/ubda rw "mem=$mem" "init=$init" "vm.dir=$t" \
    cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1 "${lsm[@]}" quiet loglevel=0 systemd.show_status=0 \
    "umid=vm$$" "uml_dir=$t/uml/" con=null con0=null,fd:3 ssl=null 3>&1 >"$t/boot.log" 2>&1 </dev/null || status=$?
  [ -f "$t/status" ] && exit "$(cat "$t/status")"
  [ "$status" = 124 ] || [ "$status" = 137 ] && { echo "vm.sh: no end within $limit s" >&2; exit 124; }
  tail -20 "$t/boot.log" >&2
  die "the guest ended without a result (status $status)"
}

case ${1:-} in
build) shift; build "$@" ;;
run) shift; run "$@" ;;
*) sed -n '2,9s/^# \?//p' "$0"; exit 2 ;;
esac
