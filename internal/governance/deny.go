package governance

import (
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/condition"
	"castellan/internal/gate"
	"castellan/internal/rbac"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Deny assignments lie in one table under the keys of their ids.
const (
	denials  = "denyassignments"
	denyType = "Microsoft.Authorization/denyAssignments"
)

// The actions of deny assignments. Owner and User Access Administrator have them.
var (
	ReadDeny   = arm.NewAction(denyType+"/read", "see who is denied what")
	WriteDeny  = arm.NewAction(denyType+"/write", "deny somebody something, whatever roles they have")
	DeleteDeny = arm.NewAction(denyType+"/delete", "take a deny assignment away")
)

// deny is a deny assignment as it is kept.
type deny struct {
	ID     arm.ID          `json:"id"`
	Scope  arm.ID          `json:"scope"`
	Props  denyProps       `json:"properties"`
	System resource.System `json:"systemData"`
}

type denyProps struct {
	Name        string          `json:"denyAssignmentName"`
	Description string          `json:"description"`
	Effect      string          `json:"denyAssignmentEffect" arm:"only=enforced"`
	Permissions []permission    `json:"permissions"`
	Here        bool            `json:"doNotApplyToChildScopes"`
	Principals  []denyPrincipal `json:"principals"`
	Excluded    []denyPrincipal `json:"excludePrincipals"`
	Protected   bool            `json:"isSystemProtected"`
	Condition   *string         `json:"condition"`
	Version     *string         `json:"conditionVersion"`
	Scope       string          `json:"scope"`

	CreatedOn any `json:"createdOn,omitempty" arm:"readonly"`
	CreatedBy any `json:"createdBy,omitempty" arm:"readonly"`
	UpdatedOn any `json:"updatedOn,omitempty" arm:"readonly"`
	UpdatedBy any `json:"updatedBy,omitempty" arm:"readonly"`
}

// denyPrincipal is a principal of a deny assignment.
type denyPrincipal struct {
	ID   string `json:"id"`
	Type string `json:"type"`

	Display any `json:"displayName,omitempty" arm:"readonly"`
	Mail    any `json:"email,omitempty" arm:"readonly"`
}

// denyBody is what a client may send of a deny assignment.
type denyBody struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	Type       string    `json:"type"`
	Properties denyProps `json:"properties"`
	System     any       `json:"systemData" arm:"readonly"`
}

const maxDenied = 100 // principals, and as many left out

// read is the deny assignment that the body asks for at id.
func (b denyBody) read(id arm.ID) (*deny, error) {
	if err := agrees(b.ID, b.Name, b.Type, id, denyType); err != nil {
		return nil, err
	}
	p := b.Properties
	p.Effect = "enforced"
	everyone := slices.ContainsFunc(p.Principals, func(x denyPrincipal) bool { return x.ID == rbac.Everyone })
	switch {
	case !guidForm.MatchString(id.Name()):
		return nil, arm.Errorf("InvalidDenyAssignmentId", "The deny assignment ID '%s' is not valid. It must be a GUID.", id.Name())
	case strings.TrimSpace(p.Name) == "" || len(p.Name) > maxName:
		return nil, arm.Errorf(arm.InvalidRequest, "properties.denyAssignmentName is %d bytes long; it must have 1 to %d", len(p.Name), maxName)
	case len(p.Description) > maxText:
		return nil, arm.Errorf(arm.InvalidRequest, "properties.description is %d bytes long; at most %d are allowed", len(p.Description), maxText)
	case p.Protected:
		return nil, arm.Errorf(arm.InvalidRequest, "properties.isSystemProtected is true; only the platform's own deny assignments are protected")
	case p.Scope != "" && !strings.EqualFold(p.Scope, id.Parent().String()):
		return nil, arm.Errorf(arm.InvalidRequest, "properties.scope is %q; the request's is %q", p.Scope, id.Parent())
	case len(p.Principals) == 0 || len(p.Principals) > maxDenied || len(p.Excluded) > maxDenied:
		return nil, arm.Errorf(arm.InvalidRequest, "properties.principals has %d and excludePrincipals %d; there must be 1 to %d, and at most %d left out", len(p.Principals), len(p.Excluded), maxDenied, maxDenied)
	case everyone && (len(p.Principals) > 1 || len(p.Excluded) == 0):
		return nil, arm.Errorf(arm.InvalidRequest, "the principal %s is everyone: it must be the only one, and excludePrincipals must leave out somebody", rbac.Everyone)
	case p.Condition == nil && p.Version != nil:
		return nil, arm.Errorf(arm.InvalidRequest, "properties.conditionVersion is set, but there is no condition")
	}
	if p.Condition != nil {
		version := ""
		if p.Version != nil {
			version = *p.Version
		}
		if _, err := condition.Parse(*p.Condition, version); err != nil {
			return nil, err
		}
	}
	n, yes := 0, 0
	for _, x := range p.Permissions {
		if x.Condition != nil || x.Version != nil {
			return nil, arm.Errorf(arm.Unsupported, "properties.permissions has a condition; a deny assignment has one condition, properties.condition")
		}
		yes += len(x.Actions) + len(x.DataActions)
		for _, text := range slices.Concat(x.Actions, x.NotActions, x.DataActions, x.NotDataActions) {
			if n++; !patternForm.MatchString(text) {
				return nil, arm.Errorf("InvalidActionOrNotAction", "'%s' is not an action pattern such as Microsoft.KeyVault/vaults/*/read.", text)
			}
		}
	}
	if yes == 0 || n > maxPatterns {
		return nil, arm.Errorf(arm.InvalidRequest, "properties.permissions has %d action patterns, %d of which deny something; it must have 1 to %d", n, yes, maxPatterns)
	}
	return &deny{ID: id, Props: p}, nil
}

