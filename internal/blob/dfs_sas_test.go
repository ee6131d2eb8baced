package blob

import (
	"net/url"
	"strings"
	"testing"
)

// A directory's signature opens what lies in it and nothing beside it, each
// permission alone; and what is signed by an account key makes what is the
// superuser's.
func TestDirectorySignatures(t *testing.T) {
	w := newWorld(t)
	w.lake()
	w.mkdir("d/e")
	w.mkdir("d-not")
	w.file("d/e/f", "deep")
	w.file("d/g", "x")
	w.file("d-not/f", "x")
	key := w.key("lake1", "key1")
	const dir = "/blob/lake1/fsy/d"
	sas := func(perms string, fields url.Values) string {
		q := url.Values{"sr": {"d"}, "sdd": {"1"}, "sp": {perms}}
		for k, v := range fields {
			q[k] = v
		}
		return serviceSAS(key, dir, q).Encode()
	}
	do := func(method, target, query string, want int, headers ...string) {
		t.Helper()
		sep := "?"
		if strings.Contains(target, "?") {
			sep = "&"
		}
		var body []byte
		if method == "PATCH" {
			body = []byte("y")
		}
		w.do("", method, target+sep+query, body, want, headers...)
	}
	every := "racwdlmeop"
	for _, x := range []struct {
		perm, method, target string
		want                 int
		headers              []string
	}{
		{"r", "GET", lakeFS + "d/e/f", 200, nil},
		{"r", "GET", "lake1:/fsy/d/e/f", 200, nil},
		{"re", "HEAD", lakeFS + "d/e/f", 200, nil},
		{"e", "HEAD", lakeFS + "d?action=getAccessControl", 200, nil},
		{"l", "GET", "lake1.dfs:/fsy?resource=filesystem&recursive=true&directory=d", 200, nil},
		{"l", "GET", "lake1.dfs:/fsy?resource=filesystem&recursive=true&directory=d/e", 200, nil},
		{"l", "GET", "lake1:/fsy?restype=container&comp=list&prefix=d/", 200, nil},
		{"aw", "PATCH", lakeFS + "d/g?action=append&position=1", 202, nil},
		{"cw", "PUT", lakeFS + "d/new?resource=file", 201, nil},
		{"p", "PATCH", lakeFS + "d/g?action=setAccessControlRecursive&mode=modify", 400, []string{"x-ms-acl: other::r--"}},
		{"d", "DELETE", lakeFS + "d/new", 200, nil},
	} {
		for i := range every {
			want := 403
			for _, p := range x.perm {
				if every[i] == byte(p) {
					want = x.want
				}
			}
			if want == 201 {
				w.do("key1", "DELETE", lakeFS+"d/new", nil, 0)
			}
			if x.method == "DELETE" {
				w.do("key1", "PUT", lakeFS+"d/new?resource=file", nil, 201)
			}
			do(x.method, x.target, sas(every[i:i+1], nil), want, x.headers...)
		}
	}
	all := sas(every, nil)
	for _, target := range []string{
		lakeFS + "d-not/f", lakeFS + "x", "lake1:/fsy/d-not/f", "lake1.dfs:/fsy?resource=filesystem&recursive=true", "lake1.dfs:/fsy?resource=filesystem&recursive=true&directory=d-not",
		"lake1:/fsy?restype=container&comp=list&prefix=d", "lake1:/fsy?restype=container&comp=list",
	} {
		do("GET", target, all, 403)
	}
	do("HEAD", "lake1.dfs:/fsy/?action=getAccessControl", all, 403)
	for _, fields := range []url.Values{{"sdd": {"2"}}, {"sdd": {"0"}}, {"sdd": {"01"}}, {"sdd": {"-1"}}, {"sdd": {}}, {"sr": {"c"}}, {"sr": {"b"}}} {
		do("GET", lakeFS+"d/e/f", sas("r", fields), 403)
	}
	do("GET", "acct1:/con1/d/x", serviceSAS(w.key("acct1", "key1"), "/blob/acct1/con1/d", url.Values{"sr": {"d"}, "sdd": {"1"}}).Encode(), 403)
	// A renaming shows a signature for each side.
	do("PUT", lakeFS+"d/moved", all, 403, "x-ms-rename-source: /fsy/d-not/f")
	do("PUT", lakeFS+"d/moved", all, 403, "x-ms-rename-source: /fsy/d-not/f?"+all)
	do("PUT", lakeFS+"d/moved", all, 403, "x-ms-rename-source: /fsy/d/g?"+sas("rwd", nil))
	do("PUT", lakeFS+"d/moved", sas("m", nil), 403, "x-ms-rename-source: /fsy/d/g?"+all)
	do("PUT", lakeFS+"d/moved", all, 201, "x-ms-rename-source: /fsy/d/g?"+all)
	if got := w.shows("key1", "d/moved"); got != "$superuser rw-r----- user::rw-,group::r--,other::---" {
		t.Errorf("what was moved is %s", got)
	}
	do("PATCH", lakeFS+"d?action=setProperties", sas("w", nil), 200)
}

