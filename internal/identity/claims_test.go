package identity

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"castellan/internal/access"
)

const cp1 = `{"access_token":{"xms_cc":{"values":["CP1"]}}}`

// claiming is a form with the parameter claims.
func claiming(v url.Values, claims string) url.Values {
	v.Set("claims", claims)
	return v
}

var challenged = regexp.MustCompile(`error="insufficient_claims", claims="([^"]+)"`)

// challenge are the claims that an answer asks for, as clients read them: from
// base64 that is the same in both alphabets; nil if it asks for none.
func challengeOf(t testing.TB, r reply) m {
	t.Helper()
	header := r.header.Get("WWW-Authenticate")
	got := challenged.FindStringSubmatch(header)
	if got == nil {
		if strings.Contains(header, "claims") {
			t.Errorf("half a challenge: %s", header)
		}
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(got[1])
	if err != nil || strings.ContainsAny(got[1], "+/") {
		t.Errorf("the claims of %s: %v", header, err)
	}
	var out struct {
		Access m `json:"access_token"`
	}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Error(err)
	}
	return out.Access
}

// The parameter claims is read one way at every endpoint: what is malformed is
// refused and uses nothing up, what isn't known is passed over.
func TestClaimsAreReadOneWay(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	refresh := w.userTokens(upn).text("refresh_token")
	c := w.client()
	w.signIn(c, upn, goodPassword, w.authorizeQuery())
	future := fmt.Sprint(w.now().Add(time.Hour).Unix())
	for _, x := range []struct {
		claims string
		good   bool
	}{
		{`{`, false},
		{`[]`, false},
		{`null`, false},
		{`{} {}`, false},
		{`{"access_token":[]}`, false},
		{`{"access_token":"xms_cc"}`, false},
		{`{"access_token":{"xms_cc":["cp1"]}}`, false},
		{`{"access_token":{"xms_cc":{"values":"cp1"}}}`, false},
		{`{"access_token":{"xms_cc":{"values":[["cp1"]]}}}`, false},
		{`{"access_token":{"xms_cc":{"values":[null]}}}`, false},
		{`{"access_token":{"xms_cc":{"values":["cp1"]},"xms_cc":{"values":[]}}}`, false},
		{`{"access_token":{"xms_cc":{"values":["cp1"]},"XMS_CC":{"values":[]}}}`, false},
		{`{"access_token":{"xms_cc":{"values":[` + strings.Repeat(`"a",`, 100) + `"cp1"]}}}`, false},
		{`{"access_token":{"nbf":{"essential":"true","value":"1"}}}`, false},
		{`{"access_token":{"nbf":{"essential":true,"value":"soon"}}}`, false},
		{`{"access_token":{"nbf":{"essential":true,"value":"-1"}}}`, false},
		{`{"access_token":{"nbf":{"essential":true,"value":"` + future + `"}}}`, false},
		{`{"access_token":{"acrs":{"essential":true,"value":"c0"}}}`, false},
		{`{"access_token":{"acrs":{"essential":true,"value":"c100"}}}`, false},
		{`{"access_token":{"acrs":{"essential":true,"value":"c01"}}}`, false},
		{`{"access_token":{"acrs":{"values":["anything"]}}}`, false},
		{`{"access_token":{"acrs":{"essential":true,"value":"c1"}}}`, false}, // the tenant has none
		{"{\"access_token\":{\"xms_cc\":{\"values\":[\"cp1\xff\"]}}}", false},
		{`{}`, true},
		{`{"id_token":null,"access_token":null}`, true},
		{cp1, true},
		{`{"access_token":{"nbf":{"essential":true,"value":"` + fmt.Sprint(w.now().Unix()) + `"},"xms_cc":{"values":["cp1"]}}}`, true},
		{`{"access_token":{"nbf":{"value":` + fmt.Sprint(w.now().Unix()) + `}}}`, true},
		{`{"access_token":{"acrs":{"values":["c1"]}}}`, true},
		{`{"access_token":{"capolids":{"essential":true,"values":["x"]},"xms_rp_ipaddr":{"value":"1.2.3.4"}}}`, true},
		{`{"access_token":{"unheard_of":{"essential":true}},"id_token":{"auth_time":{"essential":true}},"userinfo":{"name":null},"more":{"a":1}}`, true},
	} {
		app := w.form(w.tokenPath(), claiming(url.Values{"grant_type": {"client_credentials"}, "client_id": {w.first.ClientID}, "client_secret": {string(w.first.ClientSecret.Reveal())}, "scope": {w.site.Base() + "/.default"}}, x.claims))
		person := w.form(w.tokenPath(), claiming(w.refreshForm(refresh, w.site.Base()), x.claims))
		if next := person.text("refresh_token"); next != "" {
			refresh = next
		}
		device := w.form("/organizations/oauth2/v2.0/devicecode", claiming(url.Values{"client_id": {azureCLI}, "scope": {w.site.Base() + "/.default"}}, x.claims))
		page := w.open(c, claiming(w.authorizeQuery(), x.claims))
		acrs := strings.Contains(x.claims, `"c1"`)
		for name, r := range map[string]reply{"client credentials": app, "refresh": person, "device code": device} {
			if good := x.good || acrs && name == "device code"; (r.status == 200) != good || !good && (r.code() != "invalid_request" || !strings.Contains(r.text("error_description"), "claims")) {
				t.Errorf("%s with %s: %d %s", name, x.claims, r.status, r.body)
			}
		}
		if (codeOf(page) != "") != x.good || !x.good && !strings.HasPrefix(errorOf(page), "invalid_request") {
			t.Errorf("authorize with %s: %d %s %s", x.claims, page.status, errorOf(page), page.body)
		}
	}
	if r := w.form(w.tokenPath(), url.Values{"grant_type": {"client_credentials"}, "client_id": {w.first.ClientID}, "claims": {cp1, `{}`}}); r.code() != "invalid_request" {
		t.Errorf("claims twice: %d %s", r.status, r.body)
	}
}

