package compliance

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/policy"
	"castellan/internal/resource"
	"castellan/internal/store"
)

const authorization = "Microsoft.Authorization/"

// The four kinds of policy objects; which is which is told by their pointers.
var (
	definitions = newKind(authorization+"policyDefinitions", "a policy definition")
	sets        = newKind(authorization+"policySetDefinitions", "an initiative of policies")
	assignments = newKind(authorization+"policyAssignments", "a policy assignment")
	exemptions  = newKind(authorization+"policyExemptions", "a policy exemption")
)

func (s *Service) kinds() []*kind {
	d, i, a, e, t := *definitions, *sets, *assignments, *exemptions, *attestations
	d.high, d.props, d.check, d.free = true, func() any { return &definitionProps{Mode: policy.All} }, s.checkDefinition, s.freeDefinition
	i.high, i.props, i.check, i.free = true, func() any { return &setProps{} }, s.checkSet, s.freeDefinition
	a.identity, a.props, a.check, a.free = true, func() any { return &assignmentProps{Enforcement: "Default"} }, s.checkAssignment, s.freeAssignment
	e.props, e.check, e.asks = func() any { return &exemptionProps{} }, s.checkExemption, s.asksExemption
	t.low, t.props, t.check = true, func() any { return &attestationProps{} }, s.checkAttestation
	return []*kind{&d, &i, &a, &e, &t}
}

// Limits, as Azure's.
const (
	maxDisplay     = 128
	maxDescription = 512
	maxPolicies    = 1000 // in an initiative
	maxNotScopes   = 400
)

type definitionProps struct {
	DisplayName string         `json:"displayName,omitempty"`
	Description string         `json:"description,omitempty"`
	Mode        string         `json:"mode"`
	Metadata    any            `json:"metadata,omitempty"`
	Parameters  map[string]any `json:"parameters,omitempty"`
	Rule        map[string]any `json:"policyRule"`
	Version     string         `json:"version,omitempty"`
	Versions    []string       `json:"versions,omitempty"`
	PolicyType  string         `json:"policyType,omitempty" arm:"readonly"`
}

// member is one policy of an initiative.
type member struct {
	Definition string                `json:"policyDefinitionId"`
	Ref        string                `json:"policyDefinitionReferenceId,omitempty"`
	Parameters map[string]paramValue `json:"parameters,omitempty"`
	Groups     []string              `json:"groupNames,omitempty"`
	Version    string                `json:"definitionVersion,omitempty"`
	Effective  string                `json:"effectiveDefinitionVersion,omitempty" arm:"readonly"`
	Latest     string                `json:"latestDefinitionVersion,omitempty" arm:"readonly"`
}

type paramValue struct {
	Value any `json:"value"`
}

type setProps struct {
	DisplayName string         `json:"displayName,omitempty"`
	Description string         `json:"description,omitempty"`
	Metadata    any            `json:"metadata,omitempty"`
	Parameters  map[string]any `json:"parameters,omitempty"`
	Members     []member       `json:"policyDefinitions"`
	Groups      []setGroup     `json:"policyDefinitionGroups,omitempty"`
	Version     string         `json:"version,omitempty"`
	Versions    []string       `json:"versions,omitempty"`
	PolicyType  string         `json:"policyType,omitempty" arm:"readonly"`
}

type setGroup struct {
	Name        string `json:"name"`
	DisplayName string `json:"displayName,omitempty"`
	Description string `json:"description,omitempty"`
	Category    string `json:"category,omitempty"`
	Additional  string `json:"additionalMetadataId,omitempty"`
}

// selector picks resources or members of an initiative.
type selector struct {
	Kind  string   `json:"kind"`
	In    []string `json:"in,omitempty"`
	NotIn []string `json:"notIn,omitempty"`
}

type resourceSelector struct {
	Name      string     `json:"name,omitempty"`
	Selectors []selector `json:"selectors"`
}

type override struct {
	Kind      string     `json:"kind"`
	Value     string     `json:"value"`
	Selectors []selector `json:"selectors,omitempty"`
}

