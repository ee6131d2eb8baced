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

// bundle is a secret as Key Vault shows it; in lists of secrets the id names no version.
func (s *Service) bundle(r *http.Request, x Secret, versioned bool) map[string]any {
	out := map[string]any{"id": s.base(r) + "secrets/" + x.Name, "attributes": s.attributes(r, x.Attributes)}
	if versioned {
		out["id"] = s.base(r) + "secrets/" + x.Name + "/" + x.Version
	}
	if !x.Value.IsZero() {
		out["value"] = string(x.Value.Reveal())
	}
	if x.ContentType != "" {
		out["contentType"] = x.ContentType
	}
	if len(x.Tags) > 0 {
		out["tags"] = x.Tags
	}
	return out
}

func (s *Service) bundleBin(r *http.Request, x Deleted, versioned bool) map[string]any {
	out := s.bundle(r, x.Secret, versioned)
	out["recoveryId"] = s.base(r) + "deletedsecrets/" + x.Name
	out["deletedDate"] = x.At.Unix()
	out["scheduledPurgeDate"] = x.Purge.Unix()
	return out
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
