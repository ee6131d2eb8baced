package blob

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"castellan/internal/arm"
)

// maxSkew is how far a request's date may be from now.
const maxSkew = 15 * time.Minute

func hmacOf(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	_, _ = m.Write([]byte(text)) // never fails
	return m.Sum(nil)
}

// bySharedKey is the caller who signed r with an account key.
func (s *Service) bySharedKey(a *account, scheme, credentials string, r *http.Request, q query) (arm.Caller, error) {
	name, sig, ok := strings.Cut(credentials, ":")
	given, err := base64.StdEncoding.DecodeString(sig)
	if !ok || err != nil {
		return arm.Caller{}, fail(http.StatusBadRequest, "InvalidAuthenticationInfo", "The Authorization header must be %s ACCOUNT:SIGNATURE, the signature in base64.", scheme)
	}
	if a == nil || name != a.ID.Name() && name != nameKey(a.ID.Name()) {
		return arm.Caller{}, unauthentic("the Authorization header names another account than the host, or there is none")
	}
	if !a.sharedKey {
		return arm.Caller{}, noKeys()
	}
	if err := s.fresh(r); err != nil {
		return arm.Caller{}, err
	}
	for _, order := range []func(a, b string) int{strings.Compare, culture} {
		text := toSign(r, q, name, order)
		if scheme == "SharedKeyLite" {
			text = toSignLite(r, q, name, order)
		}
		if i := a.signer(given, text); i > 0 {
			return s.keyCaller(a, i), nil
		}
	}
	return arm.Caller{}, unauthentic("the signature in the Authorization header is not that of the request under either key of the account")
}

// signer is which key signed text so: 1, 2, or 0 if none did.
func (a *account) signer(given []byte, text string) (which int) {
	for i, k := range a.Keys {
		if hmac.Equal(given, hmacOf(k.Value, text)) {
			which = i + 1
		}
	}
	return which
}

func noKeys() error {
	return fail(http.StatusForbidden, "KeyBasedAuthenticationNotPermitted", "Key based authentication is not permitted on this storage account.")
}

// keyCaller is whoever has one of the account's keys.
func (s *Service) keyCaller(a *account, which int) arm.Caller {
	why := "key" + strconv.Itoa(which) + " of the account"
	return arm.Caller{
		Tenant: s.Site.TenantOf(a.ID), Object: "storageaccount:" + a.UID, Kind: arm.ServicePrincipal, Name: "whoever has " + why + " " + a.ID.Name(), Token: "sharedkey",
		Lease: &arm.Lease{Scope: a.ID, Actions: byKey, Why: why},
	}
}

// KeyCaller is whoever has key, in base64, which must be one of the account's.
func (s *Service) KeyCaller(id arm.ID, key arm.Secret) (arm.Caller, error) {
	a := s.byID(id)
	if a == nil {
		return arm.Caller{}, noAccount(id.Name())
	}
	if !a.sharedKey {
		return arm.Caller{}, noKeys()
	}
	given, err := base64.StdEncoding.DecodeString(string(key.Reveal()))
	if err == nil {
		for i, k := range a.Keys {
			if hmac.Equal(given, k.Value) {
				return s.keyCaller(a, i+1), nil
			}
		}
	}
	return arm.Caller{}, unauthentic("the key is not one of the account's")
}

// fresh wants the request's date to be about now.
func (s *Service) fresh(r *http.Request) error {
	v := text(r.Header.Get("x-ms-date"), r.Header.Get("Date"))
	t, err := http.ParseTime(v)
	if err != nil {
		return unauthentic("a request that is signed with a key needs a date in x-ms-date or Date")
	}
	if d := s.Now().Sub(t); d > maxSkew || d < -maxSkew {
		return unauthentic("the request's date is more than 15 minutes from now")
	}
	return nil
}

// header is a header's one line, as signatures have it.
func header(r *http.Request, name string) string { return strings.Join(r.Header.Values(name), ",") }

// toSign is the text that SharedKey signs, as versions from 2015-02-21 on have it.
func toSign(r *http.Request, q query, account string, order func(a, b string) int) string {
	length := ""
	if r.ContentLength > 0 {
		length = strconv.FormatInt(r.ContentLength, 10)
	}
	date := header(r, "Date")
	if r.Header.Get("x-ms-date") != "" {
		date = ""
	}
	lines := []string{
		r.Method, header(r, "Content-Encoding"), header(r, "Content-Language"), length, header(r, "Content-MD5"), header(r, "Content-Type"), date,
		header(r, "If-Modified-Since"), header(r, "If-Match"), header(r, "If-None-Match"), header(r, "If-Unmodified-Since"), header(r, "Range"),
	}
	text := strings.Join(lines, "\n") + "\n" + signedHeaders(r, order) + "/" + account + rawPath(r)
	var names []string
	for k := range q {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		text += "\n" + k + ":" + q[k]
	}
	return text
}

// toSignLite is the text that SharedKeyLite signs.
func toSignLite(r *http.Request, q query, account string, order func(a, b string) int) string {
	date := header(r, "Date")
	if r.Header.Get("x-ms-date") != "" {
		date = ""
	}
	text := strings.Join([]string{r.Method, header(r, "Content-MD5"), header(r, "Content-Type"), date}, "\n") + "\n" + signedHeaders(r, order) + "/" + account + rawPath(r)
	if comp, ok := q["comp"]; ok {
		text += "?comp=" + comp
	}
	return text
}

// rawPath is the path as it was sent.
func rawPath(r *http.Request) string {
	if p, _, _ := strings.Cut(r.RequestURI, "?"); strings.HasPrefix(p, "/") {
		return p
	}
	return text(r.URL.EscapedPath(), "/")
}

// signedHeaders are all x-ms- headers, one a line, in an order that clients do
// not agree about.
func signedHeaders(r *http.Request, order func(a, b string) int) string {
	values := map[string]string{}
	var names []string
	for k, vs := range r.Header {
		if k = strings.ToLower(k); strings.HasPrefix(k, "x-ms-") {
			names = append(names, k)
			trimmed := make([]string, len(vs))
			for i, v := range vs {
				trimmed[i] = strings.TrimSpace(v)
			}
			values[k] = strings.Join(trimmed, ",")
		}
	}
	slices.SortFunc(names, order)
	var b strings.Builder
	for _, k := range names {
		b.WriteString(k + ":" + values[k] + "\n")
	}
	return b.String()
}

// culture compares as newer clients do: hyphens count for nothing, and
// underscores come before digits.
func culture(a, b string) int {
	if c := strings.Compare(weigh(a), weigh(b)); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}

func weigh(s string) string {
	return strings.NewReplacer("-", "", "_", "\x01").Replace(s)
}
