package identity

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"castellan/internal/access"
	"castellan/internal/seal"
	"castellan/internal/store"
)

// A person adds an app, and from then on shows its code where several factors
// are asked for. What tokens say of the sign-in is what was shown.
func TestOneTimeCodes(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	secret, _ := w.app(w.client(), upn)
	if got := w.amr(w.signIn(w.client(), upn, goodPassword, w.authorizeQuery())); got != "[pwd]" {
		t.Errorf("nothing more is asked for: amr %s", got)
	}
	c := w.client()
	page := w.signIn(c, upn, goodPassword, w.stepUp())
	if codeOf(page) != "" || title(page) != "Show that it is you" {
		t.Fatalf("a step up: %d %q", page.status, title(page))
	}
	for _, bad := range []string{"", "000000", "12345", w.codeNow(secret) + "0"} {
		if r := w.send(c, page, "/common/factor", "otc", bad); codeOf(r) != "" || r.status != 400 {
			t.Errorf("the code %q: %d", bad, r.status)
		}
	}
	if got := w.amr(w.send(c, page, "/common/factor", "otc", w.codeNow(secret))); got != "[pwd otp mfa]" {
		t.Errorf("amr %s", got)
	}
	if got := w.amr(w.open(c, w.stepUp())); got != "[pwd otp mfa]" {
		t.Errorf("by the session: amr %s", got)
	}
}

// A session with a password alone is stepped up, and is then another session:
// the old cookie is worth nothing.
func TestSteppingUp(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	secret, _ := w.app(w.client(), upn)
	c := w.client()
	if codeOf(w.signIn(c, upn, goodPassword, w.authorizeQuery())) == "" {
		t.Fatal("no sign-in")
	}
	site, _ := url.Parse(w.site.Base())
	before := c.Jar.Cookies(site)
	q := w.stepUp()
	q.Set("prompt", "none")
	if r := w.open(c, q); !strings.Contains(r.header.Get("Location"), "error=interaction_required") {
		t.Errorf("silently: %s", r.header.Get("Location"))
	}
	page := w.open(c, w.stepUp())
	if got := w.amr(w.send(c, page, "/common/factor", "otc", w.codeNow(secret))); got != "[pwd otp mfa]" {
		t.Errorf("amr %s", got)
	}
	old := w.client()
	old.Jar.SetCookies(site, before)
	if r := w.open(old, w.authorizeQuery()); codeOf(r) != "" {
		t.Error("the session from before the step up still signs in")
	}
}

