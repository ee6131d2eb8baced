package identity

import (
	"strings"
	"testing"
)

const (
	capPath = "identity/conditionalAccess/policies"
	locPath = "identity/conditionalAccess/namedLocations"
	studio  = "d7304df8-741f-47d3-9bc2-df0e24e2071f"
	mlApp   = "18a66f5f-dbdf-4c17-9dd7-1634712a9cbe"
	armApp  = "797f4846-ba00-4fd7-ba43-dac1f8f63013"
)

type m = map[string]any

// capolicy is a policy as a client sends it: everybody, these apps, these controls.
func capolicy(apps []string, builtIn ...string) m {
	return m{
		"displayName": "test", "state": "enabled",
		"conditions":    m{"users": m{"includeUsers": []string{"All"}}, "applications": m{"includeApplications": apps}, "clientAppTypes": []string{"all"}},
		"grantControls": m{"operator": "OR", "builtInControls": builtIn},
	}
}

// with is p with one value put at a path.
func with(p m, path string, v any) m {
	at := p
	parts := strings.Split(path, ".")
	for _, k := range parts[:len(parts)-1] {
		next, ok := at[k].(m)
		if !ok {
			next = m{}
			at[k] = next
		}
		at = next
	}
	at[parts[len(parts)-1]] = v
	return p
}

// Policies come back as they were sent, in the form of Microsoft Graph, and
// again after a restart.
func TestPoliciesAreKept(t *testing.T) {
	w := newWorld(t)
	made := w.admin("POST", capPath, capolicy([]string{mlApp}, "mfa"))
	id := made.text("id")
	if made.status != 201 || !isGUID(id) || made.text("displayName") != "test" {
		t.Fatalf("POST: %d %s", made.status, made.body)
	}
	w.admin("PATCH", capPath+"/"+id, m{"state": "enabledForReportingButNotEnforced", "conditions": m{"users": m{"excludeUsers": []string{w.first.UserObject}}},
		"sessionControls": m{"signInFrequency": m{"isEnabled": true, "value": 4, "type": "hours"}}})
	got := w.admin("GET", capPath+"/"+id, nil)
	for _, want := range []string{`"enabledForReportingButNotEnforced"`, `"includeUsers":["All"]`, `"excludeUsers":["` + w.first.UserObject, `"builtInControls":["mfa"]`, `"value":4`, mlApp} {
		if !strings.Contains(string(got.body), want) {
			t.Errorf("after PATCH %s is not in %s", want, got.body)
		}
	}
	w.admin("PATCH", capPath+"/"+id, m{"sessionControls": nil})
	if got := w.admin("GET", capPath, nil); strings.Contains(string(got.body), "signInFrequency") || !strings.Contains(string(got.body), id) {
		t.Errorf("after null: %s", got.body)
	}
	w.admin("DELETE", capPath+"/"+id, nil)
	if r := w.graph(w.token, "GET", capPath+"/"+id, nil); r.status != 404 {
		t.Errorf("after DELETE: %d %s", r.status, r.body)
	}
}

