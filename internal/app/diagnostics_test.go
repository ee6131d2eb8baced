package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// logged are the lines that a storage account has of a category, by operation.
func logged(t *testing.T, a *App, token, account, category string) (out []map[string]any) {
	t.Helper()
	host := "https://" + account + ".blob.core." + a.Site.Suffix
	container := host + "/insights-logs-" + strings.ToLower(category)
	w := call(a, token, http.MethodGet, container+"?restype=container&comp=list", nil, "x-ms-version", "2023-11-03")
	if w.Code == http.StatusNotFound {
		return nil
	}
	for _, part := range strings.Split(w.Body.String(), "<Name>")[1:] {
		name, _, _ := strings.Cut(part, "</Name>")
		if !strings.HasPrefix(name, "resourceId=/SUBSCRIPTIONS/") || !strings.HasSuffix(name, "/m=00/PT1H.json") {
			t.Errorf("a blob of logs is %s", name)
		}
		b := call(a, token, http.MethodGet, container+"/"+(&url.URL{Path: name}).EscapedPath(), nil, "x-ms-version", "2023-11-03")
		if b.Code != http.StatusOK {
			t.Fatalf("reading %s = %d %s", name, b.Code, b.Body)
		}
		for line := range strings.Lines(b.Body.String()) {
			var e map[string]any
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("the line %q: %v", line, err)
			}
			out = append(out, e)
		}
	}
	return out
}

// A vault's diagnostic setting writes each use of the vault to a storage account,
// with who, what and why; whoever makes it must have the right to the account's
// keys; and an account that comes later by the same name gets nothing.
func TestDiagnosticSettings(t *testing.T) {
	t.Parallel()
	a, err := New(t.Context(), Config{Data: t.TempDir() + "/data"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}()
	p := newPoliced(t, a)
	flush := func() {
		t.Helper()
		if err := a.diagnoses.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	account, body := p.account("keepslogs", map[string]any{})
	p.fine(account, body)
	vault := p.group + "/providers/Microsoft.KeyVault/vaults/logged-vault"
	p.fine(vault, map[string]any{"location": "local", "properties": map[string]any{"tenantId": a.Site.Tenant, "sku": map[string]any{"family": "A", "name": "standard"}, "enableRbacAuthorization": true}})
	ann, reader := a.newPerson(t, "ann"), a.newPerson(t, "reader")
	a.giveRole(t, p.token, p.path(vault), ann.object, "Contributor")
	a.giveRole(t, p.token, p.path(account), reader.object, "Storage Blob Data Reader")
	a.giveRole(t, p.token, p.path(vault), reader.object, "Key Vault Secrets Officer")
	blobs, keys := tokenFor(t, a, reader.id, reader.secret, a.audiences()["blob"]), tokenFor(t, a, reader.id, reader.secret, a.audiences()["vault"])
	annARM, annKeys := tokenFor(t, a, ann.id, ann.secret, a.audiences()["arm"]), tokenFor(t, a, ann.id, ann.secret, a.audiences()["vault"])

	const at, v = "/providers/Microsoft.Insights/diagnosticSettings/all", "?api-version=2021-05-01-preview"
	setting := map[string]any{"properties": map[string]any{"storageAccountId": p.path(account), "logs": []any{map[string]any{"categoryGroup": "allLogs", "enabled": true}}}}
	if got := must(t, a, http.StatusForbidden, annARM, http.MethodPut, vault+at+v, setting); got["error"].(map[string]any)["code"] != "LinkedAuthorizationFailed" {
		t.Errorf("who has no right to the account gets %v", got)
	}
	if err := a.Audit.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(t, a, http.StatusOK, p.token, http.MethodPut, vault+at+v, setting)
	must(t, a, http.StatusOK, p.token, http.MethodPut, p.sub+at+v, setting)

	const secret = "a-secret-that-no-log-has"
	u := "https://logged-vault.vault." + a.Site.Suffix + "/secrets/mine?api-version=7.4"
	must(t, a, http.StatusOK, keys, http.MethodPut, u, map[string]any{"value": secret})
	must(t, a, http.StatusOK, keys, http.MethodGet, u, nil)
	must(t, a, http.StatusForbidden, annKeys, http.MethodGet, u, nil)
	flush()
	lines := logged(t, a, blobs, "keepslogs", "AuditEvent")
	var said []string
	for _, e := range lines {
		who := e["identity"].(map[string]any)["claims"].(map[string]any)["http://schemas.microsoft.com/identity/claims/objectidentifier"]
		said = append(said, strings.NewReplacer(ann.object, "ann", reader.object, "reader").Replace(fmt.Sprint(who, " ", e["operationName"], " ", e["resultType"], " ", e["properties"].(map[string]any)["decision"])))
		if strings.Contains(fmt.Sprint(e), secret) || e["resourceId"] != strings.ToUpper(p.path(vault)) || e["correlationId"] == "" || e["properties"].(map[string]any)["reason"] == "" {
			t.Errorf("a line is %v", e)
		}
	}
	for _, want := range []string{
		"reader Microsoft.KeyVault/vaults/secrets/setSecret/action Success allowed", "reader Microsoft.KeyVault/vaults/secrets/getSecret/action Success allowed",
		"ann Microsoft.KeyVault/vaults/secrets/getSecret/action Failed refused",
	} {
		if n := strings.Count("\n"+strings.Join(said, "\n")+"\n", "\n"+want+"\n"); n != 1 {
			t.Errorf("%q is there %d times: %q", want, n, said)
		}
	}
	if got := logged(t, a, blobs, "keepslogs", "Administrative"); len(got) != 1 || got[0]["operationName"] != "Microsoft.Insights/diagnosticSettings/write" {
		t.Errorf("of the subscription's changes there are %v, want its own setting alone", got)
	}

	must(t, a, http.StatusOK, p.token, http.MethodDelete, account+version, nil)
	p.fine(account, body)
	a.giveRole(t, p.token, p.path(account), reader.object, "Storage Blob Data Reader")
	must(t, a, http.StatusOK, keys, http.MethodGet, u, nil)
	flush()
	if got := logged(t, a, blobs, "keepslogs", "AuditEvent"); len(got) != 0 {
		t.Errorf("an account of the same name has %v", got)
	}
	how := must(t, a, http.StatusOK, p.token, http.MethodGet, vault+"/providers/Castellan.Insights/deliveries?api-version=2026-01-01", nil)["value"].([]any)[0].(map[string]any)
	if state := how["properties"].(map[string]any); state["status"] != "Failing" || !strings.Contains(fmt.Sprint(state["error"]), "is gone") {
		t.Errorf("the deliveries are told as %v", how)
	}
	must(t, a, http.StatusOK, p.token, http.MethodDelete, vault+version, nil)
	must(t, a, http.StatusNotFound, p.token, http.MethodGet, vault+at+v, nil)
}
