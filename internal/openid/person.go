package openid

import (
	"strings"
	"time"
)

// Person is whom a provider vouches for. Only Issuer and Subject together say
// who it is; everything else is what the provider says of them.
type Person struct {
	Issuer, Subject string
	Methods         []string  // amr of the ID token
	Class           string    // acr of the ID token
	At              time.Time // auth_time; zero if the provider does not say
	Claims          map[string]any
}

// Text is the claim of this name, or "" if it is no text.
func (p Person) Text(name string) string {
	s, _ := p.Claims[name].(string)
	return strings.TrimSpace(s)
}

// Texts is the claim of this name as a list; one text is a list of one.
func (p Person) Texts(name string) []string { return texts(p.Claims[name]) }

func texts(v any) []string {
	switch x := v.(type) {
	case string:
		return []string{x}
	case []any:
		var out []string
		for _, e := range x {
			if s, ok := e.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	return nil
}