// identify fills in what the directory knows of the principals, or fails on one
// that it does not know.
func (s *Service) identify(tx *store.Tx, tenant string, list []denyPrincipal) error {
	for i, x := range list {
		if x.ID == rbac.Everyone {
			list[i] = denyPrincipal{ID: x.ID, Type: "SystemDefined"}
			continue
		}
		kind, ok, err := s.Directory.Principal(tx, tenant, x.ID)
		if err != nil {
			return err
		}
		if !ok {
			return arm.Errorf("PrincipalNotFound", "Principal %s does not exist in the directory %s.", x.ID, tenant)
		}
		list[i] = denyPrincipal{ID: key(x.ID), Type: string(kind)}
	}
	return nil
}

func (d *deny) forEngine() rbac.Deny {
	out := rbac.Deny{ID: d.ID.String(), Name: d.Props.Name, Scope: d.Scope, Here: d.Props.Here}
	for _, p := range d.Props.Permissions {
		out.Permissions = append(out.Permissions, rbac.Permission{Actions: p.Actions, NotActions: p.NotActions, DataActions: p.DataActions, NotDataActions: p.NotDataActions})
	}
	for _, x := range d.Props.Principals {
		out.Principals = append(out.Principals, x.ID)
	}
	for _, x := range d.Props.Excluded {
		out.Excluded = append(out.Excluded, x.ID)
	}
	if d.Props.Condition != nil {
		out.Condition, out.ConditionVersion = *d.Props.Condition, *d.Props.Version
	}
	return out
}

func (d *deny) show() object {
	p := d.Props
	p.Scope, p.Principals, p.Excluded = d.Scope.String(), append([]denyPrincipal{}, p.Principals...), append([]denyPrincipal{}, p.Excluded...)
	p.CreatedOn, p.CreatedBy, p.UpdatedOn, p.UpdatedBy = d.System.CreatedAt, d.System.CreatedBy, d.System.ModifiedAt, d.System.ModifiedBy
	return object{"id": d.ID, "name": d.ID.Name(), "type": denyType, "properties": p}
}

// denyRoutes are the doors to deny assignments.
func (s *Service) denyRoutes() []gate.Route {
	const list = "/{scope...}/providers/" + denyType
	return []gate.Route{
		gate.On(ReadDeny, "GET "+list, locateScope, s.listDenials),
		gate.On(ReadDeny, "GET "+list+"/{deny}", locateItem, s.getDeny),
		gate.On(WriteDeny, "PUT "+list+"/{deny}", locateItem, s.putDeny),
		gate.On(DeleteDeny, "DELETE "+list+"/{deny}", locateItem, s.deleteDeny),
	}
}

func (s *Service) putDeny(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(WriteDeny)
	if err != nil {
		return err
	}
	var b denyBody
	if err := decodeBody(w, r, &b); err != nil {
		return err
	}
	d, err := b.read(id)
	if err != nil {
		return err
	}
	status := http.StatusCreated
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		if d.Scope, err = s.scope(tx, id.Parent()); err != nil {
			return err
		}
		tenant := s.Site.TenantOf(d.Scope)
		if tenant == "" {
			return arm.Errorf(arm.InvalidRequest, "%s takes no deny assignments; they are at management groups, subscriptions, resource groups and resources", d.Scope)
		}
		for _, list := range [][]denyPrincipal{d.Props.Principals, d.Props.Excluded} {
			if err := s.identify(tx, tenant, list); err != nil {
				return err
			}
		}
		d.ID = itemID(d.Scope, denyType, id.Name())
		here, err := denialsAt(tx, d.Scope.Key())
		if err != nil {
			return err
		}
		for _, x := range here {
			switch {
			case x.ID.Key() == id.Key():
				d.ID, d.System, status = x.ID, x.System, http.StatusOK
			case strings.EqualFold(x.Props.Name, d.Props.Name):
				return arm.Errorf(arm.Conflict, "The deny assignment %s at this scope has the name '%s' already.", x.ID, x.Props.Name)
			}
		}
		d.System.Stamp(g.Caller(), s.Now())
		tx.After(func() { _ = s.Engine.PutDeny(d.forEngine()) }) // it has an id, a scope and a principal
		return store.PutJSON(tx, denials, d.ID.Key(), d)
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, status, d.show())
	return nil
}

