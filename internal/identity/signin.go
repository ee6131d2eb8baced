package identity

import (
	"context"
	"net/http"
	"net/url"

	"castellan/internal/access"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// errPassword is the one answer to a wrong name, a wrong password, a disabled
// person and too many attempts, so that it tells a stranger nothing.
var errPassword = problemf(50126, "invalid_grant", "The user name or password is wrong, or there were too many attempts; then wait a while before the next.")

// checkUser is the person of this name, if the password is theirs. Every answer
// costs as much as any other. A right password forgets the wrong ones, not the
// wrong second factors.
func (s *Service) checkUser(r *http.Request, t *Tenant, name, password string) (*User, error) {
	if d := s.ldapOf(t, name); d != nil {
		return s.checkLDAP(r, d, name, password)
	}
	ctx, from := r.Context(), networkOf(r)
	u := s.index.upn(name)
	hash := ""
	if u != nil && (t == nil || u.Tenant == t.ID) && !u.Disabled {
		hash = u.Password
	}
	counted, browser := name, s.browserOf(r, u)
	if browser != "" {
		counted = u.UPN + " at " + browser
	}
	if err := s.hasher.enter(ctx); err != nil {
		return nil, err
	}
	defer s.hasher.leave()
	now := s.Now()
	// Looked at in the queue's turn: of many guesses at once only hashing can
	// pass before the first is counted.
	shut := s.locks.shut(counted, now) || browser == "" && s.spray.shut(from, now)
	ok, err := s.hasher.check(hash, password)
	if err != nil {
		return nil, err
	}
	if shut {
		return nil, errPassword
	}
	if !ok {
		s.spray.wrong(from, now)
		if err := s.locks.fail(ctx, s.DB, counted, u != nil, now); err != nil {
			return nil, err
		}
		return nil, errPassword
	}
	return u, s.locks.pass(ctx, s.DB, counted)
}

// servePassword takes the sign-in form.
func (s *Service) servePassword(w http.ResponseWriter, r *http.Request, form url.Values, f flow, a *authorization) error {
	if form.Get("way") == "passkey" {
		return s.askPasskey(w, r, f, a, "")
	}
	name := form.Get("login")
	if p := s.chosen(a, form.Get("idp"), name); p != nil {
		return s.sendAway(w, r, f, a, p, name)
	}
	t := flowTenant(a)
	u, err := s.checkUser(r, t, name, form.Get("passwd"))
	e := f.entry(a, "password", "sign-in page")
	if known := s.index.upn(name); known != nil && (t == nil || t.ID == known.Tenant) {
		e.about(known)
	}
	if err := s.note(r.Context(), e, err); err != nil {
		// Whom a directory vouched for but nobody here knows is told so: they
		// showed their password.
		if p := problemOf(err); p.status >= 500 || p.number == errStrangerNumber {
			return s.fault(w, r, err)
		}
		return s.askPassword(w, r, f, a, name, errPassword.text)
	}
	f.User, f.Epoch, f.From, f.Proofs = u.ID, u.Epoch, "", access.Proofs{}.With(access.Password, s.Now())
	return s.advance(w, r, f, a, u)
}

// resume is what a flow was about: an authorize request, or nil for any other.
func (s *Service) resume(f flow) (*authorization, error) {
	if f.Query == nil {
		return nil, nil
	}
	a, _, err := s.readAuthorization(f.Tenant, f.Query, f.V1)
	return a, err
}

// serveChange takes the form by which a person chooses a password in the place
// of one that somebody else chose.
func (s *Service) serveChange(w http.ResponseWriter, r *http.Request, form url.Values, f flow, a *authorization) error {
	u, err := s.prover(r, f)
	if err != nil || !u.MustChange {
		return s.fault(w, r, errFlow)
	}
	next := form.Get("newpasswd")
	if problem, err := s.unfit(r.Context(), u, next, form.Get("confirmnewpasswd")); problem != "" || err != nil {
		if err != nil {
			return s.fault(w, r, err)
		}
		return s.askChange(w, r, f, a, problem)
	}
	e := f.entry(a, "password", "password change")
	e.about(u)
	u, err = s.changePassword(r.Context(), u, next)
	if err := s.note(r.Context(), e, err); err != nil {
		return s.fault(w, r, err)
	}
	f.Epoch, f.From = u.Epoch, ""
	return s.advance(w, r, f, a, u)
}

// unfit says why a person can't have the password that they chose, or "".
func (s *Service) unfit(ctx context.Context, u *User, next, again string) (string, error) {
	if next != again {
		return "The two entries are not the same.", nil
	}
	if err := checkPassword(next, u.UPN); err != nil {
		return publicText(err), nil
	}
	same, err := s.hasher.matches(ctx, u.Password, next)
	if same {
		return "The new password must be another than the old one.", err
	}
	return "", err
}

// changePassword gives the person a password that they chose. All that was
// given to them before ends.
func (s *Service) changePassword(ctx context.Context, was *User, next string) (*User, error) {
	hash, err := s.hasher.hash(ctx, next)
	if err != nil {
		return nil, err
	}
	var out *User
	err = s.DB.Do(ctx, func(tx *store.Tx) error {
		u, ok, err := fetch[*User](tx, was.Tenant, "user", was.ID)
		if err != nil {
			return err
		}
		if !ok || u.Epoch != was.Epoch || u.Disabled {
			return errFlow
		}
		u.Password, u.MustChange, u.Epoch = hash, false, u.Epoch+1
		out = u
		return s.put(tx, u)
	})
	return out, err
}

// serveDevicePage shows where people type the code that a device shows them.
// They sign in first: codes can be guessed by nobody who is nobody.
func (s *Service) serveDevicePage(w http.ResponseWriter, r *http.Request, v gate.Vars) error {
	f := s.newFlow(w, r, goalDevice, v["tenant"])
	u, _, ok := s.session(r)
	if !ok {
		return s.askPassword(w, r, f, nil, "", "")
	}
	return s.askDevice(w, r, f, u, "")
}

// serveCode takes a user code, and asks whether that device is meant.
func (s *Service) serveCode(w http.ResponseWriter, r *http.Request, form url.Values, f flow, _ *authorization) error {
	u, session, ok := s.session(r)
	if !ok {
		return s.fault(w, r, errFlow)
	}
	now := s.Now()
	if !s.pace.guess(u.ID, now) {
		return s.askDevice(w, r, f, u, "There were too many wrong codes. Wait a quarter of an hour.")
	}
	g, ok, err := s.deviceOf(r.Context(), form.Get("otc"))
	if err != nil {
		return s.fault(w, r, err)
	}
	if !ok || g.Tenant != "" && g.Tenant != u.Tenant {
		s.pace.wrong(u.ID, now)
		return s.askDevice(w, r, f, u, "That code is not known, or no longer valid.")
	}
	f.Code, f.User, f.Epoch, f.Proofs, f.From = typed(form.Get("otc")), u.ID, u.Epoch, session.Proofs, session.Key
	return s.advance(w, r, f, nil, u)
}

// confirmDevice asks whether the device of f's code is meant.
func (s *Service) confirmDevice(w http.ResponseWriter, r *http.Request, f flow, u *User) error {
	g, ok, err := s.deviceOf(r.Context(), f.Code)
	if err != nil || !ok {
		return s.fault(w, r, errFlow)
	}
	c, err := s.lookup(u.Tenant, g.Client)
	if err != nil {
		return s.fault(w, r, err)
	}
	return s.askConfirm(w, r, f, u, c.app.Name)
}

// deviceOf is the device that waits with a user code; ok is false if none does.
func (s *Service) deviceOf(ctx context.Context, code string) (g keyedGrant, ok bool, err error) {
	err = s.DB.View(ctx, func(tx *store.Tx) (err error) {
		g, ok, err = s.waiting(tx, code)
		return err
	})
	return g, ok, err
}

// serveConfirm takes the person's yes or no to a device.
func (s *Service) serveConfirm(w http.ResponseWriter, r *http.Request, form url.Values, f flow, _ *authorization) error {
	u, g, ok := s.session(r)
	if !ok || u.ID != f.User {
		return s.fault(w, r, errFlow)
	}
	yes := form.Get("answer") == "yes"
	e := signIn{tenant: u.Tenant, object: u.ID, name: u.UPN, how: "session", grant: "device code"}
	var err error
	if yes {
		err = s.deviceConditions(r, &e, u, f.Code, g.grant)
	}
	if err == nil {
		err = s.settle(r.Context(), f.Code, u, yes, g.grant)
	}
	if !yes && err == nil {
		err = problemf(70015, "authorization_declined", "The person declined the sign-in.")
	}
	err = s.note(r.Context(), e, err)
	if p := problemOf(err); err != nil && p.number != 70015 {
		return s.fault(w, r, err)
	}
	if !yes {
		return s.say(w, r, http.StatusOK, "The device was not signed in", "You can close this page.")
	}
	return s.say(w, r, http.StatusOK, "The device is signed in", "You can close this page and go back to the device.")
}
