package compliance

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"testing"

	"castellan/internal/arm"
)

// Pages have all rows that are meant, each once and in order; $top is of all pages.
func TestPagesOfStates(t *testing.T) {
	for top, want := range map[string]int{"": 2499, "&$top=1500": 1500, "&$top=7": 7, "&$top=1000": 1000} {
		url := "https://host/subscriptions/s/providers/Microsoft.PolicyInsights/policyStates/latest/queryResults?api-version=2024-10-01&$orderby=n%20desc&$filter=n%20lt%202499" + top
		seen, pages := 0, 0
		for url != "" {
			var rows []map[string]any
			for i := range 2500 {
				rows = append(rows, map[string]any{"n": i})
			}
			r, w := httptest.NewRequest("POST", url, nil), httptest.NewRecorder()
			q, err := readQuery(r)
			if err == nil {
				err = q.answer(w, r, arm.Site{}, rows)
			}
			if err != nil {
				t.Fatalf("%s: %v", url, err)
			}
			var page struct {
				Next  string `json:"@odata.nextLink"`
				Value []struct{ N int }
			}
			if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
				t.Fatal(err)
			}
			for _, x := range page.Value {
				if x.N != 2498-seen {
					t.Fatalf("row %d of %q is %d", seen, top, x.N)
				}
				seen++
			}
			pages++
			if url = ""; page.Next != "" {
				url = "https://host" + page.Next[len(arm.Site{}.Base()):]
			}
		}
		if seen != want || pages != (want+999)/1000 {
			t.Errorf("with %q there are %s", top, fmt.Sprint(seen, " rows on ", pages, " pages"))
		}
	}
}
