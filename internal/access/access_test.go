package access_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"castellan/internal/access"
)

var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func shown(methods ...access.Method) (p access.Proofs) {
	for _, m := range methods {
		p = p.With(m, now)
	}
	return p
}

// What a token says of a sign-in follows from what was shown in it, and from nothing else.
func TestProofs(t *testing.T) {
	for _, c := range []struct {
		name               string
		proofs             access.Proofs
		mfa, free, resists bool
		amr                []string
	}{
		{"nothing", nil, false, false, false, []string{}},
		{"a password", shown(access.Password), false, false, false, []string{"pwd"}},
		{"a password and a code", shown(access.Password, access.OTP), true, false, false, []string{"pwd", "otp", "mfa"}},
		{"a password and a recovery code", shown(access.Password, access.Recovery), true, false, false, []string{"pwd", "otp", "mfa"}},
		{"two codes and no password", shown(access.OTP, access.Recovery), false, false, false, []string{"otp"}},
		{"a password twice", shown(access.Password, access.Password), false, false, false, []string{"pwd"}},
		{"a password, and another provider that says nothing of factors", shown(access.Password, access.External), false, false, false, []string{"pwd", "fed"}},
		{"another provider and a code", shown(access.External, access.OTP), true, false, false, []string{"fed", "otp", "mfa"}},
		{"another provider's MFA", shown(access.ExternalMFA), true, false, false, []string{"fed", "mfa"}},
		{"a passkey", shown(access.Passkey), true, true, true, []string{"fido", "mfa"}},
		{"a method that nobody knows", shown(access.Password, "telepathy"), false, false, false, []string{"pwd"}},
	} {
		p := c.proofs
		if p.MFA() != c.mfa || p.Passwordless() != c.free || p.PhishingResistant() != c.resists || !slices.Equal(p.AMR(), c.amr) {
			t.Errorf("%s: MFA %v, passwordless %v, resistant %v, amr %v; want %v %v %v %v", c.name, p.MFA(), p.Passwordless(), p.PhishingResistant(), p.AMR(), c.mfa, c.free, c.resists, c.amr)
		}
	}
}

// A second factor that is shown later does not make the first one younger.
func TestSecondFactorRenewsNothing(t *testing.T) {
	p := access.Proofs{}.With(access.Password, now).With(access.OTP, now.Add(time.Hour))
	if !p.SignedIn().Equal(now) {
		t.Errorf("SignedIn = %v, want %v", p.SignedIn(), now)
	}
	if old := p.Since(now.Add(time.Minute)); old.MFA() || old.Any() {
		t.Errorf("%v counts as a sign-in although its password is old", old)
	}
	if p = p.With(access.Password, now.Add(2*time.Hour)); len(p) != 2 || !p.SignedIn().Equal(now.Add(2*time.Hour)) {
		t.Errorf("a password shown anew: %v", p)
	}
}

const (
	ann, eve  = "aaaaaaaa-0000-0000-0000-000000000001", "eeeeeeee-0000-0000-0000-000000000002"
	staff     = "cccccccc-0000-0000-0000-000000000003"
	admins    = "62e90394-69f5-4237-9190-012177145e10"
	ml, vault = "18a66f5f-dbdf-4c17-9dd7-1634712a9cbe", "cfa8b339-82a2-471a-a3c9-0fc0be7a4093"
	studio    = "d7304df8-741f-47d3-9bc2-df0e24e2071f"
	office    = "0ff1ce00-0000-0000-0000-000000000000"
	cafe      = "cafe0000-0000-0000-0000-000000000000"
)

