package vault

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A vault that is flooded says when to come again, and holds up no other; nor does who
// may do nothing there hold up those who may (KV-16).
func TestVaultsHaveTheirOwnPace(t *testing.T) {
	w := newWorld(t)
	w.v.Pace = 1
	for _, name := range []string{"flooded", "quiet"} {
		w.do(owner, "PUT", rg+"/providers/Microsoft.KeyVault/vaults/"+name, vaultBody(`"enableRbacAuthorization":true`), 201)
		w.do(office, "PUT", "vault:"+name+"/secrets/s", `{"value":"v"}`, 200)
	}
	set := func(vault string, want int) reply {
		t.Helper()
		return w.do(office, "PUT", "vault:"+vault+"/secrets/s", `{"value":"v"}`, want)
	}
	for range 299 {
		set("flooded", 200)
	}
	r := set("flooded", 429)
	if r.header.Get("Retry-After") != "1" || r.str("error", "code") != "Throttled" || !strings.Contains(r.text, "VaultRequestTypeLimitReached") {
		t.Errorf("one too many is told %v %s", r.header, r.text)
	}
	set("quiet", 200)
	w.do(user, "GET", "vault:flooded/secrets/s", "", 200) // other requests have a limit of their own
	w.now = w.now.Add(time.Second)
	for range 30 {
		set("flooded", 200)
	}
	set("flooded", 429)

	// Somebody without a right floods, then somebody with one.
	one := func(who, vault string) *http.Response {
		req, err := http.NewRequest("GET", w.srv.URL+"/secrets/s?api-version=7.5", nil)
		w.must(err)
		req.Host = vault + ".vault.castellan.localhost"
		req.Header.Set("Authorization", "Bearer "+who)
		res, err := w.srv.Client().Do(req)
		w.must(err)
		res.Body.Close()
		return res
	}
	flood := func(ctx context.Context, who string, refused *atomic.Int64) {
		for ctx.Err() == nil {
			if res := one(who, "flooded"); res.StatusCode == http.StatusTooManyRequests {
				refused.Add(1)
				if n, err := strconv.Atoi(res.Header.Get("Retry-After")); err != nil || n < 1 {
					t.Errorf("Retry-After is %q", res.Header.Get("Retry-After"))
				}
			}
		}
	}
	quiet := func() (slowest time.Duration) {
		var all []time.Duration
		for range 100 {
			start := time.Now()
			if res := one(user, "quiet"); res.StatusCode != http.StatusOK {
				t.Errorf("the quiet vault answers %d", res.StatusCode)
			}
			all = append(all, time.Since(start))
		}
		slices.Sort(all)
		return all[98]
	}
	alone := quiet()
	for _, who := range []string{contri, user} {
		for range 3900 { // what is left a flood takes
			w.must(w.v.take("caller|flooded|"+tenant+"|"+who, paceRest))
		}
		if who == user {
			for range 3900 {
				w.must(w.v.take("vault|"+w.v.byName("flooded").UID, paceRest))
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var refused atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { flood(ctx, who, &refused) })
		}
		for refused.Load() == 0 && !t.Failed() {
			one(user, "quiet")
		}
		under := quiet()
		cancel()
		wg.Wait()
		t.Logf("99 of 100 reads of the quiet vault within %v, and %v while %s floods the other", alone, under, who)
		if who == contri {
			if res := one(user, "flooded"); res.StatusCode != http.StatusOK {
				t.Errorf("who may nothing at the vault holds up who may: %d", res.StatusCode)
			}
		}
	}
	if got := one(office, "flooded").StatusCode; got != http.StatusTooManyRequests {
		t.Errorf("after a flood a second caller has %d: the vault has no pace of its own", got)
	}
}
