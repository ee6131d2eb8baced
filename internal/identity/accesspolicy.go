package identity

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"castellan/internal/access"
	"castellan/internal/arm"
	"castellan/internal/store"
)

// Policies and locations lie in two tables under tenant|id.
const (
	policyTable   = "access_policies"
	locationTable = "access_locations"
)

// policyRow is a policy as it is kept.
type policyRow struct {
	ID, Tenant        string
	Created, Modified time.Time
	Revision          int
	Body              policyBody
}

// policyBody is a policy as Microsoft Graph's v1.0 has it. What is of type any
// is there to be refused by name when somebody asks for it.
type policyBody struct {
	Name       string          `json:"displayName"`
	State      string          `json:"state"`
	Conditions policyCondition `json:"conditions"`
	Grant      *grantControls  `json:"grantControls"`
	Session    *sessionControl `json:"sessionControls"`
	ID         any             `json:"id,omitempty" arm:"readonly"`
	Created    any             `json:"createdDateTime,omitempty" arm:"readonly"`
	Modified   any             `json:"modifiedDateTime,omitempty" arm:"readonly"`
	Template   any             `json:"templateId,omitempty" arm:"readonly"`
	Type       any             `json:"@odata.type,omitempty" arm:"readonly"`
	Context    any             `json:"@odata.context,omitempty" arm:"readonly"`
}

type policyCondition struct {
	Users      conditionUsers      `json:"users"`
	Apps       conditionApps       `json:"applications"`
	Clients    []string            `json:"clientAppTypes"`
	Locations  *conditionLocations `json:"locations"`
	Flows      *conditionFlows     `json:"authenticationFlows"`
	Platforms  any                 `json:"platforms,omitempty"`
	Devices    any                 `json:"devices,omitempty"`
	Workloads  any                 `json:"clientApplications,omitempty"`
	SignInRisk any                 `json:"signInRiskLevels,omitempty"`
	UserRisk   any                 `json:"userRiskLevels,omitempty"`
	AppRisk    any                 `json:"servicePrincipalRiskLevels,omitempty"`
	Insider    any                 `json:"insiderRiskLevels,omitempty"`
	States     any                 `json:"deviceStates,omitempty"`
}

type conditionUsers struct {
	Include       []string `json:"includeUsers"`
	Exclude       []string `json:"excludeUsers"`
	IncludeGroups []string `json:"includeGroups"`
	ExcludeGroups []string `json:"excludeGroups"`
	IncludeRoles  []string `json:"includeRoles"`
	ExcludeRoles  []string `json:"excludeRoles"`
	IncludeGuests any      `json:"includeGuestsOrExternalUsers,omitempty"`
	ExcludeGuests any      `json:"excludeGuestsOrExternalUsers,omitempty"`
}

type conditionApps struct {
	Include  []string `json:"includeApplications"`
	Exclude  []string `json:"excludeApplications"`
	Actions  any      `json:"includeUserActions,omitempty"`
	Contexts []string `json:"includeAuthenticationContextClassReferences"`
	Filter   any      `json:"applicationFilter,omitempty"`
	Global   any      `json:"globalSecureAccess,omitempty"`
	Networks any      `json:"networkAccess,omitempty"`
}

type conditionLocations struct {
	Include []string `json:"includeLocations"`
	Exclude []string `json:"excludeLocations"`
}

type conditionFlows struct {
	Methods string `json:"transferMethods"`
}

type grantControls struct {
	Operator string   `json:"operator"`
	BuiltIn  []string `json:"builtInControls"`
	Strength *struct {
		ID       string `json:"id"`
		Name     any    `json:"displayName,omitempty" arm:"readonly"`
		Type     any    `json:"@odata.type,omitempty" arm:"readonly"`
		About    any    `json:"description,omitempty" arm:"readonly"`
		Kind     any    `json:"policyType,omitempty" arm:"readonly"`
		Meets    any    `json:"requirementsSatisfied,omitempty" arm:"readonly"`
		Allowed  any    `json:"allowedCombinations,omitempty" arm:"readonly"`
		Created  any    `json:"createdDateTime,omitempty" arm:"readonly"`
		Modified any    `json:"modifiedDateTime,omitempty" arm:"readonly"`
	} `json:"authenticationStrength"`
	Custom  any `json:"customAuthenticationFactors,omitempty"`
	Terms   any `json:"termsOfUse,omitempty"`
	Context any `json:"authenticationStrength@odata.context,omitempty" arm:"readonly"`
}

