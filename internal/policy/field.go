package policy

import (
	"strconv"
	"strings"
)

// path says where in a resource a field is.
type path struct {
	text  string
	typ   string // of an alias: the type whose property it is, in lower case
	steps []step
	keys  []string // of each prefix that ends in [*], by the number of its steps; empty for others
	each  int      // how many steps are [*]
}

// step is a property's name, or every member of an array.
type step struct {
	name string
	each bool
}

// envelope are the properties that stand beside "properties", not in it.
var envelope = map[string]bool{
	"id": true, "name": true, "type": true, "location": true, "kind": true, "sku": true, "tags": true, "identity": true, "plan": true,
	"zones": true, "managedby": true, "extendedlocation": true, "fullname": true, "systemdata": true, "etag": true,
}

// renamed are aliases whose name is not their place.
var renamed = map[string]string{
	"microsoft.storage/storageaccounts/accounttype":              "sku.name",
	"microsoft.storage/storageaccounts/enableblobencryption":     "encryption.services.blob.enabled",
	"microsoft.storage/storageaccounts/enablefileencryption":     "encryption.services.file.enabled",
	"microsoft.keyvault/vaults/networkacls.virtualnetworkrules":  "networkAcls.virtualNetworkRules",
	"microsoft.keyvault/vaults/networkacls.iprules":              "networkAcls.ipRules",
	"microsoft.resources/subscriptions/resourcegroups/managedby": "managedBy",
}

// parsePath reads a field: tags.NAME, tags['NAME'], a path such as
// properties.rules[*].port, or an alias, TYPE/PATH.
func parsePath(text string) (path, error) {
	p := path{text: text}
	rest := text
	if i := strings.LastIndexByte(aliasHead(text), '/'); i > 0 {
		p.typ = strings.ToLower(text[:i])
		rest = text[i+1:]
		if to, ok := renamed[strings.ToLower(text)]; ok {
			rest = to
		}
	}
	if p.typ == "" && len(rest) > 4 && strings.EqualFold(rest[:4], "tags") && (rest[4] == '.' || rest[4] == '[') && rest[4:] != "[*]" {
		name := rest[5:]
		if rest[4] == '[' {
			var ok bool
			if name, ok = strings.CutSuffix(name, "]"); !ok {
				return path{}, invalid("the field %q has no ]", clip(text))
			}
			name = unquote(name)
		}
		p.steps = []step{{name: "tags"}, {name: name}}
		return p.done(), nil
	}
	for rest != "" {
		switch {
		case strings.HasPrefix(rest, "[*]"):
			p.steps = append(p.steps, step{each: true})
			p.each++
			rest = rest[3:]
		case rest[0] == '[':
			end := strings.IndexByte(rest, ']')
			if end < 2 {
				return path{}, invalid("the field %q has brackets that name nothing", clip(text))
			}
			p.steps = append(p.steps, step{name: unquote(rest[1:end])})
			rest = rest[end+1:]
		default:
			rest = strings.TrimPrefix(rest, ".")
			end := strings.IndexAny(rest, ".[")
			if end < 0 {
				end = len(rest)
			}
			if end == 0 {
				return path{}, invalid("the field %q has an empty name in it", clip(text))
			}
			p.steps = append(p.steps, step{name: rest[:end]})
			rest = rest[end:]
		}
	}
	if len(p.steps) == 0 || p.steps[0].each {
		return path{}, invalid("%q is no field: it must be a property, a tag or an alias", clip(text))
	}
	return p.done(), nil
}

// aliasHead is the part of an alias in which slashes part types: before any
// bracket with a quoted name.
func aliasHead(s string) string {
	if i := strings.IndexAny(s, "'\""); i >= 0 {
		s = s[:i]
	}
	return s
}

func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '\'' || s[0] == '"') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

func (p path) done() path {
	if p.each == 0 {
		return p
	}
	p.keys = make([]string, len(p.steps)+1)
	key := p.typ + "/"
	for i, s := range p.steps {
		if s.each {
			key += "[*]"
			p.keys[i+1] = key
			continue
		}
		key += "." + strings.ToLower(s.name)
	}
	return p
}

