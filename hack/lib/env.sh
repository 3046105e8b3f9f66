# shellcheck shell=bash disable=SC2034  # read by the scripts that source this
# Where everything is. Each script sources this first; it only sets variables and asks for root.
# Variables a user may set: CRISP_CACHE, CRISP_OUT, CRISP_REGISTRY (local|public|auto), CRISP_RUNTIME (crisp|containerd), LAB.
set -euo pipefail

HACK=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ROOT=$(dirname "$HACK")

# What survives between runs lives outside the tree.
CRISP_CACHE=${CRISP_CACHE:-$HOME/.cache/crisp}
BIN=$CRISP_CACHE/bin          # tools built from Go modules
OUT=${CRISP_OUT:-$CRISP_CACHE/out} # crisp and crisp-monitor, side by side
IMAGES=$CRISP_CACHE/images    # image layouts
DEBS=$CRISP_CACHE/debs        # Debian packages unpacked without being installed
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CRISP_CACHE/target}

KUBERNETES_VERSION=v1.36.3
OTHER_KUBELETS="kubelet-1.34 kubelet-1.37" # their modules in hack/tools say which patch versions
ETCD_VERSION=v3.6.8
CRI_TOOLS_VERSION=v1.36.0

# A lab is one private set of namespaces with a runtime and what drives it. Labs of different names do not meet:
# each has its own state, data and cgroup root, so that two kubelets never delete each other's groups.
LAB=${LAB:-run}
STATE=/run/crisp-lab/$LAB     # pids, sockets, configurations, logs
DATA=/var/lib/crisp-lab/$LAB  # what the daemons store
CGROUP_ROOT=/crisp-lab-$LAB

# Addresses inside the lab, where nothing else lives.
SERVICE_CIDR=10.224.0.0/16
REGISTRY=10.222.0.1:5000
node_ip() { echo "10.222.0.${1#node}"; }
pod_cidr() { echo "10.223.$((${1#node} - 1)).0/24"; }

# A proxy for downloads must not see what stays inside.
export NO_PROXY=localhost,127.0.0.1,10.222.0.0/16,10.223.0.0/16,10.224.0.0/16${NO_PROXY:+,$NO_PROXY}
export no_proxy=$NO_PROXY
export PATH=$PATH:/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin:$BIN
[ -d "$HOME/.cargo/bin" ] && PATH=$HOME/.cargo/bin:$PATH

say() { echo "==> $*" >&2; }
die() { echo "${0##*/}: $*" >&2; exit 1; }
need_root() { [ "$(id -u)" = 0 ] || die "must run as root: it makes namespaces, mounts and cgroups"; }
