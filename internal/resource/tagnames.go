package resource

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// tagNames is the table of the tag names that a subscription has predefined,
// with their values, under its key, a bar and the name in lower case.
const tagNames = "tag_names"

// Limits of predefined tags.
const (
	maxTagNames     = 200 // of a subscription
	maxTagValuesOne = 200 // of one name
)

const tagNamesType = "Microsoft.Resources/subscriptions/tagNames"

var (
	readTagNames   = arm.NewAction(tagNamesType+"/read", "see which tag names a subscription has")
	writeTagName   = arm.NewAction(tagNamesType+"/write", "predefine a tag name")
	deleteTagName  = arm.NewAction(tagNamesType+"/delete", "forget a predefined tag name")
	writeTagValue  = arm.NewAction(tagNamesType+"/tagValues/write", "predefine a value of a tag")
	deleteTagValue = arm.NewAction(tagNamesType+"/tagValues/delete", "forget a predefined value of a tag")
)

// tagName is a predefined name with its values.
type tagName struct {
	Name   string   `json:"name"`
	Values []string `json:"values"`
}

// tagNameRoutes are the doors to predefined tag names and values.
func (s *Server) tagNameRoutes() []gate.Route {
	const list, name, value = "/subscriptions/{sub}/tagNames", "/subscriptions/{sub}/tagNames/{name}", "/subscriptions/{sub}/tagNames/{name}/tagValues/{value}"
	at := func(r *http.Request, v gate.Vars) (gate.Target, error) {
		if err := version(r); err != nil {
			return gate.Target{}, err
		}
		if err := checkTag(v["name"], v["value"]); err != nil {
			return gate.Target{}, err
		}
		id, err := arm.ParseID("/subscriptions/" + v["sub"])
		item := v["name"]
		if v["value"] != "" {
			item += "\x00" + v["value"]
		}
		return gate.Target{ID: id, Item: item}, err
	}
	return []gate.Route{
		gate.Each(readTagNames, "GET "+list, func(r *http.Request, v gate.Vars) (gate.Target, error) { return Locate(r, 1) }, s.listTagNames),
		gate.On(writeTagName, "PUT "+name, at, s.changeTagName(writeTagName, (*tagName).add)),
		gate.On(deleteTagName, "DELETE "+name, at, s.changeTagName(deleteTagName, nil)),
		gate.On(writeTagValue, "PUT "+value, at, s.changeTagName(writeTagValue, (*tagName).add)),
		gate.On(deleteTagValue, "DELETE "+value, at, s.changeTagName(deleteTagValue, (*tagName).drop)),
	}
}

func (t *tagName) add(value string) {
	if value != "" && !slices.Contains(t.Values, value) {
		t.Values = append(t.Values, value)
	}
}

func (t *tagName) drop(value string) {
	t.Values = slices.DeleteFunc(t.Values, func(v string) bool { return v == value })
}

// used counts the resources with a tag, by its name in lower case and its values.
type used map[string]map[string]int

func (s *Server) tagsUsed(tx *store.Tx, g gate.Grant, sub arm.ID) (used, map[string]string, error) {
	count, spelt := used{}, map[string]string{}
	err := s.each(tx, g, sub, "", func(_ *Kind, d *Doc) bool {
		for name, value := range d.Tags {
			k := strings.ToLower(name)
			if count[k] == nil {
				count[k], spelt[k] = map[string]int{}, name
			}
			count[k][value]++
		}
		return true
	})
	return count, spelt, err
}

func tally(n int) map[string]any { return map[string]any{"type": "Total", "value": n} }

func showTagName(sub arm.ID, t tagName, count map[string]int) map[string]any {
	total, values := 0, []any{}
	all := maps.Clone(count)
	if all == nil {
		all = map[string]int{}
	}
	for _, v := range t.Values {
		all[v] += 0
	}
	id := sub.String() + "/tagNames/" + t.Name
	for _, v := range slices.Sorted(maps.Keys(all)) {
		total += all[v]
		values = append(values, map[string]any{"id": id + "/tagValues/" + v, "tagValue": v, "count": tally(all[v])})
	}
	return map[string]any{"id": id, "tagName": t.Name, "count": tally(total), "values": values}
}

