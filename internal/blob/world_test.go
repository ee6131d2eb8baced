package blob

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/gate"
	"castellan/internal/rbac"
	"castellan/internal/resource"
	"castellan/internal/seal"
	"castellan/internal/store"
)

const (
	tenant   = "11111111-1111-1111-1111-111111111111"
	sub      = "22222222-2222-2222-2222-222222222222"
	rg       = "/subscriptions/" + sub + "/resourceGroups/rg"
	accounts = rg + "/providers/Microsoft.Storage/storageAccounts/"

	owner   = "00000000-0000-0000-0000-00000000000a"
	reads   = "00000000-0000-0000-0000-00000000000b" // Storage Blob Data Reader
	contrib = "00000000-0000-0000-0000-00000000000c" // Storage Blob Data Contributor
	nobody  = "00000000-0000-0000-0000-00000000000f"
)

// world is storage accounts behind the real gate, real roles and a real store;
// which person a token is for is what it says.
type world struct {
	t     testing.TB
	dir   string
	root  seal.Key
	db    *store.DB
	log   *audit.Log
	gate  *gate.Gate
	roles *rbac.Engine
	s     *Service
	srv   *httptest.Server
	off   context.CancelFunc
	done  chan error

	mu  sync.Mutex // guards now
	now time.Time
}

func (w *world) clock() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now }

func (w *world) pass(d time.Duration) { w.mu.Lock(); w.now = w.now.Add(d); w.mu.Unlock() }

func newWorld(t testing.TB) *world {
	t.Helper()
	if x, ok := t.(*testing.T); ok {
		x.Parallel()
	}
	return newWorldAlone(t)
}

// newWorldAlone is newWorld for what must not run beside other tests.
func newWorldAlone(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), root: seal.Random(), now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), roles: rbac.New(rbac.BuiltIn())}
	w.start()
	t.Cleanup(func() { w.stop() })
	w.found()
	return w
}

// newWorldIn is newWorld in a folder, with its root key beside it, that another
// process can open.
func newWorldIn(t testing.TB, dir string) *world {
	t.Helper()
	key, err := seal.FromFile(filepath.Join(dir, "root-key"), true)
	w := &world{t: t, dir: dir, root: key, now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), roles: rbac.New(rbac.BuiltIn())}
	w.must(err)
	w.start()
	w.found()
	return w
}

// found makes a subscription, a group, people with roles and the account acct1
// with the container con1.
func (w *world) found() {
	w.must(w.db.Do(w.t.Context(), func(tx *store.Tx) error {
		for _, d := range []*resource.Doc{{ID: arm.MustID("/subscriptions/" + sub), Name: sub, Type: resource.Subscription.Type}, {ID: arm.MustID(rg), Name: "rg", Type: resource.Group.Type}} {
			if err := resource.Save(tx, d); err != nil {
				return err
			}
		}
		return nil
	}))
	w.grant()
	w.account("acct1", "")
	w.do(contrib, "PUT", "acct1:/con1?restype=container", nil, 201)
}

func (w *world) grant() {
	w.give(owner, "Owner", "/subscriptions/"+sub)
	w.give(reads, "Storage Blob Data Reader", "/subscriptions/"+sub)
	w.give(contrib, "Storage Blob Data Contributor", "/subscriptions/"+sub)
}

func (w *world) account(name, props string) {
	w.t.Helper()
	w.do(owner, "PUT", "arm:"+accounts+name, []byte(`{"location":"local","sku":{"name":"Standard_LRS"},"kind":"StorageV2","properties":{`+props+`}}`), 200)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) give(who, role, scope string) (remove func()) {
	w.t.Helper()
	for _, r := range w.roles.Roles() {
		if r.Name == role {
			id := scope + "/providers/Microsoft.Authorization/roleAssignments/" + arm.NewHex()
			w.must(w.roles.PutAssignment(rbac.Assignment{ID: id, Scope: arm.MustID(scope), RoleID: r.ID, Principal: who}))
			return func() { w.roles.RemoveAssignment(id) }
		}
	}
	w.t.Fatalf("there is no role %q", role)
	return nil
}