// What can't be kept in full is refused by name, and nothing is changed.
func TestPoliciesThatCantBeKept(t *testing.T) {
	w := newWorld(t)
	all := []string{"All"}
	for _, c := range []struct {
		path  string
		value any
		says  string
	}{
		{"conditions.platforms", m{"includePlatforms": all}, "conditions.platforms"},
		{"conditions.devices", m{"deviceFilter": m{"mode": "include", "rule": "x"}}, "conditions.devices"},
		{"conditions.signInRiskLevels", []string{"high"}, "conditions.signInRiskLevels"},
		{"conditions.userRiskLevels", []string{"high"}, "conditions.userRiskLevels"},
		{"conditions.clientApplications", m{"includeServicePrincipals": all}, "conditions.clientApplications"},
		{"conditions.users.includeUsers", []string{"GuestsOrExternalUsers"}, "GuestsOrExternalUsers"},
		{"conditions.users.includeUsers", []string{"all"}, "includeUsers"},
		{"conditions.users.includeUsers", []string{}, "includes nobody"},
		{"conditions.users.includeUsers", []string{"00000000-0000-0000-0000-00000000dead"}, "no user"},
		{"conditions.users.excludeGroups", []string{"00000000-0000-0000-0000-00000000dead"}, "no group"},
		{"conditions.users.includeRoles", []string{"00000000-0000-0000-0000-00000000dead"}, "no directory role"},
		{"conditions.users.includeGuestsOrExternalUsers", m{"guestOrExternalUserTypes": "b2bCollaborationGuest"}, "includeGuestsOrExternalUsers"},
		{"conditions.applications.includeApplications", []string{}, "includes nothing"},
		{"conditions.applications.includeApplications", []string{"Office365"}, "includeApplications"},
		{"conditions.applications.includeApplications", []string{studio}, "no service principal"},
		{"conditions.applications.includeApplications", []string{"0736f41a-0425-bdb5-1563eff02385"}, "includeApplications"}, // a page has lost a part of it
		{"conditions.applications.includeUserActions", []string{"urn:user:registersecurityinfo"}, "includeUserActions"},
		{"conditions.clientAppTypes", []string{"exchangeActiveSync"}, "exchangeActiveSync"},
		{"conditions.locations", m{"includeLocations": []string{"00000000-0000-0000-0000-00000000dead"}}, "no named location"},
		{"conditions.locations", m{"excludeLocations": []string{"AllTrusted"}}, "includes none"},
		{"conditions.authenticationFlows", m{"transferMethods": "authenticationTransfer"}, "authenticationTransfer"},
		{"conditions.unheardOf", true, "unheardOf"},
		{"grantControls.builtInControls", []string{"compliantDevice"}, "compliantDevice"},
		{"grantControls.builtInControls", []string{"passwordChange"}, "passwordChange"},
		{"grantControls.builtInControls", []string{"block", "mfa"}, "block"},
		{"grantControls.builtInControls", []string{}, "asks for nothing"},
		{"grantControls.operator", "XOR", "XOR"},
		{"grantControls.termsOfUse", []string{"x"}, "termsOfUse"},
		{"grantControls.authenticationStrength", m{"id": "00000000-0000-0000-0000-000000000009"}, "authenticationStrength"},
		{"sessionControls.persistentBrowser", m{"mode": "always", "isEnabled": true}, "persistentBrowser"},
		{"sessionControls.signInFrequency", m{"isEnabled": true, "value": 0, "type": "hours"}, "signInFrequency"},
		{"sessionControls.signInFrequency", m{"isEnabled": true, "value": 4, "type": "weeks"}, "signInFrequency"},
		{"sessionControls.signInFrequency", m{"isEnabled": true, "value": 1 << 40, "type": "days"}, "signInFrequency"},
		{"state", "on", "state"},
		{"displayName", "", "displayName"},
	} {
		w.admin("GET", "me/memberOf", nil) // refreshes the token
		r := w.graph(w.token, "POST", capPath, with(capolicy(all, "mfa"), c.path, c.value))
		if r.status != 400 || !strings.Contains(string(r.body), c.says) {
			t.Errorf("%s = %v: %d %s; want 400 that names %q", c.path, c.value, r.status, r.body, c.says)
		}
	}
	if r := w.admin("GET", capPath, nil); strings.Contains(string(r.body), "displayName") {
		t.Errorf("a refused policy was kept: %s", r.body)
	}
	for _, c := range []struct{ typ, kind, cidr string }{
		{"#microsoft.graph.countryNamedLocation", ip4Range, "192.0.2.0/24"},
		{ipLocation, ip6Range, "192.0.2.0/24"},
		{ipLocation, ip4Range, "2001:db8::/32"},
		{ipLocation, ip6Range, "::ffff:192.0.2.0/120"},
		{ipLocation, ip4Range, "192.0.2.0"},
		{ipLocation, ip4Range, "0.0.0.0/0"},
		{ipLocation, ip6Range, "::/0"},
		{ipLocation, ip4Range, "192.0.2.0/33"},
	} {
		r := w.graph(w.token, "POST", locPath, m{"@odata.type": c.typ, "displayName": "x", "isTrusted": true, "ipRanges": []m{{"@odata.type": c.kind, "cidrAddress": c.cidr}}})
		if r.status != 400 {
			t.Errorf("the location %+v: %d %s", c, r.status, r.body)
		}
	}
}

