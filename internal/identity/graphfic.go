package identity

import (
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

func (f Federated) show() map[string]any {
	return map[string]any{"id": f.ID, "name": f.Name, "issuer": f.Issuer, "subject": f.Subject, "audiences": f.Audiences, "description": nullable(f.Description)}
}

// federatedBody is what a client may say of a trust in another issuer.
type federatedBody struct {
	Name        *string   `json:"name"`
	Issuer      *string   `json:"issuer"`
	Subject     *string   `json:"subject"`
	Audiences   *[]string `json:"audiences"`
	Description *string   `json:"description"`
	ID          any       `json:"id" arm:"readonly"`
	Expression  any       `json:"claimsMatchingExpression"`
}

// over is f with what the client said.
func (b federatedBody) over(f Federated) (Federated, error) {
	if b.Expression != nil {
		return f, arm.Errorf(arm.BadRequest, "claimsMatchingExpression is not supported: a subject is compared letter by letter.")
	}
	if b.Name != nil && f.Name != "" && fold(*b.Name) != fold(f.Name) {
		return f, arm.Errorf(arm.BadRequest, "The name of a federated identity credential can't be changed.")
	}
	for _, x := range []struct {
		from *string
		to   *string
	}{{b.Name, &f.Name}, {b.Issuer, &f.Issuer}, {b.Subject, &f.Subject}, {b.Description, &f.Description}} {
		if x.from != nil {
			*x.to = *x.from
		}
	}
	if b.Audiences != nil {
		f.Audiences = *b.Audiences
	}
	return f, nil
}

// federatedDoors are an application's trusts in other issuers. One is named by
// its id, by its name, or as federatedIdentityCredentials(name='...').
func (s *Service) federatedDoors() []gate.Route {
	const list = "applications/{id}/federatedidentitycredentials"
	return []gate.Route{
		s.door(readApps, "GET "+list, func(v *visit) (answer, error) {
			a, err := v.application()
			if err != nil {
				return answer{}, err
			}
			var rows []map[string]any
			for _, f := range a.Federated {
				rows = append(rows, f.show())
			}
			return v.list("federatedIdentityCredentials", rows)
		}),
		s.door(credentialApp, "POST "+list, (*visit).createFederated),
		s.door(readApps, "GET "+list+"/{key}", (*visit).readFederated),
		s.door(credentialApp, "PATCH "+list+"/{key}", (*visit).updateFederated),
		s.door(credentialApp, "DELETE "+list+"/{key}", (*visit).deleteFederated),
		s.door(readApps, "GET applications/{id}/{entity}", (*visit).readFederated),
		s.door(credentialApp, "PATCH applications/{id}/{entity}", (*visit).updateFederated),
		s.door(credentialApp, "DELETE applications/{id}/{entity}", (*visit).deleteFederated),
	}
}

// federatedKey is which trust the path names.
func (v *visit) federatedKey() (string, error) {
	if len(v.path) == 4 {
		return v.seg(3), nil
	}
	rest, ok := cutFold(v.seg(2), "federatedIdentityCredentials(name='")
	name, end := strings.CutSuffix(rest, "')")
	if !ok || !end {
		return "", missing("navigation property", v.seg(2))
	}
	return name, nil
}

func at(list []Federated, key string) int {
	return slices.IndexFunc(list, func(f Federated) bool { return f.ID == fold(key) || fold(f.Name) == fold(key) })
}

func (v *visit) readFederated() (answer, error) {
	key, err := v.federatedKey()
	if err != nil {
		return answer{}, err
	}
	a, err := v.application()
	if err != nil {
		return answer{}, err
	}
	i := at(a.Federated, key)
	if i < 0 {
		return answer{}, missing("federatedIdentityCredential", key)
	}
	return v.one(http.StatusOK, "federatedIdentityCredentials", a.Federated[i].show())
}

func (v *visit) createFederated() (answer, error) {
	var b federatedBody
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	f, err := b.over(Federated{ID: arm.NewUUID(), Created: v.s.Now().UTC()})
	if err != nil {
		return answer{}, err
	}
	if _, err := v.amend(func(_ *store.Tx, a *App) (err error) {
		a.Federated, err = federate(a.Federated, f)
		return err
	}); err != nil {
		return answer{}, err
	}
	return v.one(http.StatusCreated, "federatedIdentityCredentials", f.show())
}

// updateFederated changes a trust; with Prefer: create-if-missing, as Graph has
// it for a name, it makes one.
func (v *visit) updateFederated() (answer, error) {
	key, err := v.federatedKey()
	if err != nil {
		return answer{}, err
	}
	var b federatedBody
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	make := len(v.path) == 3 && strings.EqualFold(v.r.Header.Get("Prefer"), "create-if-missing")
	out := done
	_, err = v.amend(func(_ *store.Tx, a *App) (err error) {
		was := Federated{ID: arm.NewUUID(), Name: key, Created: v.s.Now().UTC()}
		i := at(a.Federated, key)
		switch {
		case i >= 0:
			was = a.Federated[i]
		case !make:
			return missing("federatedIdentityCredential", key)
		}
		f, err := b.over(was)
		if err != nil {
			return err
		}
		if i < 0 {
			out = answer{http.StatusCreated, f.show()}
		}
		a.Federated, err = federate(a.Federated, f)
		return err
	})
	return out, err
}

// deleteFederated ends a trust, and with it every token that it got.
func (v *visit) deleteFederated() (answer, error) {
	key, err := v.federatedKey()
	if err != nil {
		return answer{}, err
	}
	_, err = v.amend(func(_ *store.Tx, a *App) error {
		i := at(a.Federated, key)
		if i < 0 {
			return missing("federatedIdentityCredential", key)
		}
		a.Federated = slices.Delete(slices.Clone(a.Federated), i, i+1)
		return nil
	})
	return done, err
}

// cutFold is strings.CutPrefix without regard to letter case.
func cutFold(s, prefix string) (rest string, ok bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}
