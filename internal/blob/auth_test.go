package blob

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
)

// Nobody gets in who does not show anything, something false, or too much.
func TestNobodyGetsInUnproven(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("x"), 201)
	for _, p := range []string{"/con1/b", "/con1?restype=container&comp=list", "/?comp=list", "/con1?restype=container"} {
		r := w.do("", "GET", "acct1:"+p, nil, 401)
		if r.header.Get("x-ms-error-code") != "NoAuthenticationInformation" || !strings.Contains(r.header.Get("WWW-Authenticate"), "resource_id=https://storage.azure.com") || !strings.Contains(r.header.Get("WWW-Authenticate"), "authorization_uri=https://castellan.localhost/"+tenant) {
			t.Errorf("GET %s by nobody: %v", p, r.header)
		}
		if r := w.do("garbage", "GET", "acct1:"+p, nil, 401); r.header.Get("x-ms-error-code") != "InvalidAuthenticationInfo" {
			t.Errorf("GET %s with garbage: %v", p, r.header)
		}
		if r := w.do(nobody, "GET", "acct1:"+p, nil, 403); r.header.Get("x-ms-error-code") != "AuthorizationPermissionMismatch" {
			t.Errorf("GET %s without a role: %v", p, r.header)
		}
	}
	q := serviceSAS(w.key("acct1", "key1"), "/blob/acct1/con1/b", nil)
	w.do(contrib, "GET", "acct1:/con1/b?"+q.Encode(), nil, 400)
	w.do("", "PUT", "acct1:/con9?restype=container", nil, 401, "x-ms-blob-public-access: blob")
	if r := w.do(contrib, "PUT", "acct1:/con9?restype=container", nil, 409, "x-ms-blob-public-access: blob"); r.header.Get("x-ms-error-code") != "PublicAccessNotPermitted" {
		t.Errorf("a public container: %v", r.header)
	}
}

// Owner is no data role: who owns an account does not read its blobs (RBAC-05),
// and a reader changes nothing.
func TestRolesAreForPlanes(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("x"), 201)
	w.do(owner, "GET", "acct1:/con1/b", nil, 403)
	w.do(owner, "PUT", "acct1:/con1/b2", []byte("x"), 403)
	w.do(owner, "GET", "acct1:/con1?restype=container&comp=list", nil, 403)
	w.do(owner, "PUT", "acct1:/con2?restype=container", nil, 201)
	w.do(reads, "GET", "acct1:/con1/b", nil, 200)
	w.do(reads, "GET", "acct1:/?comp=list", nil, 200)
	for _, x := range [][2]string{
		{"PUT", "/con1/b"}, {"DELETE", "/con1/b"}, {"PUT", "/con1/b?comp=metadata"}, {"PUT", "/con1/b?comp=properties"}, {"PUT", "/con1/b?comp=block&blockid=QQ%3D%3D"},
		{"PUT", "/con1/b?comp=blocklist"}, {"PUT", "/con1/b?comp=appendblock"}, {"PUT", "/con3?restype=container"}, {"DELETE", "/con1?restype=container"}, {"PUT", "/con1?restype=container&comp=metadata"}, {"PUT", "/con1?restype=container&comp=acl"},
	} {
		w.do(reads, x[0], "acct1:"+x[1], nil, 403)
	}
	only := "00000000-0000-0000-0000-0000000000d1"
	w.give(only, "Storage Blob Data Contributor", accounts+"acct1/blobServices/default/containers/con2")
	w.do(only, "PUT", "acct1:/con2/b", []byte("x"), 201)
	w.do(only, "GET", "acct1:/con2?restype=container&comp=list", nil, 200)
	w.do(only, "GET", "acct1:/con1/b", nil, 403)
	w.do(only, "GET", "acct1:/con1?restype=container&comp=list", nil, 403)
}

