package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

// dial makes an executor for an address.
type dial func(address string) (remotecommand.Executor, error)

func overSpdy(protocols ...string) dial {
	return func(address string) (remotecommand.Executor, error) {
		u, err := url.Parse(address)
		if err != nil {
			return nil, err
		}
		if len(protocols) == 0 {
			return remotecommand.NewSPDYExecutor(&rest.Config{}, "POST", u)
		}
		transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{})
		if err != nil {
			return nil, err
		}
		return remotecommand.NewSPDYExecutorForProtocols(transport, upgrader, "POST", u, protocols...)
	}
}

func overWebSocket(protocols ...string) dial {
	return func(address string) (remotecommand.Executor, error) {
		if len(protocols) == 0 {
			return remotecommand.NewWebSocketExecutor(&rest.Config{}, "GET", address)
		}
		return remotecommand.NewWebSocketExecutorForProtocols(&rest.Config{}, "GET", address, protocols...)
	}
}

func run(s *server, d dial, kind string, p process, options remotecommand.StreamOptions) error {
	return runContext(context.Background(), s, d, kind, p, options)
}

func runContext(ctx context.Context, s *server, d dial, kind string, p process, options remotecommand.StreamOptions) error {
	p.Stdin, p.Stdout, p.Stderr = options.Stdin != nil, options.Stdout != nil, options.Stderr != nil
	p.Tty = options.Tty
	address, err := s.ask(kind, p)
	if err != nil {
		return err
	}
	executor, err := d(address)
	if err != nil {
		return err
	}
	return executor.StreamWithContext(ctx, options)
}

func expect(what, got, want string) error {
	if got != want {
		return fmt.Errorf("%s is %q instead of %q", what, got, want)
	}
	return nil
}

func code(err error, want int) error {
	var exit exec.CodeExitError
	if !errors.As(err, &exit) || exit.Code != want {
		return fmt.Errorf("exit code %d was expected, not %v", want, err)
	}
	return nil
}

func shell(script string) process { return process{Command: []string{"sh", "-c", script}} }

// outputs: both outputs, apart, and exit code 0.
func outputs(d dial) func(*server) error {
	return func(s *server) error {
		var out, errs bytes.Buffer
		err := run(s, d, "exec", shell("echo one; echo two >&2"), remotecommand.StreamOptions{Stdout: &out, Stderr: &errs})
		if err != nil {
			return err
		}
		return errors.Join(expect("stdout", out.String(), "one\n"), expect("stderr", errs.String(), "two\n"))
	}
}

func exitCode(d dial) func(*server) error {
	return func(s *server) error {
		var out bytes.Buffer
		return code(run(s, d, "exec", shell("echo x; exit 42"), remotecommand.StreamOptions{Stdout: &out}), 42)
	}
}

// exitText: before version 4 the error stream holds text.
func exitText(d dial) func(*server) error {
	return func(s *server) error {
		var out bytes.Buffer
		err := run(s, d, "exec", shell("echo x; exit 42"), remotecommand.StreamOptions{Stdout: &out})
		if err == nil || !strings.Contains(err.Error(), "42") {
			return fmt.Errorf("an error with 42 was expected, not %v", err)
		}
		return nil
	}
}

func noProgram(d dial) func(*server) error {
	return func(s *server) error {
		var out bytes.Buffer
		err := run(s, d, "exec", process{Command: []string{"/does/not/exist"}}, remotecommand.StreamOptions{Stdout: &out})
		if err == nil || !strings.Contains(err.Error(), "No such file") {
			return fmt.Errorf("the error %v does not say what is missing", err)
		}
		return nil
	}
}

// stdinEnd: the end of the client's input reaches the process.
func stdinEnd(d dial) func(*server) error {
	return func(s *server) error {
		var out bytes.Buffer
		err := run(s, d, "exec", shell("wc -c"), remotecommand.StreamOptions{Stdin: strings.NewReader("12345"), Stdout: &out})
		return errors.Join(err, expect("wc", strings.TrimSpace(out.String()), "5"))
	}
}

