package vault

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// Plane is the face of the vaults' content, on one host per vault.
func (s *Service) Plane() *gate.Plane {
	return &gate.Plane{
		Name:   "vault",
		Host:   func(host string) bool { return arm.Label(host, s.Site.VaultSuffix()) != "" },
		Who:    s.who,
		Refuse: s.refuse,
		Routes: []gate.Route{
			gate.On(SecretMetadata, "GET /secrets", s.atVault, s.list(s.listSecrets)),
			gate.On(SecretMetadata, "GET /secrets/", s.atVault, s.list(s.listSecrets)),
			gate.On(SecretSet, "PUT /secrets/{name}", s.atSecret, s.set),
			gate.On(SecretSet, "PUT /secrets/{name}/", s.atSecret, s.set),
			gate.On(SecretGet, "GET /secrets/{name}", s.atSecret, s.get),
			gate.On(SecretGet, "GET /secrets/{name}/", s.atSecret, s.get),
			gate.On(SecretGet, "GET /secrets/{name}/{version}", s.atSecret, s.get),
			gate.On(SecretMetadata, "GET /secrets/{name}/versions", s.atSecret, s.list(s.listVersions)),
			gate.On(SecretUpdate, "PATCH /secrets/{name}", s.atSecret, s.update),
			gate.On(SecretUpdate, "PATCH /secrets/{name}/", s.atSecret, s.update),
			gate.On(SecretUpdate, "PATCH /secrets/{name}/{version}", s.atSecret, s.update),
			gate.On(SecretDelete, "DELETE /secrets/{name}", s.atSecret, s.delete),
			gate.On(SecretMetadata, "GET /deletedsecrets", s.atVault, s.list(s.listBin)),
			gate.On(SecretMetadata, "GET /deletedsecrets/{name}", s.atSecret, s.getBin),
			gate.On(SecretPurge, "DELETE /deletedsecrets/{name}", s.atSecret, s.purgeSecret),
			gate.On(SecretRecover, "POST /deletedsecrets/{name}/recover", s.atSecret, s.recoverSecret),
		},
	}
}

func (s *Service) who(r *http.Request) (arm.Caller, error) {
	if s.Who == nil {
		return arm.Caller{}, arm.Errorf(arm.Unauthenticated, "this vault has no way to know who asks")
	}
	return s.Who(r)
}

var planeVersion = regexp.MustCompile(`^(7\.[0-9]|20[0-9]{2}-[01][0-9]-[0-3][0-9])(-preview(\.[0-9])?)?$`)

// atVault finds the vault that the host names.
func (s *Service) atVault(r *http.Request, _ gate.Vars) (gate.Target, error) {
	switch v := r.URL.Query()["api-version"]; {
	case len(v) == 0:
		return gate.Target{}, bad("the api-version query parameter (?api-version=) is required for all requests")
	case len(v) > 1 || !planeVersion.MatchString(v[0]):
		return gate.Target{}, bad("the api-version is invalid; it must be one version such as 7.5 or 2025-07-01")
	}
	name := arm.Label(r.Host, s.Site.VaultSuffix())
	v := s.byName(name)
	if v == nil {
		return gate.Target{}, noVault(name)
	}
	return gate.Target{ID: v.ID}, nil
}

func (s *Service) atSecret(r *http.Request, v gate.Vars) (gate.Target, error) {
	t, err := s.atVault(r, v)
	if err != nil {
		return t, err
	}
	t, err = SecretTarget(t.ID, v["name"])
	if err == nil && v["version"] != "" && !versionForm.MatchString(v["version"]) {
		err = bad("the version %q is invalid; it must be 32 hexadecimal digits", v["version"])
	}
	return t, err
}

