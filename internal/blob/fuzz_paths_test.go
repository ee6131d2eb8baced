package blob

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"castellan/internal/arm"
)

// No query that the account did not sign gives anybody a right, whatever it says.
func FuzzSAS(f *testing.F) {
	for _, s := range []string{
		"sv=2022-11-02&sr=b&sp=r&se=2099-01-01T00:00:00Z&sig=AAAA", "sv=2022-11-02&ss=bfqt&srt=sco&sp=rwdlac&se=2099-01-01&sip=10.0.0.1-10.0.0.9&spr=https&sig=AAAA",
		"sv=2022-11-02&sr=c&si=policy&sig=AAAA", "sv=2020-02-10&sr=d&sdd=2&sp=rl&st=2020-01-01T00:00Z&se=2099-01-01T00:00:00.0000000Z&sig=AAAA",
		"sv=2020-02-10&sr=b&sp=r&se=2099-01-01&skoid=a&sktid=b&skt=2020-01-01&ske=2099-01-01&sks=b&skv=2020-02-10&scid=x&sig=AAAA", "sv=2022-11-02&sr=bs&snapshot=2026-01-01T00:00:00.0000000Z&sp=r&se=2099-01-01&sig=",
	} {
		f.Add(s, "/con1/a/b", true)
	}
	w := newWorldAlone(f)
	p := w.s.Plane()
	f.Fuzz(func(t *testing.T, raw, path string, reads bool) {
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, " ?#%\r\n\x00") {
			return
		}
		r := httptest.NewRequest(http.MethodGet, "https://acct1.blob.castellan.localhost/", nil)
		if r.URL.Path, r.URL.RawQuery = path, raw; !reads {
			r.Method = http.MethodPut
		}
		q, err := parseQuery(raw)
		if err != nil || q["sig"] == "" {
			return
		}
		if who, err := p.Who(r); err == nil {
			t.Errorf("%s of %s is from %v", raw, path, who)
		}
		rq := w.s.requestOf(p, r)
		rq.account = w.s.byName("acct1")
		if who, err := w.s.bySAS(t.Context(), rq, q); err == nil {
			t.Errorf("%s of %s is from %v", raw, path, who)
		}
	})
}

// An access list that is taken can be written down and is then read as the same.
func FuzzACL(f *testing.F) {
	for _, s := range []string{"user::rwx,group::r-x,other::---", "user:" + contrib + ":rw-,default:user::rwx", "default", "mask", "default:mask::r--,mask::rwx", "user:" + reads, "other::r-t", ",", "user:::rwx"} {
		f.Add(s, true, "0750")
		f.Add(s, false, "rwxr-x--T")
	}
	f.Fuzz(func(t *testing.T, text string, perms bool, mode string) {
		for _, octal := range []bool{true, false} {
			if m, err := parseMode("x-ms-permissions", mode, octal); err == nil && (m < 0 || m > 0o7777) {
				t.Errorf("the mode %q is %o", mode, m)
			}
		}
		l, err := parseACL(text, perms)
		if err != nil {
			return
		}
		for _, of := range l {
			if len(of) > maxEntries {
				t.Errorf("%q has %d entries", text, len(of))
			}
		}
		for _, how := range []string{setsLists, modifiesList, removesList} {
			a, err := (&access{}).changed(how, l, true)
			if err != nil || how == removesList {
				continue
			}
			for _, e := range append(a.List, a.Default...) {
				if e.Perm > 7 || e.ID != "" && !guidForm.MatchString(e.ID) {
					t.Errorf("%q gave %v", text, e)
				}
			}
		}
	})
}

// What a header says of properties, and what a marker or a continuation says of a
// place, is read as it was written or not at all.
func FuzzPlaces(f *testing.F) {
	for _, s := range []string{"a=dmFsdWU=,b=dmFsdWU=", "a=", "=", "a=dg==,a=dg==", "1!YQ", "1!", "2!YQ", "1!" + strings.Repeat("A", 99)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if after, err := readMarker(text); err == nil && text != "" {
			if again, err := readMarker(newMarker(after)); err != nil || again != after {
				t.Errorf("%q is behind %q, and that %q, %v", text, after, again, err)
			}
		}
		r := httptest.NewRequest(http.MethodPut, "https://acct1.dfs.castellan.localhost/c/p?resource=file", nil)
		r.Header.Set("x-ms-properties", text)
		meta, has, err := propertiesOf(r)
		if err != nil || !has {
			return
		}
		for k, v := range meta {
			if k == "" || !strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(v))) {
				t.Errorf("%q has the property %q: %q", text, k, v)
			}
		}
	})
}

// Lifecycle rules that are taken are within their limits.
func FuzzLifecycle(f *testing.F) {
	f.Add([]byte(`{"policy":{"rules":[{"enabled":true,"name":"r","type":"Lifecycle","definition":{"filters":{"blobTypes":["blockBlob"],"prefixMatch":["con/a"],"blobIndexMatch":[{"name":"a","op":"==","value":"b"}]},"actions":{"baseBlob":{"tierToCool":{"daysAfterModificationGreaterThan":1},"delete":{"daysAfterModificationGreaterThan":2.5}},"snapshot":{"delete":{"daysAfterCreationGreaterThan":1}}}}}]}}`))
	f.Add([]byte(`{"policy":{"rules":[{"name":"r","type":"Lifecycle","definition":{"filters":{"blobTypes":[]},"actions":{"version":{"delete":{"daysAfterCreationGreaterThan":-1}}}}}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := arm.ParseJSON(data)
		if err != nil {
			return
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var p ManagementPolicy
		if json.Unmarshal(b, &p) != nil || p.check() != nil {
			return
		}
		for _, r := range p.Policy.Rules {
			for _, a := range []*lifeActions{r.Definition.Actions.Base, r.Definition.Actions.Snapshot, r.Definition.Actions.Version} {
				if a == nil {
					continue
				}
				for _, age := range []*lifeAge{a.Cool, a.Cold, a.Archive, a.Hot, a.Delete} {
					if age == nil {
						continue
					}
					for _, d := range []*float64{age.Modified, age.Created, age.TierChange} {
						if d != nil && (*d < 0 || *d > maxLifeDays) {
							t.Errorf("%v days are taken", *d)
						}
					}
				}
			}
		}
	})
}
