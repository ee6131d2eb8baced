package identity

import (
	"net/http"
	"slices"

	"castellan/internal/access"
)

// advance goes on with a person who has shown f.Proofs: it asks for what is
// still missing, and lets them in when nothing is. A factor that the person has
// is asked for before anything is changed, and one is added only when there is
// none that could be asked for.
func (s *Service) advance(w http.ResponseWriter, r *http.Request, f flow, a *authorization, u *User) error {
	m, err := s.methodsOf(r.Context(), u)
	if err != nil {
		return s.fault(w, r, err)
	}
	need, err := s.missing(r, f, a, u, m)
	if err != nil {
		return s.fault(w, r, err)
	}
	resistant := slices.Contains(need, access.NeedResistant) || slices.Contains(need, access.NeedNoPass)
	second := resistant || slices.Contains(need, access.NeedMFA)
	switch {
	case slices.Contains(need, access.Fresh):
		return s.again(w, r, f, a, u)
	case resistant && len(m.Passkeys) > 0:
		return s.askPasskey(w, r, f, a, "")
	case second && m.any() && !(resistant && f.Proofs.MFA()):
		return s.askFactor(w, r, f, a, m, "")
	case u.MustChange:
		return s.askChange(w, r, f, a, "")
	case second && !m.strong(f.Proofs, s.Now()):
		return s.again(w, r, f, a, u)
	case second:
		return s.askEnrol(w, r, f, a, u, m, resistant)
	}
	return s.enter(w, r, f, a, u)
}

// again has the person sign in from the start: what they showed is too old.
func (s *Service) again(w http.ResponseWriter, r *http.Request, f flow, a *authorization, u *User) error {
	f.User, f.Proofs, f.From, f.Anew = "", nil, "", true
	return s.askPassword(w, r, f, a, u.UPN, "You signed in a while ago. Sign in again to go on.")
}

// missing is what the person has still to show for what the flow is about. A
// policy that blocks asks for nothing: the refusal comes with the code.
func (s *Service) missing(r *http.Request, f flow, a *authorization, u *User, m methods) ([]access.Control, error) {
	switch {
	case f.Goal == goalSecurity && m.any() && !f.Proofs.MFA():
		return []access.Control{access.NeedMFA}, nil
	case f.Goal == goalSecurity || f.Goal == goalDevice && f.Code == "":
		return nil, nil
	}
	var v access.Verdict
	session := grant{Proofs: f.Proofs}
	if a == nil {
		g, ok, err := s.deviceOf(r.Context(), f.Code)
		if err != nil || !ok {
			return nil, err // the form that follows says so
		}
		to, err := s.target(u.Tenant, g.Resource)
		if err != nil {
			return nil, err
		}
		v, _ = s.conditions(r, u, g.Client, to, g.by(session))
		return needOf(v), nil
	}
	to, err := s.target(u.Tenant, a.wish.resource)
	if err != nil {
		return nil, err
	}
	v, _ = s.conditions(r, u, a.client.app.AppID, to, a.with(session))
	return needOf(v), nil
}

// needOf is what a verdict wants of the person.
func needOf(v access.Verdict) []access.Control {
	if v.Block {
		return nil
	}
	return v.Need
}

// enter begins the session of a person who proved who they are, and goes on
// with what the flow was about.
func (s *Service) enter(w http.ResponseWriter, r *http.Request, f flow, a *authorization, u *User) error {
	_, g, ok := s.session(r)
	if !ok || f.From == "" || g.Key != f.From || !slices.Equal(g.Proofs, f.Proofs) {
		var err error
		if g, err = s.beginSession(w, r, u, f.Proofs); err != nil {
			return s.fault(w, r, err)
		}
	}
	switch {
	case a != nil:
		return s.sendCode(w, r, a, u, g.grant)
	case f.Goal == goalSecurity:
		return s.toSecurity(w)
	case f.Code != "":
		f.From = g.Key
		return s.confirmDevice(w, r, f, u)
	}
	return s.askDevice(w, r, f, u, "")
}
