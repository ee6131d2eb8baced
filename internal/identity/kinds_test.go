package identity

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"castellan/internal/access"
	"castellan/internal/arm"
	"castellan/internal/store"
)

// No kind of token becomes another: what is lent to a job, bound to a sandbox,
// an application's or an ID token is neither a person's assertion nor a client's, no
// refresh token, no code, and opens no directory; even where its audience is
// the very application that shows it, as no door would give it.
func TestNoTokenBecomesAnother(t *testing.T) {
	w := newWorld(t)
	e := newEnsemble(w)
	secret := w.secretOf(e.api)
	w.allow(e.appSP, e.apiSP, "Things.Read")
	w.allow(e.apiSP, w.s.index.spOf(w.first.Tenant, "797f4846-ba00-4fd7-ba43-dac1f8f63013").ID, "user_impersonation")
	id, person, l := w.borrowed("ann")
	of := arm.MustID("/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/ws/computes/c")
	if err := w.db.Do(t.Context(), func(tx *store.Tx) error { _, _, err := w.s.Ensure(tx, of, "c"); return err }); err != nil {
		t.Fatal(err)
	}
	own, err := w.s.target(w.first.Tenant, "api://"+e.apiID)
	if err != nil {
		t.Fatal(err)
	}
	sub := subject{user: w.s.index.user(id), client: e.clientID, family: l.SignIn.Family, proofs: shownProofs(l.SignIn.Shown), scp: "Things.Read"}
	// forged is the person's token for the application itself, changed.
	forged := func(change func(*subject)) string {
		x := sub
		change(&x)
		token, _, err := w.s.accessToken(x, own)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	show := func(token string) reply {
		return w.form(w.tokenPath(), url.Values{"grant_type": {behalfGrant}, "requested_token_use": {behalfUse}, "client_id": {e.apiID}, "client_secret": {secret}, "assertion": {token}, "scope": {w.site.Base() + "/.default"}})
	}
	good := forged(func(*subject) {})
	if r := show(good); r.status != http.StatusOK {
		t.Fatalf("the person's own token is not taken: %d %s", r.status, r.body)
	}

	// The application trusts the managed identity and the person as much as it may.
	exchange, err := w.s.target(w.first.Tenant, ExchangeAudience)
	if err != nil {
		t.Fatal(err)
	}
	theirs, _, err := w.s.accessToken(sub, exchange)
	if err != nil {
		t.Fatal(err)
	}
	loaned := sub
	loaned.loan, loaned.sandbox = l.ID, l.Sandbox
	theirLoan, _, err := w.s.accessToken(loaned, exchange)
	if err != nil {
		t.Fatal(err)
	}
	unbound, _, managed, err := w.managedToken(of, ExchangeAudience)
	if err != nil {
		t.Fatal(err)
	}
	bound, _, _, err := w.managedTokenIn(of, ExchangeAudience, "job-a")
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{"managed": unbound, "person": theirs} {
		said := claims(t, token)
		w.admin("POST", "applications/"+e.api.text("id")+"/federatedIdentityCredentials", map[string]any{"name": name, "issuer": said["iss"], "subject": said["sub"], "audiences": []string{ExchangeAudience}})
	}
	if r := w.exchange(e.apiID, unbound); r.status != http.StatusOK {
		t.Fatalf("a managed identity that the application trusts is not taken: %d %s", r.status, r.body)
	}

	lent, err := w.lentTo(l.ID, "https://storage.azure.com/")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{
		"the platform's of a person":   person.text("access_token"),
		"an application's":             w.appToken(w.site.Base()),
		"lent":                         lent,
		"lent, for the application":    forged(func(x *subject) { x.loan = l.ID }),
		"bound, for the application":   forged(func(x *subject) { x.sandbox = l.Sandbox }),
		"a job's, for the application": forged(func(x *subject) { x.loan, x.sandbox = l.ID, l.Sandbox }),

		"a person's, for the exchange":                  theirs,
		"lent, for the exchange":                        theirLoan,
		"a managed identity's, bound, for the exchange": bound,
	}
	for name, at := range map[string][2]string{"a managed identity's": {"https://storage.azure.com", ""}, "a managed identity's, bound": {"https://graph.microsoft.com", "job-a"}} {
		if kinds[name], _, _, err = w.managedTokenIn(of, at[0], at[1]); err != nil {
			t.Fatal(err)
		}
	}
	said := claims(t, good)
	for c := range classes {
		if c == accessClass {
			continue
		}
		if kinds["of the class "+string(c)], err = w.s.keys.sign(c, said); err != nil {
			t.Fatal(err)
		}
	}
	for kind, token := range kinds {
		doors := map[string]reply{
			"an assertion":                   show(token),
			"the application's assertion":    w.exchange(e.apiID, token),
			"the client's assertion":         w.exchange(e.clientID, token),
			"a managed identity's assertion": w.exchange(managed, token),
			"a refresh token":                w.form(w.tokenPath(), w.refreshForm(token, w.site.Base())),
			"a code":                         e.redeem(token),
			"a secret":                       w.form(w.tokenPath(), url.Values{"grant_type": {"client_credentials"}, "client_id": {e.apiID}, "client_secret": {token}, "scope": {w.site.Base() + "/.default"}}),
		}
		for as, r := range doors {
			if r.status != http.StatusBadRequest && r.status != http.StatusUnauthorized || r.text("access_token") != "" || r.text("error") == "" {
				t.Errorf("a token %s as %s: %d %s", kind, as, r.status, r.body)
			}
		}
		if r := w.graph(token, "GET", "users", nil); r.status != http.StatusUnauthorized {
			t.Errorf("a token %s opens the directory: %d %s", kind, r.status, r.body)
		}
	}
}

// What stands for a grant is good as its own kind and no other, whatever the
// grant itself says.
func TestNoGrantBecomesAnother(t *testing.T) {
	w := newWorld(t)
	id, _ := w.user("ann")
	u, now := w.s.index.user(id), w.now()
	verifier := strings.Repeat("v", 43)
	sum := sha256.Sum256([]byte(verifier))
	form := func(grant, field, raw string) url.Values {
		return url.Values{"grant_type": {grant}, field: {raw}, "client_id": {azureCLI}, "redirect_uri": {"http://localhost"}, "code_verifier": {verifier}, "scope": {w.site.Base() + "/.default"}}
	}
	doors := map[grantClass]func(raw string) url.Values{
		codeGrant:    func(raw string) url.Values { return form("authorization_code", "code", raw) },
		refreshGrant: func(raw string) url.Values { return form("refresh_token", "refresh_token", raw) },
		deviceGrant:  func(raw string) url.Values { return form("device_code", "device_code", raw) },
	}
	for kind := range expiredNumber {
		if doors[kind] == nil {
			t.Fatalf("no door is known for a grant of the kind %s", kind)
		}
	}
	for _, made := range []grantClass{codeGrant, refreshGrant, deviceGrant, sessionGrant} {
		for as, door := range doors {
			g := grant{Class: made, Tenant: u.Tenant, User: id, Client: azureCLI, Family: arm.NewUUID(), Epoch: u.Epoch, Resource: w.site.Base(), Scope: ".default", Redirect: "http://localhost",
				Challenge: base64.RawURLEncoding.EncodeToString(sum[:]), Proofs: access.Proofs{}.With(access.Password, now), Issued: now, Expires: now.Add(time.Hour), State: approved}
			var raw string
			if err := w.db.Do(t.Context(), func(tx *store.Tx) (err error) { raw, err = newGrant(tx, g); return err }); err != nil {
				t.Fatal(err)
			}
			r := w.form(w.tokenPath(), door(raw))
			if given := r.text("access_token") != ""; given != (made == as) || !given && r.status/100 != 4 {
				t.Errorf("a %s as a %s: %d %s", made, as, r.status, r.text("error_description"))
			}
		}
	}
}
