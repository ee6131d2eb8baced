package blob

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/resource"
)

// ManagementPolicy are an account's lifecycle rules: what becomes of its blobs
// when they grow old.
type ManagementPolicy struct {
	Policy struct {
		Rules []lifeRule `json:"rules"`
	} `json:"policy"`
	Modified string `json:"lastModifiedTime,omitempty" arm:"readonly"`
}

type lifeRule struct {
	Enabled    *bool  `json:"enabled,omitempty"` // true unless it says so
	Name       string `json:"name"`
	Type       string `json:"type" arm:"only=Lifecycle"`
	Definition struct {
		Actions struct {
			Base     *lifeActions `json:"baseBlob,omitempty"`
			Snapshot *lifeActions `json:"snapshot,omitempty"`
			Version  *lifeActions `json:"version,omitempty" arm:"since=2019-06-01"`
		} `json:"actions"`
		Filters struct {
			Types    []string  `json:"blobTypes"`
			Prefixes []string  `json:"prefixMatch,omitempty"` // of CONTAINER/NAME; empty is all
			Tags     []lifeTag `json:"blobIndexMatch,omitempty" arm:"since=2019-06-01"`
		} `json:"filters"`
	} `json:"definition"`
}

type lifeTag struct {
	Name  string `json:"name"`
	Op    string `json:"op"`
	Value string `json:"value"`
}

type lifeActions struct {
	Cool    *lifeAge `json:"tierToCool,omitempty"`
	Cold    *lifeAge `json:"tierToCold,omitempty" arm:"since=2022-09-01"`
	Archive *lifeAge `json:"tierToArchive,omitempty"`
	Hot     *lifeAge `json:"tierToHot,omitempty" arm:"since=2022-09-01"`
	Delete  *lifeAge `json:"delete,omitempty"`
	Auto    bool     `json:"enableAutoTierToHotFromCool,omitempty" arm:"only=false,since=2019-06-01"`
}

// lifeAge is an age in days, which something must be above.
type lifeAge struct {
	Modified   *float64 `json:"daysAfterModificationGreaterThan,omitempty"`
	Created    *float64 `json:"daysAfterCreationGreaterThan,omitempty"`
	Accessed   *float64 `json:"daysAfterLastAccessTimeGreaterThan,omitempty" arm:"since=2019-06-01"`
	TierChange *float64 `json:"daysAfterLastTierChangeGreaterThan,omitempty" arm:"since=2021-09-01"`
}

// Limits of lifecycle rules, as Azure's.
const (
	maxLifeRules    = 100
	maxLifeName     = 256
	maxLifePrefixes = 10
	maxLifeTags     = 10
	maxLifeDays     = 99999
)

// managementPolicies is the kind of accounts' lifecycle rules.
func (s *Service) managementPolicies(account *resource.Kind) *resource.Kind {
	return &resource.Kind{
		Type: "Microsoft.Storage/storageAccounts/managementPolicies", SystemData: "2025-08-01", Doc: "an account's lifecycle rules", Parent: account, Global: true,
		Created: http.StatusOK, NoPatch: true,
		Props: func() any { return &ManagementPolicy{} },
		Check: func(c resource.Change) error {
			if !strings.EqualFold(c.Doc.Name, "default") {
				return arm.Errorf(arm.BadRequest, "the management policy is named %q; an account has one, named default", c.Doc.Name)
			}
			var p ManagementPolicy
			if err := json.Unmarshal(c.Doc.Properties, &p); err != nil {
				return err
			}
			return p.check()
		},
		Show: func(d *resource.Doc, props map[string]any) {
			if d.System != nil {
				props["lastModifiedTime"] = d.System.ModifiedAt
			}
		},
	}
}

func badRule(format string, args ...any) error {
	return arm.Errorf(arm.BadRequest, "properties.policy.rules is invalid: "+format, args...)
}

func (p *ManagementPolicy) check() error {
	rules := p.Policy.Rules
	if len(rules) == 0 || len(rules) > maxLifeRules {
		return badRule("there are %d rules; there must be 1 to %d", len(rules), maxLifeRules)
	}
	seen := map[string]bool{}
	for _, r := range rules {
		if r.Name == "" || len(r.Name) > maxLifeName || seen[r.Name] || strings.Trim(strings.ToLower(r.Name), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return badRule("a rule is named %q; names must be 1 to %d letters, digits, hyphens and underscores, and not twice the same", r.Name, maxLifeName)
		}
		seen[r.Name] = true
		if err := r.check(); err != nil {
			return err
		}
	}
	return nil
}

