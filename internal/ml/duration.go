package ml

import (
	"regexp"
	"strconv"
	"time"

	"castellan/internal/arm"
)

var isoDuration = regexp.MustCompile(`^P(?:(\d{1,4})D)?(?:T(?:(\d{1,6})H)?(?:(\d{1,8})M)?(?:(\d{1,9})(?:\.\d+)?S)?)?$`)

// duration reads an ISO 8601 duration such as PT5M; "" is none.
func duration(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	m := isoDuration.FindStringSubmatch(text)
	if m == nil || text == "P" || text[len(text)-1] == 'T' {
		return 0, arm.Errorf(arm.BadRequest, "the duration %q must be in ISO 8601 form, such as PT5M", text)
	}
	var d time.Duration
	for i, unit := range []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second} {
		if m[i+1] != "" {
			n, _ := strconv.Atoi(m[i+1]) // the pattern lets digits through only
			d += time.Duration(n) * unit
		}
	}
	return d, nil
}
