package identity

import (
	"net/http"
	"net/netip"

	"castellan/internal/access"
)

// rulesOf are the Conditional Access policies of a tenant.
func (s *Service) rulesOf(tenant string) *access.Rules {
	if m := s.rules.Load(); m != nil {
		return (*m)[tenant]
	}
	return nil
}

// addressOf is where a request comes from: the other end of the connection.
// What a header says of it is not believed.
func addressOf(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{} // it is not known, which policies take for any
	}
	return a.Addr().Unmap()
}

// factsOf are a person's part of the facts.
func (s *Service) factsOf(u *User) access.Facts {
	return access.Facts{User: u.ID, Groups: s.index.groupsOf(u.ID), Roles: s.directoryRoles(u.ID), BreakGlass: u.BreakGlass}
}

// conditions asks the tenant's Conditional Access policies whether a person who
// proved what g says may have tokens for an api through a client. Every way to
// a token asks it; the error is the refusal, as the client is told it.
func (s *Service) conditions(r *http.Request, u *User, app string, to api, g grant) (access.Verdict, error) {
	f := s.factsOf(u)
	f.App, f.Resource, f.Address, f.Proofs = fold(app), to.app, addressOf(r), g.Proofs
	f.DeviceCode, f.Client, f.Contexts = g.DeviceCode, g.kind(), g.Demand.Contexts
	rules, now := s.rulesOf(u.Tenant), s.Now()
	for _, c := range f.Contexts {
		if !rules.HasContext(c) {
			return access.Verdict{}, badClaims("access_token.acrs has '" + c + "', which is no authentication context of the tenant")
		}
	}
	v := rules.Decide(f, now)
	for _, c := range g.Demand.Wished {
		if !rules.HasContext(c) {
			continue
		}
		more := f
		more.Contexts = union(f.Contexts, []string{c})
		if w := rules.Decide(more, now); w.Allowed() {
			f, v = more, w
		}
	}
	if g.Demand.MFA && !g.Proofs.MFA() && !v.Needs(access.NeedMFA) {
		v.Need = append(v.Need, access.NeedMFA)
	}
	return v, unmet(v, g.Demand)
}

// unmet is the refusal that a verdict means, or nil. Its claims are what the
// client asks for when it comes again.
func unmet(v access.Verdict, d demand) error {
	switch {
	case v.Allowed():
		return nil
	case v.Block || len(v.Need) == 0:
		p := problemf(53003, "invalid_grant", "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance.")
		p.sub, p.claims = "message_only", again(v, d)
		return p
	}
	p := problemf(50076, "interaction_required", "Due to a configuration change made by your administrator, or because you moved to a new location, you must use multi-factor authentication to access the resource.")
	p.sub = "basic_action"
	switch {
	case v.Needs(access.Fresh) && len(v.Need) > 1:
		p.number, p.text = 50078, "Presented multi-factor authentication has expired due to policies configured by your administrator; you must refresh your multi-factor authentication to access the resource."
	case v.Needs(access.Fresh):
		p.number, p.code, p.sub, p.text = 70043, "invalid_grant", "token_expired", "The refresh token has expired or is invalid due to sign-in frequency checks by Conditional Access. The user must sign in again."
	}
	p.claims = again(v, d)
	return p
}

// again are the claims that a client asks for at the next sign-in, so that it is
// the one that the policies (capolids), and whoever asked for more, want.
func again(v access.Verdict, d demand) string {
	c := map[string]any{}
	if len(v.Policies) > 0 {
		c["capolids"] = map[string]any{"essential": true, "values": v.Policies}
	}
	if len(d.Contexts) > 0 {
		c["acrs"] = map[string]any{"essential": true, "values": d.Contexts}
	}
	if d.MFA {
		c["amr"] = map[string]any{"essential": true, "values": []string{"mfa"}}
	}
	return claimsText(c)
}

// unmet answers the browser when no code can be given. A client that asked for
// silence is told; a person is asked for what is missing.
func (s *Service) unmet(w http.ResponseWriter, r *http.Request, a *authorization, _ *User, _ grant, v access.Verdict, err error) error {
	if a.prompt != "none" && v.Needs(access.Fresh) {
		f := s.newFlow(w, r, goalCode, a.path)
		f.V1, f.Query = a.v1, a.query
		return s.askPassword(w, r, f, a, a.hint, "")
	}
	if a.prompt != "none" && len(v.Policies) > 0 {
		return s.fault(w, r, err)
	}
	if v.Block {
		p := *problemOf(err)
		p.code, err = "access_denied", &p // RFC 6749 has this word for the authorize endpoint
	}
	return s.sendError(w, r, a, err)
}

// deviceConditions asks the policies before a person lets a device in. The code
// is looked at again when it is settled.
func (s *Service) deviceConditions(r *http.Request, e *signIn, u *User, code string, session grant) error {
	g, ok, err := s.deviceOf(r.Context(), code)
	if err != nil || !ok {
		return err // settle says that the code is no longer valid
	}
	to, err := s.target(u.Tenant, g.Resource)
	if err != nil {
		return err
	}
	e.app, e.resource = g.Client, to.audience
	e.verdict, err = s.conditions(r, u, g.Client, to, g.by(session))
	return err
}
