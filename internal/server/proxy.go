package server

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"castellan/internal/arm"
)

// Proxy is an HTTP proxy that knows CONNECT alone and leads to the installation
// alone: every name of the site, port 443, is the edge, and nothing else is
// reached. By it, clients need no DNS, no hosts file and no port in a URL.
type Proxy struct {
	Site arm.Site
	// Edge serves the connection of a client that asked for the edge: what the
	// edge sees of it, its address above all, is the client's and not the proxy's.
	Edge func(c net.Conn)
}

// Limits of the proxy.
const (
	proxyHeaderTime = 10 * time.Second
	proxyHeaderSize = 16 << 10
)

// Serve takes connections from l until it is closed.
func (p *Proxy) Serve(l net.Listener) error {
	srv := &http.Server{Handler: p, ReadHeaderTimeout: proxyHeaderTime, MaxHeaderBytes: proxyHeaderSize}
	err := srv.Serve(l)
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "this proxy takes CONNECT only, to hosts of "+p.Site.Suffix, http.StatusMethodNotAllowed)
		return
	}
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil || !p.Site.Owns(strings.TrimSuffix(host, ".")) || port != "443" {
		http.Error(w, "this proxy leads to port 443 of "+p.Site.Suffix+" and of names below it only", http.StatusForbidden)
		return
	}
	down, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "the connection can't be taken over", http.StatusInternalServerError)
		return
	}
	early, err := buf.Reader.Peek(buf.Reader.Buffered()) // what the client sent before it was answered
	if err == nil {
		_, err = io.WriteString(down, "HTTP/1.1 200 Connection Established\r\n\r\n")
	}
	if err != nil {
		_ = down.Close()
		return
	}
	p.Edge(&client{Conn: down, early: early})
}

// client is a connection of which something was read already.
type client struct {
	net.Conn
	early []byte
}

// Read reads what came early first.
func (c *client) Read(p []byte) (int, error) {
	if len(c.early) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.early)
	c.early = c.early[n:]
	return n, nil
}

// Handed is a listener of connections that were accepted elsewhere. The zero
// Handed is not ready; see NewHanded.
type Handed struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	addr  net.Addr
}

// NewHanded is a listener that says it is at addr.
func NewHanded(addr net.Addr) *Handed {
	return &Handed{conns: make(chan net.Conn), done: make(chan struct{}), addr: addr}
}

// Hand gives the listener a connection, or closes it if the listener is closed.
func (h *Handed) Hand(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		_ = c.Close() // nobody serves it
	}
}

// Accept waits for a connection.
func (h *Handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close makes Accept fail from now on.
func (h *Handed) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr is the address that the listener says it is at.
func (h *Handed) Addr() net.Addr { return h.addr }
