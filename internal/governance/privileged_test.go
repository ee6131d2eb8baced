package governance

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/rbac"
	"castellan/internal/store"
)

// noon is when these tests begin.
var noon = time.Date(2030, 5, 6, 12, 0, 0, 0, time.UTC)

// eligiblePath and activePath are the paths of the n-th request at a scope.
func eligiblePath(scope string, n int) string {
	return fmt.Sprintf("%sroleEligibilityScheduleRequests/%08d-0000-4000-8000-0000000000e1", scope+auth, n)
}

func activePath(scope string, n int) string {
	return fmt.Sprintf("%sroleAssignmentScheduleRequests/%08d-0000-4000-8000-0000000000a1", scope+auth, n)
}

// ask is the body of a request; more are further properties, name and JSON value
// by turns. A duration "" is no expiration.
func (w *world) ask(typ, role, principal, duration string, more ...string) string {
	p := map[string]any{"roleDefinitionId": sub + auth + "roleDefinitions/" + w.ids[role], "principalId": principal, "requestType": typ, "justification": "because"}
	e := map[string]any{"type": "NoExpiration"}
	if duration != "" {
		e = map[string]any{"type": "AfterDuration", "duration": duration}
	}
	s := map[string]any{"expiration": e}
	p["scheduleInfo"] = s
	for i := 0; i+1 < len(more); i += 2 {
		if more[i] == "startDateTime" {
			s[more[i]] = json.RawMessage(more[i+1])
			continue
		}
		if more[i] == "expiration" {
			s[more[i]] = json.RawMessage(more[i+1])
			continue
		}
		p[more[i]] = json.RawMessage(more[i+1])
	}
	b, err := json.Marshal(map[string]any{"properties": p})
	if err != nil {
		w.Fatal(err)
	}
	return string(b)
}

// eligibleWorld is a world at noon in which nora is eligible for Contributor of
// the first group for a day.
func eligibleWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.fixed = noon
	w.do(olga, "PUT", eligiblePath(rg1, 1), w.ask("AdminAssign", "Contributor", nora, "P1D"), 201)
	return w
}

func (w *world) mayWrite(who string) bool {
	c, out := w.send(who, "PUT", ws, `{"location":"local"}`)
	if c != 200 && c != 201 && c != 403 {
		w.Errorf("%s writes the workspace: %d %v", who, c, out)
	}
	return c != 403
}

// status is the status in an answer.
func status(out map[string]any) string {
	p, _ := out["properties"].(map[string]any)
	return fmt.Sprint(p["status"])
}

// rules changes rules of the policy of a role at a scope, as olga.
func (w *world) rules(scope, role, rules string) {
	w.Helper()
	path := scope + auth + "roleManagementPolicies/" + policyName(arm.MustID(scope), w.ids[role])
	w.do(olga, "PATCH", path, `{"properties":{"rules":[`+rules+`]}}`, 200)
}

func enablement(rules string) string {
	return `{"id":"Enablement_EndUser_Assignment","ruleType":"RoleManagementPolicyEnablementRule","enabledRules":[` + rules + `]}`
}

func approvalBy(ids ...string) string {
	var list []string
	for _, id := range ids {
		list = append(list, `{"id":"`+id+`","userType":"User"}`)
	}
	return `{"id":"Approval_EndUser_Assignment","ruleType":"RoleManagementPolicyApprovalRule","setting":{"isApprovalRequired":true,"approvalMode":"SingleStage","approvalStages":[{"approvalStageTimeOutInDays":1,"isApproverJustificationRequired":true,"primaryApprovers":[` + strings.Join(list, ",") + `]}]}}`
}

// Who is eligible has nothing until they activate it, has it from then on to the
// instant at which it ends, across a restart, and not a moment longer.
func TestAnActivationEndsAtItsInstant(t *testing.T) {
	w := eligibleWorld(t)
	if w.mayWrite(nora) {
		t.Fatal("being eligible gives the right itself")
	}
	out := w.do(nora, "PUT", activePath(rg1, 1), w.ask("SelfActivate", "Contributor", nora, "PT2H"), 201)
	if status(out) != "Provisioned" {
		t.Fatalf("the activation answered %v", out)
	}
	for _, x := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {2*time.Hour - 1, true}, {2 * time.Hour, false}, {2*time.Hour - 1, true}, {2*time.Hour + 1, false}, {100 * time.Hour, false}} {
		w.fixed = noon.Add(x.after)
		if got := w.mayWrite(nora); got != x.want {
			t.Errorf("%s after the activation: %v, want %v", x.after, got, x.want)
		}
		list := w.do(olga, "GET", rg1+auth+"roleAssignments?$filter=principalId eq '"+nora+"'", "", 200)
		if got := len(list["value"].([]any)) == 1; got != x.want {
			t.Errorf("%s after the activation the list of assignments has it: %v, want %v", x.after, got, x.want)
		}
	}
	w.fixed = noon.Add(time.Hour)
	w.restart()
	if !w.mayWrite(nora) {
		t.Error("a restart ended the activation")
	}
	w.fixed = noon.Add(2 * time.Hour)
	if w.mayWrite(nora) {
		t.Error("a restart made the activation last")
	}
	w.do(nora, "PUT", activePath(rg1, 2), w.ask("SelfActivate", "Contributor", nora, "PT2H"), 201)
	if !w.mayWrite(nora) {
		t.Error("what is over can't be activated again")
	}
}

