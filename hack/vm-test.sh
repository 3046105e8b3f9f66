#!/bin/bash
# hack/vm-test.sh [VARIANT...]: cases of hack/vm/cases.sh in a throw-away host of each kind:
#   cgroupfs   cgroup v2 alone, crisp makes the cgroups; user namespaces
#   systemd    systemd makes the cgroups, and runs crisp as its packaged unit
#   apparmor   cgroupfs, and AppArmor; then critest's specs of it
#   selinux    cgroupfs, and SELinux with Debian's policy and types for containers, permissive; run only if it is named
#   critest    cgroupfs, and AppArmor; the whole of critest. Takes minutes, so it is run only if it is named
#   critest-systemd   the same with the systemd driver, without AppArmor
# Prints `ok NAME`, `not ok NAME # why`, `skip NAME # reason`; needs crisp and a static crisp-monitor in $OUT.
. "$(dirname "$(readlink -f "$0")")/lib/env.sh"
. "$HACK/lib/packages.sh"
. "$HACK/lib/tools.sh"
. "$HACK/lib/images.sh"
need_root
need_tools crictl critest kubelet
images_make
[ $# -gt 0 ] || set -- cgroupfs systemd apparmor

# in_guest VARIANT SCRIPT SECONDS OPTION...: runs it in a guest; a guest that does not come to the end has failed
in_guest() {
  local variant=$1 script=$2 seconds=$3 driver=cgroupfs status=0
  shift 3
  [[ " $* " != *" --systemd "* ]] || driver=systemd
  # crictl's advice is for people
  "$HACK/vm.sh" run "$@" --timeout "$seconds" --share "$HACK:/hack:ro" --share "$ROOT/integration:/integration:ro" \
    --share "$IMAGES:/images:ro" --share "$OUT:/bin-crisp:ro" --share "$BIN:/tools:ro" \
    --env "VARIANT=$variant" --env "DRIVER=$driver" --env "FOCUS=${FOCUS:-}" -- sh "/hack/vm/$script" 2>&1 |
    grep --line-buffered -v 'cgroup_parent is not set' || status=$?
  [ "$status" = 0 ] || echo "not ok $variant: $script ran to its end"
}
for variant in "$@"; do
  case $variant in
  cgroupfs) in_guest "$variant" cases.sh 300 ;;
  systemd) in_guest "$variant" cases.sh 400 --systemd ;;
  apparmor)
    in_guest "$variant" cases.sh 300 --apparmor
    FOCUS=AppArmor in_guest "$variant" critest.sh 300 --apparmor ;;
  selinux) in_guest "$variant" cases.sh 300 --selinux ;;
  critest) in_guest "$variant" critest.sh 3000 --apparmor --mem 4G ;;
  critest-systemd) in_guest "$variant" critest.sh 3000 --systemd --mem 4G ;;
  *) die "no variant is called $variant" ;;
  esac
done | {
  status=0
  while IFS= read -r line; do
    echo "$line"
    [[ $line != "not ok "* ]] || status=1
  done
  exit "$status"
}
