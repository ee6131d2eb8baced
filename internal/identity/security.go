package identity

import (
	"context"
	"net/http"
	"net/url"
	"slices"

	"castellan/internal/audit"
	"castellan/internal/gate"
)

const securityPath = "/common/mysecurityinfo"

func (s *Service) toSecurity(w http.ResponseWriter) error {
	pageHeaders(w, "", s.style, false)
	w.Header().Set("Location", securityPath)
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// serveSecurity is the page where people see and change how they sign in. It
// wants a fresh sign-in with the strongest method that they have.
func (s *Service) serveSecurity(w http.ResponseWriter, r *http.Request, _ gate.Vars) error {
	f := s.newFlow(w, r, goalSecurity, "common")
	u, g, ok := s.session(r)
	if !ok {
		return s.askPassword(w, r, f, nil, "", "")
	}
	f.User, f.Epoch, f.Proofs, f.From = u.ID, u.Epoch, g.Proofs, g.Key
	return s.security(w, r, f, u, "", "")
}

// security shows the page, or has the person sign in again first.
func (s *Service) security(w http.ResponseWriter, r *http.Request, f flow, u *User, said, problem string) error {
	m, err := s.methodsOf(r.Context(), u)
	if err != nil {
		return s.fault(w, r, err)
	}
	if m.strong(f.Proofs, s.Now()) {
		return s.askSecurity(w, r, f, u, m, said, problem)
	}
	if f.Proofs.Since(s.Now().Add(-freshEnough)).Any() {
		return s.advance(w, r, f, nil, u)
	}
	return s.again(w, r, f, nil, u)
}

// serveSecurityForm takes one of the page's buttons.
func (s *Service) serveSecurityForm(w http.ResponseWriter, r *http.Request, form url.Values, f flow, _ *authorization) error {
	u, err := s.prover(r, f)
	if err != nil {
		return s.fault(w, r, err)
	}
	switch form.Get("do") {
	case "app", "passkey":
		return s.enrol(w, r, form.Get("do"), f, nil, u)
	case "codes":
		return s.giveCodes(w, r, f, nil, u)
	case "password":
		return s.askOwnPassword(w, r, f, u, "")
	case "everywhere":
		return s.signOutEverywhere(w, r, u)
	case "rename":
		return s.renameMethod(w, r, form, f, u)
	case "remove":
		return s.removeMethod(w, r, form, f, u)
	}
	return s.fault(w, r, errFlow)
}

func (s *Service) renameMethod(w http.ResponseWriter, r *http.Request, form url.Values, f flow, u *User) error {
	name, err := methodName(form.Get("name"), "")
	if err != nil || name == "" {
		return s.security(w, r, f, u, "", "The name must have 1 to 64 characters.")
	}
	err = s.alter(r.Context(), u, f.Proofs, func(m *methods) error {
		if !m.call(form.Get("id"), name) {
			return errFlow
		}
		return nil
	})
	if err := s.noteChange(r.Context(), u, "method renamed", "a way to sign in was renamed", err); err != nil {
		return s.fault(w, r, err)
	}
	return s.security(w, r, f, u, "The name was changed.", "")
}

func (s *Service) removeMethod(w http.ResponseWriter, r *http.Request, form url.Values, f flow, u *User) error {
	err := s.alter(r.Context(), u, f.Proofs, func(m *methods) error {
		if !m.drop(form.Get("id")) {
			return errFlow
		}
		return nil
	})
	if err := s.noteChange(r.Context(), u, "method removed", "a way to sign in was removed", err); err != nil {
		return s.fault(w, r, err)
	}
	return s.security(w, r, f, u, "It was removed. If somebody else may have it, sign out everywhere too.", "")
}

func (s *Service) signOutEverywhere(w http.ResponseWriter, r *http.Request, u *User) error {
	_, err := s.endAll(r.Context(), u)
	if err := s.noteChange(r.Context(), u, "sign-out everywhere", "signed out everywhere", err); err != nil {
		return s.fault(w, r, err)
	}
	if err := s.endSession(w, r); err != nil {
		return s.fault(w, r, err)
	}
	return s.say(w, r, http.StatusOK, "You are signed out everywhere", "All browsers, devices and applications must sign in again.")
}

// serveOwnPassword takes a new password of a person who knows the old one. All
// that the old one gave ends, but for this browser.
func (s *Service) serveOwnPassword(w http.ResponseWriter, r *http.Request, form url.Values, f flow, _ *authorization) error {
	u, err := s.prover(r, f)
	if err != nil {
		return s.fault(w, r, err)
	}
	if _, err := s.checkUser(r, s.index.tenantOf(u.Tenant), u.UPN, form.Get("passwd")); err != nil {
		if err := s.noteChange(r.Context(), u, "password change", "", err); problemOf(err).status >= 500 {
			return s.fault(w, r, err)
		}
		return s.askOwnPassword(w, r, f, u, "The present password is wrong, or there were too many attempts.")
	}
	next := form.Get("newpasswd")
	problem, err := s.unfit(r.Context(), u, next, form.Get("confirmnewpasswd"))
	if err != nil {
		return s.fault(w, r, err)
	}
	if problem != "" {
		return s.askOwnPassword(w, r, f, u, problem)
	}
	now, err := s.changePassword(r.Context(), u, next)
	if err := s.noteChange(r.Context(), u, "password change", "the password was changed", err); err != nil {
		return s.fault(w, r, err)
	}
	g, err := s.beginSession(w, r, now, f.Proofs)
	if err != nil {
		return s.fault(w, r, err)
	}
	f.Epoch, f.From = now.Epoch, g.Key
	return s.security(w, r, f, now, "The password was changed. Everything else that was signed in with the old one is signed out.", "")
}

// noteChange records what a person changed about themselves.
func (s *Service) noteChange(ctx context.Context, u *User, what, said string, err error) error {
	e := signIn{how: "session", grant: what, said: said}
	e.about(u)
	return s.note(ctx, e, err)
}

// recently is how many entries of the audit log are looked through for a
// person's own sign-ins, and mostRecent how many are shown.
const (
	recently   = 1000
	mostRecent = 10
)

// signInsOf are the person's last sign-ins, the newest first.
func (s *Service) signInsOf(ctx context.Context, u *User) ([]audit.Entry, error) {
	all, err := s.Log.Tail(ctx, recently)
	if err != nil {
		return nil, err
	}
	var out []audit.Entry
	for _, e := range slices.Backward(all) {
		if e.Caller == u.ID && e.Action == signInAction && len(out) < mostRecent {
			out = append(out, e)
		}
	}
	return out, nil
}
