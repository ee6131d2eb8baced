package identity

import (
	"context"
	"net/http"

	"castellan/internal/access"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// errPassword is the one answer to a wrong name, a wrong password, a disabled
// person and too many attempts, so that it tells a stranger nothing.
var errPassword = problemf(50126, "invalid_grant", "The user name or password is wrong, or there were too many attempts; then wait a while before the next.")

// checkUser is the person of this name, if the password is theirs. Every answer
// costs as much as any other.
func (s *Service) checkUser(ctx context.Context, t *Tenant, name, password string) (*User, error) {
	u := s.index.upn(name)
	hash := ""
	if u != nil && (t == nil || u.Tenant == t.ID) && !u.Disabled {
		hash = u.Password
	}
	if err := s.hasher.enter(ctx); err != nil {
		return nil, err
	}
	defer s.hasher.leave()
	now := s.Now()
	// Looked at in the queue's turn: of many guesses at once only hashing can
	// pass before the first is counted.
	shut := s.locks.shut(name, now)
	ok, err := s.hasher.check(hash, password)
	if err != nil {
		return nil, err
	}
	if shut {
		return nil, errPassword
	}
	if !ok {
		if err := s.locks.fail(ctx, s.DB, name, u != nil, now); err != nil {
			return nil, err
		}
		return nil, errPassword
	}
	return u, s.locks.pass(ctx, s.DB, name)
}

// servePassword takes the sign-in form.
func (s *Service) servePassword(w http.ResponseWriter, r *http.Request, _ gate.Vars) error {
	form, err := readForm(w, r)
	if err != nil {
		return s.fault(w, r, err)
	}
	f, err := s.unseal(r, form, "password")
	if err != nil {
		return s.fault(w, r, err)
	}
	a, t, err := s.resume(f)
	if err != nil {
		return s.fault(w, r, err)
	}
	name := form.Get("login")
	u, err := s.checkUser(r.Context(), t, name, form.Get("passwd"))
	e := signIn{how: "password", grant: "sign-in page"}
	if a != nil {
		e.app = a.client.app.AppID
	}
	if t != nil {
		e.tenant = t.ID
	}
	if known := s.index.upn(name); known != nil && (t == nil || t.ID == known.Tenant) {
		e.tenant, e.object, e.name = known.Tenant, known.ID, known.UPN
	}
	if err := s.note(r.Context(), e, err); err != nil {
		if p := problemOf(err); p.status >= 500 {
			return s.fault(w, r, err)
		}
		return s.askPassword(w, r, f, a, name, errPassword.text)
	}
	if u.MustChange {
		f.Step, f.User, f.Epoch = "change", u.ID, u.Epoch
		return s.askChange(w, r, f, a, "")
	}
	return s.enter(w, r, f, a, u)
}

// resume is what a flow was about: an authorize request, or nil for a device.
func (s *Service) resume(f flow) (*authorization, *Tenant, error) {
	if f.Query == nil {
		return nil, nil, nil
	}
	a, _, err := s.readAuthorization(f.Tenant, f.Query, f.V1)
	if err != nil {
		return nil, nil, err
	}
	return a, a.tenant, nil
}

// enter begins the session of a person who proved who they are, and goes on
// with what the flow was about.
func (s *Service) enter(w http.ResponseWriter, r *http.Request, f flow, a *authorization, u *User) error {
	g, err := s.beginSession(w, r, u, access.Proofs{{Method: access.Password, At: s.Now()}})
	if err != nil {
		return s.fault(w, r, err)
	}
	if a != nil {
		return s.sendCode(w, r, a, u, g.grant)
	}
	f.Step = "device"
	return s.askDevice(w, r, f, u, "")
}

// serveChange takes the form by which a person chooses a password in the place
// of one that somebody else chose.
func (s *Service) serveChange(w http.ResponseWriter, r *http.Request, _ gate.Vars) error {
	form, err := readForm(w, r)
	if err != nil {
		return s.fault(w, r, err)
	}
	f, err := s.unseal(r, form, "change")
	if err != nil {
		return s.fault(w, r, err)
	}
	a, _, err := s.resume(f)
	if err != nil {
		return s.fault(w, r, err)
	}
	u := s.index.user(f.User)
	if u == nil || u.Disabled || u.Epoch != f.Epoch || !u.MustChange {
		return s.fault(w, r, errFlow)
	}
	next := form.Get("newpasswd")
	if next != form.Get("confirmnewpasswd") {
		return s.askChange(w, r, f, a, "The two entries are not the same.")
	}
	if err := checkPassword(next, u.UPN); err != nil {
		return s.askChange(w, r, f, a, publicText(err))
	}
	same, err := s.hasher.matches(r.Context(), u.Password, next)
	if err != nil {
		return s.fault(w, r, err)
	}
	if same {
		return s.askChange(w, r, f, a, "The new password must be another than the old one.")
	}
	u, err = s.changePassword(r.Context(), u, next)
	e := signIn{tenant: f.Tenant, object: f.User, how: "password", grant: "password change"}
	if u != nil {
		e.tenant, e.name = u.Tenant, u.UPN
	}
	if err := s.note(r.Context(), e, err); err != nil {
		return s.fault(w, r, err)
	}
	return s.enter(w, r, f, a, u)
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
	f := flow{Bind: s.bind(w, r), Step: "password", Tenant: v["tenant"]}
	u, _, ok := s.session(r)
	if !ok {
		return s.askPassword(w, r, f, nil, "", "")
	}
	f.Step = "device"
	return s.askDevice(w, r, f, u, "")
}

// serveCode takes a user code, and asks whether that device is meant.
func (s *Service) serveCode(w http.ResponseWriter, r *http.Request, _ gate.Vars) error {
	form, err := readForm(w, r)
	if err != nil {
		return s.fault(w, r, err)
	}
	f, err := s.unseal(r, form, "device")
	if err != nil {
		return s.fault(w, r, err)
	}
	u, _, ok := s.session(r)
	if !ok {
		return s.fault(w, r, errFlow)
	}
	now := s.Now()
	if !s.pace.guess(u.ID, now) {
		return s.askDevice(w, r, f, u, "There were too many wrong codes. Wait a quarter of an hour.")
	}
	var g keyedGrant
	err = s.DB.View(r.Context(), func(tx *store.Tx) (err error) {
		g, ok, err = s.waiting(tx, form.Get("otc"))
		return err
	})
	if err != nil {
		return s.fault(w, r, err)
	}
	if !ok || g.Tenant != "" && g.Tenant != u.Tenant {
		s.pace.wrong(u.ID, now)
		return s.askDevice(w, r, f, u, "That code is not known, or no longer valid.")
	}
	f.Step, f.Code, f.User = "confirm", typed(form.Get("otc")), u.ID
	c, err := s.lookup(u.Tenant, g.Client)
	if err != nil {
		return s.fault(w, r, err)
	}
	return s.askConfirm(w, r, f, u, c.app.Name)
}

// serveConfirm takes the person's yes or no to a device.
func (s *Service) serveConfirm(w http.ResponseWriter, r *http.Request, _ gate.Vars) error {
	form, err := readForm(w, r)
	if err != nil {
		return s.fault(w, r, err)
	}
	f, err := s.unseal(r, form, "confirm")
	if err != nil {
		return s.fault(w, r, err)
	}
	u, g, ok := s.session(r)
	if !ok || u.ID != f.User {
		return s.fault(w, r, errFlow)
	}
	yes := form.Get("answer") == "yes"
	e := signIn{tenant: u.Tenant, object: u.ID, name: u.UPN, how: "session", grant: "device code"}
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

// serveLogout asks before it signs out: a link from elsewhere must not do it.
func (s *Service) serveLogout(w http.ResponseWriter, r *http.Request, _ gate.Vars) error {
	u, _, ok := s.session(r)
	if !ok {
		return s.say(w, r, http.StatusOK, "You are signed out", "You can close this page.")
	}
	return s.askLogout(w, r, flow{Bind: s.bind(w, r), Step: "logout"}, u)
}

// serveLogoutForm signs the browser out.
func (s *Service) serveLogoutForm(w http.ResponseWriter, r *http.Request, _ gate.Vars) error {
	form, err := readForm(w, r)
	if err != nil {
		return s.fault(w, r, err)
	}
	if _, err := s.unseal(r, form, "logout"); err != nil {
		return s.fault(w, r, err)
	}
	if err := s.endSession(w, r); err != nil {
		return s.fault(w, r, err)
	}
	return s.say(w, r, http.StatusOK, "You are signed out", "You can close this page.")
}
