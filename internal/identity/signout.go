package identity

import (
	"context"
	"net/http"
	"net/url"

	"castellan/internal/gate"
	"castellan/internal/store"
)

// serveLogout asks before it signs out: a link from elsewhere must not do it.
func (s *Service) serveLogout(w http.ResponseWriter, r *http.Request, v gate.Vars) error {
	q := r.URL.Query()
	if err := once(q); err != nil {
		return s.fault(w, r, err)
	}
	f := s.newFlow(w, r, goalLogout, v["tenant"])
	u, _, ok := s.session(r)
	tenant := s.Home()
	if t, _ := s.tenantNamed(v["tenant"]); t != nil {
		tenant = t.ID
	} else if ok {
		tenant = u.Tenant
	}
	if to := q.Get("post_logout_redirect_uri"); to != "" && s.returns(tenant, to) {
		f.Back, f.State = to, q.Get("state")
	}
	if !ok {
		return s.signedOut(w, r, f)
	}
	return s.askLogout(w, r, f, u)
}

// returns reports whether an application of the tenant, or one that is known
// everywhere, may have people sent to uri.
func (s *Service) returns(tenant, uri string) bool {
	apps := find(s.index, func(x *index) (out []*App) {
		for _, a := range x.apps {
			if a.Tenant == tenant {
				out = append(out, a)
			}
		}
		return out
	})
	for _, a := range s.known {
		apps = append(apps, a)
	}
	for _, a := range apps {
		if _, ok := a.takes(uri); ok {
			return true
		}
	}
	return false
}

// serveLogoutForm signs the browser out.
func (s *Service) serveLogoutForm(w http.ResponseWriter, r *http.Request, _ url.Values, f flow, _ *authorization) error {
	u, _, ok := s.session(r)
	if err := s.endSession(w, r); err != nil {
		return s.fault(w, r, err)
	}
	if ok {
		e := signIn{how: "session", grant: "sign-out", said: "signed out"}
		e.about(u)
		if err := s.note(r.Context(), e, nil); err != nil {
			return s.fault(w, r, err)
		}
	}
	return s.signedOut(w, r, f)
}

// signedOut is where somebody is led who is not signed in any more.
func (s *Service) signedOut(w http.ResponseWriter, r *http.Request, f flow) error {
	if f.Back == "" {
		return s.say(w, r, http.StatusOK, "You are signed out", "You can close this page.")
	}
	to, err := url.Parse(f.Back)
	if err != nil {
		return s.fault(w, r, errFlow)
	}
	if f.State != "" {
		q := to.Query()
		q.Set("state", f.State)
		to.RawQuery = q.Encode()
	}
	pageHeaders(w, f.Back, s.style, false)
	w.Header().Set("Location", to.String())
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// endAll ends all that a person has: sessions, codes, refresh tokens and access
// tokens, at all browsers and clients.
func (s *Service) endAll(ctx context.Context, was *User) (out *User, err error) {
	err = s.DB.Do(ctx, func(tx *store.Tx) error {
		u, ok, err := fetch[*User](tx, was.Tenant, "user", was.ID)
		if err != nil {
			return err
		}
		if !ok || u.Epoch != was.Epoch {
			return errFlow
		}
		u.Epoch++
		out = u
		return s.put(tx, u)
	})
	return out, err
}
