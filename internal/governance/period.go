package governance

import (
	"regexp"
	"strconv"
	"time"

	"castellan/internal/arm"
)

var periodForm = regexp.MustCompile(`^P(?:(\d{1,2})Y)?(?:(\d{1,3})M)?(?:(\d{1,3})W)?(?:(\d{1,4})D)?(?:T(?:(\d{1,5})H)?(?:(\d{1,6})M)?(?:(\d{1,7})S)?)?$`)

// period reads an ISO 8601 duration such as PT8H or P1Y, in which a year has 365
// days and a month 30, as in Azure. It is never zero.
func period(text string) (time.Duration, error) {
	m := periodForm.FindStringSubmatch(text)
	if m == nil {
		return 0, arm.Errorf(arm.InvalidRequest, "the duration %q must be in ISO 8601 form, such as PT8H or P90D", text)
	}
	const day = 24 * time.Hour
	var d time.Duration
	for i, unit := range []time.Duration{365 * day, 30 * day, 7 * day, day, time.Hour, time.Minute, time.Second} {
		n, _ := strconv.Atoi("0" + m[i+1]) // the pattern lets digits through only
		d += time.Duration(n) * unit
	}
	if d <= 0 {
		return 0, arm.Errorf(arm.InvalidRequest, "the duration %q is no time at all", text)
	}
	return d, nil
}

// expiration is when something ends, as a request says it.
type expiration struct {
	Type     string    `json:"type"` // AfterDuration, AfterDateTime or NoExpiration
	End      time.Time `json:"end,omitzero"`
	Duration string    `json:"duration,omitempty"`
}

// end is when what begins at from ends; zero is never.
func (e expiration) end(from time.Time) (time.Time, error) {
	switch e.Type {
	case "NoExpiration":
		return time.Time{}, nil
	case "AfterDateTime":
		if e.End.IsZero() {
			return time.Time{}, arm.Errorf(arm.InvalidRequest, "properties.scheduleInfo.expiration of type AfterDateTime needs an endDateTime")
		}
		return e.End, nil
	case "AfterDuration":
		d, err := period(e.Duration)
		return from.Add(d), err
	}
	return time.Time{}, arm.Errorf(arm.InvalidRequest, "properties.scheduleInfo.expiration.type is %q; it must be AfterDuration, AfterDateTime or NoExpiration", e.Type)
}

// window is from when to when a right is asked for; a zero till is for ever.
type window struct{ from, till time.Time }

// windowOf is the window that a request asks for at now: a start that is past is now.
func windowOf(start time.Time, e expiration, now time.Time) (w window, err error) {
	if w.from = start; w.from.Before(now) {
		w.from = now
	}
	if w.till, err = e.end(w.from); err != nil {
		return w, err
	}
	if !w.till.IsZero() && !w.till.After(w.from) {
		return w, arm.Errorf(arm.InvalidRequest, "the end %s is not after the start %s", w.till.Format(time.RFC3339), w.from.Format(time.RFC3339))
	}
	return w, nil
}

// covers reports whether v lies in w.
func (w window) covers(v window) bool {
	if v.from.Before(w.from) {
		return false
	}
	return w.till.IsZero() || !v.till.IsZero() && !v.till.After(w.till)
}

// open reports whether now is in the window.
func (w window) open(now time.Time) bool {
	return !now.Before(w.from) && !w.over(now)
}

// over reports whether the window has ended.
func (w window) over(now time.Time) bool { return !w.till.IsZero() && !now.Before(w.till) }