type message struct {
	Message string `json:"message"`
	Ref     string `json:"policyDefinitionReferenceId,omitempty"`
}

type assignmentProps struct {
	DisplayName string                `json:"displayName,omitempty"`
	Description string                `json:"description,omitempty"`
	Metadata    any                   `json:"metadata,omitempty"`
	Definition  string                `json:"policyDefinitionId"`
	Version     string                `json:"definitionVersion,omitempty"`
	NotScopes   []string              `json:"notScopes,omitempty"`
	Parameters  map[string]paramValue `json:"parameters,omitempty"`
	Enforcement string                `json:"enforcementMode" arm:"only=Default|DoNotEnforce"`
	Messages    []message             `json:"nonComplianceMessages,omitempty"`
	Selectors   []resourceSelector    `json:"resourceSelectors,omitempty"`
	Overrides   []override            `json:"overrides,omitempty"`
	Type        string                `json:"assignmentType,omitempty" arm:"only=Custom|NotSpecified"`
	Scope       string                `json:"scope,omitempty" arm:"readonly"`
	Effective   string                `json:"effectiveDefinitionVersion,omitempty" arm:"readonly"`
	Latest      string                `json:"latestDefinitionVersion,omitempty" arm:"readonly"`
	Instance    string                `json:"instanceId,omitempty" arm:"readonly"`
}

type exemptionProps struct {
	DisplayName string             `json:"displayName,omitempty"`
	Description string             `json:"description,omitempty"`
	Metadata    any                `json:"metadata,omitempty"`
	Assignment  string             `json:"policyAssignmentId"`
	Refs        []string           `json:"policyDefinitionReferenceIds,omitempty"`
	Category    string             `json:"exemptionCategory" arm:"only=Waiver|Mitigated"`
	Expires     *time.Time         `json:"expiresOn,omitempty"`
	Selectors   []resourceSelector `json:"resourceSelectors,omitempty"`
	Validation  string             `json:"assignmentScopeValidation,omitempty" arm:"only=Default"`
}

// propsOf is o's properties.
func propsOf[T any](o *object) (p T, err error) {
	if err := json.Unmarshal(o.Properties, &p); err != nil {
		return p, fmt.Errorf("reading the properties of %s: %w", o.ID, err)
	}
	return p, nil
}

func texts(display, description string) error {
	if len(display) > maxDisplay || len(description) > maxDescription {
		return arm.Errorf(arm.InvalidRequest, "displayName has %d and description %d bytes; at most %d and %d are allowed", len(display), len(description), maxDisplay, maxDescription)
	}
	return nil
}

func (s *Service) checkDefinition(tx *store.Tx, o, _ *object) error {
	p, err := propsOf[definitionProps](o)
	if err != nil {
		return err
	}
	if err := texts(p.DisplayName, p.Description); err != nil {
		return err
	}
	d, err := parsedOf(o)
	if err != nil {
		return err
	}
	return s.holds(tx, o, func(u *unit) { u.defs[o.ID.Key()] = d })
}

func metadataCategory(m any) string {
	x, _ := m.(map[string]any)
	c, _ := x["category"].(string)
	return c
}

