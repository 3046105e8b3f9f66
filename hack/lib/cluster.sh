# shellcheck shell=bash
# A control plane in node1's namespaces, and kubelets on one node or two. Sourced after lab.sh.
API=https://10.222.0.1:6443
CONTROL_PLANE="kube-apiserver kube-controller-manager kube-scheduler etcd kubectl"

# shellcheck disable=SC2086  # words
cluster_need() { need_commands openssl && need_tools kubelet crictl $CONTROL_PLANE; }

kubectl_in() { on node1 env "KUBECONFIG=$STATE/admin.conf" "$BIN/kubectl" "$@"; }

# certificate NAME SUBJECT EXTENSION: signed by the cluster's own authority
certificate() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" -keyout "$1.key" -out "$1.csr" 2>/dev/null
  echo "$3" >"$1.extension"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile "$1.extension" -out "$1.crt" 2>/dev/null
}
cluster_credentials() { # NODE...
  local node
  mkdir -p "$STATE/pki"
  chmod 700 "$STATE/pki"
  (
    cd "$STATE/pki" || exit
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=crisp-lab -keyout ca.key -out ca.crt 2>/dev/null
    certificate server /CN=kube-apiserver "subjectAltName=IP:127.0.0.1,IP:$(node_ip node1),IP:${SERVICE_CIDR%.*}.1,DNS:localhost,DNS:kubernetes.default.svc"
    certificate client /O=system:masters/CN=apiserver-kubelet-client extendedKeyUsage=clientAuth
    for node in "$@"; do certificate "kubelet-$node" "/CN=$node" "subjectAltName=IP:$(node_ip "$node"),DNS:$node"; done
    openssl genrsa -out sa.key 2048 2>/dev/null
    openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
    {
      echo 'admin-token,admin,admin,"system:masters"'
      echo 'manager-token,system:kube-controller-manager,manager'
      echo 'scheduler-token,system:kube-scheduler,scheduler'
      for node in "$@"; do echo "$node-token,system:node:$node,$node,\"system:nodes\""; done
    } >tokens.csv
  )
  kubeconfig "$STATE/admin.conf" admin-token
  kubeconfig "$STATE/manager.conf" manager-token
  kubeconfig "$STATE/scheduler.conf" scheduler-token
  for node in "$@"; do kubeconfig "$STATE/$node/kubelet.conf" "$node-token"; done
}
kubeconfig() { # FILE TOKEN
  cat >"$1" <<Y
apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "$API", certificate-authority: $STATE/pki/ca.crt}}]
users: [{name: user, user: {token: $2}}]
contexts: [{name: lab, context: {cluster: lab, user: user}}]
current-context: lab
Y
}

control_plane_up() {
  local pki=$STATE/pki ip
  ip=$(node_ip node1)
  mkdir -p "$DATA/etcd"
  chmod 700 "$DATA/etcd"
  # a throw-away cluster need not survive a power cut
  spawn node1 etcd "$BIN/etcd" "--data-dir=$DATA/etcd" --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
    --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 --initial-cluster=default=http://127.0.0.1:2380 \
    --log-level=warn --unsafe-no-fsync
  wait_for 20 etcd on node1 curl -sf --noproxy '*' http://127.0.0.1:2379/health || die "$(tail -3 "$STATE/node1/etcd.log")"
  # AlwaysAllow turns anonymous requests off, hence the tokens
  spawn node1 kube-apiserver "$BIN/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 "--advertise-address=$ip" --secure-port=6443 \
    "--tls-cert-file=$pki/server.crt" "--tls-private-key-file=$pki/server.key" "--client-ca-file=$pki/ca.crt" "--token-auth-file=$pki/tokens.csv" \
    --authorization-mode=AlwaysAllow --allow-privileged=true "--service-cluster-ip-range=$SERVICE_CIDR" \
    --service-account-issuer=https://kubernetes.default.svc "--service-account-key-file=$pki/sa.pub" "--service-account-signing-key-file=$pki/sa.key" \
    "--kubelet-client-certificate=$pki/client.crt" "--kubelet-client-key=$pki/client.key" --kubelet-preferred-address-types=InternalIP --profiling=false
  wait_for 60 "the API server" kubectl_in get --raw /readyz || die "$(tail -3 "$STATE/node1/kube-apiserver.log")"
  # without that folder the controller manager makes one in /usr/libexec
  spawn node1 kube-controller-manager "$BIN/kube-controller-manager" "--kubeconfig=$STATE/manager.conf" --bind-address=127.0.0.1 --leader-elect=false \
    "--cert-dir=$STATE/manager-certs" "--service-account-private-key-file=$pki/sa.key" "--root-ca-file=$pki/ca.crt" --profiling=false \
    "--flex-volume-plugin-dir=$DATA/flex-volumes"
  spawn node1 kube-scheduler "$BIN/kube-scheduler" "--kubeconfig=$STATE/scheduler.conf" --bind-address=127.0.0.1 --leader-elect=false \
    "--cert-dir=$STATE/scheduler-certs" --profiling=false
}

# cluster_up NODES: 1 or 2
cluster_up() {
  local nodes=(node1) node
  [ "$1" = 1 ] || nodes=(node1 node2)
  lab_claim
  mkdir -p "$STATE" "$DATA"
  for node in "${nodes[@]}"; do namespaces_up "$node"; done
  [ "$1" = 1 ] || join_nodes node1 node2
  cluster_credentials "${nodes[@]}"
  registry_up node1
  control_plane_up
  for node in "${nodes[@]}"; do
    runtime_up "$node"
    # the second kubelet asks the runtime for what the first one takes from elsewhere, and for lists in batches
    # shellcheck disable=SC2034  # kubelet_up's
    if [ "$node" = node2 ] && [ "$CRISP_RUNTIME" = crisp ]; then
      KUBELET_SETTINGS='featureGates: {PodAndContainerStatsFromCRI: true, CRIListStreaming: true}'
    else
      KUBELET_SETTINGS=''
    fi
    kubelet_up "$node" cluster
  done
  for node in "${nodes[@]}"; do
    wait_for 60 "$node to be Ready" node_ready "$node" || die "$(grep '^E' "$STATE/$node/kubelet.log" | tail -3)"
  done
  # pods need it
  wait_for 30 "the default service account" kubectl_in get serviceaccount default
}
node_ready() { kubectl_in get node "$1" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' | grep -qx True; }

# pods_down: through the API, so that kubelets give them their grace
pods_down() {
  alive node1 kube-apiserver || return 0
  kubectl_in delete deployment,replicaset,daemonset,statefulset,job,cronjob --all -A --wait=false >/dev/null 2>&1 || true
  timeout 60 nsenter -t "$(pid_of node1 namespaces)" -n -m -- env "KUBECONFIG=$STATE/admin.conf" "$BIN/kubectl" \
    delete pods --all -A --grace-period=1 --timeout=45s >/dev/null 2>&1 || say "pods did not go within a minute"
}

cluster_down() {
  local name
  pods_down
  for name in kube-scheduler kube-controller-manager; do stop node1 "$name" TERM 20; done
  for name in node2 node1; do [ ! -d "$STATE/$name" ] || stop "$name" kubelet TERM 20; done
  stop node1 kube-apiserver TERM 20
  stop node1 etcd
  lab_down
}
