package identity

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"castellan/internal/access"
	"castellan/internal/arm"
)

// demand is what a request's parameter claims (OpenID Connect Core 5.5) asks of
// the tokens: what the client can do, and what the person must have shown.
type demand struct {
	CP1      bool     `json:",omitempty"` // the client can answer claims challenges (xms_cc)
	MFA      bool     `json:",omitempty"` // several factors, whatever the policies want (amr)
	Contexts []string `json:",omitempty"` // authentication contexts that the token must be of (acrs, essential)
	Wished   []string `json:",omitempty"` // and those that it may be of
}

// and is what two requests of one sign-in ask together.
func (d demand) and(o demand) demand {
	d.CP1, d.MFA = d.CP1 || o.CP1, d.MFA || o.MFA
	d.Contexts, d.Wished = union(d.Contexts, o.Contexts), union(d.Wished, o.Wished)
	return d
}

// union are the members of both lists, each once, in order.
func union(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}

// wanted is one claim as a request names it (OpenID Connect Core 5.5.1).
type wanted struct {
	essential bool
	values    []string
}

// capabilityCP1 is the one client capability that there is, in any letter case.
const capabilityCP1 = "cp1"

// readDemand reads the parameter claims. Claims that aren't known here are
// passed over, as the standard wants; what is malformed is refused.
func (s *Service) readDemand(text string) (d demand, err error) {
	if text == "" {
		return d, nil
	}
	tree, err := arm.ParseJSON([]byte(text))
	if err != nil {
		return d, badClaims("it must be one JSON object, in which no name stands twice")
	}
	all, ok := tree.(map[string]any)
	if !ok {
		return d, badClaims("it must be one JSON object")
	}
	for _, where := range []string{"access_token", "id_token", "userinfo"} {
		members, ok := all[where].(map[string]any)
		if !ok && all[where] != nil {
			return d, badClaims(where + " must be an object")
		}
		for name, v := range members {
			w, err := readWanted(v)
			if err != nil {
				return d, badClaims(where + "." + printable(name) + " " + err.Error())
			}
			if err := s.take(&d, where, name, w); err != nil {
				return d, err
			}
		}
	}
	d.Contexts, d.Wished = union(d.Contexts, nil), union(d.Wished, nil)
	return d, nil
}

// take adds one claim to d.
func (s *Service) take(d *demand, where, name string, w wanted) error {
	if name == "amr" && where != "userinfo" {
		d.MFA = d.MFA || slices.Contains(w.values, "mfa")
	}
	if where != "access_token" {
		return nil
	}
	switch name {
	case "xms_cc":
		d.CP1 = d.CP1 || slices.ContainsFunc(w.values, func(v string) bool { return strings.EqualFold(v, capabilityCP1) })
	case "acrs":
		for _, v := range w.values {
			if !access.IsContext(v) {
				return badClaims("access_token.acrs has '" + printable(v) + "'; authentication contexts are c1 to c99")
			}
		}
		if w.essential {
			d.Contexts = append(d.Contexts, w.values...)
		} else {
			d.Wished = append(d.Wished, w.values...)
		}
	case "nbf":
		return s.notBefore(w)
	}
	return nil
}

// notBefore wants a token that is made now to be as new as a challenge asks:
// every token is made anew, out of what holds now.
func (s *Service) notBefore(w wanted) error {
	for _, v := range w.values {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 0 {
			return badClaims("access_token.nbf must be seconds since 1970")
		}
		if w.essential && time.Unix(n, 0).After(s.Now().Add(skew)) {
			return badClaims("access_token.nbf lies in the future, and no token can be made of it yet")
		}
	}
	return nil
}

func badClaims(why string) error {
	return problemf(900144, "invalid_request", "The parameter 'claims' is not valid: %s.", why)
}

// maxWanted is how many values one claim may name.
const maxWanted = 100

// readWanted reads what one claim's member says: null, or an object of
// essential, value and values; other members are passed over.
func readWanted(v any) (w wanted, err error) {
	if v == nil {
		return w, nil
	}
	o, ok := v.(map[string]any)
	if !ok {
		return w, errors.New("must be null or an object")
	}
	if e, ok := o["essential"]; ok {
		if w.essential, ok = e.(bool); !ok {
			return w, errors.New("must have true or false as essential")
		}
	}
	list, ok := o["values"].([]any)
	if !ok && o["values"] != nil || len(list) > maxWanted {
		return w, errors.New("must have a list of at most " + strconv.Itoa(maxWanted) + " as values")
	}
	if one, ok := o["value"]; ok {
		list = append(list, one)
	}
	for _, x := range list {
		switch x := x.(type) {
		case string:
			w.values = append(w.values, x)
		case json.Number:
			w.values = append(w.values, x.String())
		case bool:
			w.values = append(w.values, strconv.FormatBool(x))
		default:
			return w, errors.New("must have texts or numbers as its values")
		}
	}
	return w, nil
}

// claimsText is a claims request for an access token, as clients send it.
func claimsText(claims map[string]any) string {
	b, err := json.Marshal(map[string]any{"access_token": claims})
	if err != nil {
		return "" // texts and lists of them can be marshalled
	}
	return string(b)
}
