package resource

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// A group has a name and a place as Azure asks for, or it is not made.
func TestGroupsAreHeldToTheirForm(t *testing.T) {
	srv := server(t)
	for name, want := range map[string]int{"a.b(c)_-": 201, strings.Repeat("a", 90): 201, strings.Repeat("a", 91): 400, "ends.": 400, "a+b": 400, "a@b": 400} {
		do(t, srv, "PUT", "/subscriptions/s/resourceGroups/"+name, `{"location":"here"}`, want)
		do(t, srv, "GET", "/subscriptions/s/resourceGroups/"+name, "", map[int]int{201: 200, 400: 404}[want])
	}
	if got := do(t, srv, "PUT", "/subscriptions/s/resourceGroups/nowhere", `{}`, 400); !strings.Contains(got, "location") {
		t.Errorf("a group without a location is refused with %q", got)
	}
	do(t, srv, "PATCH", "/subscriptions/s/resourceGroups/rg", `{"tags":{"a":"b"}}`, 200)
}

// Lists of groups know the filters on tags, and refuse others rather than pass them over.
func TestGroupsAreFilteredByTheirTags(t *testing.T) {
	srv := server(t)
	for name, tags := range map[string]string{"red": `{"color":"red"}`, "blue": `{"color":"blue"}`} {
		do(t, srv, "PUT", "/subscriptions/s/resourceGroups/"+name, `{"location":"here","tags":`+tags+`}`, 201)
	}
	for filter, want := range map[string][3]bool{ // red, blue, rg
		"":                    {true, true, true},
		"tagName eq 'color'":  {true, true, false},
		"tagName eq 'colour'": {},
		"tagName eq 'color' and tagValue eq 'red'": {true, false, false},
	} {
		got := do(t, srv, "GET", "/subscriptions/s/resourceGroups?api-version=2024-03-01&$filter="+url.QueryEscape(filter), "", 200)
		for i, name := range []string{"red", "blue", "rg"} {
			if strings.Contains(got, `"name":"`+name+`"`) != want[i] {
				t.Errorf("$filter=%s lists %s: %v, want %v", filter, name, !want[i], want[i])
			}
		}
	}
	for _, filter := range []string{"color eq 'red'", "resourceType eq 'x'", "name eq 'red'", "tagName eq 'a' or tagName eq 'b'"} {
		do(t, srv, "GET", "/subscriptions/s/resourceGroups?api-version=2024-03-01&$filter="+url.QueryEscape(filter), "", 400)
	}
}

// An empty segment where a parent resource would stand, as clients leave one, is
// passed over there and nowhere else.
func TestNoParentIsNoSegment(t *testing.T) {
	srv := server(t)
	const spare = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Storage//things/one"
	do(t, srv, "PUT", spare, `{"location":"here"}`, 201)
	do(t, srv, "GET", at, "", 200)
	do(t, srv, "GET", spare, "", 200)
	for _, p := range []string{
		"/subscriptions/s/resourceGroups/rg/providers/Microsoft.Storage///things/one", "/subscriptions/s/resourceGroups/rg/providers//Microsoft.Storage/things/one",
		"/subscriptions/s/resourceGroups/rg//providers/Microsoft.Storage/things/one", "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Storage/things//one",
		"/subscriptions/s//resourceGroups/rg", "/subscriptions/s/resourceGroups/rg/%70roviders/Microsoft.Storage//things/one", "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Storage/%2f/things/one",
	} {
		if got := do(t, srv, "GET", p, "", 0); got[0] != '4' {
			t.Errorf("GET %s = %s, want a refusal", p, got)
		}
	}
	do(t, srv, "DELETE", spare, "", 200)
	do(t, srv, "GET", at, "", 404)
}

// Lists of resources of any kind are cut into pages that together hold each row
// once, and show on demand when a resource was made.
func TestResourcesOfAnyKindArePaged(t *testing.T) {
	srv := server(t)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		do(t, srv, "PUT", "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Storage/things/"+name, `{"location":"here"}`, 201)
	}
	list := func(query string, want int) (out struct {
		Value []map[string]any
		Next  string `json:"nextLink"`
	}) {
		got := do(t, srv, "GET", "/subscriptions/s/resources?api-version=2024-03-01&"+query, "", want)
		_, body, _ := strings.Cut(got, "{")
		_ = json.Unmarshal([]byte("{"+body), &out)
		return out
	}
	names, query := "", "$top=2"
	for pages := 0; query != "" && pages < 9; pages++ {
		got := list(query, 200)
		if len(got.Value) > 2 {
			t.Errorf("a page of two has %d rows", len(got.Value))
		}
		for _, d := range got.Value {
			names += fmt.Sprint(d["name"])
		}
		_, query, _ = strings.Cut(got.Next, "?")
		query = strings.ReplaceAll(query, "api-version=2024-03-01", "")
	}
	if names != "abcde" {
		t.Errorf("the pages hold %s, want abcde", names)
	}
	one := list("$top=1&$expand="+url.QueryEscape("createdTime, changedTime,provisioningState"), 200).Value[0]
	if one["provisioningState"] != "Succeeded" || one["createdTime"] == nil || one["createdTime"] != one["changedTime"] {
		t.Errorf("expanded, a resource is %v", one)
	}
	if one := list("$top=1", 200).Value[0]; one["createdTime"] != nil {
		t.Errorf("unasked, a resource says %v", one)
	}
	for _, bad := range []string{"$top=0", "$top=x", "$expand=secrets", "$skiptoken=%20"} {
		list(bad, 400)
	}
}
