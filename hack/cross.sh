#!/bin/bash
# hack/cross.sh: crisp and crisp-monitor for arm64, and the tests of what depends on the machine under qemu: the seccomp
# profiles, specs, records, and the infra container's instructions. Prints cases as hack/test.sh counts them.
. "$(dirname "$(readlink -f "$0")")/lib/env.sh"
. "$HACK/lib/packages.sh"
. "$HACK/lib/report.sh"
need_root
cd "$ROOT"
GNU=aarch64-unknown-linux-gnu MUSL=aarch64-unknown-linux-musl
# beside the other builds: neither waits for the other's lock
export CARGO_TARGET_DIR=$CRISP_CACHE/target-cross

need_package gcc-aarch64-linux-gnu /usr/bin/aarch64-linux-gnu-gcc
need_package libc6-dev-arm64-cross /usr/aarch64-linux-gnu/include/stdio.h
need_package qemu-user-static /usr/bin/qemu-aarch64-static
rustup target add "$GNU" "$MUSL" 2>/dev/null || die "rustup cannot add $GNU and $MUSL"
seccomp=$(foreign_deb arm64 libseccomp-dev)
export LIBSECCOMP_LINK_TYPE=static LIBSECCOMP_LIB_PATH=$seccomp/usr/lib/aarch64-linux-gnu
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld
# what a test of ours starts runs under the emulator, too
export CRISP_EMULATOR=/usr/bin/qemu-aarch64-static QEMU_LD_PREFIX=/usr/aarch64-linux-gnu
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$CRISP_EMULATOR

check "cross: crisp-monitor builds for arm64" cargo build --target "$MUSL" -p crisp-monitor --bin crisp-monitor
check "cross: crisp builds for arm64" cargo build --target "$GNU" -p crisp --bin crisp
check "cross: crisp-monitor is a static program for arm64" bash -c \
  'grep -q "interpreter" <(readelf -l "$1") && exit 1; readelf -h "$1" | grep -q AArch64' - "$CARGO_TARGET_DIR/$MUSL/debug/crisp-monitor"
check "cross: crisp says its version" "$CRISP_EMULATOR" "$CARGO_TARGET_DIR/$GNU/debug/crisp" version

# What the emulator cannot do: system calls it does not know, filters of calls that it makes itself.
without=()
while read -r name reason; do
  without+=(--skip "$name")
  echo "skip cross: $name # $reason"
done <<'L'
beneath::tests::nothing_outside_the_root_can_be_opened qemu-user has no openat2
mount::tests::a_file_system_that_is_attached_nowhere qemu-user has no fsopen
mount::tests::a_tree_that_is_not_there qemu-user has no open_tree
probe::facts::tests::an_unknown_action_is_refused_by_name_of_the_error qemu-user has no seccomp
seccomp::tests::a_rule_holds_and_others_are_free qemu-user has no seccomp
seccomp::tests::conditions_on_arguments qemu-user has no seccomp
seccomp::tests::the_default_profile_holds qemu-user has no seccomp
cgroup::tests::this_hosts_cgroups_are_measured qemu-user's own threads are counted, too
L
run() {
  local output status=0
  output=$(cargo test --no-fail-fast --target "$GNU" "$@" 2>&1) || status=$?
  from_cargo cross <<<"$output"
  [ "$status" = 0 ] || grep -q '^test .* FAILED$' <<<"$output" || not_ok "cross: cargo test ended with $status"
}
run -p crisp-model -p crisp-spec -p crisp-store -p crisp-host --features crisp-host/seccomp-compile --lib --tests -- "${without[@]}"
run -p crisp-monitor --bins -- pause