func (s *Service) getDeny(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(ReadDeny)
	if err != nil {
		return err
	}
	return s.DB.View(r.Context(), func(tx *store.Tx) error {
		d, ok, err := store.GetJSON[deny](tx, denials, id.Key())
		if err == nil && !ok {
			err = notFoundAs("DenyAssignmentNotFound", "The deny assignment '"+id.Name()+"' is not found.")
		}
		if err != nil {
			return err
		}
		gate.WriteJSON(w, http.StatusOK, d.show())
		return nil
	})
}

func (s *Service) deleteDeny(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(DeleteDeny)
	if err != nil {
		return err
	}
	var was *deny
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		d, ok, err := store.GetJSON[*deny](tx, denials, id.Key())
		if err != nil || !ok {
			return err
		}
		was = d
		return s.forgetDeny(tx, d)
	})
	if err != nil {
		return err
	}
	if was == nil {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	gate.WriteJSON(w, http.StatusOK, was.show())
	return nil
}

func (s *Service) forgetDeny(tx *store.Tx, d *deny) error {
	tx.After(func() { s.Engine.RemoveDeny(d.ID.String()) })
	return tx.Delete(denials, d.ID.Key())
}

// dropDenials forgets the deny assignments at a resource that is gone, and below it.
func (s *Service) dropDenials(tx *store.Tx, id arm.ID) error {
	gone, err := denialsBelow(tx, id.Key())
	for _, d := range gone {
		if err := s.forgetDeny(tx, d); err != nil {
			return err
		}
	}
	return err
}

// denialsAt are the deny assignments at a scope itself, given by its key.
func denialsAt(tx *store.Tx, scope string) ([]*deny, error) {
	return store.ScanJSON[*deny](tx, denials, scope+"/providers/"+strings.ToLower(denyType)+"/", "", 0)
}

// denialsBelow are the deny assignments at a scope and at all that lies in it.
func denialsBelow(tx *store.Tx, scope string) ([]*deny, error) {
	return store.ScanJSON[*deny](tx, denials, scope+"/", "", 0)
}

// listDenials lists the deny assignments at the scope, above it and, without
// atScope(), below it.
func (s *Service) listDenials(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	scope, err := g.On(ReadDeny)
	if err != nil {
		return err
	}
	clauses, err := parseFilter(r.URL.Query().Get("$filter"), "atScope()", "denyAssignmentName eq", "principalId eq", "assignedTo(id)")
	if err != nil {
		return err
	}
	return s.answerList(w, r, func(tx *store.Tx, add func(any)) error {
		if _, err := s.scope(tx, scope); err != nil {
			return err
		}
		all, err := denialsBelow(tx, "")
		if err != nil {
			return err
		}
		for _, d := range all {
			ok, err := s.lists(tx, d, scope, g.Caller().Tenant, clauses)
			if err != nil {
				return err
			}
			if ok {
				add(d.show())
			}
		}
		return nil
	})
}

// lists reports whether d stands in a list at the scope under all clauses.
func (s *Service) lists(tx *store.Tx, d *deny, scope arm.ID, tenant string, clauses []clause) (bool, error) {
	above := s.within(scope, d.Scope) && (!d.Props.Here || scope.Key() == d.Scope.Key())
	ok := s.Site.TenantOf(d.Scope) == tenant && (above || s.within(d.Scope, scope))
	for _, c := range clauses {
		who := []string{key(c.value)}
		switch key(c.name) {
		case "atscope()":
			ok = ok && above
			continue
		case "denyassignmentname eq":
			ok = ok && strings.EqualFold(d.Props.Name, c.value)
			continue
		case "assignedto(id)":
			groups, err := s.Directory.Groups(tx, tenant, key(c.value))
			if err != nil {
				return false, err
			}
			who = append(who, groups...)
			who = append(who, rbac.Everyone)
		}
		ok = ok && slices.ContainsFunc(d.Props.Principals, func(x denyPrincipal) bool {
			return slices.ContainsFunc(who, func(id string) bool { return strings.EqualFold(id, x.ID) })
		})
	}
	return ok, nil
}
