package identity

import (
	"context"
	"strings"
	"testing"

	"castellan/internal/access"
	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

const lendingJob = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/ws/jobs/j"

// lentTo asks for a token on loan as the platform's worker does.
func (w *world) lentTo(loan, audience string) (string, error) {
	w.t.Helper()
	job := arm.MustID(lendingJob)
	as := arm.Caller{Tenant: w.first.Tenant, Object: "system:ml", Token: "system", Lease: &arm.Lease{Scope: job, Actions: []arm.Action{MintLent}, Item: loan, Why: "a test"}}
	g, err := w.gate.Admit(context.Background(), as, MintLent, gate.Target{ID: job, Item: loan})
	if err != nil {
		w.t.Fatal(err)
	}
	token, _, _, err := w.s.LentToken(context.Background(), g, audience)
	return token, g.Close(context.Background(), err)
}

// borrowed is a person who signed in, and a loan of theirs that lives.
func (w *world) borrowed(name string) (id string, tokens reply, l Loan) {
	w.t.Helper()
	id, upn := w.user(name)
	tokens = w.userTokens(upn)
	c, err := w.verify(tokens.text("access_token"))
	if err != nil || c.SignIn.Family == "" || len(c.SignIn.Shown) == 0 {
		w.t.Fatalf("a person's token proves %+v, %v", c, err)
	}
	l = Loan{ID: "loan-" + name, Tenant: w.first.Tenant, User: id, SignIn: c.SignIn, Sandbox: "job-" + name}
	w.s.Lend(l)
	return id, tokens, l
}

func within(sandbox string) context.Context { return gate.From(context.Background(), sandbox) }

// A token on loan is the person's, in the sandbox that it was lent to and
// nowhere else, for what is lent and nothing else, and dead with the loan.
func TestALentTokenIsForItsSandbox(t *testing.T) {
	w := newWorld(t)
	id, _, l := w.borrowed("lena")
	token, err := w.lentTo(l.ID, "https://storage.azure.com/")
	if err != nil {
		t.Fatal(err)
	}
	m := claims(t, token)
	if m["aud"] != "https://storage.azure.com/" || m["oid"] != id || m["appid"] != jobsApp || m["idtyp"] != "user" {
		t.Errorf("claims %v", m)
	}
	verify := func(ctx context.Context) (arm.Caller, error) {
		return w.s.VerifyToken(ctx, token, w.site.StorageAudiences())
	}
	c, err := verify(within(l.Sandbox))
	if err != nil || c.Object != id || c.Kind != arm.User || c.SignIn.Family != "" {
		t.Errorf("inside: %+v, %v; want the person, with nothing to lend on", c, err)
	}
	for where, ctx := range map[string]context.Context{"outside": context.Background(), "another sandbox": within("job-other")} {
		if c, err := verify(ctx); arm.CodeOf(err) != arm.Unauthenticated || !c.IsZero() {
			t.Errorf("%s: %+v, %v", where, c, err)
		}
	}
	for _, not := range []string{
		"https://" + w.site.GraphHost(), "https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000", w.first.ClientID, ExchangeAudience,
		"https://STORAGE.azure.com", "https://storage.azure.com//", "https://x@storage.azure.com", "https://storage.azure.com https://vault.azure.net",
		"https://storage.azure.com,https://vault.azure.net", " https://storage.azure.com", "e406a681-f3d4-42a8-90b6-c2b029497af1", "", "*",
	} {
		if token, err := w.lentTo(l.ID, not); arm.CodeOf(err) != arm.BadRequest || token != "" {
			t.Errorf("lent for %q: %v", not, err)
		}
	}
	if token, err := w.lentTo("loan-other", "https://storage.azure.com"); err == nil || token != "" {
		t.Error("a token of a loan that is not there")
	}
	w.s.Recall(l.ID)
	if _, err := verify(within(l.Sandbox)); arm.CodeOf(err) != arm.Unauthenticated {
		t.Errorf("after the loan's end: %v", err)
	}
	if token, err := w.lentTo(l.ID, "https://storage.azure.com"); err == nil || token != "" {
		t.Error("a token after the loan's end")
	}
}

// Nothing is lent of who is disabled or gone, or whose sign-in was ended or
// password reset; and what was lent before is dead at once.
func TestALoanEndsWithItsSignIn(t *testing.T) {
	w := newWorld(t)
	for name, end := range map[string]func(id string, tokens reply){
		"disabled": func(id string, _ reply) { w.admin("PATCH", "users/"+id, map[string]any{"accountEnabled": false}) },
		"revoked":  func(id string, _ reply) { w.admin("POST", "users/"+id+"/revokeSignInSessions", nil) },
		"reset": func(id string, _ reply) {
			w.admin("PATCH", "users/"+id, map[string]any{"passwordProfile": map[string]any{"password": goodPassword + "2", "forceChangePasswordNextSignIn": false}})
		},
		"gone": func(id string, _ reply) { w.admin("DELETE", "users/"+id, nil) },
		"stolen": func(_ string, tokens reply) {
			for range 2 { // a refresh token that is used twice ends all that the sign-in gave
				w.form(w.tokenPath(), w.refreshForm(tokens.text("refresh_token"), w.site.Base()))
				w.pass(2e9)
			}
		},
	} {
		id, tokens, l := w.borrowed(name)
		token, err := w.lentTo(l.ID, "https://storage.azure.com")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := w.s.VerifyToken(within(l.Sandbox), token, w.site.StorageAudiences()); err != nil {
			t.Fatalf("%s: before: %v", name, err)
		}
		end(id, tokens)
		if c, err := w.s.Lender(l); err == nil {
			t.Errorf("%s: still lends: %+v", name, c)
		}
		if token, err := w.lentTo(l.ID, "https://storage.azure.com"); err == nil || token != "" {
			t.Errorf("%s: a token was lent", name)
		}
		if _, err := w.s.VerifyToken(within(l.Sandbox), token, w.site.StorageAudiences()); arm.CodeOf(err) != arm.Unauthenticated {
			t.Errorf("%s: the token that was lent before: %v", name, err)
		}
	}
}

// Conditional Access is asked again at each token: what the person showed when
// they signed in must be enough now.
func TestConditionalAccessHoldsForLoans(t *testing.T) {
	w := newWorld(t)
	_, _, l := w.borrowed("carl")
	set := func(p ...access.Policy) {
		m := map[string]*access.Rules{w.first.Tenant: access.Compile(p, nil)}
		w.s.rules.Store(&m)
	}
	all := access.Policy{ID: "p", State: access.Enabled, IncludeUsers: []string{"All"}, IncludeApps: []string{"All"}}
	mfa, block := all, all
	mfa.MFA, block.Block = true, true
	set(mfa)
	if token, err := w.lentTo(l.ID, "https://storage.azure.com"); arm.CodeOf(err) != arm.Forbidden || token != "" || !strings.Contains(err.Error(), "multi-factor") {
		t.Errorf("with a password alone: %v", err)
	}
	strong := l
	strong.ID, strong.SignIn.Shown = "loan-strong", shownText(access.Proofs{{Method: access.Password, At: w.now()}, {Method: access.OTP, At: w.now()}})
	w.s.Lend(strong)
	if token, err := w.lentTo(strong.ID, "https://storage.azure.com"); err != nil || token == "" {
		t.Errorf("with two factors: %v", err)
	}
	set(block)
	if token, err := w.lentTo(strong.ID, "https://storage.azure.com"); arm.CodeOf(err) != arm.Forbidden || token != "" {
		t.Errorf("blocked: %v", err)
	}
	set()
	if _, err := w.lentTo(l.ID, "https://storage.azure.com"); err != nil {
		t.Errorf("without policies: %v", err)
	}
}

// A managed identity's token is for exactly what was asked for (MID-06), and
// where its cluster wants that, good in one sandbox alone.
func TestManagedTokensAreForExactlyOneResource(t *testing.T) {
	w := newWorld(t)
	of := arm.MustID("/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/ws/computes/c")
	if err := w.db.Do(t.Context(), func(tx *store.Tx) error { _, _, err := w.s.Ensure(tx, of, "c"); return err }); err != nil {
		t.Fatal(err)
	}
	for _, good := range []string{"https://storage.azure.com", "https://storage.azure.com/", "https://vault.azure.net", w.site.Base(), w.site.Base() + "/", "https://management.azure.com/", "https://ml.azure.com", "https://graph.microsoft.com"} {
		token, _, _, err := w.managedToken(of, good)
		if err != nil || claims(t, token)["aud"] != good {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", " ", "https://storage.azure.com//", "https://Storage.azure.com", "HTTPS://storage.azure.com", "http://storage.azure.com", "https://storage.azure.com:443", "https://a@storage.azure.com",
		"https://storage.azure.com/.default", "https://storage.azure.com https://vault.azure.net", "https://storage.azure.com;https://vault.azure.net", "https://storage.azure.com\x00", "https://evil.example",
		"https://acct.blob.core.windows.net", "e406a681-f3d4-42a8-90b6-c2b029497af1", "api://none", "*",
	} {
		if token, _, _, err := w.managedToken(of, bad); err == nil || token != "" {
			t.Errorf("a token for %q: aud %v", bad, claims(t, token)["aud"])
		}
	}
	bound, _, _, err := w.managedTokenIn(of, "https://storage.azure.com", "job-a")
	if err != nil {
		t.Fatal(err)
	}
	for sandbox, good := range map[string]bool{"job-a": true, "job-b": false, "": false} {
		if _, err := w.s.VerifyToken(within(sandbox), bound, w.site.StorageAudiences()); (err == nil) != good {
			t.Errorf("a token bound to job-a, from %q: %v", sandbox, err)
		}
	}
}
