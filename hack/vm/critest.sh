#!/bin/sh
# Inside a guest of hack/vm.sh: the CRI validation suite. FOCUS=regex: some specs only. Prints cases.
. /hack/vm/node.sh
registry_up || exit 1
crisp_configure
# specs reach host ports through 127.0.0.1
sysctl -qw net.ipv4.conf.all.route_localnet=1
if crisp_up; then ok "crisp answers"; else not_ok "crisp answers"; exit 1; fi

# One image is pulled by digest, and its digest is a constant of the suite: put ours into a copy, in the same length.
theirs=9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf
ours=$(jq -r '.["gcr.io/k8s-staging-cri-tools/test-image-digest"].top.digest' /images/catalog.json | cut -d: -f2)
sed "s/$theirs/$ours/g" /tools/critest >"$DIR/critest"
chmod +x "$DIR/critest"
grep -q "$ours" "$DIR/critest" || { not_ok "critest names the digest that is to be replaced"; exit 1; }
# shellcheck disable=SC2086
"$DIR/critest" --runtime-endpoint "$SOCKET" --image-endpoint "$SOCKET" --config /nonexistent --ginkgo.no-color --ginkgo.seed 1 \
  --ginkgo.timeout 50m --ginkgo.json-report "$DIR/report.json" ${FOCUS:+--ginkgo.focus "$FOCUS"} >"$DIR/critest.log" 2>&1
if [ -f "$DIR/report.json" ]; then
  cp /hack/vm/critest-skips.txt "$DIR/skips.txt"
  [ -e /sys/kernel/security/apparmor/profiles ] || echo "AppArmor / # this guest was started without AppArmor; others run these" >>"$DIR/skips.txt"
  python3 /integration/critest/cases.py "$DIR/report.json" "$VARIANT" "$DIR/skips.txt"
else
  not_ok "critest: the suite broke off"
  tail -20 "$DIR/critest.log" | sed 's/^/    /'
fi
