package identity

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"castellan/internal/arm"
	"castellan/internal/store"
)

var b64 = base64.RawURLEncoding

func part(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b64.EncodeToString(b)
}

// forge signs claims with any key, under any header.
func forge(t testing.TB, key *rsa.PrivateKey, header, body map[string]any) string {
	t.Helper()
	text := part(header) + "." + part(body)
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + b64.EncodeToString(sig)
}

// private is the real private key of a class, which an attacker does not have;
// the tests use it to alter one thing at a time.
func private(t testing.TB, c class) *rsa.PrivateKey {
	t.Helper()
	row := ring.in(c, currentKey).keyRow
	der, err := ring.seal.Open(row.Private, ring.context(row.KID))
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*rsa.PrivateKey)
}

func (w *world) refused(what, token string) {
	w.t.Helper()
	c, err := w.verify(token)
	if arm.CodeOf(err) != arm.Unauthenticated || !c.IsZero() {
		w.t.Errorf("%s: %+v, %v", what, c, err)
	}
	if err != nil && len(token) > 40 && strings.Contains(err.Error(), token[:40]) {
		w.t.Errorf("%s: the error repeats the token", what)
	}
}

// TOK-01, 02, 03, 04: the header settles nothing. The key is known by its exact
// name, and the algorithm by the key.
func TestHeaderSettlesNothing(t *testing.T) {
	w := newWorld(t)
	good := w.appToken(w.site.Base())
	parts := strings.Split(good, ".")
	kid := ring.in(accessClass, currentKey).KID
	for _, alg := range []any{"none", "None", "nOnE", "", nil, 7, "RS256 ", "rs256", "PS256", "RS512", "ES256", "HS256"} {
		h := map[string]any{"typ": "at+jwt", "kid": kid, "alg": alg}
		if alg == nil {
			delete(h, "alg")
		}
		for _, sig := range []string{"", parts[2]} {
			w.refused("alg", part(h)+"."+parts[1]+"."+sig)
		}
	}

	public := ring.in(accessClass, currentKey).public
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := (&jose.JSONWebKey{Key: public}).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range [][]byte{der, x509.MarshalPKCS1PublicKey(public), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), jwk, public.N.Bytes(), nil} {
		text := part(map[string]any{"typ": "at+jwt", "kid": kid, "alg": "HS256"}) + "." + parts[1]
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(text))
		w.refused("HS256 with the public key", text+"."+b64.EncodeToString(mac.Sum(nil)))
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	called := make(chan struct{}, 1)
	go func() {
		if c, err := listener.Accept(); err == nil {
			c.Close()
			called <- struct{}{}
		}
	}()
	mine, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	var own map[string]any
	b, _ := (&jose.JSONWebKey{Key: &mine.PublicKey, KeyID: kid, Algorithm: "RS256"}).MarshalJSON()
	_ = json.Unmarshal(b, &own)
	at := "http://" + listener.Addr().String() + "/keys"
	body := claims(t, good)
	for _, k := range []any{kid, "mine", nil} {
		for name, v := range map[string]any{"jwk": own, "jku": at, "x5u": at, "x5c": []string{base64.StdEncoding.EncodeToString(der)}} {
			h := map[string]any{"typ": "at+jwt", "alg": "RS256", name: v}
			if k != nil {
				h["kid"] = k
			}
			w.refused(name, forge(t, mine, h, body))
		}
	}
	select {
	case <-called:
		t.Error("the verifier called the attacker's server")
	default:
	}

	for _, k := range []any{"../../../../dev/null", "' OR 1=1--", at, "a\x00b", strings.Repeat("k", 1<<20), "", 1, []string{kid}, map[string]any{}, strings.ToUpper(kid), kid + " "} {
		w.refused("kid", forge(t, private(t, accessClass), map[string]any{"typ": "at+jwt", "alg": "RS256", "kid": k}, body))
	}
	for name, h := range map[string]map[string]any{
		"crit":         {"typ": "at+jwt", "alg": "RS256", "kid": kid, "crit": []string{"exp"}},
		"no typ":       {"alg": "RS256", "kid": kid},
		"an ID's typ":  {"typ": "JWT", "alg": "RS256", "kid": kid},
		"typ in caps":  {"typ": "AT+JWT", "alg": "RS256", "kid": kid},
		"b64 is false": {"typ": "at+jwt", "alg": "RS256", "kid": kid, "b64": false, "crit": []string{"b64"}},
	} {
		w.refused(name, forge(t, private(t, accessClass), h, body))
	}
	if _, err := w.verify(good); err != nil {
		t.Errorf("the real token: %v", err)
	}
}

