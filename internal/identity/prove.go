package identity

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"castellan/internal/access"
	"castellan/internal/mfa"
)

// hows are the methods as the audit log names them.
var hows = map[access.Method]string{access.Password: "password", access.OTP: "one-time code", access.Recovery: "recovery code", access.Passkey: "passkey"}

// serveAccount takes the answer to which account is meant.
func (s *Service) serveAccount(w http.ResponseWriter, r *http.Request, form url.Values, f flow, a *authorization) error {
	u, err := s.prover(r, f)
	if err != nil || form.Get("way") != "this" {
		f.User, f.Proofs, f.From = "", nil, ""
		return s.askPassword(w, r, f, a, "", "")
	}
	return s.advance(w, r, f, a, u)
}

// serveFactor takes a code of a person who has shown a first factor.
func (s *Service) serveFactor(w http.ResponseWriter, r *http.Request, form url.Values, f flow, a *authorization) error {
	u, err := s.prover(r, f)
	if err != nil {
		return s.fault(w, r, err)
	}
	switch form.Get("way") {
	case "passkey":
		return s.askPasskey(w, r, f, a, "")
	case "other":
		f.User, f.Proofs, f.From = "", nil, ""
		return s.askPassword(w, r, f, a, "", "")
	}
	how, err := s.proveCode(r.Context(), u, form.Get("otc"))
	e := f.entry(a, "one-time code", "sign-in page")
	if e.about(u); how == access.Recovery {
		e.how = hows[how]
	}
	if err := s.note(r.Context(), e, err); err != nil {
		m, merr := s.methodsOf(r.Context(), u)
		if p := problemOf(err); p.status >= 500 || merr != nil {
			return s.fault(w, r, err)
		}
		return s.askFactor(w, r, f, a, m, errSecond.text)
	}
	f.Proofs = f.Proofs.With(how, s.Now())
	return s.advance(w, r, f, a, u)
}

// servePasskey takes a passkey's answer: of the person who has shown a first
// factor, or of whoever it is.
func (s *Service) servePasskey(w http.ResponseWriter, r *http.Request, form url.Values, f flow, a *authorization) error {
	if form.Get("way") == "other" {
		f.User, f.Proofs, f.From, f.Asked = "", nil, "", nil
		return s.askPassword(w, r, f, a, "", "")
	}
	known := f.User != ""
	u, err := s.passkeyOwner(r, f, a, form.Get("answer"))
	if err == nil {
		err = s.provePasskey(r, u, f.Asked, []byte(form.Get("answer")))
	}
	e := f.entry(a, hows[access.Passkey], "sign-in page")
	if u != nil {
		e.about(u)
	}
	if err := s.note(r.Context(), e, err); err != nil {
		p := problemOf(err)
		if p.status >= 500 || p.number == errFlow.number {
			return s.fault(w, r, err)
		}
		if cerr := s.countPasskey(r, u, known); cerr != nil {
			return s.fault(w, r, cerr)
		}
		return s.askPasskey(w, r, f, a, p.text)
	}
	if !known {
		f.User, f.Epoch, f.From, f.Proofs = u.ID, u.Epoch, "", nil
	}
	f.Proofs, f.Asked = f.Proofs.With(access.Passkey, s.Now()), nil
	return s.advance(w, r, f, a, u)
}

// countPasskey counts a passkey that proved nothing. Passkeys can't be guessed;
// but somebody who has the password tries what they can.
func (s *Service) countPasskey(r *http.Request, u *User, known bool) error {
	s.spray.wrong(networkOf(r), s.Now())
	if !known || u == nil {
		return nil
	}
	return s.locks.fail(r.Context(), s.DB, secondName(u), true, s.Now())
}

// passkeyOwner is whose passkey answers, as it says; nothing is proven yet.
func (s *Service) passkeyOwner(r *http.Request, f flow, a *authorization, answer string) (*User, error) {
	if f.User != "" {
		return s.prover(r, f)
	}
	handle, _, err := mfa.Owner([]byte(answer))
	if err != nil {
		return nil, errPasskey
	}
	u := s.index.user(handle)
	if t := flowTenant(a); u == nil || u.Disabled || t != nil && t.ID != u.Tenant {
		return nil, errPasskey
	}
	return u, nil
}

// serveEnrol takes which method a person wants to add.
func (s *Service) serveEnrol(w http.ResponseWriter, r *http.Request, form url.Values, f flow, a *authorization) error {
	u, err := s.prover(r, f)
	if err != nil {
		return s.fault(w, r, err)
	}
	return s.enrol(w, r, form.Get("way"), f, a, u)
}

