package vault

import (
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// Where access policies decide, they alone do: each permission opens what it
// names, roles open nothing.
func TestPoliciesDecide(t *testing.T) {
	w := newWorld(t)
	requests := map[string]struct{ method, path, body string }{
		"set":     {"PUT", "vault:kv1/secrets/new", `{"value":"x"}`},
		"get":     {"GET", "vault:kv1/secrets/s", ""},
		"list":    {"GET", "vault:kv1/secrets", ""},
		"delete":  {"DELETE", "vault:kv1/secrets/gone", ""},
		"recover": {"POST", "vault:kv1/deletedsecrets/bin/recover", ""},
		"purge":   {"DELETE", "vault:kv1/deletedsecrets/bin", ""},
	}
	w.do(owner, "PUT", vaults+"kv1", vaultBody(policy(nobody, "")), 201)
	add := func(op, who, permission string, want int) {
		t.Helper()
		w.do(owner, "PUT", vaults+"kv1/accessPolicies/"+op, `{"properties":{"accessPolicies":[{"tenantId":"`+tenant+`","objectId":"`+who+`","permissions":{"secrets":["`+permission+`"]}}]}}`, want)
	}
	for _, who := range []string{owner, office, user, reader, nobody, contri} {
		for _, q := range requests {
			if got := w.do(who, q.method, q.path, q.body, 403); got.str("error", "innererror", "code") != "ForbiddenByPolicy" {
				t.Errorf("%s %s %s: %s", who, q.method, q.path, got.text)
			}
		}
	}
	for permission := range requests {
		add("replace", nobody, permission, 200)
		for other, q := range requests {
			rec := w.do(nobody, q.method, q.path, q.body, map[bool]int{true: 0, false: 403}[other == permission]+probe(w, nobody, q, other == permission))
			_ = rec
		}
	}
	add("replace", nobody, "Get", 200)
	w.do(nobody, "GET", "vault:kv1/secrets/new", "", 200)
	w.do(nobody, "GET", "vault:kv1/secrets/new/versions", "", 403)
	add("add", nobody, "LIST", 200)
	w.do(nobody, "GET", "vault:kv1/secrets/new/versions", "", 200)
	add("remove", nobody, "get", 200)
	w.do(nobody, "GET", "vault:kv1/secrets/new", "", 403)
	add("remove", nobody, "list", 200)
	if got := w.do(owner, "GET", vaults+"kv1", "", 200); got.str("properties", "accessPolicies") != "[]" {
		t.Errorf("an empty policy stays: %s", got.text)
	}
	add("replace", nobody, "all", 200)
	w.do(nobody, "DELETE", "vault:kv1/secrets/new", "", 200)
	w.do(nobody, "DELETE", "vault:kv1/deletedsecrets/new", "", 403)
	add("destroy", nobody, "all", 400)
}

// probe is the status that a permitted request must have when it is sent a
// second time, so that one helper can hold both; 0 where it is refused.
func probe(w *world, who string, q struct{ method, path, body string }, permitted bool) int {
	if !permitted {
		return 0
	}
	w.t.Helper()
	switch q.method + q.path[strings.Index(q.path, "/"):] {
	case "PUT/secrets/new", "GET/secrets":
		return 200
	}
	return 404 // let in, and nothing is there
}

// A policy is for whom it names: by object id, by group, and with an
// application only if the caller came by that one.
func TestWhomAPolicyNames(t *testing.T) {
	const group, app = "00000000-0000-0000-0000-0000000000aa", "00000000-0000-0000-0000-0000000000bb"
	person := arm.Caller{Object: user, App: app, Groups: []string{group}}
	for name, c := range map[string]struct {
		p    AccessPolicy
		who  arm.Caller
		want bool
	}{
		"the object id":              {AccessPolicy{Object: user}, person, true},
		"the object id in capitals":  {AccessPolicy{Object: strings.ToUpper(user)}, person, true},
		"a group":                    {AccessPolicy{Object: group}, person, true},
		"somebody else":              {AccessPolicy{Object: office}, person, false},
		"the application, as object": {AccessPolicy{Object: app}, person, false},
		"with the application":       {AccessPolicy{Object: user, App: app}, person, true},
		"with another application":   {AccessPolicy{Object: user, App: office}, person, false},
		"nobody":                     {AccessPolicy{}, arm.Caller{}, false},
		"an empty policy":            {AccessPolicy{}, person, false},
	} {
		if got := c.p.isFor(c.who); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// KV-02: who manages vaults but may not assign roles gets no secret of a vault
// that roles decide for: neither by policies nor by making policies decide.
func TestFlipTakesTheRightToAssignRoles(t *testing.T) {
	w := newWorld(t)
	w.do(owner, "PUT", vaults+"kv2", vaultBody(""), 201)
	w.do(office, "PUT", "vault:kv2/secrets/s", `{"value":"x"}`, 200)
	mine := `{"properties":{"accessPolicies":[{"tenantId":"` + tenant + `","objectId":"` + contri + `","permissions":{"secrets":["get","list"]}}]}}`
	w.do(contri, "PUT", vaults+"kv2/accessPolicies/add", mine, 200)
	w.do(contri, "GET", "vault:kv2/secrets/s", "", 403)
	for _, try := range []struct{ method, body string }{
		{"PATCH", `{"properties":{"enableRbacAuthorization":false}}`},
		{"PATCH", `{"properties":{"EnableRBACAuthorization":false}}`},
		{"PUT", vaultBody(policy(contri, `"get"`))},
	} {
		if got := w.do(contri, try.method, vaults+"kv2", try.body, 403); got.str("error", "code") != string(arm.LinkedForbidden) {
			t.Errorf("%s %s: %s", try.method, try.body, got.text)
		}
	}
	w.do(contri, "PUT", vaults+"kv2", vaultBody(`"createMode":"recover","enableRbacAuthorization":false`), 403)
	w.do(contri, "GET", "vault:kv2/secrets/s", "", 403)
	w.do(contri, "DELETE", vaults+"kv2", "", 200)
	w.do(contri, "PUT", vaults+"kv2", vaultBody(`"createMode":"recover",`+policy(contri, `"get"`)), 201)
	w.do(contri, "GET", "vault:kv2/secrets/s", "", 403)
	w.do(contri, "PUT", vaults+"kv2", vaultBody(""), 200)
	w.do(owner, "PATCH", vaults+"kv2", `{"properties":{"enableRbacAuthorization":false}}`, 200)
	w.do(contri, "PATCH", vaults+"kv2", `{"tags":{"a":"b"}}`, 200)
	w.do(contri, "PUT", vaults+"kv2", vaultBody(""), 200)
	if got := w.do(owner, "GET", vaults+"kv2", "", 200); got.str("properties", "enableRbacAuthorization") != "false" {
		t.Errorf("a PUT that does not say who decides changed it: %s", got.text)
	}
	w.do(contri, "PATCH", vaults+"kv2", `{"properties":{"enableRbacAuthorization":true}}`, 403)
	w.must(w.log.Sync(t.Context()))
	log, err := w.log.Tail(t.Context(), 100)
	w.must(err)
	refused := 0
	for _, e := range log {
		if e.Caller == contri && e.Outcome == string(arm.LinkedForbidden) {
			refused++
		}
	}
	if refused != 5 {
		t.Errorf("the log has %d refused attempts to change who decides, want 5", refused)
	}
}

// What is over goes: names are free again and rows are gone.
func TestSweep(t *testing.T) {
	w := newWorld(t)
	w.do(owner, "PUT", vaults+"kv1", vaultBody(`"softDeleteRetentionInDays":7`), 201)
	w.do(owner, "PUT", vaults+"kv2", vaultBody(`"softDeleteRetentionInDays":7`), 201)
	for _, v := range []string{"kv1", "kv2"} {
		w.do(office, "PUT", "vault:"+v+"/secrets/s", `{"value":"x"}`, 200)
		w.do(office, "PUT", "vault:"+v+"/secrets/t", `{"value":"x"}`, 200)
		w.do(office, "DELETE", "vault:"+v+"/secrets/s", "", 200)
	}
	w.do(owner, "DELETE", vaults+"kv1", "", 200)
	sweep := func() {
		root := arm.Caller{Object: "sweeper", Token: "system", Lease: &arm.Lease{Scope: arm.Root, Actions: []arm.Action{DeletedPurge}, Why: "the sweeper"}}
		g, err := w.gate.Admit(t.Context(), root, DeletedPurge, gate.Target{ID: arm.Root})
		w.must(err)
		w.must(g.Close(t.Context(), w.v.Sweep(t.Context(), g)))
	}
	sweep()
	if n := w.rows(nameTable, keyTable, secrets.names, secrets.bin, secrets.versions); n != 2+2+2+2+4 {
		t.Errorf("%d rows after a sweep before the time is over", n)
	}
	w.pass(8 * 24 * time.Hour)
	sweep()
	if n := w.rows(nameTable, keyTable, secrets.names, secrets.bin, secrets.versions); n != 1+1+1+0+1 {
		t.Errorf("%d rows after the time is over, want those of one secret", n)
	}
	w.do(user, "GET", "vault:kv2/secrets/t", "", 200)
	if err := w.v.Sweep(t.Context(), gate.Grant{}); err == nil {
		t.Error("the zero grant sweeps")
	}
}

// A name that is several segments once it is decoded is no name: a right on one
// secret is not one on the vault that keeps it.
func TestNamesDoNotBecomePaths(t *testing.T) {
	w := newWorld(t)
	w.do(owner, "PUT", vaults+"kv1", vaultBody(policy(office, `"get"`)), 201)
	w.give(nobody, "Owner", vaults+"kv1/secrets/mine")
	body := `{"properties":{"accessPolicies":[{"tenantId":"` + tenant + `","objectId":"` + nobody + `","permissions":{"secrets":["get"]}}]}}`
	for _, path := range []string{
		vaults + "kv1%2fsecrets%2fmine/accessPolicies/add",
		"/subscriptions/" + sub + "/resourceGroups/rg%2fproviders%2fMicrosoft.KeyVault%2fvaults%2fkv1%2fsecrets%2fmine/providers/Microsoft.KeyVault/vaults/kv1/accessPolicies/add",
		vaults + "kv1%2Fx/accessPolicies/add", vaults + "kv1%5c/accessPolicies/add", vaults + "%252e/accessPolicies/add",
	} {
		w.do(nobody, "PUT", path, body, 400)
	}
	w.do(nobody, "PUT", vaults+"kv1/accessPolicies/add", body, 403)
	w.do(nobody, "GET", vaults+"kv1%2fsecrets%2fmine/secrets", "", 400)
	w.do(nobody, "GET", "vault:kv1/secrets/mine", "", 403)
}
