// Package mfa proves people by more than a password: one-time codes, passkeys and recovery codes.
//
// It is pure: what it is given is what a store keeps, what it returns is what
// the store must keep next. Whoever calls it does so inside the transaction in
// which the proof is used up, so that of many uses at once one succeeds.
package mfa

import "errors"

// ErrWrong means that what was shown proves nothing.
var ErrWrong = errors.New("mfa: the proof is wrong")