// key names the array that p goes through to its end.
func (p path) key() string {
	if p.each == 0 {
		return ""
	}
	return p.keys[len(p.steps)]
}

// start is where in the resource p begins, and its steps from there. In a
// count's condition it is the member that is being looked at.
func (r *run) start(p *path) (at any, steps []step, ok bool) {
	if p.each > 0 {
		for i := len(r.scopes) - 1; i >= 0; i-- {
			for n := len(p.keys) - 1; n > 0; n-- {
				if p.keys[n] != "" && p.keys[n] == r.scopes[i].key {
					return r.scopes[i].value, p.steps[n:], true
				}
			}
		}
	}
	res := r.in.Resource
	if p.typ == "" {
		return res, p.steps, true
	}
	if typ, _ := lookup(res, "type"); !sameFold(typ, p.typ) && !ofNamespace(typ, p.typ) {
		return nil, nil, false
	}
	if props, is := res["properties"].(map[string]any); is {
		if _, has := find(props, p.steps[0].name, true); has {
			return props, p.steps, true
		}
	}
	if envelope[strings.ToLower(p.steps[0].name)] {
		return res, p.steps, true
	}
	return nil, p.steps, true
}

// ofNamespace reports whether an alias is one of a whole namespace, such as
// Microsoft.HybridCompute/imageOffer, and the type one of its types.
func ofNamespace(typ any, namespace string) bool {
	s, _ := typ.(string)
	ns, _, ok := strings.Cut(s, "/")
	return ok && strings.EqualFold(ns, namespace)
}

func sameFold(v any, s string) bool {
	t, ok := v.(string)
	return ok && strings.EqualFold(t, s)
}

// find is a property; an alias leaves out the bags named "properties" between.
func find(m map[string]any, name string, alias bool) (any, bool) {
	v, ok := lookup(m, name)
	if !ok && alias {
		if bag, is := m["properties"].(map[string]any); is {
			return lookup(bag, name)
		}
	}
	return v, ok
}

// under is a property of an object, or a member of an array by its number.
func under(at any, name string, alias bool) (any, bool) {
	switch x := at.(type) {
	case map[string]any:
		return find(x, name, alias)
	case []any:
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(x) {
			return x[i], true
		}
	}
	return nil, false
}

// one is the value of a path that goes through no array.
func (r *run) one(p *path) (any, bool) {
	at, steps, ok := r.start(p)
	if !ok {
		return nil, false
	}
	for _, s := range steps {
		if m, is := at.(map[string]any); is {
			if v, has := m[s.name]; has { // as spelt is the common case
				at = v
				continue
			}
		}
		if at, ok = under(at, s.name, p.typ != ""); !ok {
			return nil, false
		}
	}
	return at, at != nil
}

// visit calls f for each value that a path comes to; what is not there under a
// member that is counts as a value that is missing.
func (r *run) visit(p *path, f func(v any, ok bool) error) error {
	at, steps, ok := r.start(p)
	if !ok {
		return nil
	}
	return r.walk(at, steps, p.typ != "", f)
}

func (r *run) walk(at any, steps []step, alias bool, f func(v any, ok bool) error) error {
	if err := r.spend(); err != nil {
		return err
	}
	for i, s := range steps {
		if s.each {
			members, _ := at.([]any)
			for _, m := range members {
				if err := r.walk(m, steps[i+1:], alias, f); err != nil {
					return err
				}
			}
			return nil
		}
		var there bool
		if at, there = under(at, s.name, alias); !there {
			for _, later := range steps[i:] {
				if later.each {
					return nil // no array, no members
				}
			}
			return f(nil, false)
		}
	}
	return f(at, at != nil)
}

// collect is what the function field gives.
func (r *run) collect(p *path) (any, error) {
	if p.each == 0 {
		v, _ := r.one(p)
		return v, nil
	}
	out := []any{}
	err := r.visit(p, func(v any, ok bool) error {
		if ok {
			out = append(out, v)
		}
		return nil
	})
	return out, err
}
