package app

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// azurite is Microsoft's emulator of Azure Storage, as blobs are held against.
const azurite = "azurite@3.35.0"

// sealedRoutes are the least that encrypted, durable blobs take: AES-256-GCM in
// chunks of 64 KiB, on a file written durably. And the least that a key takes.
func sealedRoutes(mux *http.ServeMux, dir string) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	const chunk = 64 << 10
	nonce := func(n uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 4, 12), n) }
	mux.HandleFunc("PUT /sealed/{name}", func(w http.ResponseWriter, r *http.Request) {
		out, in := io.Pipe()
		go func() {
			plain, sealed := make([]byte, chunk), make([]byte, 0, chunk+16)
			for n := uint64(0); ; n++ {
				k, err := io.ReadFull(r.Body, plain)
				if k > 0 {
					if _, err := in.Write(gcm.Seal(sealed, nonce(n), plain[:k], nil)); err != nil {
						return
					}
				}
				if err != nil {
					_ = in.Close() // never fails
					return
				}
			}
		}()
		if err := keepFile(dir, r.PathValue("name"), out); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusCreated)
	})
	mux.HandleFunc("GET /sealed/{name}", func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(filepath.Join(dir, r.PathValue("name")))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		defer f.Close()
		sealed := make([]byte, chunk+16)
		for n := uint64(0); ; n++ {
			k, err := io.ReadFull(f, sealed)
			if k == 0 {
				return
			}
			plain, bad := gcm.Open(sealed[:0], nonce(n), sealed[:k], nil)
			if bad != nil {
				panic(http.ErrAbortHandler)
			}
			if _, werr := w.Write(plain); werr != nil || err != nil {
				return
			}
		}
	})
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	mux.HandleFunc("GET /secret", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"value":"a secret of this world"}`) })
	mux.HandleFunc("POST /key/{op}", func(w http.ResponseWriter, r *http.Request) {
		var in, out struct {
			Value []byte `json:"value"`
		}
		err := json.NewDecoder(r.Body).Decode(&in)
		switch {
		case err != nil:
		case r.PathValue("op") == "sign":
			out.Value, err = rsa.SignPKCS1v15(nil, key, 5, in.Value) // 5: SHA-256
		case r.PathValue("op") == "wrap":
			out.Value, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, &key.PublicKey, in.Value, nil)
		default:
			out.Value, err = rsa.DecryptOAEP(sha256.New(), nil, key, in.Value, nil)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(out) // the client's loss
	})
}

// rival is a server in a process of its own, and what it is asked by the n-th caller.
type rival struct {
	name string
	pid  int
	do   func(n int) error
}

// spent is the processor time of a process so far, in steps of 10 ms.
func spent(b *testing.B, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Skip("this system does not tell what a process took: ", err)
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, _ := strconv.Atoi(f[11]) // the kernel writes numbers
	kernel, _ := strconv.Atoi(f[12])
	return time.Duration(user+kernel) * 10 * time.Millisecond
}

// race has width callers of each rival in turns do times things in all, and
// reports time and the server's processor time of one, and ratios to the first.
func race(b *testing.B, width, times int, rivals ...rival) {
	b.Helper()
	clock, took := make([]time.Duration, len(rivals)), make([]time.Duration, len(rivals))
	round := func(r rival, times int) {
		var wg sync.WaitGroup
		errs := make([]error, width)
		for i := range width {
			wg.Go(func() {
				for range max(times/width, 1) {
					errs[i] = errors.Join(errs[i], r.do(i))
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			b.Fatal(r.name, ": ", err)
		}
	}
	for _, r := range rivals {
		round(r, width) // connections are made, tokens seen
	}
	const rounds = 3
	for range rounds {
		for i, r := range rivals {
			begin, before := time.Now(), spent(b, r.pid)
			round(r, times)
			clock[i] += time.Since(begin)
			took[i] += spent(b, r.pid) - before
		}
	}
	for i, r := range rivals {
		n := float64(rounds * max(times/width, 1) * width)
		b.ReportMetric(float64(clock[i].Microseconds())/n, r.name+"-µs")
		b.ReportMetric(float64(took[i].Microseconds())/n, r.name+"-cpu-µs")
		if i > 0 {
			b.ReportMetric(float64(clock[i])/float64(clock[0]), r.name+"/ours")
			b.ReportMetric(float64(took[i])/float64(took[0]), r.name+"/ours-cpu")
		}
	}
	b.ReportMetric(0, "ns/op")
}

// Blobs, encrypted and durable, against Azurite, which encrypts nothing, and
// against a handler with AES-GCM and fsync alone. Run it with -benchtime 1x.
func BenchmarkBlob(b *testing.B) {
	s := spawn(b, b.TempDir()+"/data")
	l := newLab(b, s)
	plain, _, bare := spawnBare(b)
	other, sas, pid := spawnAzurite(b)
	head := []string{"x-ms-version", storageVersion, "x-ms-blob-type", "BlockBlob"}
	for _, size := range []int{4 << 10, 1 << 20, 64 << 20} {
		data := bytesOf("bench", size)
		for _, method := range []string{http.MethodPut, http.MethodGet} {
			for _, width := range []int{1, 16} {
				b.Run(fmt.Sprintf("%s/%dKiB/%d", method, size>>10, width), func(b *testing.B) {
					ask := func(d door, token, to, query string) func(int) error {
						return func(n int) error {
							u := fmt.Sprintf("%sb%d-%d%s", to, size, n, query)
							if method == http.MethodGet {
								return asks(d, token, method, u, nil, head[:2]...)()
							}
							return asks(d, token, method, u, data, head...)()
						}
					}
					times := map[int]int{4 << 10: 320, 1 << 20: 48, 64 << 20: 2}[size]
					race(b, width, times, rival{"ours", s.cmd.Process.Pid, ask(l.door, l.blob, l.blobURL+"con/", "")},
						rival{"bare", bare, ask(plain, "", "https://bare.localhost/sealed/", "")},
						rival{"azurite", pid, ask(other, "", "https://127.0.0.1/bench/con/", "?"+sas)})
				})
			}
		}
	}
}

// spawnAzurite installs Azurite and starts its blobs with TLS, one account and
// one container; sas signs all that is asked.
func spawnAzurite(b *testing.B) (d door, sas string, pid int) {
	b.Helper()
	dir := b.TempDir()
	if out, err := exec.Command("npm", "install", "--silent", "--prefix", dir, azurite).CombinedOutput(); err != nil {
		b.Skipf("Azurite can't be installed: %v %s", err, out)
	}
	cert, key := selfSigned(b)
	for name, text := range map[string][]byte{"cert.pem": cert, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	secret := bytesOf("account key", 64)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	at := l.Addr().String()
	_, port, _ := net.SplitHostPort(at)
	_ = l.Close() // for Azurite to take
	cmd := exec.Command("node", filepath.Join(dir, "node_modules/azurite/dist/src/blob/main.js"), "--blobHost", "127.0.0.1", "--blobPort", port, "--location", filepath.Join(dir, "data"),
		"--cert", filepath.Join(dir, "cert.pem"), "--key", filepath.Join(dir, "key.pem"), "--silent", "--skipApiVersionCheck", "--disableTelemetry")
	cmd.Env = append(os.Environ(), "AZURITE_ACCOUNTS=bench:"+base64.StdEncoding.EncodeToString(secret))
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	q := url.Values{"sp": {"rwdlac"}, "ss": {"b"}, "srt": {"sco"}, "se": {"2099-01-01T00:00:00Z"}, "spr": {"https"}, "sv": {"2019-12-12"}}
	h := hmac.New(sha256.New, secret)
	fmt.Fprint(h, strings.Join([]string{"bench", "rwdlac", "b", "sco", "", q.Get("se"), "", "https", q.Get("sv"), ""}, "\n"))
	q.Set("sig", base64.StdEncoding.EncodeToString(h.Sum(nil)))
	d, sas = newDoor(at, cert), q.Encode()
	tick, end := time.NewTicker(50*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for {
		err := asks(d, "", http.MethodPut, "https://127.0.0.1/bench/con?restype=container&"+sas, nil, "x-ms-version", storageVersion)()
		if err == nil {
			return d, sas, cmd.Process.Pid
		}
		select {
		case <-tick.C:
		case <-end:
			b.Fatal("Azurite does not answer: ", err)
		}
	}
}

// selfSigned is a certificate for this machine, and its key.
func selfSigned(b *testing.B) (cert, key []byte) {
	b.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &k.PublicKey, k)
	if err != nil {
		b.Fatal(err)
	}
	p8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		b.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: p8})
}

// Secrets and keys of a vault against the same cryptography behind bare TLS.
func BenchmarkVault(b *testing.B) {
	s := spawn(b, b.TempDir()+"/data")
	l := newLab(b, s)
	plain, _, bare := spawnBare(b)
	const version, at = "?api-version=7.4", "https://bare.localhost/"
	l.must(b, nil, l.vault, http.MethodPut, l.vaultURL+"secrets/s"+version, map[string]any{"value": "a secret of this world"})
	var made struct {
		Key struct {
			ID string `json:"kid"`
		} `json:"key"`
	}
	l.must(b, &made, l.vault, http.MethodPost, l.vaultURL+"keys/k/create"+version, map[string]any{"kty": "RSA", "key_size": 2048})
	small := bytesOf("a key to wrap", 32)
	var theirs, ours struct {
		Value string `json:"value"`
	}
	text := base64.StdEncoding.EncodeToString(small)
	plain.must(b, &theirs, "", http.MethodPost, at+"key/wrap", map[string]any{"value": text})
	digest := base64.RawURLEncoding.EncodeToString(small)
	l.must(b, &ours, l.vault, http.MethodPost, made.Key.ID+"/wrapkey"+version, map[string]any{"alg": "RSA-OAEP-256", "value": digest})
	for _, width := range []int{1, 16} {
		run := func(name string, times int, do, bareDo func() error) {
			b.Run(fmt.Sprintf("%s/%d", name, width), func(b *testing.B) {
				race(b, width, times, rival{"ours", s.cmd.Process.Pid, func(int) error { return do() }}, rival{"bare", bare, func(int) error { return bareDo() }})
			})
		}
		run("secret", 640, asks(l.door, l.vault, http.MethodGet, l.vaultURL+"secrets/s"+version, nil), asks(plain, "", http.MethodGet, at+"secret", nil))
		for _, op := range []struct{ name, path, alg, ours, bare string }{{"sign", "/sign", "RS256", digest, text}, {"wrap", "/wrapkey", "RSA-OAEP-256", digest, text}, {"unwrap", "/unwrapkey", "RSA-OAEP-256", ours.Value, theirs.Value}} {
			run(op.name, 160, asks(l.door, l.vault, http.MethodPost, made.Key.ID+op.path+version, fmt.Appendf(nil, `{"alg":%q,"value":%q}`, op.alg, op.ours), "Content-Type", "application/json"),
				asks(plain, "", http.MethodPost, at+"key/"+op.name, fmt.Appendf(nil, `{"value":%q}`, op.bare)))
		}
	}
}

// Memory after a start and while all is listed, with more and more blobs. How many
// at last: CASTELLAN_BLOBS, or 10,000. With TMPDIR in memory they are written sooner.
func BenchmarkBlobMemory(b *testing.B) {
	most, _ := strconv.Atoi(os.Getenv("CASTELLAN_BLOBS"))
	s := spawn(b, b.TempDir()+"/data")
	admin := *s.ready.Admin // which later starts do not tell
	l := newLab(b, s)
	token, to := l.blob, l.blobURL
	made := 0
	for n := 1000; n <= max(most, 10_000); n *= 10 {
		for made < n {
			token = s.token(b, admin, "https://storage.azure.com") // one does not live as long as a million writes take
			next := min(n, made+100_000)
			var wg sync.WaitGroup
			errs := make([]error, 16)
			for i := range errs {
				wg.Go(func() {
					for k := made + i; k < next && errs[i] == nil; k += len(errs) {
						errs[i] = asks(s.door, token, http.MethodPut, fmt.Sprintf("%scon/b%07d", to, k), []byte("x"), "x-ms-version", storageVersion, "x-ms-blob-type", "BlockBlob")()
					}
				})
			}
			wg.Wait()
			if err := errors.Join(errs...); err != nil {
				b.Fatal(err)
			}
			made = next
			b.Logf("%d blobs are there, %d MB resident", made, resident(s.cmd.Process.Pid)>>10)
		}
		s.stop(b)
		s = spawn(b, s.dir)
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			start, listed, peak := resident(s.cmd.Process.Pid), 0, 0
			for marker := ""; ; {
				r, err := s.send(token, http.MethodGet, to+"con?restype=container&comp=list&marker="+url.QueryEscape(marker), nil, "x-ms-version", storageVersion)
				if err != nil || r.status != http.StatusOK {
					b.Fatal(r.status, err)
				}
				listed += strings.Count(string(r.body), "<Name>")
				peak = max(peak, resident(s.cmd.Process.Pid))
				_, rest, _ := strings.Cut(string(r.body), "<NextMarker>")
				if marker, _, _ = strings.Cut(rest, "</NextMarker>"); marker == "" {
					break
				}
			}
			if listed != n {
				b.Fatalf("%d blobs are listed, of %d", listed, n)
			}
			b.ReportMetric(float64(start)/1024, "start-MB")
			b.ReportMetric(float64(peak)/1024, "listing-MB")
			b.ReportMetric(0, "ns/op")
		})
	}
}