type sessionControl struct {
	Frequency  *frequencyControl `json:"signInFrequency"`
	Persistent any               `json:"persistentBrowser,omitempty"`
	CloudApps  any               `json:"cloudAppSecurity,omitempty"`
	Restricted any               `json:"applicationEnforcedRestrictions,omitempty"`
	Resilience any               `json:"disableResilienceDefaults,omitempty"`
	Continuous any               `json:"continuousAccessEvaluation,omitempty"`
	Secure     any               `json:"secureSignInSession,omitempty"`
	Secure2    any               `json:"globalSecureAccessFilteringProfile,omitempty"`
}

type frequencyControl struct {
	Value    *int   `json:"value"`
	Type     string `json:"type,omitempty"`
	Which    string `json:"authenticationType,omitempty"`
	Interval string `json:"frequencyInterval,omitempty"`
	Enabled  bool   `json:"isEnabled"`
}

// wished reports whether something was asked for: not null, empty, false or a
// list of nothing.
func wished(v any) bool {
	switch x := v.(type) {
	case nil:
		return false
	case []any:
		return len(x) > 0
	case bool:
		return x
	case map[string]any:
		return len(x) > 0
	case string:
		return x != "" && x != "none"
	}
	return true
}

// unsupported are those of a policy's wishes that are asked for and that the
// platform can't keep, by name, with the reason.
func (b *policyBody) unsupported() error {
	c, u, a := &b.Conditions, &b.Conditions.Users, &b.Conditions.Apps
	const device, risk = "the platform knows nothing of people's devices", "the platform does not reckon risks"
	for _, x := range []struct {
		v         any
		name, why string
	}{
		{c.Platforms, "conditions.platforms", device}, {c.Devices, "conditions.devices", device}, {c.States, "conditions.deviceStates", device},
		{c.Workloads, "conditions.clientApplications", "policies hold people; what an application may do is said by its roles"},
		{c.SignInRisk, "conditions.signInRiskLevels", risk}, {c.UserRisk, "conditions.userRiskLevels", risk}, {c.AppRisk, "conditions.servicePrincipalRiskLevels", risk}, {c.Insider, "conditions.insiderRiskLevels", risk},
		{u.IncludeGuests, "conditions.users.includeGuestsOrExternalUsers", "there are no guests"}, {u.ExcludeGuests, "conditions.users.excludeGuestsOrExternalUsers", "there are no guests"},
		{a.Actions, "conditions.applications.includeUserActions", "policies hold sign-ins to applications only"},
		{a.Filter, "conditions.applications.applicationFilter", "applications have no attributes to filter by"}, {a.Global, "conditions.applications.globalSecureAccess", "there is no such network"}, {a.Networks, "conditions.applications.networkAccess", "there is no such network"},
	} {
		if wished(x.v) {
			return refusedWish(x.name, x.why)
		}
	}
	return b.unsupportedControls()
}

func (b *policyBody) unsupportedControls() error {
	if g := b.Grant; g != nil {
		switch {
		case wished(g.Custom):
			return refusedWish("grantControls.customAuthenticationFactors", "there are none")
		case wished(g.Terms):
			return refusedWish("grantControls.termsOfUse", "there are none")
		}
	}
	s := b.Session
	if s == nil {
		return nil
	}
	for name, v := range map[string]any{"persistentBrowser": s.Persistent, "cloudAppSecurity": s.CloudApps, "applicationEnforcedRestrictions": s.Restricted, "disableResilienceDefaults": s.Resilience,
		"continuousAccessEvaluation": s.Continuous, "secureSignInSession": s.Secure, "globalSecureAccessFilteringProfile": s.Secure2} {
		if wished(v) {
			return refusedWish("sessionControls."+name, "of session controls only signInFrequency is kept")
		}
	}
	return nil
}

func refusedWish(name, why string) error {
	return arm.Errorf(arm.BadRequest, "%s is not supported: %s. A policy that can't be kept in full is not taken.", name, why)
}

// compile makes of a policy what is decided by, or says what is wrong with it.
func (b *policyBody) compile(id string) (p access.Policy, err error) {
	if err := checkName(b.Name); err != nil {
		return p, err
	}
	if err := b.unsupported(); err != nil {
		return p, err
	}
	p.ID, p.Name, p.State = id, b.Name, access.State(b.State)
	if !slices.Contains([]access.State{access.Enabled, access.Disabled, access.Report}, p.State) {
		return p, arm.Errorf(arm.BadRequest, "state is %q; it must be %s, %s or %s.", printable(b.State), access.Enabled, access.Disabled, access.Report)
	}
	for _, step := range []func(*access.Policy) error{b.users, b.apps, b.clients, b.places, b.flows, b.controls, b.frequency} {
		if err := step(&p); err != nil {
			return p, err
		}
	}
	return p, nil
}