var places = []access.NamedLocation{
	{ID: office, Trusted: true, Ranges: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:1::/48")}},
	{ID: cafe, Ranges: []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32")}},
}

func base() access.Policy {
	return access.Policy{ID: "p", State: access.Enabled, IncludeUsers: []string{access.All}, IncludeApps: []string{access.All}, MFA: true}
}

func facts(methods ...access.Method) access.Facts {
	return access.Facts{User: ann, Groups: []string{staff}, App: studio, Resource: ml, Address: netip.MustParseAddr("203.0.113.9"), Client: access.Native, Proofs: shown(methods...)}
}

// A policy asks of those that it is about, and of nobody else.
func TestConditions(t *testing.T) {
	for _, c := range []struct {
		name    string
		policy  func(*access.Policy)
		facts   func(*access.Facts)
		applies bool
	}{
		{"everybody and everything", nil, nil, true},
		{"nobody by name", func(p *access.Policy) { p.IncludeUsers = []string{access.None} }, nil, false},
		{"nobody at all", func(p *access.Policy) { p.IncludeUsers = nil }, nil, false},
		{"the person", func(p *access.Policy) { p.IncludeUsers = []string{ann} }, nil, true},
		{"another person", func(p *access.Policy) { p.IncludeUsers = []string{eve} }, nil, false},
		{"the person is excluded", func(p *access.Policy) { p.ExcludeUsers = []string{ann} }, nil, false},
		{"a group", func(p *access.Policy) { p.IncludeUsers, p.IncludeGroups = nil, []string{staff} }, nil, true},
		{"a group of the person is excluded, who is included by name", func(p *access.Policy) { p.IncludeUsers, p.ExcludeGroups = []string{ann}, []string{staff} }, nil, false},
		{"a role that the person has", func(p *access.Policy) { p.IncludeUsers, p.IncludeRoles = nil, []string{admins} }, func(f *access.Facts) { f.Roles = []string{admins} }, true},
		{"a role that the person lacks", func(p *access.Policy) { p.IncludeUsers, p.IncludeRoles = nil, []string{admins} }, nil, false},
		{"the role is excluded", func(p *access.Policy) { p.ExcludeRoles = []string{admins} }, func(f *access.Facts) { f.Roles = []string{admins} }, false},
		{"the resource", func(p *access.Policy) { p.IncludeApps = []string{ml} }, nil, true},
		{"another resource", func(p *access.Policy) { p.IncludeApps = []string{vault} }, nil, false},
		{"the client", func(p *access.Policy) { p.IncludeApps = []string{studio} }, nil, true},
		{"the resource is excluded", func(p *access.Policy) { p.ExcludeApps = []string{ml} }, nil, false},
		{"the client is excluded, which anybody can say to be", func(p *access.Policy) { p.ExcludeApps = []string{studio} }, nil, true},
		{"no resource", func(p *access.Policy) { p.IncludeApps = []string{access.None} }, nil, false},
		{"browsers", func(p *access.Policy) { p.Clients = []access.Client{access.Browser} }, nil, false},
		{"native clients", func(p *access.Policy) { p.Clients = []access.Client{access.Native} }, nil, true},
		{"all clients", func(p *access.Policy) { p.Clients = []access.Client{access.AllClients} }, nil, true},
		{"another place", func(p *access.Policy) { p.IncludeLocations = []string{office} }, nil, false},
		{"any place but trusted ones, from elsewhere", func(p *access.Policy) {
			p.IncludeLocations, p.ExcludeLocations = []string{access.All}, []string{access.AllTrusted}
		}, nil, true},
		{"any place but trusted ones, from there", func(p *access.Policy) {
			p.IncludeLocations, p.ExcludeLocations = []string{access.All}, []string{access.AllTrusted}
		}, at("192.0.2.77"), false},
		{"from a trusted one that is written as IPv6", func(p *access.Policy) { p.ExcludeLocations = []string{office} }, at("::ffff:192.0.2.77"), false},
		{"from a trusted one over IPv6", func(p *access.Policy) { p.ExcludeLocations = []string{access.AllTrusted} }, at("2001:db8:1:2::3"), false},
		{"with a zone, as links have it", func(p *access.Policy) { p.ExcludeLocations = []string{office} }, at("2001:db8:1:2::3%eth0"), false},
		{"from the next network", func(p *access.Policy) { p.ExcludeLocations = []string{office} }, at("2001:db8:2::3"), true},
		{"from a place that has a name but no trust", func(p *access.Policy) { p.ExcludeLocations = []string{access.AllTrusted} }, at("198.51.100.7"), true},
		{"in that place", func(p *access.Policy) { p.IncludeLocations = []string{cafe} }, at("198.51.100.7"), true},
		{"a place that is gone, excluded", func(p *access.Policy) { p.ExcludeLocations = []string{"gone"} }, nil, true},
		{"nobody knows from where", func(p *access.Policy) { p.IncludeLocations, p.ExcludeLocations = []string{cafe}, []string{office} }, func(f *access.Facts) { f.Address = netip.Addr{} }, true},
		{"device codes", func(p *access.Policy) { p.DeviceCode = true }, nil, false},
		{"device codes, with one", func(p *access.Policy) { p.DeviceCode = true }, func(f *access.Facts) { f.DeviceCode = true }, true},
		{"a state that nobody knows", func(p *access.Policy) { p.State = "" }, nil, true},
		{"disabled", func(p *access.Policy) { p.State = access.Disabled }, nil, false},
		{"reporting", func(p *access.Policy) { p.State = access.Report }, nil, false},
		{"a break-glass account", nil, func(f *access.Facts) { f.BreakGlass = true }, false},
	} {
		p, f := base(), facts(access.Password)
		if c.policy != nil {
			c.policy(&p)
		}
		if c.facts != nil {
			c.facts(&f)
		}
		v := access.Decide([]access.Policy{p}, places, f, now)
		if v.Allowed() == c.applies || v.Needs(access.NeedMFA) != c.applies {
			t.Errorf("%s: allowed %v, need %v; applies should be %v", c.name, v.Allowed(), v.Need, c.applies)
		}
		p.Block = true
		if got := access.Compile([]access.Policy{p}, places).Forbids(f) != ""; got != c.applies {
			t.Errorf("%s: Forbids = %v, want %v", c.name, got, c.applies)
		}
		if v := access.Decide([]access.Policy{p}, places, f, now); v.Block != c.applies {
			t.Errorf("%s: Block = %v, want %v", c.name, v.Block, c.applies)
		}
	}
}

func at(a string) func(*access.Facts) {
	return func(f *access.Facts) { f.Address = netip.MustParseAddr(a) }
}

// Controls are met by what was shown; a strength that nobody knows is met by the strongest only.
func TestControls(t *testing.T) {
	both := func(or bool) func(*access.Policy) {
		return func(p *access.Policy) { p.Strength, p.Or = access.PhishingResistant, or }
	}
	strength := func(s access.Strength) func(*access.Policy) {
		return func(p *access.Policy) { p.MFA, p.Strength = false, s }
	}
	for _, c := range []struct {
		name   string
		policy func(*access.Policy)
		show   []access.Method
		need   []access.Control
	}{
		{"MFA", nil, []access.Method{access.Password, access.OTP}, nil},
		{"MFA by strength, with a password", strength(access.MFAStrength), []access.Method{access.Password}, []access.Control{access.NeedMFA}},
		{"passwordless, with password and code", strength(access.PasswordlessMFA), []access.Method{access.Password, access.OTP}, []access.Control{access.NeedNoPass}},
		{"resistant, with password and code", strength(access.PhishingResistant), []access.Method{access.Password, access.OTP}, []access.Control{access.NeedResistant}},
		{"resistant, with another provider's MFA", strength(access.PhishingResistant), []access.Method{access.ExternalMFA}, []access.Control{access.NeedResistant}},
		{"resistant, with a passkey", strength(access.PhishingResistant), []access.Method{access.Passkey}, nil},
		{"an unknown strength, with password and code", strength("x"), []access.Method{access.Password, access.OTP}, []access.Control{access.NeedResistant}},
		{"MFA and resistant, with password and code", both(false), []access.Method{access.Password, access.OTP}, []access.Control{access.NeedResistant}},
		{"MFA or resistant, with password and code", both(true), []access.Method{access.Password, access.OTP}, nil},
		{"MFA or resistant, with a password", both(true), []access.Method{access.Password}, []access.Control{access.NeedMFA}},
	} {
		p := base()
		if c.policy != nil {
			c.policy(&p)
		}
		v := access.Decide([]access.Policy{p}, places, facts(c.show...), now)
		if !slices.Equal(v.Need, c.need) || v.Allowed() != (len(c.need) == 0) {
			t.Errorf("%s: need %v, want %v", c.name, v.Need, c.need)
		}
	}
}

// What was shown too long ago was not shown.
func TestFrequency(t *testing.T) {
	p := base()
	p.Frequency = access.Frequency(time.Hour)
	f := facts(access.Password, access.OTP)
	for _, c := range []struct {
		after time.Duration
		need  []access.Control
	}{
		{time.Hour, nil},
		{time.Hour + time.Second, []access.Control{access.NeedMFA, access.Fresh}},
	} {
		if v := access.Decide([]access.Policy{p}, places, f, now.Add(c.after)); !slices.Equal(v.Need, c.need) {
			t.Errorf("after %v: need %v, want %v", c.after, v.Need, c.need)
		}
	}
	p.MFA = false
	if v := access.Decide([]access.Policy{p}, places, f, now.Add(2*time.Hour)); !slices.Equal(v.Need, []access.Control{access.Fresh}) {
		t.Errorf("frequency alone: need %v", v.Need)
	}
	f.Proofs = f.Proofs.With(access.OTP, now.Add(2*time.Hour))
	if v := access.Decide([]access.Policy{p}, places, f, now.Add(2*time.Hour)); v.Allowed() {
		t.Error("a code alone made a sign-in young again")
	}
}

// Of several policies all are to be met, a block beats all, and one that only
// reports changes nothing but the record.
func TestSeveral(t *testing.T) {
	mfa, block, report, off := base(), base(), base(), base()
	mfa.ID, block.ID, report.ID, off.ID = "mfa", "block", "report", "off"
	block.Block, report.Block = true, true
	report.State, off.State = access.Report, access.Disabled
	v := access.Decide([]access.Policy{mfa, report, off}, places, facts(access.Password), now)
	if v.Block || !slices.Equal(v.Policies, []string{"mfa"}) {
		t.Errorf("verdict %+v, want MFA by the policy mfa alone", v)
	}
	for i, want := range []access.Outcome{access.Failure, access.ReportOnlyFailure, access.NotEnabled} {
		if v.Results[i].Outcome != want {
			t.Errorf("%s: %s, want %s", v.Results[i].ID, v.Results[i].Outcome, want)
		}
	}
	if v := access.Decide([]access.Policy{mfa, block}, places, facts(access.Passkey), now); v.Allowed() || !slices.Equal(v.Policies, []string{"block"}) {
		t.Errorf("a met policy and one that blocks: %+v", v)
	}
	f := facts(access.Password)
	f.BreakGlass = true
	if v := access.Decide([]access.Policy{mfa, block}, places, f, now); !v.Allowed() || !v.Emergency {
		t.Errorf("a break-glass account: %+v", v)
	}
}

// Who was not judged is not in.
func TestZeroVerdict(t *testing.T) {
	if (access.Verdict{}).Allowed() {
		t.Error("the zero Verdict lets people in")
	}
	if !access.Decide(nil, nil, facts(), now).Allowed() {
		t.Error("without policies somebody is kept out")
	}
}

// A call and a sign-in of the same facts are judged alike: what is asked at each
// call is quicker, and not another question.
func TestCallsAgreeWithSignIns(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same policies each time
	pick := func(of ...string) (out []string) {
		for _, x := range of {
			if r.IntN(3) == 0 {
				out = append(out, x)
			}
		}
		return out
	}
	one := func(n int) bool { return r.IntN(n) == 0 }
	states := []access.State{access.Enabled, access.Enabled, access.Disabled, access.Report, ""}
	seen := map[bool]int{}
	for range 5000 {
		var list []access.Policy
		for i := range 1 + r.IntN(3) {
			p := access.Policy{ID: fmt.Sprint("p", i), State: states[r.IntN(len(states))], IncludeUsers: append(pick(access.All, ann), ann), ExcludeUsers: pick(eve), IncludeGroups: pick(staff), ExcludeRoles: pick(admins),
				IncludeApps: append(pick(vault, studio), ml), IncludeLocations: pick(office, access.All), MFA: one(2), Block: one(6), DeviceCode: one(4)}
			if one(3) {
				p.IncludeApps, p.Contexts = nil, append(pick("c1", "c2"), "c3")
			}
			if one(3) {
				p.Clients = []access.Client{access.Browser}
			}
			if one(3) {
				p.Strength = access.PhishingResistant
			}
			if one(3) {
				p.Frequency = access.Frequency(time.Hour)
			}
			list = append(list, p)
		}
		f := facts()
		f.Contexts, f.DeviceCode, f.BreakGlass = pick("c1", "c3"), one(2), one(9)
		if one(2) {
			f.Client = access.Browser
		}
		for _, m := range []access.Method{access.Password, access.OTP, access.Passkey} {
			if one(2) {
				f.Proofs = f.Proofs.With(m, now.Add(-time.Duration(r.IntN(120))*time.Minute))
			}
		}
		rules := access.Compile(list, places, "c1", "c2", "c3")
		v, unmet := rules.Decide(f, now), rules.Unmet(f, now)
		if seen[v.Allowed()]++; v.Allowed() != (unmet == "") || unmet != "" && !slices.Contains(v.Policies, unmet) {
			t.Fatalf("%+v of %+v: a sign-in %+v, a call %q", list, f, v, unmet)
		}
	}
	if seen[true] < 500 || seen[false] < 500 {
		t.Errorf("the cases are lopsided: %v", seen)
	}
}

// The frequency everyTime is about tokens: a call with one is judged as of when
// it was given, and any other frequency as of now.
func TestEveryTimeIsAboutTokens(t *testing.T) {
	p := base()
	f := facts(access.Password, access.OTP)
	for _, c := range []struct {
		name         string
		frequency    access.Frequency
		issued, call time.Duration
		met          bool
	}{
		{"every time, used an hour later", access.EveryTime, 4 * time.Minute, time.Hour, true},
		{"every time, given too late", access.EveryTime, 6 * time.Minute, 7 * time.Minute, false},
		{"each hour, used in it", access.Frequency(time.Hour), 4 * time.Minute, 50 * time.Minute, true},
		{"each hour, used after", access.Frequency(time.Hour), 4 * time.Minute, 61 * time.Minute, false},
	} {
		p.Frequency, f.Issued = c.frequency, now.Add(c.issued)
		if got := access.Compile([]access.Policy{p}, nil).Unmet(f, now.Add(c.call)) == ""; got != c.met {
			t.Errorf("%s: met %v, want %v", c.name, got, c.met)
		}
	}
}