// An activator gets what they are eligible for and nothing else: not for another,
// not wider, longer, another role, twice, again by the same request, by one's
// own word as an administrator, before or after the time.
func TestNobodyActivatesMore(t *testing.T) {
	w := eligibleWorld(t)
	w.do(olga, "PUT", eligiblePath(rg1, 2), w.ask("AdminAssign", "Reader", rita, "P1D"), 201)
	day := fmt.Sprintf(`{"type":"AfterDateTime","endDateTime":%q}`, noon.Add(25*time.Hour).Format(time.RFC3339))
	for _, x := range []struct{ name, who, path, body, code string }{
		{"for another", nora, activePath(rg1, 9), w.ask("SelfActivate", "Contributor", carl, "PT1H"), "InsufficientPermissions"},
		{"another's", rita, activePath(rg1, 9), w.ask("SelfActivate", "Contributor", rita, "PT1H"), "InsufficientPermissions"},
		{"another's for them", rita, activePath(rg1, 9), w.ask("SelfActivate", "Contributor", nora, "PT1H"), "InsufficientPermissions"},
		{"wider", nora, activePath(sub, 9), w.ask("SelfActivate", "Contributor", nora, "PT1H"), "AuthorizationFailed"},
		{"beside", nora, activePath(rg10, 9), w.ask("SelfActivate", "Contributor", nora, "PT1H"), "AuthorizationFailed"},
		{"a higher role", nora, activePath(rg1, 9), w.ask("SelfActivate", "Owner", nora, "PT1H"), "InsufficientPermissions"},
		{"longer than the policy lets", nora, activePath(rg1, 9), w.ask("SelfActivate", "Contributor", nora, "PT8H1S"), "RoleAssignmentRequestPolicyValidationFailed"},
		{"for ever", nora, activePath(rg1, 9), w.ask("SelfActivate", "Contributor", nora, ""), "RoleAssignmentRequestPolicyValidationFailed"},
		{"beyond the eligibility", nora, activePath(rg1, 9), w.ask("SelfActivate", "Contributor", nora, "PT1H", "startDateTime", `"`+noon.Add(23*time.Hour+time.Second).Format(time.RFC3339)+`"`), "RoleAssignmentRequestPolicyValidationFailed"},
		{"to a date beyond", nora, activePath(rg1, 9), w.ask("SelfActivate", "Contributor", nora, "", "expiration", day), "RoleAssignmentRequestPolicyValidationFailed"},
		{"without a reason", nora, activePath(rg1, 9), w.ask("SelfActivate", "Contributor", nora, "PT1H", "justification", `" "`), "RoleAssignmentRequestPolicyValidationFailed"},
		{"as an administrator", nora, activePath(rg1, 9), w.ask("AdminAssign", "Contributor", nora, "PT1H"), "AuthorizationFailed"},
		{"the eligibility itself", nora, eligiblePath(rg1, 9), w.ask("AdminAssign", "Owner", nora, "PT1H"), "AuthorizationFailed"},
		{"extending oneself", nora, activePath(rg1, 9), w.ask("SelfExtend", "Contributor", nora, "PT1H"), "NotSupported"},
		{"renewing oneself", nora, activePath(rg1, 9), w.ask("SelfRenew", "Contributor", nora, "PT1H"), "NotSupported"},
		{"as a kind of eligibility", olga, eligiblePath(rg1, 9), w.ask("SelfActivate", "Contributor", olga, "PT1H"), "NotSupported"},
		{"by somebody else's eligibility", nora, activePath(rg1, 9), w.ask("SelfActivate", "Reader", nora, "PT1H"), "InsufficientPermissions"},
		{"by a name that is none", nora, activePath(rg1, 9), w.ask("SelfActivate", "Contributor", nora, "PT1H", "linkedRoleEligibilityScheduleId", `"99999999-0000-0000-0000-000000000000"`), "InsufficientPermissions"},
		{"an application", bot, activePath(rg1, 9), w.ask("SelfActivate", "Contributor", bot, "PT1H"), "AuthorizationFailed"},
		{"a stranger", dora, activePath(rg1, 9), w.ask("SelfActivate", "Contributor", dora, "PT1H"), "AuthorizationFailed"},
		{"an owner who is not eligible", olga, activePath(rg1, 9), w.ask("SelfActivate", "Contributor", olga, "PT1H"), "InsufficientPermissions"},
		{"two ends", nora, activePath(rg1, 9), w.ask("SelfActivate", "Contributor", nora, "", "expiration", `{"type":"AfterDuration","duration":"PT1H","endDateTime":"2030-05-06T13:00:00Z"}`), "InvalidRequestContent"},
		{"no time", nora, activePath(rg1, 9), w.ask("SelfActivate", "Contributor", nora, "PT0S"), "InvalidRequestContent"},
		{"a condition", nora, activePath(rg1, 9), w.ask("SelfActivate", "Contributor", nora, "PT1H", "condition", `"true"`), "NotSupported"},
		{"a status of one's own", nora, activePath(rg1, 9), w.ask("SelfActivate", "Owner", nora, "PT1H", "status", `"Provisioned"`), "InsufficientPermissions"},
		{"through the plain door", nora, at(rg1, 9), w.give("Contributor", nora), "AuthorizationFailed"},
		{"the policy first", nora, rg1 + auth + "roleManagementPolicies/" + policyName(arm.MustID(rg1), w.ids["Contributor"]), `{}`, "AuthorizationFailed"},
	} {
		method := "PUT"
		if strings.Contains(x.path, "Policies") {
			method = "PATCH"
		}
		if c, got := w.send(x.who, method, x.path, x.body); code(got) != x.code || c < 400 {
			t.Errorf("%s: %d %v, want %s", x.name, c, got, x.code)
		}
		if w.mayWrite(nora) || w.may(nora, WriteAssignment.Name(), rg1) {
			t.Fatalf("%s: nora got in", x.name)
		}
	}
	if got := w.roles.For(nora); len(got) != 0 {
		t.Errorf("nora has %v", got)
	}
	body := w.ask("SelfActivate", "Contributor", nora, "PT1H")
	w.do(nora, "PUT", activePath(rg1, 10), body, 201)
	if got := w.do(nora, "PUT", activePath(rg1, 11), body, 409); code(got) != "RoleAssignmentExists" {
		t.Errorf("twice: %v", got)
	}
	w.do(nora, "PUT", activePath(rg1, 12), w.ask("SelfDeactivate", "Contributor", nora, "PT1H"), 201)
	if w.mayWrite(nora) {
		t.Error("what was given up is still there")
	}
	w.do(nora, "PUT", activePath(rg1, 10), body, 409) // a replay
	if w.mayWrite(nora) {
		t.Error("a replay gave the right again")
	}
	w.fixed = noon.Add(24 * time.Hour)
	if c, got := w.send(nora, "PUT", activePath(rg1, 13), body); c != 403 {
		t.Errorf("after the eligibility: %d %v", c, got)
	}
}

