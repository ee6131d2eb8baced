package app

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"castellan/internal/arm"
)

// crowdSize is how many clients there are at once, unless CASTELLAN_CROWD says otherwise.
const crowdSize = 200

// crowd is many clients of one platform, each with a connection of its own.
type crowd struct {
	*lab
	t      *testing.T
	listen string
	tls    *tls.Config

	mu       sync.Mutex // guards what follows
	answers  map[string]int
	failures map[string]int
}

func newCrowd(t *testing.T, s *served, l *lab) *crowd {
	t.Helper()
	pem, err := os.ReadFile(s.ready.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	u, err := url.Parse(l.blobURL)
	if err != nil {
		t.Fatal(err)
	}
	return &crowd{lab: l, t: t, listen: s.ready.Listen, answers: map[string]int{}, failures: map[string]int{},
		tls: &tls.Config{RootCAs: roots, ServerName: u.Host, MinVersion: tls.VersionTLS13, ClientSessionCache: tls.NewLRUClientSessionCache(4)}}
}

// person is a token of somebody new who reads and writes the account's blobs.
func (c *crowd) person(s *served) string {
	c.t.Helper()
	var app, sp struct{ ID, AppID string }
	var key struct{ SecretText string }
	graph := s.ready.Graph + "/v1.0/"
	c.must(c.t, &app, c.graph, http.MethodPost, graph+"applications", map[string]any{"displayName": "crowd"})
	c.must(c.t, &sp, c.graph, http.MethodPost, graph+"servicePrincipals", map[string]any{"appId": app.AppID})
	c.must(c.t, &key, c.graph, http.MethodPost, graph+"applications/"+app.ID+"/addPassword", map[string]any{"passwordCredential": map[string]any{"displayName": "k"}})
	c.must(c.t, nil, c.arm, http.MethodPut, c.url(c.group+"/providers/Microsoft.Storage/storageAccounts/"+c.account+"/providers/Microsoft.Authorization/roleAssignments/"+arm.NewUUID()),
		assignmentOf(c.sub, "ba92f5b4-2d11-453d-a403-e96b0029c9fe", sp.ID)) // Storage Blob Data Contributor
	return s.token(c.t, ReadyAdmin{ClientID: app.AppID, ClientSecret: key.SecretText}, "https://storage.azure.com")
}

// dial is a connection; little has room for little that was not read.
func (c *crowd) dial(little bool) (*tls.Conn, error) {
	tcp, err := net.Dial("tcp", c.listen)
	if err != nil {
		return nil, err
	}
	if little {
		_ = tcp.(*net.TCPConn).SetReadBuffer(4 << 10) // the kernel's choice else
	}
	conn := tls.Client(tcp, c.tls)
	if err := conn.Handshake(); err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	return conn, nil
}

// head is the beginning of a request.
func (c *crowd) head(token, method, path string, header ...string) []byte {
	b := fmt.Appendf(nil, "%s /con/%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nx-ms-version: %s\r\n", method, path, c.tls.ServerName, token, storageVersion)
	for i := 0; i+1 < len(header); i += 2 {
		b = fmt.Appendf(b, "%s: %s\r\n", header[i], header[i+1])
	}
	return append(b, "\r\n"...)
}

// ended counts what became of a request, and of a connection that was not wanted to end.
func (c *crowd) ended(kind, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers[kind+": "+what]++
}

func (c *crowd) failed(kind string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures[kind+": "+err.Error()]++
}

// Kinds of clients. Each makes a connection, tells by ready that it is under way,
// and goes on until ctx is done.
type kind struct {
	name string
	run  func(c *crowd, ctx context.Context, token string, n int, ready func()) error
}

// idles asks for something small now and then on a connection that it keeps.
func idles(c *crowd, ctx context.Context, token string, n int, ready func()) error {
	conn, err := c.dial(false)
	if err != nil {
		return err
	}
	defer conn.Close()
	in, ask := bufio.NewReaderSize(conn, 1<<10), c.head(token, http.MethodGet, "small")
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		if _, err := conn.Write(ask); err != nil {
			return err
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return err
		}
		c.ended("idle", res.Status)
		ready()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// readsSlowly asks for something large and takes a few bytes of it every second.
func readsSlowly(c *crowd, ctx context.Context, token string, n int, ready func()) error {
	conn, err := c.dial(true)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(c.head(token, http.MethodGet, "large")); err != nil {
		return err
	}
	in := bufio.NewReaderSize(conn, 1<<10)
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	c.ended("slow", res.Status)
	ready()
	return drips(ctx, func() error {
		if res.StatusCode != http.StatusOK {
			return nil
		}
		_, err := io.CopyN(io.Discard, res.Body, 2<<10)
		if errors.Is(err, io.ErrUnexpectedEOF) { // on a busy machine it may be slower than anybody may be
			c.ended("slow", "cut")
			<-ctx.Done()
			return nil
		}
		return err
	})
}

// declares says that 5 TB come, and gigabytes where a block may have them, and sends drop by drop.
func declares(c *crowd, ctx context.Context, token string, n int, ready func()) error {
	conn, err := c.dial(false)
	if err != nil {
		return err
	}
	defer conn.Close()
	size, path := int64(5)<<40, fmt.Sprintf("huge%d", n)
	if n%8 != 0 {
		size, path = 3900<<20, path+"?comp=block&blockid=AAAA"
	}
	if _, err := conn.Write(c.head(token, http.MethodPut, path, "x-ms-blob-type", "BlockBlob", "Content-Length", strconv.FormatInt(size, 10))); err != nil {
		return err
	}
	refused := make(chan string, 1)
	go func() {
		res, err := http.ReadResponse(bufio.NewReaderSize(conn, 1<<10), nil)
		if err == nil {
			refused <- res.Status
		} else if ctx.Err() == nil {
			refused <- err.Error()
		}
		close(refused)
	}()
	if n%2 == 0 { // more than what lies in the store
		_, _ = conn.Write(make([]byte, 40<<10)) // it may have been refused
	}
	drop := make([]byte, 2<<10)
	begun := time.After(time.Second)
	for told := false; ; {
		select {
		case status, ok := <-refused:
			if ok {
				c.ended("huge", status)
			}
			ready()
			<-ctx.Done()
			return nil
		case <-begun:
			if !told {
				told = true
				c.ended("huge", "goes on")
				ready()
			}
		case <-ctx.Done():
			return nil
		default:
			if _, err := conn.Write(drop); err != nil {
				_, _ = err, <-refused
				continue
			}
			if err := wait(ctx, time.Second); err != nil {
				return nil
			}
		}
	}
}

// wait is for a client that takes its time.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drips does a little every second until ctx is done.
func drips(ctx context.Context, do func() error) error {
	for wait(ctx, time.Second) == nil {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// Ten thousand clients at once (REL-21): most keep connections and ask now and
// then, many read slowly, many declare terabytes. The platform answers them with
// success, with too many (429) or too large (413), never with an error of its own,
// in less than 1 GB; and somebody else is served meanwhile.
func TestCrowd(t *testing.T) {
	t.Parallel()
	size := crowdSize
	if n, err := strconv.Atoi(os.Getenv("CASTELLAN_CROWD")); err == nil {
		size = n
	}
	s := spawn(t, t.TempDir()+"/data")
	l := newLab(t, s)
	c := newCrowd(t, s, l)
	head := []string{"x-ms-version", storageVersion, "x-ms-blob-type", "BlockBlob"}
	for name, n := range map[string]int{"small": 4 << 10, "large": 16 << 20} {
		l.must(t, nil, l.blob, http.MethodPut, l.blobURL+"con/"+name, bytesOf(name, n), head...)
	}
	honest := c.person(s)
	var tokens []string
	for range size/1000 + 2 {
		tokens = append(tokens, c.person(s))
	}
	alone := c.latencies(honest, time.Second)
	before := resident(s.cmd.Process.Pid)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	kinds := []kind{{"idle", idles}, {"idle", idles}, {"slow", readsSlowly}, {"huge", declares}}
	var ready, all sync.WaitGroup
	turn := make(chan struct{}, 32) // so many greet at once
	for i := range size {
		k := kinds[i%len(kinds)]
		ready.Add(1)
		all.Go(func() {
			once := sync.OnceFunc(ready.Done)
			defer once()
			turn <- struct{}{}
			leave := sync.OnceFunc(func() { <-turn; once() })
			defer leave()
			if err := k.run(c, ctx, tokens[i%len(tokens)], i/len(kinds), leave); err != nil && ctx.Err() == nil {
				c.failed(k.name, err)
			}
		})
	}
	begin := time.Now()
	ready.Wait()
	t.Logf("%d clients are there after %v", size, time.Since(begin).Round(time.Millisecond))
	among := c.latencies(honest, time.Duration(1+size/1000)*time.Second)
	peak := resident(s.cmd.Process.Pid)
	stop()
	all.Wait()
	t.Logf("resident: %d MB before, %d MB with all (%d KB for each); %v", before>>10, peak>>10, (peak-before)/size, c.answers)
	t.Logf("somebody else's requests, alone: %v; among all: %v", alone, among)
	if peak > 1<<20 {
		t.Errorf("%d MB are resident, of 1,024", peak>>10)
	}
	for what, n := range c.answers {
		if strings.Contains(what, ": 5") {
			t.Errorf("%d answers are %s", n, what)
		}
	}
	for what, n := range c.failures {
		t.Errorf("%d connections ended: %s", n, what)
	}
	if c.answers["idle: 200 OK"] == 0 || c.answers["slow: 200 OK"] == 0 || c.answers["huge: goes on"] == 0 {
		t.Errorf("not all kinds of clients were served: %v", c.answers)
	}
	r, err := l.send(l.blob, http.MethodGet, l.blobURL+"con/small", nil, head[:2]...)
	if err != nil || r.status != http.StatusOK {
		t.Errorf("after the crowd: %d, %v", r.status, err)
	}
}

// latency is how long requests took.
type latency struct {
	n         int
	p50, p99  time.Duration
	worst     time.Duration
	notServed int
}

// latencies has four callers read and write for some time.
func (c *crowd) latencies(token string, d time.Duration) (out latency) {
	var mu sync.Mutex // guards took and out
	var took []time.Duration
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	for i := range 4 {
		wg.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				do := asks(c.door, token, http.MethodGet, c.blobURL+"con/small", nil, "x-ms-version", storageVersion)
				if n%5 == 0 {
					do = asks(c.door, token, http.MethodPut, fmt.Sprintf("%scon/honest%d", c.blobURL, i), []byte("x"), "x-ms-version", storageVersion, "x-ms-blob-type", "BlockBlob")
				}
				begin := time.Now()
				err := do()
				mu.Lock()
				if took = append(took, time.Since(begin)); err != nil {
					out.notServed++
					c.t.Errorf("somebody else is not served: %v", err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(took)
	out.n, out.p50, out.p99, out.worst = len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
	return out
}
