package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"time"

	"castellan/internal/access"
	"castellan/internal/arm"
	"castellan/internal/mfa"
	"castellan/internal/seal"
	"castellan/internal/store"
)

// methodTable has, by a person's object id, how they prove themselves besides
// the password. It is apart from the directory: nobody who reads or writes that
// comes by it.
const methodTable = "identity_methods"

// mostMethods is how many of each kind a person may have.
const mostMethods = 10

// methods are those of one person. Recovery codes are none of their own: they
// stand in for another.
type methods struct {
	Apps     []codeApp
	Passkeys []passkey
	Recovery [][]byte // hashes
	Made     time.Time
}

// codeApp is an app that shows one-time codes.
type codeApp struct {
	ID, Name      string
	Sealed        []byte // its secret
	Step          int64  // the last one whose code was used
	Created, Used time.Time
}

// passkey is a passkey with the name that its owner gave it.
type passkey struct {
	ID, Name      string
	Key           mfa.Passkey
	Created, Used time.Time
}

// any reports whether there is a second factor.
func (m methods) any() bool { return len(m.Apps)+len(m.Passkeys) > 0 }

func loadMethods(tx *store.Tx, user string) (methods, error) {
	m, _, err := store.GetJSON[methods](tx, methodTable, user)
	return m, err
}

func putMethods(tx *store.Tx, user string, m methods) error {
	if !m.any() {
		return tx.Delete(methodTable, user) // with the recovery codes: there is nothing to recover
	}
	return store.PutJSON(tx, methodTable, user, m)
}

// forgetMethods is for a person who is gone.
func forgetMethods(tx *store.Tx, user string) error { return tx.Delete(methodTable, user) }

func (s *Service) methodsOf(ctx context.Context, u *User) (m methods, err error) {
	err = s.DB.View(ctx, func(tx *store.Tx) (err error) {
		m, err = loadMethods(tx, u.ID)
		return err
	})
	return m, err
}

// codeSeal seals the secrets of apps; each under the place where it lies.
func (s *Service) codeSeal() seal.Key { return s.Root.Derive("one-time codes") }

func codePlace(user, id string) string { return "one-time code " + user + " " + id }

// secondName is the name under which wrong second factors are counted. Only a
// right one resets that count: whoever knows the password must not get new
// guesses by showing it again.
func secondName(u *User) string { return "second factor of " + u.ID }

// errSecond is the one answer to a wrong code, one that was used before, and too
// many attempts.
var errSecond = problemf(500121, "invalid_grant", "The code is wrong or was used before, or there were too many attempts; then wait a while, or use a passkey.")

// errPasskey is the one answer to a passkey that proves nothing.
var errPasskey = problemf(135004, "invalid_grant", "The passkey is not known here, or belongs to an account that may not sign in.")

// proveCode uses up a one-time code or a recovery code of a person.
func (s *Service) proveCode(ctx context.Context, u *User, code string) (how access.Method, err error) {
	now := s.Now()
	var wrong error
	err = s.DB.Do(ctx, func(tx *store.Tx) error {
		how, wrong = "", errSecond
		if s.locks.shut(secondName(u), now) {
			return nil
		}
		m, err := loadMethods(tx, u.ID)
		if err != nil {
			return err
		}
		if how, err = s.useCode(&m, u, code, now); err != nil && !errors.Is(err, mfa.ErrWrong) {
			return err
		}
		if err != nil {
			return s.locks.failIn(tx, secondName(u), true, now)
		}
		wrong = nil
		if err := s.locks.passIn(tx, secondName(u)); err != nil {
			return err
		}
		return putMethods(tx, u.ID, m)
	})
	if err != nil {
		return "", err
	}
	return how, wrong
}

// useCode marks in m what code used up.
func (s *Service) useCode(m *methods, u *User, code string, now time.Time) (access.Method, error) {
	for i := range m.Apps {
		a := &m.Apps[i]
		secret, err := s.codeSeal().Open(a.Sealed, codePlace(u.ID, a.ID))
		if err != nil {
			return "", err
		}
		step, err := mfa.CheckCode(secret, code, now, a.Step)
		if errors.Is(err, mfa.ErrWrong) {
			continue
		}
		a.Step, a.Used = step, now
		return access.OTP, err
	}
	if !m.any() {
		return "", mfa.ErrWrong
	}
	left, err := mfa.UseRecovery(m.Recovery, code)
	m.Recovery = left
	return access.Recovery, err
}

// party is this site as passkeys know it, at the port by which the browser came.
func (s *Service) party(r *http.Request) mfa.Party {
	return mfa.Party{Host: s.Site.Host(), Name: s.Site.Host(), Origin: s.base(r)}
}

// owner is the person as passkeys know them.
func (m methods) owner(u *User) mfa.Person {
	p := mfa.Person{Handle: u.ID, Name: u.UPN, Display: u.Name}
	for _, k := range m.Passkeys {
		p.Passkeys = append(p.Passkeys, k.Key)
	}
	return p
}

