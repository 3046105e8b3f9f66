//go:build tools

// Package tools names what hack/setup.sh builds, so that go.mod and go.sum cover it.
package tools

import _ "k8s.io/kubernetes/cmd/kubelet"
