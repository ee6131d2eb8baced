package resource

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/gate"
	"castellan/internal/seal"
	"castellan/internal/store"
)

// directory knows user-assigned identities by their ids.
type directory map[string]string

func (d directory) Ensure(_ *store.Tx, of arm.ID, _ string) (string, string, error) {
	return "system of " + of.Name(), "t", nil
}
func (d directory) Drop(*store.Tx, arm.ID) error { return nil }
func (d directory) UserAssigned(_ *store.Tx, id arm.ID) (string, string, bool, error) {
	p, ok := d[id.Key()]
	return p, "client of " + p, ok, nil
}

// TestAnIdentityMadeAnewIsAnother holds that who may change a resource, and may
// not assign the identity that it once had, does not get the one that was made
// since under the same id.
func TestAnIdentityMadeAnewIsAnother(t *testing.T) {
	db, err := store.Open(t.TempDir(), seal.Random())
	if err != nil {
		t.Fatal(err)
	}
	log := audit.New(db, time.Now)
	t.Cleanup(func() { _ = log.Close(); db.Close() })
	const thing, uami = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Storage/things/a", "/subscriptions/s/resourceGroups/private/providers/Microsoft.ManagedIdentity/userAssignedIdentities/u1"
	ids := directory{arm.MustID(uami).Key(): "first"}
	k := &Kind{Type: "Microsoft.Storage/things", Doc: "a thing", Parent: Group, Identity: func(d *Doc) string { return d.Name }}
	s := &Server{DB: db, Gate: gate.New(func(_ arm.Caller, _ arm.Action, on gate.Target) (bool, string) {
		return !strings.Contains(on.ID.Key(), "private"), "test"
	}, log), Now: time.Now, Site: arm.Site{Suffix: "test", Location: "local"}, Identities: ids}
	p := &gate.Plane{Name: "arm", Fold: true, Who: func(*http.Request) (arm.Caller, error) { return arm.Caller{Object: "ann"}, nil }, Refuse: gate.RefuseARM, Routes: s.Routes(k)}
	if err := db.Do(t.Context(), func(tx *store.Tx) error {
		for _, d := range []*Doc{
			{ID: arm.MustID("/subscriptions/s"), Name: "s", Type: Subscription.Type},
			{ID: arm.MustID("/subscriptions/s/resourceGroups/rg"), Name: "rg", Type: Group.Type},
			{ID: arm.MustID(thing), Name: "a", Type: k.Type, Location: "local", Properties: []byte(`{}`), Identity: &Identity{Type: "UserAssigned", Users: map[string]UserAssigned{uami: {"first", "client of first"}}}},
		} {
			if err := Save(tx, d); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	patch := func(body string) int {
		r := httptest.NewRequest("PATCH", thing+"?api-version=2024-01-01", strings.NewReader(body))
		rt, v, _, err := p.Find(r)
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		s.Gate.Serve(p, rt, v, w, r)
		return w.Code
	}
	if got := patch(`{"tags":{"a":"b"}}`); got != 200 {
		t.Errorf("a change that leaves the identity as it is = %d, want 200", got)
	}
	ids[arm.MustID(uami).Key()] = "second"
	for _, body := range []string{`{"tags":{"a":"c"}}`, `{"identity":{"type":"UserAssigned","userAssignedIdentities":{"` + uami + `":{}}}}`} {
		if got := patch(body); got != 403 {
			t.Errorf("%s = %d, want 403", body, got)
		}
	}
	_ = db.View(t.Context(), func(tx *store.Tx) error {
		d, err := Load(tx, arm.MustID(thing))
		if err != nil || d.Identity.Users[uami].Principal != "first" {
			t.Errorf("the thing has %+v, %v", d.Identity, err)
		}
		return nil
	})
}
