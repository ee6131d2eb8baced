package blob

import (
	"context"
	"crypto/hmac"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

func equal(a, b []byte) bool { return hmac.Equal(a, b) }

// sasForm is how signatures that the platform makes write times, and sasVersion
// which version they are of.
const (
	sasForm    = "2006-01-02T15:04:05Z"
	sasVersion = "2022-11-02"
)

// longestSAS is how long a signature that the platform makes is in force.
const longestSAS = time.Hour

// Signature opens one blob, or one container, to whoever has it.
type Signature struct {
	URL   arm.Secret // of the blob or container, with the query
	Query arm.Secret // without a question mark
}

// userKey is a user delegation key: whoever has it signs for its owner.
type userKey struct {
	query
	value []byte
}

// newUserKey makes a key for the caller, who must be somebody for whom roles decide.
func (s *Service) newUserKey(g gate.Grant, p place, start, expiry time.Time, version string) (userKey, error) {
	c := g.Caller()
	now := s.Now()
	switch {
	case c.Lease != nil:
		return userKey{}, fail(http.StatusForbidden, "AuthorizationPermissionMismatch", "Only somebody who signed in can have a user delegation key, not whoever shows %s.", c.Lease.Why)
	case !expiry.After(start) || !expiry.After(now):
		return userKey{}, fail(http.StatusBadRequest, "InvalidXmlNodeValue", "The key's expiry must be after its start and after now.")
	case expiry.Sub(start) > longestDelegation || expiry.Sub(now) > longestDelegation:
		return userKey{}, fail(http.StatusBadRequest, "InvalidXmlNodeValue", "The key would live for more than 7 days.")
	}
	q := query{
		"skoid": c.Object, "sktid": c.Tenant, "skt": start.UTC().Format(sasForm), "ske": expiry.UTC().Format(sasForm), "sks": "b", "skv": version,
	}
	return userKey{q, p.delegationKey(q)}, nil
}

// userDelegation is a key for whoever holds the Grant, for DelegationKey.
func (s *Service) userDelegation(_ context.Context, g gate.Grant, start, expiry time.Time, version string) (userKey, error) {
	p, err := s.target(g, DelegationKey)
	if err != nil {
		return userKey{}, err
	}
	return s.newUserKey(g, p, start, expiry, version)
}

// permissionOrder is the order in which Azure writes permissions.
const permissionOrder = "racwdl"

// SASFor signs for the container, or the one blob, that the Grant, for
// DelegationKey, is about: a user delegation signature of the Grant's caller,
// with the permissions in letters (r, a, c, w, d and, of a container, l), for an
// hour at most. It can do no more than the caller may at the time of its use.
func (s *Service) SASFor(_ context.Context, g gate.Grant, permissions string, expiry time.Time) (sig Signature, err error) {
	p, err := s.target(g, DelegationKey)
	if err != nil {
		return sig, err
	}
	if p.container == "" {
		return sig, arm.Errorf(arm.BadRequest, "a signature is for a container or a blob, not for an account")
	}
	now := s.Now().UTC()
	if !expiry.After(now) || expiry.Sub(now) > longestSAS {
		return sig, arm.Errorf(arm.BadRequest, "the signature would end %s; it must be within an hour from now", expiry.UTC().Format(sasForm))
	}
	perms, err := orderPermissions(permissions, p.blob == "")
	if err != nil {
		return sig, err
	}
	start := now.Add(-maxSkew)
	k, err := s.newUserKey(g, p, start, expiry, sasVersion)
	if err != nil {
		return sig, err
	}
	q, sr := k.query, "b"
	if p.blob == "" {
		sr = "c"
	}
	for n, v := range map[string]string{"sv": sasVersion, "st": start.Format(sasForm), "se": expiry.UTC().Format(sasForm), "sr": sr, "sp": perms, "spr": "https"} {
		q[n] = v
	}
	canonical, err := request{account: p.account, container: p.container, blob: p.blob}.resource(sr, "")
	if err != nil {
		return sig, err
	}
	q["sig"] = base64.StdEncoding.EncodeToString(hmacOf(k.value, q.delegated(canonical)[0]))
	v := url.Values{}
	for n, x := range q {
		v.Set(n, x)
	}
	text := v.Encode()
	return Signature{arm.NewSecret([]byte(s.URL(p.containerID(p.container), p.blob) + "?" + text)), arm.NewSecret([]byte(text))}, nil
}

func orderPermissions(perms string, container bool) (out string, err error) {
	for _, c := range perms {
		if !strings.ContainsRune(permissionOrder, c) || c == 'l' && !container {
			return "", arm.Errorf(arm.BadRequest, "the permissions are %q; they must be letters of %s, and l is for containers alone", perms, permissionOrder)
		}
	}
	for _, c := range permissionOrder {
		if strings.ContainsRune(perms, c) {
			out += string(c)
		}
	}
	if out == "" {
		return "", arm.Errorf(arm.BadRequest, "the signature would permit nothing; name letters of %s", permissionOrder)
	}
	return out, nil
}

// SASCaller is whoever shows the signature in query to do one action with a
// container, or with one blob in it: for BlobRead without a blob, to list.
func (s *Service) SASCaller(ctx context.Context, container arm.ID, blob string, a arm.Action, rawQuery arm.Secret) (arm.Caller, error) {
	q, err := parseQuery(string(rawQuery.Reveal()))
	if err != nil {
		return arm.Caller{}, err
	}
	rq := request{account: s.byID(container.Parent().Parent()), container: strings.ToLower(container.Name()), blob: blob, dir: blob, action: a, list: blob == "", secure: true}
	if rq.account != nil && strings.EqualFold(container.Type(), shareType) {
		rq.account = rq.account.forFiles()
	}
	if q.onlyCreates() {
		return arm.Caller{}, unauthentic("a signature that lets make but not change is taken by the data plane alone")
	}
	return s.bySAS(ctx, rq, q)
}

// ContainerID is the id of a container of an account.
func ContainerID(account arm.ID, name string) arm.ID {
	return account.Child("blobServices", "default").Child("containers", name)
}

// ShareID is the id of a file share of an account.
func ShareID(account arm.ID, name string) arm.ID {
	return account.Child("fileServices", "default").Child("shares", name)
}

// URL is where a blob is found, or its container if name is empty.
func (s *Service) URL(container arm.ID, name string) string {
	u := s.Site.BlobURL(container.Parent().Parent().Name()) + container.Name()
	if name == "" {
		return u
	}
	segs := strings.Split(name, "/")
	for i, x := range segs {
		segs[i] = url.PathEscape(x)
	}
	return u + "/" + strings.Join(segs, "/")
}

// Locate is what a blob's URL, here, is about; what its query says is not looked
// at. The item is empty for the URL of a container.
func (s *Service) Locate(rawURL string) (gate.Target, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "https" || u.User != nil || u.Fragment != "" {
		return gate.Target{}, arm.Errorf(arm.BadRequest, "the URL of a blob must be as %sCONTAINER/BLOB", s.Site.BlobURL("ACCOUNT"))
	}
	a := s.at(u.Host)
	if a == nil || byDFSHost(s, u.Host) {
		return gate.Target{}, arm.Errorf(arm.BadRequest, "the host %q is not that of a storage account here", u.Host)
	}
	container, name, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if err := CheckContainerName(container); err != nil {
		return gate.Target{}, err
	}
	if a.files {
		name = fold(strings.Trim(name, "/"))
	}
	if name != "" {
		if err := (place{account: a, blob: name}).checkOpaque(); err != nil {
			return gate.Target{}, err
		}
	}
	if a.files {
		return gate.Target{ID: a.containerID(container), Item: name}, nil
	}
	return gate.Target{ID: a.containerID(container), Item: name, Attributes: s.attributes(nil, a.containerID(container), name)}, nil
}