// A user delegation signature goes as far as its signer's roles, else as far as
// the access lists let the signer; with suoid as far as they let that person, too.
func TestDelegationAndAccessLists(t *testing.T) {
	w := newWorld(t)
	w.lake()
	w.give(lakeOwner, "Storage Blob Data Owner", accounts+"lake1")
	const lister = "00000000-0000-0000-0000-0000000000e2" // may sign, and has no role on data
	w.give(lister, "Storage Blob Delegator", accounts+"lake1")
	w.mkdir("d")
	w.file("d/f", "data")
	sas := func(who, perms, canonical, sr string, fields url.Values) string {
		of, key := w.delegationKeyOf("lake1", who, "2026-05-01T20:00:00Z")
		q := url.Values{"sp": {perms}, "sr": {sr}}
		for k, v := range fields {
			q[k] = v
		}
		return delegationSAS(key, of, canonical, "2022-11-02", q).Encode()
	}
	const file = "/blob/lake1/fsy/d/f"
	get := func(q string, want int) {
		t.Helper()
		w.do("", "GET", lakeFS+"d/f?"+q, nil, want)
	}
	get(sas(lakeOwner, "r", file, "b", nil), 200)
	get(sas(lister, "r", file, "b", nil), 403)
	get(sas(lakeOwner, "r", file, "b", url.Values{"saoid": {lister}}), 200)
	get(sas(lakeOwner, "r", file, "b", url.Values{"suoid": {lister}}), 403)
	get(sas(lakeOwner, "r", file, "b", url.Values{"suoid": {lister}, "saoid": {lister}}), 403)
	get(sas(lakeOwner, "r", file, "b", url.Values{"suoid": {"x"}}), 403)
	w.acl("", "user::rwx,group::---,other::--x")
	w.acl("d", onlyFor(lister, "-wx"))
	w.acl("d/f", onlyFor(lister, "r--"))
	get(sas(lister, "r", file, "b", nil), 200)
	get(sas(lister, "w", file, "b", nil), 403)
	get(sas(lakeOwner, "r", file, "b", url.Values{"suoid": {lister}}), 200)
	get(sas(lakeOwner, "r", file, "b", url.Values{"suoid": {nobody}}), 403)
	get(sas(reads, "r", file, "b", url.Values{"suoid": {lister}}), 200)
	get(sas(lister, "r", file, "b", url.Values{"suoid": {lister}}), 403) // the signer must have a role to vouch
	// What is made belongs to whom the signature is for.
	for i, x := range []struct {
		who, owner string
		fields     url.Values
	}{{lister, lister, nil}, {lakeOwner, lister, url.Values{"suoid": {lister}}}, {lakeOwner, nobody, url.Values{"saoid": {nobody}}}, {lakeOwner, lakeOwner, nil}} {
		x.fields = merge2(x.fields, url.Values{"sdd": {"1"}})
		name := "d/new" + string(rune('0'+i))
		w.do("", "PUT", lakeFS+name+"?resource=file&"+sas(x.who, "cw", "/blob/lake1/fsy/d", "d", x.fields), nil, 201)
		if got := w.do("key1", "HEAD", lakeFS+name, nil, 200).header.Get("x-ms-owner"); got != x.owner {
			t.Errorf("%s made by %s for %v is %s's", name, x.who, x.fields, got)
		}
	}
}

func merge2(a, b url.Values) url.Values {
	out := url.Values{}
	for _, m := range []url.Values{a, b} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}
