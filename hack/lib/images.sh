# shellcheck shell=bash
# The images that pods and tests name, and the registry that serves them inside a lab. Where a public registry can be
# reached, the pods' images come from there (copied once into the cache); those of the test suites are always our own.
MIRRORED="docker.io registry.k8s.io k8s.gcr.io gcr.io public.ecr.aws"

# images_make: what is missing in $IMAGES; made again when the sources change
images_make() {
  local sources stamp busybox nginx
  sources=$(cat "$ROOT"/integration/images/*.py "$ROOT"/integration/images/src/*.c | sha256sum | cut -c1-16)
  stamp=$(cat "$IMAGES/stamp" 2>/dev/null || true)
  [ "$stamp" != "$sources" ] || [ ! -f "$IMAGES/catalog.json" ] || return 0
  need_commands python3 gcc
  # nginx's own libraries: those of the machine, which ldd names
  need_package libpcre2-8-0 /usr/lib/x86_64-linux-gnu/libpcre2-8.so.0
  busybox=$(deb busybox) nginx=$(deb nginx)
  mkdir -p "$IMAGES"
  say "making the images: $(python3 "$ROOT/integration/images/make.py" "$IMAGES" --busybox "$busybox" --nginx "$nginx")"
  echo "$sources" >"$IMAGES/stamp"
}

# images_public: copies nginx, debian and busybox of the public registry into the layout, if it can be reached
public_registry() {
  case ${CRISP_REGISTRY:-auto} in
  local) return 1 ;;
  public) return 0 ;;
  *) [ "$(curl -s -o /dev/null -m 4 -w '%{http_code}' https://registry-1.docker.io/v2/ 2>/dev/null)" = 401 ] ;;
  esac
}
USE_PUBLIC=''
images_public() {
  local name
  public_registry || return 0
  USE_PUBLIC=1
  need_commands skopeo
  for name in nginx debian busybox; do
    [ -f "$IMAGES/public/$name/index.json" ] && continue
    say "fetching docker.io/library/$name"
    mkdir -p "$IMAGES/public"
    skopeo copy -q --insecure-policy "docker://docker.io/library/$name:latest" "oci:$IMAGES/public/$name:latest"
  done
}

# registry_up NODE: the registry with all images, at $REGISTRY inside the lab
registry_up() {
  local node=$1 binary name
  binary=$(deb docker-registry)/usr/bin/docker-registry
  mkdir -p "$DATA/$node/registry"
  cat >"$STATE/$node/registry.yml" <<Y
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $DATA/$node/registry}, delete: {enabled: true}}
http: {addr: "$REGISTRY"}
Y
  alive "$node" registry || spawn "$node" registry "$binary" serve "$STATE/$node/registry.yml"
  wait_for 10 "the registry" on "$node" curl -sf --noproxy '*' "http://$REGISTRY/v2/" || die "$(tail -3 "$STATE/$node/registry.log")"
  on "$node" python3 "$ROOT/integration/images/push.py" "$IMAGES" "http://$REGISTRY"
  [ -z "$USE_PUBLIC" ] || for name in nginx debian busybox; do
    on "$node" skopeo copy -q --insecure-policy --dest-tls-verify=false "oci:$IMAGES/public/$name:latest" "docker://$REGISTRY/library/$name:latest"
  done
}

# hosts_write FOLDER: hosts.toml files that send every registry we serve to the lab's own
hosts_write() {
  local host
  for host in $MIRRORED; do
    mkdir -p "$1/$host"
    printf 'server = "http://%s"\n\n[host."http://%s"]\n  capabilities = ["pull", "resolve"]\n' "$REGISTRY" "$REGISTRY" >"$1/$host/hosts.toml"
  done
}
