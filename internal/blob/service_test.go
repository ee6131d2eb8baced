package blob

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
)

const rules1 = `<StorageServiceProperties><Cors>
<CorsRule><AllowedOrigins>https://one.example</AllowedOrigins><AllowedMethods>GET,PUT</AllowedMethods><AllowedHeaders>x-ms-*,authorization</AllowedHeaders><ExposedHeaders>x-ms-meta-*,etag</ExposedHeaders><MaxAgeInSeconds>60</MaxAgeInSeconds></CorsRule>
<CorsRule><AllowedOrigins>*</AllowedOrigins><AllowedMethods>HEAD</AllowedMethods><AllowedHeaders></AllowedHeaders><ExposedHeaders></ExposedHeaders><MaxAgeInSeconds>0</MaxAgeInSeconds></CorsRule>
</Cors></StorageServiceProperties>`

// The settings of an account's blobs are one, whichever door changes them; what a
// document does not name stays, and who may only read or use data changes nothing.
func TestServiceProperties(t *testing.T) {
	w := newWorld(t)
	const at = "acct1:/?restype=service&comp=properties"
	w.do(owner, "PUT", at, []byte(rules1), 202)
	w.do(owner, "PUT", at, []byte(`<StorageServiceProperties><DeleteRetentionPolicy><Enabled>true</Enabled><Days>3</Days></DeleteRetentionPolicy></StorageServiceProperties>`), 202)
	w.do("key1", "PUT", at, []byte(`<StorageServiceProperties><DefaultServiceVersion>2019-12-12</DefaultServiceVersion></StorageServiceProperties>`), 202)
	service := accounts + "acct1/blobServices/default"
	var doc struct{ Properties ServiceProperties }
	w.must(json.Unmarshal([]byte(w.do(owner, "GET", "arm:"+service, nil, 200).body), &doc))
	p := doc.Properties
	if len(p.CORS.List) != 2 || p.CORS.List[0].Origins[0] != "https://one.example" || p.CORS.List[0].MaxAge != 60 || !p.Retention.Enabled || *p.Retention.Days != 3 || p.Version != "2019-12-12" {
		t.Errorf("Resource Manager shows %+v", p)
	}
	if got := w.do(reads, "HEAD", "acct1:/con1/none", nil, 404, "x-ms-version: ").header.Get("x-ms-version"); got != "2019-12-12" {
		t.Errorf("a request that names no version is answered by %q", got)
	}
	w.do(contrib, "PUT", "acct1:/con1/kept", []byte("1"), 201)
	w.do(contrib, "DELETE", "acct1:/con1/kept", nil, 202)
	w.do(contrib, "PUT", "acct1:/con1/kept?comp=undelete", nil, 200)

	p.Version, p.CORS = "", &Rules{[]Rule{}}
	b, err := json.Marshal(map[string]any{"properties": map[string]any{"cors": p.CORS}})
	w.must(err)
	w.do(owner, "PUT", "arm:"+service, b, 200)
	if got := w.do(owner, "GET", at, nil, 200).body; strings.Contains(got, "CorsRule") || !strings.Contains(got, "<DeleteRetentionPolicy><Enabled>false</Enabled></DeleteRetentionPolicy>") {
		t.Errorf("the storage protocol shows %s", got)
	}

	w.do(contrib, "PUT", at, []byte(rules1), 403)
	w.do(reads, "PUT", at, []byte(rules1), 403)
	w.do("", "PUT", at, []byte(rules1), 401)
	for perms, status := range map[string]int{"rcdl": 403, "w": 202} {
		w.do("", "PUT", at+"&"+accountSAS(w.key("acct1", "key1"), "acct1", url.Values{"sp": {perms}, "srt": {"s"}}).Encode(), []byte(rules1), status)
	}
	w.do("", "PUT", at+"&"+accountSAS(w.key("acct1", "key1"), "acct1", url.Values{"sp": {"w"}, "srt": {"co"}}).Encode(), []byte(rules1), 403)
	w.do("key1", "GET", "acct1:/?restype=service&comp=stats", nil, 400)
	for _, at := range []string{"/", "/con1", "/con1/a"} {
		if got := w.do("key1", "GET", "acct1:"+at+"?restype=account&comp=properties", nil, 200).header; got.Get("x-ms-sku-name") != "Standard_LRS" || got.Get("x-ms-account-kind") != "StorageV2" {
			t.Errorf("the account's information is %v", got)
		}
	}
}