func (s *Service) checkSet(tx *store.Tx, o, _ *object) error {
	p, err := propsOf[setProps](o)
	if err != nil {
		return err
	}
	if err := texts(p.DisplayName, p.Description); err != nil {
		return err
	}
	if n := len(p.Members); n == 0 || n > maxPolicies {
		return arm.Errorf(arm.InvalidRequest, "policyDefinitions has %d members; it must have 1 to %d", n, maxPolicies)
	}
	groups := map[string]bool{}
	for _, g := range p.Groups {
		if g.Name == "" || groups[strings.ToLower(g.Name)] {
			return arm.Errorf(arm.InvalidRequest, "policyDefinitionGroups has the name %q twice, or an empty one", g.Name)
		}
		groups[strings.ToLower(g.Name)] = true
	}
	seen := map[string]bool{}
	for i := range p.Members {
		m := &p.Members[i]
		d, err := s.visibleDefinition(tx, o, m.Definition, definitions.typ)
		if err != nil {
			return err
		}
		m.Definition = d.String()
		if m.Ref == "" {
			m.Ref = fmt.Sprintf("%s_%d", d.Name(), i+1)
		}
		if seen[strings.ToLower(m.Ref)] {
			return arm.Errorf(arm.InvalidRequest, "policyDefinitions has the policyDefinitionReferenceId %q twice", m.Ref)
		}
		seen[strings.ToLower(m.Ref)] = true
		for _, g := range m.Groups {
			if !groups[strings.ToLower(g)] {
				return arm.Errorf(arm.InvalidRequest, "the member %q is in the group %q, which policyDefinitionGroups does not have", m.Ref, g)
			}
		}
	}
	if o.Properties, err = json.Marshal(p); err != nil {
		return err
	}
	x, err := parseSet(o)
	if err != nil {
		return err
	}
	return s.holds(tx, o, func(u *unit) { u.sets[o.ID.Key()] = x })
}

// visibleDefinition is the id of a definition that something at o's scope may
// name: one of its own tenant, at o's scope or above it.
func (s *Service) visibleDefinition(tx *store.Tx, o *object, text string, types ...string) (arm.ID, error) {
	id, err := arm.ParseID(text)
	if err != nil {
		return arm.ID{}, arm.Errorf(arm.InvalidRequest, "policyDefinitionId is %q, which is no id", text)
	}
	for _, k := range s.kinds() {
		if !strings.EqualFold(id.Type(), k.typ) || !contains(types, k.typ) {
			continue
		}
		d, err := find(tx, k, id)
		if err != nil {
			return arm.ID{}, err
		}
		if d == nil || d.Scope != arm.Root && d.Tenant != o.Tenant {
			return arm.ID{}, k.missing(id)
		}
		if d.Scope != arm.Root && d.Scope.Key() != o.Scope.Key() && !contains(s.Above(o.Scope), d.Scope.Key()) {
			return arm.ID{}, arm.Errorf("InvalidPolicyDefinitionScope", "the definition %s does not lie at %s or above it", d.ID, o.Scope)
		}
		return d.ID, nil
	}
	return arm.ID{}, arm.Errorf(arm.InvalidRequest, "policyDefinitionId is %q; it must be the id of one of %s", text, strings.Join(types, ", "))
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if strings.EqualFold(x, s) {
			return true
		}
	}
	return false
}

func (s *Service) checkAssignment(tx *store.Tx, o, old *object) error {
	p, err := propsOf[assignmentProps](o)
	if err != nil {
		return err
	}
	if err := texts(p.DisplayName, p.Description); err != nil {
		return err
	}
	d, err := s.visibleDefinition(tx, o, p.Definition, definitions.typ, sets.typ)
	if err != nil {
		return err
	}
	p.Definition = d.String()
	if old != nil {
		was, err := propsOf[assignmentProps](old)
		if err != nil {
			return err
		}
		if !strings.EqualFold(was.Definition, p.Definition) {
			return arm.Errorf("InvalidPolicyAssignmentUpdate", "the assignment is of %s; its policyDefinitionId can't be changed", was.Definition)
		}
	}
	if len(p.NotScopes) > maxNotScopes {
		return arm.Errorf(arm.InvalidRequest, "notScopes has %d scopes; at most %d are allowed", len(p.NotScopes), maxNotScopes)
	}
	for _, text := range p.NotScopes {
		id, err := arm.ParseID(strings.TrimSuffix(text, "/"))
		if err != nil {
			return arm.Errorf(arm.InvalidRequest, "notScopes has %q, which is no scope", text)
		}
		if id.Key() == o.Scope.Key() || !contains(s.Above(id), o.Scope.Key()) {
			return arm.Errorf("InvalidNotScopes", "notScopes has %q, which does not lie below the assignment's scope %s", text, o.Scope)
		}
	}
	if o.Properties, err = json.Marshal(p); err != nil {
		return err
	}
	return s.holds(tx, o, func(u *unit) { u.assignments = map[string]*object{o.ID.Key(): o} })
}

