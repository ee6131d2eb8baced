package resource

import (
	"cmp"
	"encoding/base64"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// The conditions of the $filter that lists of resources take.
var (
	eqForm  = regexp.MustCompile(`(?i)^\s*(resourceType|resourceGroup|name|location|kind|tagName|tagValue|identity|identity/principalId)\s+(eq|ne)\s+'((?:[^']|'')+)'\s*$`)
	subForm = regexp.MustCompile(`(?i)^\s*substringof\(\s*'((?:[^']|'')+)'\s*,\s*(name|resourceGroup)\s*\)\s*(?:eq\s+true\s*)?$`)
	preForm = regexp.MustCompile(`(?i)^\s*startswith\(\s*(name|tagName)\s*,\s*'((?:[^']|'')+)'\s*\)\s*$`)
	joint   = regexp.MustCompile(`(?i)\s+(and|or)\s+`)
)

// clause is one condition: the field in lower case, and how its value must be.
type clause struct{ field, how, value string }

// filter chooses resources: one of its lists of clauses must hold as a whole.
type filter [][]clause

// readFilter reads a $filter: conditions joined by and, and such lists by or.
func readFilter(f string) (filter, error) {
	if f == "" {
		return nil, nil
	}
	var out filter
	all, begun := []clause{}, 0
	take := func(text string) error {
		c, ok := readClause(text)
		if !ok {
			return arm.Errorf(arm.BadRequest, "the $filter %q is not supported; supported: FIELD eq 'VALUE' or ne on resourceType, resourceGroup, name, location, kind, identity, identity/principalId, tagName and tagValue (eq alone), substringof('VALUE', name or resourceGroup), startswith(name or tagName, 'VALUE'), joined by and, and those by or", f)
		}
		all = append(all, c)
		return nil
	}
	for _, at := range joint.FindAllStringSubmatchIndex(f, -1) {
		if strings.Count(f[:at[0]], "'")%2 == 1 {
			continue // within quotes
		}
		if err := take(f[begun:at[0]]); err != nil {
			return nil, err
		}
		if begun = at[1]; strings.EqualFold(f[at[2]:at[3]], "or") {
			out, all = append(out, all), []clause{}
		}
	}
	if err := take(f[begun:]); err != nil {
		return nil, err
	}
	out = append(out, all)
	for _, all := range out {
		if slices.ContainsFunc(all, func(c clause) bool { return c.field == "tagvalue" }) && !slices.ContainsFunc(all, func(c clause) bool { return c.field == "tagname" }) {
			return nil, arm.Errorf(arm.BadRequest, "the $filter %q has a tagValue without a tagName eq it belongs to", f)
		}
	}
	return out, nil
}

func readClause(text string) (clause, bool) {
	if m := eqForm.FindStringSubmatch(text); m != nil {
		c := clause{strings.ToLower(m[1]), strings.ToLower(m[2]), strings.ReplaceAll(m[3], "''", "'")}
		return c, c.how == "eq" || !strings.HasPrefix(c.field, "tag")
	}
	if m := subForm.FindStringSubmatch(text); m != nil {
		return clause{strings.ToLower(m[2]), "has", strings.ReplaceAll(m[1], "''", "'")}, true
	}
	if m := preForm.FindStringSubmatch(text); m != nil {
		return clause{strings.ToLower(m[1]), "begins", strings.ReplaceAll(m[2], "''", "'")}, true
	}
	return clause{}, false
}

// meets reports whether d is what the filter wants.
func (f filter) meets(d *Doc) bool {
	return f == nil || slices.ContainsFunc(f, func(all []clause) bool {
		for _, c := range all {
			if !c.meets(d, all) {
				return false
			}
		}
		return true
	})
}

func (c clause) meets(d *Doc, all []clause) bool {
	switch c.field {
	case "resourcetype":
		return c.fits(d.Type)
	case "resourcegroup":
		return c.fits(d.ID.Group().Name())
	case "name":
		return c.fits(d.Name)
	case "kind":
		return c.fits(d.Kind)
	case "location":
		c.value = place(c.value)
		return c.fits(place(d.Location))
	case "identity":
		return c.fits(cmp.Or(identityOf(d).Type, "None"))
	case "identity/principalid":
		return c.fits(identityOf(d).Principal)
	case "tagname":
		for name, value := range d.Tags {
			if c.fits(name) && !slices.ContainsFunc(all, func(x clause) bool { return x.field == "tagvalue" && x.value != value }) {
				return true
			}
		}
		return false
	}
	return true // tagValue, which tagName looked at
}

func identityOf(d *Doc) Identity {
	if d.Identity == nil {
		return Identity{}
	}
	return *d.Identity
}

func (c clause) fits(is string) bool {
	switch c.how {
	case "ne":
		return !strings.EqualFold(is, c.value)
	case "has":
		return strings.Contains(strings.ToLower(is), strings.ToLower(c.value))
	case "begins":
		return strings.HasPrefix(strings.ToLower(is), strings.ToLower(c.value))
	}
	return strings.EqualFold(is, c.value)
}

// readExpand is what a list's $expand adds to its rows, in lower case.
func readExpand(text string) ([]string, error) {
	var out []string
	for _, word := range strings.Split(text, ",") {
		switch word = strings.ToLower(strings.TrimSpace(word)); word {
		case "createdtime", "changedtime", "provisioningstate":
			out = append(out, word)
		case "":
		default:
			return nil, arm.Errorf(arm.BadRequest, "$expand has %q; it may have createdTime, changedTime and provisioningState", word)
		}
	}
	return out, nil
}

func (s *Server) resources(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	scope, err := g.On(readResources, readGroupItems)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	want, err := readFilter(q.Get("$filter"))
	if err != nil {
		return err
	}
	expand, err := readExpand(q.Get("$expand"))
	if err != nil {
		return err
	}
	after, err := skip(q.Get("$skiptoken"))
	if err != nil {
		return err
	}
	size, err := topSize(r, 1000)
	if err != nil {
		return err
	}
	list := []any{}
	out := map[string]any{}
	if err := s.DB.View(r.Context(), func(tx *store.Tx) error {
		return s.each(tx, g, scope, after, func(k *Kind, d *Doc) bool {
			if k.Parent != Group || k.Wide != nil || !want.meets(d) {
				return true
			}
			if len(list) == size {
				q.Set("$skiptoken", after)
				out["nextLink"] = s.Site.Base() + r.URL.EscapedPath() + "?" + q.Encode()
				return false
			}
			after = base64.RawURLEncoding.EncodeToString([]byte(d.ID.Key()))
			list = append(list, listed(d, expand))
			return true
		})
	}); err != nil {
		return err
	}
	out["value"] = list
	return writeJSON(w, http.StatusOK, out)
}

// listed is d as lists of resources of all types show it.
func listed(d *Doc, expand []string) map[string]any {
	out := map[string]any{"id": d.ID, "name": d.Name, "type": d.Type, "location": d.Location, "tags": d.Tags, "kind": d.Kind, "sku": d.SKU, "identity": d.Identity}
	for _, word := range expand {
		switch {
		case word == "createdtime" && d.System != nil:
			out["createdTime"] = d.System.CreatedAt
		case word == "changedtime" && d.System != nil:
			out["changedTime"] = d.System.ModifiedAt
		case word == "provisioningstate":
			out["provisioningState"] = cmp.Or(StateOf(d), "Succeeded")
		}
	}
	return out
}

// each calls do for every resource below scope that the Grant sees, in the order
// of their ids, beginning behind the key after, until it returns false.
func (s *Server) each(tx *store.Tx, g gate.Grant, scope arm.ID, after string, do func(k *Kind, d *Doc) bool) error {
	for {
		keys, err := tx.Keys(docs, strings.TrimSuffix(scope.Key(), "/")+"/", after, page)
		if err != nil {
			return err
		}
		for _, key := range keys {
			after = key
			id, err := arm.ParseID(key)
			if err != nil {
				return err
			}
			k := s.Kind(id.Type())
			if k == nil || !g.Sees(k.read, id) {
				continue
			}
			d, err := glimpse(tx, id)
			if err != nil {
				return err
			}
			if d != nil && !do(k, d) {
				return nil
			}
		}
		if len(keys) < page {
			return nil
		}
	}
}
