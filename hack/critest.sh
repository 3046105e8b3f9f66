#!/bin/bash
# hack/critest.sh [spdy|websocket]...: the CRI validation suite against crisp, once for each streaming protocol (both if
# none is named). One line a spec; an error on any failure, and on any skip that integration/critest/skips.txt has not.
# FOCUS=regex, SKIP=regex: some specs only.  SEED=N: ginkgo's.  LAB_KEEP=1: keep logs and reports.
# LAB_SUFFIX=word: beside another run of the same.
. "$(dirname "$(readlink -f "$0")")/lib/env.sh"
LAB=critest${LAB_SUFFIX:-}
. "$HACK/lib/env.sh"
. "$HACK/lib/lab.sh"
. "$HACK/lib/report.sh"
need_root
[ $# -gt 0 ] || set -- spdy websocket

SHM=''
finish() {
  local status=$? id
  trap '' INT TERM
  trap - EXIT
  # the HostIpc specs leave their shared memory segments behind
  for id in $(ipcs -m | awk '/^0x/ {print $2}'); do
    [[ " $SHM " == *" $id "* ]] || ipcrm -m "$id" 2>/dev/null || true
  done
  rm -f "$STATE/critest"
  [ "$status" = 0 ] || LAB_KEEP=1
  if lab_down; then ok "critest: nothing stays behind"; else
    not_ok "critest: nothing stays behind"
    status=1
  fi
  for id in $(cgroup_mounts); do
    [ ! -d "$id/test.slice" ] || find "$id/test.slice" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
  exit "$status"
}
SHM=$(ipcs -m | awk '/^0x/ {printf "%s ", $2}')
trap finish EXIT
trap 'exit 130' INT TERM
lab_need critest crictl
lab_up

# One image is pulled by digest, and its digest is a constant of the suite: put ours into a copy, in the same length.
theirs=9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf
ours=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["gcr.io/k8s-staging-cri-tools/test-image-digest"]["top"]["digest"][7:])' "$IMAGES/catalog.json")
sed "s/$theirs/$ours/g" "$BIN/critest" >"$STATE/critest"
chmod +x "$STATE/critest"
grep -q "$ours" "$STATE/critest" || die "this critest does not name the digest that was to be replaced"

status=0
for protocol in "$@"; do
  arguments=(--runtime-endpoint "$CRI_ENDPOINT" --image-endpoint "$CRI_ENDPOINT" --config /nonexistent
    --ginkgo.no-color --ginkgo.seed "${SEED:-1}" --ginkgo.timeout 20m --ginkgo.json-report "$STATE/$protocol.json")
  [ -z "${FOCUS:-}" ] || arguments+=(--ginkgo.focus "$FOCUS")
  [ -z "${SKIP:-}" ] || arguments+=(--ginkgo.skip "$SKIP")
  case $protocol in
  spdy) ;;
  websocket) arguments+=(--websocket-exec --websocket-attach --websocket-portforward) ;;
  *) die "spdy or websocket, not $protocol" ;;
  esac
  # specs that count images start from none
  images=$(crictl_on node1 images -q)
  # shellcheck disable=SC2086
  [ -z "$images" ] || crictl_on node1 rmi $images >/dev/null 2>&1 || true
  rm -f "$STATE/$protocol.json"
  on node1 "$STATE/critest" "${arguments[@]}" >"$STATE/$protocol.log" 2>&1 || true
  if [ -f "$STATE/$protocol.json" ]; then
    python3 "$ROOT/integration/critest/cases.py" "$STATE/$protocol.json" "$protocol" "$ROOT/integration/critest/skips.txt" || status=1
  else
    not_ok "critest $protocol: the suite broke off"
    tail -20 "$STATE/$protocol.log" | sed 's/^/    /'
    status=1
  fi
done
exit "$status"