// What the platform does not do can't be switched on, and bad rules change nothing.
func TestServicePropertiesAreChecked(t *testing.T) {
	w := newWorld(t)
	const at = "acct1:/?restype=service&comp=properties"
	w.do(owner, "PUT", at, []byte(rules1), 202)
	before := w.do(owner, "GET", at, nil, 200).body
	rule := func(origins, methods, headers string) string {
		return `<Cors><CorsRule><AllowedOrigins>` + origins + `</AllowedOrigins><AllowedMethods>` + methods + `</AllowedMethods><AllowedHeaders>` + headers + `</AllowedHeaders><ExposedHeaders/><MaxAgeInSeconds>1</MaxAgeInSeconds></CorsRule></Cors>`
	}
	for name, in := range map[string]string{
		"a website":         `<StaticWebsite><Enabled>true</Enabled><IndexDocument>index.html</IndexDocument></StaticWebsite>`,
		"logs":              `<Logging><Version>1.0</Version><Delete>false</Delete><Read>true</Read><Write>false</Write><RetentionPolicy><Enabled>false</Enabled></RetentionPolicy></Logging>`,
		"metrics":           `<HourMetrics><Version>1.0</Version><Enabled>true</Enabled></HourMetrics>`,
		"no days":           `<DeleteRetentionPolicy><Enabled>true</Enabled></DeleteRetentionPolicy>`,
		"too many days":     `<DeleteRetentionPolicy><Enabled>true</Enabled><Days>366</Days></DeleteRetentionPolicy>`,
		"no such version":   `<DefaultServiceVersion>latest</DefaultServiceVersion>`,
		"no origins":        rule("", "GET", ""),
		"no methods":        rule("*", "", ""),
		"a method":          rule("*", "STEAL", ""),
		"part of an origin": rule("https://*", "GET", ""),
		"three prefixes":    rule("*", "GET", "a*,b*,c*"),
		"a star inside":     rule("*", "GET", "a*b"),
		"a long header":     rule("*", "GET", strings.Repeat("h", 257)),
		"six rules":         "<Cors>" + strings.Repeat(strings.TrimSuffix(strings.TrimPrefix(rule("*", "GET", ""), "<Cors>"), "</Cors>"), 6) + "</Cors>",
		"too much":          rule(strings.TrimSuffix(strings.Repeat("https://"+strings.Repeat("a", 240)+",", 9), ","), "GET", ""),
		"twice":             rule("*", "GET", "") + rule("*", "GET", ""),
		"something else":    `<Queues/>`,
	} {
		if r := w.do(owner, "PUT", at, []byte("<StorageServiceProperties>"+in+"</StorageServiceProperties>"), 400); w.do(owner, "GET", at, nil, 200).body != before {
			t.Errorf("%s: was answered %s and changed something", name, r.body)
		}
	}
	w.do(owner, "PUT", "arm:"+accounts+"acct1/blobServices/default", []byte(`{"properties":{"cors":{"corsRules":[{"allowedOrigins":["*"],"allowedMethods":["STEAL"],"maxAgeInSeconds":1,"exposedHeaders":[],"allowedHeaders":[]}]}}}`), 400)
}

// A page of another site gets what a rule of the account's owner says, and nothing
// without one. A rule is no credential.
func TestCORS(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/a", []byte("a"), 201, "x-ms-meta-m: 1")
	one, two := "Origin: https://one.example", "Origin: https://two.example"
	ask := func(method, headers string) []string {
		return []string{"Access-Control-Request-Method: " + method, "Access-Control-Request-Headers: " + headers}
	}
	allowed := func(r reply) string { return r.header.Get("Access-Control-Allow-Origin") }
	if r := w.do("", "OPTIONS", "acct1:/con1/a", nil, 403, append(ask("GET", ""), one)...); allowed(r) != "" {
		t.Error("without rules a page of another site may ask")
	}
	if r := w.do(reads, "GET", "acct1:/con1/a", nil, 200, one); allowed(r) != "" {
		t.Error("without rules a page of another site sees answers")
	}
	w.do(owner, "PUT", "acct1:/?restype=service&comp=properties", []byte(rules1), 202)

	r := w.do("", "OPTIONS", "acct1:/con1/a?comp=tags&sv=x", nil, 200, append(ask("PUT", "x-ms-date, Authorization"), one)...)
	if allowed(r) != "https://one.example" || r.header.Get("Access-Control-Allow-Methods") != "PUT" || r.header.Get("Access-Control-Max-Age") != "60" || r.header.Get("Access-Control-Allow-Headers") != "x-ms-date, Authorization" {
		t.Errorf("a preflight that a rule fits is answered %v", r.header)
	}
	for name, h := range map[string][]string{
		"another site":               append(ask("GET", ""), two),
		"a site with a like name":    append(ask("GET", ""), "Origin: https://one.example.evil"),
		"another case":               append(ask("GET", ""), "Origin: https://ONE.example"),
		"another scheme":             append(ask("GET", ""), "Origin: http://one.example"),
		"no site":                    append(ask("GET", ""), "Origin: null"),
		"another method":             append(ask("DELETE", ""), one),
		"another header":             append(ask("GET", "x-ms-date,cookie"), one),
		"a header that only begins":  append(ask("GET", "authorization2"), one),
		"headers of another's rule":  append(ask("HEAD", "x-ms-date"), one),
		"a header beside one it has": append(ask("PUT", "x-ms-meta-a, x-evil"), one),
	} {
		if r := w.do("", "OPTIONS", "acct1:/con1/a", nil, 403, h...); allowed(r) != "" {
			t.Errorf("%s: the preflight is answered %v", name, r.header)
		}
	}
	w.do("", "OPTIONS", "acct1:/con1/a", nil, 400, one)
	w.do("", "OPTIONS", "acct1:/con1/a", nil, 400, ask("GET", "")...)

	r = w.do(reads, "GET", "acct1:/con1/a", nil, 200, one)
	if allowed(r) != "https://one.example" || r.header.Get("Vary") != "Origin" || r.header.Get("Access-Control-Expose-Headers") != "Etag,x-ms-meta-m" {
		t.Errorf("an answer for the page has %v", r.header)
	}
	if r = w.do(reads, "HEAD", "acct1:/con1/a", nil, 200, two); allowed(r) != "*" || r.header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("an answer for all pages has %v", r.header)
	}
	if r = w.do(reads, "GET", "acct1:/con1/a", nil, 200, two); allowed(r) != "" || r.header.Get("Vary") != "Origin" {
		t.Errorf("an answer for another page has %v", r.header)
	}
	if r = w.do("", "GET", "acct1:/con1/a", nil, 401, one); allowed(r) != "https://one.example" || strings.Contains(r.body, ">a<") {
		t.Errorf("a page without a credential gets %v %s", r.header, r.body)
	}
	w.do(nobody, "GET", "acct1:/con1/a", nil, 403, one)
}
