package vault

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Decide answers for vaults whose access policies decide about their content.
// handled is false for all else, which roles decide: the gate's decider asks
// here first and roles only then.
func (s *Service) Decide(c arm.Caller, a arm.Action, id arm.ID) (handled, allowed bool, reason string) {
	if !a.Data() || !strings.HasPrefix(a.Key(), vaultType+"/") {
		return false, false, ""
	}
	v := s.byID(id)
	if v == nil || v.Props.rbac() {
		return false, false, ""
	}
	for _, p := range v.Props.Policies {
		if p.isFor(c) && p.Permissions.allow(a, id, v) {
			return true, true, "an access policy of vault " + v.ID.Name() + " for " + p.Object
		}
	}
	return true, false, "no access policy of vault " + v.ID.Name() + " allows it; roles do not count there"
}

// isFor reports whether c is whom the policy names. A policy that names an
// application too is for a person who comes by that application.
func (p AccessPolicy) isFor(c arm.Caller) bool {
	if c.Object == "" || p.App != "" && !strings.EqualFold(p.App, c.App) {
		return false
	}
	if strings.EqualFold(p.Object, c.Object) {
		return true
	}
	return slices.ContainsFunc(c.Groups, func(g string) bool { return strings.EqualFold(p.Object, g) })
}

// allow reports whether the permissions cover a on id. Who may get one secret
// may also see what it is, but not which versions it has: see versions.
func (p Permissions) allow(a arm.Action, id arm.ID, v *live) bool {
	want := permits[a.Key()]
	if id.Key() != v.ID.Key() {
		switch a.Key() {
		case SecretMetadata.Key():
			want = []string{"list", "get"}
		case KeyRead.Key(), CertificateRead.Key():
			want = []string{"get"}
		case IssuerRead.Key():
			want = []string{"getissuers", "manageissuers"}
		}
	}
	if len(want) == 0 {
		return false
	}
	has := p.Secrets
	switch {
	case strings.HasPrefix(a.Key(), vaultType+"/key"):
		has = p.Keys
	case strings.HasPrefix(a.Key(), vaultType+"/certificate"):
		has = p.Certificates
	}
	for _, h := range has {
		h = strings.ToLower(h)
		if slices.Contains(want, h) || h == "all" && !slices.Contains(want, "purge") {
			return true
		}
	}
	return false
}

// UpdatePolicies changes the vault's access policies: add gives permissions
// besides those that are, replace instead of them, remove takes them away. The
// answer is the policies as they are then.
func (s *Service) UpdatePolicies(ctx context.Context, g gate.Grant, op string, sent []AccessPolicy) (out []AccessPolicy, err error) {
	v, err := s.target(g, PolicyWrite)
	if err != nil {
		return nil, err
	}
	if err := validatePolicies(s.Site.TenantOf(v.ID), sent); err != nil {
		return nil, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		d, err := resource.Load(tx, v.ID)
		if err != nil {
			return err
		}
		if d == nil {
			return noVault(v.ID.Name())
		}
		p, err := propsOf(d)
		if err != nil {
			return err
		}
		if p.Policies, err = combine(op, p.Policies, sent); err != nil {
			return err
		}
		if err := validatePolicies(s.Site.TenantOf(v.ID), p.Policies); err != nil {
			return err
		}
		out = p.Policies
		if err := p.keep(d); err != nil {
			return err
		}
		d.Etag = `"` + arm.NewHex() + `"`
		if s.Judge != nil {
			if err := s.Judge(tx, d, g.Caller()); err != nil {
				return err
			}
			if p, err = propsOf(d); err != nil { // policies may have changed it
				return err
			}
		}
		tx.After(func() { s.know(&live{v.ID, v.UID, p}) })
		return resource.Save(tx, d)
	})
	return out, err
}

func combine(op string, have, sent []AccessPolicy) ([]AccessPolicy, error) {
	out := slices.Clone(have)
	for _, p := range sent {
		i := slices.IndexFunc(out, func(x AccessPolicy) bool { return x.who() == p.who() })
		switch strings.ToLower(op) {
		case "add":
			if i < 0 {
				out = append(out, p)
			} else {
				out[i].Permissions = out[i].Permissions.plus(p.Permissions)
			}
		case "replace":
			if i < 0 {
				out = append(out, p)
			} else {
				out[i] = p
			}
		case "remove":
			if i < 0 {
				continue
			}
			if out[i].Permissions = out[i].Permissions.minus(p.Permissions); out[i].Permissions.empty() {
				out = slices.Delete(out, i, i+1)
			}
		default:
			return nil, arm.Errorf(arm.BadRequest, "the operation on access policies is %q; it must be add, replace or remove", op)
		}
	}
	return out, nil
}

func (p Permissions) each(q Permissions, f func(a, b []string) []string) Permissions {
	return Permissions{f(p.Keys, q.Keys), f(p.Secrets, q.Secrets), f(p.Certificates, q.Certificates), f(p.Storage, q.Storage)}
}

func (p Permissions) plus(q Permissions) Permissions {
	return p.each(q, func(a, b []string) []string {
		out := slices.Clone(a)
		for _, x := range b {
			if !hasFold(out, x) {
				out = append(out, x)
			}
		}
		return out
	})
}

func (p Permissions) minus(q Permissions) Permissions {
	return p.each(q, func(a, b []string) []string {
		return slices.DeleteFunc(slices.Clone(a), func(x string) bool { return hasFold(b, x) })
	})
}

func (p Permissions) empty() bool {
	return len(p.Keys)+len(p.Secrets)+len(p.Certificates)+len(p.Storage) == 0
}

func hasFold(list []string, x string) bool {
	return slices.ContainsFunc(list, func(y string) bool { return strings.EqualFold(x, y) })
}

// putPolicies is UpdatePolicies for a request.
func (s *Service) putPolicies(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	var in struct {
		ID         string `json:"id" arm:"readonly"`
		Name       string `json:"name" arm:"readonly"`
		Type       string `json:"type" arm:"readonly"`
		Location   string `json:"location" arm:"readonly"`
		Properties struct {
			Policies []AccessPolicy `json:"accessPolicies"`
		} `json:"properties"`
	}
	data, err := resource.ReadBody(w, r)
	if err != nil {
		return err
	}
	if err := arm.Decode(data, &in); err != nil {
		return err
	}
	policies, err := s.UpdatePolicies(r.Context(), g, g.Item(), in.Properties.Policies)
	if err != nil {
		return err
	}
	id, err := g.On(PolicyWrite)
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{
		"id": id.String() + "/accessPolicies/", "type": "Microsoft.KeyVault/vaults/accessPolicies",
		"properties": map[string]any{"accessPolicies": policies},
	})
	return nil
}