// A role is activated narrower than one is eligible for, and reaches no further.
func TestActivatingNarrower(t *testing.T) {
	w := newWorld(t)
	w.fixed = noon
	w.do(olga, "PUT", eligiblePath(sub, 1), w.ask("AdminAssign", "Contributor", nora, "P1D"), 201)
	w.do(nora, "PUT", activePath(ws, 1), w.ask("SelfActivate", "Contributor", nora, "PT1H"), 201)
	if !w.mayWrite(nora) || w.may(nora, writeWS, rg1) {
		t.Error("the activation does not reach exactly its scope")
	}
	// The policy of the eligibility's own scope counts below it.
	w.rules(sub, "Contributor", enablement(`"Ticketing"`))
	got := w.do(nora, "PUT", activePath(rg10, 2), w.ask("SelfActivate", "Contributor", nora, "PT1H"), 400)
	if !strings.Contains(fmt.Sprint(got), "TicketingRule") {
		t.Errorf("below the policy's scope: %v", got)
	}
	// And so does that of the scope that is asked for.
	w.rules(sub, "Contributor", enablement(``))
	w.rules(rg10, "Contributor", enablement(`"MultiFactorAuthentication"`))
	got = w.do(nora, "PUT", activePath(rg10, 3), w.ask("SelfActivate", "Contributor", nora, "PT1H"), 400)
	if code(got) != "RoleAssignmentRequestAcrsValidationFailed" {
		t.Errorf("at the policy's scope: %v", got)
	}
}

// Whatever ends an eligibility ends what was activated by it, for the next request.
func TestWhatEndsAnEligibility(t *testing.T) {
	for _, x := range []struct {
		name string
		end  func(w *world)
	}{
		{"AdminRemove", func(w *world) {
			w.do(olga, "PUT", eligiblePath(rg1, 5), w.ask("AdminRemove", "Contributor", nora, ""), 201)
		}},
		{"AdminUpdate to an earlier end", func(w *world) {
			w.do(olga, "PUT", eligiblePath(rg1, 5), w.ask("AdminUpdate", "Contributor", nora, "PT1S"), 201)
			w.fixed = noon.Add(time.Second)
		}},
		{"AdminUpdate to a later start", func(w *world) {
			w.do(olga, "PUT", eligiblePath(rg1, 5), w.ask("AdminUpdate", "Contributor", nora, "P1D", "startDateTime", `"2030-05-06T13:00:00Z"`), 201)
		}},
		{"AdminRemove of the activation", func(w *world) {
			w.do(olga, "PUT", activePath(rg1, 5), w.ask("AdminRemove", "Contributor", nora, ""), 201)
		}},
		{"DELETE of the assignment", func(w *world) {
			a := w.roles.For(nora)[0]
			w.do(olga, "DELETE", a.ID, "", 200)
		}},
		{"the principal's end", func(w *world) {
			if err := w.db.Do(w.Context(), func(tx *store.Tx) error { return w.roles.DropPrincipal(tx, nora) }); err != nil {
				w.Fatal(err)
			}
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			w := eligibleWorld(t)
			w.do(nora, "PUT", activePath(rg1, 1), w.ask("SelfActivate", "Contributor", nora, "PT8H"), 201)
			if !w.mayWrite(nora) {
				t.Fatal("not activated")
			}
			if x.end(w); w.mayWrite(nora) {
				t.Error("the right outlived it")
			}
			w.restart()
			if w.mayWrite(nora) {
				t.Error("a restart brought the right back")
			}
		})
	}
}

// Who is eligible by a group activates for themselves, and loses it with the
// membership or the group; other members get nothing by it.
func TestEligibleByAGroup(t *testing.T) {
	w := newWorld(t)
	w.fixed = noon
	w.do(olga, "PUT", eligiblePath(rg1, 1), w.ask("AdminAssign", "Contributor", above, "P1D"), 201)
	for _, list := range []string{"roleEligibilityScheduleInstances", "roleEligibilitySchedules"} {
		got := w.do(nora, "GET", rg1+auth+list+"?$filter=asTarget()", "", 200)
		if ids := names(got, "principalId"); !slices.Equal(ids, []string{above}) || !slices.Equal(names(got, "memberType"), []string{"Group"}) {
			t.Errorf("%s of nora: %v", list, got)
		}
		if got := w.do(dora, "GET", rg1+auth+list+"?$filter=asTarget()", "", 200); len(names(got, "scope")) != 0 {
			t.Errorf("%s of dora: %v", list, got)
		}
	}
	if c, got := w.send(nora, "PUT", activePath(rg1, 1), w.ask("SelfActivate", "Contributor", above, "PT1H")); c != 403 {
		t.Errorf("for the whole group: %d %v", c, got)
	}
	w.do(nora, "PUT", activePath(rg1, 2), w.ask("SelfActivate", "Contributor", nora, "PT1H"), 201)
	if !w.mayWrite(nora) {
		t.Fatal("not activated")
	}
	w.people.left = true
	if w.mayWrite(nora) {
		t.Error("the right outlived the membership")
	}
	w.people.left = false
	if err := w.db.Do(w.Context(), func(tx *store.Tx) error { return w.roles.DropPrincipal(tx, above) }); err != nil {
		t.Fatal(err)
	}
	if w.mayWrite(nora) {
		t.Error("the right outlived the group")
	}
}

