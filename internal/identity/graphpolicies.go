package identity

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// LifetimePolicy makes access tokens live shorter than they would
// (a tokenLifetimePolicy): those for the applications that it is given to, or
// all of the tenant's if Default is set.
type LifetimePolicy struct {
	ID, Name string
	Life     time.Duration
	Default  bool
}

// maxPolicies is how many a tenant has at most.
const maxPolicies = 50

// lifeOf is how long an access token for an API lives.
func (s *Service) lifeOf(tenant string, to api) time.Duration {
	t := s.index.tenantOf(tenant)
	if t == nil || len(t.Lifetimes) == 0 {
		return lifetime()
	}
	chosen := ""
	if p := s.index.spOf(tenant, to.app); p != nil {
		chosen = p.Lifetime
	}
	if a := s.index.client(to.app); a != nil && a.Lifetime != "" {
		chosen = a.Lifetime
	}
	best := lifetime()
	for _, l := range t.Lifetimes {
		if l.ID == chosen || chosen == "" && l.Default {
			best = l.Life
		}
	}
	return best
}

func (l LifetimePolicy) show() map[string]any {
	text, _ := json.Marshal(map[string]any{"TokenLifetimePolicy": map[string]any{"Version": 1, "AccessTokenLifetime": time.Time{}.Add(l.Life).Format("15:04:05")}})
	return map[string]any{"id": l.ID, "displayName": l.Name, "isOrganizationDefault": l.Default, "definition": []string{string(text)}}
}

// lifetimeBody is what a client may say of a policy.
type lifetimeBody struct {
	Name       *string   `json:"displayName"`
	Definition *[]string `json:"definition"`
	Default    *bool     `json:"isOrganizationDefault"`
	ID         any       `json:"id" arm:"readonly"`
}

// over is l with what the client said.
func (b lifetimeBody) over(l LifetimePolicy) (LifetimePolicy, error) {
	if b.Name != nil {
		if err := checkName(*b.Name); err != nil {
			return l, err
		}
		l.Name = *b.Name
	}
	if b.Default != nil {
		l.Default = *b.Default
	}
	if b.Definition == nil {
		return l, nil
	}
	var d struct {
		Policy struct {
			Version int    `json:"Version"`
			Life    string `json:"AccessTokenLifetime"`
		} `json:"TokenLifetimePolicy"`
	}
	if len(*b.Definition) != 1 {
		return l, arm.Errorf(arm.BadRequest, "definition must have exactly one value.")
	}
	if err := arm.Decode([]byte((*b.Definition)[0]), &d); err != nil {
		return l, err
	}
	at, err := time.Parse("15:04:05", d.Policy.Life)
	if err != nil {
		return l, arm.Errorf(arm.BadRequest, "AccessTokenLifetime is %s; it must be written as hh:mm:ss.", printable(d.Policy.Life))
	}
	l.Life = at.Sub(time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC))
	if d.Policy.Version != 1 || l.Life < 10*time.Minute || l.Life > shortest+spread {
		return l, arm.Errorf(arm.BadRequest, "AccessTokenLifetime is %s; it must be from 00:10:00 to 01:30:00, in Version 1.", d.Policy.Life)
	}
	return l, nil
}

// policyDoors are the tenant's settings for tokens. passwordGrantPolicy is our
// own: Entra has no switch for that grant.
func (s *Service) policyDoors() []gate.Route {
	const list = "policies/tokenlifetimepolicies"
	out := []gate.Route{
		s.door(readDirectory, "GET policies/passwordgrantpolicy", func(v *visit) (answer, error) {
			p, err := s.GetPasswordGrant(v.r.Context(), v.g)
			return answer{http.StatusOK, map[string]any{"id": "passwordGrantPolicy", "isEnabled": p.Enabled, "allowedClients": p.Clients}}, err
		}),
		s.door(updatePolicy, "PATCH policies/passwordgrantpolicy", (*visit).updatePasswordGrant),
		s.door(readDirectory, "GET "+list, func(v *visit) (answer, error) {
			return v.list("policies/tokenLifetimePolicies", v.lifetimes(func(LifetimePolicy) bool { return true }))
		}),
		s.door(updatePolicy, "POST "+list, func(v *visit) (answer, error) { return v.putLifetime("") }),
		s.door(readDirectory, "GET "+list+"/{id}", func(v *visit) (answer, error) {
			rows := v.lifetimes(func(l LifetimePolicy) bool { return l.ID == fold(v.seg(2)) })
			if len(rows) == 0 {
				return answer{}, missing("tokenLifetimePolicy", v.seg(2))
			}
			return v.one(http.StatusOK, "policies/tokenLifetimePolicies", rows[0])
		}),
		s.door(updatePolicy, "PATCH "+list+"/{id}", func(v *visit) (answer, error) { return v.putLifetime(fold(v.seg(2))) }),
		s.door(updatePolicy, "DELETE "+list+"/{id}", (*visit).deleteLifetime),
	}
	for _, class := range []string{"applications", "serviceprincipals"} {
		out = append(out,
			s.door(readDirectory, "GET "+class+"/{id}/tokenlifetimepolicies", func(v *visit) (answer, error) {
				id, err := v.lifetimeOf()
				if err != nil {
					return answer{}, err
				}
				return v.list("policies/tokenLifetimePolicies", v.lifetimes(func(l LifetimePolicy) bool { return l.ID == id }))
			}),
			s.door(updatePolicy, "POST "+class+"/{id}/tokenlifetimepolicies/$ref", (*visit).addLifetime),
			s.door(updatePolicy, "DELETE "+class+"/{id}/tokenlifetimepolicies/{key}/$ref", func(v *visit) (answer, error) { return done, v.setLifetime("", fold(v.seg(3))) }))
	}
	return out
}