// refuse writes err as Key Vault does. Who did not prove who they are is told
// where to get a token for which audience.
func (s *Service) refuse(w http.ResponseWriter, r *http.Request, err error) {
	code, message := gate.PublicError(err)
	inner := ""
	var f *fault
	switch {
	case errors.As(err, &f):
		inner = f.inner
	case code == arm.Forbidden:
		code, inner = "Forbidden", "ForbiddenByRbac"
		if v := s.byName(arm.Label(r.Host, s.Site.VaultSuffix())); v != nil && !v.Props.rbac() {
			inner = "ForbiddenByPolicy"
		}
	case code == arm.InvalidRequest:
		code = "BadParameter"
	}
	status := gate.Status(err)
	if status == http.StatusUnauthorized {
		code = "Unauthorized"
		w.Header().Set("WWW-Authenticate", `Bearer authorization="`+s.Site.Base()+"/"+s.tenant(r)+`", resource="https://`+s.Site.VaultSuffix()+`"`+gate.Challenge(err))
	}
	body := map[string]any{"code": code, "message": message}
	if inner != "" {
		body["innererror"] = map[string]any{"code": inner}
	}
	gate.WriteJSON(w, status, map[string]any{"error": body})
}

// tenant is the one that people of the request's vault sign in to.
func (s *Service) tenant(r *http.Request) string {
	if v := s.byName(arm.Label(r.Host, s.Site.VaultSuffix())); v != nil {
		return s.Site.TenantOf(v.ID)
	}
	return s.Site.Tenant
}

// maxBody is the most bytes of a request: a value, every byte of it escaped, and tags.
const maxBody = 256 << 10

// decode reads a request. A value that is no text is refused before anything
// could repeat it in an error.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		return arm.Errorf(arm.TooLarge, "the request body is larger than %d bytes", maxBody)
	}
	if err != nil {
		return &arm.Error{Code: "BadParameter", Message: "the request body could not be read", Err: err}
	}
	tree, err := arm.ParseJSON(data)
	if err != nil {
		return err
	}
	m, ok := tree.(map[string]any)
	if !ok {
		return bad("the request body must be a JSON object")
	}
	if x, has := m["value"]; has {
		if _, text := x.(string); !text {
			return bad("the value must be a string")
		}
	}
	return arm.DecodeTree(tree, v)
}

// said is what a client says about a secret.
type said struct {
	Value       *string           `json:"value"`
	ContentType *string           `json:"contentType"`
	Tags        map[string]string `json:"tags"`
	ID          string            `json:"id" arm:"readonly"`
	Attributes  struct {
		Enabled   *bool  `json:"enabled"`
		NotBefore *int64 `json:"nbf"`
		Expires   *int64 `json:"exp"`
		Created   *int64 `json:"created" arm:"readonly"`
		Updated   *int64 `json:"updated" arm:"readonly"`
		Level     string `json:"recoveryLevel" arm:"readonly"`
		Days      int    `json:"recoverableDays" arm:"readonly"`
	} `json:"attributes"`
}

// moment is unix seconds as a time; years that JSON can't write are refused.
func moment(field string, t *int64) (*time.Time, error) {
	if t == nil {
		return nil, nil
	}
	if *t < 0 || *t > 253402300799 {
		return nil, bad("attributes.%s is %d; it must be seconds since 1970", field, *t)
	}
	u := time.Unix(*t, 0).UTC()
	return &u, nil
}

func (in said) times() (nbf, exp *time.Time, err error) {
	if nbf, err = moment("nbf", in.Attributes.NotBefore); err != nil {
		return nil, nil, err
	}
	exp, err = moment("exp", in.Attributes.Expires)
	return nbf, exp, err
}

func (in said) draft() (d Draft, err error) {
	if in.Value == nil || *in.Value == "" {
		return d, bad("the property value is missing or empty; a secret must have one")
	}
	d = Draft{Value: arm.NewSecret([]byte(*in.Value)), Tags: in.Tags}
	if in.ContentType != nil {
		d.ContentType = *in.ContentType
	}
	d.Disabled = in.Attributes.Enabled != nil && !*in.Attributes.Enabled
	d.NotBefore, d.Expires, err = in.times()
	return d, err
}

