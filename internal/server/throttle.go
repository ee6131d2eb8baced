package server

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// atOnce is how many requests of one caller are served at the same time.
const atOnce = 256

// azureRates are those of Resource Manager since 2024: for each caller at each
// subscription, and at what is in none.
var azureRates = map[string]gate.Rate{"reads": {Size: 250, Second: 25}, "writes": {Size: 200, Second: 10}, "deletes": {Size: 200, Second: 10}}

// Throttle holds callers of Resource Manager to a pace, so that none takes the
// place of others.
type Throttle struct {
	site    arm.Site
	times   int
	buckets *gate.Buckets
	turns   *turns
}

// NewThrottle is a Throttle with so many times the limits that Azure has.
func NewThrottle(site arm.Site, times int, now func() time.Time) *Throttle {
	return &Throttle{site: site, times: times, buckets: gate.NewBuckets(now), turns: newTurns(atOnce)}
}

// Pass takes a token for the caller's request and tells how many are left, or
// says when to come again. done ends the request.
func (t *Throttle) Pass(w http.ResponseWriter, r *http.Request, who arm.Caller) (done func(), err error) {
	caller := who.Tenant + "|" + who.Object
	what := map[string]string{http.MethodGet: "reads", http.MethodHead: "reads", http.MethodDelete: "deletes"}[r.Method]
	if what == "" {
		what = "writes"
	}
	sub, level := t.subscription(r), "subscription"
	if sub == "" {
		level = "tenant"
	}
	left, wait := 0, 1
	if done = t.turns.begin(caller); done != nil {
		if left, wait = t.buckets.Take(caller+"|"+sub+"|"+what, azureRates[what].Times(t.times)); wait > 0 {
			done()
		}
	}
	w.Header().Set("x-ms-ratelimit-remaining-"+level+"-"+what, strconv.Itoa(left))
	if wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(wait))
		return nil, &arm.Error{Code: map[string]arm.Code{"subscription": "SubscriptionRequestsThrottled", "tenant": "TenantRequestsThrottled"}[level], Status: http.StatusTooManyRequests,
			Message: fmt.Sprintf("Number of '%s' requests for %s '%s' actor '%s' exceeded. Please try again after '%d' seconds.", what, level, sub+map[bool]string{true: who.Tenant}[sub == ""], who.Object, wait)}
	}
	return done, nil
}

// subscription is the one that the request is about, "" if it is about none that
// there is: names that callers make up have no buckets.
func (t *Throttle) subscription(r *http.Request) string {
	p := strings.SplitN(strings.Trim(r.URL.Path, "/"), "/", 3)
	if len(p) < 2 || !strings.EqualFold(p[0], "subscriptions") {
		return ""
	}
	sub := strings.ToLower(p[1])
	if t.site.TenantOfKey("/subscriptions/"+sub) == "" {
		return ""
	}
	return sub
}
