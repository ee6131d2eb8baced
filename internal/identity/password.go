package identity

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"castellan/internal/arm"
)

// The cost of a password (RFC 9106 gives the algorithm, OWASP the figures). It
// stands in each hash, so that it can be raised later.
const (
	argonTime   = 2
	argonMemory = 19 << 10 // KiB
	argonLanes  = 1
	argonSize   = 32 // bytes
)

// Passwords are at least so long, in characters, and at most, in bytes.
const (
	minPassword = 12
	maxPassword = 256
)

// hashing is how many passwords are hashed at once. The rest wait, so that a
// flood of guesses takes neither all processors nor all memory.
const hashing = 2

type hasher struct {
	slots chan struct{}
	dummy string // what the password of nobody is compared with
}

func newHasher() *hasher {
	h := &hasher{slots: make(chan struct{}, hashing)}
	h.dummy = hashPassword(randomText(16))
	return h
}

func hashPassword(password string) string {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	sum := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonLanes, argonSize)
	b := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonLanes, b.EncodeToString(salt), b.EncodeToString(sum))
}

// hash is hashPassword in its turn.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	if err := h.enter(ctx); err != nil {
		return "", err
	}
	defer h.leave()
	return hashPassword(password), nil
}

// matches reports whether password is the one that was hashed. With no hash it
// takes as long, and is false.
func (h *hasher) matches(ctx context.Context, hash, password string) (bool, error) {
	if err := h.enter(ctx); err != nil {
		return false, err
	}
	defer h.leave()
	return h.check(hash, password)
}

// check is matches for whoever entered already.
func (h *hasher) check(hash, password string) (bool, error) {
	known := hash != ""
	if !known {
		hash = h.dummy
	}
	if len(password) > maxPassword {
		password, known = password[:maxPassword], false
	}
	ok, err := compare(hash, password)
	return ok && known, err
}

func (h *hasher) enter(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *hasher) leave() { <-h.slots }

func compare(hash, password string) (bool, error) {
	p := strings.Split(hash, "$")
	if len(p) != 6 || p[1] != "argon2id" {
		return false, fmt.Errorf("identity: a password hash has an unknown form")
	}
	var memory, time uint32
	var lanes uint8
	if _, err := fmt.Sscanf(p[3], "m=%d,t=%d,p=%d", &memory, &time, &lanes); err != nil {
		return false, fmt.Errorf("reading a password hash: %w", err)
	}
	salt, err := base64.RawStdEncoding.DecodeString(p[4])
	if err != nil {
		return false, fmt.Errorf("reading a password hash: %w", err)
	}
	want, err := base64.RawStdEncoding.DecodeString(p[5])
	if err != nil || len(want) == 0 {
		return false, fmt.Errorf("identity: a password hash has an unknown form")
	}
	got := argon2.IDKey([]byte(password), salt, time, memory, lanes, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}

// checkPassword says whether password may be u's.
func checkPassword(password, upn string) error {
	local, _, _ := strings.Cut(fold(upn), "@")
	switch n := utf8.RuneCountInString(password); {
	case n < minPassword || len(password) > maxPassword:
		return arm.Errorf(arm.BadRequest, "The password must have %d to %d characters.", minPassword, maxPassword)
	case !utf8.ValidString(password) || strings.ContainsRune(password, 0):
		return arm.Errorf(arm.BadRequest, "The password must be text.")
	case len(local) > 3 && strings.Contains(fold(password), local):
		return arm.Errorf(arm.BadRequest, "The password must not contain the user name.")
	case distinct(password) < 5:
		return arm.Errorf(arm.BadRequest, "The password must have at least 5 different characters.")
	}
	return nil
}

func distinct(s string) int {
	seen := map[rune]bool{}
	for _, r := range s {
		seen[r] = true
	}
	return len(seen)
}

// randomText is n random bytes as URL-safe text.
func randomText(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// letters is n random letters and digits, 5.95 bits each, which no shell takes
// for an option or for anything else.
func letters(n int) string {
	const all = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	out := make([]byte, 0, n)
	var b [1]byte
	for len(out) < n {
		_, _ = rand.Read(b[:])       // never fails
		if v := int(b[0]); v < 248 { // 4 times 62: no letter is more likely than another
			out = append(out, all[v%len(all)])
		}
	}
	return string(out)
}
