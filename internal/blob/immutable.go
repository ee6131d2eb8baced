package blob

import (
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// guard keeps what a container holds from being changed: for as long as there is
// a legal hold, and for some days from each blob's last change by a policy. A
// locked policy can only be made longer. It lies with the container's row, where
// every write finds it, and beside its resource's properties, to be shown.
type guard struct {
	Holds   []string `json:"holds,omitempty"` // tags of legal holds
	Days    int      `json:"days,omitempty"`  // of the policy; 0 is none
	Locked  bool     `json:"locked,omitempty"`
	Appends bool     `json:"appends,omitempty"` // append blobs may grow
	Longer  int      `json:"longer,omitempty"`  // how often the locked policy was extended
	Etag    string   `json:"etag,omitempty"`
}

// Limits of policies and holds, as Azure's.
const (
	maxGuardDays = 146000
	maxExtends   = 5
	maxHolds     = 10
)

var holdTag = regexp.MustCompile(`^[a-z0-9]{3,23}$`)

func (g *guard) none() bool { return g == nil || len(g.Holds) == 0 && g.Days == 0 }

func (g *guard) policy() bool { return g != nil && g.Days > 0 }

func (g *guard) held() bool { return g != nil && len(g.Holds) > 0 }

func heldByPolicy() error {
	return fail(http.StatusConflict, "BlobImmutableDueToPolicy", "This operation is not permitted as the blob is immutable due to a policy.")
}

// changes says whether b, which may be nil, may be changed or written over. After
// its time it may be deleted, but still not changed.
func (g *guard) changes(b *row, as how) error {
	switch {
	case g.none() || b == nil:
		return nil
	case len(g.Holds) > 0:
		return fail(http.StatusConflict, "BlobImmutableDueToLegalHold", "This operation is not permitted as the blob is immutable due to a legal hold.")
	case as == grows && g.Appends && b.Type == appendBlob:
		return nil
	}
	return heldByPolicy()
}

// deletes says whether b, which may be nil, may be deleted.
func (g *guard) deletes(b *row, now time.Time) error {
	if g.none() || b == nil {
		return nil
	}
	if len(g.Holds) == 0 && !now.Before(b.Modified.AddDate(0, 0, g.Days)) {
		return nil
	}
	return g.changes(b, replaces)
}

// mayGo says whether a container, which must be empty if a policy guards it, may
// be deleted: by whatever way, with its account too.
func (c containerRow) mayGo(tx *store.Tx, name string) error {
	if c.Guard.none() {
		return nil
	}
	if len(c.Guard.Holds) > 0 {
		return fail(http.StatusConflict, "ContainerImmutableDueToLegalHold", "The container %q can't be deleted: it has a legal hold.", name)
	}
	for _, table := range []string{blobTable, pastTable} {
		rows, err := tx.Scan(table, c.UID+"/", "", 1)
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			return fail(http.StatusConflict, "ContainerImmutableDueToPolicy", "The container %q can't be deleted: it has an immutability policy and is not empty.", name)
		}
	}
	return nil
}

// guarded changes the guard of the container that the Grant, for a, is about.
func (s *Service) guarded(ctx context.Context, g gate.Grant, a arm.Action, fn func(was guard) (guard, error)) (out guard, err error) {
	p, err := s.target(g, a)
	if err != nil {
		return out, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		d, err := s.loadContainer(tx, p, Conditions{}, false)
		if err != nil {
			return err
		}
		c, err := findContainer(tx, p)
		if err != nil {
			return err
		}
		if c.Guard == nil {
			c.Guard = &guard{}
		}
		if out, err = fn(*c.Guard); err != nil {
			return err
		}
		out.Etag = newETag()
		c.Guard = &out
		if err := store.PutJSON(tx, containerTable, p.UID+"/"+p.container, c); err != nil {
			return err
		}
		in, err := innerOf(d)
		if err != nil {
			return err
		}
		in.Guard = &out
		if d.Inner, err = json.Marshal(in); err != nil {
			return err
		}
		return resource.Save(tx, d)
	})
	return out, err
}

