package arm

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
)

// NewUUID is a random UUID (RFC 9562, version 4), in lower case.
func NewUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// NewHex is 128 random bits in hex: an id that nobody guesses.
func NewHex() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
