package governance

import (
	"fmt"
	"strings"
	"testing"

	"castellan/internal/arm"
)

// The catalog of operations has each action that a door asks for once, under its
// provider and type, and none but those.
func TestOperationsAreThoseOfTheDoors(t *testing.T) {
	w := newWorld(t)
	want := map[string]arm.Action{}
	for _, a := range w.actions() {
		if !a.IsZero() {
			want[fmt.Sprint(a.Name(), a.Data())] = a
		}
	}
	got := map[string]bool{}
	holds := func(at string, list any) {
		for _, o := range list.([]any) {
			o := o.(map[string]any)
			k := fmt.Sprint(o["name"], o["isDataAction"])
			if _, ok := want[k]; !ok || got[k] || !strings.HasPrefix(k, at+"/") {
				t.Errorf("under %s lies the operation %v, which is no door's or there twice", at, o)
			}
			got[k] = true
		}
	}
	for _, p := range w.do(nora, "GET", "/providers/"+operationsType, "", 200)["value"].([]any) {
		p := p.(map[string]any)
		holds(p["name"].(string), p["operations"])
		for _, typ := range p["resourceTypes"].([]any) {
			typ := typ.(map[string]any)
			holds(fmt.Sprint(p["name"], "/", typ["name"]), typ["operations"])
		}
		one := w.do(nora, "GET", "/providers/"+operationsType+"/"+strings.ToUpper(p["name"].(string)), "", 200)
		if fmt.Sprint(one) != fmt.Sprint(p) {
			t.Errorf("%s alone is %v, in the list it is %v", p["name"], one, p)
		}
	}
	for k := range want {
		if !got[k] {
			t.Errorf("the catalog lacks %s", k)
		}
	}
	w.do(nora, "GET", "/providers/"+operationsType+"/Microsoft.None", "", 404)
}
