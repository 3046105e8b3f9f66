# shellcheck shell=bash
# Results of tests. A case is a line `ok NAME`, `not ok NAME` or `skip NAME # reason`; cargo's own lines are turned into
# these. Everything a group prints is shown and counted.
PASSED=0 FAILED=0 SKIPPED=0 FAILURES=()

ok() { echo "ok $*"; }
not_ok() { echo "not ok $*"; }

# check NAME COMMAND...: one case: does the command succeed? Its output is shown only if not.
check() {
  local name=$1 output
  shift
  if output=$("$@" 2>&1); then ok "$name"; else
    not_ok "$name"
    tail -60 <<<"$output" | sed 's/^/    /'
  fi
}

# from_cargo PREFIX: cargo test's output as cases; what a failing test said, or a build that failed, is kept
from_cargo() {
  awk -v prefix="$1" '
    /^test .* \.\.\. ok$/ { sub(/^test /, ""); sub(/ \.\.\. ok$/, ""); print "ok " prefix ": " $0; next }
    /^test .* \.\.\. FAILED$/ { sub(/^test /, ""); sub(/ \.\.\. FAILED$/, ""); print "not ok " prefix ": " $0; next }
    /^test .* \.\.\. ignored/ { sub(/^test /, ""); r = $0; sub(/.* \.\.\. ignored,? */, "", r); sub(/ \.\.\. ignored.*/, ""); print "skip " prefix ": " $0 " # " (r == "" ? "no reason given" : r); next }
    /^(running |test result: ok|$|successes:|   Doc-tests|     Running|   Compiling|    Finished|  Downloaded| Downloading|    Blocking)/ { next }
    { print "    " $0 }'
}

# count GROUP: copies standard input and counts its cases. The last line is `status N`: a group that breaks off without a
# failed case must not pass for what it did not run, nor one that ran nothing.
count() {
  local group=$1 line passed=0 failed=0 skipped=0
  while IFS= read -r line; do
    case $line in
    "ok "*) passed=$((passed + 1)); [ -n "${QUIET:-}" ] || echo "$line" ;;
    "not ok "*) failed=$((failed + 1)); FAILURES+=("${line#not ok }"); echo "$line" ;;
    "skip "*) skipped=$((skipped + 1)); echo "$line" ;;
    "status "*)
      if [ "${line#status }" != 0 ] && [ "$failed" = 0 ]; then
        failed=1 FAILURES+=("$group: broke off with status ${line#status }")
        echo "not ok $group: broke off with status ${line#status }"
      elif [ $((passed + failed + skipped)) = 0 ]; then
        failed=1 FAILURES+=("$group: ran nothing")
        echo "not ok $group: ran nothing"
      fi ;;
    *) echo "$line" ;;
    esac
  done
  PASSED=$((PASSED + passed)) FAILED=$((FAILED + failed)) SKIPPED=$((SKIPPED + skipped))
  printf -- '--- %s: %d passed, %d failed, %d skipped\n\n' "$group" "$passed" "$failed" "$skipped"
}