// idsIn are the ids of a list, folded; of words only those that are given.
func idsIn(name string, list []string, words ...string) (out []string, err error) {
	for _, x := range list {
		if slices.Contains(words, x) {
			out = append(out, x)
			continue
		}
		if !isGUID(x) {
			if len(words) > 0 {
				return nil, arm.Errorf(arm.BadRequest, "%s has %q; it must be an id, or %s.", name, printable(x), strings.Join(words, " or "))
			}
			return nil, arm.Errorf(arm.BadRequest, "%s has %q; it must be an id.", name, printable(x))
		}
		out = append(out, fold(x))
	}
	return out, nil
}

func (b *policyBody) users(p *access.Policy) (err error) {
	u := b.Conditions.Users
	if slices.Contains(append(slices.Clone(u.Include), u.Exclude...), "GuestsOrExternalUsers") {
		return refusedWish("GuestsOrExternalUsers", "there are no guests")
	}
	for _, x := range []struct {
		to    *[]string
		name  string
		list  []string
		words []string
	}{
		{&p.IncludeUsers, "includeUsers", u.Include, []string{access.All, access.None}}, {&p.ExcludeUsers, "excludeUsers", u.Exclude, nil},
		{&p.IncludeGroups, "includeGroups", u.IncludeGroups, nil}, {&p.ExcludeGroups, "excludeGroups", u.ExcludeGroups, nil},
		{&p.IncludeRoles, "includeRoles", u.IncludeRoles, nil}, {&p.ExcludeRoles, "excludeRoles", u.ExcludeRoles, nil},
	} {
		if *x.to, err = idsIn("conditions.users."+x.name, x.list, x.words...); err != nil {
			return err
		}
	}
	if len(p.IncludeUsers)+len(p.IncludeGroups)+len(p.IncludeRoles) == 0 {
		return arm.Errorf(arm.BadRequest, "conditions.users includes nobody; name users, groups or roles, or All or None.")
	}
	return nil
}

func (b *policyBody) apps(p *access.Policy) (err error) {
	a := b.Conditions.Apps
	if p.IncludeApps, err = idsIn("conditions.applications.includeApplications", a.Include, access.All, access.None); err != nil {
		return err
	}
	if p.ExcludeApps, err = idsIn("conditions.applications.excludeApplications", a.Exclude); err != nil {
		return err
	}
	if p.Contexts = a.Contexts; len(p.Contexts) > 0 && len(p.IncludeApps)+len(p.ExcludeApps) > 0 {
		return arm.Errorf(arm.BadRequest, "conditions.applications names applications and authentication contexts; a policy is about one or the other.")
	}
	if len(p.IncludeApps)+len(p.Contexts) == 0 {
		return arm.Errorf(arm.BadRequest, "conditions.applications includes nothing; name app ids, or All or None, or authentication contexts.")
	}
	return nil
}

func (b *policyBody) clients(p *access.Policy) error {
	known := []access.Client{access.AllClients, access.Browser, access.Native, access.Other}
	for _, c := range b.Conditions.Clients {
		if !slices.Contains(known, access.Client(c)) {
			return arm.Errorf(arm.BadRequest, "conditions.clientAppTypes has %q; supported are %s.", printable(c), "all, browser, mobileAppsAndDesktopClients and other")
		}
		p.Clients = append(p.Clients, access.Client(c))
	}
	return nil
}

func (b *policyBody) places(p *access.Policy) (err error) {
	l := b.Conditions.Locations
	if l == nil {
		return nil
	}
	if p.IncludeLocations, err = idsIn("conditions.locations.includeLocations", l.Include, access.All, access.AllTrusted); err != nil {
		return err
	}
	if p.ExcludeLocations, err = idsIn("conditions.locations.excludeLocations", l.Exclude, access.AllTrusted); err != nil {
		return err
	}
	if len(p.IncludeLocations) == 0 {
		return arm.Errorf(arm.BadRequest, "conditions.locations includes none; name locations, or All or AllTrusted.")
	}
	return nil
}