// A token that a policy forbids meanwhile is met, where the client can answer it,
// with a challenge; with it the client gets no token before the person has shown
// what the policy wants, and then one that is good. Other clients learn no more
// than that their token is none.
func TestClaimsChallenge(t *testing.T) {
	w := newWorld(t)
	id, upn := w.user("ann")
	c := w.client()
	secret, _ := w.app(c, upn)
	graph := "https://" + w.site.GraphHost()
	refresh := w.userTokens(upn).text("refresh_token")
	plain := w.form(w.tokenPath(), w.refreshForm(refresh, graph))
	able := w.form(w.tokenPath(), claiming(w.refreshForm(plain.text("refresh_token"), graph), cp1))
	if got := fmt.Sprint(claims(t, able.text("access_token"))["xms_cc"], claims(t, plain.text("access_token"))["xms_cc"]); got != "[cp1] <nil>" {
		t.Errorf("xms_cc of both: %s", got)
	}
	p := w.admin("POST", capPath, with(capolicy([]string{"All"}, "mfa"), "conditions.users.includeUsers", []string{id})).text("id")
	if r := w.graph(plain.text("access_token"), "GET", "me", nil); r.status != 401 || challengeOf(t, r) != nil {
		t.Errorf("a client that can't answer: %d %v", r.status, r.header)
	}
	r := w.graph(able.text("access_token"), "GET", "me", nil)
	asked := challengeOf(t, r)
	if r.status != 401 || fmt.Sprint(asked["nbf"]) != fmt.Sprintf("map[essential:true value:%d]", w.now().Unix()) {
		t.Fatalf("a client that can: %d %v", r.status, r.header)
	}
	again, err := json.Marshal(m{"access_token": m{"nbf": asked["nbf"], "xms_cc": m{"values": []string{"cp1"}}}})
	if err != nil {
		t.Fatal(err)
	}
	r = w.form(w.tokenPath(), claiming(w.refreshForm(able.text("refresh_token"), graph), string(again)))
	if r.code() != "interaction_required" || !strings.Contains(string(r.body), "AADSTS50076") || r.text("claims") != `{"access_token":{"capolids":{"essential":true,"values":["`+p+`"]}}}` {
		t.Fatalf("with the challenge: %d %s", r.status, r.body)
	}
	page := w.signIn(w.client(), upn, goodPassword, claiming(w.authorizeQuery(), r.text("claims")))
	if title(page) == "" {
		t.Fatalf("the sign-in asks for no second factor: %d %s", page.status, page.header.Get("Location"))
	}
	page = w.send(w.client(), page, "/common/factor", "otc", w.codeNow(secret))
	if codeOf(page) != "" {
		t.Error("another browser's form was taken")
	}
	c = w.client()
	page = w.signIn(c, upn, goodPassword, claiming(w.authorizeQuery(), r.text("claims")))
	tokens := w.form(w.tokenPath(), w.redeemForm(codeOf(w.send(c, page, "/common/factor", "otc", w.codeNow(secret)))))
	tokens = w.form(w.tokenPath(), claiming(w.refreshForm(tokens.text("refresh_token"), graph), cp1))
	if r := w.graph(tokens.text("access_token"), "GET", "me", nil); r.status != 200 {
		t.Errorf("after the step up: %d %s", r.status, r.body)
	}
	for what, end := range map[string]func(){
		"revoked":  func() { w.admin("POST", "users/"+id+"/revokeSignInSessions", nil) },
		"disabled": func() { w.admin("PATCH", "users/"+id, m{"accountEnabled": false}) },
	} {
		end()
		if r := w.graph(tokens.text("access_token"), "GET", "me", nil); r.status != 401 || challengeOf(t, r)["nbf"] == nil {
			t.Errorf("%s: %d %v", what, r.status, r.header)
		}
		if r := w.form(w.tokenPath(), claiming(w.refreshForm(tokens.text("refresh_token"), graph), cp1)); r.code() != "invalid_grant" || r.text("access_token") != "" {
			t.Errorf("%s: a refresh: %d %s", what, r.status, r.body)
		}
	}
}

