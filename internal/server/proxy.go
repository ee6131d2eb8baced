package server

import (
	"bufio"
	"context"
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
	// Edge dials the TLS listener.
	Edge func(ctx context.Context) (net.Conn, error)
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
	up, err := p.Edge(r.Context())
	if err != nil {
		http.Error(w, "the server does not answer", http.StatusBadGateway)
		return
	}
	defer up.Close()
	down, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "the connection can't be taken over", http.StatusInternalServerError)
		return
	}
	defer down.Close()
	if _, err := io.WriteString(down, "HTTP/1.1 200 Connection Established\r\n\r\n"); err != nil {
		return
	}
	splice(down, buf.Reader, up)
}

// splice carries bytes both ways until both ways have ended.
func splice(down net.Conn, early *bufio.Reader, up net.Conn) {
	var wg sync.WaitGroup
	wg.Add(2)
	go func() {
		defer wg.Done()
		_, _ = io.Copy(up, early) // an error ends this way, and the close below tells the other side
		closeWrite(up)
	}()
	go func() {
		defer wg.Done()
		_, _ = io.Copy(down, up)
		closeWrite(down)
	}()
	wg.Wait()
}

func closeWrite(c net.Conn) {
	if t, ok := c.(interface{ CloseWrite() error }); ok {
		_ = t.CloseWrite() // the other side may have gone
		return
	}
	_ = c.Close()
}
