package mfa

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
)

// One-time codes are as all apps for them know them (RFC 6238): six digits of
// HMAC-SHA1, new every half minute.
const (
	period     = 30 // seconds
	digits     = otp.DigitsSix
	secretSize = 20 // bytes, as RFC 4226 section 4 recommends
	drift      = 1  // steps that a clock may be wrong
)

// NewSecret is the secret of a new authenticator app.
func NewSecret() []byte {
	b := make([]byte, secretSize)
	_, _ = rand.Read(b) // never fails
	return b
}

// base32Text is a secret as apps want it.
func base32Text(secret []byte) string {
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)
}

// Typed is a secret for people to type: in groups of four.
func Typed(secret []byte) string {
	var out []string
	for s := base32Text(secret); len(s) > 0; {
		n := min(4, len(s))
		out, s = append(out, s[:n]), s[n:]
	}
	return strings.Join(out, " ")
}

// URI is what an app reads from the picture.
func URI(issuer, account string, secret []byte) string {
	q := url.Values{"secret": {base32Text(secret)}, "issuer": {issuer}, "algorithm": {"SHA1"}, "digits": {fmt.Sprint(int(digits))}, "period": {fmt.Sprint(period)}}
	return "otpauth://totp/" + url.PathEscape(issuer+":"+account) + "?" + strings.ReplaceAll(q.Encode(), "+", "%20")
}

// Code is the code of the time step that now lies in.
func Code(secret []byte, now time.Time) (string, error) {
	return hotp.GenerateCodeCustom(base32Text(secret), uint64(step(now)), hotp.ValidateOpts{Digits: digits, Algorithm: otp.AlgorithmSHA1})
}

func step(now time.Time) int64 { return now.Unix() / period }

// CheckCode holds code against the time steps around now. used is the last step
// whose code was taken: that one and those before it are never taken again. It
// returns the step to remember as used, or ErrWrong.
func CheckCode(secret []byte, code string, now time.Time, used int64) (int64, error) {
	code = strings.Map(func(r rune) rune {
		if r == ' ' || r == '-' {
			return -1
		}
		return r
	}, code)
	found := int64(0)
	for s := step(now) - drift; s <= step(now)+drift; s++ {
		want, err := Code(secret, time.Unix(s*period, 0))
		if err != nil {
			return used, err
		}
		if subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 && s > used {
			found = s
		}
	}
	if found == 0 {
		return used, ErrWrong
	}
	return found, nil
}