// A policy that wants more factors is not satisfied by a token that does not
// show them, and the refusal says what to sign in with.
func TestActivationWantsFactors(t *testing.T) {
	w := eligibleWorld(t)
	w.rules(rg1, "Contributor", enablement(`"Justification","MultiFactorAuthentication"`))
	body := w.ask("SelfActivate", "Contributor", nora, "PT1H")
	for _, amr := range []string{"", " pwd", " pwd otp", " mfa2", " MFA"} {
		got := w.do(nora+amr, "PUT", activePath(rg1, 1), body, 400)
		if code(got) != "RoleAssignmentRequestAcrsValidationFailed" || !strings.Contains(fmt.Sprint(got), "&claims=%7B") {
			t.Errorf("amr %q: %v", amr, got)
		}
		if w.mayWrite(nora) {
			t.Fatalf("amr %q activated", amr)
		}
	}
	w.do(nora+" pwd mfa", "PUT", activePath(rg1, 1), body, 201)
	if !w.mayWrite(nora) {
		t.Error("with the factors it is not activated")
	}
}

// A policy that wants an authentication context is satisfied by a token of that
// one alone; with it and more factors wanted, the claims ask for both.
func TestActivationWantsAnAuthenticationContext(t *testing.T) {
	w := eligibleWorld(t)
	rule := func(on bool) string {
		return fmt.Sprintf(`{"id":"AuthenticationContext_EndUser_Assignment","ruleType":"RoleManagementPolicyAuthenticationContextRule","isEnabled":%v,"claimValue":"c3"}`, on)
	}
	w.rules(rg1, "Contributor", rule(true)+","+enablement(`"Justification","MultiFactorAuthentication"`))
	body := w.ask("SelfActivate", "Contributor", nora, "PT1H")
	for _, x := range []struct{ shows, asks string }{
		{"", "%7B%22access_token%22%3A%7B%22acrs%22%3A%7B%22essential%22%3Atrue%2C%22values%22%3A%5B%22c3%22%5D%7D%2C%22amr%22"},
		{" mfa", "%7B%22access_token%22%3A%7B%22acrs%22%3A%7B%22essential%22%3Atrue%2C%22values%22%3A%5B%22c3%22%5D%7D%7D%7D"},
		{" mfa c1 c33 C3", "%22c3%22"},
		{" c3", "%22mfa%22"},
	} {
		got := w.do(nora+x.shows, "PUT", activePath(rg1, 1), body, 400)
		if code(got) != "RoleAssignmentRequestAcrsValidationFailed" || !strings.Contains(fmt.Sprint(got), "&claims=") || !strings.Contains(fmt.Sprint(got), x.asks) {
			t.Errorf("%q: %v, want claims with %s", x.shows, got, x.asks)
		}
		if w.mayWrite(nora) {
			t.Fatalf("%q activated", x.shows)
		}
	}
	w.restart()
	w.do(nora+" mfa", "PUT", activePath(rg1, 1), body, 400)
	w.do(nora+" mfa c1 c3", "PUT", activePath(rg1, 1), body, 201)
	if !w.mayWrite(nora) {
		t.Error("in the context it is not activated")
	}
	w.rules(rg1, "Contributor", rule(false))
	w.do(nora, "PUT", activePath(rg1, 2), w.ask("SelfDeactivate", "Contributor", nora, ""), 201)
	w.do(nora+" mfa", "PUT", activePath(rg1, 3), body, 201)
}

// Every rule of a policy is held for every kind of request that it is about.
func TestEveryRuleIsHeld(t *testing.T) {
	full := []string{"justification", `"because"`, "ticketInfo", `{"ticketNumber":"1","ticketSystem":"tickets"}`}
	for _, target := range ruleTargets {
		for _, x := range []struct{ rule, without, want string }{
			{"Justification", "justification", "JustificationRule"}, {"Ticketing", "ticketInfo", "TicketingRule"}, {"MultiFactorAuthentication", "mfa", "RoleAssignmentRequestAcrsValidationFailed"}, {"", "duration", "ExpirationRule"},
		} {
			t.Run(target+" "+x.rule+x.without, func(t *testing.T) {
				w := newWorld(t)
				w.fixed = noon
				who, path, typ := olga, eligiblePath(rg1, 7), "AdminAssign"
				switch target {
				case adminAssignment:
					path = activePath(rg1, 7)
				case userAssignment:
					w.do(olga, "PUT", eligiblePath(rg1, 1), w.ask("AdminAssign", "Contributor", nora, "P1D"), 201)
					who, path, typ = nora, activePath(rg1, 7), "SelfActivate"
				}
				rules := fmt.Sprintf(`{"id":"Expiration_%s","ruleType":"RoleManagementPolicyExpirationRule","isExpirationRequired":true,"maximumDuration":"PT2H"}`, target)
				if x.rule != "" {
					rules += fmt.Sprintf(`,{"id":"Enablement_%s","ruleType":"RoleManagementPolicyEnablementRule","enabledRules":[%q]}`, target, x.rule)
				}
				w.rules(rg1, "Contributor", rules)
				more, duration, amr := slices.Clone(full), "PT2H", " mfa"
				switch x.without {
				case "mfa":
					amr = ""
				case "duration":
					duration = "PT2H1S"
				default:
					i := slices.Index(more, x.without)
					more[i+1] = map[string]string{"justification": `""`, "ticketInfo": `{"ticketNumber":"1"}`}[x.without]
				}
				got := w.do(who+amr, "PUT", path, w.ask(typ, "Contributor", nora, duration, more...), 400)
				if !strings.Contains(fmt.Sprint(got), x.want) {
					t.Errorf("answered %v, want %s", got, x.want)
				}
				if len(w.roles.For(nora)) != 0 {
					t.Error("refused, but done")
				}
				w.do(who+" mfa", "POST", path+"/validate", w.ask(typ, "Contributor", nora, "PT2H", full...), 200)
				if len(w.roles.For(nora)) != 0 {
					t.Error("only validated, but done")
				}
				w.do(who+" mfa", "PUT", path, w.ask(typ, "Contributor", nora, "PT2H", full...), 201)
			})
		}
	}
}

