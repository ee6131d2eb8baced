package app

import (
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"castellan/internal/audit"
)

// With the disk full, nothing is changed and no secret is given, since neither
// could be recorded; what was let through before is recorded once there is room,
// and everything works again without a restart (AUD-05).
func TestAFullDiskStopsEverything(t *testing.T) {
	t.Parallel()
	s := spawn(t, t.TempDir()+"/data")
	l := newLab(t, s)
	secret := l.vaultURL + "secrets/s?api-version=7.4"
	l.must(t, nil, l.vault, http.MethodPut, secret, map[string]any{"value": newCanary()})
	full := func(limit uint64) {
		t.Helper()
		if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: unix.RLIM_INFINITY}, nil); err != nil {
			t.Skip("this machine sets no limit of another process: ", err)
		}
	}
	full(1)
	read, err := l.send(l.arm, http.MethodGet, l.url(l.group), nil) // it may be answered: the log does not know yet
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for _, c := range []struct {
			token, method, url string
			body               any
		}{
			{l.vault, http.MethodGet, secret, nil},
			{l.arm, http.MethodPost, l.url(l.group + "/providers/Microsoft.Storage/storageAccounts/" + l.account + "/listKeys"), nil},
			{l.arm, http.MethodPut, l.url(l.group + "full"), map[string]any{"location": l.location}},
			{l.vault, http.MethodDelete, secret, nil},
			{l.blob, http.MethodPut, l.blobURL + "full?restype=container", nil},
		} {
			a, err := l.send(c.token, c.method, c.url, c.body, "x-ms-version", storageVersion)
			if err != nil || a.status/100 != 5 {
				t.Errorf("with the disk full, %s %s = %d %s, %v", c.method, c.url, a.status, a.body, err)
			}
		}
	}
	full(unix.RLIM_INFINITY)
	l.until(t, 10*time.Second, "it works again", func() bool {
		a, err := l.send(l.vault, http.MethodGet, secret, nil)
		return err == nil && a.status == http.StatusOK
	})
	for u, token := range map[string]string{l.url(l.group + "full"): l.arm, l.blobURL + "full?restype=container": l.blob} {
		if a, err := l.send(token, http.MethodGet, u, nil, "x-ms-version", storageVersion); err != nil || a.status != http.StatusNotFound {
			t.Errorf("what was refused is there: GET %s = %d, %v", u, a.status, err)
		}
	}
	s.stop(t)
	a, err := New(t.Context(), Config{Data: s.dir})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := a.Audit.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	rows := correlations(t, a)
	if id := read.header.Get("x-ms-correlation-request-id"); read.status == http.StatusOK && len(rows[id]) != 1 {
		t.Errorf("the log has %v of a read that was answered", rows[id])
	}
}

// correlations are the entries of the log by correlation id.
func correlations(t *testing.T, a *App) map[string][]audit.Entry {
	t.Helper()
	all, err := a.Audit.Tail(t.Context(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]audit.Entry{}
	for _, e := range all {
		out[e.Correlation] = append(out[e.Correlation], e)
	}
	return out
}

// Killed at any moment, the platform has given no secret, key or signature
// without its entry (AUD-06).
func TestNoSecretWithoutItsEntry(t *testing.T) {
	t.Parallel()
	s := spawn(t, t.TempDir()+"/data")
	l := newLab(t, s)
	l.must(t, nil, l.vault, http.MethodPut, l.vaultURL+"secrets/s?api-version=7.4", map[string]any{"value": newCanary()})
	var mu sync.Mutex // guards given
	given := map[string]bool{}
	for round := range 4 {
		if round > 0 {
			s = spawn(t, s.dir)
			l.door = s.door
		}
		var readers sync.WaitGroup
		for i := range 6 {
			readers.Go(func() {
				for {
					method, u, token := http.MethodGet, l.vaultURL+"secrets/s?api-version=7.4", l.vault
					if i%3 == 0 {
						method, u, token = http.MethodPost, l.url(l.group+"/providers/Microsoft.Storage/storageAccounts/"+l.account+"/listKeys"), l.arm
					}
					a, err := s.send(token, method, u, nil)
					if err != nil {
						return // killed
					}
					if a.status == http.StatusOK {
						mu.Lock()
						given[a.header.Get("x-ms-correlation-request-id")] = true
						mu.Unlock()
					}
				}
			})
		}
		l.until(t, time.Minute, "secrets are given", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(given) >= 10*(round+1)+rand.IntN(20)
		})
		s.kill(t)
		readers.Wait()
	}
	a, err := New(t.Context(), Config{Data: s.dir})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	rows, missing := correlations(t, a), 0
	for id := range given {
		if id == "" || len(rows[id]) != 1 {
			missing++
		}
	}
	if t.Logf("%d secrets were given", len(given)); missing > 0 || len(given) < 20 {
		t.Errorf("of %d secrets that were given, %d have not one entry", len(given), missing)
	}
}
