package outside

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/cmk"
)

const (
	apiVersion = "7.4"
	algorithm  = "RSA-OAEP-256" // RFC 7518, section 4.3
)

var _ cmk.Vaults = (*Vaults)(nil)

// bundle is a key as a vault shows it.
type bundle struct {
	Key struct {
		ID  string   `json:"kid"`
		Ops []string `json:"key_ops"`
	} `json:"key"`
	Attributes struct {
		Enabled  *bool  `json:"enabled"`
		From     int64  `json:"nbf"` // seconds since 1970, 0 for none
		Until    int64  `json:"exp"`
		Recovery string `json:"recoveryLevel"`
	} `json:"attributes"`
}

// get reads a version of a key, or with "" the newest, if it may be used now.
func (v *Vaults) get(ctx context.Context, r cmk.Ref, version string) (b bundle, is string, err error) {
	if err := v.do(ctx, r, http.MethodGet, "/keys/"+url.PathEscape(r.Key)+"/"+url.PathEscape(version), nil, &b); err != nil {
		return b, "", err
	}
	name, is, err := keyOf(r.Host, b.Key.ID)
	if err == nil && (!strings.EqualFold(name, r.Key) || version != "" && is != version) {
		err = errors.New("it answers with another key")
	}
	if err != nil {
		return b, "", fmt.Errorf("the vault %s: %w", r.Host, err)
	}
	a, now := b.Attributes, v.now().Unix()
	if a.Enabled != nil && !*a.Enabled || a.From != 0 && now < a.From || a.Until != 0 && now >= a.Until {
		return b, "", arm.Errorf(arm.NotFound, "the key is disabled, expired or not valid yet")
	}
	return b, is, nil
}

// keyOf reads a key's identifier, which must be of the host.
func keyOf(host, id string) (name, version string, err error) {
	u, err := url.Parse(id)
	if err == nil && u.Scheme == "https" && strings.EqualFold(strings.TrimSuffix(u.Host, ":443"), host) {
		if p := strings.Split(strings.Trim(u.Path, "/"), "/"); len(p) == 3 && p[0] == "keys" {
			return p[1], p[2], nil
		}
	}
	return "", "", errors.New("it answers with no key of its own")
}

// Newest is the version of the key that is used if none is named.
func (v *Vaults) Newest(ctx context.Context, r cmk.Ref) (string, error) {
	_, is, err := v.get(ctx, r, "")
	return is, err
}

// Fit wants a vault that keeps what is deleted: else one deletion could be the
// end of all that the key guards.
func (v *Vaults) Fit(ctx context.Context, r cmk.Ref) error {
	b, _, err := v.get(ctx, r, r.Version)
	if err != nil {
		return cmk.AsBadRequest(cmk.Refused(err, r))
	}
	if level := b.Attributes.Recovery; level == "" || strings.Contains(level, "Purgeable") {
		return arm.Errorf("KeyVaultPolicyError", "The key vault '%s' must have purge protection (enablePurgeProtection) before one of its keys can guard data: without it the key, and with it the data, could be destroyed at once.", r.Host)
	}
	return nil
}

// Usable is nil: the vault is far away, so what it said last stands until the
// lease ends.
func (v *Vaults) Usable(context.Context, cmk.Ref, string) error { return nil }

func (v *Vaults) Wrap(ctx context.Context, r cmk.Ref, version string, plain []byte) ([]byte, error) {
	return v.use(ctx, r, version, "wrapkey", plain)
}

// Unwrap looks at the key first: what is expired shuts what it guards, though the
// vault would unwrap still.
func (v *Vaults) Unwrap(ctx context.Context, r cmk.Ref, version string, wrapped []byte) ([]byte, error) {
	if _, _, err := v.get(ctx, r, version); err != nil {
		return nil, err
	}
	return v.use(ctx, r, version, "unwrapkey", wrapped)
}

func (v *Vaults) use(ctx context.Context, r cmk.Ref, version, verb string, in []byte) ([]byte, error) {
	var out struct {
		ID    string `json:"kid"`
		Value string `json:"value"`
	}
	body := map[string]string{"alg": algorithm, "value": base64.RawURLEncoding.EncodeToString(in)}
	if err := v.do(ctx, r, http.MethodPost, "/keys/"+url.PathEscape(r.Key)+"/"+url.PathEscape(version)+"/"+verb, body, &out); err != nil {
		return nil, err
	}
	if _, is, err := keyOf(r.Host, out.ID); err != nil || is != version {
		return nil, fmt.Errorf("the vault %s used another version of the key", r.Host)
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(out.Value, "="))
	if err != nil || len(b) == 0 || len(b) > 1024 {
		return nil, fmt.Errorf("the vault %s gave no value that can be read", r.Host)
	}
	return b, nil
}

// forget is how long before its end a token is no longer used.
const forget = 5 * time.Minute
