package app

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/audit"
)

// Each call that is refused, changes something or gives a secret has exactly one
// entry in the audit log, of its caller and with its decision: none is missing and
// none is double, at whatever door, whether the caller may do all or nothing
// (AUD-01). The ledger is the clients'.
func TestTheLogIsTheLedger(t *testing.T) {
	t.Parallel()
	a, s := serveHere(t)
	l := newLab(t, s)
	x := &realm{tenant: a.Site.Tenant, sub: l.sub, user: l.owner, account: l.account, vault: "lab-vault", scope: l.workspace[1:]}
	qs := x.questions(t, a)
	callers := map[string]map[string]string{} // object ids to tokens by plane
	may := map[string]bool{}
	for _, roles := range [][]string{nil, {"Reader", "Key Vault Reader"}, {"Contributor", "Key Vault Administrator", "Storage Blob Data Owner"}} {
		p := a.newPerson(t, strings.Join(append(roles, "caller"), " "))
		for _, r := range roles {
			a.giveRole(t, l.arm, "/subscriptions/"+l.sub, p.object, r)
		}
		callers[p.object], may[p.object] = map[string]string{}, len(roles) == 3
		for _, plane := range []string{"arm", "vault", "blob"} {
			callers[p.object][plane] = tokenFor(t, a, p.id, p.secret, a.audiences()[plane])
		}
	}
	ledger, log := map[string]int{}, map[string]int{}
	entry := func(caller, decision, plane string, act arm.Action, on, item string) string {
		return fmt.Sprint(caller, " ", decision, " ", plane, " ", label(act), " ", strings.ToLower(on), " ", item)
	}
	calls := 0
	for caller, tokens := range callers {
		for _, q := range qs {
			if may[caller] && q.route.Method == http.MethodDelete { // what is gone is asked for by nobody
				continue
			}
			allowed, _ := a.gate.Judge(mustKnow(t, a, caller), q.action, q.on)
			decision := map[bool]string{true: "allowed", false: "refused"}[allowed || q.route.Filtered()]
			r, w := x.knocking(t, a, q), httptest.NewRecorder()
			r.Header.Set("Authorization", "Bearer "+tokens[audiencesOf(q.plane)[0]])
			a.Handler.ServeHTTP(w, r)
			calls++
			ledger[entry(caller, decision, q.plane, q.action, q.on.ID.String(), q.on.Item)]++
		}
	}
	acts := map[string]arm.Action{}
	for _, act := range a.actions() {
		acts[label(act)] = act
	}
	for _, e := range tailOf(t, a, 1<<16) {
		if e.Plane == "" || callers[e.Caller] == nil || e.Plane == "login" || e.Plane == "graph" || e.Event == audit.Ended {
			continue // what a verb asks besides, and how it ended later
		}
		act := acts[e.Action]
		if e.Data {
			act = acts[e.Action+"(data)"]
		}
		log[entry(e.Caller, e.Decision, e.Plane, act, e.Target, e.Item)]++
	}
	for k, n := range ledger {
		if log[k] != n {
			t.Errorf("%d calls and %d entries: %s", n, log[k], k)
		}
	}
	for k, n := range log {
		if ledger[k] == 0 {
			t.Errorf("%d entries of no call: %s", n, k)
		}
	}
	if t.Logf("%d calls", calls); calls < 1200 {
		t.Error("that is too little to be all")
	}
}

func mustKnow(t *testing.T, a *App, object string) arm.Caller {
	t.Helper()
	c, err := a.identity.Known(a.Site.Tenant, object)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The platform has no door to its inside: none to profiles, variables, metrics or
// dumps on any host, by any method, for nobody and for the Owner (AUD-12).
func TestNoDoorToTheInside(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	token := a.admin(t, "arm")
	for _, p := range a.Planes {
		host := hostOf(t, a, p)
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/vars", "/debug/requests", "/metrics", "/actuator/env", "/server-status", "/.env", "/config", "/core", "/health/../debug/pprof/"} {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				for _, tok := range []string{"", token} {
					w := call(a, tok, method, "https://"+host+path, nil, "x-ms-version", storageVersion)
					if w.Code/100 != 4 || strings.Contains(w.Body.String(), "goroutine") || strings.Contains(w.Body.String(), "memstats") {
						t.Errorf("%s %s%s = %d %s", method, host, path, w.Code, w.Body)
					}
				}
			}
		}
	}
}
