package rbac

import (
	"testing"
	"time"

	"castellan/internal/arm"
)

// timed is an engine in which alice is Owner of the workspace for an hour, with
// a clock that the test sets.
func timed(t *testing.T, now *time.Time) *Engine {
	t.Helper()
	e := engineWith(t)
	put(t, e, Assignment{ID: "/a/1", Scope: arm.MustID(ws), RoleID: builtInID(t, "Owner"), Principal: alice, NotBefore: day, NotAfter: day.Add(time.Hour)})
	e.SetClock(func() time.Time { return *now })
	return e
}

// A right begins and ends at its instant, by the decision itself: also what was
// remembered a moment before does not outlive it, and a clock that is set back
// brings back what held then, no more.
func TestTimesAreExact(t *testing.T) {
	now := day
	e := timed(t, &now)
	for _, x := range []struct {
		at   time.Time
		want bool
	}{
		{day.Add(-1), false}, {day, true}, {day.Add(time.Hour - 1), true}, {day.Add(time.Hour), false},
		{day.Add(time.Hour - 1), true}, {day.Add(-1), false}, {day.Add(48 * time.Hour), false}, {day, true},
	} {
		now = x.at
		for range 3 { // the first asks, the others remember
			d := e.Decide(arm.Caller{Object: alice}, wsWrite, arm.MustID(ws))
			if d.Allowed != x.want {
				t.Errorf("at %s: %+v, want %v", x.at, d, x.want)
			}
			if !x.want && d.Reason != becauseUntimely {
				t.Errorf("at %s the reason is %q", x.at, d.Reason)
			}
			if in := e.Inside(arm.Caller{Object: alice}, arm.MustID(sub)); in != x.want {
				t.Errorf("at %s: Inside = %v, want %v", x.at, in, x.want)
			}
		}
	}
}

// Without a clock a bound assignment gives nothing, whichever side is bound.
func TestNoClockNoTimedRight(t *testing.T) {
	e := engineWith(t)
	for i, a := range []Assignment{{NotBefore: day.Add(-time.Hour)}, {NotAfter: time.Now().Add(time.Hour)}} {
		a.ID, a.Scope, a.RoleID, a.Principal = "/a/1", arm.MustID(ws), builtInID(t, "Owner"), alice
		put(t, e, a)
		if d := e.Decide(arm.Caller{Object: alice}, wsWrite, arm.MustID(ws)); d.Allowed {
			t.Errorf("assignment %d counts with no clock: %+v", i, d)
		}
	}
}

// What was got by being in a group is gone with the membership, and no other
// group serves instead.
func TestViaAGroup(t *testing.T) {
	e := engineWith(t)
	put(t, e, Assignment{ID: "/a/1", Scope: arm.MustID(ws), RoleID: builtInID(t, "Owner"), Principal: alice, Via: team})
	for _, x := range []struct {
		groups []string
		want   bool
	}{{nil, false}, {[]string{team}, true}, {[]string{bob}, false}, {[]string{bob, team}, true}, {nil, false}} {
		if d := e.Decide(arm.Caller{Object: alice, Groups: x.groups}, wsWrite, arm.MustID(ws)); d.Allowed != x.want {
			t.Errorf("in %q: %+v, want %v", x.groups, d, x.want)
		}
	}
	if d := e.Decide(arm.Caller{Object: bob, Groups: []string{team}}, wsWrite, arm.MustID(ws)); d.Allowed {
		t.Error("another member of the group has what one member got")
	}
}
