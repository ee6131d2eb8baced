package blob

import (
	"context"
	"net/http"
	"time"

	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// policy is a stored access policy: what service signatures that name it may do,
// and until when, for as long as it is there.
type policy struct {
	ID          string `json:"id"`
	Start       string `json:"start,omitempty"`
	Expiry      string `json:"expiry,omitempty"`
	Permissions string `json:"permissions,omitempty"`
}

// maxPolicies is how many policies a container has at most.
const maxPolicies = 5

func checkPolicies(ps []policy) error {
	if len(ps) > maxPolicies {
		return fail(http.StatusBadRequest, "InvalidXmlDocument", "There are %d stored access policies; a container has at most %d.", len(ps), maxPolicies)
	}
	seen := map[string]bool{}
	for _, p := range ps {
		if p.ID == "" || len(p.ID) > 64 || seen[p.ID] {
			return fail(http.StatusBadRequest, "InvalidXmlDocument", "A stored access policy has the id %q; ids must be 1 to 64 characters and not twice the same.", p.ID)
		}
		seen[p.ID] = true
		for _, t := range []string{p.Start, p.Expiry} {
			if _, ok := sasTime(t); t != "" && !ok {
				return fail(http.StatusBadRequest, "InvalidXmlNodeValue", "The stored access policy %q has the time %q; it must be as 2026-01-02T15:04:05Z.", p.ID, t)
			}
		}
	}
	return nil
}

// policies are the stored access policies of the container that the Grant, for
// PolicyRead, is about.
func (s *Service) policies(ctx context.Context, g gate.Grant, when Conditions) (ps []policy, info ContainerInfo, err error) {
	p, err := s.target(g, PolicyRead, SharePolicyRead)
	if err != nil {
		return nil, info, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		if err != nil {
			return err
		}
		ps = c.Policies
		d, err := s.loadContainer(tx, p, when, true)
		if err != nil {
			return err
		}
		info, err = containerInfo(d)
		return err
	})
	return ps, info, err
}

// setPolicies replaces the stored access policies of the container that the
// Grant, for PolicyWrite, is about.
func (s *Service) setPolicies(ctx context.Context, g gate.Grant, ps []policy, when Conditions) (info ContainerInfo, err error) {
	p, err := s.target(g, PolicyWrite, SharePolicyWrite)
	if err != nil {
		return info, err
	}
	if err := checkPolicies(ps); err != nil {
		return info, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		if err != nil {
			return err
		}
		d, err := s.loadContainer(tx, p, when, false)
		if err != nil {
			return err
		}
		c.Policies = ps
		s.touch(d)
		if info, err = containerInfo(d); err != nil {
			return err
		}
		if err := store.PutJSON(tx, p.containers(), p.UID+"/"+p.container, c); err != nil {
			return err
		}
		return resource.Save(tx, d)
	})
	return info, err
}

// findPolicy is the container's policy of that id.
func (s *Service) findPolicy(ctx context.Context, p place, id string) (out policy, err error) {
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		if err != nil {
			return unauthentic("the signature names a stored access policy of a container that does not exist")
		}
		for _, x := range c.Policies {
			if x.ID == id {
				out = x
				return nil
			}
		}
		return unauthentic("the signature names a stored access policy that does not exist")
	})
	return out, err
}

// sasTimes are the forms of times in signatures and policies, all in UTC.
var sasTimes = []string{"2006-01-02T15:04:05Z", "2006-01-02T15:04:05.0000000Z", "2006-01-02T15:04Z", "2006-01-02"}

func sasTime(s string) (time.Time, bool) {
	for _, form := range sasTimes {
		if t, err := time.Parse(form, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