// An account key opens the data of its account, in the one way it was signed.
func TestSharedKey(t *testing.T) {
	w := newWorld(t)
	w.account("acct2", "")
	w.do("key1", "PUT", "acct1:/con5?restype=container", nil, 201)
	w.do("key1", "PUT", "acct1:/con5/a%20b/%C3%A4?", noise(100000), 201, "x-ms-meta-a: b", "Content-Type: text/plain", "x-ms-blob-content-type: x/y")
	if r := w.do("key2", "GET", "acct1:/con5/a%20b/%C3%A4", nil, 206, "Range: bytes=0-3", "If-Match: *"); r.body != string(noise(100000)[:4]) {
		t.Error("other bytes")
	}
	if l := w.do("key2", "GET", "acct1:/con5?restype=container&comp=list&prefix=a%20b&delimiter=%2F&maxresults=5", nil, 200).list(); len(l.Prefixes) != 1 {
		t.Errorf("the list has %v", l)
	}
	w.do("key1", "POST", "acct1:/?restype=service&comp=userdelegationkey", []byte(`<KeyInfo><Start>2026-05-01T12:00:00Z</Start><Expiry>2026-05-01T13:00:00Z</Expiry></KeyInfo>`), 403)
	send := func(change func(r *http.Request)) int {
		r := w.request("key1", "GET", "acct1:/con5/a%20b/%C3%A4", nil, "x-ms-range: bytes=0-9")
		change(r)
		res, err := w.srv.Client().Do(r)
		w.must(err)
		res.Body.Close()
		return res.StatusCode
	}
	for name, c := range map[string]struct {
		change func(r *http.Request)
		want   int
	}{
		"as it was signed":         {func(r *http.Request) {}, 206},
		"another header":           {func(r *http.Request) { r.Header.Set("x-ms-range", "bytes=0-8") }, 403},
		"one more header":          {func(r *http.Request) { r.Header.Set("x-ms-more", "1") }, 403},
		"another path":             {func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/con1/b", "" }, 403},
		"another account's host":   {func(r *http.Request) { r.Host = "acct2.blob.core.castellan.localhost" }, 403},
		"an account that is not":   {func(r *http.Request) { r.Host = "acct3.blob.core.castellan.localhost" }, 403},
		"another method":           {func(r *http.Request) { r.Method = "DELETE" }, 403},
		"a query parameter more":   {func(r *http.Request) { r.URL.RawQuery = "comp=metadata" }, 403},
		"a date of an hour ago":    {func(r *http.Request) { r.Header.Set("x-ms-date", w.clock().Add(-time.Hour).Format(http.TimeFormat)) }, 403},
		"no date":                  {func(r *http.Request) { r.Header.Del("x-ms-date") }, 403},
		"a signature that is none": {func(r *http.Request) { r.Header.Set("Authorization", "SharedKey acct1:x") }, 400},
		"an empty signature":       {func(r *http.Request) { r.Header.Set("Authorization", "SharedKey acct1:") }, 403},
		"another account's name": {func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "acct1", "acct2", 1))
		}, 403},
		"two Authorization headers": {func(r *http.Request) { r.Header.Add("Authorization", "Bearer "+contrib) }, 400},
	} {
		if got := send(c.change); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	old := w.request("key1", "GET", "acct1:/con5/a%20b/%C3%A4", nil)
	w.pass(16 * time.Minute)
	res, err := w.srv.Client().Do(old)
	w.must(err)
	if res.Body.Close(); res.StatusCode != 403 {
		t.Errorf("a request signed 16 minutes ago: %d, want 403", res.StatusCode)
	}
}

// The orders in which clients sort headers both pass, and so does SharedKeyLite.
func TestSharedKeyDialects(t *testing.T) {
	w := newWorld(t)
	key, date := w.key("acct1", "key1"), w.clock().Format(http.TimeFormat)
	headers := "x-ms-blob-type:BlockBlob\nx-ms-date:" + date + "\n"
	meta := "x-ms-meta-a_b:2\nx-ms-meta-a1:1\n" // as newer clients sort them
	for name, c := range map[string]struct{ scheme, text string }{
		"culture": {"SharedKey", "PUT\n\n\n1\n\n\n\n\n\n\n\n\n" + headers + meta + "x-ms-version:2023-11-03\n/acct1/con1/b"},
		"ascii":   {"SharedKey", "PUT\n\n\n1\n\n\n\n\n\n\n\n\n" + headers + "x-ms-meta-a1:1\nx-ms-meta-a_b:2\nx-ms-version:2023-11-03\n/acct1/con1/b"},
		"lite":    {"SharedKeyLite", "PUT\n\n\n\n" + headers + meta + "x-ms-version:2023-11-03\n/acct1/con1/b"},
	} {
		r := w.do("", "PUT", "acct1:/con1/b", []byte("x"), 201, "x-ms-meta-a1: 1", "x-ms-meta-a_b: 2", "x-ms-date: "+date, "Authorization: "+c.scheme+" acct1:"+mac(key, c.text))
		if r.code != 201 {
			t.Errorf("%s is refused", name)
		}
	}
}

