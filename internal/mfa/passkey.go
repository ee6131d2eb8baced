package mfa

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"castellan/internal/arm"
)

// ErrCloned means that a passkey counted backwards: there are two of it.
var ErrCloned = errors.New("mfa: the passkey's counter went backwards, so there may be a copy of it")

// Passkey is what is kept of one.
type Passkey struct {
	ID, Key    []byte
	Model      []byte // AAGUID: which make it says it is, unproven
	Count      uint32 // of its last signature; 0: it does not count
	Backup     bool   // it can be on several devices
	BackedUp   bool
	Transports []string
}

// Person is whose passkeys are meant.
type Person struct {
	Handle   string // what the passkey keeps of its owner; not for showing
	Name     string
	Display  string
	Passkeys []Passkey
}

// Party is the site that passkeys are for: they sign for its host and origin and
// for no other, which is why a copy of the site gets nothing from them.
type Party struct{ Host, Name, Origin string }

// ceremony is the library set to what we ask: the user verified, always.
func (p Party) ceremony() (*webauthn.WebAuthn, error) {
	yes := true
	return webauthn.New(&webauthn.Config{
		RPID: p.Host, RPDisplayName: p.Name, RPOrigins: []string{p.Origin}, AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{RequireResidentKey: &yes, ResidentKey: protocol.ResidentKeyRequirementRequired, UserVerification: protocol.VerificationRequired},
	})
}

// Ask is what a browser is asked for, and what to remember of it meanwhile, out
// of the browser's reach.
type Ask struct {
	Options []byte // for navigator.credentials
	State   []byte
}

func asked(options any, s *webauthn.SessionData) (Ask, error) {
	o, err := json.Marshal(options)
	if err != nil {
		return Ask{}, err
	}
	state, err := json.Marshal(s)
	return Ask{o, state}, err
}

// AskNew asks for a new passkey of who, on a device that has none of them yet.
func (p Party) AskNew(who Person) (Ask, error) {
	w, err := p.ceremony()
	if err != nil {
		return Ask{}, err
	}
	have := webauthn.Credentials(person{who}.WebAuthnCredentials()).CredentialDescriptors()
	o, s, err := w.BeginRegistration(person{who}, webauthn.WithExclusions(have))
	if err != nil {
		return Ask{}, fmt.Errorf("asking for a passkey: %w", err)
	}
	return asked(o.Response, s)
}

// TakeNew is the new passkey, if answer is what AskNew asked for.
func (p Party) TakeNew(who Person, state, answer []byte) (Passkey, error) {
	w, s, err := p.resume(state, answer)
	if err != nil {
		return Passkey{}, err
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(answer)
	if err != nil {
		return Passkey{}, fmt.Errorf("%w: %w", ErrWrong, err)
	}
	c, err := w.CreateCredential(person{who}, s, parsed)
	if err != nil {
		return Passkey{}, fmt.Errorf("%w: %w", ErrWrong, err)
	}
	out := Passkey{ID: c.ID, Key: c.PublicKey, Model: c.Authenticator.AAGUID, Count: c.Authenticator.SignCount, Backup: c.Flags.BackupEligible, BackedUp: c.Flags.BackupState}
	for _, t := range c.Transport {
		out.Transports = append(out.Transports, string(t))
	}
	return out, nil
}

// AskAny asks for a passkey of whoever it is.
func (p Party) AskAny() (Ask, error) {
	w, err := p.ceremony()
	if err != nil {
		return Ask{}, err
	}
	o, s, err := w.BeginDiscoverableLogin(webauthn.WithUserVerification(protocol.VerificationRequired))
	if err != nil {
		return Ask{}, fmt.Errorf("asking for a passkey: %w", err)
	}
	return asked(o.Response, s)
}

// Owner is the handle and the passkey's id in an answer, of which nothing is
// proven yet.
func Owner(answer []byte) (handle string, id []byte, err error) {
	if _, err := arm.ParseJSON(answer); err != nil {
		return "", nil, ErrWrong
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(answer)
	if err != nil {
		return "", nil, fmt.Errorf("%w: %w", ErrWrong, err)
	}
	return string(parsed.Response.UserHandle), parsed.RawID, nil
}

// Take is the passkey of who as it is to be kept now, if answer is what AskAny
// asked for and one of who's passkeys signed it.
func (p Party) Take(who Person, state, answer []byte) (Passkey, error) {
	w, s, err := p.resume(state, answer)
	if err != nil {
		return Passkey{}, err
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(answer)
	if err != nil {
		return Passkey{}, fmt.Errorf("%w: %w", ErrWrong, err)
	}
	_, c, err := w.ValidatePasskeyLogin(func(_, handle []byte) (webauthn.User, error) {
		if string(handle) != who.Handle {
			return nil, ErrWrong
		}
		return person{who}, nil
	}, s, parsed)
	if err != nil {
		return Passkey{}, fmt.Errorf("%w: %w", ErrWrong, err)
	}
	if c.Authenticator.CloneWarning {
		return Passkey{}, ErrCloned
	}
	for _, k := range who.Passkeys {
		if string(k.ID) == string(c.ID) {
			k.Count, k.BackedUp = c.Authenticator.SignCount, c.Flags.BackupState
			return k, nil
		}
	}
	return Passkey{}, ErrWrong
}

// resume is the ceremony that state remembers. The user must have been verified,
// whatever state says.
func (p Party) resume(state, answer []byte) (*webauthn.WebAuthn, webauthn.SessionData, error) {
	var s webauthn.SessionData
	if _, err := arm.ParseJSON(answer); err != nil {
		return nil, s, ErrWrong
	}
	if err := json.Unmarshal(state, &s); err != nil {
		return nil, s, fmt.Errorf("reading a passkey's ceremony: %w", err)
	}
	s.UserVerification = protocol.VerificationRequired
	w, err := p.ceremony()
	return w, s, err
}

// person is a Person as the library wants one.
type person struct{ Person }

func (p person) WebAuthnID() []byte          { return []byte(p.Handle) }
func (p person) WebAuthnName() string        { return p.Name }
func (p person) WebAuthnDisplayName() string { return p.Display }
func (p person) WebAuthnCredentials() []webauthn.Credential {
	var out []webauthn.Credential
	for _, k := range p.Passkeys {
		c := webauthn.Credential{ID: k.ID, PublicKey: k.Key, Authenticator: webauthn.Authenticator{AAGUID: k.Model, SignCount: k.Count},
			Flags: webauthn.CredentialFlags{UserPresent: true, UserVerified: true, BackupEligible: k.Backup, BackupState: k.BackedUp}}
		for _, t := range k.Transports {
			c.Transport = append(c.Transport, protocol.AuthenticatorTransport(t))
		}
		out = append(out, c)
	}
	return out
}
