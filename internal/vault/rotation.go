package vault

import (
	"context"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/key"
	"castellan/internal/store"
)

// Rotation is a key's rotation policy: when a new version is made, and how long
// versions made by it are valid.
type Rotation struct {
	ID         string             `json:"id,omitempty" arm:"readonly"`
	Actions    []Lifetime         `json:"lifetimeActions"`
	Attributes RotationAttributes `json:"attributes"`
}

// Lifetime is what is done with a key at a moment of its life.
type Lifetime struct {
	Trigger struct {
		AfterCreate  string `json:"timeAfterCreate,omitempty"`  // ISO 8601
		BeforeExpiry string `json:"timeBeforeExpiry,omitempty"` // ISO 8601
	} `json:"trigger"`
	Action struct {
		Type string `json:"type" arm:"only=Rotate|Notify"`
	} `json:"action"`
}

// RotationAttributes say how long versions are valid, and when this was said.
type RotationAttributes struct {
	Expiry  string `json:"expiryTime,omitempty"` // ISO 8601
	Created int64  `json:"created,omitempty" arm:"readonly"`
	Updated int64  `json:"updated,omitempty" arm:"readonly"`
}

var periodForm = regexp.MustCompile(`^P(?:(\d{1,3})Y)?(?:(\d{1,3})M)?(?:(\d{1,4})W)?(?:(\d{1,5})D)?$`)

// period is a time of years, months and days (ISO 8601, section 5.5.2.2).
type period struct{ years, months, days int }

func parsePeriod(field, text string) (p period, err error) {
	m := periodForm.FindStringSubmatch(strings.ToUpper(text))
	if m == nil || len(text) < 3 {
		return p, bad("%s is %q; it must be a period such as P90D, P3M or P2Y", field, text)
	}
	n := make([]int, 5)
	for i := 1; i < 5; i++ {
		n[i], _ = strconv.Atoi(m[i]) // digits or nothing, which is none
	}
	return period{n[1], n[2], 7*n[3] + n[4]}, nil
}

func (p period) after(t time.Time) time.Time  { return t.AddDate(p.years, p.months, p.days) }
func (p period) before(t time.Time) time.Time { return t.AddDate(-p.years, -p.months, -p.days) }

// lengths compare by a year of 365 days and months of 30.
func (p period) length() int { return 365*p.years + 30*p.months + p.days }

// The least days of a rotation policy's periods, as in Azure.
const (
	minExpiry  = 28
	minTrigger = 7
)

// check holds a policy against the rules.
func (x Rotation) check() error {
	expiry := period{}
	if x.Attributes.Expiry != "" {
		var err error
		if expiry, err = parsePeriod("attributes.expiryTime", x.Attributes.Expiry); err != nil {
			return err
		}
		if expiry.length() < minExpiry {
			return bad("attributes.expiryTime is %s; it must be at least P%dD", x.Attributes.Expiry, minExpiry)
		}
	}
	if len(x.Actions) > 2 {
		return bad("lifetimeActions has %d entries; it may have one of each type: Rotate, Notify", len(x.Actions))
	}
	seen := map[string]bool{}
	for _, a := range x.Actions {
		if a.Action.Type == "" || seen[a.Action.Type] {
			return bad("lifetimeActions must have at most one action of each type: Rotate, Notify")
		}
		seen[a.Action.Type] = true
		if err := a.check(expiry); err != nil {
			return err
		}
	}
	return nil
}

func (a Lifetime) check(expiry period) error {
	after, before := a.Trigger.AfterCreate, a.Trigger.BeforeExpiry
	if (after == "") == (before == "") {
		return bad("the trigger of %s must have one of timeAfterCreate and timeBeforeExpiry", a.Action.Type)
	}
	if a.Action.Type == "Notify" && after != "" {
		return bad("the trigger of Notify must have timeBeforeExpiry")
	}
	p, err := parsePeriod("trigger", after+before)
	if err != nil {
		return err
	}
	switch {
	case p.length() < minTrigger:
		return bad("the trigger of %s is %s; it must be at least P%dD", a.Action.Type, after+before, minTrigger)
	case before != "" && a.Action.Type == "Rotate" && expiry.length() == 0:
		return bad("the trigger of Rotate has timeBeforeExpiry, which needs attributes.expiryTime")
	case expiry.length() > 0 && p.length()+minTrigger > expiry.length():
		return bad("the trigger of %s is %s; it must be at least P%dD less than attributes.expiryTime", a.Action.Type, after+before, minTrigger)
	}
	return nil
}

