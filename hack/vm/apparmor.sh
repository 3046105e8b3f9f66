# shellcheck shell=sh
# Part of cases.sh, where AppArmor is on: profiles of inits and execs.
current() { tr -d '\0' <"/proc/$(crictl inspect "$1" | jq .info.pid)/attr/current"; }
own() { crictl exec -s "$1" cat /proc/self/attr/current 2>&1 | tr -d '\0'; }
# profile POD NAME APPARMOR: a started container with that field
profile() {
  _c=$(container "$1" one "$2" 'sleep 1000' "{\"security_context\": {\"apparmor\": $3}}") || return 1
  crictl start "$_c" >/dev/null && echo "$_c"
}

apparmor_parser -r <<'P' || not_ok "a profile of the host is loaded"
profile vm-local flags=(attach_disconnected) {
  file,
  network,
  signal,
  deny /tmp/forbidden w,
}
P
is "AppArmor: not mentioned means the default: init" "$(current "$C")" "crisp-default (enforce)"
is "AppArmor: not mentioned means the default: exec" "$(own "$C")" "crisp-default (enforce)"
A=$(profile "$P" default '{"profile_type": 0}')
is "AppArmor RuntimeDefault: init" "$(current "$A")" "crisp-default (enforce)"
A=$(profile "$P" localhost '{"profile_type": 2, "localhost_ref": "vm-local"}')
is "AppArmor Localhost: init" "$(current "$A")" "vm-local (enforce)"
is "AppArmor Localhost: exec" "$(own "$A")" "vm-local (enforce)"
has "AppArmor Localhost: what it forbids is refused to an exec" "$(crictl exec -s "$A" sh -c 'echo x >/tmp/allowed && echo x >/tmp/forbidden' 2>&1)" "/tmp/forbidden: Permission denied"
is "AppArmor Localhost: the rest is not" "$(crictl exec -s "$A" cat /tmp/allowed 2>&1)" x
A=$(profile "$P" unconfined '{"profile_type": 1}')
is "AppArmor Unconfined: init" "$(current "$A")" unconfined
is "AppArmor Unconfined: exec" "$(own "$A")" unconfined
R=$(pod root '{"security_context": {"privileged": true}}')
A=$(container "$R" root privileged 'sleep 1000' '{"security_context": {"privileged": true}}') && crictl start "$A" >/dev/null
is "AppArmor: a privileged container is unconfined" "$(current "$A")" unconfined
crictl stopp "$R" >/dev/null; crictl rmp "$R" >/dev/null
if A=$(profile "$P" missing '{"profile_type": 2, "localhost_ref": "vm-nowhere"}' 2>&1); then
  not_ok "AppArmor: a profile that is not loaded is refused"
else
  has "AppArmor: a profile that is not loaded is refused, and named" "$(echo "$A" | tr -d '\\"')" 'profile vm-nowhere: it is not loaded'
fi