func (s *Service) set(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	var in said
	if err := decode(w, r, &in); err != nil {
		return err
	}
	d, err := in.draft()
	if err != nil {
		return err
	}
	out, err := s.SetSecret(r.Context(), g, d)
	return s.answer(w, r, out, err)
}

func (s *Service) get(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	out, err := s.GetSecret(r.Context(), g, lastSegment(r, 3))
	return s.answer(w, r, out, err)
}

func (s *Service) update(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	var in said
	if err := decode(w, r, &in); err != nil {
		return err
	}
	if in.Value != nil {
		return bad("a secret's value can't be updated; set the secret to make a new version")
	}
	nbf, exp, err := in.times()
	if err != nil {
		return err
	}
	out, err := s.UpdateSecret(r.Context(), g, lastSegment(r, 3), Amend{in.ContentType, in.Tags, in.Attributes.Enabled, nbf, exp})
	return s.answer(w, r, out, err)
}

func (s *Service) delete(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	out, err := s.DeleteSecret(r.Context(), g)
	return s.answerBin(w, r, out, err)
}

func (s *Service) getBin(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	out, err := s.DeletedSecret(r.Context(), g)
	return s.answerBin(w, r, out, err)
}

func (s *Service) recoverSecret(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	out, err := s.RecoverSecret(r.Context(), g)
	return s.answer(w, r, out, err)
}

func (s *Service) purgeSecret(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	if err := s.PurgeSecret(r.Context(), g); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Service) answer(w http.ResponseWriter, r *http.Request, x Secret, err error) error {
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, s.bundle(r, x, true))
	return nil
}

func (s *Service) answerBin(w http.ResponseWriter, r *http.Request, x Deleted, err error) error {
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, s.bundleBin(r, x, true))
	return nil
}

// list answers with one part of a list and where the next one is.
func (s *Service) list(part func(r *http.Request, g gate.Grant, after string, limit int) ([]any, string, error)) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		q := r.URL.Query()
		limit, err := pageSize(q)
		if err != nil {
			return err
		}
		after, err := base64.RawURLEncoding.DecodeString(q.Get("$skiptoken"))
		if err != nil || len(after) > 127 {
			return bad("the $skiptoken is not one that a nextLink gave")
		}
		items, next, err := part(r, g, string(after), limit)
		if err != nil {
			return err
		}
		out := map[string]any{"value": append([]any{}, items...), "nextLink": nil}
		if next != "" {
			q.Set("$skiptoken", base64.RawURLEncoding.EncodeToString([]byte(next)))
			out["nextLink"] = s.base(r) + r.URL.EscapedPath()[1:] + "?" + q.Encode()
		}
		gate.WriteJSON(w, http.StatusOK, out)
		return nil
	}
}

// maxPage is the most items in one answer of a list; Key Vault gives no more either.
const maxPage = 25

func pageSize(q url.Values) (int, error) {
	text := q.Get("maxresults")
	if text == "" {
		return maxPage, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxPage {
		return 0, bad("maxresults is %q; it must be from 1 to %d", text, maxPage)
	}
	return n, nil
}

func (s *Service) listSecrets(r *http.Request, g gate.Grant, after string, limit int) ([]any, string, error) {
	p, err := s.Secrets(r.Context(), g, after, limit)
	return bundles(p.Items, func(x Secret) any { return s.bundle(r, x, false) }), p.After, err
}

func (s *Service) listVersions(r *http.Request, g gate.Grant, after string, limit int) ([]any, string, error) {
	p, err := s.Versions(r.Context(), g, after, limit)
	return bundles(p.Items, func(x Secret) any { return s.bundle(r, x, true) }), p.After, err
}

func (s *Service) listBin(r *http.Request, g gate.Grant, after string, limit int) ([]any, string, error) {
	p, err := s.DeletedSecrets(r.Context(), g, after, limit)
	return bundles(p.Items, func(x Deleted) any { return s.bundleBin(r, x, false) }), p.After, err
}

func bundles[T any](items []T, show func(T) any) (out []any) {
	for _, x := range items {
		out = append(out, show(x))
	}
	return out
}