// The pages of Azure's own studio can be named once the tenant has a principal of them.
func TestStudioCanBeTargeted(t *testing.T) {
	w := newWorld(t)
	if r := w.admin("POST", "servicePrincipals", m{"appId": studio}); r.status != 201 || r.text("displayName") == "" {
		t.Fatalf("%d %s", r.status, r.body)
	}
	w.admin("POST", capPath, capolicy([]string{studio}, "mfa"))
	if r := w.graph(w.token, "POST", "servicePrincipals", m{"appId": "d7304df8-741f-47d3-9bc2-df0e24e20710"}); r.status != 400 {
		t.Errorf("an app that nobody knows: %d %s", r.status, r.body)
	}
}

// Only who administers the directory sees and changes policies: who could
// exclude themselves would be held by none.
func TestPoliciesAreTheAdministrators(t *testing.T) {
	w := newWorld(t)
	id := w.admin("POST", capPath, capolicy([]string{mlApp}, "mfa")).text("id")
	loc := w.admin("POST", locPath, officeAt("203.0.113.0/24")).text("id")
	_, upn := w.user("mallory")
	token := w.graphToken(upn)
	for _, c := range []struct{ method, path string }{
		{"GET", capPath}, {"POST", capPath}, {"GET", capPath + "/" + id}, {"PATCH", capPath + "/" + id}, {"DELETE", capPath + "/" + id},
		{"GET", locPath}, {"POST", locPath}, {"GET", locPath + "/" + loc}, {"PATCH", locPath + "/" + loc}, {"DELETE", locPath + "/" + loc},
	} {
		if r := w.graph(token, c.method, c.path, m{}); r.status != 403 {
			t.Errorf("%s %s: %d %s", c.method, c.path, r.status, r.body)
		}
	}
}

func officeAt(cidr string) m {
	kind := ip4Range
	if strings.Contains(cidr, ":") {
		kind = ip6Range
	}
	return m{"@odata.type": ipLocation, "displayName": "office", "isTrusted": true, "ipRanges": []m{{"@odata.type": kind, "cidrAddress": cidr}}}
}

// Nobody can lock out all who could open again; with a break-glass account they can.
func TestSomebodyCanAlwaysComeBack(t *testing.T) {
	w := newWorld(t)
	w.admin("GET", capPath, nil)
	block := capolicy([]string{"All"}, "block")
	if r := w.graph(w.token, "POST", capPath, block); r.status != 400 || !strings.Contains(string(r.body), "break-glass") {
		t.Fatalf("a policy that blocks everybody: %d %s", r.status, r.body)
	}
	id := w.admin("POST", capPath, with(capolicy([]string{"All"}, "block"), "conditions.users.excludeUsers", []string{w.first.UserObject})).text("id")
	if r := w.graph(w.token, "PATCH", capPath+"/"+id, m{"conditions": m{"users": m{"excludeUsers": []string{}}}}); r.status != 400 {
		t.Errorf("taking the exclusion away: %d %s", r.status, r.body)
	}
	loc := w.admin("POST", locPath, officeAt("127.0.0.0/8")).text("id")
	away := with(with(capolicy([]string{"All"}, "block"), "conditions.locations", m{"includeLocations": []string{"All"}, "excludeLocations": []string{loc}}), "displayName", "but the office")
	w.admin("POST", capPath, away)
	if r := w.graph(w.token, "PATCH", locPath+"/"+loc, m{"ipRanges": []m{{"@odata.type": ip4Range, "cidrAddress": "192.0.2.1/32"}}}); r.status != 400 {
		t.Errorf("moving the office away from the administrator: %d %s", r.status, r.body)
	}
	if r := w.graph(w.token, "DELETE", locPath+"/"+loc, nil); r.status != 400 {
		t.Errorf("deleting a location that a policy names: %d %s", r.status, r.body)
	}
	w.breakGlass(w.first.UserObject)
	if r := w.graph(w.token, "POST", capPath, block); r.status != 201 {
		t.Errorf("with a break-glass account: %d %s", r.status, r.body)
	}
}
