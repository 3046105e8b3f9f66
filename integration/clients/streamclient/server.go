package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// server is the program under test.
type server struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	mu  sync.Mutex
	// descriptors that were open before the first request
	descriptors int
}

// process is what an exec or attach asks for.
type process struct {
	Command []string `json:"command"`
	Tty     bool     `json:"tty"`
	Stdin   bool     `json:"stdin"`
	Stdout  bool     `json:"stdout"`
	Stderr  bool     `json:"stderr"`
}

func start(path string) (*server, error) {
	cmd := exec.Command(path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd, in: in, out: bufio.NewReader(out)}
	// A first exchange: the server has started when it has answered.
	if _, err := s.ask("exec", process{Command: []string{"true"}, Stdout: true}); err != nil {
		return nil, err
	}
	s.descriptors, _, err = s.left()
	return s, err
}

func (s *server) stop() {
	s.in.Close()
	s.cmd.Wait()
}

// ask gets the address for a request.
func (s *server) ask(kind string, request any) (string, error) {
	line, err := json.Marshal(map[string]any{kind: request})
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := fmt.Fprintf(s.in, "%s\n", line); err != nil {
		return "", err
	}
	answer, err := s.out.ReadString('\n')
	if err != nil {
		return "", err
	}
	answer = strings.TrimSpace(answer)
	if !strings.HasPrefix(answer, "http") {
		return "", fmt.Errorf("%s: %s", line, answer)
	}
	return answer, nil
}

// left counts the descriptors and the children of the server.
func (s *server) left() (descriptors, children int, err error) {
	proc := fmt.Sprintf("/proc/%d", s.cmd.Process.Pid)
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		return 0, 0, err
	}
	tasks, err := filepath.Glob(proc + "/task/*/children")
	if err != nil {
		return 0, 0, err
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil && !os.IsNotExist(err) {
			return 0, 0, err
		}
		children += len(strings.Fields(string(text)))
	}
	return len(fds), children, nil
}

// settled waits until the server holds no more than it did at the start.
func (s *server) settled() error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		descriptors, children, err := s.left()
		if err != nil {
			return err
		}
		if descriptors <= s.descriptors && children == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server still holds %d descriptors (%d at first) and %d processes", descriptors, s.descriptors, children)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
