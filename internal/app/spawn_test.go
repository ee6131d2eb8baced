package app

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	_ "net/http/pprof"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/server"
)

// serverFolder names the data folder that this program, started again, serves.
const serverFolder = "CASTELLAN_TEST_SERVER"

// serveIfAsked lets the test binary be the platform, as castellan up is. It
// ends with its standard input, so that it never outlives the test.
func serveIfAsked() {
	dir := os.Getenv(serverFolder)
	if dir == "" {
		return
	}
	if err := serveFolder(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serveFolder(dir string) error {
	signal.Ignore(syscall.SIGXFSZ) // a test may let the disk be full
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test goes
		stop()
	}()
	if at := os.Getenv("CASTELLAN_TEST_PPROF"); at != "" { // where a benchmark's server tells what it does
		go func() { fmt.Fprintln(os.Stderr, http.ListenAndServe(at, nil)) }()
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	log.Debug(firstLine) // so that a test can tell that it has the log
	a, err := New(ctx, Config{Data: dir, Log: log})
	if err != nil {
		return err
	}
	e, err := Listen(a, "127.0.0.1:0", "127.0.0.1:0")
	if err != nil {
		return err
	}
	a.Run(ctx)
	ready, err := e.Ready()
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- e.Serve(ctx) }()
	if err := json.NewEncoder(os.Stdout).Encode(ready); err != nil {
		return err
	}
	if err := <-done; err != nil {
		return err
	}
	return a.Close()
}

// firstLine is the first line of every log of a platform that a test started.
const firstLine = "a test starts the platform"

func serving(dir string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serverFolder+"="+dir)
	return cmd
}

// served is a platform in a process of its own.
type served struct {
	door
	dir   string
	ready Ready
	cmd   *exec.Cmd
	in    io.Closer
	said  *said // all that it printed, but for the first line
	once  sync.Once
}

// said is what a process printed.
type said struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) Bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.b.Bytes())
}

// spawn starts a platform on a data folder and waits until it is ready.
func spawn(t testing.TB, dir string) *served {
	t.Helper()
	s := &served{dir: dir, cmd: serving(dir), said: &said{}}
	s.cmd.Stderr = s.said
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.kill(t) })
	lines := bufio.NewReader(out)
	line, err := lines.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &s.ready)
	}
	if err != nil {
		s.kill(t)
		t.Fatalf("the platform did not start: %v\n%s", err, s.said.Bytes())
	}
	go func() { _, _ = io.Copy(s.said, lines) }() // until it is killed
	pem, err := os.ReadFile(s.ready.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	s.door = newDoor(s.ready.Listen, pem)
	return s
}

// kill ends the platform as a power cut would, at once.
func (s *served) kill(t testing.TB) {
	t.Helper()
	s.once.Do(func() {
		_ = s.cmd.Process.Kill() // it may have ended
		_ = s.cmd.Wait()
		_ = s.in.Close()
		if s.door.http != nil {
			s.door.http.CloseIdleConnections()
		}
	})
}

// stop ends the platform as a signal would.
func (s *served) stop(t testing.TB) {
	t.Helper()
	s.once.Do(func() {
		_ = s.in.Close()
		if err := s.cmd.Wait(); err != nil {
			t.Errorf("the platform ended with %v\n%s", err, s.said.Bytes())
		}
	})
}

// door is how clients reach a platform: TLS, by its own names.
type door struct{ http *http.Client }

func newDoor(listen string, pem []byte) door {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	dial := server.Dial(listen)
	return door{&http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		TLSClientConfig:     &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost: 32,
	}}}
}

// reply is what a door answered.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (d door) send(token, method, u string, body any, header ...string) (reply, error) {
	var in []byte
	contentType := ""
	switch b := body.(type) {
	case nil:
	case []byte:
		in, contentType = b, "application/octet-stream"
	case url.Values:
		in, contentType = []byte(b.Encode()), "application/x-www-form-urlencoded"
	default:
		j, err := json.Marshal(b)
		if err != nil {
			return reply{}, err
		}
		in, contentType = j, "application/json"
	}
	req, err := http.NewRequest(method, versioned(u), bytes.NewReader(in))
	if err != nil {
		return reply{}, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := d.http.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, out}, err
}

// must is send whose answer must be 2xx, read into out if that is not nil.
func (d door) must(t testing.TB, out any, token, method, u string, body any, header ...string) reply {
	t.Helper()
	a, err := d.send(token, method, u, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	if a.status/100 != 2 {
		t.Fatalf("%s %s = %d %s", method, u, a.status, a.body)
	}
	if out != nil {
		if err := json.Unmarshal(a.body, out); err != nil {
			t.Fatalf("%s %s: %v in %s", method, u, err, a.body)
		}
	}
	return a
}

// token signs an application in for an audience.
func (s *served) token(t testing.TB, who ReadyAdmin, audience string) string {
	t.Helper()
	var out struct {
		Token string `json:"access_token"`
	}
	s.must(t, &out, "", http.MethodPost, s.ready.Login+"/"+s.ready.TenantID+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {who.ClientID}, "client_secret": {who.ClientSecret}, "scope": {audience + "/.default"},
	})
	return out.Token
}

