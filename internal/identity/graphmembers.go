package identity

import (
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// maxChecked is how many ids one check takes, as at Graph.
const maxChecked = 20

// memberDoors are what somebody is in, asked as functions, and what they own.
func (s *Service) memberDoors() (out []gate.Route) {
	for _, class := range []string{"me", "users/{id}", "groups/{id}", "serviceprincipals/{id}", "directoryobjects/{id}"} {
		a := readMembers
		if class == "me" {
			a = readSelf
		}
		out = append(out,
			s.door(a, "POST "+class+"/checkmembergroups", func(v *visit) (answer, error) { return v.checkMember(false) }),
			s.door(a, "POST "+class+"/checkmemberobjects", func(v *visit) (answer, error) { return v.checkMember(true) }),
			s.door(a, "POST "+class+"/getmembergroups", func(v *visit) (answer, error) { return v.memberIDs(false) }),
			s.door(a, "POST "+class+"/getmemberobjects", func(v *visit) (answer, error) { return v.memberIDs(true) }))
	}
	for class, a := range map[string]arm.Action{"me": readSelf, "users/{id}": readDirectory, "serviceprincipals/{id}": readDirectory} {
		out = append(out, s.collection(a, class+"/ownedobjects", true, (*visit).ownedObjects)...)
	}
	return out
}

// subject is the id of the object that the path names, of any kind.
func (v *visit) subject() (string, error) {
	switch strings.ToLower(v.seg(0)) {
	case "me":
		return v.g.Caller().Object, nil
	case "users":
		u, err := v.user(v.seg(1))
		if err != nil {
			return "", err
		}
		return u.ID, nil
	case "groups":
		g, err := v.group()
		if err != nil {
			return "", err
		}
		return g.ID, nil
	case "serviceprincipals":
		p, err := v.principal()
		if err != nil {
			return "", err
		}
		return p.ID, nil
	}
	if v.s.index.shown(v.tenant, fold(v.seg(1))) == nil {
		return "", missing("directoryObject", v.seg(1))
	}
	return fold(v.seg(1)), nil
}

// memberships are the ids of all groups that an object is in, and with roles
// also of its directory roles.
func (v *visit) memberships(id string, roles bool) []string {
	out := slices.Clone(v.s.index.groupsOf(id))
	if roles {
		out = append(out, v.s.directoryRoles(id)...)
	}
	return append([]string{}, out...)
}

func (v *visit) checkMember(roles bool) (answer, error) {
	var b struct {
		Groups []string `json:"groupIds"`
		IDs    []string `json:"ids"`
	}
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	ask, other, name := b.Groups, b.IDs, "groupIds"
	if roles {
		ask, other, name = b.IDs, b.Groups, "ids"
	}
	if len(ask) == 0 || len(ask) > maxChecked || other != nil {
		return answer{}, arm.Errorf(arm.BadRequest, "%s must have 1 to %d ids, and stand alone.", name, maxChecked)
	}
	id, err := v.subject()
	if err != nil {
		return answer{}, err
	}
	in := v.memberships(id, roles)
	return v.texts(slices.DeleteFunc(in, func(x string) bool {
		return !slices.ContainsFunc(ask, func(y string) bool { return fold(y) == x })
	}))
}

func (v *visit) memberIDs(roles bool) (answer, error) {
	var b struct {
		Security bool `json:"securityEnabledOnly"` // all groups are
	}
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	id, err := v.subject()
	if err != nil {
		return answer{}, err
	}
	return v.texts(v.memberships(id, roles))
}

func (v *visit) texts(list []string) (answer, error) {
	return answer{http.StatusOK, map[string]any{"@odata.context": v.context("Collection(Edm.String)"), "value": list}}, nil
}

func (v *visit) ownedObjects() (answer, error) {
	id, err := v.subject()
	if err != nil {
		return answer{}, err
	}
	return v.list("directoryObjects", v.shownAll(v.s.index.owned(id)))
}
