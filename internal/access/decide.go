package access

import (
	"slices"
	"time"
)

// Rules are policies and locations, made ready to be asked often. They are not
// changed once they are made.
type Rules struct {
	policies []rule
	places   map[string]NamedLocation
	contexts map[string]bool // authentication contexts that there are
	enforced []int           // policies that are held
}

// rule is a policy with its lists as sets.
type rule struct {
	Policy
	users, groups, roles, apps, places list
	contexts                           map[string]bool
}

// list is what is included and what is not.
type list struct {
	in, out map[string]bool
	asked   bool // something is included by name or word
}

func newList(in, out []string) list {
	l := list{in: map[string]bool{}, out: map[string]bool{}, asked: len(in) > 0}
	for _, x := range in {
		l.in[x] = true
	}
	for _, x := range out {
		l.out[x] = true
	}
	return l
}

// Compile makes Rules of policies, the locations that they name, and the ids of
// the authentication contexts that there are.
func Compile(policies []Policy, locations []NamedLocation, contexts ...string) *Rules {
	r := &Rules{places: map[string]NamedLocation{}, contexts: newList(contexts, nil).in}
	for _, l := range locations {
		r.places[l.ID] = l
	}
	for i, p := range policies {
		r.policies = append(r.policies, rule{
			Policy: p, users: newList(p.IncludeUsers, p.ExcludeUsers), groups: newList(p.IncludeGroups, p.ExcludeGroups), roles: newList(p.IncludeRoles, p.ExcludeRoles),
			apps: newList(p.IncludeApps, p.ExcludeApps), places: newList(p.IncludeLocations, p.ExcludeLocations),
			contexts: newList(p.Contexts, nil).in,
		})
		if p.State != Disabled && p.State != Report {
			r.enforced = append(r.enforced, i)
		}
	}
	return r
}

// Decide is what the policies say of a sign-in.
func Decide(policies []Policy, locations []NamedLocation, f Facts, now time.Time) Verdict {
	return Compile(policies, locations).Decide(f, now)
}

// Decide is what the rules say of a sign-in.
func (r *Rules) Decide(f Facts, now time.Time) Verdict {
	v := Verdict{decided: true, Contexts: f.Contexts}
	if r == nil {
		return v
	}
	for i := range r.policies {
		r.judge(&v, &r.policies[i], f, now)
	}
	return v
}

// judge adds what one policy says.
func (r *Rules) judge(v *Verdict, p *rule, f Facts, now time.Time) {
	out := Result{ID: p.ID, Name: p.Name}
	applies := p.State != Disabled && r.applies(p, f)
	if applies && f.BreakGlass {
		applies, v.Emergency = false, v.Emergency || p.State != Report
	}
	need := []Control(nil)
	if applies {
		out.Blocks, out.Controls = p.Block, p.controls()
		need = p.missing(f, now)
	}
	out.Outcome = outcome(p.State, applies, p.Block, need)
	v.Results = append(v.Results, out)
	if out.Outcome != Failure {
		return
	}
	v.Block = v.Block || p.Block
	v.Policies = append(v.Policies, p.ID)
	for _, c := range need {
		if !slices.Contains(v.Need, c) {
			v.Need = append(v.Need, c)
		}
	}
}

func outcome(s State, applies, block bool, need []Control) Outcome {
	report := s == Report
	switch {
	case s == Disabled:
		return NotEnabled
	case !applies && report:
		return ReportOnlyNotApplied
	case !applies:
		return NotApplied
	case report && block:
		return ReportOnlyFailure
	case report && len(need) > 0:
		return ReportOnlyInterrupted
	case report:
		return ReportOnlySuccess
	case block || len(need) > 0:
		return Failure
	}
	return Success
}

// HasContext reports whether there is an authentication context.
func (r *Rules) HasContext(id string) bool { return r != nil && r.contexts[id] }

// Forbids is the id of a policy that blocks a person, whatever they show, or "".
func (r *Rules) Forbids(f Facts) string {
	return r.first(f, func(p *rule) bool { return p.Block })
}

// Unmet is the id of a policy that does not let a person have what a token of
// theirs was given for, or not with what they showed then, or "". It is asked on
// every call, so it makes no Verdict.
func (r *Rules) Unmet(f Facts, now time.Time) string {
	return r.first(f, func(p *rule) bool { return p.Block || len(p.missing(f, now)) > 0 })
}