// With approval wanted nothing is given until somebody else, who is an approver,
// says yes; neither who asks, nor an owner, nor who was an approver decides.
func TestApproval(t *testing.T) {
	w := eligibleWorld(t)
	w.rules(rg1, "Contributor", approvalBy(rita, nora))
	q := activePath(rg1, 1)
	out := w.do(nora, "PUT", q, w.ask("SelfActivate", "Contributor", nora, "PT1H"), 201)
	if status(out) != "PendingApproval" || w.mayWrite(nora) {
		t.Fatalf("the request answered %v", out)
	}
	if got := w.do(nora, "PUT", activePath(rg1, 2), w.ask("SelfActivate", "Contributor", nora, "PT1H"), 409); code(got) != "PendingRoleAssignmentRequest" {
		t.Errorf("a second request: %v", got)
	}
	id := fmt.Sprint(out["properties"].(map[string]any)["approvalId"])
	stage := id + "/stages/" + out["name"].(string)
	yes := `{"reviewResult":"Approve","justification":"fine"}`
	for _, who := range []string{nora, olga, carl, dora, bot, abel} {
		for _, method := range []string{"PATCH", "PUT"} {
			if c, got := w.send(who, method, stage, yes); c != 403 {
				t.Errorf("%s of %s: %d %v", method, who[32:], c, got)
			}
		}
		if c, _ := w.send(who, "GET", id, ""); c != 403 {
			t.Errorf("%s reads the approval: %d", who[32:], c)
		}
		if got := w.do(who, "GET", auth+"roleAssignmentApprovals?$filter=asApprover()", "", 200); len(got["value"].([]any)) != 0 {
			t.Errorf("%s lists %v", who[32:], got)
		}
		if w.mayWrite(nora) {
			t.Fatalf("%s approved", who[32:])
		}
	}
	if got := w.do(rita, "GET", auth+"roleAssignmentApprovals?$filter=asApprover()", "", 200); len(got["value"].([]any)) != 1 {
		t.Errorf("the approver lists %v", got)
	}
	if got := w.do(rita, "GET", id+"/stages", "", 200); len(got["value"].([]any)) != 1 {
		t.Errorf("the approver sees the stages %v", got)
	}
	w.do(rita, "PATCH", stage, `{"reviewResult":"Approve"}`, 400) // no justification
	w.do(rita, "PATCH", stage, `{"reviewResult":"Perhaps","justification":"x"}`, 400)
	w.do(rita, "PATCH", id+"/stages/00000009-0000-4000-8000-0000000000a1", yes, 404)
	w.rules(rg1, "Contributor", approvalBy(carl))
	w.do(rita, "PATCH", stage, yes, 403)
	w.rules(rg1, "Contributor", approvalBy(rita))
	if w.mayWrite(nora) {
		t.Fatal("nobody approved yet")
	}
	w.fixed = noon.Add(3 * time.Hour)
	if got := w.do(rita, "PATCH", stage, `{"properties":`+yes+`}`, 200); fmt.Sprint(got["properties"].(map[string]any)["reviewResult"]) != "Approve" {
		t.Errorf("the approval answered %v", got)
	}
	if !w.mayWrite(nora) {
		t.Error("approved, but not activated")
	}
	if got := w.do(olga, "GET", q, "", 200); status(got) != "Provisioned" {
		t.Errorf("the request is %v", got)
	}
	w.fixed = noon.Add(4*time.Hour - 1)
	if !w.mayWrite(nora) {
		t.Error("the hour does not begin with the approval")
	}
	if w.fixed = noon.Add(4 * time.Hour); w.mayWrite(nora) {
		t.Error("the activation does not end")
	}
	w.do(rita, "PATCH", stage, yes, 409) // a replay
	if w.mayWrite(nora) {
		t.Error("an approval counts twice")
	}
}

