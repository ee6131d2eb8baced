package server

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"castellan/internal/gate"
)

// slowEdge serves one plane whose doors read everything and answer much, with
// little patience, over TLS.
func slowEdge(t *testing.T) (dial func() *tls.Conn, read chan error) {
	return edgeWith(t, 200*time.Millisecond)
}

// edgeWith is slowEdge with a patience of its own.
func edgeWith(t *testing.T, patience time.Duration) (dial func() *tls.Conn, read chan error) {
	t.Helper()
	read = make(chan error, 1)
	h, err := New(site, nil, []*gate.Plane{{Name: "a", Refuse: gate.RefuseARM, Routes: []gate.Route{
		gate.Public("test", "PUT /x", func(w http.ResponseWriter, r *http.Request, _ gate.Vars) error {
			_, err := io.Copy(io.Discard, r.Body)
			read <- err
			return err
		}),
		gate.Public("test", "GET /much", func(w http.ResponseWriter, r *http.Request, _ gate.Vars) error {
			_, err := w.Write(make([]byte, 64<<20))
			read <- err
			return err
		}),
	}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.patience = patience
	cert, key, err := NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := OpenAuthority(cert, key, site, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := h.Server()
	go func() { _ = srv.Serve(tls.NewListener(l, ca.TLS())) }()
	t.Cleanup(func() { srv.Close() })
	return func() *tls.Conn {
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, ServerName: site.Host()}) //nolint:gosec // a test
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		return c
	}, read
}

// TestSlowClientsAreCut holds that neither who sends a body nor who takes an
// answer too slowly keeps a connection, and that who sends drop by drop does not
// either.
func TestSlowClientsAreCut(t *testing.T) {
	dial, read := slowEdge(t)
	for name, send := range map[string]func(*tls.Conn, chan struct{}){
		"stops": func(c *tls.Conn, _ chan struct{}) {
			_, _ = io.WriteString(c, "PUT /x HTTP/1.1\r\nHost: castellan.localhost\r\nContent-Length: 1000\r\n\r\nabc")
		},
		"takes none": func(c *tls.Conn, _ chan struct{}) {
			_, _ = io.WriteString(c, "GET /much HTTP/1.1\r\nHost: castellan.localhost\r\n\r\n")
		},
		"by the drop": func(c *tls.Conn, over chan struct{}) {
			_, _ = io.WriteString(c, "PUT /x HTTP/1.1\r\nHost: castellan.localhost\r\nContent-Length: 1000\r\n\r\n")
			go func() {
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-tick.C:
						if _, err := io.WriteString(c, "x"); err != nil {
							return
						}
					case <-over:
						return
					}
				}
			}()
		},
	} {
		over := make(chan struct{})
		send(dial(), over)
		select {
		case err := <-read:
			if err == nil {
				t.Errorf("%s: the server took it for whole", name)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("%s: the connection is still held", name)
		}
		close(over)
	}
}

// TestRefusalsDoNotWait holds that who announces terabytes and is refused hears so
// before any of them came, and not when patience ends.
func TestRefusalsDoNotWait(t *testing.T) {
	dial, _ := edgeWith(t, time.Hour)
	c := dial()
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "PUT /nothing HTTP/1.1\r\nHost: castellan.localhost\r\nContent-Length: 5497558138880\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != http.StatusNotFound || !res.Close {
		t.Fatal(res, err)
	}
}

// TestPatienceIsForSlownessAlone holds that a client that keeps pace is served,
// and its connection taken again after it was idle for longer than the patience.
func TestPatienceIsForSlownessAlone(t *testing.T) {
	dial, read := slowEdge(t)
	c := dial()
	in := bufio.NewReader(c)
	for range 2 {
		if _, err := io.WriteString(c, "PUT /x HTTP/1.1\r\nHost: castellan.localhost\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 100000)); err != nil {
			t.Fatal(err)
		}
		if err := <-read; err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		<-time.After(300 * time.Millisecond)
	}
}