func (b *policyBody) flows(p *access.Policy) error {
	f := b.Conditions.Flows
	if f == nil || f.Methods == "" || f.Methods == "none" {
		return nil
	}
	if f.Methods != "deviceCodeFlow" {
		return arm.Errorf(arm.BadRequest, "conditions.authenticationFlows.transferMethods is %q; supported is deviceCodeFlow.", printable(f.Methods))
	}
	p.DeviceCode = true
	return nil
}

func (b *policyBody) controls(p *access.Policy) error {
	g := b.Grant
	if g == nil {
		return nil
	}
	if g.Operator != "AND" && g.Operator != "OR" {
		return arm.Errorf(arm.BadRequest, "grantControls.operator is %q; it must be AND or OR.", printable(g.Operator))
	}
	p.Or = g.Operator == "OR"
	for _, c := range g.BuiltIn {
		switch c {
		case "block":
			p.Block = true
		case "mfa":
			p.MFA = true
		case "compliantDevice", "domainJoinedDevice", "approvedApplication", "compliantApplication":
			return refusedWish("the grant control "+c, "the platform knows nothing of people's devices and what manages them")
		case "passwordChange", "riskRemediation":
			return refusedWish("the grant control "+c, "the platform does not reckon risks")
		default:
			return arm.Errorf(arm.BadRequest, "grantControls.builtInControls has %q; supported are block and mfa.", printable(c))
		}
	}
	if s := g.Strength; s != nil {
		p.Strength = access.Strength(fold(s.ID))
		if !slices.Contains([]access.Strength{access.MFAStrength, access.PasswordlessMFA, access.PhishingResistant}, p.Strength) {
			return arm.Errorf(arm.BadRequest, "grantControls.authenticationStrength.id is %q; the strengths are %s (MFA), %s (passwordless MFA) and %s (phishing-resistant MFA).", printable(s.ID), access.MFAStrength, access.PasswordlessMFA, access.PhishingResistant)
		}
	}
	if p.Block && (p.MFA || p.Strength != "") {
		return arm.Errorf(arm.BadRequest, "grantControls asks to block and for something more, which nobody could ever show.")
	}
	if !p.Block && !p.MFA && p.Strength == "" {
		return arm.Errorf(arm.BadRequest, "grantControls asks for nothing; name block, mfa or an authenticationStrength.")
	}
	return nil
}

// longestFrequency is the longest that Entra takes: a year.
const longestFrequency = 365 * 24 * time.Hour

func (b *policyBody) frequency(p *access.Policy) error {
	var f *frequencyControl
	if b.Session != nil {
		f = b.Session.Frequency
	}
	if f == nil || !f.Enabled {
		if b.Grant == nil {
			return arm.Errorf(arm.BadRequest, "The policy asks for nothing; it needs grantControls or sessionControls.signInFrequency.")
		}
		return nil
	}
	if f.Which != "" && f.Which != "primaryAndSecondaryAuthentication" {
		return refusedWish("signInFrequency.authenticationType "+printable(f.Which), "it is always primaryAndSecondaryAuthentication")
	}
	if f.Interval == "everyTime" {
		if f.Value != nil || f.Type != "" {
			return arm.Errorf(arm.BadRequest, "signInFrequency everyTime has no value and no type.")
		}
		p.Frequency = access.EveryTime
		return nil
	}
	unit := map[string]time.Duration{"hours": time.Hour, "days": 24 * time.Hour}[f.Type]
	if f.Interval != "" && f.Interval != "timeBased" || unit == 0 || f.Value == nil || *f.Value < 1 || *f.Value > int(longestFrequency/unit) {
		return arm.Errorf(arm.BadRequest, "signInFrequency must have a value from 1 on and the type hours or days, a year at most, or the frequencyInterval everyTime.")
	}
	p.Frequency = access.Frequency(time.Duration(*f.Value) * unit)
	return nil
}

// locationRow is a named location as it is kept.
type locationRow struct {
	ID, Tenant        string
	Created, Modified time.Time
	Revision          int
	Body              locationBody
}

type locationBody struct {
	Type     string    `json:"@odata.type"`
	Name     string    `json:"displayName"`
	Trusted  bool      `json:"isTrusted"`
	Ranges   []ipRange `json:"ipRanges"`
	ID       any       `json:"id,omitempty" arm:"readonly"`
	Created  any       `json:"createdDateTime,omitempty" arm:"readonly"`
	Modified any       `json:"modifiedDateTime,omitempty" arm:"readonly"`
	Context  any       `json:"@odata.context,omitempty" arm:"readonly"`
}