// claimOf reads a claim of a token, as clients do.
func claimOf(token, name string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	b, _ := base64.RawURLEncoding.DecodeString(parts[1]) // what is malformed has no claims
	var c map[string]any
	_ = json.Unmarshal(b, &c)
	v, _ := c[name].(string)
	return v
}

const storageVersion = "2023-11-03"

// roles are some built-in roles without data actions.
var roles = []string{"acdd72a7-3385-48ef-bd42-f606fba81ae7", "b24988ac-6180-42a0-ab88-20f7382dd24c"}

// lab is a workspace with its storage, its vault and an experiment in a
// platform that runs apart, and the first administrator's tokens.
type lab struct {
	door
	dir, base, sub, location  string
	arm, graph, vault, blob   string // tokens
	group, workspace          string // ids
	vaultURL, blobURL, mlflow string
	experiment, owner, nobody string // the latter two: object ids
	account, nobodyID         string
}

func (l *lab) url(id string) string {
	return l.base + id + "?api-version=" + resource.VersionFor(id)
}

func assignmentOf(sub, role, principal string) map[string]any {
	return map[string]any{"properties": map[string]any{
		"roleDefinitionId": "/subscriptions/" + sub + "/providers/Microsoft.Authorization/roleDefinitions/" + role,
		"principalId":      principal, "principalType": "ServicePrincipal",
	}}
}

// newLab makes a lab by the platform's doors.
func newLab(t testing.TB, s *served) *lab {
	t.Helper()
	r := s.ready
	l := &lab{door: s.door, dir: s.dir, base: r.ARM, sub: r.SubscriptionID, location: r.Location}
	l.arm, l.graph = s.token(t, *r.Admin, r.ARM), s.token(t, *r.Admin, r.Graph)
	l.vault, l.blob = s.token(t, *r.Admin, "https://vault.azure.net"), s.token(t, *r.Admin, "https://storage.azure.com")
	l.owner = claimOf(l.arm, "oid")
	var app, sp struct{ ID, AppID string }
	l.must(t, &app, l.graph, http.MethodPost, r.Graph+"/v1.0/applications", map[string]any{"displayName": "nobody"})
	l.must(t, &sp, l.graph, http.MethodPost, r.Graph+"/v1.0/servicePrincipals", map[string]any{"appId": app.AppID})
	l.nobody, l.nobodyID = sp.ID, app.AppID
	l.account, l.group = "labaccount", "/subscriptions/"+l.sub+"/resourceGroups/lab"
	storage := l.group + "/providers/Microsoft.Storage/storageAccounts/" + l.account
	vault := l.group + "/providers/Microsoft.KeyVault/vaults/lab-vault"
	l.workspace = l.group + "/providers/Microsoft.MachineLearningServices/workspaces/lab"
	l.vaultURL, l.blobURL = "https://lab-vault."+r.Suffixes["vault"]+"/", "https://"+l.account+"."+r.Suffixes["blob"]+"/"
	l.put(t, l.group, map[string]any{"location": l.location})
	l.put(t, storage, map[string]any{"location": l.location, "kind": "StorageV2", "sku": map[string]any{"name": "Standard_LRS"}, "properties": map[string]any{}})
	l.put(t, vault, map[string]any{"location": l.location, "properties": map[string]any{"tenantId": r.TenantID, "sku": map[string]any{"family": "A", "name": "standard"}, "enableRbacAuthorization": true}})
	for role, scope := range map[string]string{"b7e6dc6d-f1e8-4753-8033-0f276bb0955b": storage, "00482a5a-887f-4fb3-b363-3b7fe8e74483": vault} {
		l.put(t, scope+"/providers/Microsoft.Authorization/roleAssignments/"+arm.NewUUID(), assignmentOf(l.sub, role, l.owner))
	}
	l.put(t, l.workspace, map[string]any{"location": l.location, "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{"storageAccount": storage, "keyVault": vault}})
	l.must(t, nil, l.blob, http.MethodPut, l.blobURL+"con?restype=container", nil, "x-ms-version", storageVersion)
	l.mlflow = l.base + "/mlflow/v2.0" + l.workspace + "/api/2.0/mlflow/"
	var exp struct {
		ID string `json:"experiment_id"`
	}
	l.must(t, &exp, l.arm, http.MethodPost, l.mlflow+"experiments/create", map[string]any{"name": "lab"})
	l.experiment = exp.ID
	return l
}

// put makes a resource and waits until it is there.
func (l *lab) put(t testing.TB, id string, body any) {
	t.Helper()
	l.must(t, nil, l.arm, http.MethodPut, l.url(id), body)
	l.until(t, time.Minute, id, func() bool {
		var got struct {
			Properties struct {
				State string `json:"provisioningState"`
			} `json:"properties"`
		}
		a := l.must(t, &got, l.arm, http.MethodGet, l.url(id), nil)
		if s := got.Properties.State; s == "Failed" || s == "Canceled" {
			t.Fatalf("%s is %s: %s", id, s, a.body)
		}
		return got.Properties.State == "" || got.Properties.State == "Succeeded"
	})
}

// until asks again until done.
func (l *lab) until(t testing.TB, limit time.Duration, what string, done func() bool) {
	t.Helper()
	tick, end := time.NewTicker(20*time.Millisecond), time.After(limit)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s: it took longer than %s", what, limit)
		}
	}
}