var testSite = arm.Site{Suffix: "castellan.localhost", Tenant: tenant, Subscription: sub, Location: "local"}

func person(object string) arm.Caller {
	return arm.Caller{Object: object, Tenant: tenant, Kind: arm.User, Name: object, Token: "access"}
}

func (w *world) may(c arm.Caller, a arm.Action, id arm.ID) bool {
	return w.roles.Decide(c, a, id).Allowed
}

func (w *world) start() {
	w.t.Helper()
	who := w.setup()
	rs := &resource.Server{DB: w.db, Gate: w.gate, Now: w.clock, Site: testSite}
	armPlane := &gate.Plane{Name: "arm", Fold: true, Who: who, Refuse: gate.RefuseARM, Routes: w.s.Routes()}
	for _, k := range append([]*resource.Kind{resource.Subscription, resource.Group}, w.s.Kinds()...) {
		armPlane.Routes = append(armPlane.Routes, rs.Routes(k)...)
	}
	w.srv = httptest.NewTLSServer(edge(w.gate, armPlane, w.s.Plane(), w.s.Paths(), w.s.Shares()))
	ctx, cancel := context.WithCancel(context.Background())
	w.off, w.done = cancel, make(chan error, 1)
	done := w.done
	go func() { done <- w.s.Run(ctx) }()
}

// setup opens the store and the service, and says who is who.
func (w *world) setup() func(r *http.Request) (arm.Caller, error) {
	w.t.Helper()
	if w.roles == nil {
		w.roles = rbac.New(rbac.BuiltIn())
		w.grant()
	}
	var err error
	w.db, err = store.Open(w.dir, w.root)
	w.must(err)
	w.log = audit.New(w.db, w.clock)
	who := func(r *http.Request) (arm.Caller, error) {
		name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok || len(name) != len(owner) {
			return arm.Caller{}, arm.Errorf(arm.Unauthenticated, "there is no bearer token")
		}
		return person(name), nil
	}
	w.gate = gate.New(func(c arm.Caller, a arm.Action, on gate.Target) (bool, string) {
		d := w.roles.DecideWith(c, a, on.ID, on.Attributes)
		return d.Allowed, d.Reason
	}, w.log)
	w.gate.Lists = func(c arm.Caller, a arm.Action, on gate.Target) (bool, string) { return w.s.Lists(c, a, on) }
	w.s, err = New(Config{
		DB: w.db, Gate: w.gate, Root: w.root, Dir: filepath.Join(w.dir, "blobs"), Site: testSite, Now: w.clock, Who: who, May: w.may,
		Signer: func(_ context.Context, tid, object string) (arm.Caller, error) {
			if tid != tenant || object == nobody {
				return arm.Caller{}, arm.Errorf(arm.NotFound, "no such person")
			}
			return person(object), nil
		},
	})
	w.must(err)
	return who
}

// edge tells planes apart by host, as package server does.
func edge(g *gate.Gate, armPlane *gate.Plane, data ...*gate.Plane) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		p := armPlane
		for _, d := range data {
			if d.Host(r.Host) {
				p = d
			}
		}
		rt, v, found, err := p.Find(r)
		if err == nil && rt.Method == "" {
			if _, err = p.Who(r); err == nil {
				err = arm.Errorf(arm.MethodNotAllowed, "no")
				if !found {
					err = &arm.Error{Code: "InvalidResourceType", Status: 404, Message: "nothing"}
				}
			}
		}
		if err != nil {
			p.Refuse(rw, r, err)
			return
		}
		g.Serve(p, rt, v, rw, r)
	})
}

// still ends what runs in the background.
func (w *world) still() {
	w.off()
	if w.done != nil {
		<-w.done
	}
	w.done = nil
}

