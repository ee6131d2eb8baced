package identity

import (
	"net/http"
	"slices"

	"castellan/internal/access"
	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// contextTable has authentication contexts under tenant|id.
const (
	contextTable = "access_contexts"
	contextClass = "identity/conditionalAccess/authenticationContextClassReferences"
)

// contextRow is an authentication context as it is kept: a name for what an
// application may want of a token beyond a sign-in. Policies say what that is.
type contextRow struct {
	ID, Tenant string
	Body       contextBody
}

// contextBody is an authenticationContextClassReference of Microsoft Graph.
type contextBody struct {
	ID        string `json:"id,omitempty"`
	Name      string `json:"displayName"`
	About     string `json:"description"`
	Available bool   `json:"isAvailable"` // shown to who tags resources; policies hold either way
	Created   any    `json:"createdDateTime,omitempty" arm:"readonly"`
	Modified  any    `json:"modifiedDateTime,omitempty" arm:"readonly"`
	Type      any    `json:"@odata.type,omitempty" arm:"readonly"`
	Context   any    `json:"@odata.context,omitempty" arm:"readonly"`
}

func (s *Service) contextDoors() []gate.Route {
	const contexts = "identity/conditionalaccess/authenticationcontextclassreferences"
	return []gate.Route{
		s.door(readPolicies, "GET "+contexts, func(v *visit) (answer, error) {
			rows, err := rowsOf(v, contextTable, (*contextRow).show)
			if err != nil {
				return answer{}, err
			}
			return v.list(contextClass, rows)
		}),
		s.door(createPolicy, "POST "+contexts, (*visit).createContext),
		s.door(readPolicies, "GET "+contexts+"/{id}", func(v *visit) (answer, error) {
			c, err := rowOf[*contextRow](v, contextTable, "authenticationContextClassReference")
			if err != nil {
				return answer{}, err
			}
			return v.one(http.StatusOK, contextClass, c.show())
		}),
		s.door(updateAccessPolicy, "PATCH "+contexts+"/{id}", (*visit).updateContext),
		s.door(deletePolicy, "DELETE "+contexts+"/{id}", (*visit).deleteContext),
	}
}

func (c *contextRow) show() map[string]any {
	return map[string]any{"id": c.ID, "displayName": c.Body.Name, "description": c.Body.About, "isAvailable": c.Body.Available}
}

func (v *visit) createContext() (answer, error) {
	c := &contextRow{Tenant: v.tenant}
	if err := v.body(&c.Body); err != nil {
		return answer{}, err
	}
	c.ID = c.Body.ID
	err := v.change(func(tx *store.Tx) error {
		old, err := tx.Get(contextTable, v.tenant+"|"+c.ID)
		if err == nil && old != nil {
			err = arm.Errorf(arm.Conflict, "There is an authentication context %s already.", printable(c.ID))
		}
		if err != nil {
			return err
		}
		return v.keepContext(tx, c)
	})
	if err != nil {
		return answer{}, err
	}
	return v.one(http.StatusCreated, contextClass, c.show())
}

// updateContext changes a context, or makes it: their ids are given, so that a
// client need not know which there are.
func (v *visit) updateContext() (answer, error) {
	c, err := rowOf[*contextRow](v, contextTable, "authenticationContextClassReference")
	if arm.CodeOf(err) == arm.NotFound {
		c, err = &contextRow{ID: v.seg(3), Tenant: v.tenant}, v.also(createPolicy)
	}
	if err != nil {
		return answer{}, err
	}
	next := contextRow{ID: c.ID, Tenant: c.Tenant}
	if err := v.patch(c.Body, &next.Body); err != nil {
		return answer{}, err
	}
	if id := next.Body.ID; id != "" && id != next.ID {
		return answer{}, arm.Errorf(arm.BadRequest, "id is %q; it can't be changed and is %s.", printable(id), printable(next.ID))
	}
	return done, v.change(func(tx *store.Tx) error { return v.keepContext(tx, &next) })
}

func (v *visit) keepContext(tx *store.Tx, c *contextRow) error {
	if !access.IsContext(c.ID) {
		return arm.Errorf(arm.BadRequest, "id is %q; authentication contexts are c1 to c99.", printable(c.ID))
	}
	if err := checkName(c.Body.Name); err != nil {
		return err
	}
	c.Body.ID = ""
	if err := store.PutJSON(tx, contextTable, v.tenant+"|"+c.ID, c); err != nil {
		return err
	}
	_, err := v.s.followRules(tx, v.tenant)
	return err
}

// deleteContext refuses while a policy names the context: an application that
// asks for it would then be answered as if nothing were asked.
func (v *visit) deleteContext() (answer, error) {
	c, err := rowOf[*contextRow](v, contextTable, "authenticationContextClassReference")
	if err != nil {
		return answer{}, err
	}
	return done, v.change(func(tx *store.Tx) error {
		rows, err := store.ScanJSON[*policyRow](tx, policyTable, v.tenant+"|", "", 0)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if slices.Contains(r.Body.Conditions.Apps.Contexts, c.ID) {
				return arm.Errorf(arm.BadRequest, "The policy %s names the authentication context; change it first.", r.ID)
			}
		}
		if err := tx.Delete(contextTable, v.tenant+"|"+c.ID); err != nil {
			return err
		}
		_, err = v.s.followRules(tx, v.tenant)
		return err
	})
}