// stdinIgnored: a process that does not read does not stop its session.
func stdinIgnored(d dial) func(*server) error {
	return func(s *server) error {
		var out bytes.Buffer
		input := io.LimitReader(pattern{}, 64<<20)
		err := run(s, d, "exec", shell("exec <&-; echo done"), remotecommand.StreamOptions{Stdin: input, Stdout: &out})
		return errors.Join(err, expect("stdout", out.String(), "done\n"))
	}
}

type sizes chan remotecommand.TerminalSize

func (q sizes) Next() *remotecommand.TerminalSize {
	size, ok := <-q
	if !ok {
		return nil
	}
	return &size
}

// watcher passes on what is written, and calls back for each new line.
type watcher struct {
	rest string
	seen func(line string)
}

func (w *watcher) Write(p []byte) (int, error) {
	w.rest += string(p)
	for {
		line, rest, ok := strings.Cut(w.rest, "\n")
		if !ok {
			return len(p), nil
		}
		w.rest = rest
		w.seen(strings.TrimSpace(line))
	}
}

// terminal: a tty, two sizes, input, and an exit code.
func terminal(d dial) func(*server) error {
	return func(s *server) error {
		queue := make(sizes, 4)
		queue <- remotecommand.TerminalSize{Width: 100, Height: 30}
		inRead, inWrite := io.Pipe()
		var lines []string
		out := &watcher{seen: func(line string) {
			lines = append(lines, line)
			switch {
			case line == "30 100":
				queue <- remotecommand.TerminalSize{Width: 132, Height: 43}
			case line == "43 132":
				go inWrite.Write([]byte("bye\n"))
			}
		}}
		script := `test -t 0 || exit 1; old=; while :; do new=$(stty size); test "$new" = "$old" || echo "$new"; old=$new; ` +
			`test "$new" = "43 132" && break; sleep 0.05; done; read answer; test "$answer" = bye && exit 7; exit 1`
		err := run(s, d, "exec", shell(script), remotecommand.StreamOptions{Stdin: inRead, Stdout: out, Tty: true, TerminalSizeQueue: queue})
		close(queue)
		if err := code(err, 7); err != nil {
			return fmt.Errorf("%w; output %q", err, lines)
		}
		return nil
	}
}

func attach(d dial) func(*server) error {
	return func(s *server) error {
		var out bytes.Buffer
		err := run(s, d, "attach", shell("cat; echo end; exit 9"), remotecommand.StreamOptions{Stdin: strings.NewReader("hello\n"), Stdout: &out})
		return errors.Join(err, expect("stdout", out.String(), "hello\nend\n"))
	}
}

// second use of an address is refused.
func once(d dial) func(*server) error {
	return func(s *server) error {
		address, err := s.ask("exec", process{Command: []string{"true"}, Stdout: true})
		if err != nil {
			return err
		}
		for i := 0; i < 2; i++ {
			executor, err := d(address)
			if err != nil {
				return err
			}
			var out bytes.Buffer
			err = executor.StreamWithContext(context.Background(), remotecommand.StreamOptions{Stdout: &out})
			if i == 0 && err != nil {
				return err
			}
			if i == 1 && err == nil {
				return errors.New("the address worked twice")
			}
		}
		return nil
	}
}

// gone: a client that goes away while the process runs; the server stays well.
func gone(d dial) func(*server) error {
	return func(s *server) error {
		ctx, cancel := context.WithCancel(context.Background())
		out := &watcher{seen: func(string) { cancel() }}
		err := runContext(ctx, s, d, "exec", shell("echo up; exec sleep 1000"), remotecommand.StreamOptions{Stdout: out})
		if !errors.Is(err, context.Canceled) {
			return fmt.Errorf("cancelled, but %v", err)
		}
		return outputs(d)(s)
	}
}

// many: processes at the same time, each with input, output and exit code.
func many(d dial) func(*server) error {
	return func(s *server) error {
		results := make(chan error, 60)
		for i := 0; i < cap(results); i++ {
			go func() {
				var out bytes.Buffer
				in := strings.Repeat(fmt.Sprintf("line %d\n", i), 2000)
				err := run(s, d, "exec", shell(fmt.Sprintf("cat; exit %d", i+1)), remotecommand.StreamOptions{Stdin: strings.NewReader(in), Stdout: &out})
				if err = code(err, i+1); err == nil && out.String() != in {
					err = fmt.Errorf("process %d: %d bytes came back instead of %d", i, out.Len(), len(in))
				}
				results <- err
			}()
		}
		for i := 0; i < cap(results); i++ {
			if err := <-results; err != nil {
				return err
			}
		}
		return nil
	}
}