func (w *world) stop() {
	w.srv.Close()
	w.still()
	_ = w.log.Close() // some tests break the store on purpose
	w.db.Close()
}

func (w *world) restart() { w.stop(); w.start() }

// reply is an answer, read.
type reply struct {
	code   int
	header http.Header
	body   string
}

// list is what a list of blobs or containers shows.
type list struct {
	Blobs      []string `xml:"Blobs>Blob>Name"`
	Prefixes   []string `xml:"Blobs>BlobPrefix>Name"`
	Containers []string `xml:"Containers>Container>Name"`
	Next       string   `xml:"NextMarker"`
}

func (r reply) list() (l list) {
	_ = xml.Unmarshal([]byte(r.body), &l) // an answer of another form has no names
	return l
}

// do sends a request by who, given by a token ("key1" and "key2" sign with a
// key of acct1, "" shows nothing), and wants the status. A target is arm:/path
// or ACCOUNT:/path, by other endpoints ACCOUNT.dfs:/path or ACCOUNT.file:/path; headers are "Name: value".
func (w *world) do(who, method, target string, body []byte, want int, headers ...string) reply {
	w.t.Helper()
	req := w.request(who, method, target, body, headers...)
	res, err := w.srv.Client().Do(req)
	w.must(err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	w.must(err)
	if want != 0 && res.StatusCode != want {
		w.t.Errorf("%s %s by %q = %d, want %d: %.600s", method, target, who, res.StatusCode, want, b)
	}
	if res.StatusCode >= 400 && !strings.HasPrefix(target, "arm:") && res.Header.Get("x-ms-error-code") == "" {
		w.t.Errorf("%s %s = %d without x-ms-error-code", method, target, res.StatusCode)
	}
	return reply{res.StatusCode, res.Header, string(b)}
}

func (w *world) request(who, method, target string, body []byte, headers ...string) *http.Request {
	w.t.Helper()
	account, path, _ := strings.Cut(target, ":")
	host := testSite.Host()
	if account != "arm" {
		host = account + ".blob." + testSite.StorageSuffix()
		if base, other, ok := strings.Cut(account, "."); ok {
			account, host = base, base+"."+other+"."+testSite.StorageSuffix()
		}
	} else if !strings.Contains(path, "api-version") {
		path += map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")] + "api-version=" + resource.VersionFor(path)
	}
	req, err := http.NewRequest(method, w.srv.URL+path, bytes.NewReader(body))
	w.must(err)
	req.Host = host
	req.Header.Set("x-ms-version", "2023-11-03")
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		req.Header.Set(k, v)
	}
	if method == "PUT" && account != "arm" && !strings.Contains(path, "comp=") && !strings.Contains(path, "restype=") && strings.Contains(host, ".blob.") && req.Header.Get("x-ms-blob-type") == "" && req.Header.Get("x-ms-copy-source") == "" {
		req.Header.Set("x-ms-blob-type", "BlockBlob")
	}
	switch {
	case who == "key1" || who == "key2":
		w.sign(req, account, who)
	case who != "":
		req.Header.Set("Authorization", "Bearer "+who)
	}
	return req
}

// key is an account's key, as its owner sees it.
func (w *world) key(account, name string) []byte {
	w.t.Helper()
	r := w.do(owner, "POST", "arm:"+accounts+account+"/listKeys", nil, 200)
	var out struct {
		Keys []struct{ KeyName, Value string }
	}
	w.must(json.Unmarshal([]byte(r.body), &out))
	for _, k := range out.Keys {
		if k.KeyName == name {
			b, err := base64.StdEncoding.DecodeString(k.Value)
			w.must(err)
			return b
		}
	}
	w.t.Fatalf("the account has no key %s", name)
	return nil
}

func mac(key []byte, text string) string {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(m.Sum(nil))
}

