package app

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/rbac"
	"castellan/internal/resource"
	"castellan/internal/seal"
	"castellan/internal/server"
	"castellan/internal/store"
)

// bareFolder names the folder that this program, started again, serves with
// nothing but net/http: what the platform is held against.
const bareFolder = "CASTELLAN_TEST_BARE"

// bare is a handler that does the platform's input and output and nothing else:
// GET reads a file; PUT writes one, as durably. It asks nobody who they are,
// decides nothing, records nothing and encrypts nothing.
func bare(dir string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{name}", func(w http.ResponseWriter, r *http.Request) {
		b, err := os.ReadFile(filepath.Join(dir, r.PathValue("name")))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		_, _ = w.Write(b) // the client's loss
	})
	mux.HandleFunc("PUT /{name}", func(w http.ResponseWriter, r *http.Request) {
		if err := keepFile(dir, r.PathValue("name"), r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusCreated)
	})
	sealedRoutes(mux, dir)
	return mux
}

// keepFile writes a file and returns when it is durable.
func keepFile(dir, name string, in io.Reader) error {
	f, err := os.CreateTemp(dir, "new")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, in)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// serveBareIfAsked is serveIfAsked for the bare handler.
func serveBareIfAsked() {
	dir := os.Getenv(bareFolder)
	if dir == "" {
		return
	}
	site := arm.Site{Suffix: "bare.localhost"}
	cert, key, err := server.NewAuthority("bare", time.Now())
	if err != nil {
		panic(err)
	}
	ca, err := server.OpenAuthority(cert, key, site, time.Now)
	if err != nil {
		panic(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	srv := &http.Server{Handler: bare(dir), TLSConfig: ca.TLS()}
	go func() { _ = srv.ServeTLS(l, "", "") }() // until the process ends
	_ = json.NewEncoder(os.Stdout).Encode(map[string]string{"listen": l.Addr().String(), "ca": string(ca.PEM())})
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test goes
	os.Exit(0)
}

// spawnBare starts the bare handler in a process of its own.
func spawnBare(b *testing.B) (d door, dir string, pid int) {
	b.Helper()
	dir = b.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), bareFolder+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	var ready struct{ Listen, CA string }
	if err := json.NewDecoder(out).Decode(&ready); err != nil {
		b.Fatal(err)
	}
	return newDoor(ready.Listen, []byte(ready.CA)), dir, cmd.Process.Pid
}

// pair is one thing done by the bare handler and by the platform.
type pair struct {
	name        string
	plain, ours func() error
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// turns has width callers do a thing at once, and takes the time for all of
// them; the plain and ours take turns, so that what else the machine does hurts
// both alike. It reports medians for one thing, and their ratio.
func turns(b *testing.B, width int, p pair) {
	b.Helper()
	once := func(do func() error) time.Duration {
		var wg sync.WaitGroup
		errs := make([]error, width)
		begin := time.Now()
		for i := range width {
			wg.Go(func() { errs[i] = do() })
		}
		wg.Wait()
		took := time.Since(begin)
		if err := errors.Join(errs...); err != nil {
			b.Fatal(err)
		}
		return took
	}
	for range 3 { // connections are made, tokens seen
		once(p.plain)
		once(p.ours)
	}
	var plain, ours []time.Duration
	for b.Loop() {
		plain, ours = append(plain, once(p.plain)), append(ours, once(p.ours))
	}
	x, y := median(plain), median(ours)
	b.ReportMetric(float64(x.Microseconds())/float64(width), "bare-µs")
	b.ReportMetric(float64(y.Microseconds())/float64(width), "ours-µs")
	b.ReportMetric(float64(y)/float64(x), "ratio")
	b.ReportMetric(0, "ns/op")
}

// asks is a request, made ready to be sent again and again; it wants 2xx.
func asks(d door, token, method, u string, body []byte, header ...string) func() error {
	return func() error {
		req, err := http.NewRequest(method, u, bytes.NewReader(body))
		if err != nil {
			return err
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		res, err := d.http.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return err
		}
		if res.StatusCode/100 != 2 {
			return fmt.Errorf("%s %s = %d", method, u, res.StatusCode)
		}
		return nil
	}
}

// What the gate, its decision, its record and the encryption cost, end to end
// through TLS, against net/http doing the same input and output without them.
func BenchmarkEdge(b *testing.B) {
	s := spawn(b, b.TempDir()+"/data")
	l := newLab(b, s)
	plain, dir, _ := spawnBare(b)
	doc := l.must(b, nil, l.arm, http.MethodGet, l.url(l.workspace), nil)
	if err := os.WriteFile(filepath.Join(dir, "workspace"), doc.body, 0o600); err != nil {
		b.Fatal(err)
	}
	const at = "https://bare.localhost/"
	pairs := []pair{{"ARM-GET", asks(plain, "", http.MethodGet, at+"workspace", nil), asks(l.door, l.arm, http.MethodGet, l.url(l.workspace), nil)}}
	head := []string{"x-ms-version", storageVersion, "x-ms-blob-type", "BlockBlob"}
	for _, size := range []int{4 << 10, 1 << 20} {
		data, name := bytesOf("bench", size), fmt.Sprintf("b%d", size)
		put := pair{"blob-PUT-" + strconv.Itoa(size>>10) + "KiB", asks(plain, "", http.MethodPut, at+name, data), asks(l.door, l.blob, http.MethodPut, l.blobURL+"con/"+name, data, head...)}
		if err := errors.Join(put.plain(), put.ours()); err != nil {
			b.Fatal(err)
		}
		get := pair{"blob-GET-" + strconv.Itoa(size>>10) + "KiB", asks(plain, "", http.MethodGet, at+name, nil), asks(l.door, l.blob, http.MethodGet, l.blobURL+"con/"+name, nil, head...)}
		pairs = append(pairs, get, put)
	}
	for _, p := range pairs {
		for _, width := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/%d", p.name, width), func(b *testing.B) { turns(b, width, p) })
		}
	}
}

// How long a start takes until the platform is ready, and how much memory it
// has then, on a small data folder and on one with 10,000 role assignments.
func BenchmarkReady(b *testing.B) {
	for _, n := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("%d-assignments", n), func(b *testing.B) {
			s := spawn(b, b.TempDir()+"/data")
			l := newLab(b, s)
			s.stop(b)
			giveMany(b, s.dir, l.nobody, n)
			var took []time.Duration
			var rss []int
			for b.Loop() {
				begin := time.Now()
				again := spawn(b, s.dir)
				took = append(took, time.Since(begin))
				rss = append(rss, resident(again.cmd.Process.Pid))
				again.stop(b)
			}
			slices.Sort(rss)
			b.ReportMetric(float64(median(took).Milliseconds()), "ready-ms")
			b.ReportMetric(float64(rss[len(rss)/2])/1024, "idle-MB")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// resident is a process's resident memory in KiB, where the system tells it.
func resident(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	n, _ := strconv.Atoi(strings.Fields(rest + " 0")[0]) // 0 where it is not told
	return n
}

// giveMany gives someone n roles at n/10 groups, in one transaction.
func giveMany(b *testing.B, dir, someone string, n int) {
	b.Helper()
	a, err := New(b.Context(), Config{Data: dir})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	all := rbac.BuiltIn()[:10]
	if err := a.db.Do(b.Context(), func(tx *store.Tx) error {
		for i := range n / 10 {
			id := arm.MustID(fmt.Sprintf("/subscriptions/%s/resourceGroups/full-%d", a.Site.Subscription, i))
			if err := resource.Save(tx, &resource.Doc{ID: id, Name: id.Name(), Type: resource.Group.Type, Location: a.Site.Location, Instance: arm.NewUUID(), Etag: `"1"`}); err != nil {
				return err
			}
			for _, role := range all {
				if err := a.roles.Assign(tx, rbac.Assignment{Scope: id, RoleID: role.ID, Principal: someone, PrincipalType: arm.ServicePrincipal}, a.system(a.Site.Tenant, "bench", nil)); err != nil {
					return err
				}
			}
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
}

// A token that was seen before, against the least that could be done: hashing
// its text and one look into a map; and against the signature's verification alone.
func BenchmarkVerifyToken(b *testing.B) {
	a, err := New(b.Context(), Config{Data: b.TempDir() + "/data"})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	raw := benchToken(b, a)
	k := sha256.Sum256([]byte(raw))
	known := map[[sha256.Size]byte]bool{k: true}
	b.Run("seen", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := a.identity.VerifyToken(b.Context(), raw, a.Site.ARMAudiences()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("limit-hash-and-map", func(b *testing.B) {
		for b.Loop() {
			if !known[sha256.Sum256([]byte(raw))] {
				b.Fatal("not there")
			}
		}
	})
	b.Run("bare-RSA-verify", func(b *testing.B) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			b.Fatal(err)
		}
		sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, k[:])
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, k[:], sig) != nil {
				b.Fatal("refused")
			}
		}
	})
}

// benchToken is a token of the first application.
func benchToken(b *testing.B, a *App) string {
	b.Helper()
	body := "grant_type=client_credentials&client_id=" + a.Admin.ClientID + "&client_secret=" + string(a.Admin.ClientSecret.Reveal()) + "&scope=" + a.Site.Base() + "/.default"
	w := call(a, "", http.MethodPost, a.Site.Base()+"/"+a.Site.Tenant+"/oauth2/v2.0/token", body, "Content-Type", "application/x-www-form-urlencoded")
	var out struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || out.Token == "" {
		b.Fatalf("%d %s", w.Code, w.Body)
	}
	return out.Token
}

// From the PUT of a job that does nothing until it is Completed, with sandbox,
// history, log and clean-up, against fork and exec of the same command.
func BenchmarkJob(b *testing.B) {
	needsSandbox(b)
	s := spawn(b, b.TempDir()+"/data")
	l := newLab(b, s)
	l.put(b, l.workspace+"/computes/cpu", map[string]any{"location": l.location, "properties": map[string]any{
		"computeType": "AmlCompute", "properties": map[string]any{"vmSize": "Standard_DS1_v2", "scaleSettings": map[string]any{"maxNodeCount": 1}},
	}})
	n := 0
	p := pair{"", func() error { return exec.CommandContext(context.Background(), "/bin/sh", "-c", "true").Run() }, func() error {
		n++
		name := fmt.Sprint("job", n)
		l.start(name, "true", nil)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ; ; <-tick.C {
			switch st := l.status(name); st {
			case "Completed":
				return nil
			case "Failed", "Canceled":
				return fmt.Errorf("%s is %s: %s", name, st, l.log(name))
			}
		}
	}}
	turns(b, 1, p)
}

// What a change costs at least here: one sealed row, committed.
func BenchmarkCommit(b *testing.B) {
	db, err := store.Open(b.TempDir(), seal.Random())
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	row, dir, i := bytesOf("row", 1000), b.TempDir(), 0
	turns(b, 1, pair{"", func() error { return keepFile(dir, "f", bytes.NewReader(row)) }, func() error {
		i++
		return db.Do(b.Context(), func(tx *store.Tx) error { return tx.Put("t", strconv.Itoa(i), row) })
	}})
}