// SAS of every kind: what it says is what it opens, no more (STO-01, STO-03).
func TestSignaturesOpenWhatTheySay(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("x"), 201)
	w.do(contrib, "PUT", "acct1:/con1/other", []byte("x"), 201)
	w.do(contrib, "PUT", "acct1:/con1/doomed", []byte("x"), 201)
	key := w.key("acct1", "key1")
	blob, container := "/blob/acct1/con1/b", "/blob/acct1/con1"
	f := func(kv ...string) url.Values {
		v := url.Values{}
		for i := 0; i < len(kv); i += 2 {
			v.Set(kv[i], kv[i+1])
		}
		return v
	}
	for name, c := range map[string]struct {
		q            url.Values
		method, path string
		want         int
		code         string
	}{
		"r of a blob reads it":                {serviceSAS(key, blob, nil), "GET", "/con1/b", 200, ""},
		"r of a blob shows it":                {serviceSAS(key, blob, nil), "HEAD", "/con1/b", 200, ""},
		"r of a blob does not read another":   {serviceSAS(key, blob, nil), "GET", "/con1/other", 403, "AuthenticationFailed"},
		"r of a blob does not write":          {serviceSAS(key, blob, nil), "PUT", "/con1/b", 403, "AuthorizationPermissionMismatch"},
		"r of a blob does not delete":         {serviceSAS(key, blob, nil), "DELETE", "/con1/b", 403, "AuthorizationPermissionMismatch"},
		"r of a blob does not list":           {serviceSAS(key, blob, nil), "GET", "/con1?restype=container&comp=list", 403, "AuthorizationResourceTypeMismatch"},
		"r of a blob is not for a container":  {serviceSAS(key, blob, nil), "GET", "/con1?restype=container", 403, "AuthorizationResourceTypeMismatch"},
		"r of a container reads blobs":        {serviceSAS(key, container, f("sr", "c")), "GET", "/con1/other", 200, ""},
		"r of a container does not list":      {serviceSAS(key, container, f("sr", "c")), "GET", "/con1?restype=container&comp=list", 403, "AuthorizationPermissionMismatch"},
		"l of a container lists":              {serviceSAS(key, container, f("sr", "c", "sp", "l")), "GET", "/con1?restype=container&comp=list", 200, ""},
		"l of a container does not read":      {serviceSAS(key, container, f("sr", "c", "sp", "l")), "GET", "/con1/b", 403, "AuthorizationPermissionMismatch"},
		"all of a container is not it itself": {serviceSAS(key, container, f("sr", "c", "sp", "racwdl")), "DELETE", "/con1?restype=container", 403, "AuthorizationPermissionMismatch"},
		"c makes":                             {serviceSAS(key, container, f("sr", "c", "sp", "c")), "PUT", "/con1/new", 201, ""},
		"c does not change":                   {serviceSAS(key, container, f("sr", "c", "sp", "c")), "PUT", "/con1/b", 409, "BlobAlreadyExists"},
		"c does not change metadata":          {serviceSAS(key, container, f("sr", "c", "sp", "c")), "PUT", "/con1/b?comp=metadata", 403, "AuthorizationPermissionMismatch"},
		"w changes":                           {serviceSAS(key, container, f("sr", "c", "sp", "w")), "PUT", "/con1/other", 201, ""},
		"w does not read":                     {serviceSAS(key, container, f("sr", "c", "sp", "w")), "GET", "/con1/b", 403, "AuthorizationPermissionMismatch"},
		"d deletes":                           {serviceSAS(key, container, f("sr", "c", "sp", "d")), "DELETE", "/con1/doomed", 202, ""},
		"a directory's":                       {serviceSAS(key, container, f("sr", "d")), "GET", "/con1/b", 403, "AuthenticationFailed"},
		"an account's reads":                  {accountSAS(key, "acct1", nil), "GET", "/con1/b", 200, ""},
		"an account's lists":                  {accountSAS(key, "acct1", nil), "GET", "/?comp=list", 200, ""},
		"an account's makes containers":       {accountSAS(key, "acct1", nil), "PUT", "/con7?restype=container", 201, ""},
		"an account's without o":              {accountSAS(key, "acct1", f("srt", "sc")), "GET", "/con1/b", 403, "AuthorizationResourceTypeMismatch"},
		"an account's without s":              {accountSAS(key, "acct1", f("srt", "co")), "GET", "/?comp=list", 403, "AuthorizationResourceTypeMismatch"},
		"an account's without c":              {accountSAS(key, "acct1", f("srt", "so")), "GET", "/con1?restype=container&comp=list", 403, "AuthorizationResourceTypeMismatch"},
		"an account's for queues":             {accountSAS(key, "acct1", f("ss", "q")), "GET", "/con1/b", 403, "AuthorizationServiceMismatch"},
		"an account's without r":              {accountSAS(key, "acct1", f("sp", "w")), "GET", "/con1/b", 403, "AuthorizationPermissionMismatch"},
		"expired":                             {serviceSAS(key, blob, f("se", "2026-05-01T12:00:00Z")), "GET", "/con1/b", 403, "AuthenticationFailed"},
		"not yet":                             {serviceSAS(key, blob, f("st", "2026-05-01T12:00:01Z")), "GET", "/con1/b", 403, "AuthenticationFailed"},
		"of a day":                            {serviceSAS(key, blob, f("se", "2026-05-02")), "GET", "/con1/b", 200, ""},
		"without an expiry":                   {serviceSAS(key, blob, f("se", "")), "GET", "/con1/b", 403, "AuthenticationFailed"},
		"with an odd expiry":                  {serviceSAS(key, blob, f("se", "2026-05-02T00:00:00+09:00")), "GET", "/con1/b", 403, "AuthenticationFailed"},
		"without a version":                   {serviceSAS(key, blob, f("sv", "")), "GET", "/con1/b", 403, "AuthenticationFailed"},
		"of a version too old":                {serviceSAS(key, blob, f("sv", "2015-04-05")), "GET", "/con1/b", 403, "AuthenticationFailed"},
		"for https":                           {serviceSAS(key, blob, f("spr", "https")), "GET", "/con1/b", 200, ""},
		"for http alone":                      {serviceSAS(key, blob, f("spr", "http")), "GET", "/con1/b", 403, "AuthenticationFailed"},
		"from here":                           {serviceSAS(key, blob, f("sip", "127.0.0.1")), "GET", "/con1/b", 200, ""},
		"from a range":                        {serviceSAS(key, blob, f("sip", "127.0.0.0-127.0.0.255")), "GET", "/con1/b", 200, ""},
		"from elsewhere":                      {serviceSAS(key, blob, f("sip", "10.0.0.1")), "GET", "/con1/b", 403, "AuthorizationSourceIPMismatch"},
		"from nowhere":                        {serviceSAS(key, blob, f("sip", "x")), "GET", "/con1/b", 403, "AuthorizationSourceIPMismatch"},
		"under another key":                   {serviceSAS([]byte("key"), blob, nil), "GET", "/con1/b", 403, "AuthenticationFailed"},
		"under no key":                        {serviceSAS(nil, blob, nil), "GET", "/con1/b", 403, "AuthenticationFailed"},
		"by a policy that is not":             {serviceSAS(key, container, url.Values{"sr": {"c"}, "si": {"p"}, "st": {}, "se": {}, "sp": {}}), "GET", "/con1/b", 403, "AuthenticationFailed"},
	} {
		sep := "?"
		if strings.Contains(c.path, "?") {
			sep = "&"
		}
		r := w.do("", c.method, "acct1:"+c.path+sep+c.q.Encode(), []byte{}, c.want, "X-Forwarded-For: 10.0.0.1")
		if r.code != c.want || r.header.Get("x-ms-error-code") != c.code {
			t.Errorf("%s: %d %s, want %d %s", name, r.code, r.header.Get("x-ms-error-code"), c.want, c.code)
		}
	}
}

