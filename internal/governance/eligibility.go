package governance

import (
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/rbac"
	"castellan/internal/store"
)

// Eligibilities lie under the keys of their ids; index, which assignments use
// too, finds them by
//
//	eligible|PRINCIPAL|ROLE|SCOPE   what somebody is eligible for
//	eligibility|GUID                the name
//	activable|ROLE|GUID             the role
//	activated|GUID|ASSIGNMENT       the assignments that an eligibility was activated to
const eligibilities = "role_eligibilities"

// eligibility is the right to give oneself a role for a while. Role and
// Principal are GUIDs in lower case; the principal is a person or a group.
type eligibility struct {
	ID        arm.ID    `json:"id"`
	Scope     arm.ID    `json:"scope"`
	Role      string    `json:"role"`
	Principal string    `json:"principal"`
	Kind      arm.Kind  `json:"kind"`
	Start     time.Time `json:"start"`
	End       time.Time `json:"end,omitzero"`
	Request   arm.ID    `json:"request"`
	CreatedOn time.Time `json:"createdOn"`
	UpdatedOn time.Time `json:"updatedOn"`
}

func (e *eligibility) window() window { return window{e.Start, e.End} }
func (e *eligibility) name() string   { return key(e.ID.Name()) }

func (e *eligibility) rows() []string {
	return []string{"eligible|" + e.Principal + "|" + e.Role + "|" + e.Scope.Key(), "eligibility|" + e.name(), "activable|" + e.Role + "|" + e.name()}
}

// keepEligibility writes e.
func keepEligibility(tx *store.Tx, e *eligibility) error {
	for _, row := range e.rows() {
		if err := tx.Put(index, row, []byte(e.ID.Key())); err != nil {
			return err
		}
	}
	return store.PutJSON(tx, eligibilities, e.ID.Key(), e)
}

// forgetEligibility removes e and all that was activated by it.
func (s *Service) forgetEligibility(tx *store.Tx, e *eligibility) error {
	active, err := activations(tx, e)
	if err != nil {
		return err
	}
	for _, a := range active {
		if err := s.forget(tx, a); err != nil {
			return err
		}
	}
	for _, row := range e.rows() {
		if err := tx.Delete(index, row); err != nil {
			return err
		}
	}
	return tx.Delete(eligibilities, e.ID.Key())
}

// activations are the assignments that e was activated to.
func activations(tx *store.Tx, e *eligibility) ([]*assignment, error) {
	return throughIndex(tx, "activated|"+e.name()+"|")
}

// fit makes what was activated by e end no later than e itself.
func (s *Service) fit(tx *store.Tx, e *eligibility) error {
	active, err := activations(tx, e)
	if err != nil {
		return err
	}
	for _, a := range active {
		if a.NotBefore.Before(e.Start) {
			if err := s.forget(tx, a); err != nil {
				return err
			}
			continue
		}
		if !e.End.IsZero() && a.NotAfter.After(e.End) {
			a.NotAfter = e.End
			if err := s.keep(tx, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// loadEligibility is the eligibility under the key of an id, or nil.
func loadEligibility(tx *store.Tx, k string) (*eligibility, error) {
	e, ok, err := store.GetJSON[eligibility](tx, eligibilities, k)
	if err != nil || !ok {
		return nil, err
	}
	return &e, nil
}

// eligibilityAt is the eligibility that index has under k, or nil.
func eligibilityAt(tx *store.Tx, k string) (*eligibility, error) {
	at, err := tx.Get(index, k)
	if err != nil || at == nil {
		return nil, err
	}
	return loadEligibility(tx, string(at))
}

// eligible are all eligibilities of the principals, also those whose time has
// not come or is over.
func eligible(tx *store.Tx, principals ...string) (out []*eligibility, err error) {
	for _, p := range principals {
		rows, err := tx.Scan(index, "eligible|"+key(p)+"|", "", 0)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			e, err := loadEligibility(tx, string(r.Value))
			if err != nil {
				return nil, err
			}
			if e != nil {
				out = append(out, e)
			}
		}
	}
	return out, nil
}

// principals are the caller and the caller's groups.
func principals(c arm.Caller) []string { return append([]string{c.Object}, c.Groups...) }

// dropEligibilities forgets what of eligibilities, requests and policies lies at
// the scope or below it, in the transaction that deletes the scope.
func (s *Service) dropEligibilities(tx *store.Tx, scope arm.ID) error {
	prefix := strings.TrimSuffix(scope.Key(), "/") + "/"
	found, err := store.ScanJSON[eligibility](tx, eligibilities, prefix, "", 0)
	if err != nil {
		return err
	}
	for i := range found {
		if err := s.forgetEligibility(tx, &found[i]); err != nil {
			return err
		}
	}
	asked, err := store.ScanJSON[request](tx, requests, prefix, "", 0)
	if err != nil {
		return err
	}
	for i := range asked {
		if err := forgetRequest(tx, &asked[i]); err != nil {
			return err
		}
	}
	rows, err := tx.Scan(policies, prefix, "", 0)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := tx.Delete(policies, r.Key); err != nil {
			return err
		}
	}
	return nil
}

// dropEligible forgets what the principal is eligible for, and what others were
// by being in it.
func (s *Service) dropEligible(tx *store.Tx, principal string) error {
	found, err := eligible(tx, principal)
	if err != nil {
		return err
	}
	for _, e := range found {
		if err := s.forgetEligibility(tx, e); err != nil {
			return err
		}
	}
	return nil
}

// clear makes room for x: it forgets what gave the same and is over, and refuses
// if something gives it still, or will.
func (s *Service) clear(tx *store.Tx, x *assignment) error {
	old, err := indexed(tx, x.held())
	if err != nil || old == nil {
		return err
	}
	if !old.window().over(s.Now()) {
		return exists(old)
	}
	return s.forget(tx, old)
}

func (a *assignment) window() window { return window{a.NotBefore, a.NotAfter} }

// holds reports whether a gives its role now.
func (s *Service) holds(a *assignment) bool { return a.window().open(s.Now()) }

// timed fills in what package rbac must know of the time of a.
func (a *assignment) timed(x rbac.Assignment) rbac.Assignment {
	x.NotBefore, x.NotAfter, x.Via = a.NotBefore, a.NotAfter, a.Via
	return x
}
