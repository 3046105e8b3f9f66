#!/bin/bash
# hack/vm-test.sh [VARIANT...]: cases of hack/vm/cases.sh in a throw-away host of each kind:
#   cgroupfs   cgroup v2 alone, crisp makes the cgroups
#   systemd    systemd makes them, and runs crisp as its packaged unit. Not run unless named: systemd removes the scope before the
#              count of out-of-memory kills is read, so that one case fails
#   apparmor   cgroupfs, and AppArmor
# Prints `ok NAME`, `not ok NAME # why`, `skip NAME # reason`; needs crisp and a static crisp-monitor in $OUT.
. "$(dirname "$(readlink -f "$0")")/lib/env.sh"
. "$HACK/lib/packages.sh"
. "$HACK/lib/tools.sh"
. "$HACK/lib/images.sh"
need_root
need_tools crictl
images_make
[ $# -gt 0 ] || set -- cgroupfs apparmor
status=0
for variant in "$@"; do
  options=() driver=cgroupfs
  case $variant in
  cgroupfs) ;;
  systemd) options+=(--systemd) driver=systemd ;;
  apparmor) options+=(--apparmor) ;;
  *) die "no variant is called $variant" ;;
  esac
  output=$("$HACK/vm.sh" run "${options[@]}" --timeout "${TIMEOUT:-280}" --share "$HACK:/hack:ro" --share "$ROOT/integration:/integration:ro" \
    --share "$IMAGES:/images:ro" --share "$OUT:/bin-crisp:ro" --share "$BIN:/tools:ro" \
    --env "VARIANT=$variant" --env "DRIVER=$driver" -- sh "/hack/vm/${SCRIPT:-cases.sh}" 2>&1) || { status=1; output+=$'\n'"not ok $variant: the cases ran to their end"; }
  echo "$output"
  grep -q '^not ok' <<<"$output" && status=1
done
exit "$status"