func (v *visit) updatePasswordGrant() (answer, error) {
	var b struct {
		Enabled *bool     `json:"isEnabled"`
		Clients *[]string `json:"allowedClients"`
	}
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	p, err := v.s.GetPasswordGrant(v.r.Context(), v.g)
	if err != nil {
		return answer{}, err
	}
	if b.Enabled != nil {
		p.Enabled = *b.Enabled
	}
	if b.Clients != nil {
		p.Clients = *b.Clients
	}
	_, err = v.s.SetPasswordGrant(v.r.Context(), v.g, p)
	return done, err
}

func (v *visit) lifetimes(is func(LifetimePolicy) bool) (out []map[string]any) {
	t := v.s.index.tenantOf(v.tenant)
	if t == nil {
		return nil
	}
	for _, l := range t.Lifetimes {
		if is(l) {
			out = append(out, l.show())
		}
	}
	return out
}

// putLifetime makes a policy, or changes the one with this id.
func (v *visit) putLifetime(id string) (answer, error) {
	var b lifetimeBody
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	var l LifetimePolicy
	err := v.change(func(tx *store.Tx) error {
		t, ok, err := store.GetJSON[*Tenant](tx, tenantTable, v.tenant)
		if err != nil || !ok {
			return cmpErr(err, missing("tenant", v.tenant))
		}
		at := slices.IndexFunc(t.Lifetimes, func(x LifetimePolicy) bool { return x.ID == id })
		switch {
		case id == "" && (b.Name == nil || b.Definition == nil):
			return arm.Errorf(arm.BadRequest, "A policy needs a displayName and a definition.")
		case id == "" && len(t.Lifetimes) >= maxPolicies:
			return arm.Errorf(arm.BadRequest, "There are %d policies already, and no more can be.", maxPolicies)
		case id != "" && at < 0:
			return missing("tokenLifetimePolicy", id)
		case id == "":
			l = LifetimePolicy{ID: arm.NewUUID()}
		default:
			l = t.Lifetimes[at]
		}
		if l, err = b.over(l); err != nil {
			return err
		}
		return v.s.amendTenant(tx, v.tenant, func(t *Tenant) {
			if l.Default {
				for i := range t.Lifetimes {
					t.Lifetimes[i].Default = false
				}
			}
			if at < 0 {
				t.Lifetimes = append(t.Lifetimes, l)
				return
			}
			t.Lifetimes[at] = l
		})
	})
	if err != nil || id != "" {
		return done, err
	}
	return v.one(http.StatusCreated, "policies/tokenLifetimePolicies", l.show())
}

func (v *visit) deleteLifetime() (answer, error) {
	if len(v.lifetimes(func(l LifetimePolicy) bool { return l.ID == fold(v.seg(2)) })) == 0 {
		return answer{}, missing("tokenLifetimePolicy", v.seg(2))
	}
	return done, v.change(func(tx *store.Tx) error {
		return v.s.amendTenant(tx, v.tenant, func(t *Tenant) {
			t.Lifetimes = slices.DeleteFunc(t.Lifetimes, func(l LifetimePolicy) bool { return l.ID == fold(v.seg(2)) })
		})
	})
}

// lifetimeOf is the policy that the object of the path was given.
func (v *visit) lifetimeOf() (string, error) {
	if strings.EqualFold(v.seg(0), "servicePrincipals") {
		p, err := v.principal()
		if err != nil {
			return "", err
		}
		return p.Lifetime, nil
	}
	a, err := v.application()
	if err != nil {
		return "", err
	}
	return a.Lifetime, nil
}

// addLifetime gives the object of the path a policy, named by its URL.
func (v *visit) addLifetime() (answer, error) {
	var b struct {
		ID string `json:"@odata.id"`
	}
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	id := fold(b.ID[strings.LastIndexByte(b.ID, '/')+1:])
	if len(v.lifetimes(func(l LifetimePolicy) bool { return l.ID == id })) == 0 {
		return answer{}, arm.Errorf(arm.BadRequest, "@odata.id must be the URL of a tokenLifetimePolicy of the tenant.")
	}
	return done, v.setLifetime(id, "")
}

// setLifetime gives the object of the path another policy, if it has was (any
// if was is empty).
func (v *visit) setLifetime(id, was string) error {
	had, err := v.lifetimeOf()
	if err != nil {
		return err
	}
	if was != "" && had != was {
		return missing("tokenLifetimePolicy", was)
	}
	if !strings.EqualFold(v.seg(0), "servicePrincipals") {
		_, err := v.amend(func(_ *store.Tx, a *App) error {
			a.Lifetime = id
			return nil
		})
		return err
	}
	return v.change(func(tx *store.Tx) error {
		p, ok, err := fetch[*Principal](tx, v.tenant, "sp", fold(v.seg(1)))
		if err != nil || !ok {
			return cmpErr(err, missing("servicePrincipal", v.seg(1)))
		}
		p.Lifetime = id
		return v.s.put(tx, p)
	})
}