// delegationKey is a user delegation key, as a client gets it.
func (w *world) delegationKey(who, expiry string) (q url.Values, key []byte) {
	w.t.Helper()
	return w.delegationKeyOf("acct1", who, expiry)
}

func (w *world) delegationKeyOf(account, who, expiry string) (q url.Values, key []byte) {
	w.t.Helper()
	r := w.do(who, "POST", account+":/?restype=service&comp=userdelegationkey", []byte(`<?xml version="1.0" encoding="utf-8"?><KeyInfo><Start>2026-05-01T12:00:00Z</Start><Expiry>`+expiry+`</Expiry></KeyInfo>`), 200)
	var k struct{ SignedOid, SignedTid, SignedStart, SignedExpiry, SignedService, SignedVersion, Value string }
	w.must(xml.Unmarshal([]byte(r.body), &k))
	key, err := base64.StdEncoding.DecodeString(k.Value)
	w.must(err)
	return url.Values{"skoid": {k.SignedOid}, "sktid": {k.SignedTid}, "skt": {k.SignedStart}, "ske": {k.SignedExpiry}, "sks": {k.SignedService}, "skv": {k.SignedVersion}}, key
}

// delegationSAS is a signature by a user delegation key, of the version's form.
func delegationSAS(key []byte, of url.Values, canonical, version string, fields url.Values) url.Values {
	q := url.Values{"sv": {version}, "st": {"2026-05-01T00:00:00Z"}, "se": {"2026-05-02T00:00:00Z"}, "sp": {"r"}, "sr": {"b"}, "spr": {"https"}}
	for _, m := range []url.Values{of, fields} {
		for k, v := range m {
			q[k] = v
		}
	}
	g := q.Get
	text := []string{g("sp"), g("st"), g("se"), canonical, g("skoid"), g("sktid"), g("skt"), g("ske"), g("sks"), g("skv")}
	if version >= "2020-02-10" {
		text = append(text, g("saoid"), g("suoid"), g("scid"))
	}
	if version >= "2025-07-05" {
		text = append(text, g("skdutid"), g("sduoid"))
	}
	text = append(text, g("sip"), g("spr"), g("sv"), g("sr"), "")
	if version >= "2020-12-06" {
		text = append(text, g("ses"))
	}
	if version >= "2026-04-06" {
		text = append(text, g("srh"), g("srq"))
	}
	text = append(text, g("rscc"), g("rscd"), g("rsce"), g("rscl"), g("rsct"))
	q.Set("sig", mac(key, strings.Join(text, "\n")))
	return q
}