// first is the id of the first policy that is held, applies and is so, or "".
func (r *Rules) first(f Facts, so func(*rule) bool) string {
	if r == nil || f.BreakGlass {
		return ""
	}
	for _, i := range r.enforced {
		if p := &r.policies[i]; r.applies(p, f) && so(p) {
			return p.ID
		}
	}
	return ""
}

// applies reports whether all conditions of p hold.
func (r *Rules) applies(p *rule, f Facts) bool {
	return p.who(f) && p.what(f) && p.with(f.Client) && r.where(p, f) && (!p.DeviceCode || f.DeviceCode)
}

// who reports whether the policy is about the person. Whoever is excluded by
// anything is excluded.
func (p *rule) who(f Facts) bool {
	if p.users.out[All] || p.users.out[f.User] || any(p.groups.out, f.Groups) || any(p.roles.out, f.Roles) {
		return false
	}
	return p.users.in[All] || p.users.in[f.User] || any(p.groups.in, f.Groups) || any(p.roles.in, f.Roles)
}

func any(set map[string]bool, ids []string) bool {
	if len(set) == 0 {
		return false
	}
	return slices.ContainsFunc(ids, func(id string) bool { return set[id] })
}

// what reports whether the policy is about what is asked for. A policy may name
// the client too; but only the resource can be excluded, for anybody can say
// that they are some public client.
func (p *rule) what(f Facts) bool {
	if len(p.contexts) > 0 {
		return any(p.contexts, f.Contexts)
	}
	if p.apps.out[All] || p.apps.out[f.Resource] {
		return false
	}
	return p.apps.in[All] || p.apps.in[f.Resource] || p.apps.in[f.App]
}

func (p *rule) with(c Client) bool {
	return len(p.Clients) == 0 || slices.Contains(p.Clients, AllClients) || slices.Contains(p.Clients, c)
}

// where reports whether the policy is about the person's address. An address
// that is not known may be any: it is in all that is included and in nothing
// that is excluded.
func (r *Rules) where(p *rule, f Facts) bool {
	if r.in(p.places.out, f) {
		return false
	}
	return !p.places.asked || !f.Address.IsValid() || r.in(p.places.in, f)
}

func (r *Rules) in(set map[string]bool, f Facts) bool {
	if set[All] {
		return true
	}
	for id := range set {
		if l, ok := r.places[id]; ok && l.Holds(f.Address) {
			return true
		}
	}
	if !set[AllTrusted] {
		return false
	}
	for _, l := range r.places {
		if l.Trusted && l.Holds(f.Address) {
			return true
		}
	}
	return false
}

// controls are all that the policy asks for.
func (p *rule) controls() (out []Control) {
	if p.MFA {
		out = append(out, NeedMFA)
	}
	if p.Strength != "" {
		out = append(out, p.Strength.control())
	}
	if p.Frequency != 0 {
		out = append(out, Fresh)
	}
	return out
}

// missing is what the person has still to do. Proofs that are too old count as
// not shown.
func (p *rule) missing(f Facts, now time.Time) (need []Control) {
	if p.Block {
		return nil
	}
	proofs := f.Proofs
	if p.Frequency == EveryTime && !f.Issued.IsZero() {
		now = f.Issued
	}
	if p.Frequency != 0 {
		proofs = proofs.Since(now.Add(-time.Duration(p.Frequency)))
	}
	var asked, met int
	var wants []Control
	for _, c := range p.controls() {
		if c == Fresh {
			continue
		}
		if asked++; proofs.meet(c) {
			met++
			continue
		}
		wants = append(wants, c)
	}
	if met < asked && !(p.Or && met > 0) {
		need = append(need, wants...)
		if p.Or {
			need = need[:1]
		}
	}
	if p.Frequency != 0 && !proofs.Any() {
		need = append(need, Fresh)
	}
	return need
}

// meet reports whether p is what c asks for.
func (p Proofs) meet(c Control) bool {
	switch c {
	case NeedMFA:
		return p.MFA()
	case NeedNoPass:
		return p.Passwordless()
	case NeedResistant:
		return p.PhishingResistant()
	}
	return false
}

// control is what a strength asks for; a strength that is not known asks for
// the most.
func (s Strength) control() Control {
	switch s {
	case MFAStrength:
		return NeedMFA
	case PasswordlessMFA:
		return NeedNoPass
	}
	return NeedResistant
}
