package app

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Every answer of Resource Manager can be traced, is not kept by anybody, and
// says how many more requests may come; one too many is told when to come again,
// and holds up nobody else.
func TestHeadersOfEveryAnswer(t *testing.T) {
	t.Parallel()
	a, err := New(t.Context(), Config{Data: t.TempDir() + "/data", Throttle: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	token := a.admin(t, "arm")
	sub := a.Site.Base() + "/subscriptions/" + a.Site.Subscription
	traced := func(w *httptest.ResponseRecorder, status int) {
		t.Helper()
		h := w.Header()
		if w.Code != status || len(h.Get("x-ms-request-id")) != 36 || h.Get("x-ms-correlation-request-id") == "" || !strings.HasPrefix(h.Get("x-ms-routing-request-id"), "LOCAL:20") ||
			h.Get("Strict-Transport-Security") == "" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" || h.Get("x-ms-client-request-id") != "mine" {
			t.Errorf("the answer is %d with %v, want %d", w.Code, h, status)
		}
	}
	ask := func(token, method, path string) *httptest.ResponseRecorder {
		return call(a, token, method, sub+path+version, nil, "x-ms-client-request-id", "mine", "x-ms-return-client-request-id", "true")
	}
	traced(ask("", http.MethodGet, "/resourceGroups"), http.StatusUnauthorized)
	traced(ask(token, http.MethodGet, "/resourceGroups/none"), http.StatusNotFound)
	traced(ask(token, http.MethodGet, "/nothing/here"), http.StatusNotFound)
	traced(ask(token, http.MethodDelete, "/resourceGroups/none"), http.StatusNoContent)
	w := ask(token, http.MethodGet, "/resourceGroups")
	traced(w, http.StatusOK)
	if w.Header().Get("x-ms-ratelimit-remaining-subscription-reads") == "" {
		t.Errorf("the headers are %v", w.Header())
	}
	for range 10_000 { // a bucket fills while it is emptied
		if w = ask(token, http.MethodGet, "/resourceGroups"); w.Code != http.StatusOK {
			break
		}
	}
	traced(w, http.StatusTooManyRequests)
	if w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "SubscriptionRequestsThrottled") {
		t.Errorf("one too many is told %v %s", w.Header(), w.Body)
	}
	traced(ask(a.stranger(t)["arm"], http.MethodGet, "/resourceGroups"), http.StatusOK)
}