// A user delegation signature can do what it says and its signer may now: it
// dies with the signer's role, the signer, the key and the account's secret (STO-07).
func TestUserDelegation(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("x"), 201)
	signer := "00000000-0000-0000-0000-0000000000e1"
	drop := w.give(signer, "Storage Blob Data Reader", accounts+"acct1")
	of, key := w.delegationKey(signer, "2026-05-01T20:00:00Z")
	blob := "/blob/acct1/con1/b"
	get := func(q url.Values, method string, want int) string {
		t.Helper()
		return w.do("", method, "acct1:/con1/b?"+q.Encode(), []byte{}, want).header.Get("x-ms-error-code")
	}
	for _, v := range []string{"2018-11-09", "2020-02-10", "2020-12-06", "2022-11-02", "2025-07-05", "2026-04-06", "2026-12-06"} {
		get(delegationSAS(key, of, blob, v, nil), "GET", 200)
	}
	if code := get(delegationSAS(key, of, blob, "2022-11-02", url.Values{"sp": {"rw"}}), "PUT", 403); code != "AuthorizationPermissionMismatch" {
		t.Errorf("a reader signed for a write: %s", code)
	}
	for _, x := range []string{"saoid", "suoid", "skdutid", "sduoid", "srh", "srq", "ses"} {
		get(delegationSAS(key, of, blob, "2026-12-06", url.Values{x: {"x"}}), "GET", 403)
	}
	for k := range of {
		altered := url.Values{}
		for n, v := range of {
			altered[n] = v
		}
		altered.Set(k, map[string]string{"skoid": contrib, "sktid": sub, "skt": "2026-05-01T11:00:00Z", "ske": "2026-05-06T00:00:00Z", "sks": "q", "skv": "2024-01-01"}[k])
		get(delegationSAS(key, altered, blob, "2022-11-02", nil), "GET", 403)
	}
	good := delegationSAS(key, of, blob, "2022-11-02", nil)
	w.pass(8 * time.Hour)
	get(good, "GET", 403)
	w.pass(-8 * time.Hour)
	drop()
	if code := get(good, "GET", 403); code != "AuthorizationPermissionMismatch" {
		t.Errorf("without the signer's role: %s", code)
	}
	w.give(signer, "Storage Blob Data Reader", accounts+"acct1")
	get(good, "GET", 200)
	w.do(owner, "POST", "arm:"+accounts+"acct1/revokeUserDelegationKeys", nil, 200)
	get(good, "GET", 403)
	w.do(nobody, "POST", "acct1:/?restype=service&comp=userdelegationkey", []byte(`<KeyInfo><Expiry>2026-05-01T13:00:00Z</Expiry></KeyInfo>`), 403)
	for _, body := range []string{
		`<KeyInfo><Expiry>2026-05-09T13:00:00Z</Expiry></KeyInfo>`, `<KeyInfo><Expiry>2026-05-01T11:00:00Z</Expiry></KeyInfo>`, `<KeyInfo/>`, `<KeyInfo><Expiry>x</Expiry></KeyInfo>`, ``, `<x/>`,
		`<KeyInfo><Start>2026-05-01T12:00:00Z</Start><Expiry>2026-05-01T13:00:00Z</Expiry><DelegatedUserTid>x</DelegatedUserTid></KeyInfo>`,
		`<!DOCTYPE x [<!ENTITY a "2026-05-01T13:00:00Z">]><KeyInfo><Expiry>&a;</Expiry></KeyInfo>`,
	} {
		w.do(signer, "POST", "acct1:/?restype=service&comp=userdelegationkey", []byte(body), 400)
	}
}