// What was denied, withdrawn, timed out, or whose eligibility ended meanwhile,
// is never given, whatever an approver says afterwards.
func TestApprovalsEnd(t *testing.T) {
	yes := `{"reviewResult":"Approve","justification":"fine"}`
	for _, x := range []struct {
		name, status string
		code         int
		end          func(w *world, stage string)
	}{
		{"denied", "Denied", 409, func(w *world, stage string) {
			w.do(rita, "PATCH", stage, `{"reviewResult":"Deny","justification":"no"}`, 200)
		}},
		{"withdrawn", "Canceled", 409, func(w *world, _ string) {
			w.do(rita, "POST", activePath(rg1, 1)+"/cancel", "", 403)
			w.do(nora, "POST", activePath(rg1, 1)+"/cancel", "", 200)
		}},
		{"timed out", "TimedOut", 409, func(w *world, _ string) { w.fixed = noon.Add(24 * time.Hour) }},
		{"no more eligible", "PendingApproval", 403, func(w *world, _ string) {
			w.do(olga, "PUT", eligiblePath(rg1, 5), w.ask("AdminRemove", "Contributor", nora, ""), 201)
		}},
		{"eligible anew", "PendingApproval", 403, func(w *world, _ string) {
			w.do(olga, "PUT", eligiblePath(rg1, 5), w.ask("AdminRemove", "Contributor", nora, ""), 201)
			w.do(olga, "PUT", eligiblePath(rg1, 6), w.ask("AdminAssign", "Contributor", nora, "P1D"), 201)
		}},
		{"the eligibility ended", "PendingApproval", 409, func(w *world, _ string) {
			w.do(olga, "PUT", eligiblePath(rg1, 5), w.ask("AdminUpdate", "Contributor", nora, "PT1H"), 201)
			w.fixed = noon.Add(time.Hour)
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			w := eligibleWorld(t)
			w.do(olga, "PUT", eligiblePath(rg1, 4), w.ask("AdminUpdate", "Contributor", nora, "P30D"), 201)
			w.rules(rg1, "Contributor", approvalBy(rita))
			out := w.do(nora, "PUT", activePath(rg1, 1), w.ask("SelfActivate", "Contributor", nora, "PT1H"), 201)
			stage := fmt.Sprint(out["properties"].(map[string]any)["approvalId"]) + "/stages/" + out["name"].(string)
			x.end(w, stage)
			w.do(rita, "PATCH", stage, yes, x.code)
			if w.mayWrite(nora) || len(w.roles.For(nora)) != 0 {
				t.Error("it was given")
			}
			if got := w.do(nora, "GET", activePath(rg1, 1), "", 200); status(got) != x.status {
				t.Errorf("the request is %s, want %s", status(got), x.status)
			}
		})
	}
}

// An account for emergencies waits for nobody, and is held to all else.
func TestBreakGlassWaitsForNobody(t *testing.T) {
	w := eligibleWorld(t)
	w.rules(rg1, "Contributor", approvalBy(rita)+","+enablement(`"MultiFactorAuthentication"`))
	w.broken = nora
	w.do(nora, "PUT", activePath(rg1, 1), w.ask("SelfActivate", "Contributor", nora, "PT1H"), 400)
	w.do(nora+" mfa", "PUT", activePath(rg1, 1), w.ask("SelfActivate", "Contributor", nora, "PT1H"), 201)
	if !w.mayWrite(nora) {
		t.Error("it waits")
	}
}

// Administrators give, change and take assignments that are bound to a time; the
// last lasting administrator stays, whichever door is tried.
func TestAdministratorsBindAssignments(t *testing.T) {
	w := newWorld(t)
	w.fixed = noon
	w.do(olga, "PUT", activePath(rg1, 1), w.ask("AdminAssign", "Contributor", nora, "PT1H", "startDateTime", `"2030-05-06T13:00:00Z"`), 201)
	for _, x := range []struct {
		after time.Duration
		want  bool
	}{{0, false}, {time.Hour - 1, false}, {time.Hour, true}, {2*time.Hour - 1, true}, {2 * time.Hour, false}} {
		if w.fixed = noon.Add(x.after); w.mayWrite(nora) != x.want {
			t.Errorf("%s after noon: %v, want %v", x.after, !x.want, x.want)
		}
	}
	w.fixed = noon.Add(90 * time.Minute)
	w.do(olga, "PUT", activePath(rg1, 2), w.ask("AdminExtend", "Contributor", nora, "PT1M"), 400)
	w.do(olga, "PUT", activePath(rg1, 2), w.ask("AdminExtend", "Contributor", nora, "PT2H"), 201)
	if w.fixed = noon.Add(3 * time.Hour); !w.mayWrite(nora) {
		t.Error("not extended")
	}
	w.do(olga, "PUT", activePath(rg1, 3), w.ask("AdminUpdate", "Contributor", nora, "PT1S"), 201)
	if w.fixed = w.fixed.Add(time.Second); w.mayWrite(nora) {
		t.Error("not shortened")
	}
	// A plain PUT of the same right does not meet what is over.
	w.do(olga, "PUT", at(rg1, 1), w.give("Contributor", nora), 201)
	w.do(olga, "PUT", activePath(rg1, 4), w.ask("AdminRemove", "Contributor", nora, ""), 201)
	if w.mayWrite(nora) {
		t.Error("not removed")
	}
	// olga alone is Owner at the subscription for good.
	w.do(olga, "PUT", activePath(sub, 5), w.ask("AdminAssign", "Owner", nora, "P1D"), 201)
	for i, body := range []string{w.ask("AdminRemove", "Owner", olga, ""), w.ask("AdminUpdate", "Owner", olga, "PT1H"), w.ask("AdminUpdate", "Owner", olga, "P2D", "startDateTime", `"2030-05-09T13:00:00Z"`)} {
		if c, got := w.send(olga, "PUT", activePath(sub, 10+i), body); c != 412 {
			t.Errorf("the last administrator, %s: %d %v", body, c, got)
		}
	}
	mine := w.roles.For(olga)[0].ID
	w.do(nora, "DELETE", mine, "", 412)
	w.do(abel, "PUT", activePath(rg1, 20), w.ask("AdminAssign", "Owner", abel, "PT1H"), 403) // roleAssignments/write is not enough
}