type ipRange struct {
	Type string `json:"@odata.type"`
	CIDR string `json:"cidrAddress"`
}

const (
	ipLocation = "#microsoft.graph.ipNamedLocation"
	ip4Range   = "#microsoft.graph.iPv4CidrRange"
	ip6Range   = "#microsoft.graph.iPv6CidrRange"
	maxRanges  = 2000 // of one location, as in Entra
)

// compile makes of a location what is decided by, or says what is wrong with it.
func (b *locationBody) compile(id string) (access.NamedLocation, error) {
	l := access.NamedLocation{ID: id, Name: b.Name, Trusted: b.Trusted}
	if err := checkName(b.Name); err != nil {
		return l, err
	}
	if b.Type != ipLocation {
		return l, arm.Errorf(arm.BadRequest, "@odata.type is %q; supported is %s. Countries are not: the platform does not know where addresses are.", printable(b.Type), ipLocation)
	}
	if len(b.Ranges) == 0 || len(b.Ranges) > maxRanges {
		return l, arm.Errorf(arm.BadRequest, "ipRanges has %d ranges; it must have from 1 to %d.", len(b.Ranges), maxRanges)
	}
	for _, r := range b.Ranges {
		p, err := netip.ParsePrefix(r.CIDR)
		if err != nil || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			return l, arm.Errorf(arm.BadRequest, "cidrAddress is %q; it must be an address and a number of bits, as in 192.0.2.0/24 or 2001:db8::/32.", printable(r.CIDR))
		}
		if want := map[bool]string{true: ip4Range, false: ip6Range}[p.Addr().Is4()]; r.Type != want {
			return l, arm.Errorf(arm.BadRequest, "The range %s has the @odata.type %q; it must be %s.", p, printable(r.Type), want)
		}
		if p.Bits() == 0 {
			return l, arm.Errorf(arm.BadRequest, "The range %s has all addresses there are; name All instead.", p)
		}
		l.Ranges = append(l.Ranges, p.Masked())
	}
	return l, nil
}

// loadRules reads and compiles the policies of one tenant. A row that can't be
// read is an error: a policy must not be lost in silence.
func loadRules(tx *store.Tx, tenant string) (*access.Rules, error) {
	rows, err := store.ScanJSON[*policyRow](tx, policyTable, tenant+"|", "", 0)
	if err != nil {
		return nil, err
	}
	places, err := store.ScanJSON[*locationRow](tx, locationTable, tenant+"|", "", 0)
	if err != nil {
		return nil, err
	}
	var policies []access.Policy
	for _, r := range rows {
		p, err := r.Body.compile(r.ID)
		if err != nil {
			return nil, err
		}
		policies = append(policies, p)
	}
	var locations []access.NamedLocation
	for _, r := range places {
		l, err := r.Body.compile(r.ID)
		if err != nil {
			return nil, err
		}
		locations = append(locations, l)
	}
	known, err := store.ScanJSON[*contextRow](tx, contextTable, tenant+"|", "", 0)
	if err != nil {
		return nil, err
	}
	var contexts []string
	for _, r := range known {
		contexts = append(contexts, r.ID)
	}
	return access.Compile(policies, locations, contexts...), nil
}

// loadAccess reads the policies of all tenants.
func (s *Service) loadAccess(tx *store.Tx) error {
	for _, t := range find(s.index, func(x *index) (out []string) {
		for id := range x.tenants {
			out = append(out, id)
		}
		return out
	}) {
		r, err := loadRules(tx, t)
		if err != nil {
			return err
		}
		s.setRules(t, r)
	}
	return nil
}

// setRules puts the rules of a tenant in the place of those before. It is
// called at the start and after commits, one at a time.
func (s *Service) setRules(tenant string, r *access.Rules) {
	next := map[string]*access.Rules{}
	if m := s.rules.Load(); m != nil {
		for t, old := range *m {
			next[t] = old
		}
	}
	next[tenant] = r
	s.rules.Store(&next)
}

// followRules has the rules in memory follow what tx wrote, once it is
// committed, and returns them.
func (s *Service) followRules(tx *store.Tx, tenant string) (*access.Rules, error) {
	r, err := loadRules(tx, tenant)
	if err != nil {
		return nil, err
	}
	tx.After(func() { s.setRules(tenant, r) })
	return r, nil
}