// Every field of a signature counts: changed, dropped or doubled, it opens
// nothing (STO-01, STO-08).
func TestEveryFieldOfASignatureCounts(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("x"), 201)
	key := w.key("acct1", "key1")
	of, user := w.delegationKey(reads, "2026-05-01T20:00:00Z")
	full := url.Values{"spr": {"https"}, "sip": {"127.0.0.1"}, "rscc": {"no-cache"}, "rscd": {"inline"}, "rsce": {"br"}, "rscl": {"de"}, "rsct": {"a/b"}}
	for kind, q := range map[string]url.Values{
		"service": serviceSAS(key, "/blob/acct1/con1/b", full), "account": accountSAS(key, "acct1", url.Values{"spr": {"https"}, "sip": {"127.0.0.1"}}),
		"delegation": delegationSAS(user, of, "/blob/acct1/con1/b", "2022-11-02", full),
	} {
		good := q.Encode()
		w.do("", "GET", "acct1:/con1/b?"+good, nil, 200)
		for k := range q {
			old := k + "=" + url.QueryEscape(q.Get(k))
			for what, raw := range map[string]string{
				"changed":           strings.Replace(good, old, k+"="+url.QueryEscape(q.Get(k)+"0"), 1),
				"dropped":           strings.Replace(good, old, "", 1),
				"emptied":           strings.Replace(good, old, k+"=", 1),
				"twice":             good + "&" + old,
				"twice, another":    good + "&" + k + "=x",
				"twice, before":     k + "=x&" + good,
				"upper case":        strings.Replace(good, old, strings.ToUpper(old[:1])+old[1:], 1),
				"upper case beside": good + "&" + strings.ToUpper(k) + "=x",
				"name escaped":      strings.Replace(good, old, fmt.Sprintf("%%%02x", k[0])+old[1:], 1),
				"line break":        strings.Replace(good, old, old+"%0A", 1),
			} {
				r := w.do("", "GET", "acct1:/con1/b?"+raw, nil, 0)
				if r.code != 400 && r.code != 403 && r.code != 401 {
					t.Errorf("%s, %s %s: %d", kind, k, what, r.code)
				}
			}
		}
		for _, k := range []string{"sdd", "saoid", "ses", "si", "skoid", "ss", "srt"} {
			if q.Has(k) {
				continue
			}
			if r := w.do("", "GET", "acct1:/con1/b?"+good+"&"+k+"=x", nil, 0); r.code != 403 {
				t.Errorf("%s, with %s besides: %d", kind, k, r.code)
			}
		}
	}
	r := w.do("", "GET", "acct1:/con1/b?"+serviceSAS(key, "/blob/acct1/con1/b", full).Encode(), nil, 200)
	for h, v := range map[string]string{"Cache-Control": "no-cache", "Content-Disposition": "inline", "Content-Encoding": "br", "Content-Language": "de", "Content-Type": "a/b"} {
		if r.header.Get(h) != v {
			t.Errorf("%s is %q, want %q as signed", h, r.header.Get(h), v)
		}
	}
}

// Without shared keys, keys and what they sign open nothing, and people's own
// signatures still do (STO-10).
func TestWithoutSharedKeys(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("x"), 201)
	key := w.key("acct1", "key1")
	of, user := w.delegationKey(reads, "2026-05-01T20:00:00Z")
	w.do("key1", "GET", "acct1:/con1/b", nil, 200)
	w.do(owner, "PATCH", "arm:"+accounts+"acct1", []byte(`{"properties":{"allowSharedKeyAccess":false}}`), 200)
	for i := range 2 {
		for _, r := range []reply{
			w.do("key1", "GET", "acct1:/con1/b", nil, 403), w.do("", "GET", "acct1:/con1/b?"+serviceSAS(key, "/blob/acct1/con1/b", nil).Encode(), nil, 403),
			w.do("", "GET", "acct1:/con1/b?"+accountSAS(key, "acct1", nil).Encode(), nil, 403),
		} {
			if r.header.Get("x-ms-error-code") != "KeyBasedAuthenticationNotPermitted" {
				t.Errorf("%v", r.header)
			}
		}
		if _, err := w.s.KeyCaller(arm.MustID(accounts+"acct1"), arm.NewSecret([]byte(base64.StdEncoding.EncodeToString(key)))); err == nil {
			t.Error("the key is somebody inside the house")
		}
		w.do(reads, "GET", "acct1:/con1/b", nil, 200)
		w.do("", "GET", "acct1:/con1/b?"+delegationSAS(user, of, "/blob/acct1/con1/b", "2022-11-02", nil).Encode(), nil, 200)
		if i == 0 {
			// A PUT that does not speak of it leaves it, also after a restart.
			w.account("acct1", "")
			w.restart()
		}
	}
}

// A new key ends what the old one opened, at once, and nothing else (STO-06).
func TestRegenerateKey(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("x"), 201)
	key1, key2 := w.key("acct1", "key1"), w.key("acct1", "key2")
	if bytes.Equal(key1, key2) || len(key1) != keySize {
		t.Fatal("the keys are not two keys")
	}
	q1, q2 := serviceSAS(key1, "/blob/acct1/con1/b", nil).Encode(), serviceSAS(key2, "/blob/acct1/con1/b", nil).Encode()
	w.do("", "GET", "acct1:/con1/b?"+q1, nil, 200)
	for _, body := range []string{`{"keyName":"key3"}`, `{"keyName":""}`, `{"keyName":"kerb1"}`, `{}`, `{"keyName":"key12"}`, `{"keyName":"1"}`} {
		w.do(owner, "POST", "arm:"+accounts+"acct1/regenerateKey", []byte(body), 400)
	}
	w.do(reads, "POST", "arm:"+accounts+"acct1/regenerateKey", []byte(`{"keyName":"key1"}`), 403)
	w.do(reads, "POST", "arm:"+accounts+"acct1/listKeys", nil, 403)
	w.do(owner, "POST", "arm:"+accounts+"acct1/regenerateKey", []byte(`{"keyName":"key1"}`), 200)
	w.do("", "GET", "acct1:/con1/b?"+q1, nil, 403)
	w.do("", "GET", "acct1:/con1/b?"+q2, nil, 200)
	w.restart()
	w.do("", "GET", "acct1:/con1/b?"+q1, nil, 403)
	w.do("", "GET", "acct1:/con1/b?"+q2, nil, 200)
	if got := w.key("acct1", "key2"); !bytes.Equal(got, key2) {
		t.Error("key2 changed too")
	}
	r := w.do(owner, "GET", "arm:"+accounts+"acct1", nil, 200)
	for _, k := range [][]byte{key1, key2, w.key("acct1", "key1")} {
		if strings.Contains(r.body, base64.StdEncoding.EncodeToString(k)) {
			t.Error("GET shows a key")
		}
	}
}

