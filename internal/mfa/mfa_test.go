package mfa

import (
	"bytes"
	"encoding/base32"
	"errors"
	"strings"
	"testing"
	"time"

	"castellan/internal/mfa/mfatest"
)

// Codes are those of RFC 6238, appendix B, cut to six digits.
func TestCodesAreRFC6238s(t *testing.T) {
	secret := []byte("12345678901234567890")
	for at, want := range map[int64]string{59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130"} {
		if got, err := Code(secret, time.Unix(at, 0)); err != nil || got != want {
			t.Errorf("at %d: %q, %v; want %q", at, got, err, want)
		}
	}
}

// A code is good for its step and one beside it, once, and no older one after it.
func TestCodesAreGoodOnce(t *testing.T) {
	secret, now := NewSecret(), time.Unix(1_800_000_015, 0)
	code := func(steps int) string {
		c, err := Code(secret, now.Add(time.Duration(steps)*period*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, s := range []int{-3, -2, 2, 3, 1000} {
		if _, err := CheckCode(secret, code(s), now, 0); !errors.Is(err, ErrWrong) {
			t.Errorf("%d steps away: %v", s, err)
		}
	}
	for _, bad := range []string{"", "0", "000000000000", "abcdef", code(0)[:5], code(0) + "0", "\x00" + code(0)} {
		if _, err := CheckCode(secret, bad, now, 0); !errors.Is(err, ErrWrong) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	used, err := CheckCode(secret, " "+code(0)[:3]+" "+code(0)[3:], now, 0)
	if err != nil || used != step(now) {
		t.Fatalf("the code itself: %d, %v", used, err)
	}
	for _, s := range []int{-1, 0} {
		if _, err := CheckCode(secret, code(s), now, used); !errors.Is(err, ErrWrong) {
			t.Errorf("%d steps on, after it was used: %v", s, err)
		}
	}
	if _, err := CheckCode(secret, code(1), now, used); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

// What an app reads from the picture, and what a person types, is the secret.
func TestSecretsAreToldAlike(t *testing.T) {
	secret := NewSecret()
	typed, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ReplaceAll(Typed(secret), " ", ""))
	if err != nil || !bytes.Equal(typed, secret) {
		t.Errorf("typed: %x, %v; want %x", typed, err, secret)
	}
	uri := URI("Castellan & Co", "ann@castellan.localhost", secret)
	if want := "otpauth://totp/Castellan%20&%20Co:ann@castellan.localhost?"; !strings.HasPrefix(uri, want) || !strings.Contains(uri, "issuer=Castellan%20%26%20Co") || strings.Contains(uri, "+") {
		t.Errorf("%s", uri)
	}
	svg, err := QR(uri, `a "label" <x>`)
	if err != nil || !strings.HasPrefix(svg, "<svg") || strings.Contains(svg, "<x>") || strings.Contains(svg, "href") {
		t.Errorf("%.200s, %v", svg, err)
	}
}

// A recovery code is good once, however it is typed, and tells nothing of others.
func TestRecoveryCodesAreGoodOnce(t *testing.T) {
	codes, hashes := NewRecovery()
	if len(codes) != recoveryCodes || len(hashes) != recoveryCodes {
		t.Fatalf("%d codes, %d hashes", len(codes), len(hashes))
	}
	seen := map[string]bool{}
	for i, c := range codes {
		if seen[c] || bytes.Contains(hashes[i], []byte(c)) {
			t.Errorf("code %d is there twice or in the clear", i)
		}
		seen[c] = true
	}
	left, err := UseRecovery(hashes, " "+strings.ToLower(strings.ReplaceAll(codes[3], "-", " ")))
	if err != nil || len(left) != recoveryCodes-1 || len(hashes) != recoveryCodes {
		t.Fatalf("%d left, %v", len(left), err)
	}
	for _, bad := range []string{codes[3], "", codes[4][:len(codes[4])-1], codes[4] + "A", codes[0][:9] + codes[1][9:]} {
		if _, err := UseRecovery(left, bad); !errors.Is(err, ErrWrong) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := UseRecovery(nil, codes[0]); !errors.Is(err, ErrWrong) {
		t.Errorf("none left: %v", err)
	}
}

var party = Party{Host: "castellan.localhost", Name: "Castellan", Origin: "https://castellan.localhost:8443"}

// registered is a device with a passkey, and its owner.
func registered(t *testing.T) (*mfatest.Device, Person) {
	t.Helper()
	d := &mfatest.Device{Origin: party.Origin, Host: party.Host, Count: 1}
	who := Person{Handle: "the handle", Name: "ann", Display: "Ann"}
	ask, err := party.AskNew(who)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := d.Create(ask.Options)
	if err != nil {
		t.Fatal(err)
	}
	key, err := party.TakeNew(who, ask.State, answer)
	if err != nil {
		t.Fatal(err)
	}
	who.Passkeys = []Passkey{key}
	return d, who
}

func take(t *testing.T, d *mfatest.Device, who Person) (Passkey, error) {
	t.Helper()
	ask, err := party.AskAny()
	if err != nil {
		t.Fatal(err)
	}
	answer, err := d.Get(ask.Options)
	if err != nil {
		t.Fatal(err)
	}
	return party.Take(who, ask.State, answer)
}

// A passkey signs in its owner, at the origin that asks, with the user verified,
// and counting upwards. Anything else is refused.
func TestPasskeys(t *testing.T) {
	d, who := registered(t)
	key, err := take(t, d, who)
	if err != nil || key.Count != 2 {
		t.Fatalf("%+v, %v", key, err)
	}
	who.Passkeys[0] = key
	for name, change := range map[string]func(*mfatest.Device, *Person){
		"another site":              func(d *mfatest.Device, _ *Person) { d.Origin = "https://castellan.localhost.evil.example" },
		"another port":              func(d *mfatest.Device, _ *Person) { d.Origin = "https://castellan.localhost:8444" },
		"plain http":                func(d *mfatest.Device, _ *Person) { d.Origin = "http://castellan.localhost:8443" },
		"another host's key":        func(d *mfatest.Device, _ *Person) { d.Host = "evil.example" },
		"nobody verified":           func(d *mfatest.Device, _ *Person) { d.Unverified = true },
		"another person":            func(d *mfatest.Device, _ *Person) { d.Handle = []byte("another") },
		"no person":                 func(d *mfatest.Device, _ *Person) { d.Handle = nil },
		"a key that is not known":   func(_ *mfatest.Device, p *Person) { p.Passkeys = nil },
		"a key of another's":        func(_ *mfatest.Device, p *Person) { _, other := registered(t); p.Passkeys = other.Passkeys },
		"another key under this id": func(d *mfatest.Device, p *Person) { x, _ := registered(t); x.ID, x.Handle = d.ID, d.Handle; *d = *x },
		"a counter that stands":     func(d *mfatest.Device, _ *Person) { d.Count = key.Count - 1 },
		"a counter that goes back": func(d *mfatest.Device, p *Person) {
			p.Passkeys = append([]Passkey{}, p.Passkeys...)
			p.Passkeys[0].Count = 50
		},
		"a counter that stopped": func(d *mfatest.Device, _ *Person) { d.Count = 0 },
	} {
		bad, p := d.Copy(), who
		change(bad, &p)
		_, err := take(t, bad, p)
		if !errors.Is(err, ErrWrong) && !errors.Is(err, ErrCloned) {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(name, "counter") != errors.Is(err, ErrCloned) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An answer is good for the question that it answers.
func TestAnswersAnswerTheirQuestion(t *testing.T) {
	d, who := registered(t)
	one, _ := party.AskAny()
	two, _ := party.AskAny()
	answer, _ := d.Get(one.Options)
	if _, err := party.Take(who, two.State, answer); !errors.Is(err, ErrWrong) {
		t.Errorf("another question: %v", err)
	}
	fresh, _ := party.AskNew(who)
	if _, err := party.TakeNew(who, fresh.State, answer); !errors.Is(err, ErrWrong) {
		t.Errorf("a signature taken for a registration: %v", err)
	}
	made, _ := d.Copy().Create(one.Options)
	if _, err := party.Take(who, one.State, made); !errors.Is(err, ErrWrong) {
		t.Errorf("a registration taken for a signature: %v", err)
	}
	for _, bad := range [][]byte{nil, []byte("{}"), []byte("null"), []byte("[]"), bytes.Replace(answer, []byte(`"id"`), []byte(`"ID":"x","id"`), 1), append(answer, answer...)} {
		if _, err := party.Take(who, one.State, bad); !errors.Is(err, ErrWrong) {
			t.Errorf("%.40s: %v", bad, err)
		}
		if _, _, err := Owner(bad); !errors.Is(err, ErrWrong) {
			t.Errorf("whose is %.40s: %v", bad, err)
		}
	}
	unverified := d.Copy()
	unverified.Unverified = true
	lazy, _ := party.AskAny()
	lazy.State = bytes.Replace(lazy.State, []byte(`"required"`), []byte(`"preferred"`), 1)
	answer, _ = unverified.Get(lazy.Options)
	if _, err := party.Take(who, lazy.State, answer); !errors.Is(err, ErrWrong) {
		t.Errorf("a state that does not ask for verification: %v", err)
	}
}