// due reports whether a version, the newest, is to be replaced.
func (x Rotation) due(v versionRow, now time.Time) bool {
	for _, a := range x.Actions {
		if a.Action.Type != "Rotate" {
			continue
		}
		if t := a.Trigger.AfterCreate; t != "" {
			p, err := parsePeriod("", t)
			return err == nil && !now.Before(p.after(v.Attributes.Created))
		}
		p, err := parsePeriod("", a.Trigger.BeforeExpiry)
		return err == nil && v.Attributes.Expires != nil && !now.Before(p.before(*v.Attributes.Expires))
	}
	return false
}

// RotateKey makes a new version of the key that the Grant is for, like its
// newest, valid for as long as the rotation policy says.
func (s *Service) RotateKey(ctx context.Context, g gate.Grant) (out Object, err error) {
	v, name, err := s.of(g, KeyRotate)
	if err != nil {
		return out, err
	}
	var last versionRow
	if err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
		_, last, err = keys.current(tx, v.UID, name, "")
		return err
	}); err != nil {
		return out, err
	}
	bits := 8 * len(last.Key.N)
	if last.Key.Type == key.Oct {
		bits = last.Key.Size
	}
	k, err := key.Generate(last.Key.Type, last.Key.Curve, bits) // slow: not within the transaction
	if err != nil {
		return out, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		if err := s.alive(tx, v); err != nil {
			return err
		}
		have, now, err := keys.current(tx, v.UID, name, "")
		if err != nil {
			return err
		}
		if err := keys.own(have, "rotate"); err != nil {
			return err
		}
		if now.Version != last.Version {
			return arm.Errorf(arm.Conflict, "the key %s got a new version meanwhile", name)
		}
		d := KeyDraft{Ops: last.Key.Ops, Tags: last.Tags}
		if have.Rotation != nil && have.Rotation.Attributes.Expiry != "" {
			p, err := parsePeriod("attributes.expiryTime", have.Rotation.Attributes.Expiry)
			if err != nil {
				return err
			}
			end := p.after(s.Now().UTC().Truncate(time.Second))
			d.Expires = &end
		}
		out, err = s.addKey(tx, v, have, k, d)
		return err
	})
	return out, err
}

// RotationOf is the rotation policy of the key that the Grant is for.
func (s *Service) RotationOf(ctx context.Context, g gate.Grant) (out Rotation, err error) {
	v, name, err := s.of(g, RotationRead)
	if err != nil {
		return out, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		row, _, err := keys.current(tx, v.UID, name, "")
		if row.Rotation != nil {
			out = *row.Rotation
		}
		return err
	})
	return out, err
}

// SetRotation changes the rotation policy of the key that the Grant is for.
func (s *Service) SetRotation(ctx context.Context, g gate.Grant, x Rotation) (Rotation, error) {
	v, name, err := s.of(g, RotationWrite)
	if err != nil {
		return x, err
	}
	if err := x.check(); err != nil {
		return x, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		if err := s.alive(tx, v); err != nil {
			return err
		}
		row, _, err := keys.current(tx, v.UID, name, "")
		if err != nil {
			return err
		}
		if err := keys.own(row, "setrotationpolicy"); err != nil {
			return err
		}
		now := s.Now().Unix()
		x.ID, x.Attributes.Created, x.Attributes.Updated = "", now, now
		if row.Rotation != nil {
			x.Attributes.Created = row.Rotation.Attributes.Created
		}
		row.Rotation = &x
		return store.PutJSON(tx, keys.names, nameKey(v.UID, name), row)
	})
	return x, err
}

func (s *Service) getRotation(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	x, err := s.RotationOf(r.Context(), g)
	return s.showRotation(w, r, x, err)
}

func (s *Service) putRotation(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	var in Rotation
	if err := decode(r, &in); err != nil {
		return err
	}
	x, err := s.SetRotation(r.Context(), g, in)
	return s.showRotation(w, r, x, err)
}

func (s *Service) showRotation(w http.ResponseWriter, r *http.Request, x Rotation, err error) error {
	if err != nil {
		return err
	}
	x.ID = s.base(r) + strings.TrimPrefix(r.URL.Path, "/")
	x.Actions = append([]Lifetime{}, x.Actions...)
	gate.WriteJSON(w, http.StatusOK, x)
	return nil
}