// A signature on a stored policy lives as long as the policy (STO-05).
func TestStoredPolicies(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("x"), 201)
	q := serviceSAS(w.key("acct1", "key1"), "/blob/acct1/con1", url.Values{"sr": {"c"}, "si": {"p1"}, "st": {}, "se": {}, "sp": {}}).Encode()
	set := func(body string, want int) {
		t.Helper()
		w.do("key1", "PUT", "acct1:/con1?restype=container&comp=acl", []byte(body), want)
	}
	set(`<SignedIdentifiers><SignedIdentifier><Id>p1</Id><AccessPolicy><Expiry>2026-05-02T00:00:00Z</Expiry><Permission>rc</Permission></AccessPolicy></SignedIdentifier></SignedIdentifiers>`, 200)
	if r := w.do("key2", "GET", "acct1:/con1?restype=container&comp=acl", nil, 200); !strings.Contains(r.body, "<Id>p1</Id>") || !strings.Contains(r.body, "<Permission>rc</Permission>") {
		t.Errorf("the policies are %s", r.body)
	}
	w.do("", "GET", "acct1:/con1/b?"+q, nil, 200)
	w.do("", "PUT", "acct1:/con1/b?"+q, []byte("y"), 403)
	both := serviceSAS(w.key("acct1", "key1"), "/blob/acct1/con1", url.Values{"sr": {"c"}, "si": {"p1"}, "se": {"2026-06-01"}, "sp": {}}).Encode()
	w.do("", "GET", "acct1:/con1/b?"+both, nil, 403)
	w.restart()
	w.do("", "GET", "acct1:/con1/b?"+q, nil, 200)
	w.pass(12 * time.Hour)
	w.do("", "GET", "acct1:/con1/b?"+q, nil, 403)
	w.pass(-12 * time.Hour)
	set(`<SignedIdentifiers><SignedIdentifier><Id>p2</Id></SignedIdentifier></SignedIdentifiers>`, 200)
	w.do("", "GET", "acct1:/con1/b?"+q, nil, 403)
	set("", 200)
	six := strings.Repeat(`<SignedIdentifier><Id>x</Id></SignedIdentifier>`, 6)
	for _, bad := range []string{`<SignedIdentifiers>` + six + `</SignedIdentifiers>`, `<SignedIdentifiers><SignedIdentifier><Id>p</Id><AccessPolicy><Expiry>soon</Expiry></AccessPolicy></SignedIdentifier></SignedIdentifiers>`, `<x>`} {
		set(bad, 400)
	}
}

// Plain HTTP gets nothing, whatever it shows (STO-04).
func TestPlainHTTPGetsNothing(t *testing.T) {
	w := newWorld(t)
	q := serviceSAS(w.key("acct1", "key1"), "/blob/acct1/con1/b", nil)
	for _, r := range []*http.Request{w.request(contrib, "GET", "acct1:/con1/b", nil), w.request("", "GET", "acct1:/con1/b?"+q.Encode(), nil)} {
		p := w.s.Plane()
		if _, err := p.Who(r); arm.CodeOf(err) != "AccountRequiresHttps" { // a client's request has no TLS of its own
			t.Errorf("Who = %v, want AccountRequiresHttps", err)
		}
	}
	rq := request{account: w.s.byName("acct1"), container: "con1", blob: "b", action: BlobRead}
	q = serviceSAS(w.key("acct1", "key1"), "/blob/acct1/con1/b", url.Values{"spr": {"https"}})
	parsed, err := parseQuery(q.Encode())
	w.must(err)
	if _, err := w.s.bySAS(t.Context(), rq, parsed); arm.CodeOf(err) != "AuthorizationProtocolMismatch" {
		t.Errorf("a signature for https, over http: %v", err)
	}
}

