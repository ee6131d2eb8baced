package governance

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// policies is the table of the policies that were changed, by the key of the
// policy's id. Every role has one at every scope; those never changed are as
// newPolicy makes them. A policy counts for requests at its own scope, and for
// activations of eligibilities that begin there.
const policies = "role_policies"

// What a rule of enablement can ask for.
const (
	askMFA    = "MultiFactorAuthentication"
	askReason = "Justification"
	askTicket = "Ticketing"
)

// What the rules of a policy are about: who asks, and for what.
const (
	adminEligibility = "Admin_Eligibility"
	adminAssignment  = "Admin_Assignment"
	userAssignment   = "EndUser_Assignment"
)

var ruleTargets = []string{adminEligibility, adminAssignment, userAssignment}

// policy says what requests for a role at a scope must show.
type policy struct {
	Scope      arm.ID                `json:"scope"`
	Role       string                `json:"role"`
	Enable     map[string][]string   `json:"enable"` // by target
	Expire     map[string]expiryRule `json:"expire"` // by target
	Approval   approvalRule          `json:"approval"`
	Context    string                `json:"context,omitempty"` // authentication context that activating wants; "" wants none
	ModifiedOn time.Time             `json:"modifiedOn,omitzero"`
	ModifiedBy string                `json:"modifiedBy,omitempty"`
}

// expiryRule says how long something may last.
type expiryRule struct {
	Required bool   `json:"required"`
	Max      string `json:"max"` // an ISO 8601 duration
}

// approvalRule says who must agree to an activation.
type approvalRule struct {
	Required  bool       `json:"required"`
	Days      int        `json:"days"`   // after which nobody can agree any more
	Reason    bool       `json:"reason"` // whoever decides must say why
	Approvers []approver `json:"approvers"`
}

// approver is a person, or everybody in a group.
type approver struct {
	ID          string   `json:"id"`
	Kind        arm.Kind `json:"kind"`
	Description string   `json:"description,omitempty"`
}

// newPolicy is the policy of a role at a scope as nobody changed it.
func newPolicy(scope arm.ID, role string) *policy {
	return &policy{Scope: scope, Role: role,
		Enable:   map[string][]string{adminEligibility: {}, adminAssignment: {askReason}, userAssignment: {askReason}},
		Expire:   map[string]expiryRule{adminEligibility: {true, "P365D"}, adminAssignment: {true, "P180D"}, userAssignment: {true, "PT8H"}},
		Approval: approvalRule{Days: 1, Reason: true},
	}
}

// policyName is the GUID by which the policy of a role at a scope goes.
func policyName(scope arm.ID, role string) string {
	sum := sha256.Sum256([]byte("role management policy|" + scope.Key() + "|" + role))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80 // RFC 9562: a UUID of version 8
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

func (p *policy) id() arm.ID { return itemID(p.Scope, policyType, policyName(p.Scope, p.Role)) }

// policyAt is the policy of a role at a scope.
func policyAt(tx *store.Tx, scope arm.ID, role string) (*policy, error) {
	p := newPolicy(scope, role)
	kept, ok, err := store.GetJSON[policy](tx, policies, p.id().Key())
	if err != nil || !ok {
		return p, err
	}
	return &kept, nil
}

// policyNamed is the policy that goes by this id, or nil: names are those of
// the roles that there are.
func (s *Service) policyNamed(tx *store.Tx, scope arm.ID, name string) (*policy, error) {
	all, err := s.allDefinitions(tx)
	if err != nil {
		return nil, err
	}
	for _, d := range all {
		if role := key(d.Role.ID); policyName(scope, role) == key(name) {
			return policyAt(tx, scope, role)
		}
	}
	return nil, nil
}

// evidence is what a request shows, for rules to look at.
type evidence struct {
	mfa            bool
	contexts       []string
	reason         string
	ticket, system string
	window         window
}

// failed lists the rules that a request with this evidence does not pass, by
// the names that Azure gives them.
func (p *policy) failed(target string, e evidence) (out []string) {
	for _, ask := range p.Enable[target] {
		switch {
		case ask == askReason && strings.TrimSpace(e.reason) == "":
			out = append(out, "JustificationRule")
		case ask == askTicket && (strings.TrimSpace(e.ticket) == "" || strings.TrimSpace(e.system) == ""):
			out = append(out, "TicketingRule")
		case ask == askMFA && !e.mfa:
			out = append(out, "MfaRule")
		}
	}
	if target == userAssignment && p.Context != "" && !slices.Contains(e.contexts, p.Context) {
		out = append(out, "AcrsRule")
	}
	if !p.Expire[target].allows(e.window) {
		out = append(out, "ExpirationRule")
	}
	return out
}

// allows reports whether something may last so long. A rule that can't be read
// allows nothing.
func (r expiryRule) allows(w window) bool {
	if !r.Required {
		return true
	}
	if w.till.IsZero() {
		return false
	}
	longest, err := period(r.Max)
	return err == nil && !w.till.After(w.from.Add(longest))
}

// names reports whether the caller is among the approvers.
func (r approvalRule) names(c arm.Caller) bool {
	who := principals(c)
	return slices.ContainsFunc(r.Approvers, func(a approver) bool {
		return slices.ContainsFunc(who, func(id string) bool { return strings.EqualFold(id, a.ID) })
	})
}

// hold fails if one of the policies is not satisfied, with everything that is
// missing; what can be mended by signing in is said on its own.
func hold(ps []*policy, target string, e evidence) error {
	var missing, contexts []string
	mend := true
	for _, p := range ps {
		for _, f := range p.failed(target, e) {
			mend = mend && (f == "MfaRule" || f == "AcrsRule")
			if f == "AcrsRule" && !slices.Contains(contexts, p.Context) {
				contexts = append(contexts, p.Context)
			}
			if !slices.Contains(missing, f) {
				missing = append(missing, f)
			}
		}
	}
	if mend && len(missing) > 0 {
		return stepUp(slices.Contains(missing, "MfaRule"), contexts)
	}
	if len(missing) > 0 {
		return arm.Errorf("RoleAssignmentRequestPolicyValidationFailed", `The following policy rules failed: ["%s"]. The role management policy of the role at this scope says what is needed.`, strings.Join(missing, `","`))
	}
	return nil
}

// policiesFor are the policies that count for a role at the scopes, each once.
func policiesFor(tx *store.Tx, role string, scopes ...arm.ID) (out []*policy, err error) {
	seen := map[string]bool{}
	for _, scope := range scopes {
		if seen[scope.Key()] {
			continue
		}
		seen[scope.Key()] = true
		p, err := policyAt(tx, scope, role)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}
