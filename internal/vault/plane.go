package vault

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
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
		Cancelled: func(arm.Action) error {
			return arm.Errorf(arm.Forbidden, "The vault is disabled: its subscription was cancelled, so that what is in it is neither used nor changed. Enable the subscription first.")
		},
		Pass:   s.pass,
		Routes: slices.Concat(s.classRoutes(secrets), s.classRoutes(keys), s.classRoutes(certificates), s.secretRoutes(), s.keyRoutes(), s.certificateRoutes()),
	}
}

// classRoutes are the doors that every class has.
func (s *Service) classRoutes(c *class) []gate.Route {
	at, live, bin := s.at(c), "/"+c.path, "/deleted"+c.path
	return []gate.Route{
		s.on(c.see, "GET "+live, s.atVault, s.list(c, s.listAll(c, false))),
		s.on(c.see, "GET "+live+"/", s.atVault, s.list(c, s.listAll(c, false))),
		s.on(c.see, "GET "+live+"/{name}/versions", at, s.list(c, s.listVersions(c))),
		s.on(c.del, "DELETE "+live+"/{name}", at, s.answer(c, func(r *http.Request, g gate.Grant) (Object, error) { return s.bury(r.Context(), g, c) })),
		s.on(c.see, "GET "+bin, s.atVault, s.list(c, s.listAll(c, true))),
		s.on(c.see, "GET "+bin+"/{name}", at, s.answer(c, func(r *http.Request, g gate.Grant) (Object, error) { return s.binnedOne(r.Context(), g, c) })),
		s.on(c.restore, "POST "+bin+"/{name}/recover", at, s.answer(c, func(r *http.Request, g gate.Grant) (Object, error) { return s.exhume(r.Context(), g, c) })),
		s.on(c.purge, "DELETE "+bin+"/{name}", at, func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
			if err := s.purgeOne(r.Context(), g, c); err != nil {
				return err
			}
			w.WriteHeader(http.StatusNoContent)
			return nil
		}),
		s.on(c.backup, "POST "+live+"/{name}/backup", at, s.backupOne(c)),
		s.on(c.unpack, "POST "+live+"/restore", s.atVault, s.restoreOne(c)),
	}
}

func (s *Service) secretRoutes() []gate.Route {
	at, set, get, update := s.at(secrets), s.answer(secrets, s.setSecret), s.answer(secrets, s.getSecret), s.answer(secrets, s.updateSecret)
	return []gate.Route{
		s.on(SecretSet, "PUT /secrets/{name}", at, set),
		s.on(SecretSet, "PUT /secrets/{name}/", at, set),
		s.on(SecretGet, "GET /secrets/{name}", at, get),
		s.on(SecretGet, "GET /secrets/{name}/", at, get),
		s.on(SecretGet, "GET /secrets/{name}/{version}", at, get),
		s.on(SecretUpdate, "PATCH /secrets/{name}", at, update),
		s.on(SecretUpdate, "PATCH /secrets/{name}/", at, update),
		s.on(SecretUpdate, "PATCH /secrets/{name}/{version}", at, update),
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

// at finds the thing of the class that the path names.
func (s *Service) at(c *class) gate.Locate {
	return func(r *http.Request, v gate.Vars) (gate.Target, error) {
		t, err := s.atVault(r, v)
		if err != nil {
			return t, err
		}
		t, err = c.within(t.ID, v["name"])
		if err == nil && v["version"] != "" && !versionForm.MatchString(v["version"]) {
			err = bad("the version %q is invalid; it must be 32 hexadecimal digits", v["version"])
		}
		return t, err
	}
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
	var slow *throttled
	if errors.As(err, &slow) {
		w.Header().Set("Retry-After", strconv.Itoa(slow.wait))
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
func decode(r *http.Request, v any) error {
	data, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
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
	Attributes  validity          `json:"attributes"`
}

// validity is what a client says about when a version may be used.
type validity struct {
	Enabled   *bool  `json:"enabled"`
	NotBefore *int64 `json:"nbf"`
	Expires   *int64 `json:"exp"`
	Created   *int64 `json:"created" arm:"readonly"`
	Updated   *int64 `json:"updated" arm:"readonly"`
	Level     string `json:"recoveryLevel" arm:"readonly"`
	Days      int    `json:"recoverableDays" arm:"readonly"`
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

func (v validity) times() (nbf, exp *time.Time, err error) {
	if nbf, err = moment("nbf", v.NotBefore); err != nil {
		return nil, nil, err
	}
	exp, err = moment("exp", v.Expires)
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
	d.NotBefore, d.Expires, err = in.Attributes.times()
	return d, err
}

func (s *Service) setSecret(r *http.Request, g gate.Grant) (Object, error) {
	var in said
	if err := decode(r, &in); err != nil {
		return Object{}, err
	}
	d, err := in.draft()
	if err != nil {
		return Object{}, err
	}
	return s.SetSecret(r.Context(), g, d)
}

func (s *Service) getSecret(r *http.Request, g gate.Grant) (Object, error) {
	return s.GetSecret(r.Context(), g, lastSegment(r, 3))
}

func (s *Service) updateSecret(r *http.Request, g gate.Grant) (Object, error) {
	var in said
	if err := decode(r, &in); err != nil {
		return Object{}, err
	}
	if in.Value != nil {
		return Object{}, bad("a secret's value can't be updated; set the secret to make a new version")
	}
	nbf, exp, err := in.Attributes.times()
	if err != nil {
		return Object{}, err
	}
	return s.UpdateSecret(r.Context(), g, lastSegment(r, 3), Amend{ContentType: in.ContentType, Tags: in.Tags, Enabled: in.Attributes.Enabled, NotBefore: nbf, Expires: exp})
}

// answer writes the thing that do gives.
func (s *Service) answer(c *class, do func(r *http.Request, g gate.Grant) (Object, error)) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		x, err := do(r, g)
		if err != nil {
			return err
		}
		gate.WriteJSON(w, http.StatusOK, s.bundle(r, c, x, whole))
		return nil
	}
}

// part is one part of a list, and how much its items show.
type part func(r *http.Request, g gate.Grant, after string, limit int) (Page, form, error)

// list answers with one part of a list and where the next one is.
func (s *Service) list(c *class, part part) gate.Verb {
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
		p, form, err := part(r, g, string(after), limit)
		if err != nil {
			return err
		}
		items := []any{}
		for _, x := range p.Items {
			items = append(items, s.bundle(r, c, x, form))
		}
		out := map[string]any{"value": items, "nextLink": nil}
		if p.After != "" {
			q.Set("$skiptoken", base64.RawURLEncoding.EncodeToString([]byte(p.After)))
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

func (s *Service) listAll(c *class, bin bool) part {
	return func(r *http.Request, g gate.Grant, after string, limit int) (Page, form, error) {
		if r.URL.Query().Get("includePending") == "true" {
			return Page{}, item, bad("includePending can't be true: a certificate is listed once it is made")
		}
		p, err := s.all(r.Context(), g, c, bin, after, limit)
		return p, item, err
	}
}

func (s *Service) listVersions(c *class) part {
	return func(r *http.Request, g gate.Grant, after string, limit int) (Page, form, error) {
		p, err := s.history(r.Context(), g, c, after, limit)
		return p, versioned, err
	}
}