// TOK-05: a token is for one API.
func TestAudienceIsExact(t *testing.T) {
	w := newWorld(t)
	for _, a := range services(w.site) {
		token := w.appToken(a.audiences[0])
		for _, b := range services(w.site) {
			_, err := w.s.VerifyToken(context.Background(), token, b.audiences)
			if (err == nil) != (a.name == b.name) {
				t.Errorf("a token for %s at %s: %v", a.name, b.name, err)
			}
		}
		for _, aud := range [][]string{nil, {""}, {a.audiences[0] + "x"}, {a.audiences[0][:len(a.audiences[0])-1]}, {strings.ToUpper(a.audiences[0])}} {
			if _, err := w.s.VerifyToken(context.Background(), token, aud); err == nil {
				t.Errorf("a token for %s at %q", a.name, aud)
			}
		}
	}
	slash := w.appToken(w.site.Base() + "/")
	if aud := claims(t, slash)["aud"]; aud != w.site.Base()+"/" {
		t.Errorf("aud = %v", aud)
	}
	if _, err := w.verify(slash); err != nil {
		t.Errorf("with the slash that clients ask for: %v", err)
	}
}

// TOK-07 and all other claims: the signature alone is not enough.
func TestClaimsAreHeldAgainstTheWorld(t *testing.T) {
	w := newWorld(t)
	good := w.appToken(w.site.Base())
	body, now := claims(t, good), w.now().Unix()
	header := map[string]any{"typ": "at+jwt", "alg": "RS256", "kid": ring.in(accessClass, currentKey).KID}
	key := private(t, accessClass)
	if _, err := w.verify(forge(t, key, header, body)); err != nil {
		t.Fatalf("unaltered: %v", err)
	}
	for name, change := range map[string]func(map[string]any){
		"expired":                   func(m map[string]any) { m["exp"] = now - 31 },
		"not yet":                   func(m map[string]any) { m["nbf"] = now + 600 },
		"issued in future":          func(m map[string]any) { m["iat"] = now + 600 },
		"no exp":                    func(m map[string]any) { delete(m, "exp") },
		"no nbf":                    func(m map[string]any) { delete(m, "nbf") },
		"no iat":                    func(m map[string]any) { delete(m, "iat") },
		"exp a string":              func(m map[string]any) { m["exp"] = "9999999999" },
		"exp negative":              func(m map[string]any) { m["exp"] = -1 },
		"exp huge":                  func(m map[string]any) { m["exp"] = json.RawMessage("1e300") },
		"exp beyond floats":         func(m map[string]any) { m["exp"] = json.RawMessage("1e309") },
		"exp a fraction":            func(m map[string]any) { m["exp"] = json.RawMessage("9999999999.5") },
		"exp null":                  func(m map[string]any) { m["exp"] = nil },
		"lives too long":            func(m map[string]any) { m["exp"] = now + 25*3600 },
		"another issuer":            func(m map[string]any) { m["iss"] = "https://sts.windows.net/" + w.first.Tenant + "/" },
		"the other version's":       func(m map[string]any) { m["iss"] = w.site.Base() + "/" + w.first.Tenant + "/v2.0" },
		"no issuer":                 func(m map[string]any) { delete(m, "iss") },
		"another tenant":            func(m map[string]any) { m["tid"] = arm.NewUUID() },
		"another tenant, all over":  func(m map[string]any) { id := arm.NewUUID(); m["tid"] = id; m["iss"] = w.site.Base() + "/" + id + "/" },
		"no tenant":                 func(m map[string]any) { delete(m, "tid"); m["iss"] = w.site.Base() + "//" },
		"nobody":                    func(m map[string]any) { delete(m, "oid") },
		"somebody unknown":          func(m map[string]any) { m["oid"] = arm.NewUUID() },
		"a list of audiences":       func(m map[string]any) { m["aud"] = []string{w.site.Base(), "https://graph.microsoft.com"} },
		"an older epoch":            func(m map[string]any) { m["epc"] = -1 },
		"no epoch":                  func(m map[string]any) { delete(m, "epc") },
		"a credential that is gone": func(m map[string]any) { m["evd"] = arm.NewUUID() },
		"no credential":             func(m map[string]any) { delete(m, "evd") },
	} {
		m := maps.Clone(body)
		change(m)
		w.refused(name, forge(t, key, header, m))
	}
	twice := part(header) + "." + b64.EncodeToString([]byte(strings.Replace(string(mustJSON(body)), `"oid":`, `"oid":"x","oid":`, 1)))
	sum := sha256.Sum256([]byte(twice))
	sig, _ := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	w.refused("a claim given twice", twice+"."+b64.EncodeToString(sig))
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// TOK-08, TOK-10: nothing but an access token is an access token, and no key
// signs two kinds of tokens.
func TestOneKeyOneClass(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	r := w.userTokens(upn)
	code := codeOf(w.signIn(w.client(), upn, goodPassword, w.authorizeQuery()))
	for name, token := range map[string]string{"ID token": r.text("id_token"), "refresh token": r.text("refresh_token"), "code": code, "client secret": string(w.first.ClientSecret.Reveal()), "nothing": "", "dots": "..", "text": "a.b.c"} {
		w.refused(name, token)
	}
	body := claims(t, r.text("access_token"))
	for c := range classes {
		for d, typ := range classes {
			for name := range classes {
				token := forge(t, private(t, c), map[string]any{"typ": typ, "alg": "RS256", "kid": ring.in(name, currentKey).KID}, body)
				_, err := w.verify(token)
				if want := c == accessClass && d == accessClass && name == accessClass; (err == nil) != want {
					t.Errorf("signed with the %s key, as %s, naming the %s key: %v", c, d, name, err)
				}
			}
		}
	}
	for _, g := range []string{r.text("refresh_token"), code} {
		for _, param := range []string{"refresh_token", "code"} {
			if param == "refresh_token" == (g == r.text("refresh_token")) {
				continue
			}
			f := w.redeemForm(g)
			if param == "refresh_token" {
				f = w.refreshForm(g, w.site.Base())
			}
			if r := w.form(w.tokenPath(), f); r.code() != "invalid_grant" {
				t.Errorf("one opaque token for another: %d %s", r.status, r.body)
			}
		}
	}
}

// TOK-09: a token has one spelling; the cache knows no other.
func TestTokenHasOneSpelling(t *testing.T) {
	w := newWorld(t)
	good := w.appToken(w.site.Base())
	if _, err := w.verify(good); err != nil {
		t.Fatal(err)
	}
	last := good[len(good)-1]
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	at := strings.IndexByte(letters, last)
	p := strings.Split(good, ".")
	for name, token := range map[string]string{
		"cut":            good[:len(good)-1],
		"cut by four":    good[:len(good)-4],
		"no signature":   p[0] + "." + p[1] + ".",
		"two parts":      p[0] + "." + p[1],
		"four parts":     good + ".x",
		"padded":         good + "=",
		"padded twice":   good + "==",
		"spare bits":     good[:len(good)-1] + string(letters[at^1]),
		"space":          good + " ",
		"space in front": " " + good,
		"newline":        good + "\n",
		"newline inside": good[:20] + "\n" + good[20:],
		"CR inside":      p[0] + "." + p[1][:10] + "\r" + p[1][10:] + "." + p[2],
		"standard b64":   p[0] + "." + p[1] + "." + strings.NewReplacer("-", "+", "_", "/").Replace(p[2]) + "+",
		"JSON form":      `{"protected":"` + p[0] + `","payload":"` + p[1] + `","signature":"` + p[2] + `"}`,
		"twice":          good + good,
		"huge":           good + strings.Repeat("A", 1<<20),
	} {
		w.refused(name, token)
	}
}

// TOK-17: a new key signs at once, the one before verifies until it is retired
// or its time has passed, and one that is retained verifies until it is retired.
func TestRotation(t *testing.T) {
	w := newWorld(t)
	admin := w.appToken("https://" + w.site.GraphHost())
	old := w.appToken(w.site.Base())
	rotate := func(retain bool) string {
		r := w.graph(admin, "POST", "signingKeys/rotate", map[string]any{"class": "access", "retain": retain})
		if r.status != 200 {
			t.Fatalf("rotate: %d %s", r.status, r.body)
		}
		return r.text("id")
	}
	kid := func(token string) string {
		h, _, _ := strings.Cut(token, ".")
		b, _ := b64.DecodeString(h)
		var m struct{ Kid string }
		_ = json.Unmarshal(b, &m)
		return m.Kid
	}
	first := kid(old)
	second := rotate(false)
	next := w.appToken(w.site.Base())
	if kid(next) != second || second == first {
		t.Fatalf("signed by %s after rotating to %s", kid(next), second)
	}
	for name, token := range map[string]string{"new": next, "old": old} {
		if _, err := w.verify(token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(w.published()); n != 4 { // former, current and next of access; current of id
		t.Errorf("%d keys are published", n)
	}
	if r := w.graph(admin, "DELETE", "signingKeys/access/"+second, nil); r.status < 400 {
		t.Errorf("the key that signs is retired: %d", r.status)
	}
	admin = w.appToken("https://" + w.site.GraphHost())
	if r := w.graph(admin, "DELETE", "signingKeys/access/"+first, nil); r.status != 204 {
		t.Fatalf("retire: %d %s", r.status, r.body)
	}
	w.refused("signed by a retired key, and remembered as good", old)

	third := rotate(true)
	admin = w.appToken("https://" + w.site.GraphHost())
	w.pass(verifies + time.Minute)
	if w.s.keys.usable(accessClass, second, w.now()) == nil {
		t.Error("a retained key does not verify any more")
	}
	if again, err := New(w.s.Config); err != nil || again.keys.in(accessClass, currentKey).KID != third || again.keys.usable(accessClass, second, w.now()) == nil || again.keys.usable(accessClass, first, w.now()) != nil {
		t.Errorf("a restart forgets the keys: %v", err)
	}
	admin = w.appToken("https://" + w.site.GraphHost())
	rotate(false)
	w.pass(verifies + time.Minute)
	if w.s.keys.usable(accessClass, third, w.now()) != nil {
		t.Error("a former key verifies for ever")
	}
}

// TOK-17: whoever keeps the published keys goes on over the first rotation, for
// the key that signs then was published while the service ran, before it signed.
func TestFirstRotationIsAnnounced(t *testing.T) {
	w := newWorld(t)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.s.Run(ctx) }()
	defer func() { stop(); <-ended }()
	deadline := time.After(30 * time.Second)
	cached := w.published()
	for ; len(cached) < 2*len(classes); cached = w.published() {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("Run ended: %v", err)
		case <-deadline:
			t.Fatalf("%d keys are published", len(cached))
		default:
		}
	}
	r := w.admin("POST", "signingKeys/rotate", map[string]any{"class": "access", "retain": false})
	raw, err := json.Marshal(map[string]any{"keys": cached})
	if err != nil {
		t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(raw, &set); err != nil {
		t.Fatal(err)
	}
	token, err := jose.ParseSignedCompact(w.appToken(w.site.Base()), []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	kid := token.Signatures[0].Header.KeyID
	known := set.Key(kid)
	if kid != r.text("id") || len(known) != 1 {
		t.Fatalf("signed by %s after rotating to %s; the keys kept from before have %d of it", kid, r.text("id"), len(known))
	}
	if _, err := token.Verify(known[0].Key); err != nil {
		t.Errorf("the kept key does not verify: %v", err)
	}
}

func (w *world) published() []any {
	w.t.Helper()
	req, _ := http.NewRequest("GET", w.site.Base()+"/common/discovery/v2.0/keys", nil)
	keys, _ := w.do(w.client(), req).json["keys"].([]any)
	for _, k := range keys {
		for name := range k.(map[string]any) {
			if !strings.Contains(" kty use alg kid n e issuer ", " "+name+" ") {
				w.t.Errorf("a published key has %q", name)
			}
		}
	}
	return keys
}

// A request has one token, and it is in one place.
func TestBearer(t *testing.T) {
	w := newWorld(t)
	good := w.appToken(w.site.Base())
	who := w.s.Bearer(w.site.ARMAudiences()...)
	for name, c := range map[string]struct {
		headers []string
		query   string
		want    bool
	}{
		"good":            {[]string{"Bearer " + good}, "", true},
		"any case":        {[]string{"bEARER " + good}, "", true},
		"none":            {nil, "", false},
		"empty":           {[]string{""}, "", false},
		"twice":           {[]string{"Bearer " + good, "Bearer " + good}, "", false},
		"in the query":    {nil, "?access_token=" + good, false},
		"another scheme":  {[]string{"Basic " + good}, "", false},
		"no scheme":       {[]string{good}, "", false},
		"two in one":      {[]string{"Bearer " + good + ", Bearer " + good}, "", false},
		"two spaces":      {[]string{"Bearer  " + good}, "", false},
		"scheme only":     {[]string{"Bearer "}, "", false},
		"tab between":     {[]string{"Bearer\t" + good}, "", false},
		"junk behind":     {[]string{"Bearer " + good + " x"}, "", false},
		"newline between": {[]string{"Bearer " + good + "\r\nX: y"}, "", false},
	} {
		r, _ := http.NewRequest("GET", w.site.Base()+"/"+c.query, nil)
		r.Header["Authorization"] = c.headers
		caller, err := who(r)
		if (err == nil) != c.want || c.want == caller.IsZero() || err != nil && arm.CodeOf(err) != arm.Unauthenticated {
			t.Errorf("%s: %+v, %v", name, caller, err)
		}
	}
}

// TEN-01: a tenant's administrators see and change nothing of another's directory.
func TestTenantsAreApart(t *testing.T) {
	w := newWorld(t)
	other, err := w.s.found(context.Background(), Founding{Tenant: arm.NewUUID(), Domain: "other.example"}, func(fn func(*store.Tx) error) error {
		return w.s.DB.Do(context.Background(), fn)
	})
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs := w.first, other
	w.first = theirs
	graphToken := w.appToken("https://" + w.site.GraphHost())
	w.first = mine
	if r := w.graph(graphToken, "POST", "castellan/tenants", map[string]any{"defaultDomainName": "third.example"}); r.status != 403 {
		t.Errorf("a tenant that is not the home tenant makes another: %d", r.status)
	}
	for _, path := range []string{"users/" + mine.UserObject, "users/" + mine.UserName, "servicePrincipals/" + mine.ClientObject, "directoryObjects/" + mine.UserObject} {
		if r := w.graph(graphToken, "GET", path, nil); r.status != 404 {
			t.Errorf("GET %s: %d", path, r.status)
		}
	}
	for _, path := range []string{"users/" + mine.UserObject, "servicePrincipals/" + mine.ClientObject} {
		if r := w.graph(graphToken, "DELETE", path, nil); r.status != 404 {
			t.Errorf("DELETE %s: %d", path, r.status)
		}
	}
	for _, list := range []string{"users", "servicePrincipals", "applications", "groups", "roleManagement/directory/roleAssignments"} {
		if r := w.graph(graphToken, "GET", list, nil); strings.Contains(string(r.body), mine.UserObject) || strings.Contains(string(r.body), mine.ClientObject) || strings.Contains(string(r.body), mine.ClientID) {
			t.Errorf("%s shows the other tenant: %s", list, r.body)
		}
	}
	if r := w.graph(graphToken, "POST", "signingKeys/rotate", map[string]any{"class": "access"}); r.status != 403 {
		t.Errorf("another tenant turns the keys: %d", r.status)
	}
	// TOK-19: nobody takes a name of another tenant, or one that looks like it.
	for _, upn := range []string{mine.UserName, "admin@" + strings.ToUpper(mine.Domain), "admin@other.example@" + mine.Domain, mine.UserName + "@other.example", "аdmin@other.example", "admin @other.example", "admin\u200b@other.example", "@other.example"} {
		if r := w.graph(graphToken, "POST", "users", map[string]any{"accountEnabled": true, "displayName": "x", "userPrincipalName": upn, "passwordProfile": map[string]any{"password": goodPassword}}); r.status != 400 {
			t.Errorf("%s is made: %d %s", upn, r.status, r.body)
		}
	}
	// A user of the other tenant can't sign in at this one's address.
	code := codeOf(w.signInAt(mine.Tenant, theirs.UserName, string(theirs.Password.Reveal())))
	if code != "" {
		t.Error("the other tenant's administrator signs in here")
	}
}

func (w *world) signInAt(tenant, upn, password string) reply {
	w.t.Helper()
	c := w.client()
	req, _ := http.NewRequest("GET", w.site.Base()+"/"+tenant+"/oauth2/v2.0/authorize?"+w.authorizeQuery().Encode(), nil)
	page := w.do(c, req)
	return w.formBy(c, "/common/login", map[string][]string{"ctx": {ctx(page)}, "login": {upn}, "passwd": {password}})
}
