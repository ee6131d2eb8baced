package compliance

import (
	"context"
	"net/http"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/odata"
	"castellan/internal/store"
)

// What scans found lies under the resource's key, the assignment's and the
// rule's reference.
const (
	scannedTable = "policy_scanned"
	scansTable   = "policy_scans" // when the last scan of everything was, under lastScan
	lastScan     = "last"
)

// scanEvery is how often all resources are judged, as in Azure.
const scanEvery = 24 * time.Hour

// scanned is what scans found of one resource by one rule.
type scanned struct {
	Resource arm.ID         `json:"resource"`
	Row      map[string]any `json:"row"` // as the last scan showed it
	Found    []finding      `json:"found"`
}

// finding is a state, from when it was first found until it was last found.
type finding struct {
	State string    `json:"state"`
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
}

// remember keeps what a scan found. What it found before stays for 90 days.
func (s *Service) remember(tx *store.Tx, found []state) error {
	now := s.Now().UTC()
	for i := range found {
		st := &found[i]
		key := st.doc.ID.Key() + "|" + st.ID.Key() + "|" + st.ref
		x, _, err := store.GetJSON[scanned](tx, scannedTable, key)
		if err != nil {
			return err
		}
		x.Resource, x.Row = st.doc.ID, s.show(st, now)
		delete(x.Row, "components")
		if n := len(x.Found); n > 0 && x.Found[n-1].State == st.value {
			x.Found[n-1].To = now
		} else {
			x.Found = append(x.Found, finding{st.value, now, now})
		}
		for len(x.Found) > 1 && x.Found[0].To.Before(now.Add(-keptFor)) {
			x.Found = x.Found[1:]
		}
		if err := store.PutJSON(tx, scannedTable, key, x); err != nil {
			return err
		}
	}
	return nil
}

// scanAll judges all resources if a day has gone by since that was done.
func (s *Service) scanAll(ctx context.Context) error {
	if s.Gate.Ready != nil {
		s.Gate.Ready(ctx, arm.Root)
	}
	now := s.Now().UTC()
	var found []state
	due := false
	err := s.DB.View(ctx, func(tx *store.Tx) error {
		last, _, err := store.GetJSON[time.Time](tx, scansTable, lastScan)
		if due = err == nil && !now.Before(last.Add(scanEvery)) && len(s.bound()) > 0; !due {
			return err
		}
		found, err = s.statesBelow(tx, arm.Root)
		return err
	})
	if err != nil || !due {
		return err
	}
	const batch = 500 // states in one transaction
	for len(found) > batch {
		if err := s.DB.Do(ctx, func(tx *store.Tx) error { return s.remember(tx, found[:batch]) }); err != nil {
			return err
		}
		found = found[batch:]
	}
	return s.DB.Do(ctx, func(tx *store.Tx) error {
		if err := s.remember(tx, found); err != nil {
			return err
		}
		rows, err := tx.Scan(scannedTable, "", "", 0)
		if err != nil {
			return err
		}
		for _, r := range rows { // of what is gone for longer than anybody may ask
			x, ok, err := store.GetJSON[scanned](tx, scannedTable, r.Key)
			if err != nil {
				return err
			}
			if ok && x.Found[len(x.Found)-1].To.Before(now.Add(-keptFor)) {
				if err := tx.Delete(scannedTable, r.Key); err != nil {
					return err
				}
			}
		}
		return store.PutJSON(tx, scansTable, lastScan, now)
	})
}

// bound are the subscriptions of the tenants in which anything is assigned.
func (s *Service) bound() (out []arm.ID) {
	s.force.mu.RLock()
	defer s.force.mu.RUnlock()
	tenants := map[string]bool{}
	for _, list := range s.force.byScope {
		for _, b := range list {
			tenants[b.Tenant] = true
		}
	}
	for t := range tenants {
		for _, sub := range s.Subscriptions(t) {
			out = append(out, arm.MustID("/subscriptions/"+sub))
		}
	}
	return out
}

// scan judges everything below a scope, keeps what it finds, and answers when
// that is done.
func (s *Service) scan(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	scope, err := g.On(triggerScan)
	if err != nil {
		return err
	}
	var found []state
	if err := s.DB.View(r.Context(), func(tx *store.Tx) error {
		found, err = s.statesBelow(tx, scope)
		return err
	}); err != nil {
		return err
	}
	if err := g.Change(r.Context(), s.DB, func(tx *store.Tx) error { return s.remember(tx, found) }); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// holds reports whether a row is of the rules that are asked about.
func (c choice) holds(row map[string]any) bool {
	for name, want := range map[string]string{"policyAssignmentId": c.assignment, "policyDefinitionName": c.definition, "policySetDefinitionName": c.set} {
		if want != "" && !strings.EqualFold(odata.Text(row[name]), want) {
			return false
		}
	}
	return true
}

// past are the rows of what scans found at or below a scope in a query's time,
// the last day unless it says more.
func (s *Service) past(tx *store.Tx, scope arm.ID, q query) ([]map[string]any, error) {
	all, err := store.ScanJSON[scanned](tx, scannedTable, "", "", 0)
	if err != nil {
		return nil, err
	}
	to, from := q.to, q.from
	if to.IsZero() {
		to = s.Now()
	}
	if from.IsZero() {
		from = to.Add(-24 * time.Hour)
	}
	only, scope, err := s.meant(tx, scope)
	if err != nil {
		return nil, err
	}
	var rows []map[string]any
	for _, x := range all {
		if !s.below(x.Resource, scope) || !only.holds(x.Row) {
			continue
		}
		for _, f := range x.Found {
			if f.To.Before(from) || f.From.After(to) {
				continue
			}
			row := map[string]any{}
			for k, v := range x.Row {
				row[k] = v
			}
			row["timestamp"], row["complianceState"], row["isCompliant"] = f.To, f.State, f.State == Compliant || f.State == Exempted
			rows = append(rows, row)
		}
	}
	return rows, nil
}
