// Package arm has the nouns: ids, actions, callers, errors and secrets.
package arm

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
)

// Action is something one can do, by its name in Azure's permission language,
// such as Microsoft.KeyVault/vaults/read. The zero Action opens nothing.
type Action struct{ d *actionData }

type actionData struct {
	name, key, doc string
	data           bool
	hash           uint64 // of key and data
}

// NewAction makes a control-plane action: role actions and notActions speak of it.
func NewAction(name, doc string) Action {
	return newAction(name, doc, false)
}

// NewDataAction makes a data action: dataActions and notDataActions speak of it.
func NewDataAction(name, doc string) Action {
	return newAction(name, doc, true)
}

func newAction(name, doc string, data bool) Action {
	d := &actionData{name: name, key: strings.ToLower(name), doc: doc, data: data}
	h := fnv.New64a()
	fmt.Fprint(h, d.key, data)
	d.hash = h.Sum64()
	return Action{d}
}

// Name is the action's name, as Azure spells it.
func (a Action) Name() string {
	if a.d == nil {
		return ""
	}
	return a.d.name
}

// Key is Name in lower case, the form that is compared.
func (a Action) Key() string {
	if a.d == nil {
		return ""
	}
	return a.d.key
}

// Doc is one sentence for the person who grants the action.
func (a Action) Doc() string {
	if a.d == nil {
		return ""
	}
	return a.d.doc
}

// Data reports whether a is a data action.
func (a Action) Data() bool { return a.d != nil && a.d.data }

// Hash is a number that equal actions share, reckoned once. Others may share it.
func (a Action) Hash() uint64 {
	if a.d == nil {
		return 0
	}
	return a.d.hash
}

// IsZero reports whether a names nothing.
func (a Action) IsZero() bool { return a.d == nil }

// Is reports whether a and b are one action: a data action and a control action
// of one name are two. The zero Action is none, not even itself.
func (a Action) Is(b Action) bool {
	return a.d != nil && b.d != nil && a.d.key == b.d.key && a.d.data == b.d.data
}

// Kind is the kind of a principal, as role assignments name it (principalType).
type Kind string

// The kinds of principals.
const (
	User             Kind = "User"
	Group            Kind = "Group"
	ServicePrincipal Kind = "ServicePrincipal"
)

// Caller is somebody whose identity was proven. The zero Caller is nobody.
type Caller struct {
	Tenant string   // directory id
	Object string   // object id of the principal in its tenant; what rights hang on
	App    string   // client id that the token was issued to, or ""
	Kind   Kind     // of the principal
	Name   string   // for people to read in the audit log; nothing is decided by it
	Groups []string // object ids of all groups, also by nesting
	AMR    []string // how the caller signed in (RFC 8176)
	ACRS   []string // authentication contexts that the caller's token is of
	Token  string   // which class of credential was shown: access, run, sharedkey, sas, system
	Scopes []string // what the client App may do for a person (scp); only the directory looks at them
	Lease  *Lease   // what the credential itself grants; nil for whoever roles decide for
	SignIn SignIn   // what a person's token came of; zero for tokens that nothing more may come of
}

// SignIn is what a person's token came of, for whoever acts for the person later:
// it must still hold then.
type SignIn struct {
	Family  string   `json:"family,omitempty"`  // of all that the sign-in gave; "" is no sign-in
	Epoch   int      `json:"epoch,omitempty"`   // the person's, at that time
	Shown   []string `json:"shown,omitempty"`   // what they showed and when, in identity's words
	Address string   `json:"address,omitempty"` // where the call came from, if that is known

	Client     string `json:"client,omitempty"` // the kind of client, in Graph's words
	DeviceCode bool   `json:"deviceCode,omitempty"`
}

// Lease is what a credential itself allows: instead of the caller's roles when
// Sole, else as well as them. Run tokens and account keys are Sole leases.
type Lease struct {
	Scope   ID       // nothing outside
	Actions []Action // nothing else
	Item    string   // if not "", only the item of this name or below it (a run id)
	Why     string   // what the credential is, for the audit log
	For     string   // object id of whoever the credential acts for, if it names one
	Listed  bool     // access lists, too, must let For do it
}

// Allows reports whether the lease covers a on id.
func (l *Lease) Allows(a Action, id ID) bool {
	if l == nil || a.IsZero() || !id.Within(l.Scope) {
		return false
	}
	for _, x := range l.Actions {
		if x.Is(a) {
			return true
		}
	}
	return false
}

// IsZero reports whether nobody is calling.
func (c Caller) IsZero() bool { return c.Object == "" }

// Code is an error code as Azure spells it; the edge maps it to a status.
type Code string

// The codes that several packages use.
const (
	InvalidResourceName  Code = "InvalidResourceName"
	InvalidRequest       Code = "InvalidRequestContent"
	BadRequest           Code = "BadRequest"
	MissingAPIVersion    Code = "MissingApiVersionParameter"
	InvalidAPIVersion    Code = "InvalidApiVersionParameter"
	Unauthenticated      Code = "InvalidAuthenticationToken"
	WrongTenant          Code = "InvalidAuthenticationTokenTenant"
	Forbidden            Code = "AuthorizationFailed"
	LinkedForbidden      Code = "LinkedAuthorizationFailed"
	NotFound             Code = "ResourceNotFound"
	GroupNotFound        Code = "ResourceGroupNotFound"
	SubscriptionNotFound Code = "SubscriptionNotFound"
	MethodNotAllowed     Code = "MethodNotAllowed"
	Conflict             Code = "Conflict"
	PreconditionFailed   Code = "PreconditionFailed"
	TooLarge             Code = "RequestEntityTooLarge"
	TooMany              Code = "TooManyRequests"
	Unsupported          Code = "NotSupported"
	Internal             Code = "InternalServerError"
)

// Error is a failure with a code for machines, a message for the caller and a
// cause for the operator; only the first two leave the house.
type Error struct {
	Code    Code
	Message string
	Target  string
	Info    []Info // what more an answer tells of the error (Azure's additionalInfo)
	Status  int    // an HTTP status that the code alone does not settle; 0 otherwise
	Claims  string // what a client must ask for in another token (OpenID Connect Core 5.5), as JSON; "" is nothing
	Err     error  // the cause
}

// Info is one thing that an answer tells of an error for programs to read.
type Info struct {
	Type string `json:"type"`
	Info any    `json:"info"`
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.Err)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error whose message says what was and what must be.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// CodeOf is the code of err, Internal if it has none, "" if err is nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}

// Secret prints as [redacted] everywhere; Reveal is the one way to its bytes.
type Secret struct{ b []byte }

// NewSecret keeps b, which the caller must not change afterwards.
func NewSecret(b []byte) Secret { return Secret{b} }

// Reveal is the secret's bytes.
func (s Secret) Reveal() []byte { return s.b }

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return len(s.b) == 0 }

const redacted = "[redacted]"

func (Secret) String() string { return redacted }

// Format prints [redacted] whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalJSON writes "[redacted]".
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
