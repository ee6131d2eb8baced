package ops

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/seal"
	"castellan/internal/store"
)

var id = arm.MustID("/subscriptions/s/resourceGroups/g/providers/Test.Things/things/one")

// world keeps one thing whose operation is open, as a PUT would have left it.
func world(t *testing.T, dir string, apply func(context.Context, *resource.Doc) error) (*resource.Server, *Runner) {
	t.Helper()
	key, err := seal.NewKey(make([]byte, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s := &resource.Server{DB: db, Now: time.Now}
	s.Routes(&resource.Kind{Type: "Test.Things/things", Parent: resource.Group, Apply: apply})
	return s, &Runner{Server: s}
}

func begin(t *testing.T, s *resource.Server) {
	t.Helper()
	err := s.DB.Do(t.Context(), func(tx *store.Tx) error {
		d := &resource.Doc{ID: id, Name: "one", Type: "Test.Things/things", Instance: "i", Etag: "e", Properties: []byte(`{"provisioningState":"Creating"}`)}
		op := resource.Operation{ID: "op", Resource: id, Instance: "i", Etag: "e", Status: resource.InProgress}
		return errors.Join(resource.Save(tx, d), resource.Keep(tx, op))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func state(t *testing.T, s *resource.Server) (out string) {
	t.Helper()
	if err := s.DB.View(t.Context(), func(tx *store.Tx) error {
		d, err := resource.Load(tx, id)
		out = resource.StateOf(d)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// runUntil runs the runner until the resource has one of the end states.
func runUntil(t *testing.T, s *resource.Server, r *Runner) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for ctx.Err() == nil {
		if got := state(t, s); got == resource.Succeeded || got == resource.Failed {
			return got
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return state(t, s)
}

// What fails for a passing reason is tried again; what is wrong for good ends
// as Failed at once.
func TestApplyAgainUntilItHolds(t *testing.T) {
	var tries atomic.Int32
	s, r := world(t, t.TempDir(), func(context.Context, *resource.Doc) error {
		if tries.Add(1) < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	begin(t, s)
	if got := runUntil(t, s, r); got != resource.Succeeded || tries.Load() != 3 {
		t.Errorf("state %s after %d tries, want Succeeded after 3", got, tries.Load())
	}
	tries.Store(0)
	s, r = world(t, t.TempDir(), func(context.Context, *resource.Doc) error {
		tries.Add(1)
		return arm.Errorf(arm.Conflict, "never")
	})
	begin(t, s)
	if got := runUntil(t, s, r); got != resource.Failed || tries.Load() != 1 {
		t.Errorf("state %s after %d tries, want Failed after 1", got, tries.Load())
	}
}

// An operation that was open when the process ended is applied by the next one.
func TestResumedAfterRestart(t *testing.T) {
	dir := t.TempDir()
	s, _ := world(t, dir, func(context.Context, *resource.Doc) error { return nil })
	begin(t, s)
	s.DB.Close()
	s, r := world(t, dir, func(context.Context, *resource.Doc) error { return nil })
	if got := runUntil(t, s, r); got != resource.Succeeded {
		t.Errorf("state %s, want Succeeded", got)
	}
}

// A resource that was replaced while its operation was open is not touched by it.
func TestOldOperationLeavesNewResourceAlone(t *testing.T) {
	applied := atomic.Bool{}
	s, r := world(t, t.TempDir(), func(context.Context, *resource.Doc) error { applied.Store(true); return nil })
	begin(t, s)
	if err := s.DB.Do(t.Context(), func(tx *store.Tx) error {
		d, err := resource.Load(tx, id)
		if err != nil {
			return err
		}
		d.Instance = "another"
		return resource.Save(tx, d)
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	for open := 1; open > 0; {
		if err := s.DB.View(t.Context(), func(tx *store.Tx) error {
			ops, err := resource.Open(tx)
			open = len(ops)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-done; err != nil || applied.Load() || state(t, s) != "Creating" {
		t.Errorf("err %v, applied %v, state %s", err, applied.Load(), state(t, s))
	}
}

// Wake never waits, however often it is called.
func TestWakeDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Runner{}
		for range 10 {
			r.Wake()
		}
	})
}
