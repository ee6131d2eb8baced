package governance

import (
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// operationsType is the catalog of what roles can grant
// (Microsoft.Authorization/providerOperations, API version 2022-04-01).
const operationsType = "Microsoft.Authorization/providerOperations"

var readOperations = arm.NewAction(operationsType+"/read", "see which operations roles can grant")

// operations are what one type of resource, or a provider itself, offers.
type operations struct {
	Name       string      `json:"name"`
	Display    string      `json:"displayName"`
	Operations []operation `json:"operations"`
}

type operation struct {
	Name        string `json:"name"`
	Display     string `json:"displayName"`
	Description string `json:"description"`
	Origin      string `json:"origin"`
	Data        bool   `json:"isDataAction"`
}

// provider is a namespace with all that it offers.
type provider struct {
	ID         string       `json:"id"`
	Name       string       `json:"name"`
	Type       string       `json:"type"`
	Display    string       `json:"displayName"`
	Types      []operations `json:"resourceTypes"`
	Operations []operation  `json:"operations"`
}

// catalog is what the doors of all planes ask for, by provider and type.
func (s *Service) catalog() []*provider {
	actions := slices.SortedFunc(slices.Values(s.Actions()), func(a, b arm.Action) int { return strings.Compare(a.Key(), b.Key()) })
	var out []*provider
	for _, a := range actions {
		ns, rest, _ := strings.Cut(a.Name(), "/")
		if strings.EqualFold(ns, "Microsoft.Directory") {
			continue // the directory's roles grant those
		}
		if n := len(out); n == 0 || !strings.EqualFold(out[n-1].Name, ns) {
			out = append(out, &provider{ID: "/providers/" + operationsType + "/" + ns, Name: ns, Type: operationsType, Display: ns, Types: []operations{}, Operations: []operation{}})
		}
		out[len(out)-1].add(rest, operation{Name: a.Name(), Display: a.Doc(), Description: a.Doc(), Origin: "user,system", Data: a.Data()})
	}
	return out
}

// add puts an operation, whose name goes on with rest, under its type: the name
// less its verb, and less what an action is called.
func (p *provider) add(rest string, o operation) {
	words := strings.Split(rest, "/")
	verb := 1
	if strings.EqualFold(words[len(words)-1], "action") {
		verb = 2
	}
	typ := strings.Join(words[:max(0, len(words)-verb)], "/")
	if typ == "" {
		p.Operations = append(p.Operations, o)
		return
	}
	i := slices.IndexFunc(p.Types, func(t operations) bool { return strings.EqualFold(t.Name, typ) })
	if i < 0 {
		i = len(p.Types)
		p.Types = append(p.Types, operations{Name: typ, Display: typ})
	}
	p.Types[i].Operations = append(p.Types[i].Operations, o)
}

func (s *Service) listOperations(w http.ResponseWriter, _ *http.Request, g gate.Grant) error {
	if _, err := g.On(readOperations); err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": s.catalog()})
	return nil
}

func (s *Service) getOperations(w http.ResponseWriter, _ *http.Request, g gate.Grant) error {
	id, err := g.On(readOperations)
	if err != nil {
		return err
	}
	for _, p := range s.catalog() {
		if strings.EqualFold(p.Name, id.Name()) {
			gate.WriteJSON(w, http.StatusOK, p)
			return nil
		}
	}
	return notFound("The resource provider '%s' was not found.", id.Name())
}
