package monitor

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
)

// filter chooses events: a time, and what fields must be, by their names in
// lower case.
type filter struct {
	from, till time.Time
	is         map[string]string
	within     arm.ID // what resourceUri names; zero for anything
}

// clauses are what a $filter may say besides the time, as Azure takes them and
// az sends them.
var clauses = []string{"resourceGroupName", "resourceUri", "resourceId", "resourceProvider", "correlationId", "caller", "status", "eventChannels"}

var clauseForm = regexp.MustCompile(`^\s*(\w+)\s+(\w+)\s+('(?:[^']|'')*'|[^\s']+)(?:\s+(?i:and)\s+(\S.*)|\s*)$`)

// timeForms are those that clients send: what has no offset is UTC.
var timeForms = []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02"}

// parseFilter reads a $filter, which must say from when.
func parseFilter(text string) (filter, error) {
	f := filter{till: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), is: map[string]string{}}
	for rest := text; rest != ""; {
		m := clauseForm.FindStringSubmatch(rest)
		if m == nil || !f.take(m[1], m[2], unquote(m[3])) {
			return filter{}, arm.Errorf(arm.BadRequest, "the $filter %q is not supported; it must be eventTimestamp ge '2026-01-31T00:00:00Z', perhaps with an end (le) and, joined by and, each once with eq: %s", text, strings.Join(clauses, ", "))
		}
		rest = m[4]
	}
	if f.from.IsZero() {
		return filter{}, arm.Errorf(arm.BadRequest, "the $filter must say from when: eventTimestamp ge '2026-01-31T00:00:00Z'")
	}
	return f, nil
}

func unquote(s string) string {
	if len(s) >= 2 && s[0] == '\'' {
		return strings.ReplaceAll(s[1:len(s)-1], "''", "'")
	}
	return s
}

// take adds one clause, if it is one that is known and was not there.
func (f *filter) take(name, op, value string) bool {
	name, op = strings.ToLower(name), strings.ToLower(op)
	if name == "eventtimestamp" {
		return f.bound(op, value)
	}
	known := slices.ContainsFunc(clauses, func(c string) bool { return strings.EqualFold(c, name) })
	if _, twice := f.is[name]; !known || twice || op != "eq" || value == "" {
		return false
	}
	switch name {
	case "resourceuri", "resourceid":
		id, err := arm.ParseID(strings.TrimSuffix(value, "/"))
		if err != nil || !f.within.IsZero() {
			return false
		}
		f.within = id
	case "eventchannels":
		if !strings.Contains(value, "Operation") {
			return false
		}
	case "correlationid":
		value = strings.ReplaceAll(value, "-", "")
	}
	f.is[name] = strings.ToLower(value)
	return true
}

func (f *filter) bound(op, value string) bool {
	for _, form := range timeForms {
		t, err := time.Parse(form, value)
		switch {
		case err != nil:
		case op == "ge" && f.from.IsZero():
			f.from = t
			return true
		case op == "le":
			f.till = t
			return true
		}
	}
	return false
}

// keeps reports whether the event is one that the filter chooses. The log has
// looked at the time.
func (f *filter) keeps(e audit.Entry, id arm.ID) bool {
	provider, _, _ := strings.Cut(e.Action, "/")
	for name, have := range map[string]string{
		"resourcegroupname": group(id), "resourceprovider": provider, "correlationid": e.Correlation, "status": statusOf(e),
	} {
		if want, ok := f.is[name]; ok && !strings.EqualFold(want, have) {
			return false
		}
	}
	if who, ok := f.is["caller"]; ok && !strings.EqualFold(who, caller(e)) && !strings.EqualFold(who, e.Caller) && !strings.EqualFold(who, e.App) {
		return false
	}
	return f.within.IsZero() || id.Within(f.within)
}

// fields are what $select may name, and is nothing else in an event.
var fields = []string{
	"authorization", "caller", "category", "channels", "claims", "correlationId", "description", "eventDataId", "eventName", "eventTimestamp", "httpRequest", "id", "level", "operationId", "operationName",
	"properties", "resourceGroupName", "resourceId", "resourceProviderName", "resourceType", "status", "subStatus", "submissionTimestamp", "subscriptionId", "tenantId",
}

// parseSelect is the fields that a $select names; nil is all.
func parseSelect(text string) ([]string, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var out []string
	for _, name := range strings.Split(text, ",") {
		i := slices.IndexFunc(fields, func(f string) bool { return strings.EqualFold(f, strings.TrimSpace(name)) })
		if i < 0 {
			return nil, arm.Errorf(arm.BadRequest, "the $select names %q; it may name %s", strings.TrimSpace(name), strings.Join(fields, ", "))
		}
		out = append(out, fields[i])
	}
	return out, nil
}

// chosen is the event with these fields alone.
func chosen(event map[string]any, names []string) map[string]any {
	if names == nil {
		return event
	}
	out := map[string]any{}
	for _, n := range names {
		if v, ok := event[n]; ok {
			out[n] = v
		}
	}
	return out
}
