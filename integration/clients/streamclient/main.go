// Command streamclient drives a stream server with the clients that Kubernetes uses: client-go's remotecommand
// (SPDY and WebSocket) and portforward (SPDY, and SPDY tunnelled in WebSocket).
//
//	streamclient SERVER [scenario...]
//
// SERVER is a program that reads one JSON request a line and answers with an address; see examples/serve.rs of
// crisp-stream. Scenarios are names or patterns (spdy-*); without any, all are run. The exit code is 1 when one fails.
package main

import (
	"fmt"
	"os"
	"path"
	"slices"
	"time"
)

type scenario struct {
	name string
	run  func(*server) error
}

var scenarios []scenario

func add(name string, run func(*server) error) {
	scenarios = append(scenarios, scenario{name, run})
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: streamclient SERVER [scenario...]")
		os.Exit(2)
	}
	wanted := os.Args[2:]
	s, err := start(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	failed, ran := 0, 0
	for _, sc := range scenarios {
		matches := func(pattern string) bool {
			ok, err := path.Match(pattern, sc.name)
			return ok && err == nil
		}
		if len(wanted) > 0 && !slices.ContainsFunc(wanted, matches) {
			continue
		}
		ran++
		begin := time.Now()
		err := withTimeout(90*time.Second, func() error { return sc.run(s) })
		took := time.Since(begin).Round(time.Millisecond)
		if err != nil {
			failed++
			fmt.Printf("FAIL %-28s %8s  %v\n", sc.name, took, err)
		} else {
			fmt.Printf("ok   %-28s %8s\n", sc.name, took)
		}
	}
	if err := s.settled(); err != nil {
		failed++
		fmt.Printf("FAIL %-28s %8s  %v\n", "nothing left", "", err)
	}
	s.stop()
	fmt.Printf("%d run, %d failed\n", ran, failed)
	if failed > 0 || ran == 0 {
		os.Exit(1)
	}
}

func withTimeout(limit time.Duration, run func() error) error {
	done := make(chan error, 1)
	go func() { done <- run() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return fmt.Errorf("not done after %s", limit)
	}
}
