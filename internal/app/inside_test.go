package app

import (
	"castellan/internal/server"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// serveHere is a whole platform in this process, which listens as castellan up
// does, so that a test may stand on both sides of a sandbox's wall.
func serveHere(t *testing.T) (*App, *served) {
	t.Helper()
	a := newApp(t)
	e, err := Listen(a, "127.0.0.1:0", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &served{dir: a.Data}
	if s.ready, err = e.Ready(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Serve(ctx) }()
	pem, err := os.ReadFile(s.ready.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	s.door = newDoor(s.ready.Listen, pem)
	t.Cleanup(func() {
		s.door.http.CloseIdleConnections()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return a, s
}

// insideOf is how what runs in the sandbox of this name reaches the platform.
func (a *App) insideOf(sandbox string) door {
	return door{&http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			inner := server.NewHanded(there.LocalAddr())
			go func() { _ = a.edge(sandbox, inner) }()
			inner.Hand(there)
			_ = inner.Close() // one connection is all
			return here, nil
		},
		TLSClientConfig: &tls.Config{RootCAs: a.roots(), MinVersion: tls.VersionTLS12},
	}}}
}

// said waits for a job's first line.
func (l *lab) said(t *testing.T, job string) (line string) {
	t.Helper()
	l.until(t, time.Minute, "the first line of "+job, func() bool {
		if st := l.status(job); st == "Failed" || st == "Canceled" {
			t.Fatalf("the job is %s: %s", st, l.log(job))
		}
		var ok bool
		line, _, ok = strings.Cut(l.log(job), "\n")
		return ok
	})
	return line
}

// theft takes a token out of its sandbox and tries it on every door of every
// plane: it must open none.
func theft(t *testing.T, a *App, l *lab, token string, from map[string]door) {
	t.Helper()
	for where, d := range from {
		n := 0
		for _, p := range a.Planes {
			host := hostOf(t, a, p)
			for _, rt := range p.Routes {
				if rt.Action.IsZero() {
					continue
				}
				n++
				path := fill(strings.ReplaceAll(strings.ReplaceAll(rt.Pattern, "{run}", "own"), "{ws}", "lab"), a)
				reply, err := d.send(token, rt.Method, "https://"+host+path, nil, "x-ms-version", storageVersion)
				if err != nil {
					t.Fatal(err)
				}
				if reply.status != http.StatusUnauthorized {
					t.Errorf("%s %s %s with a stolen token from %s = %d %s", p.Name, rt.Method, path, where, reply.status, reply.body)
				}
			}
		}
		if n < 50 {
			t.Errorf("only %d doors were tried from %s", n, where)
		}
		stolen := *l
		stolen.door = d
		for _, w := range l.doorways("https://" + a.Site.GraphHost()) {
			if r := stolen.knockAt(t, w, token); r.status != http.StatusUnauthorized {
				t.Errorf("%s %s with a stolen token from %s = %d", w.method, w.url, where, r.status)
			}
		}
		t.Logf("%d doors from %s", n, where)
	}
}

// Nobody but the edge inside a sandbox says where a request comes from.
func TestOnlyTheInnerEdgeSaysWhereFrom(t *testing.T) {
	t.Parallel()
	var who []string
	for _, d := range goFiles(t) {
		b, err := os.ReadFile(d)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "gate.From(") {
			who = append(who, d)
		}
	}
	if !slices.Equal(who, []string{"../app/inside.go"}) {
		t.Errorf("gate.From is called in %v, want ../app/inside.go alone", who)
	}
}
