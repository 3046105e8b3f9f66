//go:build tools

// Package tools names what hack/setup.sh builds, so that go.mod and go.sum cover it.
package tools

import (
	_ "sigs.k8s.io/cri-tools/cmd/crictl"
	_ "sigs.k8s.io/cri-tools/pkg/validate"
)