// A plain PUT does not turn what ends into what stays.
func TestAPlainPutKeepsTheEnd(t *testing.T) {
	w := eligibleWorld(t)
	w.do(nora, "PUT", activePath(rg1, 1), w.ask("SelfActivate", "Contributor", nora, "PT1H"), 201)
	id := w.roles.For(nora)[0].ID
	w.do(olga, "PUT", id, strings.Replace(w.give("Contributor", nora), `{"role`, `{"description":"x","role`, 1), 200)
	if w.fixed = noon.Add(time.Hour); w.mayWrite(nora) {
		t.Error("a changed description made the assignment stay")
	}
	// Who sets up something that needs a role for good gets it for good.
	w.fixed = noon
	err := w.db.Do(t.Context(), func(tx *store.Tx) error {
		return w.roles.Assign(tx, rbac.Assignment{Principal: nora, RoleID: w.ids["Contributor"], Scope: arm.MustID(rg1)}, arm.Caller{Object: "setup"})
	})
	if w.fixed = noon.Add(48 * time.Hour); err != nil || !w.mayWrite(nora) {
		t.Errorf("an assignment for good met one that ends: %v", err)
	}
}

// Bad policies are refused and change nothing; what a policy says comes back.
func TestPolicies(t *testing.T) {
	w := newWorld(t)
	path := rg1 + auth + "roleManagementPolicies/" + policyName(arm.MustID(rg1), w.ids["Contributor"])
	before := fmt.Sprint(w.do(rita, "GET", path, "", 200))
	for _, x := range []struct{ name, rules, code string }{
		{"an unknown rule", `{"id":"Enablement_Anybody","ruleType":"RoleManagementPolicyEnablementRule","enabledRules":[]}`, "InvalidRequestContent"},
		{"a rule of another kind", `{"id":"Enablement_EndUser_Assignment","ruleType":"RoleManagementPolicyExpirationRule","maximumDuration":"PT1H"}`, "InvalidRequestContent"},
		{"an unknown enablement", enablement(`"Retina"`), "InvalidRequestContent"},
		{"mail", `{"id":"Notification_Admin_Admin_Eligibility","ruleType":"RoleManagementPolicyNotificationRule","notificationType":"Email"}`, "NotSupported"},
		{"no authentication context", `{"id":"AuthenticationContext_EndUser_Assignment","ruleType":"RoleManagementPolicyAuthenticationContextRule","isEnabled":true,"claimValue":""}`, "InvalidRequestContent"},
		{"an authentication context that can't be", `{"id":"AuthenticationContext_EndUser_Assignment","ruleType":"RoleManagementPolicyAuthenticationContextRule","isEnabled":true,"claimValue":"c100"}`, "InvalidRequestContent"},
		{"an authentication context for an administrator", `{"id":"AuthenticationContext_Admin_Assignment","ruleType":"RoleManagementPolicyAuthenticationContextRule","isEnabled":true,"claimValue":"c1"}`, "InvalidRequestContent"},
		{"an activation for ever", `{"id":"Expiration_EndUser_Assignment","ruleType":"RoleManagementPolicyExpirationRule","isExpirationRequired":false,"maximumDuration":"PT8H"}`, "InvalidRequestContent"},
		{"an activation for a week", `{"id":"Expiration_EndUser_Assignment","ruleType":"RoleManagementPolicyExpirationRule","maximumDuration":"P7D"}`, "InvalidRequestContent"},
		{"a duration that is none", `{"id":"Expiration_Admin_Assignment","ruleType":"RoleManagementPolicyExpirationRule","maximumDuration":"8 hours"}`, "InvalidRequestContent"},
		{"approval by nobody", approvalBy(), "InvalidRequestContent"},
		{"approval by who is not there", approvalBy("99999999-0000-0000-0000-000000000000"), "PrincipalNotFound"},
		{"approval by an application", approvalBy(bot), "PrincipalNotFound"},
		{"a good rule and a bad one", enablement(``) + `,` + approvalBy(), "InvalidRequestContent"},
	} {
		if c, got := w.send(olga, "PATCH", path, `{"properties":{"rules":[`+x.rules+`]}}`); c < 400 || code(got) != x.code {
			t.Errorf("%s: %d %v, want %s", x.name, c, got, x.code)
		}
	}
	if after := fmt.Sprint(w.do(rita, "GET", path, "", 200)); after != before {
		t.Errorf("the policy changed from %s to %s", before, after)
	}
	w.do(carl, "PATCH", path, `{"properties":{"rules":[]}}`, 403)
	w.do(olga, "PATCH", path, `{"properties":{"rules":[`+enablement(`"Ticketing"`)+`]}}`, 200)
	w.restart()
	if after := fmt.Sprint(w.do(rita, "GET", path, "", 200)); !strings.Contains(after, "Ticketing") {
		t.Errorf("the policy is %s", after)
	}
	w.do(rita, "GET", sub+auth+"roleManagementPolicies/"+policyName(arm.MustID(rg1), w.ids["Contributor"]), "", 404)
	got := w.do(rita, "GET", rg1+auth+"roleManagementPolicyAssignments?$filter=roleDefinitionId eq '"+sub+auth+"roleDefinitions/"+w.ids["Contributor"]+"'", "", 200)
	rows := got["value"].([]any)
	if len(rows) != 1 || rows[0].(map[string]any)["properties"].(map[string]any)["policyId"] != path {
		t.Errorf("the policy of the role is %v, want %s", got, path)
	}
}

