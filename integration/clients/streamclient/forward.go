package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

type dialer func(address string) (httpstream.Dialer, error)

func spdyDialer(address string) (httpstream.Dialer, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{})
	if err != nil {
		return nil, err
	}
	return spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", u), nil
}

func tunnelDialer(address string) (httpstream.Dialer, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	return portforward.NewSPDYOverWebsocketDialer(u, &rest.Config{})
}

// forwarding is a running port-forward; local maps a remote port to the address of its local end.
type forwarding struct {
	stop  chan struct{}
	done  chan error
	local map[uint16]string
}

func forward(s *server, d dialer, remote ...uint16) (*forwarding, error) {
	address, err := s.ask("portforward", remote)
	if err != nil {
		return nil, err
	}
	dialer, err := d(address)
	if err != nil {
		return nil, err
	}
	specs := make([]string, len(remote))
	for i, port := range remote {
		specs[i] = fmt.Sprintf("0:%d", port)
	}
	f := &forwarding{stop: make(chan struct{}), done: make(chan error, 1), local: map[uint16]string{}}
	ready := make(chan struct{})
	pf, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, specs, f.stop, ready, nil, io.Discard)
	if err != nil {
		return nil, err
	}
	go func() { f.done <- pf.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-f.done:
		return nil, fmt.Errorf("port-forward ended: %w", err)
	}
	ports, err := pf.GetPorts()
	if err != nil {
		return nil, err
	}
	for _, port := range ports {
		f.local[port.Remote] = fmt.Sprintf("127.0.0.1:%d", port.Local)
	}
	return f, nil
}

func (f *forwarding) close() error {
	close(f.stop)
	return <-f.done
}

// listen serves connections of a port of this host, which is the pod's.
func listen(serve func(net.Conn)) (net.Listener, uint16, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, 0, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return l, uint16(l.Addr().(*net.TCPAddr).Port), nil
}

func echo(conn net.Conn) {
	defer conn.Close()
	io.Copy(conn, conn)
}

// roundTrip sends bytes to an echo and reads them back, ended by closing the sending side.
func roundTrip(address string, size int) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(60 * time.Second))
	data := make([]byte, size)
	rand.Read(data)
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(data)
		sent <- errors.Join(err, conn.(*net.TCPConn).CloseWrite())
	}()
	got, err := io.ReadAll(conn)
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	if !bytes.Equal(got, data) {
		return fmt.Errorf("%d bytes came back instead of %d, or other ones", len(got), size)
	}
	return nil
}

// crowd: several ports, many connections at once, small and large.
func crowd(d dialer) func(*server) error {
	return func(s *server) error {
		var ports []uint16
		for i := 0; i < 3; i++ {
			l, port, err := listen(echo)
			if err != nil {
				return err
			}
			defer l.Close()
			ports = append(ports, port)
		}
		f, err := forward(s, d, ports...)
		if err != nil {
			return err
		}
		var wg sync.WaitGroup
		results := make(chan error, 200)
		for i := 0; i < 100; i++ {
			wg.Add(1)
			go func() {
				defer wg.Done()
				results <- roundTrip(f.local[ports[i%3]], 1+i*1500)
			}()
		}
		wg.Wait()
		close(results)
		for err := range results {
			if err != nil {
				return err
			}
		}
		return f.close()
	}
}

func bulkForward(d dialer) func(*server) error {
	return func(s *server) error {
		l, port, err := listen(echo)
		if err != nil {
			return err
		}
		defer l.Close()
		f, err := forward(s, d, port)
		if err != nil {
			return err
		}
		begin := time.Now()
		if err := roundTrip(f.local[port], 64<<20); err != nil {
			return err
		}
		fmt.Printf("     64 MiB there and back, %.0f MB/s\n", float64(64<<20)/time.Since(begin).Seconds()/1e6)
		return f.close()
	}
}

// resets: connections that the pod resets do not end the others.
func resets(d dialer) func(*server) error {
	return func(s *server) error {
		l, port, err := listen(echo)
		if err != nil {
			return err
		}
		defer l.Close()
		bad, badPort, err := listen(func(conn net.Conn) {
			conn.Read(make([]byte, 1))
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		})
		if err != nil {
			return err
		}
		defer bad.Close()
		f, err := forward(s, d, port, badPort)
		if err != nil {
			return err
		}
		steady, err := net.Dial("tcp", f.local[port])
		if err != nil {
			return err
		}
		defer steady.Close()
		steady.SetDeadline(time.Now().Add(30 * time.Second))
		one := make([]byte, 1)
		for i := 0; i < 10; i++ {
			conn, err := net.Dial("tcp", f.local[badPort])
			if err != nil {
				return err
			}
			conn.SetDeadline(time.Now().Add(30 * time.Second))
			conn.Write([]byte("x"))
			if n, _ := conn.Read(one); n != 0 {
				return errors.New("a reset connection gave a byte")
			}
			conn.Close()
			if _, err := steady.Write([]byte{byte(i)}); err != nil {
				return err
			}
			if _, err := io.ReadFull(steady, one); err != nil || one[0] != byte(i) {
				return fmt.Errorf("the other connection after reset %d: %v", i, err)
			}
		}
		return f.close()
	}
}

// refused: a port that nobody listens on is an error of its stream. client-go then ends the session by itself.
func refused(d dialer) func(*server) error {
	return func(s *server) error {
		l, port, err := listen(echo)
		if err != nil {
			return err
		}
		l.Close()
		address, err := s.ask("portforward", []uint16{port})
		if err != nil {
			return err
		}
		dialer, err := d(address)
		if err != nil {
			return err
		}
		conn, _, err := dialer.Dial("portforward.k8s.io")
		if err != nil {
			return err
		}
		defer conn.Close()
		for id := 0; id < 3; id++ {
			headers := http.Header{}
			headers.Set("port", fmt.Sprint(port))
			headers.Set("requestID", fmt.Sprint(id))
			headers.Set("streamType", "error")
			errs, err := conn.CreateStream(headers)
			if err != nil {
				return err
			}
			headers.Set("streamType", "data")
			if _, err := conn.CreateStream(headers); err != nil {
				return err
			}
			text, err := io.ReadAll(errs)
			if err != nil {
				return err
			}
			if !strings.Contains(string(text), "refused") {
				return fmt.Errorf("the error stream says %q", text)
			}
		}
		headers := http.Header{}
		headers.Set("streamType", "data")
		if _, err := conn.CreateStream(headers); err == nil {
			return errors.New("a stream without a port was accepted")
		}
		return nil
	}
}

func init() {
	for name, d := range map[string]dialer{"spdy": spdyDialer, "tunnel": tunnelDialer} {
		add(name+"-forward-crowd", crowd(d))
		add(name+"-forward-bulk", bulkForward(d))
		add(name+"-forward-resets", resets(d))
		add(name+"-forward-refused", refused(d))
	}
}
