package compliance

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/policy"
	"castellan/internal/store"
)

// An attestation says how the resource at its scope complies with a policy of
// the effect manual, which nobody can find out but people.
var attestations = newKind("Microsoft.PolicyInsights/attestations", "an attestation")

type attestationProps struct {
	Assignment string     `json:"policyAssignmentId"`
	Ref        string     `json:"policyDefinitionReferenceId,omitempty"`
	State      string     `json:"complianceState" arm:"only=Compliant|NonCompliant|Unknown"`
	Expires    *time.Time `json:"expiresOn,omitempty"`
	Owner      string     `json:"owner,omitempty"`
	Comments   string     `json:"comments,omitempty"`
	Evidence   []evidence `json:"evidence,omitempty"`
	Assessed   *time.Time `json:"assessmentDate,omitempty"`
	Metadata   any        `json:"metadata,omitempty"`
	Changed    *time.Time `json:"lastComplianceStateChangeAt,omitempty" arm:"readonly"`
	Progress   string     `json:"provisioningState,omitempty" arm:"readonly"`
}

type evidence struct {
	Description string `json:"description,omitempty"`
	Source      string `json:"sourceUri,omitempty"`
}

// maxEvidence is how much evidence an attestation has at most.
const maxEvidence = 100

// attested are the attestations of the resource at a scope.
func attested(tx *store.Tx, scope arm.ID) ([]object, error) {
	return store.ScanJSON[object](tx, attestations.table(), scope.Key()+"/providers/"+strings.ToLower(attestations.typ)+"/", "", 0)
}

func (s *Service) checkAttestation(tx *store.Tx, o, old *object) error {
	p, err := propsOf[attestationProps](o)
	if err != nil {
		return err
	}
	if len(p.Evidence) > maxEvidence {
		return arm.Errorf(arm.InvalidRequest, "evidence has %d members; at most %d are allowed", len(p.Evidence), maxEvidence)
	}
	b, r, err := s.ruleAt(o.Scope, o.Tenant, p.Assignment, p.Ref)
	if err != nil {
		return err
	}
	if r.rule.Effect != policy.Manual {
		return arm.Errorf("InvalidAttestation", "the policy has the effect %s; people attest to policies of the effect manual alone", r.rule.Effect)
	}
	p.Assignment, p.Ref = b.ID.String(), r.ref
	others, err := attested(tx, o.Scope)
	if err != nil {
		return err
	}
	for i := range others {
		q, err := propsOf[attestationProps](&others[i])
		if err != nil {
			return err
		}
		if others[i].ID.Key() != o.ID.Key() && strings.EqualFold(q.Assignment, p.Assignment) && strings.EqualFold(q.Ref, p.Ref) {
			return arm.Errorf(arm.Conflict, "the attestation %s speaks of this resource and policy already", others[i].ID)
		}
	}
	p.State = cmp.Or(p.State, Unknown)
	p.Progress = succeeded
	now := s.Now().UTC()
	p.Changed = &now
	if old != nil {
		q, err := propsOf[attestationProps](old)
		if err != nil {
			return err
		}
		if q.State == p.State {
			p.Changed = q.Changed
		}
	}
	o.Properties, err = json.Marshal(p)
	return err
}

// manual is the state that people gave a resource, or the rule's default.
func (s *Service) manual(tx *store.Tx, id arm.ID, b *bound, r *one) (string, error) {
	found, err := attested(tx, id)
	if err != nil {
		return "", err
	}
	for i := range found {
		p, err := propsOf[attestationProps](&found[i])
		if err != nil {
			return "", fmt.Errorf("reading %s: %w", found[i].ID, err)
		}
		if strings.EqualFold(p.Assignment, b.ID.String()) && strings.EqualFold(p.Ref, r.ref) && (p.Expires == nil || s.Now().Before(*p.Expires)) {
			return p.State, nil
		}
	}
	return cmp.Or(r.rule.Details.DefaultState, Unknown), nil
}
