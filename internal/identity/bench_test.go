package identity

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"castellan/internal/access"
	"castellan/internal/arm"
)

// A token that was seen before, of 1,000 people in turn, in directories of 10²
// to 10⁶ people, against one look into a map of as many rows, and against that
// and hashing the token's text. The aim is a small multiple, flat in the size.
func BenchmarkSeenToken(b *testing.B) {
	for _, people := range []int{1e2, 1e4, 1e6} {
		w := newWorld(b)
		rows := make(map[string]*User, people)
		var ids []string
		for i := range people {
			u := &User{ID: arm.NewUUID(), Tenant: w.first.Tenant, UPN: fmt.Sprintf("u%d@%s", i, w.first.Domain), Name: "u"}
			w.s.index.put(u)
			rows[u.ID] = u
			if len(ids) < min(people, 1000) {
				ids = append(ids, u.ID)
			}
		}
		to, err := w.s.target(w.first.Tenant, w.site.Base())
		if err != nil {
			b.Fatal(err)
		}
		tokens := make([]string, len(ids))
		for i, id := range ids {
			proofs := access.Proofs{}.With(access.Password, time.Now())
			if tokens[i], _, err = w.s.accessToken(subject{user: rows[id], client: azureCLI, family: arm.NewUUID(), proofs: proofs, scp: "user_impersonation"}, to); err != nil {
				b.Fatal(err)
			}
			if _, err := w.s.VerifyToken(b.Context(), tokens[i], w.site.ARMAudiences()); err != nil {
				b.Fatal(err)
			}
		}
		audiences := w.site.ARMAudiences()
		turn := 0
		next := func() int { turn++; return turn % len(ids) }
		b.Run(fmt.Sprintf("people=%d/verify", people), func(b *testing.B) {
			for b.Loop() {
				if _, err := w.s.VerifyToken(b.Context(), tokens[next()], audiences); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("people=%d/hash-and-map", people), func(b *testing.B) {
			for b.Loop() {
				i := next()
				sum := sha256.Sum256([]byte(tokens[i]))
				if rows[ids[i]] == nil || sum[0] == 0 && sum[1] == 0 && sum[2] == 0 && sum[3] == 0 {
					b.Fatal("not there")
				}
			}
		})
		b.Run(fmt.Sprintf("people=%d/map", people), func(b *testing.B) {
			for b.Loop() {
				if rows[ids[next()]] == nil {
					b.Fatal("not there")
				}
			}
		})
	}
}
