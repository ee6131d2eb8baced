package vault

import (
	"net/http"
	"strings"
	"time"

	"castellan/internal/arm"
)

// base is the URL of the vault that the request is for.
func (s *Service) base(r *http.Request) string {
	return s.Site.VaultURL(arm.Label(r.Host, s.Site.VaultSuffix()))
}

// lastSegment is the path's nth segment, counted from one, or "".
func lastSegment(r *http.Request, n int) string {
	p := strings.Split(r.URL.Path, "/")
	if len(p) <= n {
		return ""
	}
	return p[n]
}

// form says how much of an object is shown.
type form int

const (
	whole     form = iota // all that may be seen
	versioned             // what a list of versions has
	item                  // what a list of names has: no version
)

// bundle is x as Key Vault shows it.
func (s *Service) bundle(r *http.Request, c *class, x Object, f form) map[string]any {
	tail := x.Name
	if f != item {
		tail += "/" + x.Version
	}
	id := s.base(r) + c.path + "/" + tail
	out := map[string]any{"attributes": s.attributes(r, x.Attributes)}
	switch {
	case c == keys && f == whole:
		out["key"] = x.Key.show(id)
	case c == keys:
		out["kid"] = id
	default:
		out["id"] = id
	}
	if c == certificates {
		s.showCertificate(r, out, tail, x, f)
	} else if !x.Value.IsZero() {
		out["value"] = string(x.Value.Reveal())
	}
	if x.Managed {
		out["managed"] = true
		if c == secrets && f == whole {
			out["kid"] = s.base(r) + keys.path + "/" + tail
		}
	}
	if x.ContentType != "" {
		out["contentType"] = x.ContentType
	}
	if len(x.Tags) > 0 {
		out["tags"] = x.Tags
	}
	if !x.Deleted.IsZero() {
		out["recoveryId"] = s.base(r) + "deleted" + c.path + "/" + x.Name
		out["deletedDate"] = x.Deleted.Unix()
		out["scheduledPurgeDate"] = x.Purge.Unix()
	}
	return out
}

// showCertificate adds what certificates have besides.
func (s *Service) showCertificate(r *http.Request, out map[string]any, tail string, x Object, f form) {
	out["x5t"] = x.Thumbprint
	if f != whole {
		return
	}
	out["kid"], out["sid"] = s.base(r)+keys.path+"/"+tail, s.base(r)+secrets.path+"/"+tail
	p := *x.Policy
	p.ID = s.base(r) + certificates.path + "/" + x.Name + "/policy"
	out["policy"], out["contentType"] = p, p.Secret.ContentType
	if !x.Value.IsZero() {
		out["cer"] = x.Value.Reveal()
	}
	if x.Pending {
		out["pending"] = map[string]any{"id": s.base(r) + certificates.path + "/" + x.Name + "/pending"}
	}
}

func (s *Service) attributes(r *http.Request, a Attributes) map[string]any {
	out := map[string]any{"enabled": a.Enabled, "created": a.Created.Unix(), "updated": a.Updated.Unix()}
	add := func(name string, t *time.Time) {
		if t != nil {
			out[name] = t.Unix()
		}
	}
	add("nbf", a.NotBefore)
	add("exp", a.Expires)
	if v := s.byName(arm.Label(r.Host, s.Site.VaultSuffix())); v != nil {
		out["recoveryLevel"], out["recoverableDays"] = v.Props.recoveryLevel(), v.Props.retention()
	}
	return out
}

// recoveryLevel says in Key Vault's words what happens to what is deleted.
func (p Properties) recoveryLevel() string {
	level := "Recoverable"
	if p.retention() < maxRetention {
		level = "CustomizedRecoverable"
	}
	if !p.protected() {
		level += "+Purgeable"
	}
	return level
}
