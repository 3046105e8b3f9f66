#!/bin/bash
# hack/fuzz.sh [CRATE[/TARGET]...]: builds the fuzz targets (src/*/fuzz, cargo-fuzz's layout) and runs each for
# FUZZ_SECONDS (5), as many at a time as there are processors. Needs a nightly compiler, but not cargo-fuzz.
# What is found grows in the cache from run to run; the committed corpus is only read. An input that fails is kept and
# its path printed: once it is fixed, commit it to corpus/TARGET.
# FUZZ_RUNS=N instead: N inputs each, from the committed corpus alone and one seed, so that the same tree gives the same result.
. "$(dirname "$(readlink -f "$0")")/lib/env.sh"
. "$HACK/lib/report.sh"

FUZZ=$CRISP_CACHE/fuzz-target # everything of this script; shared by all crates, so that what they depend on is built once
SECONDS_EACH=${FUZZ_SECONDS:-5}
TRIPLE=$(uname -m)-unknown-linux-gnu
[[ $SECONDS_EACH =~ ^[1-9][0-9]*$ ]] || die "FUZZ_SECONDS must be a positive number, not '$SECONDS_EACH'"
[[ ${FUZZ_RUNS:-1} =~ ^[1-9][0-9]*$ ]] || die "FUZZ_RUNS must be a positive number, not '$FUZZ_RUNS'"

need_nightly() {
  command -v cargo >/dev/null || die "fuzzing needs cargo in PATH"
  ! cargo +nightly --version >/dev/null 2>&1 || return 0
  command -v rustup >/dev/null || die "fuzzing needs a nightly compiler (for -Z flags), and there is no rustup to install one"
  say "installing a nightly compiler"
  rustup toolchain install nightly --profile minimal >&2 || die "rustup cannot install a nightly compiler, which fuzzing needs"
}

# build CRATE: with the coverage counters that libFuzzer reads. Versions are those of the workspace's Cargo.lock, which
# cargo completes with libfuzzer-sys in a copy outside the tree. Little optimisation: the targets are parsers, the build is
# what one waits for.
build() {
  local lock=$FUZZ/locks/$1/Cargo.lock flags
  flags='--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4'
  flags+=' -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table'
  flags+=' -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Ccodegen-units=1'
  mkdir -p "${lock%/*}"
  [ "$lock" -nt Cargo.lock ] || cp Cargo.lock "$lock"
  (cd "src/$1/fuzz" && RUSTFLAGS=$flags CARGO_TARGET_DIR=$FUZZ/target CARGO_RESOLVER_LOCKFILE_PATH=$lock \
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_INCREMENTAL=0 cargo +nightly build --quiet --release --target "$TRIPLE")
}

# confined COMMAND...: as root, where only our folder in the cache can be written and no network exists, because the target that
# unpacks archives is there to find ways out of a folder; TMPDIR is memory. Other users have only their own rights to lose.
confined() {
  if [ "$(id -u)" != 0 ]; then "$@"; return; fi
  # shellcheck disable=SC2016
  unshare --mount --net --propagation private sh -ec '
    mount --bind "$1" "$1"
    mount -o remount,bind,ro /
    mount -t tmpfs -o mode=700,size=256m crisp-fuzz "$1/tmp"
    export TMPDIR=$1/tmp
    shift
    exec "$@"' sh "$FUZZ" "$@"
}

# fuzz CRATE TARGET: one case, on one line but for what a failure has said
fuzz() {
  local crate=$1 target=$2 name=$1/$2 work=$FUZZ/work/$1/$2 kept=$FUZZ/crashes/$1-$2- log runs found
  log=$work/log
  mkdir -p "$work/corpus" "$FUZZ/crashes" "$FUZZ/tmp"
  local seeds=()
  [ ! -d "src/$crate/fuzz/corpus/$target" ] || seeds=("$ROOT/src/$crate/fuzz/corpus/$target")
  local grown=$work/corpus bound=(-max_total_time="$SECONDS_EACH")
  if [ -n "${FUZZ_RUNS:-}" ]; then
    grown=$work/fresh bound=(-runs="$FUZZ_RUNS" -seed=1)
    rm -rf "$grown" && mkdir "$grown"
  fi
  touch "$work/begin"
  # no single input may take long, or much memory
  if (cd "$work" && export RUST_BACKTRACE=0 && confined "$FUZZ/bin/$crate/$target" "${bound[@]}" \
    -timeout=20 -rss_limit_mb=1024 -artifact_prefix="$kept" "$grown" "${seeds[@]}" >"$log" 2>&1); then
    runs=$(sed -n 's/^Done \([0-9]*\) runs in .*/\1/p' "$log")
    if [ "${runs:-0}" -gt 0 ]; then ok "fuzz: $name ($runs runs)"; return; fi
  fi
  found=$(find "$FUZZ/crashes" -name "$crate-$target-*" -newer "$work/begin" | head -1)
  if [ -n "$found" ]; then not_ok "fuzz: $name # crash file kept at $found"; else not_ok "fuzz: $name # no input was kept"; fi
  grep -v -E '^#[0-9]+[[:space:]]|^INFO:' "$log" | tail -20 | cut -c1-300 | sed 's/^/    /'
  return 1
}

cd "$ROOT"
if [ "${1:-}" = --run ]; then
  # in one piece, as others write too
  status=0 result=$(fuzz "${2%/*}" "${2#*/}") || status=1
  echo "$result"
  exit "$status"
fi
need_nightly
mkdir -p "$FUZZ/bin"
targets=() failed='' begin=$(date +%s)
for manifest in src/*/fuzz/Cargo.toml; do
  crate=${manifest#src/} crate=${crate%%/*} wanted=()
  for file in "src/$crate/fuzz/fuzz_targets"/*.rs; do
    target=$(basename "$file" .rs)
    [ $# = 0 ] || [[ " $* " == *" $crate "* || " $* " == *" $crate/$target "* ]] || continue
    wanted+=("$target")
  done
  [ ${#wanted[@]} -gt 0 ] || continue
  say "building $crate's targets"
  if ! output=$(build "$crate" 2>&1); then
    not_ok "fuzz: $crate builds"
    tail -40 <<<"$output" | sed 's/^/    /'
    failed=1
    continue
  fi
  # Two crates may call a target the same, so each binary is taken before the next crate is built.
  mkdir -p "$FUZZ/bin/$crate"
  for target in "${wanted[@]}"; do
    if ln -f "$FUZZ/target/$TRIPLE/release/$target" "$FUZZ/bin/$crate/$target" 2>/dev/null; then
      targets+=("$crate/$target")
    else
      not_ok "fuzz: $crate/$target # no binary of its name: is it in $manifest?"
      failed=1
    fi
  done
done
say "built in $(($(date +%s) - begin)) s"

[ ${#targets[@]} -gt 0 ] || [ -n "$failed" ] || die "no fuzz target is called $*"
[ ${#targets[@]} -eq 0 ] || printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} "$HACK/fuzz.sh" --run {} || failed=1
[ -z "$failed" ]
