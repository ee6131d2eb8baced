package monitor

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/gate"
	"castellan/internal/resource"
)

// readEvents is Azure's.
var readEvents = arm.NewAction("Microsoft.Insights/eventtypes/values/read", "see who changed what in a subscription (the activity log)")

// page is how many changes one answer looks at: it may have fewer rows, or none,
// and a link to the next.
const page = 500

// Activity is the activity log: the audit log's changes of a subscription as
// Azure Monitor tells them (Microsoft.Insights/eventtypes, API version 2015-04-01).
type Activity struct {
	Log  *audit.Log
	Site arm.Site
}

// Routes are its doors: everybody sees the events of what they may see events of.
func (a *Activity) Routes() []gate.Route {
	return []gate.Route{
		gate.Each(readEvents, "GET /subscriptions/{sub}/providers/Microsoft.Insights/eventtypes/management/values", locate, a.list),
		gate.Each(readEvents, "GET /providers/Microsoft.Insights/eventCategories", locateRoot, categories),
	}
}

func locateRoot(r *http.Request, _ gate.Vars) (gate.Target, error) {
	return gate.Target{ID: arm.Root}, resource.Version(r)
}

// categories are those of Azure's that events here are of.
func categories(w http.ResponseWriter, _ *http.Request, g gate.Grant) error {
	if _, err := g.On(readEvents); err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": []any{text("Administrative")}})
	return nil
}

func locate(r *http.Request, _ gate.Vars) (gate.Target, error) { return resource.Locate(r, 5) }

func (a *Activity) list(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	sub, err := g.On(readEvents)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	f, err := parseFilter(q.Get("$filter"))
	if err != nil {
		return err
	}
	fields, err := parseSelect(q.Get("$select"))
	if err != nil {
		return err
	}
	after, err := cursor(q)
	if err != nil {
		return err
	}
	found, next, err := a.find(r, sub, f, after)
	if err != nil {
		return err
	}
	list := []any{}
	for _, e := range found {
		id, err := arm.ParseID(e.Target)
		if err != nil || !f.keeps(e, id) || !g.Sees(readEvents, id) {
			continue
		}
		list = append(list, chosen(show(e, id), fields))
	}
	out := map[string]any{"value": list}
	if next != "" {
		q.Del("$skiptoken")
		q.Set("$skipToken", base64.RawURLEncoding.EncodeToString([]byte(next)))
		out["nextLink"] = a.Site.Base() + r.URL.EscapedPath() + "?" + q.Encode()
	}
	gate.WriteJSON(w, http.StatusOK, out)
	return nil
}

// find is one page of the subscription's changes in the filter's time. A
// correlation id is found by the log's index.
func (a *Activity) find(r *http.Request, sub arm.ID, f filter, after string) ([]audit.Entry, string, error) {
	id := f.is["correlationid"]
	if id == "" {
		return a.Log.Changes(r.Context(), sub.Subscription(), f.from, f.till, after, page)
	}
	found, err := a.Log.Correlated(r.Context(), id)
	return slices.DeleteFunc(found, func(e audit.Entry) bool {
		in, _ := e.Change()
		return in != sub.Subscription() || e.Time.Before(f.from) || e.Time.After(f.till)
	}), "", err
}

var cursorForm = regexp.MustCompile(`^[0-9T.]+\|[0-9a-f]{16}$`)

// cursor is where the page before ended, "" for the first.
func cursor(q url.Values) (string, error) {
	token := q.Get("$skiptoken") + q.Get("$skipToken")
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || token != "" && !cursorForm.Match(b) {
		return "", arm.Errorf(arm.BadRequest, "the $skipToken is not one that a nextLink gave")
	}
	return string(b), nil
}

// show is an entry as an event.
func show(e audit.Entry, id arm.ID) map[string]any {
	status, name, level, code := statusOf(e), "EndRequest", "Informational", http.StatusOK
	switch status {
	case "Failed":
		level, code = "Error", gate.Status(&arm.Error{Code: arm.Code(e.Outcome)})
	case "Started":
		name, code = "BeginRequest", http.StatusAccepted
	}
	provider, _, _ := strings.Cut(e.Action, "/")
	sum := sha256.Sum256([]byte(strconv.FormatUint(e.Seq, 10) + "|" + e.Correlation))
	event := fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]) // one of the entry's own
	out := map[string]any{
		"id":            strings.TrimSuffix(e.Target, "/") + "/events/" + event + "/ticks/" + strconv.FormatInt(ticks(e.Time), 10),
		"eventDataId":   event,
		"authorization": map[string]any{"action": e.Action, "scope": e.Target},
		"caller":        caller(e), "claims": claims(e), "channels": "Operation", "level": level, "description": "",
		"category": text("Administrative"), "eventName": text(name), "operationName": text(e.Action),
		"correlationId": e.Correlation, "operationId": e.Correlation,
		"eventTimestamp": e.Time, "submissionTimestamp": e.Time,
		"resourceId": e.Target, "resourceGroupName": group(id), "resourceProviderName": text(provider), "resourceType": text(id.Type()),
		"status": text(status), "subStatus": map[string]any{"value": strings.ReplaceAll(http.StatusText(code), " ", ""), "localizedValue": http.StatusText(code) + " (HTTP Status Code: " + strconv.Itoa(code) + ")"},
		"subscriptionId": id.Subscription(), "tenantId": e.Tenant,
		"properties": map[string]any{"statusCode": http.StatusText(code), "outcome": e.Outcome, "entity": e.Target},
	}
	if e.Address != "" {
		out["httpRequest"] = map[string]any{"clientIpAddress": e.Address}
	}
	return out
}

// statusOf is Azure's word for how it went: what goes on has a beginning and an end.
func statusOf(e audit.Entry) string {
	switch {
	case e.Outcome != "ok":
		return "Failed"
	case e.Event == audit.Begun:
		return "Started"
	}
	return "Succeeded"
}

// ticks are the tenths of microseconds since the year 1, as .NET counts.
func ticks(t time.Time) int64 {
	return t.Unix()*10_000_000 + int64(t.Nanosecond())/100 + 621_355_968_000_000_000
}

func text(s string) map[string]any { return map[string]any{"value": s, "localizedValue": s} }

// caller is a person by user name, and an application by object id.
func caller(e audit.Entry) string {
	if strings.Contains(e.Name, "@") {
		return e.Name
	}
	return e.Caller
}

// claims are what of the caller's token the log keeps, by the names that Azure
// gives them there.
func claims(e audit.Entry) map[string]string {
	out := map[string]string{}
	for name, value := range map[string]string{
		"appid": e.App, "name": e.Name, "ipaddr": e.Address,
		"http://schemas.microsoft.com/identity/claims/objectidentifier": e.Caller,
		"http://schemas.microsoft.com/identity/claims/tenantid":         e.Tenant,
	} {
		if value != "" {
			out[name] = value
		}
	}
	return out
}

func group(id arm.ID) string {
	if g := id.Group(); !g.IsZero() {
		return g.Name()
	}
	return ""
}
