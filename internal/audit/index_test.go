package audit

import (
	"fmt"
	"testing"
	"time"

	"castellan/internal/seal"
	"castellan/internal/store"
)

// Changes come newest first, each once over all pages, of the one subscription
// and time only; reads, data actions and what other planes wrote are not there.
func TestChanges(t *testing.T) {
	db, err := store.Open(t.TempDir(), seal.Random())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, now := t.Context(), time.Unix(1_800_000_000, 0)
	l := New(db, func() time.Time { now = now.Add(time.Second); return now })
	defer l.Close()
	begin := now
	for i := range 40 {
		sub := fmt.Sprint("/subscriptions/s", i%2)
		for _, e := range []Entry{
			{Action: "x/y/write", Plane: "arm", Target: sub + "/resourceGroups/g"},
			{Action: "x/y/read", Plane: "arm", Target: sub},
			{Action: "x/y/write", Plane: "arm", Data: true, Target: sub},
			{Action: "x/y/write", Plane: "ml", Target: sub},
			{Action: "x/y/write", Plane: "arm", Target: "/"},
		} {
			e.Correlation, e.Decision = fmt.Sprint(e.Action, i, e.Plane), "allowed"
			if err := l.Record(ctx, e); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got []Entry
	pages := 0
	for after := ""; ; pages++ {
		page, next, err := l.Changes(ctx, "S1", begin, now, after, 3)
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, page...); next == "" {
			break
		}
		after = next
	}
	if len(got) != 20 || pages != 6 {
		t.Errorf("%d changes on %d pages, want 20 on 6 full ones and a last", len(got), pages)
	}
	for i, e := range got {
		if e.Action != "x/y/write" || e.Data || e.Plane != "arm" || e.Target != "/subscriptions/s1/resourceGroups/g" {
			t.Errorf("there is %+v", e)
		}
		if i > 0 && !e.Time.Before(got[i-1].Time) {
			t.Errorf("entry %d does not come before entry %d", e.Seq, got[i-1].Seq)
		}
	}
	part, _, err := l.Changes(ctx, "s1", got[9].Time, got[5].Time, "", 100)
	if err != nil || len(part) != 5 || part[0].Seq != got[5].Seq || part[4].Seq != got[9].Seq {
		t.Errorf("from the 9th to the 5th are %d, %v", len(part), err)
	}
	if e, ok, err := l.Find(ctx, got[3].Correlation); err != nil || !ok || e.Seq != got[3].Seq {
		t.Errorf("Find(%s) = %v, %v, %v", got[3].Correlation, e, ok, err)
	}
	if _, ok, err := l.Find(ctx, "x/y/read1arm"); ok || err != nil {
		t.Errorf("a read that was allowed is found: %v, %v", ok, err)
	}
	if n, err := l.Verify(ctx); n != 200 || err != nil {
		t.Errorf("Verify = %d, %v", n, err)
	}
}
