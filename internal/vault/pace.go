package vault

import (
	"net/http"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// Azure's limits for each vault, in ten seconds: keys that are made, secrets that
// are set, all else.
var (
	paceKeys    = pace{"keys", gate.Rate{Size: 20, Second: 2}}
	paceSecrets = pace{"secrets", gate.Rate{Size: 300, Second: 30}}
	paceRest    = pace{"rest", gate.Rate{Size: 4000, Second: 400}}
)

type pace struct {
	kind string
	rate gate.Rate
}

// paces are the actions that have limits of their own.
var paces = map[string]pace{
	KeyCreate.Key(): paceKeys, KeyRotate.Key(): paceKeys, CertificateCreate.Key(): paceKeys, SecretSet.Key(): paceSecrets,
}

// throttled says when to come again.
type throttled struct {
	wait int // seconds
	error
}

func (t *throttled) Unwrap() error { return t.error }

func (s *Service) take(key string, p pace) error {
	if s.Pace == 0 {
		return nil
	}
	if _, wait := s.pace.Take(key+"|"+p.kind, p.rate.Times(s.Pace)); wait > 0 {
		return &throttled{wait, &arm.Error{Code: "Throttled", Status: http.StatusTooManyRequests, Message: "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached"}}
	}
	return nil
}

// pass holds each caller at each vault to what the vault has for all: one who goes
// too fast is refused before anything is asked for them, and who may do nothing
// there takes nothing from those who may.
func (s *Service) pass(_ http.ResponseWriter, r *http.Request, who arm.Caller) (done func(), err error) {
	name := arm.Label(r.Host, s.Site.VaultSuffix())
	if s.byName(name) == nil {
		name = "" // names that callers make up have no buckets
	}
	return func() {}, s.take("caller|"+name+"|"+who.Tenant+"|"+who.Object, paceRest)
}

// paced holds a vault to its pace, all callers together.
func (s *Service) paced(uid string, a arm.Action) error {
	p, ok := paces[a.Key()]
	if !ok {
		p = paceRest
	}
	return s.take("vault|"+uid, p)
}