// OID-06: of two uses of one code at once exactly one succeeds, and the step is
// used up also after a restart.
func TestCodeIsGoodForOneSession(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	secret, _ := w.app(w.client(), upn)
	code := w.codeNow(secret)
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		c := w.client()
		page := w.signIn(c, upn, goodPassword, w.stepUp())
		wg.Go(func() {
			if codeOf(w.send(c, page, "/common/factor", "otc", code)) != "" {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d of 8 uses of one code succeeded", won.Load())
	}
	again, err := New(w.s.Config)
	if err != nil {
		t.Fatal(err)
	}
	w.pass(forgetAfter) // the failures
	w.clock.Add(-int64(forgetAfter / time.Second))
	u := again.index.upn(upn)
	if _, err := again.proveCode(context.Background(), u, code); !errors.Is(err, errSecond) {
		t.Errorf("after a restart the code gives %v", err)
	}
}

// OID-07: ten thousand guesses from fifty browsers get no more than the budget,
// however the name is written, and showing the password gives no new ones.
func TestGuessingSecondFactors(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("alice")
	secret, recovery := w.app(w.client(), upn)
	u := w.s.index.upn(upn)
	names := []string{upn, "Alice@" + w.first.Domain, strings.ToUpper(upn), upn + " ", " " + upn}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			c := w.client()
			page := w.signIn(c, names[i%len(names)], goodPassword, w.stepUp())
			if r := w.send(c, page, "/common/factor", "otc", "000000"); codeOf(r) != "" {
				t.Error("a guess was right")
			}
			for range 200 {
				if _, err := w.s.proveCode(context.Background(), u, "000001"); !errors.Is(err, errSecond) {
					t.Errorf("a guess: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if n := w.s.locks.known[lockKey(secondName(u))].Failures; n != lockAfter {
		t.Errorf("%d guesses were held against the secret, want %d", n, lockAfter)
	}
	c := w.client()
	page := w.signIn(c, upn, goodPassword, w.stepUp())
	for _, right := range []string{w.codeNow(secret), recovery[0]} {
		if r := w.send(c, page, "/common/factor", "otc", right); codeOf(r) != "" {
			t.Error("after the budget a right code still works")
		}
	}
	w.pass(lockFor)
	if r := w.send(c, page, "/common/factor", "otc", w.codeNow(secret)); codeOf(r) == "" {
		t.Errorf("a minute later: %d %s", r.status, title(r))
	}
}

// Whoever knows no password may guess as they like: the person's own browser
// and their passkey go on working.
func TestStrangersShutNobodyOut(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	own := w.client()
	d, _ := w.passkey(own, upn)
	for range lockAfter {
		w.signIn(w.client(), upn, "wrong password", w.authorizeQuery())
	}
	if codeOf(w.signIn(w.client(), upn, goodPassword, w.authorizeQuery())) != "" {
		t.Error("a strange browser is not held")
	}
	q := w.authorizeQuery()
	q.Set("prompt", "login")
	if r := w.signIn(own, upn, goodPassword, q); codeOf(r) == "" {
		t.Errorf("the person's own browser: %d %s", r.status, title(r))
	}
	if got := w.amr(w.byPasskey(w.client(), d, w.authorizeQuery())); got != "[fido mfa]" {
		t.Errorf("the passkey: amr %s", got)
	}
	// A browser that was once Bob's is no one to Ann, and its guesses count.
	_, bob := w.user("bob")
	theirs := w.client()
	w.signIn(theirs, bob, goodPassword, w.authorizeQuery())
	if codeOf(w.signIn(theirs, upn, goodPassword, q)) != "" {
		t.Error("Bob's browser passes for Ann's")
	}
	for range lockAfter {
		w.signIn(own, upn, "wrong password", q)
	}
	if codeOf(w.signIn(own, upn, goodPassword, q)) != "" {
		t.Error("the person's own browser may guess for ever")
	}
}

// One password tried on many names is stopped by where it comes from, within
// bounded memory.
func TestSpraying(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	own := w.client()
	w.signIn(own, upn, goodPassword, w.authorizeQuery())
	from := networkOf(request("127.0.0.1:1"))
	for range sprayMost - 1 {
		w.s.spray.wrong(from, w.now())
	}
	w.signIn(w.client(), "nobody@"+w.first.Domain, "wrong password", w.authorizeQuery())
	if codeOf(w.signIn(w.client(), upn, goodPassword, w.authorizeQuery())) != "" {
		t.Errorf("after %d wrong guesses from one address it may go on", sprayMost)
	}
	q := w.authorizeQuery()
	q.Set("prompt", "login")
	if codeOf(w.signIn(own, upn, goodPassword, q)) == "" {
		t.Error("a person is kept from their own browser")
	}
	w.pass(sprayFor)
	if codeOf(w.signIn(w.client(), upn, goodPassword, w.authorizeQuery())) == "" {
		t.Error("the address is shut for ever")
	}
	if networkOf(request("[2001:db8::1]:1")) != networkOf(request("[2001:db8::ffff:2]:9")) || networkOf(request("192.0.2.1:1")) == networkOf(request("192.0.2.2:1")) {
		t.Error("networks are not told apart as customers get them")
	}
	for i := range mostNets + 1000 {
		w.s.spray.wrong(networkOf(request("192."+fmt.Sprint(i>>16)+"."+fmt.Sprint(i>>8&255)+"."+fmt.Sprint(i&255)+":1")), w.now())
	}
	if n := len(w.s.spray.nets); n > mostNets+1 {
		t.Errorf("%d networks are remembered", n)
	}
}

// A passkey is a whole sign-in: without a name and without a password.
func TestPasskeySignsIn(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	d, _ := w.passkey(w.client(), upn)
	if got := w.amr(w.byPasskey(w.client(), d, w.authorizeQuery())); got != "[fido mfa]" {
		t.Errorf("alone: amr %s", got)
	}
	c := w.client()
	page := w.signIn(c, upn, goodPassword, w.stepUp())
	page = w.send(c, page, "/common/factor", "way", "passkey")
	if got := w.amr(w.answer(c, page, d)); got != "[pwd fido mfa]" {
		t.Errorf("after a password: amr %s", got)
	}
}

// A passkey's answer is good once, in the browser that was asked, for its owner.
func TestPasskeysCannotBeReplayed(t *testing.T) {
	w := newWorld(t)
	id, upn := w.user("ann")
	_, bob := w.user("bob")
	d, _ := w.passkey(w.client(), upn)
	theirs, _ := w.passkey(w.client(), bob)
	c := w.client()
	ask := func() reply {
		return w.send(c, w.open(c, w.authorizeQuery()), "/common/login", "way", "passkey", "login", "", "passwd", "")
	}
	page := ask()
	answer, err := d.Get(askOf(t, page))
	if err != nil {
		t.Fatal(err)
	}
	copied := d.Copy()
	if r := w.send(w.client(), page, "/common/passkey", "answer", string(answer)); codeOf(r) != "" {
		t.Error("another browser uses the answer")
	}
	if r := w.send(c, ask(), "/common/passkey", "answer", string(answer)); codeOf(r) != "" {
		t.Error("the answer fits another question")
	}
	if r := w.send(c, page, "/common/passkey", "answer", string(answer)); codeOf(r) == "" {
		t.Fatalf("the answer itself: %d %s", r.status, title(r))
	}
	if r := w.send(c, page, "/common/passkey", "answer", string(answer)); codeOf(r) != "" {
		t.Error("the answer works twice")
	}
	if r := w.byPasskey(w.client(), d, w.authorizeQuery()); codeOf(r) == "" {
		t.Fatalf("the next: %d", r.status)
	}
	copied.Count--
	if r := w.byPasskey(w.client(), copied, w.authorizeQuery()); codeOf(r) != "" || !strings.Contains(string(r.body), "counts backwards") {
		t.Errorf("a copy of the passkey: %d %s", r.status, title(r))
	}
	theirs.Handle = []byte(id)
	if r := w.byPasskey(w.client(), theirs, w.authorizeQuery()); codeOf(r) != "" {
		t.Error("Bob's passkey signs Ann in by her handle")
	}
	second := w.client()
	page = w.send(second, w.signIn(second, upn, goodPassword, w.stepUp()), "/common/factor", "way", "passkey")
	theirs.Handle = nil
	if r := w.answer(second, page, theirs); codeOf(r) != "" {
		t.Error("Bob's passkey is Ann's second factor")
	}
	for name, change := range map[string]func(){
		"another site":    func() { d.Origin = "https://evil.example" },
		"nobody verified": func() { d.Unverified = true },
		"a disabled person": func() {
			w.admin("PATCH", "users/"+id, map[string]any{"accountEnabled": false})
		},
	} {
		was := *d
		change()
		if r := w.byPasskey(w.client(), d, w.authorizeQuery()); codeOf(r) != "" {
			t.Errorf("%s: signed in", name)
		}
		d.Origin, d.Unverified = was.Origin, was.Unverified
	}
}

// Where a policy wants several factors and the person has one, they add another
// before anything is given: after the password, and only then.
func TestMadeToEnrol(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	w.policy(func(p *access.Policy) { p.MFA = true })
	c := w.client()
	page := w.signIn(c, upn, goodPassword, w.authorizeQuery())
	if codeOf(page) != "" || !strings.HasPrefix(title(page), "More is needed") {
		t.Fatalf("%d %q", page.status, title(page))
	}
	if r := w.open(c, w.authorizeQuery()); codeOf(r) != "" {
		t.Error("half a sign-in is a session")
	}
	page = w.send(c, page, "/common/register", "way", "app")
	secret := secretOf(t, page)
	if !strings.Contains(string(page.body), "<svg") {
		t.Error("no picture for the app")
	}
	if r := w.send(c, page, "/common/register/app", "otc", "000000"); codeOf(r) != "" || r.status != 400 {
		t.Errorf("a wrong first code: %d", r.status)
	}
	late := w.client()
	latePage := w.send(late, w.signIn(late, upn, goodPassword, w.authorizeQuery()), "/common/register", "way", "app")
	page = w.send(c, page, "/common/register/app", "otc", w.codeNow(secret))
	if got := w.amr(w.send(c, page, "/common/register/codes")); got != "[pwd otp mfa]" {
		t.Errorf("amr %s", got)
	}
	// Whoever else knows the password is too late, though their page is older.
	other := secretOf(t, latePage)
	if r := w.send(late, latePage, "/common/register/app", "otc", w.codeNow(other)); codeOf(r) != "" || title(r) == "Keep your recovery codes" {
		t.Errorf("with the password alone another app was added: %q", title(r))
	}
	if r := w.signIn(w.client(), upn, goodPassword, w.authorizeQuery()); title(r) != "Show that it is you" {
		t.Errorf("the next sign-in: %q", title(r))
	}
}

// A policy that wants what can't be phished wants a passkey, and a code is not
// enough for it.
func TestPhishingResistant(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	secret, _ := w.app(w.client(), upn)
	w.policy(func(p *access.Policy) { p.Strength = access.PhishingResistant })
	c := w.client()
	page := w.signIn(c, upn, goodPassword, w.authorizeQuery())
	if title(page) != "Show that it is you" {
		t.Fatalf("before a passkey is added the code is shown: %q", title(page))
	}
	page = w.send(c, page, "/common/factor", "otc", w.codeNow(secret))
	if codeOf(page) != "" || !strings.Contains(string(page.body), "asks for a passkey") || strings.Contains(string(page.body), "authenticator app") {
		t.Fatalf("%d %s", page.status, page.body)
	}
	page = w.send(c, page, "/common/register", "way", "passkey")
	d := w.device0()
	answer, _ := d.Create(askOf(t, page))
	if got := w.amr(w.send(c, page, "/common/register/passkey", "answer", string(answer))); got != "[pwd otp fido mfa]" {
		t.Errorf("amr %s", got)
	}
	if got := w.amr(w.byPasskey(w.client(), d, w.authorizeQuery())); got != "[fido mfa]" {
		t.Errorf("by the passkey: amr %s", got)
	}
}

// A recovery code signs in once, and new ones end the old.
func TestRecoveryCodes(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	c := w.client()
	_, codes := w.app(c, upn)
	use := func(code string) reply {
		c := w.client()
		return w.send(c, w.signIn(c, upn, goodPassword, w.stepUp()), "/common/factor", "otc", code)
	}
	if len(codes) != 10 {
		t.Fatalf("%d codes", len(codes))
	}
	if got := w.amr(use(strings.ToLower(codes[0]))); got != "[pwd otp mfa]" {
		t.Errorf("amr %s", got)
	}
	if r := use(codes[0]); codeOf(r) != "" {
		t.Error("a recovery code works twice")
	}
	page := w.get(c, securityPath)
	if !strings.Contains(string(page.body), "9 left") {
		t.Errorf("what is left: %s", page.body)
	}
	page = w.send(c, page, securityPath, "do", "codes")
	fresh := listed.FindSubmatch(page.body)
	if fresh == nil {
		t.Fatalf("no new codes: %d %s", page.status, page.body)
	}
	if r := use(codes[1]); codeOf(r) != "" {
		t.Error("an old code outlives the new ones")
	}
	if r := use(string(fresh[1])); codeOf(r) == "" {
		t.Error("a new code does not work")
	}
}

// OID-12: where several factors are wanted, no way to a token gets by without.
func TestNoWayAroundMFA(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	secret, _ := w.app(w.client(), upn)
	c := w.client()
	before := w.form(w.tokenPath(), w.redeemForm(codeOf(w.signIn(c, upn, goodPassword, w.authorizeQuery()))))
	pending := codeOf(w.open(c, w.authorizeQuery()))
	device := w.form("/organizations/oauth2/v2.0/devicecode", url.Values{"client_id": {azureCLI}, "scope": {w.site.Base() + "/.default offline_access"}})
	w.policy(func(p *access.Policy) { p.MFA = true })
	if r := w.form(w.tokenPath(), w.refreshForm(before.text("refresh_token"), w.site.Base())); r.status == 200 || r.code() != "interaction_required" {
		t.Errorf("a refresh token from before: %d %s", r.status, r.body)
	}
	if r := w.form(w.tokenPath(), w.redeemForm(pending)); r.status == 200 {
		t.Error("a code from before gives tokens")
	}
	if r := w.open(c, w.authorizeQuery()); codeOf(r) != "" || title(r) != "Show that it is you" {
		t.Errorf("the session: %d %q", r.status, title(r))
	}
	if r := w.form(w.tokenPath(), url.Values{"grant_type": {"password"}, "client_id": {azureCLI}, "username": {upn}, "password": {goodPassword}, "scope": {w.site.Base() + "/.default"}}); r.status == 200 {
		t.Error("the password alone gives tokens")
	}
	page := w.code(c, upn, device.text("user_code"))
	if title(page) != "Show that it is you" {
		t.Fatalf("a device: %d %q", page.status, title(page))
	}
	page = w.send(c, page, "/common/factor", "otc", w.codeNow(secret))
	if r := w.send(c, page, "/common/oauth2/deviceconfirm", "answer", "yes"); !strings.Contains(string(r.body), "is signed in") {
		t.Fatalf("the device after the code: %d %s", r.status, r.body)
	}
	r := w.form("/organizations/oauth2/v2.0/token", url.Values{"grant_type": {"device_code"}, "client_id": {azureCLI}, "device_code": {device.text("device_code")}})
	if r.status != 200 || !strings.Contains(fmt.Sprint(claims(t, r.text("access_token"))["amr"]), "mfa") {
		t.Errorf("the device's token: %d %s", r.status, r.body)
	}
}

// Secrets of apps are sealed in the store for their place, and a row that was
// moved to another person opens nothing.
func TestSecretsOfAppsAreSealed(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	_, bob := w.user("bob")
	secret, codes := w.app(w.client(), upn)
	ann, eve := w.s.index.upn(upn), w.s.index.upn(bob)
	err := w.db.Do(context.Background(), func(tx *store.Tx) error {
		raw, err := tx.Get(methodTable, ann.ID)
		if err != nil {
			return err
		}
		for _, s := range []string{string(secret), codes[0], strings.ReplaceAll(codes[0], "-", "")} {
			if strings.Contains(string(raw), s) {
				t.Errorf("%q lies in the clear", s)
			}
		}
		return tx.Put(methodTable, eve.ID, raw)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.s.proveCode(context.Background(), eve, w.codeNow(secret)); !errors.Is(err, seal.ErrSealed) {
		t.Errorf("Ann's app for Bob: %v", err)
	}
}

// Whoever is gone leaves no way to sign in behind.
func TestMethodsGoWithTheirOwner(t *testing.T) {
	w := newWorld(t)
	id, upn := w.user("ann")
	d, _ := w.passkey(w.client(), upn)
	w.admin("DELETE", "users/"+id, nil)
	if err := w.db.View(context.Background(), func(tx *store.Tx) error {
		raw, err := tx.Get(methodTable, id)
		if raw != nil {
			t.Error("the methods of a deleted person are kept")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	w.user("ann")
	if r := w.byPasskey(w.client(), d, w.authorizeQuery()); codeOf(r) != "" {
		t.Error("the passkey of one Ann signs in the next")
	}
}
