package trial

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Write is a write that a server recorded.
type Write struct {
	Time        time.Time `json:"time"`
	Caller      string    `json:"caller"`
	Action      string    `json:"action"`
	Resource    string    `json:"resource"`
	Correlation string    `json:"correlationId"`
}

// Recorded is what a policy would have said of a write, and by what it was judged.
type Recorded struct {
	Write
	JudgedBy string    `json:"judgedBy"` // ByType, ByNow, or "" if it can't be judged
	Unknown  string    `json:"unknown,omitempty"`
	Outcome  string    `json:"outcome"`
	Findings []Finding `json:"findings,omitempty"`
}

// What writes are judged by.
const (
	ByType = "the type: no rule can apply to it"
	ByNow  = "the resource as it is now: this was its last write"
)

// History is what rules say of past writes, the latest first. now is the resource
// of an id as it is. What a request sent is not kept, so of several writes of a
// resource only the last is known.
func History(rules []Rule, writes []Write, at time.Time, typeOf func(id string) string, now func(id string) (map[string]any, error)) []Recorded {
	writes = slices.Clone(writes)
	slices.SortStableFunc(writes, func(a, b Write) int { return cmp.Compare(b.Time.UnixNano(), a.Time.UnixNano()) })
	later := map[string]bool{}
	var out []Recorded
	for _, w := range writes {
		key := strings.ToLower(w.Resource)
		r := Recorded{Write: w, Outcome: None}
		switch typ := typeOf(w.Resource); {
		case !about(rules, typ):
			r.JudgedBy = ByType
		case later[key]:
			r.Outcome, r.Unknown = Unknown, "it was written again, and what was sent then is not kept"
		default:
			doc, err := now(w.Resource)
			if err != nil {
				r.Outcome, r.Unknown = Unknown, "what was sent is not kept, and the resource can't be read now: "+err.Error()
				break
			}
			found, _ := Judge(rules, Subject{Resource: doc, Now: at}, nil)
			r.JudgedBy, r.Outcome, r.Findings = ByNow, Outcome(found), found
		}
		later[key] = true
		// Tags are written at an id of their own, and are the resource's.
		if of, is := strings.CutSuffix(key, "/providers/microsoft.resources/tags/default"); is {
			later[of] = true
		}
		out = append(out, r)
	}
	return out
}