// holds is the action by POST on a container that sets or clears legal holds.
func (s *Service) holds(a arm.Action, fn func(have, tags []string) []string) func(ctx context.Context, g gate.Grant, _ *resource.Doc, body []byte) (int, any, error) {
	return func(ctx context.Context, g gate.Grant, _ *resource.Doc, body []byte) (int, any, error) {
		var in struct {
			Tags    []string `json:"tags"`
			Has     any      `json:"hasLegalHold" arm:"readonly"`
			Appends bool     `json:"allowProtectedAppendWritesAll" arm:"only=false"`
		}
		if err := arm.Decode(body, &in); err != nil {
			return 0, nil, err
		}
		for i, t := range in.Tags {
			if in.Tags[i] = strings.ToLower(t); !holdTag.MatchString(in.Tags[i]) {
				return 0, nil, arm.Errorf(arm.BadRequest, "tags has %q; a tag must be 3 to 23 letters and digits", t)
			}
		}
		if len(in.Tags) == 0 {
			return 0, nil, arm.Errorf(arm.BadRequest, "tags is empty; it must name the legal holds")
		}
		out, err := s.guarded(ctx, g, a, func(was guard) (guard, error) {
			was.Holds = fn(was.Holds, in.Tags)
			if len(was.Holds) > maxHolds {
				return was, arm.Errorf(arm.BadRequest, "the container would have %d legal holds; at most %d are allowed", len(was.Holds), maxHolds)
			}
			return was, nil
		})
		if err != nil {
			return 0, nil, err
		}
		return http.StatusOK, map[string]any{"hasLegalHold": len(out.Holds) > 0, "tags": append([]string{}, out.Holds...)}, nil
	}
}

func addHolds(have, tags []string) []string {
	out := append(slices.Clone(have), tags...)
	slices.Sort(out)
	return slices.Compact(out)
}

func dropHolds(have, tags []string) []string {
	return slices.DeleteFunc(slices.Clone(have), func(t string) bool { return slices.Contains(tags, t) })
}

// policyRoutes are Resource Manager's doors to containers' policies. They are no
// resources of their own: nothing that deletes what lies below a container may
// take its guard away.
func (s *Service) policyRoutes() []gate.Route {
	const at = " /subscriptions/{sub}/resourceGroups/{group}/providers/Microsoft.Storage/storageAccounts/{account}/blobServices/default/containers/{container}/immutabilityPolicies/default"
	locate := func(r *http.Request, v gate.Vars) (gate.Target, error) {
		if err := resource.Version(r); err != nil {
			return gate.Target{}, err
		}
		id, err := arm.ParseID("/subscriptions/" + v["sub"] + "/resourceGroups/" + v["group"] + "/providers/Microsoft.Storage/storageAccounts/" + v["account"])
		if err != nil {
			return gate.Target{}, err
		}
		if err := CheckContainerName(strings.ToLower(v["container"])); err != nil {
			return gate.Target{}, err
		}
		return gate.Target{ID: ContainerID(id, v["container"])}, nil
	}
	return []gate.Route{
		gate.On(GuardRead, "GET"+at, locate, s.getGuard),
		gate.On(GuardWrite, "PUT"+at, locate, s.putGuard),
		gate.On(GuardDelete, "DELETE"+at, locate, s.deleteGuard),
		gate.On(GuardLock, "POST"+at+"/lock", locate, s.lockGuard),
		gate.On(GuardExtend, "POST"+at+"/extend", locate, s.extendGuard),
	}
}

// showGuard answers with a container's policy.
func (s *Service) showGuard(w http.ResponseWriter, id arm.ID, g guard) {
	w.Header().Set("ETag", g.Etag)
	gate.WriteJSON(w, http.StatusOK, map[string]any{
		"id": id.Child("immutabilityPolicies", "default").String(), "name": "default", "type": "Microsoft.Storage/storageAccounts/blobServices/containers/immutabilityPolicies",
		"etag": g.Etag, "properties": g.properties(),
	})
}

func (g guard) properties() map[string]any {
	state := "Unlocked"
	if g.Locked {
		state = "Locked"
	}
	return map[string]any{"immutabilityPeriodSinceCreationInDays": g.Days, "allowProtectedAppendWrites": g.Appends, "state": state}
}

func noPolicy() error {
	return fail(http.StatusNotFound, "ImmutabilityPolicyNotFound", "The container has no immutability policy.")
}

func (s *Service) getGuard(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	p, err := s.target(g, GuardRead)
	if err != nil {
		return err
	}
	var c containerRow
	if err := s.DB.View(r.Context(), func(tx *store.Tx) (err error) {
		c, err = findContainer(tx, p)
		return err
	}); err != nil {
		return err
	}
	if c.Guard == nil || c.Guard.Days == 0 {
		return noPolicy()
	}
	s.showGuard(w, p.containerID(p.container), *c.Guard)
	return nil
}

