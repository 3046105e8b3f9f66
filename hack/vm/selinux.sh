# shellcheck shell=sh
# Part of cases.sh, where SELinux is on (and its policy has the types of selinux.cil): labels of processes, mounts and volumes.
current() { tr -d '\0' <"/proc/$(crictl inspect "$1" | jq .info.pid)/attr/current"; }
own() { crictl exec -s "$1" cat /proc/self/attr/current 2>&1 | tr -d '\0'; }
label() { stat -c %C "$@" 2>&1 | sort -u; }
# inside_label CONTAINER PATH: of a path as the container has it
inside_label() { label "/proc/$(crictl inspect "$1" | jq .info.pid)/root$2"; }
# started POD POD-NAME NAME [SECURITY-CONTEXT]
started() {
  _c=$(container "$1" "$2" "$3" 'touch /made /dev/shm/made; sleep 1000' "{\"security_context\": ${4:-{\}}}") || return 1
  crictl start "$_c" >/dev/null && echo "$_c"
}
level() { echo "$1" | cut -d: -f4-; }

is "SELinux is on" "$(getenforce)" Permissive
FIRST=$(current "$C")
PAIR=$(level "$FIRST")
FILES=system_u:object_r:container_file_t:$PAIR
has "SELinux: a pod's process has the policy's type and two categories" "$(echo "$FIRST" | sed -E 's/c[0-9]+/c#/g')" "system_u:system_r:container_t:s0:c#,c#"
is "SELinux: an exec has the same" "$(own "$C")" "$FIRST"
D2=$(started "$P" one second) && is "SELinux: and the pod's second container" "$(current "$D2")" "$FIRST"
Q=$(pod other) && D3=$(started "$Q" other third)
has "SELinux: another pod has the same type" "$(current "$D3")" "system_u:system_r:container_t:s0:c"
[ "$(level "$(current "$D3")")" != "$PAIR" ] && ok "SELinux: and other categories" || not_ok "SELinux: and other categories # $PAIR"
until_true 10 test -e "/proc/$(crictl inspect "$D2" | jq .info.pid)/root/made"
for path in / /bin/sh /made /dev /dev/pts /dev/shm /dev/shm/made /etc/resolv.conf /etc/hostname; do
  is "SELinux: label of $path" "$(inside_label "$D2" "$path")" "$FILES"
done
crictl stopp "$Q" >/dev/null; crictl rmp "$Q" >/dev/null

# ---- volumes
V=$DIR/volume
mkdir -p "$V/deep/er" && touch "$V/file" "$V/deep/er/file" && ln -s "$DIR/outside" "$V/link" && touch "$DIR/outside"
OUTSIDE=$(label "$DIR/outside")
MOUNTS="[{\"container_path\": \"/volume\", \"host_path\": \"$V\", \"selinux_relabel\": true}]"
started "$P" one volume >/dev/null
is "SELinux: a volume and all in it are labelled" "$(label "$V" "$V/file" "$V/link" "$V/deep" "$V/deep/er" "$V/deep/er/file")" "$FILES"
is "SELinux: what a link in it names is not" "$(label "$DIR/outside")" "$OUTSIDE"
before=$(stat -c %z "$V/file" "$V/deep/er")
started "$P" one again >/dev/null
is "SELinux: what is right is not written again" "$(stat -c %z "$V/file" "$V/deep/er")" "$before"
MOUNTS="[{\"container_path\": \"/volume\", \"host_path\": \"$DIR\"}]" started "$P" one plain >/dev/null
is "SELinux: a volume that does not ask for it is not" "$(label "$DIR/outside")" "$OUTSIDE"
MOUNTS='[{"container_path": "/volume", "host_path": "/etc", "selinux_relabel": true}]'
has "SELinux: a folder of the host is refused" "$(started "$P" one etc 2>&1)" "mount source /etc of /volume: it is a folder of the host"
MOUNTS=

# ---- what is asked for, and pods that nothing confines
A=$(started "$P" one asked '{"selinux_options": {"user": "system_u", "role": "system_r", "type": "spc_t", "level": "s0:c1,c2"}}')
is "SELinux: a label that is asked for" "$(current "$A")" "system_u:system_r:spc_t:s0:c1,c2"
is "SELinux: an exec has that too" "$(own "$A")" "system_u:system_r:spc_t:s0:c1,c2"
has "SELinux: a type that the policy does not know is refused" "$(started "$P" one unknown '{"selinux_options": {"type": "no_such_t"}}' 2>&1)" "SELinux policy does not know this label"
R=$(pod root '{"security_context": {"privileged": true}}')
A=$(started "$R" root privileged '{"privileged": true}')
is "SELinux: a privileged container" "$(current "$A")" "system_u:system_r:spc_t:s0"
is "SELinux: and its exec" "$(own "$A")" "system_u:system_r:spc_t:s0"
crictl stopp "$R" >/dev/null; crictl rmp "$R" >/dev/null
R=$(pod hostpid '{"security_context": {"namespace_options": {"pid": 2}}}')
A=$(started "$R" hostpid hostpid '{"namespace_options": {"pid": 2}}')
is "SELinux: a pod with the host's processes" "$(current "$A")" "system_u:system_r:spc_t:s0"
crictl stopp "$R" >/dev/null; crictl rmp "$R" >/dev/null
R=$(pod level '{"security_context": {"selinux_options": {"level": "s0:c7,c9"}}}')
A=$(started "$R" level level)
is "SELinux: a pod with the level that it asked for" "$(current "$A")" "system_u:system_r:container_t:s0:c7,c9"
crictl stopp "$R" >/dev/null; crictl rmp "$R" >/dev/null
