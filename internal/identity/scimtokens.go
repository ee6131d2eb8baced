package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// scimTable has the tokens by the hash of their text: it is random and long, so
// that a plain hash tells nothing about it.
const scimTable = "scim_tokens"

const (
	maxSCIMLife   = 365 * 24 * time.Hour
	scimLife      = 180 * 24 * time.Hour // where nothing is said
	maxSCIMTokens = 20                   // of a tenant
	scimPrefix    = "castellan-scim-"    // by which scanners find it where it should not be
)

// scimToken is what an outside system shows to provision people and groups.
type scimToken struct {
	ID, Tenant, Name, Hint string
	By                     string // object id of who made it
	Start, End             time.Time
}

func scimKey(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// scimCaller is who shows a SCIM token. It is read anew for each request, so
// that one that is gone is gone at once.
func (s *Service) scimCaller(r *http.Request) (arm.Caller, error) {
	raw, err := token(r)
	if err != nil {
		return arm.Caller{}, err
	}
	var t scimToken
	ok := false
	err = s.DB.View(r.Context(), func(tx *store.Tx) (err error) {
		t, ok, err = store.GetJSON[scimToken](tx, scimTable, scimKey(raw))
		return err
	})
	if err != nil {
		return arm.Caller{}, err
	}
	if !ok || !strings.HasPrefix(raw, scimPrefix) || !s.Now().Before(t.End) {
		return arm.Caller{}, arm.Errorf(arm.Unauthenticated, "The SCIM token is not known, has expired or was revoked.")
	}
	return arm.Caller{
		Tenant: t.Tenant, Object: "scim:" + t.ID, Name: t.Name, Kind: arm.ServicePrincipal, Token: "scim",
		Lease: &arm.Lease{Scope: tenantID(t.Tenant), Actions: scimActions, Why: "the SCIM token " + t.ID},
	}, nil
}

// scimTokenDoors are for those who say whose people are believed to be ours.
func (s *Service) scimTokenDoors() []gate.Route {
	const at = "identity/scimtokens"
	return []gate.Route{
		s.door(readProvider, "GET "+at, (*visit).listSCIMTokens),
		s.door(createProvider, "POST "+at, (*visit).createSCIMToken),
		s.door(deleteProvider, "DELETE "+at+"/{id}", (*visit).deleteSCIMToken),
	}
}

func (v *visit) showSCIMToken(t scimToken, text string) map[string]any {
	return map[string]any{
		"id": t.ID, "displayName": t.Name, "hint": t.Hint, "startDateTime": stamp(t.Start), "endDateTime": stamp(t.End), "createdBy": t.By,
		"secretText": nullable(text), "baseUrl": v.s.scimBase(v.tenant),
	}
}

// scimTokens are the tenant's, by their keys.
func (v *visit) scimTokens(tx *store.Tx) (map[string]scimToken, error) {
	rows, err := tx.Scan(scimTable, "", "", 0)
	if err != nil {
		return nil, err
	}
	out := map[string]scimToken{}
	for _, r := range rows {
		t, ok, err := store.GetJSON[scimToken](tx, scimTable, r.Key)
		if err != nil {
			return nil, err
		}
		if ok && t.Tenant == v.tenant {
			out[r.Key] = t
		}
	}
	return out, nil
}

func (v *visit) listSCIMTokens() (answer, error) {
	var rows []map[string]any
	err := v.s.DB.View(v.r.Context(), func(tx *store.Tx) error {
		all, err := v.scimTokens(tx)
		for _, t := range all {
			rows = append(rows, v.showSCIMToken(t, ""))
		}
		return err
	})
	if err != nil {
		return answer{}, err
	}
	return v.list("identity/scimTokens", rows)
}

func (v *visit) createSCIMToken() (answer, error) {
	var b struct {
		Name *string    `json:"displayName"`
		End  *time.Time `json:"endDateTime"`
	}
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	if b.Name == nil {
		return answer{}, arm.Errorf(arm.BadRequest, "A SCIM token needs a displayName, such as the system's that will show it.")
	}
	if err := checkName(*b.Name); err != nil {
		return answer{}, err
	}
	now := v.s.Now().UTC()
	text := scimPrefix + newSecret()
	t := scimToken{ID: arm.NewUUID(), Tenant: v.tenant, Name: *b.Name, Hint: text[len(scimPrefix):][:3], By: v.g.Caller().Object, Start: now, End: now.Add(scimLife)}
	if b.End != nil {
		t.End = b.End.UTC()
	}
	if !t.End.After(now) || t.End.Sub(now) > maxSCIMLife {
		return answer{}, arm.Errorf(arm.BadRequest, "The endDateTime is %s; it must be in the future, and at most 365 days from now.", stamp(t.End))
	}
	err := v.change(func(tx *store.Tx) error {
		all, err := v.scimTokens(tx)
		if err != nil {
			return err
		}
		if len(all) >= maxSCIMTokens {
			return arm.Errorf(arm.BadRequest, "There are %d SCIM tokens; a tenant has at most %d. Delete one first.", len(all), maxSCIMTokens)
		}
		return store.PutJSON(tx, scimTable, scimKey(text), t)
	})
	if err != nil {
		return answer{}, err
	}
	return v.one(http.StatusCreated, "identity/scimTokens", v.showSCIMToken(t, text))
}

func (v *visit) deleteSCIMToken() (answer, error) {
	return done, v.change(func(tx *store.Tx) error {
		all, err := v.scimTokens(tx)
		if err != nil {
			return err
		}
		for key, t := range all {
			if t.ID == fold(v.seg(2)) {
				return tx.Delete(scimTable, key)
			}
		}
		return missing("scimToken", v.seg(2))
	})
}