// guardBody reads what a client says of a policy.
func guardBody(w http.ResponseWriter, r *http.Request) (days int, appends bool, err error) {
	data, err := resource.ReadBody(w, r)
	if err != nil {
		return 0, false, err
	}
	var in struct {
		ID         any `json:"id" arm:"readonly"`
		Name       any `json:"name" arm:"readonly"`
		Type       any `json:"type" arm:"readonly"`
		Etag       any `json:"etag" arm:"readonly"`
		Properties struct {
			Days    int  `json:"immutabilityPeriodSinceCreationInDays"`
			Appends bool `json:"allowProtectedAppendWrites"`
			All     bool `json:"allowProtectedAppendWritesAll" arm:"only=false"`
			State   any  `json:"state" arm:"readonly"`
		} `json:"properties"`
	}
	if err := arm.Decode(data, &in); err != nil {
		return 0, false, err
	}
	if d := in.Properties.Days; d < 1 || d > maxGuardDays {
		return 0, false, arm.Errorf(arm.BadRequest, "properties.immutabilityPeriodSinceCreationInDays is %d; it must be from 1 to %d", d, maxGuardDays)
	}
	return in.Properties.Days, in.Properties.Appends, nil
}

// expected holds the policy against If-Match, which must be there if strict.
func (g guard) expected(r *http.Request, strict bool) error {
	m := r.Header.Get("If-Match")
	switch {
	case m == "" && !strict:
		return nil
	case m == "":
		return arm.Errorf(arm.BadRequest, "the header If-Match is missing; it must be the policy's etag")
	case g.Days == 0:
		return noPolicy()
	case !sameTag(m, g.Etag):
		return arm.Errorf(arm.PreconditionFailed, "the policy's etag is not %s", m)
	}
	return nil
}

func lockedPolicy() error {
	return fail(http.StatusConflict, "ImmutabilityPolicyLocked", "The container's immutability policy is locked: it can only be extended.")
}

func (s *Service) putGuard(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	days, appends, err := guardBody(w, r)
	if err != nil {
		return err
	}
	return s.answerGuard(w, r, g, GuardWrite, func(was guard) (guard, error) {
		if was.Locked {
			return was, lockedPolicy()
		}
		err := was.expected(r, false)
		was.Days, was.Appends = days, appends
		return was, err
	})
}

func (s *Service) deleteGuard(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	return s.answerGuard(w, r, g, GuardDelete, func(was guard) (guard, error) {
		if was.Locked {
			return was, lockedPolicy()
		}
		err := was.expected(r, true)
		was.Days, was.Appends = 0, false
		return was, err
	})
}

func (s *Service) lockGuard(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	return s.answerGuard(w, r, g, GuardLock, func(was guard) (guard, error) {
		if was.Locked {
			return was, lockedPolicy()
		}
		err := was.expected(r, true)
		was.Locked = true
		return was, err
	})
}

func (s *Service) extendGuard(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	days, _, err := guardBody(w, r)
	if err != nil {
		return err
	}
	return s.answerGuard(w, r, g, GuardExtend, func(was guard) (guard, error) {
		switch {
		case !was.Locked:
			return was, fail(http.StatusConflict, "ImmutabilityPolicyNotLocked", "The container's immutability policy is not locked; it is changed by a PUT.")
		case days <= was.Days:
			return was, arm.Errorf(arm.BadRequest, "properties.immutabilityPeriodSinceCreationInDays is %d; a locked policy of %d days can only be made longer", days, was.Days)
		case was.Longer >= maxExtends:
			return was, fail(http.StatusConflict, "ImmutabilityPolicyExtendsExceeded", "The container's immutability policy was extended %d times; it can't be once more.", was.Longer)
		}
		err := was.expected(r, true)
		was.Days, was.Longer = days, was.Longer+1
		return was, err
	})
}

func (s *Service) answerGuard(w http.ResponseWriter, r *http.Request, g gate.Grant, a arm.Action, fn func(was guard) (guard, error)) error {
	id, err := g.On(a)
	if err != nil {
		return err
	}
	out, err := s.guarded(r.Context(), g, a, fn)
	if err != nil {
		return err
	}
	s.showGuard(w, id, out)
	return nil
}