// enrol asks for a new method, if the person showed enough to add one.
func (s *Service) enrol(w http.ResponseWriter, r *http.Request, way string, f flow, a *authorization, u *User) error {
	m, err := s.methodsOf(r.Context(), u)
	if err != nil {
		return s.fault(w, r, err)
	}
	if !m.strong(f.Proofs, s.Now()) {
		return s.fault(w, r, errWeak)
	}
	switch way {
	case "app":
		f.Secret = mfa.NewSecret()
		return s.askApp(w, r, f, a, u, "")
	case "passkey":
		return s.askKey(w, r, f, a, u, m, "")
	}
	return s.fault(w, r, errFlow)
}

// serveEnrolApp takes the first code of a new authenticator app.
func (s *Service) serveEnrolApp(w http.ResponseWriter, r *http.Request, form url.Values, f flow, a *authorization) error {
	u, err := s.prover(r, f)
	if err != nil || f.Secret == nil {
		return s.fault(w, r, errFlow)
	}
	err = s.addApp(r.Context(), u, f.Proofs, f.Secret, form.Get("otc"))
	if errors.Is(err, mfa.ErrWrong) {
		return s.askApp(w, r, f, a, u, "That code does not fit. Type the six digits that the app shows now, and see that the telephone's clock is right.")
	}
	f.Secret = nil
	return s.enrolled(w, r, f, a, u, access.OTP, err)
}

// serveEnrolKey takes a new passkey.
func (s *Service) serveEnrolKey(w http.ResponseWriter, r *http.Request, form url.Values, f flow, a *authorization) error {
	u, err := s.prover(r, f)
	if err != nil || f.Asked == nil {
		return s.fault(w, r, errFlow)
	}
	name, err := methodName(form.Get("name"), "Passkey")
	if err == nil {
		err = s.addPasskey(r, u, f.Proofs, f.Asked, []byte(form.Get("answer")), name)
	}
	if errors.Is(err, mfa.ErrWrong) || errors.Is(err, errName) {
		m, merr := s.methodsOf(r.Context(), u)
		if merr != nil {
			return s.fault(w, r, merr)
		}
		problem := "The passkey could not be added. Try again, or with another device."
		if errors.Is(err, errName) {
			problem = errName.text
		}
		return s.askKey(w, r, f, a, u, m, problem)
	}
	f.Asked = nil
	return s.enrolled(w, r, f, a, u, access.Passkey, err)
}

var errName = problemf(500126, "invalid_request", "The name must have at most 64 characters, and no control characters.")

// methodName is the name that a person gives a method; other if they give none.
func methodName(name, other string) (string, error) {
	name = strings.TrimSpace(name)
	if name == "" {
		return other, nil
	}
	if utf8.RuneCountInString(name) > 64 || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", errName
	}
	return name, nil
}

// enrolled records a new method, and goes on: with recovery codes, if the person
// has none, and with what the flow was about.
func (s *Service) enrolled(w http.ResponseWriter, r *http.Request, f flow, a *authorization, u *User, how access.Method, err error) error {
	e := f.entry(a, hows[how], "method added")
	e.said = "a way to sign in was added"
	e.about(u)
	if err := s.note(r.Context(), e, err); err != nil {
		return s.fault(w, r, err)
	}
	f.Proofs = f.Proofs.With(how, s.Now())
	m, err := s.methodsOf(r.Context(), u)
	if err != nil {
		return s.fault(w, r, err)
	}
	if len(m.Recovery) > 0 {
		return s.advance(w, r, f, a, u)
	}
	return s.giveCodes(w, r, f, a, u)
}

// giveCodes shows the person new recovery codes, once.
func (s *Service) giveCodes(w http.ResponseWriter, r *http.Request, f flow, a *authorization, u *User) error {
	codes, err := s.newRecovery(r.Context(), u, f.Proofs)
	e := f.entry(a, "recovery code", "method added")
	e.said = "new recovery codes were given"
	e.about(u)
	if err := s.note(r.Context(), e, err); err != nil {
		return s.fault(w, r, err)
	}
	return s.askCodes(w, r, f, a, u, codes)
}

// serveEnrolled goes on once the recovery codes were seen.
func (s *Service) serveEnrolled(w http.ResponseWriter, r *http.Request, _ url.Values, f flow, a *authorization) error {
	u, err := s.prover(r, f)
	if err != nil {
		return s.fault(w, r, err)
	}
	return s.advance(w, r, f, a, u)
}
