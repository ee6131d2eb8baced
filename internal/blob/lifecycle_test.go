package blob

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func rule(name, filters, actions string) string {
	return fmt.Sprintf(`{"name":%q,"enabled":true,"type":"Lifecycle","definition":{"filters":{%s},"actions":{%s}}}`, name, filters, actions)
}

func (w *world) policy(want int, rules ...string) reply {
	w.t.Helper()
	return w.do(owner, "PUT", "arm:"+accounts+"acct1/managementPolicies/default", []byte(`{"properties":{"policy":{"rules":[`+strings.Join(rules, ",")+`]}}}`), want)
}

const anyBlock = `"blobTypes":["blockBlob"]`

// Blobs, snapshots and versions are moved and deleted when they are as old as a
// rule says and not before; only what its filters say, the cheapest action of
// several, and nothing that a lease, a hold or snapshots keep. The log names who.
func TestLifecycleRules(t *testing.T) {
	w := newWorld(t)
	put := func(name string, headers ...string) {
		t.Helper()
		w.do("key1", "PUT", "acct1:/con1/"+name, []byte("x"), 201, headers...)
	}
	for _, name := range []string{"logs/old", "logs/leased", "logs/kept", "cool", "both", "other"} {
		put(name)
	}
	put("tagged", "x-ms-tags: keep=no")
	w.do("key1", "PUT", "acct1:/con1/log", nil, 201, "x-ms-blob-type: AppendBlob")
	w.do("key1", "PUT", "acct1:/con1/disk", nil, 201, "x-ms-blob-type: PageBlob", "x-ms-blob-content-length: 512")
	w.do("key1", "PUT", "acct1:/con2?restype=container", nil, 201)
	w.do("key1", "PUT", "acct1:/con2/logs/old", []byte("x"), 201)
	w.lease("key1", "acct1:/con1/logs/leased", "acquire", 201, "x-ms-lease-duration: -1")
	snap := w.do("key1", "PUT", "acct1:/con1/logs/kept?comp=snapshot", nil, 201).header.Get("x-ms-snapshot")
	young := func() { w.do("key1", "PUT", "acct1:/con1/logs/young", []byte("x"), 201) }
	r := w.policy(200,
		rule("logs", anyBlock+`,"prefixMatch":["con1/logs/"]`, `"baseBlob":{"delete":{"daysAfterModificationGreaterThan":10}}`),
		rule("tags", `"blobTypes":["blockBlob","appendBlob"],"blobIndexMatch":[{"name":"keep","op":"==","value":"no"}]`, `"baseBlob":{"delete":{"daysAfterCreationGreaterThan":3.0}}`),
		rule("cool", anyBlock+`,"prefixMatch":["con1/cool","con1/both"]`, `"baseBlob":{"tierToCool":{"daysAfterModificationGreaterThan":5}}`),
		rule("archive", anyBlock+`,"prefixMatch":["con1/both"]`, `"baseBlob":{"tierToArchive":{"daysAfterModificationGreaterThan":5},"tierToCold":{"daysAfterModificationGreaterThan":1}}`),
		rule("append", `"blobTypes":["appendBlob"]`, `"baseBlob":{"delete":{"daysAfterModificationGreaterThan":20}}`),
		strings.Replace(rule("off", anyBlock, `"baseBlob":{"delete":{"daysAfterModificationGreaterThan":0}},"snapshot":{"delete":{"daysAfterCreationGreaterThan":0}}`), `"enabled":true`, `"enabled":false`, 1))
	if !strings.Contains(r.body, "lastModifiedTime") {
		t.Errorf("the policy is shown as %s", r.body)
	}
	// names are those that are left, with their tiers if they are not Hot.
	names := func() string {
		t.Helper()
		var out []string
		for _, name := range []string{"both", "cool", "disk", "log", "logs/kept", "logs/leased", "logs/old", "logs/young", "other", "tagged"} {
			if r := w.do("key1", "HEAD", "acct1:/con1/"+name, nil, 0); r.code == 200 {
				out = append(out, strings.TrimSuffix(name+":"+text(r.header.Get("x-ms-access-tier"), "Hot"), ":Hot"))
			}
		}
		return strings.Join(out, " ")
	}
	all := "both cool disk log logs/kept logs/leased logs/old other tagged"
	for _, c := range []struct {
		pass time.Duration
		want string
	}{
		{23 * time.Hour, all},
		{3 * 24 * time.Hour, "both:Cold cool disk log logs/kept logs/leased logs/old other"},
		{2 * 24 * time.Hour, "both:Archive cool:Cool disk log logs/kept logs/leased logs/old other"},
		{5 * 24 * time.Hour, "both:Archive cool:Cool disk log logs/kept logs/leased logs/young other"},
		{11 * 24 * time.Hour, "both:Archive cool:Cool disk logs/kept logs/leased other"},
	} {
		w.pass(c.pass)
		if c.pass == 5*24*time.Hour {
			young()
		}
		w.must(w.s.age(t.Context()))
		if got := names(); got != c.want {
			t.Errorf("%v later there are %q, want %q", c.pass, got, c.want)
		}
	}
	w.do("key1", "HEAD", "acct1:/con2/logs/old", nil, 200)
	w.do("key1", "HEAD", "acct1:/con1/logs/kept?snapshot="+snap, nil, 200)
	w.lease("key1", "acct1:/con1/logs/leased", "break", 202, "x-ms-lease-break-period: 0")
	w.policy(200, rule("snapshots", anyBlock, `"snapshot":{"delete":{"daysAfterCreationGreaterThan":1}},"baseBlob":{"delete":{"daysAfterModificationGreaterThan":10}}`))
	w.guard("POST", accounts+"acct1/blobServices/default/containers/con2/setLegalHold", `{"tags":["case1"]}`, 200)
	w.must(w.s.age(t.Context()))
	if got := names(); got != "disk" {
		t.Errorf("in the end there are %q", got)
	}
	w.do("key1", "HEAD", "acct1:/con2/logs/old", nil, 200)

	found := false
	list, err := w.log.Tail(t.Context(), 100)
	w.must(err)
	for _, e := range list {
		found = found || e.Caller == "system:lifecycle" && strings.Contains(fmt.Sprintf("%+v", e), "logs/")
	}
	if !found {
		t.Error("the log does not say who deleted the blobs")
	}
}

