// Package access decides under which conditions a person may sign in to what: pure Conditional Access.
package access

import (
	"slices"
	"time"
)

// Method is one way in which a person shows who they are.
type Method string

// The methods. A name that is none of these proves nothing.
const (
	Password    Method = "pwd"
	OTP         Method = "otp"    // a code of an authenticator app
	Passkey     Method = "fido"   // with the person verified by the authenticator
	Recovery    Method = "rcv"    // a recovery code, in the place of an OTP
	External    Method = "fed"    // another identity provider vouched
	ExternalMFA Method = "fedmfa" // and said that the person showed several factors
)

// kind is what a method proves: factors of two kinds are several factors.
type kind int

const (
	nothing kind = iota
	first        // what somebody knows, or what another provider says
	second       // what somebody has
	both
)

var kinds = map[Method]kind{Password: first, External: first, OTP: second, Recovery: second, Passkey: both, ExternalMFA: both}

// names are the methods as tokens tell them (amr, RFC 8176).
var names = map[Method]string{Password: "pwd", OTP: "otp", Recovery: "otp", Passkey: "fido", External: "fed", ExternalMFA: "fed"}

// Proof is one method, shown at a time.
type Proof struct {
	Method Method
	At     time.Time
}

// Proofs are what a person showed in one sign-in, each method once. None prove nothing.
type Proofs []Proof

// With is p and one proof more, in the place of an older one of the same method.
func (p Proofs) With(m Method, at time.Time) Proofs {
	out := slices.DeleteFunc(slices.Clone(p), func(x Proof) bool { return x.Method == m })
	return append(out, Proof{m, at})
}

// Since are those of the proofs that are no older than t.
func (p Proofs) Since(t time.Time) Proofs {
	return slices.DeleteFunc(slices.Clone(p), func(x Proof) bool { return x.At.Before(t) })
}

// Has reports whether the person showed one of the methods.
func (p Proofs) Has(methods ...Method) bool {
	return slices.ContainsFunc(p, func(x Proof) bool { return slices.Contains(methods, x.Method) })
}

func (p Proofs) kind(want kind) bool {
	return slices.ContainsFunc(p, func(x Proof) bool { return kinds[x.Method] == want })
}

// Any reports whether p shows at all who the person is: a second factor alone does not.
func (p Proofs) Any() bool { return p.kind(first) || p.kind(both) }

// MFA reports whether p has factors of two kinds, or one that is of both.
func (p Proofs) MFA() bool { return p.kind(both) || p.kind(first) && p.kind(second) }

// Passwordless reports whether several factors were shown and none needed a password.
func (p Proofs) Passwordless() bool { return p.Has(Passkey) }

// PhishingResistant reports whether the person showed what can't be shown to a
// false site by mistake. What another provider says of that is not known here.
func (p Proofs) PhishingResistant() bool { return p.Has(Passkey) }

// AMR is the token's claim of that name: mfa is in it if p is MFA.
func (p Proofs) AMR() []string {
	out := []string{}
	for _, x := range p {
		if n := names[x.Method]; n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	if p.MFA() {
		out = append(out, "mfa")
	}
	return out
}

// SignedIn is when the person last showed who they are (auth_time): a second
// factor that was added later does not renew a first one.
func (p Proofs) SignedIn() (at time.Time) {
	for _, x := range p {
		if k := kinds[x.Method]; (k == first || k == both) && x.At.After(at) {
			at = x.At
		}
	}
	return at
}
