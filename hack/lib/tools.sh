# shellcheck shell=bash
# Tools built from the Go module proxy: the modules in hack/tools pin every version. What is there in the right version
# (a stamp beside the binary says which) is not built again.

# tool_module TOOL: its module, version, package
tool_module() {
  case $1 in
  kubelet | kube-apiserver | kube-controller-manager | kube-scheduler | kube-proxy | kubectl)
    echo "kubernetes $KUBERNETES_VERSION k8s.io/kubernetes/cmd/$1" ;;
  # the oldest and the newest kubelet that crisp is tried with; the module says which patch version
  kubelet-1.*)
    echo "$1 $(awk '/^require k8s.io.kubernetes / {print $3}' "$HACK/tools/$1/go.mod") k8s.io/kubernetes/cmd/kubelet" ;;
  etcd) echo "etcd $ETCD_VERSION go.etcd.io/etcd/server/v3" ;;
  crictl | critest) echo "cri-tools $CRI_TOOLS_VERSION sigs.k8s.io/cri-tools/cmd/$1" ;;
  *) die "no tool is called $1" ;;
  esac
}

# version_of BINARY: what it says of itself, as vX.Y.Z; nothing if it does not run
version_of() {
  local argument=--version
  [[ $1 == */kubectl ]] && argument='version --client'
  # shellcheck disable=SC2086
  "$1" $argument 2>/dev/null | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -1 | sed 's/^/v/' || true
}

# need_tools TOOL...: all in $BIN
need_tools() {
  local tool module version package
  for tool in "$@"; do
    read -r module version package <<<"$(tool_module "$tool")"
    [ ! -x "$BIN/$tool" ] || [ "$(cat "$BIN/.$tool.version" 2>/dev/null)" != "$version" ] || continue
    [ ! -x "$BIN/$tool" ] || [ "$(version_of "$BIN/$tool")" != "$version" ] || { echo "$version" >"$BIN/.$tool.version"; continue; }
    build_tool "$tool" "$module" "$version" "$package"
  done
}

build_tool() {
  local tool=$1 module=$2 version=$3 package=$4 flags='-s -w' p begin verb=(build)
  command -v go >/dev/null || die "building $tool needs Go (1.26 or newer) in PATH"
  begin=$(date +%s)
  say "building $tool $version from the Go module proxy (once)"
  # without the stamp they call themselves v0.0.0-master
  case $module in
  kubernetes | kubelet-*)
    for p in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
      flags+=" -X $p.gitVersion=$version -X $p.gitMajor=1 -X $p.gitMinor=$(cut -d. -f2 <<<"$version") -X $p.gitTreeState=clean -X $p.gitCommit=module"
    done ;;
  cri-tools) flags+=" -X sigs.k8s.io/cri-tools/pkg/version.Version=${version#v}" ;;
  esac
  [ "$tool" != critest ] || verb=(test -c -vet=off)
  mkdir -p "$BIN"
  # a build that is broken off leaves no half binary under the final name
  (cd "$HACK/tools/$module" && CGO_ENABLED=0 GOWORK=off GOFLAGS=-mod=readonly \
    nice -n 10 go "${verb[@]}" -trimpath -ldflags "$flags" -o "$BIN/.$tool.new" "$package")
  mv "$BIN/.$tool.new" "$BIN/$tool"
  echo "$version" >"$BIN/.$tool.version"
  say "$tool: $(($(date +%s) - begin)) s"
}

# recent TOOL: its path if the one in PATH is of Kubernetes 1.34 or newer, else builds ours
recent() {
  local found version
  found=$(command -v "$1" || true)
  if [ -n "$found" ] && [[ $found != "$BIN"/* ]]; then
    version=$(version_of "$found")
    [[ $version =~ ^v1\.([0-9]+)\. ]] && [ "${BASH_REMATCH[1]}" -ge 34 ] && { echo "$found"; return; }
  fi
  need_tools "$1"
  echo "$BIN/$1"
}