// Everybody sees their own eligibilities, activations and requests, and of
// others' those that a role shows them.
func TestEverybodySeesTheirOwn(t *testing.T) {
	w := eligibleWorld(t)
	w.do(nora, "PUT", activePath(rg1, 1), w.ask("SelfActivate", "Contributor", nora, "PT1H"), 201)
	w.do(nora, "PUT", activePath(rg1, 2), w.ask("SelfDeactivate", "Contributor", nora, "PT1H"), 201)
	w.do(olga, "PUT", activePath(rg10, 3), w.ask("AdminAssign", "Reader", bot, "PT1H"), 201)
	w.do(olga, "PUT", activePath(rg1, 4), w.ask("AdminAssign", "AcrPull", nora, "PT1H"), 201)
	for list, want := range map[string][3]int{ // nora, dora, rita, who reads the subscription
		"roleEligibilityScheduleRequests": {1, 0, 1}, "roleEligibilitySchedules": {1, 0, 1}, "roleEligibilityScheduleInstances": {1, 0, 1},
		"roleAssignmentScheduleRequests": {3, 0, 4}, "roleAssignmentSchedules": {1, 1, 7}, "roleAssignmentScheduleInstances": {1, 1, 7},
	} {
		for i, who := range []string{nora, dora, rita} {
			got := w.do(who, "GET", sub+auth+list, "", 200)
			if n := len(got["value"].([]any)); n != want[i] {
				t.Errorf("%s lists %d of %s, want %d: %v", who[32:], n, list, want[i], names(got, "principalId"))
			}
			for _, x := range got["value"].([]any) {
				w.do(who, "GET", x.(map[string]any)["id"].(string), "", 200)
			}
		}
		if got := w.do(nora, "GET", sub+auth+list+"?$filter=asTarget()", "", 200); len(got["value"].([]any)) == 0 {
			t.Errorf("nora is no target in %s", list)
		}
		if got := w.do(nora, "GET", auth+list+"?$filter=asTarget()", "", 200); len(got["value"].([]any)) == 0 {
			t.Errorf("nora is no target in %s of the tenant", list)
		}
		if got := w.do(rita, "GET", sub+auth+list+"?$filter=atScope()", "", 200); list[:15] == "roleEligibility" && len(got["value"].([]any)) != 0 {
			t.Errorf("%s at the scope: %v", list, got)
		}
	}
	w.do(dora, "GET", eligiblePath(rg1, 1), "", 403)
	if got := w.do(nora, "GET", sub+auth+"eligibleChildResources", "", 200); fmt.Sprint(got["value"]) != fmt.Sprintf("[map[id:%s name:rg1 type:resourcegroup]]", rg1) {
		t.Errorf("nora is eligible in %v", got)
	}
	if got := w.do(olga, "GET", sub+auth+"eligibleChildResources", "", 200); len(got["value"].([]any)) != 0 {
		t.Errorf("olga is eligible in %v", got)
	}
}

// The log tells an activation from a right by a role, names who was refused, and
// has each entry of a change with the change.
func TestActivationsAreInTheLog(t *testing.T) {
	w := eligibleWorld(t)
	w.do(nora, "PUT", activePath(rg1, 1), w.ask("SelfActivate", "Contributor", nora, "PT1H"), 201)
	w.do(nora, "PUT", activePath(rg1, 2), w.ask("AdminAssign", "Owner", nora, "PT1H"), 403)
	if err := w.log.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	tail, err := w.log.Tail(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	var own, refused *audit.Entry
	for i, e := range tail {
		switch {
		case e.Caller == nora && e.Decision == "allowed" && e.Outcome == "ok":
			own = &tail[i]
		case e.Caller == nora && e.Decision == "refused":
			refused = &tail[i]
		}
	}
	if own == nil || !strings.Contains(own.Reason, "eligible by") || own.Action != writeAssignmentRequest.Name() {
		t.Errorf("the activation stands in the log as %+v", own)
	}
	if refused == nil || refused.Action != writeAssignmentRequest.Name() || refused.Target != rg1 {
		t.Errorf("the refusal stands in the log as %+v", refused)
	}
}

// A deleted scope takes its eligibilities, requests and policies along: who
// makes one of the same name anew does not meet them.
func TestPrivilegesDieWithTheirScope(t *testing.T) {
	w := eligibleWorld(t)
	w.do(olga, "PUT", eligiblePath(ws, 2), w.ask("AdminAssign", "Reader", nora, "P1D"), 201)
	w.rules(ws, "Reader", enablement(`"Ticketing"`))
	w.do(olga, "DELETE", ws, "", 200)
	w.do(olga, "PUT", ws, `{"location":"local"}`, 201)
	got := w.do(nora, "GET", ws+auth+"roleEligibilitySchedules?$filter=asTarget() and roleDefinitionId eq '"+w.ids["Reader"]+"'", "", 200)
	if len(got["value"].([]any)) != 0 {
		t.Errorf("the eligibility outlived its scope: %v", got)
	}
	if c, _ := w.send(nora, "PUT", activePath(ws, 3), w.ask("SelfActivate", "Reader", nora, "PT1H")); c != 403 {
		t.Errorf("activating what is gone = %d", c)
	}
	if got := fmt.Sprint(w.do(olga, "GET", ws+auth+"roleManagementPolicies/"+policyName(arm.MustID(ws), w.ids["Reader"]), "", 200)); strings.Contains(got, "Ticketing") {
		t.Error("the policy outlived its scope")
	}
}

// Durations are read as Azure does, or refused.
func TestPeriods(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"PT8H": 8 * time.Hour, "PT1H30M": 90 * time.Minute, "P1D": 24 * time.Hour, "P1DT1S": 24*time.Hour + time.Second, "P1Y": 365 * 24 * time.Hour, "P2M": 60 * 24 * time.Hour, "P1W": 7 * 24 * time.Hour, "P365D": 365 * 24 * time.Hour,
		"": 0, "P": 0, "PT": 0, "8H": 0, "PT0S": 0, "-PT8H": 0, "PT-8H": 0, "PT8H ": 0, "pt8h": 0, "PT1.5H": 0, "P99999999999D": 0, "PT8H\nP": 0,
	} {
		got, err := period(text)
		if got != want && err == nil || (err == nil) != (want != 0) {
			t.Errorf("period(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
}