// listTagNames shows the predefined names and those in use, as far as the caller
// sees what has them.
func (s *Server) listTagNames(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	sub, err := g.On(readTagNames)
	if err != nil {
		return err
	}
	list := []any{}
	if err := s.DB.View(r.Context(), func(tx *store.Tx) error {
		all := map[string]tagName{}
		if g.Sees(readTagNames, sub) {
			rows, err := store.ScanJSON[tagName](tx, tagNames, sub.Key()+"|", "", 0)
			if err != nil {
				return err
			}
			for _, t := range rows {
				all[strings.ToLower(t.Name)] = t
			}
		}
		count, spelt, err := s.tagsUsed(tx, g, sub)
		if err != nil {
			return err
		}
		for k, name := range spelt {
			if _, ok := all[k]; !ok {
				all[k] = tagName{Name: name}
			}
		}
		for _, k := range slices.Sorted(maps.Keys(all)) {
			list = append(list, showTagName(sub, all[k], count[k]))
		}
		return nil
	}); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"value": list})
}

// changeTagName has do change a name, or forgets it if do is nil. What is in use
// is not forgotten, nor a name that has values.
func (s *Server) changeTagName(a arm.Action, do func(t *tagName, value string)) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		sub, err := g.On(a)
		if err != nil {
			return err
		}
		name, value, ofValue := strings.Cut(g.Item(), "\x00")
		put := r.Method == http.MethodPut
		status, answer := http.StatusOK, map[string]any(nil)
		if err := g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
			if d, err := Load(tx, sub); err != nil {
				return err
			} else if d == nil {
				return missing(Subscription, sub)
			}
			k := sub.Key() + "|" + strings.ToLower(name)
			t, there, err := store.GetJSON[tagName](tx, tagNames, k)
			if err != nil {
				return err
			}
			count, _, err := s.tagsUsed(tx, g, sub)
			if err != nil {
				return err
			}
			here := count[strings.ToLower(name)]
			switch {
			case !there && put && ofValue:
				return arm.Errorf("TagNotFound", "The subscription has no tag name '%s'; make it first.", name)
			case !there && put:
				if all, err := tx.Scan(tagNames, sub.Key()+"|", "", maxTagNames); err != nil || len(all) == maxTagNames {
					return orTooMany(err, "the subscription has %d tag names; it can have no more", maxTagNames)
				}
				t.Name, status = name, http.StatusCreated
			case !put && (!there || ofValue && !slices.Contains(t.Values, value)):
				status = http.StatusNoContent
				return nil
			case !put && (ofValue && here[value] > 0 || !ofValue && len(here)+len(t.Values) > 0):
				return arm.Errorf(arm.Conflict, "The tag '%s' can't be deleted: resources have it, or it has values.", strings.ReplaceAll(g.Item(), "\x00", "="))
			}
			if do == nil {
				return tx.Delete(tagNames, k)
			}
			had := len(t.Values)
			do(&t, value)
			if len(t.Values) > maxTagValuesOne {
				return orTooMany(nil, "the tag has %d values; it can have no more", maxTagValuesOne)
			}
			if len(t.Values) > had {
				status = http.StatusCreated
			}
			if answer = showTagName(sub, t, here); ofValue {
				answer = map[string]any{"id": sub.String() + "/tagNames/" + t.Name + "/tagValues/" + value, "tagValue": value, "count": tally(here[value])}
			}
			return store.PutJSON(tx, tagNames, k, t)
		}); err != nil {
			return err
		}
		if !put {
			w.WriteHeader(status)
			return nil
		}
		return writeJSON(w, status, answer)
	}
}

func orTooMany(err error, format string, n int) error {
	if err != nil {
		return err
	}
	return arm.Errorf("TooManyTags", format, n)
}