// pattern is endless data that does not repeat soon.
type pattern struct{}

func (pattern) Read(p []byte) (int, error) {
	copy(p, block)
	return min(len(p), len(block)), nil
}

var block = func() []byte {
	out := make([]byte, 1<<20-7)
	state := uint32(1)
	for i := range out {
		state = state*1664525 + 1013904223
		out[i] = byte(state >> 24)
	}
	return out
}()

type counter struct {
	hash hash.Hash
	n    int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	if c.hash != nil {
		c.hash.Write(p)
	}
	return len(p), nil
}

// bulk: bytes through `cat`, exact, and how fast. STREAM_MIB says how many MiB.
func bulk(d dial, exact bool) func(*server) error {
	return func(s *server) error {
		size := int64(64)
		if text := os.Getenv("STREAM_MIB"); text != "" {
			n, err := strconv.ParseInt(text, 10, 32)
			if err != nil {
				return err
			}
			size = n
		}
		size <<= 20
		out := &counter{}
		in := io.LimitReader(pattern{}, size)
		sent := sha256.New()
		if exact {
			out.hash = sha256.New()
			in = io.TeeReader(in, sent)
		}
		begin := time.Now()
		if err := run(s, d, "exec", process{Command: []string{"cat"}}, remotecommand.StreamOptions{Stdin: in, Stdout: out}); err != nil {
			return err
		}
		speed := float64(size) / time.Since(begin).Seconds() / 1e6
		fmt.Printf("     %d MiB through cat, %.0f MB/s, hashed: %v\n", size>>20, speed, exact)
		if out.n != size {
			return fmt.Errorf("%d bytes came back instead of %d", out.n, size)
		}
		if exact && !bytes.Equal(out.hash.Sum(nil), sent.Sum(nil)) {
			return errors.New("the bytes are not those that were sent")
		}
		return nil
	}
}

// source: bytes from the process only.
func source(d dial) func(*server) error {
	return func(s *server) error {
		out := &counter{}
		begin := time.Now()
		script := "head -c 268435456 /dev/zero"
		if err := run(s, d, "exec", shell(script), remotecommand.StreamOptions{Stdout: out}); err != nil {
			return err
		}
		fmt.Printf("     256 MiB from the process, %.0f MB/s\n", float64(out.n)/time.Since(begin).Seconds()/1e6)
		return expect("the size", strconv.FormatInt(out.n, 10), "268435456")
	}
}

func init() {
	for _, t := range []struct {
		name string
		dial dial
	}{
		{"spdy", overSpdy()},
		{"ws", overWebSocket()},
	} {
		add(t.name+"-outputs", outputs(t.dial))
		add(t.name+"-exit-code", exitCode(t.dial))
		add(t.name+"-no-program", noProgram(t.dial))
		add(t.name+"-stdin-end", stdinEnd(t.dial))
		add(t.name+"-stdin-ignored", stdinIgnored(t.dial))
		add(t.name+"-terminal", terminal(t.dial))
		add(t.name+"-attach", attach(t.dial))
		add(t.name+"-once", once(t.dial))
		add(t.name+"-gone", gone(t.dial))
		add(t.name+"-many", many(t.dial))
		add(t.name+"-bulk-exact", bulk(t.dial, true))
		add(t.name+"-bulk", bulk(t.dial, false))
		add(t.name+"-source", source(t.dial))
	}
	for _, v := range []string{"v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"} {
		short := strings.TrimSuffix(strings.TrimSuffix(v, "channel.k8s.io"), ".")
		if short == "" {
			short = "v1"
		}
		add("spdy-"+short, outputs(overSpdy(v)))
		add("ws-"+short, outputs(overWebSocket(v)))
		if short != "v1" {
			add("spdy-"+short+"-exit", exitText(overSpdy(v)))
		}
	}
	add("ws-v4", outputs(overWebSocket("v4.channel.k8s.io")))
	add("ws-v4-exit-code", exitCode(overWebSocket("v4.channel.k8s.io")))
}