// Versions go by themselves, and are kept for a while where what is deleted is.
func TestLifecycleOfVersions(t *testing.T) {
	w := newWorld(t)
	w.do(owner, "PUT", "arm:"+accounts+"acct1/blobServices/default", []byte(`{"properties":{"isVersioningEnabled":true,"deleteRetentionPolicy":{"enabled":true,"days":7}}}`), 200)
	old := w.do(contrib, "PUT", "acct1:/con1/b", []byte("1"), 201).header.Get("x-ms-version-id")
	w.pass(3 * 24 * time.Hour)
	mid := w.do(contrib, "PUT", "acct1:/con1/b", []byte("2"), 201).header.Get("x-ms-version-id")
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("3"), 201)
	w.policy(200, rule("versions", anyBlock, `"version":{"delete":{"daysAfterCreationGreaterThan":2},"tierToCool":{"daysAfterCreationGreaterThan":0}}`))
	w.pass(time.Hour)
	w.must(w.s.age(t.Context()))
	w.do(reads, "HEAD", "acct1:/con1/b?versionid="+old, nil, 404)
	if got := w.do(reads, "HEAD", "acct1:/con1/b?versionid="+mid, nil, 200).header.Get("x-ms-access-tier"); got != "Cool" {
		t.Errorf("the younger version is in the tier %q", got)
	}
	w.do(contrib, "PUT", "acct1:/con1/b?comp=undelete", nil, 200)
	w.do(reads, "HEAD", "acct1:/con1/b?versionid="+old, nil, 200)
	w.do(owner, "DELETE", "arm:"+accounts+"acct1/managementPolicies/default", nil, 200)
	w.must(w.s.age(t.Context()))
	w.do(reads, "HEAD", "acct1:/con1/b?versionid="+old, nil, 200)
}

