# shellcheck shell=sh
# Part of cases.sh: pods with a user namespace. The root is ext4, which can be mounted with mapped ids; tmpfs cannot (Linux 6.1).
MAP='[{"container_id": 0, "host_id": 100000, "length": 65536}]'
NAMESPACES="{\"security_context\": {\"namespace_options\": {\"userns_options\": {\"mode\": 0, \"uids\": $MAP, \"gids\": $MAP}}}}"
U=$(pod users "$NAMESPACES")
mkdir -p "$DIR/volume" /run/unmapped; echo v >"$DIR/volume/file"
# volume HOST-PATH: JSON of a mount with mapped ids
volume() { echo "[{\"container_path\": \"/volume\", \"host_path\": \"$1\", \"uidMappings\": $MAP, \"gidMappings\": $MAP}]"; }
V=$(MOUNTS=$(volume "$DIR/volume") container "$U" users mapped 'id -u; touch /made /volume/made; sleep 1000' "$NAMESPACES")
crictl start "$V" >/dev/null
until_true 20 test -e "$DIR/volume/made"
vpid=$(crictl inspect "$V" | jq .info.pid)
is "user namespace: its map" "$(tr -s ' ' <"/proc/$vpid/uid_map")" " 0 100000 65536"
is "user namespace: root inside is nobody's root outside" "$(awk '/^Uid/ {print $2}' "/proc/$vpid/status") $(crictl exec -s "$V" id -u)" "100000 0"
is "user namespace: root file system and volume are mapped" "$(crictl exec -s "$V" stat -c %u:%g /bin/sh /made /volume/file /volume/made 2>&1 | xargs)" "0:0 0:0 0:0 0:0"
is "user namespace: what it wrote is root's on the volume" "$(stat -c %u:%g "$DIR/volume/made")" 0:0
has "user namespace: no device is made in it" "$(crictl exec -s "$V" mknod /tmp/d c 1 3 2>&1)" "not permitted"
W=$(MOUNTS=$(volume /run/unmapped) container "$U" users unmapped 'sleep 1000' "$NAMESPACES" 2>&1)
has "user namespace: a volume that cannot be mapped is refused with its path" "$W" /run/unmapped
crictl stopp "$U" >/dev/null && crictl rmp "$U" >/dev/null && ok "user namespace: the pod is removed" || not_ok "user namespace: the pod is removed"
