#!/bin/bash
# hack/build.sh [--debug]: build crisp and crisp-monitor and put them side by side into $CRISP_CACHE/out.
# The monitor is static (musl) and built for size: one of it runs for each pod.
. "$(dirname "$(readlink -f "$0")")/lib/env.sh"
. "$HACK/lib/packages.sh"

command -v cargo >/dev/null || die "needs Rust: cargo is not in PATH (https://rustup.rs)"
build_packages
target="$(uname -m)-unknown-linux-musl"
cd "$ROOT"
if command -v rustup >/dev/null && ! rustup target list --installed | grep -qx "$target"; then
  rustup target add "$target"
fi
profile=(--release) folder=release
[ "${1:-}" != --debug ] || profile=() folder=debug
cargo build "${profile[@]}" -p crisp --bin crisp
cargo build --profile monitor -p crisp-monitor --bin crisp-monitor --target "$target"
mkdir -p "$OUT"
# a running daemon keeps its file: replace, do not overwrite
install_new() { cmp -s "$1" "$OUT/$2" || { cp "$1" "$OUT/.$2.new" && mv "$OUT/.$2.new" "$OUT/$2"; }; }
install_new "$CARGO_TARGET_DIR/$folder/crisp" crisp
install_new "$CARGO_TARGET_DIR/$target/monitor/crisp-monitor" crisp-monitor
ls -l "$OUT/crisp" "$OUT/crisp-monitor"