// A rule that can't be meant, or asks for what is not done, is refused by name.
func TestLifecycleRulesAreChecked(t *testing.T) {
	w := newWorld(t)
	const del = `"baseBlob":{"delete":{"daysAfterModificationGreaterThan":1}}`
	for name, c := range map[string]struct{ why, rule string }{
		"no types":               {"blobTypes", rule("a", ``, del)},
		"page blobs":             {"blobTypes", rule("a", `"blobTypes":["pageBlob"]`, del)},
		"a tier of append blobs": {"append blobs", rule("a", `"blobTypes":["appendBlob"]`, `"baseBlob":{"tierToCool":{"daysAfterModificationGreaterThan":1}}`)},
		"no actions":             {"no actions", rule("a", anyBlock, ``)},
		"empty actions":          {"no actions", rule("a", anyBlock, `"baseBlob":{}`)},
		"no age":                 {"the age must be", rule("a", anyBlock, `"baseBlob":{"delete":{}}`)},
		"two ages":               {"the age must be", rule("a", anyBlock, `"baseBlob":{"delete":{"daysAfterModificationGreaterThan":1,"daysAfterCreationGreaterThan":1}}`)},
		"a snapshot's change":    {"the age must be", rule("a", anyBlock, `"snapshot":{"delete":{"daysAfterModificationGreaterThan":1}}`)},
		"half a day":             {"whole number", rule("a", anyBlock, `"baseBlob":{"delete":{"daysAfterModificationGreaterThan":1.5}}`)},
		"before it is there":     {"whole number", rule("a", anyBlock, `"baseBlob":{"delete":{"daysAfterModificationGreaterThan":-1}}`)},
		"a day too many":         {"whole number", rule("a", anyBlock, `"baseBlob":{"delete":{"daysAfterModificationGreaterThan":100000}}`)},
		"accesses":               {"daysAfterLastAccessTimeGreaterThan", rule("a", anyBlock, `"baseBlob":{"delete":{"daysAfterLastAccessTimeGreaterThan":1}}`)},
		"a warmer tier":          {"tierToHot", rule("a", anyBlock, `"baseBlob":{"tierToHot":{"daysAfterModificationGreaterThan":1}}`)},
		"back by itself":         {"enableAutoTierToHotFromCool", rule("a", anyBlock, `"baseBlob":{"enableAutoTierToHotFromCool":true,"delete":{"daysAfterModificationGreaterThan":1}}`)},
		"twice the same name":    {"not twice", rule("a", anyBlock, del) + "," + rule("a", anyBlock, del)},
		"no name":                {"named", rule("", anyBlock, del)},
		"an odd name":            {"named", rule("a b", anyBlock, del)},
		"another type":           {"type", strings.Replace(rule("a", anyBlock, del), "Lifecycle", "Other", 1)},
		"a prefix of nothing":    {"prefixMatch", rule("a", anyBlock+`,"prefixMatch":["/x"]`, del)},
		"eleven prefixes":        {"prefixes", rule("a", anyBlock+`,"prefixMatch":["a","b","c","d","e","f","g","h","i","j","k"]`, del)},
		"another operator":       {"operator", rule("a", anyBlock+`,"blobIndexMatch":[{"name":"a","op":"!=","value":"b"}]`, del)},
		"an impossible tag":      {"tag", rule("a", anyBlock+`,"blobIndexMatch":[{"name":"a","op":"==","value":"*"}]`, del)},
		"no rules":               {"rules", ""},
	} {
		if r := w.policy(400, c.rule); !strings.Contains(r.body, c.why) {
			t.Errorf("%s: %s", name, r.body)
		}
	}
	w.do(owner, "PUT", "arm:"+accounts+"acct1/managementPolicies/mine", []byte(`{"properties":{"policy":{"rules":[`+rule("a", anyBlock, del)+`]}}}`), 400)
	w.do(owner, "GET", "arm:"+accounts+"acct1/managementPolicies/default", nil, 404)
	for _, who := range []string{reads, contrib, nobody} {
		w.do(who, "PUT", "arm:"+accounts+"acct1/managementPolicies/default", []byte(`{"properties":{"policy":{"rules":[`+rule("a", anyBlock, del)+`]}}}`), 403)
	}
}