// sign signs a request with an account key, written after the protocol's
// description and not after the code under test.
func (w *world) sign(req *http.Request, account, key string) {
	req.Header.Set("x-ms-date", w.clock().Format(http.TimeFormat))
	length := ""
	if req.ContentLength > 0 {
		length = fmt.Sprint(req.ContentLength)
	}
	h := req.Header.Get
	text := strings.Join([]string{req.Method, h("Content-Encoding"), h("Content-Language"), length, h("Content-MD5"), h("Content-Type"), "",
		h("If-Modified-Since"), h("If-Match"), h("If-None-Match"), h("If-Unmodified-Since"), h("Range"), ""}, "\n")
	var names []string
	for k := range req.Header {
		if k = strings.ToLower(k); strings.HasPrefix(k, "x-ms-") {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	for _, k := range names {
		text += k + ":" + h(k) + "\n"
	}
	text += "/" + account + req.URL.EscapedPath()
	q := url.Values{}
	names = nil
	for k, v := range req.URL.Query() {
		q[strings.ToLower(k)] = v
		names = append(names, strings.ToLower(k))
	}
	slices.Sort(names)
	for _, k := range names {
		text += "\n" + k + ":" + q.Get(k)
	}
	req.Header.Set("Authorization", "SharedKey "+account+":"+mac(w.key(account, key), text))
}

// serviceSAS is a service signature by key, with fields over the usual ones.
func serviceSAS(key []byte, canonical string, fields url.Values) url.Values {
	q := url.Values{"sv": {"2022-11-02"}, "st": {"2026-05-01T00:00:00Z"}, "se": {"2026-05-02T00:00:00Z"}, "sp": {"r"}, "sr": {"b"}}
	for k, v := range fields {
		q[k] = v
		if len(v) == 0 {
			delete(q, k)
		}
	}
	g := q.Get
	text := strings.Join([]string{g("sp"), g("st"), g("se"), canonical, g("si"), g("sip"), g("spr"), g("sv"), g("sr"), "", g("ses"), g("rscc"), g("rscd"), g("rsce"), g("rscl"), g("rsct")}, "\n")
	q.Set("sig", mac(key, text))
	return q
}

// accountSAS is an account signature by key.
func accountSAS(key []byte, account string, fields url.Values) url.Values {
	q := url.Values{"sv": {"2022-11-02"}, "st": {"2026-05-01T00:00:00Z"}, "se": {"2026-05-02T00:00:00Z"}, "sp": {"rwdlac"}, "ss": {"b"}, "srt": {"sco"}}
	for k, v := range fields {
		q[k] = v
	}
	g := q.Get
	q.Set("sig", mac(key, strings.Join([]string{account, g("sp"), g("ss"), g("srt"), g("st"), g("se"), g("sip"), g("spr"), g("sv"), g("ses"), ""}, "\n")))
	return q
}

// filesOnDisk are the files that keep pieces.
func (w *world) filesOnDisk() (out []string) {
	w.must(filepath.WalkDir(filepath.Join(w.dir, "blobs"), func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, p)
		}
		return err
	}))
	return out
}

// rows counts what lies in tables.
func (w *world) rows(tables ...string) (n int) {
	w.t.Helper()
	w.must(w.db.View(w.t.Context(), func(tx *store.Tx) error {
		for _, t := range tables {
			r, err := tx.Scan(t, "", "", 0)
			if err != nil {
				return err
			}
			n += len(r)
		}
		return nil
	}))
	return n
}

// admit is a Grant for a caller, as links between services get one.
func (w *world) admit(c arm.Caller, a arm.Action, container, item string) gate.Grant {
	w.t.Helper()
	g, err := w.gate.Admit(w.t.Context(), c, a, gate.Target{ID: ContainerID(arm.MustID(accounts+"acct1"), container), Item: item})
	w.must(err)
	return g
}

// noise is bytes that repeat for no one.
func noise(n int) []byte {
	b := make([]byte, n)
	x := uint64(n)*2862933555777941757 + 3037000493
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}
