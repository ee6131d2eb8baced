package mfa

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"strings"
)

// Recovery codes are for whoever lost the telephone: random, long enough that a
// plain hash tells nothing, and each good once.
const (
	recoveryCodes  = 10
	recoveryLength = 16 // letters of 5 bits
	// recoveryLetters has none that are taken for another.
	recoveryLetters = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
)

// NewRecovery makes recovery codes, and the hashes that are kept of them.
func NewRecovery() (codes []string, hashes [][]byte) {
	for range recoveryCodes {
		b := make([]byte, recoveryLength)
		_, _ = rand.Read(b) // never fails
		for i := range b {
			b[i] = recoveryLetters[b[i]&31]
		}
		c := string(b)
		codes = append(codes, c[:4]+"-"+c[4:8]+"-"+c[8:12]+"-"+c[12:])
		hashes = append(hashes, recoveryHash(c))
	}
	return codes, hashes
}

func recoveryHash(code string) []byte {
	sum := sha256.Sum256([]byte("recovery code|" + code))
	return sum[:]
}

// UseRecovery returns the hashes that are left once code is used, or ErrWrong.
func UseRecovery(hashes [][]byte, code string) ([][]byte, error) {
	h := recoveryHash(strings.Map(plain, strings.ToUpper(code)))
	found := -1
	for i, have := range hashes {
		if subtle.ConstantTimeCompare(have, h) == 1 {
			found = i
		}
	}
	if found < 0 {
		return hashes, ErrWrong
	}
	return append(append([][]byte{}, hashes[:found]...), hashes[found+1:]...), nil
}

// plain drops what people put between the letters.
func plain(r rune) rune {
	if strings.ContainsRune(recoveryLetters, r) {
		return r
	}
	return -1
}

// LooksLikeRecovery reports whether code has the length of a recovery code, so
// that one field can take both kinds.
func LooksLikeRecovery(code string) bool {
	return len(strings.Map(plain, strings.ToUpper(code))) == recoveryLength
}
