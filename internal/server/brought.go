package server

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Brought is a certificate of somebody else's authority, in files. It is read
// again when they change, so whoever renews it need not restart the server.
type Brought struct {
	cert, key string // paths of PEM files
	warn      *slog.Logger

	mu     sync.Mutex // guards what follows
	now    *tls.Certificate
	seen   [2]stamp
	looked time.Time
}

// stamp tells one state of a file from others.
type stamp struct {
	at   time.Time
	size int64
}

// lookEvery is how often the files are looked at, at most.
const lookEvery = time.Second

// Bring reads a certificate, with those that lead to its authority, and its key.
func Bring(cert, key string, warn *slog.Logger) (*Brought, error) {
	b := &Brought{cert: cert, key: key, warn: warn}
	var err error
	if b.now, b.seen, err = b.read(); err != nil {
		return nil, fmt.Errorf("reading the certificate of the server: %w", err)
	}
	return b, nil
}

func (b *Brought) read() (c *tls.Certificate, seen [2]stamp, err error) {
	if seen, err = b.stamps(); err != nil {
		return nil, seen, err
	}
	got, err := tls.LoadX509KeyPair(b.cert, b.key)
	return &got, seen, err
}

func (b *Brought) stamps() (out [2]stamp, err error) {
	for i, path := range []string{b.cert, b.key} {
		st, err := os.Stat(path)
		if err != nil {
			return out, err
		}
		if i == 1 && st.Mode().Perm()&0o077 != 0 {
			return out, &fs.PathError{Op: "use", Path: path, Err: fmt.Errorf("it can be read by others (mode %o); chmod 600 it", st.Mode().Perm())}
		}
		out[i] = stamp{st.ModTime(), st.Size()}
	}
	return out, nil
}

// current is the certificate as the files have it. What can't be read, as when it
// is half written, leaves the last one.
func (b *Brought) current() *tls.Certificate {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.looked) < lookEvery {
		return b.now
	}
	b.looked = time.Now()
	seen, err := b.stamps()
	if err == nil && seen == b.seen {
		return b.now
	}
	var c *tls.Certificate
	if err == nil {
		c, seen, err = b.read()
	}
	if err != nil {
		b.warn.Warn("the certificate of the server can't be read again; the last one is used", "error", err)
		return b.now
	}
	b.now, b.seen = c, seen
	b.warn.Info("the certificate of the server was read again", "notAfter", c.Leaf.NotAfter)
	return c
}

// Over is the configuration of a listener that shows the brought certificate for
// the names that it has, and the authority's own leaves for all others.
func (b *Brought) Over(a *Authority) *tls.Config {
	cfg := a.TLS()
	cfg.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		name := a.asked(h)
		if c := b.current(); a.site.Owns(name) && c.Leaf.VerifyHostname(name) == nil {
			return c, nil
		}
		return a.leaf(h)
	}
	return cfg
}
