package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// server is the program under test.
type server struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	mu  sync.Mutex
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
	return &server{cmd: cmd, in: in, out: bufio.NewReader(out)}, nil
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
