package server

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"castellan/internal/arm"
)

// Limits of a Throttle. Azure's are those of Resource Manager since 2024: for each
// caller at each subscription, and at what is in none, a bucket of tokens.
const (
	maxBuckets = 10_000 // of all callers
	atOnce     = 256    // requests of one caller that are served at the same time
)

// rate is a bucket's size and how many tokens come back in a second.
type rate struct{ size, second float64 }

var azureRates = map[string]rate{"reads": {250, 25}, "writes": {200, 10}, "deletes": {200, 10}}

// Throttle holds callers of Resource Manager to a pace, so that none takes the
// place of others.
type Throttle struct {
	site  arm.Site
	times float64
	now   func() time.Time

	mu      sync.Mutex // guards buckets
	buckets map[string]*bucket
	turns   *turns
}

type bucket struct {
	rate
	left float64
	at   time.Time
}

// fill adds what has come back since the last look.
func (b *bucket) fill(now time.Time) {
	b.left = min(b.size, b.left+b.second*max(0, now.Sub(b.at).Seconds()))
	b.at = now
}

// NewThrottle is a Throttle with so many times the limits that Azure has.
func NewThrottle(site arm.Site, times int, now func() time.Time) *Throttle {
	return &Throttle{site: site, times: float64(times), now: now, buckets: map[string]*bucket{}, turns: newTurns(atOnce)}
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
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.bucket(caller+"|"+sub+"|"+what, what)
	wait := 0.0
	if done = t.turns.begin(caller); done == nil {
		wait = 1
	} else if b.left < 1 {
		done()
		wait = math.Ceil((1 - b.left) / b.second)
	} else {
		b.left--
	}
	w.Header().Set("x-ms-ratelimit-remaining-"+level+"-"+what, strconv.Itoa(int(b.left)))
	if wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(max(1, wait))))
		return nil, &arm.Error{Code: map[string]arm.Code{"subscription": "SubscriptionRequestsThrottled", "tenant": "TenantRequestsThrottled"}[level], Status: http.StatusTooManyRequests,
			Message: fmt.Sprintf("Number of '%s' requests for %s '%s' actor '%s' exceeded. Please try again after '%.0f' seconds.", what, level, sub+map[bool]string{true: who.Tenant}[sub == ""], who.Object, max(1, wait))}
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

// bucket is the bucket of a key, filled up to now. Where there are too many,
// those go that are full, and if that is not enough, others: who had them begins anew.
func (t *Throttle) bucket(key, what string) *bucket {
	now := t.now()
	b := t.buckets[key]
	if b == nil {
		if len(t.buckets) >= maxBuckets {
			for k, old := range t.buckets {
				if old.fill(now); old.left == old.size {
					delete(t.buckets, k)
				}
			}
			for k := range t.buckets {
				if len(t.buckets) <= maxBuckets*3/4 {
					break
				}
				delete(t.buckets, k)
			}
		}
		r := azureRates[what]
		b = &bucket{rate{r.size * t.times, r.second * t.times}, r.size * t.times, now}
		t.buckets[key] = b
	}
	b.fill(now)
	return b
}
