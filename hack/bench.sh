#!/bin/bash
# hack/bench.sh [SUITE...]: measures crisp and its peers side by side with the same client (integration/bench), in turn.
#   suites: pod parallel host exec density restart logs pull     (default: all)
#   RUNTIMES="crisp crisp-builtin containerd"   who takes part; crisp uses the same CNI bridge as the peer, crisp-builtin its own network
#   ROUNDS=3   RESULTS=FOLDER (default: $CRISP_CACHE/results/DATE)   KEEP=1: leave the bed up (hack/bench.sh down takes it away)
# In FOLDER: one JSON file per run, table.md, results.json and plots (SVG).
LAB=${LAB:-bench}
. "$(dirname "$(readlink -f "$0")")/lib/env.sh"
. "$HACK/lib/bench.sh"
need_root
case ${1:-} in
down)
  set +e
  bench_down
  exit ;;
in)
  shift
  inside "$@"
  exit ;;
client)
  shift
  client "$@"
  exit ;;
-h | --help) sed -n '2,6s/^# //p' "$0" && exit ;;
esac
[ $# -gt 0 ] || set -- pod parallel host exec density restart logs pull
RUNTIMES=${RUNTIMES:-crisp crisp-builtin containerd}
RESULTS=${RESULTS:-$CRISP_CACHE/results/$(date +%Y%m%d-%H%M%S)}
need_commands ip nsenter unshare setsid python3 curl skopeo gcc
need_package containernetworking-plugins /usr/lib/cni/bridge
if [ -z "${CRISP_FAST:-}" ]; then
  "$HACK/build.sh" >&2
  cargo build --release -p cribench
fi
# the result of a change of the bridge's settings
for runtime in $RUNTIMES; do [ "$runtime" != containerd ] || peers_need; done
mkdir -p "$RESULTS"
if ! alive node1 namespaces; then
  [ -n "${KEEP:-}" ] || trap 'set +e; bench_down' EXIT
  case " $* " in *" pull "*) bench_up big ;; *) bench_up ;; esac
fi
for runtime in $RUNTIMES; do
  pid=$(cat "$DATA/$runtime.pid" 2>/dev/null || true)
  grep -qs "$DATA/$runtime.toml" "/proc/${pid:-none}/cmdline" || bench_runtime_up "$runtime"
done

measure() { # SUITE RUNTIME ROUND
  local file="$RESULTS/$1-$2-$3.json" run
  case $1 in
  pod) run=(pod --count 12) ;;
  parallel) run=(pod --count 50 --parallel 10) ;;
  host) run=(--host-network pod --count 12) ;;
  exec) run=(exec) ;;
  density) run=(density --count "${PODS:-100}" --idle "${IDLE:-30}") ;;
  restart) run=(restart --count "${PODS:-100}" --pid-file "$DATA/$2.pid" --start "$DATA/start-$2") ;;
  logs) run=(logs --rounds 1) ;;
  pull) run=(pull --pull-image "$BENCH_REGISTRY/bench/big:1" --rounds 2) ;;
  pullz) run=(pull --pull-image "$BENCH_REGISTRY/bench/bigz:1" --rounds 2) ;;
  *) die "no suite is called $1" ;;
  esac
  say "$1, $2, round $3"
  client "$2" --json "$file" "${run[@]}" || say "$1 of $2 failed"
}
for suite in "$@"; do
  parts=$suite rounds=${ROUNDS:-3}
  case $suite in
  pull) parts="pull pullz" ;;
  density | restart) rounds=${ROUNDS:-1} ;;
  esac
  for ((round = 1; round <= rounds; round++)); do
    for part in $parts; do
      for runtime in $RUNTIMES; do measure "$part" "$runtime" "$round"; done
    done
  done
done
python3 "$BENCH/report.py" "$RESULTS"
say "results: $RESULTS"