// What the platform signs opens one thing for an hour at most, by the rights of
// whoever asked for it (STO-19).
func TestSASFor(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/a b/ü", []byte("x"), 201)
	until := w.clock().Add(time.Hour)
	g := w.admit(person(contrib), DelegationKey, "con1", "a b/ü")
	sig, err := w.s.SASFor(t.Context(), g, "r", until)
	w.must(err)
	path := func(s Signature) string {
		return "acct1:" + strings.TrimPrefix(string(s.URL.Reveal()), "https://acct1.blob.core.castellan.localhost")
	}
	if r := w.do("", "GET", path(sig), nil, 200); r.body != "x" {
		t.Errorf("it reads %q", r.body)
	}
	w.do("", "DELETE", path(sig), nil, 403)
	g2 := w.admit(person(contrib), DelegationKey, "con1", "")
	all, err := w.s.SASFor(t.Context(), g2, "lwcra", until)
	w.must(err)
	if q, _ := url.ParseQuery(string(all.Query.Reveal())); q.Get("sp") != "racwl" || q.Get("sr") != "c" || q.Get("spr") != "https" || q.Get("skoid") != contrib {
		t.Errorf("the query is %v", q)
	}
	w.do("", "PUT", "acct1:/con1/new?"+string(all.Query.Reveal()), []byte("y"), 201, "If-None-Match: *")
	w.do("", "PUT", "acct1:/con1/new?comp=metadata&"+string(all.Query.Reveal()), nil, 200, "x-ms-meta-upload_status: completed")
	w.do("", "GET", "acct1:/con1?restype=container&comp=list&"+string(all.Query.Reveal()), nil, 200)
	w.do("", "DELETE", "acct1:/con1/new?"+string(all.Query.Reveal()), nil, 403)
	for _, bad := range []struct {
		perms string
		until time.Time
	}{{"r", until.Add(time.Second)}, {"r", w.clock()}, {"", until}, {"x", until}, {"rl", until}} {
		if _, err := w.s.SASFor(t.Context(), g, bad.perms, bad.until); err == nil {
			t.Errorf("%q until %s was signed", bad.perms, bad.until)
		}
	}
	leased := person(contrib)
	leased.Lease = &arm.Lease{Scope: arm.MustID(accounts + "acct1"), Actions: []arm.Action{DelegationKey}, Why: "a run token"}
	if _, err := w.s.SASFor(t.Context(), w.admit(leased, DelegationKey, "con1", "x"), "r", until); err == nil {
		t.Error("a lease was signed away")
	}
	if _, err := w.s.SASFor(t.Context(), w.admit(person(contrib), BlobRead, "con1", "x"), "r", until); err == nil {
		t.Error("a grant to read signs")
	}
	c, err := w.s.SASCaller(t.Context(), ContainerID(arm.MustID(accounts+"acct1"), "con1"), "new", BlobRead, all.Query)
	w.must(err)
	if _, _, err := w.s.Read(t.Context(), w.admit(c, BlobRead, "con1", "new"), 0, -1); err != nil {
		t.Errorf("inside the house the signature reads nothing: %v", err)
	}
	w.pass(time.Hour)
	w.do("", "GET", path(sig), nil, 403)
}

// What is done is in the audit log, under the name of who did it, and no
// credential is.
func TestAuditKnowsWhoAndNoSecret(t *testing.T) {
	w := newWorld(t)
	key := w.key("acct1", "key1")
	q := serviceSAS(key, "/blob/acct1/con1", url.Values{"sr": {"c"}, "sp": {"racwdl"}})
	w.do("", "PUT", "acct1:/con1/by-sas?"+q.Encode(), []byte("x"), 201)
	w.do("key1", "PUT", "acct1:/con1/by-key", []byte("x"), 201)
	w.do(contrib, "PUT", "acct1:/con1/by-role", []byte("x"), 201)
	w.do(nobody, "GET", "acct1:/con1/by-role", nil, 403)
	w.must(w.log.Sync(t.Context()))
	entries, err := w.log.Tail(t.Context(), 100)
	w.must(err)
	seen := map[string]string{}
	for _, e := range entries {
		seen[e.Item+" "+e.Decision] = e.Credential + " " + e.Caller
		if raw, _ := base64.StdEncoding.DecodeString(q.Get("sig")); e.Item == "by-sas" && !strings.Contains(e.Reason, fmt.Sprintf("%x", sha256.Sum256(raw))[:16]+" by key1") {
			t.Errorf("of which signature it was is not told: %q", e.Reason)
		}
	}
	uid := "storageaccount:" + w.s.byName("acct1").UID
	for what, who := range map[string]string{"by-sas allowed": "sas " + uid, "by-key allowed": "sharedkey " + uid, "by-role allowed": "access " + contrib, "by-role refused": "access " + nobody} {
		if seen[what] != who {
			t.Errorf("%s is by %q, want %q", what, seen[what], who)
		}
	}
	text, err := json.Marshal(entries)
	w.must(err)
	for _, secret := range []string{base64.StdEncoding.EncodeToString(key), q.Get("sig"), url.QueryEscape(q.Get("sig"))} {
		if bytes.Contains(text, []byte(secret)) {
			t.Error("the audit log has a secret")
		}
	}
	n, err := w.log.Verify(t.Context())
	if err != nil || n == 0 {
		t.Errorf("Verify = %d, %v", n, err)
	}
}
