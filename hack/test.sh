#!/bin/bash
# hack/test.sh [GROUP...]: all tests, or those groups; hack/test.sh --list names them.
# Prints each case, then `N passed, N failed, N skipped`; ends with an error if a case failed.
# QUIET=1: only what fails or is skipped.  CRISP_FAST=1: do not rebuild crisp for the groups that run it.
. "$(dirname "$(readlink -f "$0")")/lib/env.sh"
. "$HACK/lib/packages.sh"
. "$HACK/lib/report.sh"
. "$HACK/lib/deny.sh"
cd "$ROOT"
export CRISP_REGISTRY=local

# ---- groups of the source
group_fmt() { check "fmt: cargo fmt --check" cargo fmt --all --check; }
group_clippy() { check "clippy: no warning" cargo clippy --workspace --all-targets -- -D warnings; }
group_doc() { check "doc: no warning" env RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --document-private-items; }
group_arrows() { "$HACK/verify-arrows"; }
group_shell() {
  local shellcheck
  shellcheck=$(command -v shellcheck || echo "$(deb shellcheck)/usr/bin/shellcheck")
  check "shell: shellcheck" "$shellcheck" -x -e SC2317,SC1090,SC2154,SC2016 -P SCRIPTDIR hack/*.sh hack/lib/*.sh .ci/run
  check "shell: python compiles" python3 -c 'import ast, pathlib
for path in pathlib.Path("integration").rglob("*.py"): ast.parse(path.read_text(), str(path))'
}
# The same inputs each time: a change is judged by what it changed. Hunting with the clock is for whoever has time.
group_fuzz() { FUZZ_RUNS=${FUZZ_RUNS:-100000} "$HACK/fuzz.sh"; }
group_unit() { cargo_cases unit --workspace --exclude crisp-integration --exclude crisp-image --exclude crisp-network; }
group_images() { cargo_cases images -p crisp-image; }
group_network() { cargo_cases network -p crisp-network; }

# cargo_cases NAME ARGUMENTS...: cargo test; a run that ends badly without a failed case is itself a failure
cargo_cases() {
  local name=$1 output status=0
  shift
  output=$(cargo test --no-fail-fast "$@" 2>&1) || status=$?
  from_cargo "$name" <<<"$output"
  [ "$status" = 0 ] || grep -q '^test .* FAILED$' <<<"$output" || not_ok "$name: cargo test ended with $status"
}

# ---- groups that drive the real binaries
binaries() {
  if [ -z "${CRISP_FAST:-}" ] || [ ! -x "$OUT/crisp" ]; then "$HACK/build.sh" >&2; fi
  export CRISP_FAST=1 CRISP_BIN=$OUT/crisp CRISP_MONITOR_BIN=$OUT/crisp-monitor
}
rust_group() {
  "$HACK/setup.sh" packages images
  cargo_cases "$1" -p crisp-integration --test "$1" -- --nocapture
}
group_budget() {
  need_commands strace
  rust_group budget
}
group_crictl() { "$HACK/suite.sh" crictl; }
group_pods() { "$HACK/suite.sh" pods; }
# the oldest and the newest kubelet beside the one that the pods group drives
group_kubelets() { "$HACK/suite.sh" kubelets; }
group_cross() { "$HACK/cross.sh"; }
group_cluster() { "$HACK/suite.sh" cluster; }
group_critest() { "$HACK/critest.sh"; }
# other kinds of hosts, booted for it
group_vm() { "$HACK/vm-test.sh"; }
group_vm-full() { "$HACK/vm-test.sh" cgroupfs systemd apparmor selinux critest critest-systemd; }

SOURCE_GROUPS="fmt clippy doc arrows shell deny unit images network fuzz"
groups() {
  local name
  for name in $SOURCE_GROUPS; do echo "$name"; done
  for name in integration/tests/*.rs; do [ ! -f "$name" ] || basename "$name" .rs; done
  printf '%s\n' crictl pods cluster critest vm
}
# Run only when they are named. kubelets builds two more kubelets from source when the cache is cold: some ten minutes on two
# processors, for a run of one minute; cross builds everything for another machine, some eight minutes when cold; vm-full is vm
# and a host with SELinux, and the whole of critest with both cgroup drivers: twenty minutes.
MORE_GROUPS="kubelets cross vm-full"

if [ "${1:-}" = --list ]; then
  groups
  for group in $MORE_GROUPS; do echo "$group (only when named)"; done
  exit
fi
[ $# -gt 0 ] || mapfile -t all < <(groups)
[ $# -gt 0 ] || set -- "${all[@]}"
test_packages
begin=$(date +%s)
known=" $(groups | tr '\n' ' ')$MORE_GROUPS "
for group in "$@"; do
  [[ $known == *" $group "* ]] || die "no group is called $group; there are:$known"
  [[ " $SOURCE_GROUPS " == *" $group "* ]] || { need_root; binaries; }
done
for group in "$@"; do
  echo "--- $group"
  if declare -F "group_$group" >/dev/null; then run=("group_$group"); else run=(rust_group "$group"); fi
  count "$group" < <(set +e; "${run[@]}" 2>&1; echo "status $?")
done
if [ ${#FAILURES[@]} -gt 0 ]; then
  echo "failed:"
  printf '    %s\n' "${FAILURES[@]}"
fi
echo "$(($(date +%s) - begin)) s"
echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
[ "$FAILED" = 0 ]
