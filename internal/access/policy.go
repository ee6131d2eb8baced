package access

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// State says whether a policy is enforced. The zero State is not known and is enforced.
type State string

// The states, as Graph names them.
const (
	Enabled  State = "enabled"
	Disabled State = "disabled"
	Report   State = "enabledForReportingButNotEnforced"
)

// Words that stand for more than one thing where ids stand.
const (
	All        = "All"
	None       = "None"
	AllTrusted = "AllTrusted"
)

// Strength is which proofs an authentication strength wants, by Entra's id.
type Strength string

// The strengths that are built in.
const (
	MFAStrength       Strength = "00000000-0000-0000-0000-000000000002"
	PasswordlessMFA   Strength = "00000000-0000-0000-0000-000000000003"
	PhishingResistant Strength = "00000000-0000-0000-0000-000000000004"
)

// Client is the kind of client that somebody signs in with.
type Client string

// The kinds of clients, as Graph names them. Other is a client that sends the
// person's password itself.
const (
	AllClients Client = "all"
	Browser    Client = "browser"
	Native     Client = "mobileAppsAndDesktopClients"
	Other      Client = "other"
)

// Policy is one Conditional Access policy. Ids are in lower case, words as above.
type Policy struct {
	ID, Name string
	State    State

	IncludeUsers, ExcludeUsers         []string // ids, All, None
	IncludeGroups, ExcludeGroups       []string
	IncludeRoles, ExcludeRoles         []string // template ids of directory roles
	IncludeApps, ExcludeApps           []string // app ids, All, None
	Contexts                           []string // authentication contexts, in the place of apps
	Clients                            []Client // none means all
	IncludeLocations, ExcludeLocations []string // ids, All, AllTrusted; none included means all
	DeviceCode                         bool     // only what is asked for with a device code

	Block     bool
	MFA       bool
	Strength  Strength
	Or        bool // one of the controls is enough
	Frequency Frequency
}

// EveryTime is the Frequency for a new sign-in each time that a token is given:
// what was shown just before still counts, or nobody could ever trade a code for
// one. Calls with the token are not held to it.
const EveryTime Frequency = Frequency(5 * time.Minute)

// Frequency is how old a sign-in may be. The zero Frequency asks for nothing.
type Frequency time.Duration

// NamedLocation is a set of addresses with an id.
type NamedLocation struct {
	ID, Name string
	Trusted  bool
	Ranges   []netip.Prefix
}

// Holds reports whether a is one of the location's addresses.
func (l NamedLocation) Holds(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return a.IsValid() && slices.ContainsFunc(l.Ranges, func(p netip.Prefix) bool { return p.Contains(a) })
}

// IsContext reports whether v is the id of an authentication context: c1 to c99.
func IsContext(v string) bool {
	n, err := strconv.Atoi(strings.TrimPrefix(v, "c"))
	return err == nil && 1 <= n && n <= 99 && v == "c"+strconv.Itoa(n)
}

// Facts are what is known of one sign-in or call of a person.
type Facts struct {
	User       string   // object id
	Groups     []string // all, also by nesting
	Roles      []string // template ids of the directory roles that the person has
	BreakGlass bool     // an account for emergencies, which no policy holds
	App        string   // app id of the client
	Resource   string   // app id of what the token is for
	Address    netip.Addr
	Client     Client
	DeviceCode bool
	Contexts   []string  // authentication contexts that the token is asked for, or is of
	Issued     time.Time // of the token that a call brings; zero while it is asked for
	Proofs     Proofs
}

// Control is something that a person must do before they get in.
type Control string

// The controls, from the least to the most.
const (
	Fresh         Control = "fresh"        // sign in again
	NeedMFA       Control = "mfa"          // a second factor
	NeedNoPass    Control = "passwordless" // MFA without a password
	NeedResistant Control = "phishing-resistant"
)

// Outcome is what became of one policy at one sign-in, as Graph's log names it.
type Outcome string

// The outcomes.
const (
	Success              Outcome = "success"
	Failure              Outcome = "failure"
	NotApplied           Outcome = "notApplied"
	NotEnabled           Outcome = "notEnabled"
	ReportOnlySuccess    Outcome = "reportOnlySuccess"
	ReportOnlyFailure    Outcome = "reportOnlyFailure"
	ReportOnlyNotApplied Outcome = "reportOnlyNotApplied"
	// ReportOnlyInterrupted is for what the person could still have done.
	ReportOnlyInterrupted Outcome = "reportOnlyInterrupted"
)

// Result is the outcome of one policy.
type Result struct {
	ID      string  `json:"id"`
	Name    string  `json:"name,omitempty"`
	Outcome Outcome `json:"outcome"`
	// Controls are what the policy asks for, if it applies.
	Controls []Control `json:"controls,omitempty"`
	Blocks   bool      `json:"blocks,omitempty"`
}

// Verdict is what the policies together say. The zero Verdict lets nobody in.
type Verdict struct {
	decided   bool
	Block     bool
	Need      []Control // what the person must still do, each once
	Policies  []string  // ids of those that block or need
	Contexts  []string  // authentication contexts that whoever gets in is in
	Emergency bool      // policies were passed over for a break-glass account
	Results   []Result
}

// Allowed reports whether the person gets in.
func (v Verdict) Allowed() bool { return v.decided && !v.Block && len(v.Need) == 0 }

// Needs reports whether the person must still do c.
func (v Verdict) Needs(c Control) bool { return slices.Contains(v.Need, c) }