// Each call is judged as the sign-in was: by the kind of client, by whether it
// began with a device code, and by when the person showed what.
func TestCallsAreJudgedAsTheSignInWas(t *testing.T) {
	w := newWorld(t)
	e := newEnsemble(w)
	_, upn := w.user("ann")
	graph := "https://" + w.site.GraphHost()
	w.admin("POST", "oauth2PermissionGrants", m{"clientId": e.appSP, "consentType": "AllPrincipals", "scope": "User.Read",
		"resourceId": w.admin("GET", "servicePrincipals?$filter="+url.QueryEscape("appId eq '00000003-0000-0000-c000-000000000000'"), nil).json["value"].([]any)[0].(m)["id"]})
	c := w.client()
	browser := e.redeem(codeOf(w.signIn(c, upn, goodPassword, e.ask(graph+"/.default", nil)))).text("access_token")
	native := w.graphToken(upn)
	d := w.form("/organizations/oauth2/v2.0/devicecode", url.Values{"client_id": {azureCLI}, "scope": {graph + "/.default offline_access"}})
	w.device(w.client(), upn, d.text("user_code"), "yes")
	device := w.form("/organizations/oauth2/v2.0/token", url.Values{"grant_type": {"device_code"}, "client_id": {azureCLI}, "device_code": {d.text("device_code")}}).text("access_token")
	for _, x := range []struct {
		name                    string
		policy                  m
		browser, native, device int
	}{
		{"nobody blocked", with(capolicy([]string{"All"}, "block"), "state", "disabled"), 200, 200, 200},
		{"browsers", with(capolicy([]string{"All"}, "block"), "conditions.clientAppTypes", []string{"browser"}), 401, 200, 200},
		{"native clients", with(capolicy([]string{"All"}, "block"), "conditions.clientAppTypes", []string{"mobileAppsAndDesktopClients"}), 200, 401, 401},
		{"device codes", with(capolicy([]string{"All"}, "block"), "conditions.authenticationFlows", m{"transferMethods": "deviceCodeFlow"}), 200, 200, 401},
		{"a sign-in within the hour", with(with(capolicy([]string{"All"}), "grantControls", nil), "sessionControls.signInFrequency", m{"isEnabled": true, "value": 1, "type": "hours"}), 200, 200, 200},
		{"MFA", capolicy([]string{"All"}, "mfa"), 401, 401, 401},
		{"MFA, to be reported", with(capolicy([]string{"All"}, "mfa"), "state", "enabledForReportingButNotEnforced"), 200, 200, 200},
	} {
		p := w.admin("POST", capPath, with(x.policy, "conditions.users.excludeUsers", []string{w.first.UserObject})).text("id")
		for _, y := range []struct {
			name, token string
			want        int
		}{{"a browser", browser, x.browser}, {"a native client", native, x.native}, {"a device", device, x.device}} {
			if r := w.graph(y.token, "GET", "me", nil); r.status != y.want {
				t.Errorf("%s: %s: %d %s, want %d", x.name, y.name, r.status, r.body, y.want)
			}
		}
		w.admin("DELETE", capPath+"/"+p, nil)
	}
	hourly := with(with(capolicy([]string{"All"}), "grantControls", nil), "sessionControls.signInFrequency", m{"isEnabled": true, "value": 1, "type": "hours"})
	for _, x := range []struct {
		name string
		p    m
		want int
	}{
		{"each hour", hourly, 401},
		{"every time, which is about tokens", with(capolicy([]string{"All"}), "sessionControls.signInFrequency", m{"isEnabled": true, "frequencyInterval": "everyTime"}), 200},
	} {
		delete(x.p, "grantControls")
		refresh := w.userTokens(upn).text("refresh_token")
		w.pass(time.Minute)
		token := w.form(w.tokenPath(), w.refreshForm(refresh, graph)).text("access_token")
		w.pass(59*time.Minute + 30*time.Second)
		p := w.admin("POST", capPath, with(x.p, "conditions.users.excludeUsers", []string{w.first.UserObject})).text("id")
		if r := w.graph(token, "GET", "me", nil); r.status != x.want {
			t.Errorf("%s: %d %s, want %d", x.name, r.status, r.body, x.want)
		}
		w.admin("DELETE", capPath+"/"+p, nil)
	}
}

// Whatever comes as the parameter claims is read or refused, and what is read
// names only authentication contexts that there can be.
func FuzzClaims(f *testing.F) {
	for _, s := range []string{cp1, `{"access_token":{"nbf":{"essential":true,"value":"1"},"acrs":{"values":["c1","c99"]}}}`, `{"id_token":{"amr":{"values":["mfa"]}},"access_token":null}`, `{"a":[[]]}`, "{", ""} {
		f.Add(s)
	}
	s := &Service{Config: Config{Now: time.Now}}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := s.readDemand(text)
		if err != nil && problemOf(err).code != "invalid_request" {
			t.Errorf("%q: %v", text, err)
		}
		for _, c := range append(d.Contexts, d.Wished...) {
			if err == nil && !access.IsContext(c) {
				t.Errorf("%q asks for the context %q", text, c)
			}
		}
	})
}
