package identity

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"

	"castellan/internal/access"
	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/gate"
)

// signInAction is what the audit log calls sign-ins.
const signInAction = "microsoft.directory/signIn"

// signIn is what the audit log is told of one attempt to get tokens or a
// session. It never has a name that was typed and is nobody's: people type
// passwords where names belong.
type signIn struct {
	tenant, object, name, app string
	how                       string // what was shown: secret, certificate, password, refresh, ...
	grant                     string
	resource                  string
	said                      string         // what happened, where it is no sign-in
	verdict                   access.Verdict // what Conditional Access said, once it was asked
}

// about says who it is about.
func (e *signIn) about(u *User) { e.tenant, e.object, e.name = u.Tenant, u.ID, u.UPN }

// note records how an attempt ended and returns the error that it ended with.
// What can't be recorded fails, and nothing is given.
func (s *Service) note(ctx context.Context, e signIn, err error) error {
	x := audit.Entry{
		Tenant: e.tenant, Caller: e.object, Name: e.name, Credential: e.how, Action: signInAction, Target: tenantID(e.tenant).String(),
		Item: e.grant, Decision: "allowed", Reason: "signed in", Outcome: "ok", Address: gate.Peer(ctx),
	}
	if e.resource != "" {
		x.Reason = "signed in for " + e.resource
	}
	if e.said != "" {
		x.Reason = e.said
	}
	if isGUID(e.app) {
		x.App = e.app
	}
	if len(e.verdict.Results) > 0 {
		b, err := json.Marshal(signInDetail{Policies: e.verdict.Results})
		if err != nil {
			return err
		}
		x.Detail = string(b)
	}
	var p *problem
	switch {
	case err == nil:
	case errors.As(err, &p):
		if p.code == "authorization_pending" || p.code == "slow_down" {
			return err // nothing happened yet
		}
		x.Decision, x.Reason, x.Outcome = "refused", reason(p), p.code
	default:
		x.Decision, x.Reason, x.Outcome = "refused", "an error", string(arm.CodeOf(err))
	}
	if u := s.index.user(e.object); u != nil && u.BreakGlass {
		x.Reason = "AN ACCOUNT FOR EMERGENCIES: " + x.Reason
		if s.Warn != nil {
			s.Warn("an account for emergencies was used", "user", u.UPN, "outcome", x.Outcome, "grant", e.grant)
		}
	}
	if rec := s.Log.Record(context.WithoutCancel(ctx), x); rec != nil {
		return &problem{status: 500, number: 90033, code: "temporarily_unavailable", text: "The sign-in can't be recorded, so it is not carried out.", err: rec}
	}
	return err
}

// reason is the problem without what the client typed.
func reason(p *problem) string {
	switch p.number {
	case 700016, 500011, 90002, 70003, 9000411:
		return "AADSTS" + strconv.Itoa(p.number)
	}
	return p.description()
}
