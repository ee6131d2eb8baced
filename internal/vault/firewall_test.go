package vault

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
)

// from has the next requests come from an address of this machine.
func (w *world) from(address string) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	w.srv.Client().Transport = &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return d.DialContext(ctx, network, addr)
	}, DisableKeepAlives: true}
}

// A vault is reached from the addresses that its rules name and no others,
// whatever a request says of itself; Resource Manager is not concerned, and
// each refusal stands in the audit log with the address.
func TestFirewall(t *testing.T) {
	w := keyWorld(t)
	w.give(owner, "Key Vault Administrator", rg)
	w.do(owner, "PUT", "vault:kv1/secrets/s", `{"value":"x"}`, 200)
	rules := func(access, acls string) {
		t.Helper()
		w.do(owner, "PUT", vaults+"kv1", vaultBody(`"publicNetworkAccess":"`+access+`","networkAcls":`+acls), 200)
	}
	want := func(from string, code int, inner string) {
		t.Helper()
		w.from(from)
		got := w.do(owner, "GET", "vault:kv1/secrets/s", "", code)
		if got.str("error", "innererror", "code") != inner || inner == "ForbiddenByFirewall" && !strings.Contains(got.text, `Client address: `+from) {
			t.Errorf("from %s: %s", from, got.text)
		}
	}
	rules("enabled", `{"defaultAction":"deny","ipRules":[{"value":"127.0.0.2"},{"value":"127.0.1.0/24"}]}`)
	if got := w.do(owner, "GET", vaults+"kv1", "", 200); !strings.Contains(got.text, `"127.0.0.2/32"`) || got.str("properties", "networkAcls", "defaultAction") != "Deny" || got.str("properties", "networkAcls", "bypass") != "AzureServices" {
		t.Errorf("the vault shows %s", got.text)
	}
	want("127.0.0.1", 403, "ForbiddenByFirewall")
	want("127.0.0.2", 200, "")
	want("127.0.1.77", 200, "")
	want("127.0.2.1", 403, "ForbiddenByFirewall")

	// Who lies about where they come from is not believed, and a stranger learns
	// nothing of the rules.
	w.from("127.0.0.1")
	req, err := http.NewRequest("GET", w.srv.URL+"/secrets/s?api-version=7.5", nil)
	w.must(err)
	req.Host = "kv1.vault.castellan.localhost"
	req.Header = http.Header{"Authorization": {"Bearer " + owner}, "X-Forwarded-For": {"127.0.0.2"}, "Forwarded": {"for=127.0.0.2"}, "X-Real-Ip": {"127.0.0.2"}}
	res, err := w.srv.Client().Do(req)
	w.must(err)
	res.Body.Close()
	if res.StatusCode != 403 {
		t.Errorf("a header opens the vault: %d", res.StatusCode)
	}
	if got := w.do(nobody, "GET", "vault:kv1/secrets/s", "", 403); got.str("error", "innererror", "code") != "ForbiddenByRbac" {
		t.Errorf("a stranger: %s", got.text)
	}
	w.do("", "GET", "vault:kv1/secrets/s", "", 401)

	w.do(owner, "GET", vaults+"kv1/secrets/s", "", 200)
	rules("Disabled", `{"defaultAction":"Allow"}`)
	want("127.0.0.1", 403, "ForbiddenByConnection")
	want("127.0.0.2", 403, "ForbiddenByConnection")

	// No door of the plane forgets to look.
	plane, doors := w.v.Plane(), 0
	w.from("127.0.0.1")
	for _, rt := range plane.Routes {
		path := strings.NewReplacer("{name}", "s", "{version}", strings.Repeat("0", 32), "{issuer}", "i").Replace(rt.Pattern)
		if got := w.do(owner, rt.Method, "vault:kv1"+path, `{}`, 403); got.str("error", "innererror", "code") != "ForbiddenByConnection" {
			t.Errorf("%s %s: %s", rt.Method, rt.Pattern, got.text)
		}
		doors++
	}
	if doors < 60 {
		t.Errorf("there were only %d doors", doors)
	}
	refused := 0
	w.must(w.log.Sync(t.Context()))
	entries, err := w.log.Tail(t.Context(), 2*doors)
	w.must(err)
	for _, e := range entries {
		if e.Plane == "vault" && e.Outcome == "Forbidden" && e.Caller == owner && e.Address == "127.0.0.1" {
			refused++
		}
	}
	if refused < doors {
		t.Errorf("the log has %d of %d refusals", refused, doors)
	}
	rules("Enabled", `{"defaultAction":"Allow"}`)
	want("127.0.0.1", 200, "")
}