func (s *Service) checkExemption(tx *store.Tx, o, _ *object) error {
	p, err := propsOf[exemptionProps](o)
	if err != nil {
		return err
	}
	if err := texts(p.DisplayName, p.Description); err != nil {
		return err
	}
	if p.Category == "" {
		return arm.Errorf(arm.InvalidRequest, "exemptionCategory is missing; it must be Waiver or Mitigated")
	}
	a, err := s.exempted(tx, o)
	if err != nil {
		return err
	}
	if a.Scope.Key() != o.Scope.Key() && !contains(s.Above(o.Scope), a.Scope.Key()) {
		return arm.Errorf("InvalidPolicyExemption", "the assignment %s does not reach %s", a.ID, o.Scope)
	}
	if err := checkSelectors(p.Selectors); err != nil {
		return err
	}
	p.Assignment = a.ID.String()
	o.Properties, err = json.Marshal(p)
	return err
}

// exempted is the assignment that an exemption speaks of.
func (s *Service) exempted(tx *store.Tx, o *object) (*object, error) {
	p, err := propsOf[exemptionProps](o)
	if err != nil {
		return nil, err
	}
	id, err := arm.ParseID(p.Assignment)
	if err != nil || !strings.EqualFold(id.Type(), assignments.typ) {
		return nil, arm.Errorf(arm.InvalidRequest, "policyAssignmentId is %q; it must be the id of a policy assignment", p.Assignment)
	}
	a, err := load(tx, assignments, id)
	if err != nil {
		return nil, err
	}
	if a == nil || a.Tenant != o.Tenant {
		return nil, assignments.missing(id)
	}
	return a, nil
}

// asksExemption: whoever exempts must be allowed to on the assignment, too.
func (s *Service) asksExemption(tx *store.Tx, o *object) ([]resource.Linked, error) {
	a, err := s.exempted(tx, o)
	if err != nil {
		return nil, err
	}
	return []resource.Linked{{Action: Exempt, ID: a.ID, Field: "properties.policyAssignmentId"}}, nil
}

// freeDefinition refuses to delete what an initiative or an assignment names.
func (s *Service) freeDefinition(tx *store.Tx, o *object) error {
	for _, k := range []*kind{sets, assignments} {
		found, err := all(tx, k)
		if err != nil {
			return err
		}
		for i := range found {
			if names(&found[i], o.ID) {
				return &arm.Error{Code: "PolicyDefinitionInUse", Status: 409, Message: "The policy definition '" + o.ID.Name() + "' can't be deleted: " + found[i].ID.String() + " uses it."}
			}
		}
	}
	return nil
}

// names reports whether an initiative or an assignment names a definition.
func names(o *object, id arm.ID) bool {
	var p struct {
		Definition string `json:"policyDefinitionId"`
		Members    []struct {
			Definition string `json:"policyDefinitionId"`
		} `json:"policyDefinitions"`
	}
	if err := json.Unmarshal(o.Properties, &p); err != nil {
		return true
	}
	for _, m := range p.Members {
		if strings.EqualFold(m.Definition, id.String()) {
			return true
		}
	}
	return strings.EqualFold(p.Definition, id.String())
}

// freeAssignment forgets what speaks of an assignment with it.
func (s *Service) freeAssignment(tx *store.Tx, o *object) error {
	for _, k := range []*kind{exemptions, attestations} {
		found, err := all(tx, k)
		if err != nil {
			return err
		}
		for i := range found {
			p, err := propsOf[struct {
				Assignment string `json:"policyAssignmentId"`
			}](&found[i])
			if err != nil {
				return err
			}
			if strings.EqualFold(p.Assignment, o.ID.String()) {
				if err := s.forget(tx, k, &found[i]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