func (r lifeRule) check() error {
	if r.Type == "" {
		return badRule("the type of %q is missing; it must be Lifecycle", r.Name)
	}
	f := r.Definition.Filters
	if len(f.Types) == 0 {
		return badRule("filters.blobTypes of %q is empty; it must have blockBlob, appendBlob or both", r.Name)
	}
	for _, t := range f.Types {
		if t != "blockBlob" && t != "appendBlob" {
			return badRule("filters.blobTypes of %q has %q; it must be blockBlob or appendBlob", r.Name, t)
		}
	}
	if len(f.Prefixes) > maxLifePrefixes || len(f.Tags) > maxLifeTags {
		return badRule("filters of %q have %d prefixes and %d tags; at most %d and %d are allowed", r.Name, len(f.Prefixes), len(f.Tags), maxLifePrefixes, maxLifeTags)
	}
	for _, p := range f.Prefixes {
		if box, _, _ := strings.Cut(p, "/"); box == "" || len(p) > maxName {
			return badRule("filters.prefixMatch of %q has %q; it must begin with the name of a container, or what that begins with", r.Name, p)
		}
	}
	for _, t := range f.Tags {
		if t.Op != "==" {
			return badRule("filters.blobIndexMatch of %q has the operator %q; it must be ==", r.Name, t.Op)
		}
		if err := checkTags(map[string]string{t.Name: t.Value}); err != nil {
			return badRule("filters.blobIndexMatch of %q has the tag %q = %q, which no blob can have", r.Name, t.Name, t.Value)
		}
	}
	a := r.Definition.Actions
	n := 0
	for what, x := range map[string]*lifeActions{"baseBlob": a.Base, "snapshot": a.Snapshot, "version": a.Version} {
		if x == nil {
			continue
		}
		if x.Hot != nil {
			return badRule("actions.%s of %q has tierToHot; blobs are moved to cooler tiers alone", what, r.Name)
		}
		for _, d := range x.list() {
			n++
			if d.tier != "" && slices.Contains(f.Types, "appendBlob") {
				return badRule("actions.%s of %q sets tiers, which append blobs do not have; filters.blobTypes must be blockBlob alone", what, r.Name)
			}
			if err := d.age.check(what == "baseBlob", d.tier == archive); err != nil {
				return badRule("actions.%s of %q: %s", what, r.Name, err.Error())
			}
		}
	}
	if n == 0 {
		return badRule("%q has no actions", r.Name)
	}
	return nil
}

// deed is one action of a rule: to a tier, or to delete if that is "".
type deed struct {
	tier string
	age  *lifeAge
}

// list are the actions, the cheapest for the account's owner first: of two that
// fit a blob that one is taken.
func (x *lifeActions) list() (out []deed) {
	if x == nil {
		return nil
	}
	for _, d := range []deed{{"", x.Delete}, {archive, x.Archive}, {"Cold", x.Cold}, {"Cool", x.Cool}} {
		if d.age != nil {
			out = append(out, d)
		}
	}
	return out
}

// check holds the age against what may be asked: base is whether it is a blob's
// own, and archive whether it is to be archived.
func (a *lifeAge) check(base, archive bool) error {
	switch {
	case a.Accessed != nil:
		return errors.New("daysAfterLastAccessTimeGreaterThan is not supported; accesses are not kept")
	case !base && (a.Modified != nil || a.Created == nil):
		return errors.New("the age must be daysAfterCreationGreaterThan")
	case base && (a.Modified == nil) == (a.Created == nil):
		return errors.New("the age must be one of daysAfterModificationGreaterThan and daysAfterCreationGreaterThan")
	case a.TierChange != nil && !archive:
		return errors.New("daysAfterLastTierChangeGreaterThan is for tierToArchive alone")
	}
	for _, d := range []*float64{a.Modified, a.Created, a.TierChange} {
		if d != nil && (*d < 0 || *d > maxLifeDays || *d != math.Trunc(*d)) {
			return errors.New("days must be a whole number from 0 to 99999")
		}
	}
	return nil
}

func older(days *float64, since, now time.Time) bool {
	return days == nil || now.Sub(since) > time.Duration(*days)*24*time.Hour
}

// fits reports whether b, which came into being at made, is so old.
func (a *lifeAge) fits(b *row, made, now time.Time) bool {
	tiered := b.Tiered
	if tiered.IsZero() {
		tiered = b.Created
	}
	return older(a.Modified, b.Modified, now) && older(a.Created, made, now) && older(a.TierChange, tiered, now)
}

// meant reports whether the rule is for b, in the container of that name.
func (r lifeRule) meant(container, name string, b *row) bool {
	f := r.Definition.Filters
	if b.Dir {
		return false // rules are for what has bytes
	}
	typ := map[string]string{blockBlob: "blockBlob", appendBlob: "appendBlob"}[b.Type]
	if r.Enabled != nil && !*r.Enabled || !slices.Contains(f.Types, typ) {
		return false
	}
	if len(f.Prefixes) > 0 && !slices.ContainsFunc(f.Prefixes, func(p string) bool { return strings.HasPrefix(container+"/"+name, p) }) {
		return false
	}
	return !slices.ContainsFunc(f.Tags, func(t lifeTag) bool { v, ok := b.Tags[t.Name]; return !ok || v != t.Value })
}

// due is what is to be done with b, a blob or what one was at stamp; rule is the
// rule that says so, "" if none does.
func (p *ManagementPolicy) due(container, name, stamp string, b *row, now time.Time) (rule, tier string) {
	made := b.Created
	if b.Past != "" {
		made, _ = time.Parse(stampForm, stamp) // it is one
	}
	best := math.MaxInt
	for _, r := range p.Policy.Rules {
		if !r.meant(container, name, b) {
			continue
		}
		actions := map[string]*lifeActions{"": r.Definition.Actions.Base, isSnapshot: r.Definition.Actions.Snapshot, isVersion: r.Definition.Actions.Version}[b.Past]
		for _, d := range actions.list() {
			rank := len(tiers) - slices.Index(tiers, d.tier)
			if d.tier == "" {
				rank = 0
			}
			colder := d.tier == "" || b.Type == blockBlob && slices.Index(tiers, d.tier) > slices.Index(tiers, text(b.Tier, tiers[0]))
			if rank < best && colder && d.age.fits(b, made, now) {
				best, rule, tier = rank, r.Name, d.tier
			}
		}
	}
	return rule, tier
}