// provePasskey uses up a passkey's answer. Each question is answered once.
func (s *Service) provePasskey(r *http.Request, u *User, state, answer []byte) error {
	now := s.Now()
	return s.DB.Do(r.Context(), func(tx *store.Tx) error {
		if err := spend(tx, state, now); err != nil {
			return err
		}
		m, err := loadMethods(tx, u.ID)
		if err != nil {
			return err
		}
		key, err := s.party(r).Take(m.owner(u), state, answer)
		switch {
		case errors.Is(err, mfa.ErrCloned):
			return problemf(135005, "invalid_grant", "The passkey counts backwards, so there may be a copy of it. Remove it, and add a new one.")
		case errors.Is(err, mfa.ErrWrong):
			return errPasskey
		case err != nil:
			return err
		}
		for i := range m.Passkeys {
			if string(m.Passkeys[i].Key.ID) == string(key.ID) {
				m.Passkeys[i].Key, m.Passkeys[i].Used = key, now
			}
		}
		return putMethods(tx, u.ID, m)
	})
}

// spend marks a passkey's question as answered. Nobody can ask it again, so it
// is remembered for as long as a form is good.
func spend(tx *store.Tx, state []byte, now time.Time) error {
	sum := sha256.Sum256(append([]byte("passkey|"), state...))
	key := "passkey|" + hex.EncodeToString(sum[:])
	seen, err := tx.Get(assertionTable, key)
	if err != nil {
		return err
	}
	if seen != nil {
		return errFlow
	}
	return tx.Put(assertionTable, key, []byte(now.Add(flowLife+time.Minute).UTC().Format(time.RFC3339)))
}

// freshEnough is how long after a sign-in a person may change how they sign in.
const freshEnough = 30 * time.Minute

// strong reports whether what was shown is fresh, and the most that the person
// can show: only then may they change how they sign in.
func (m methods) strong(p access.Proofs, now time.Time) bool {
	p = p.Since(now.Add(-freshEnough))
	return p.Any() && (p.MFA() || !m.any())
}

// errWeak is for a change that needs a better or newer sign-in.
var errWeak = problemf(50076, "interaction_required", "To change how you sign in, sign in again with the strongest method that you have.")

// alter changes a person's methods, who has shown p. fn sees them as they are.
func (s *Service) alter(ctx context.Context, u *User, p access.Proofs, fn func(m *methods) error) error {
	return s.DB.Do(ctx, func(tx *store.Tx) error {
		now, ok, err := fetch[*User](tx, u.Tenant, "user", u.ID)
		if err != nil {
			return err
		}
		if !ok || now.Disabled || now.Epoch != u.Epoch {
			return errFlow
		}
		m, err := loadMethods(tx, u.ID)
		if err != nil {
			return err
		}
		if !m.strong(p, s.Now()) {
			return errWeak
		}
		if err := fn(&m); err != nil {
			return err
		}
		return putMethods(tx, u.ID, m)
	})
}

// addApp adds an app whose secret showed itself by a code.
func (s *Service) addApp(ctx context.Context, u *User, p access.Proofs, secret []byte, code string) error {
	now := s.Now()
	step, err := mfa.CheckCode(secret, code, now, 0)
	if err != nil {
		return err
	}
	a := codeApp{ID: arm.NewUUID(), Name: "Authenticator app", Step: step, Created: now.UTC(), Used: now.UTC()}
	a.Sealed = s.codeSeal().Seal(secret, codePlace(u.ID, a.ID))
	return s.alter(ctx, u, p, func(m *methods) error {
		if len(m.Apps) >= mostMethods {
			return errMost
		}
		m.Apps = append(m.Apps, a)
		return nil
	})
}

var errMost = problemf(500125, "invalid_request", "You can have at most %d of this kind; remove one first.", mostMethods)

// addPasskey adds the passkey that answers what was asked.
func (s *Service) addPasskey(r *http.Request, u *User, p access.Proofs, state, answer []byte, name string) error {
	m, err := s.methodsOf(r.Context(), u)
	if err != nil {
		return err
	}
	key, err := s.party(r).TakeNew(m.owner(u), state, answer)
	if err != nil {
		return err
	}
	now := s.Now().UTC()
	return s.alter(r.Context(), u, p, func(m *methods) error {
		if len(m.Passkeys) >= mostMethods {
			return errMost
		}
		if slices.ContainsFunc(m.Passkeys, func(k passkey) bool { return string(k.Key.ID) == string(key.ID) }) {
			return errFlow
		}
		m.Passkeys = append(m.Passkeys, passkey{ID: arm.NewUUID(), Name: name, Key: key, Created: now, Used: now})
		return nil
	})
}

// newRecovery gives the person new recovery codes in the place of the old ones.
func (s *Service) newRecovery(ctx context.Context, u *User, p access.Proofs) (codes []string, err error) {
	codes, hashes := mfa.NewRecovery()
	err = s.alter(ctx, u, p, func(m *methods) error {
		if !m.any() {
			return errFlow
		}
		m.Recovery, m.Made = hashes, s.Now().UTC()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return codes, nil
}

// drop removes the method with an id; ok is false if there is none.
func (m *methods) drop(id string) (ok bool) {
	n := len(m.Apps) + len(m.Passkeys)
	m.Apps = slices.DeleteFunc(m.Apps, func(a codeApp) bool { return a.ID == id })
	m.Passkeys = slices.DeleteFunc(m.Passkeys, func(k passkey) bool { return k.ID == id })
	return len(m.Apps)+len(m.Passkeys) < n
}

// call gives the method with an id a name; ok is false if there is none.
func (m *methods) call(id, name string) (ok bool) {
	for i := range m.Apps {
		if m.Apps[i].ID == id {
			m.Apps[i].Name, ok = name, true
		}
	}
	for i := range m.Passkeys {
		if m.Passkeys[i].ID == id {
			m.Passkeys[i].Name, ok = name, true
		}
	}
	return ok
}
