package governance

import (
	"bytes"
	"context"
	"io"
	"net/http"

	"castellan/internal/arm"
	"castellan/internal/condition"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// What conditions of role assignments may ask about an assignment that is
// written (of the request) or deleted (of the resource): who gets which role.
const (
	attributeRole      = "microsoft.authorization/roleassignments:roledefinitionid"
	attributePrincipal = "microsoft.authorization/roleassignments:principalid"
	attributeKind      = "microsoft.authorization/roleassignments:principaltype"
)

func given(role, principal string, kind arm.Kind) map[string]any {
	out := map[string]any{attributeRole: role, attributePrincipal: key(principal)}
	if kind != "" {
		out[attributeKind] = string(kind)
	}
	return out
}

// maxAsked bounds a body that is read because a condition asks about it.
const maxAsked = 1 << 20

// locateWritten is the assignment of a PUT. Conditions ask what its body gives:
// it is read for them alone, and left for the verb to read again.
func (s *Service) locateWritten(r *http.Request, v gate.Vars) (gate.Target, error) {
	t, err := locateItem(r, v)
	t.Attributes = func() *condition.Attributes {
		data, err := io.ReadAll(io.LimitReader(r.Body, maxAsked))
		r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(data), r.Body))
		if err != nil {
			return nil
		}
		var b assignmentBody
		if arm.Decode(data, &b) != nil {
			return nil
		}
		a, err := b.read(t.ID)
		if err != nil {
			return nil
		}
		return s.asked(r.Context(), t.ID, a.Role, a.Principal)
	}
	return t, err
}

// asked are the attributes of giving a role to a principal at the parent of id.
// Of what kind the principal is, the directory says, not the request.
func (s *Service) asked(ctx context.Context, id arm.ID, role, principal string) *condition.Attributes {
	var kind arm.Kind
	err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
		kind, _, err = s.Directory.Principal(tx, s.Site.TenantOf(id), principal)
		return err
	})
	if err != nil {
		return nil
	}
	return &condition.Attributes{Request: given(role, principal, kind)}
}

// locateDeleted is the assignment of a DELETE. Conditions ask what it gives.
func (s *Service) locateDeleted(r *http.Request, v gate.Vars) (gate.Target, error) {
	t, err := resource.Locate(r, 0)
	t.Attributes = func() *condition.Attributes {
		var a *assignment
		err := s.DB.View(r.Context(), func(tx *store.Tx) (err error) {
			a, err = load(tx, t.ID.Key())
			return err
		})
		if err != nil || a == nil {
			return nil
		}
		return &condition.Attributes{Resource: given(a.Role, a.Principal, a.Kind)}
	}
	return t, err
}
