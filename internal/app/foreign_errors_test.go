package app

import (
	"regexp"
	"strings"
	"testing"

	"castellan/internal/arm"
)

// ofOneRequest is what tells one answer from another like it: ids and times.
var ofOneRequest = regexp.MustCompile(`(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}|\d{4}-\d\d-\d\d(T[\d:.]+(Z|[+-]\d\d:\d\d)?)?`)

// leaks is what no error tells of: files, code, statements of SQL.
var leaks = regexp.MustCompile(`(?i)\.go:\d|goroutine|panic|runtime error|select .* from|sqlite|constraint failed|/tmp/|/home/|/root/|no such file`)

// To another tenant what is there and what is not are the same: each door answers
// both with the same status and the same words, and tells of no files, no code, no
// SQL and no name that the caller didn't send (AUD-11).
func TestForeignErrorsTellNothing(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	other, thief := newTenant(t, a, "other.example"), newTenant(t, a, "third.example")
	other.settle(t, a, "other")
	thief.settle(t, a, "third")
	ghost := other
	ghost.user = arm.NewUUID()
	refused := 0
	for _, p := range a.Planes {
		for _, rt := range p.Routes {
			if rt.Action.IsZero() {
				continue
			}
			there := other.path(rt.Pattern)
			// What is meant is named by segments of its own; hosts stay, for who resolves names knows them.
			missing := ghost.path(rt.Pattern)
			for name, instead := range map[string]string{"lab": "bal", "cpu": "upc", other.account: "rehtoacct", other.vault: "rehto-vault"} {
				missing = regexp.MustCompile(`(^|/)`+regexp.QuoteMeta(name)+`(/|$)`).ReplaceAllString(missing, "${1}"+instead+"${2}")
			}
			for _, aud := range audiencesOf(p.Name) {
				at := other.host(a, p.Name, hostOf(t, a, p))
				got, none := knock(a, rt.Method, at, there, thief.tokens[aud]), knock(a, rt.Method, at, missing, thief.tokens[aud])
				body := got.Body.String()
				if m := leaks.FindString(body); m != "" {
					t.Errorf("%s %s %s tells of %q: %s", p.Name, rt.Method, there, m, body)
				}
				for _, name := range []string{other.domain, other.admin.id, other.admin.object, other.user} {
					if strings.Contains(body, name) && !strings.Contains(there, name) {
						t.Errorf("%s %s %s tells of %s: %s", p.Name, rt.Method, there, name, body)
					}
				}
				if there == missing || got.Code/100 == 2 {
					continue // there is nothing to tell apart, or it is the caller's own or everybody's
				}
				refused++
				plain := func(body string) string {
					body = strings.ReplaceAll(body, "run_id", "runId") // knock sends both, and the first that is met is refused
					body = ofOneRequest.ReplaceAllString(body, "…")
					for name, instead := range map[string]string{"bal": "lab", "upc": "cpu", "rehtoacct": other.account, "rehto-vault": other.vault} {
						body = strings.ReplaceAll(body, instead, "…")
						body = strings.ReplaceAll(body, name, "…")
					}
					return body
				}
				if got.Code != none.Code || plain(body) != plain(none.Body.String()) {
					t.Errorf("%s %s tells what is there from what isn't:\n%s = %d %s\n%s = %d %s", p.Name, rt.Method, there, got.Code, body, missing, none.Code, none.Body)
				}
			}
		}
	}
	if refused < 100 {
		t.Errorf("only %d refusals were held against one another", refused)
	}
	t.Logf("%d refusals, each the same for what is there and what is not", refused)
}
