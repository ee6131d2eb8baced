package resource

import (
	_ "embed"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	"castellan/internal/arm"
)

//go:embed versions.txt
var versionsText string

// front is Resource Manager itself: what has no provider in its path.
const front = "microsoft.resources"

// own begins the names of providers that Azure does not have.
const own = "castellan"

// allVersions are the lists of versions.txt by type, in lower case, the newest
// version first.
var allVersions = sync.OnceValue(func() map[string][]string {
	out, types, filled := map[string][]string{}, []string(nil), false
	for line := range strings.Lines(versionsText) {
		switch fields := strings.Fields(line); {
		case line[0] == '#':
		case line[0] != ' ':
			if filled {
				types, filled = nil, false
			}
			types = append(types, strings.ToLower(fields[0]))
		default:
			filled = true
			for _, t := range types {
				out[t] = append(out[t], fields...)
			}
		}
	}
	for _, list := range out {
		slices.Reverse(list)
	}
	return out
})

// Versions are the api-versions of a type, the newest first; nil if it has none.
func Versions(typ string) []string {
	for t := strings.ToLower(typ); ; {
		if list := allVersions()[t]; list != nil {
			return list
		}
		i := strings.LastIndexByte(t, '/')
		if i < 0 && strings.HasPrefix(t, own+".") {
			i = len(own)
		}
		if i < 0 {
			return nil
		}
		t = t[:i]
	}
}

// newest is the version that tools are told to use: the newest that is no preview.
func newest(typ string) string {
	list := Versions(typ)
	for _, v := range list {
		if !strings.Contains(v, "preview") {
			return v
		}
	}
	if len(list) > 0 {
		return list[0]
	}
	return ""
}

// namespaceVersions are those of all types of a provider: what its operations
// may be asked with, which are of no type.
func namespaceVersions(ns string) []string {
	var out []string
	for t, list := range allVersions() {
		if first, _, _ := strings.Cut(t, "/"); strings.EqualFold(first, ns) || first == own && strings.HasPrefix(strings.ToLower(ns), own+".") {
			out = append(out, list...)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	slices.Reverse(out)
	return out
}

// ofProviders are what Resource Manager itself does with a provider.
var ofProviders = []string{"register", "unregister", "providerPermissions"}

// typeOfDoor is the type that a door's pattern speaks of, which may have an
// action behind it; of doors to a namespace given in the path, only that.
func typeOfDoor(pattern string, ns string) (typ string, whole bool) {
	i := strings.LastIndex(pattern, "/providers/")
	if i < 0 {
		return front, false
	}
	segs := strings.Split(pattern[i+len("/providers/"):], "/")
	if segs[0] == "{ns}" {
		if len(segs) == 1 || slices.Contains(ofProviders, segs[1]) {
			return front, false
		}
		return ns, true
	}
	segs = slices.DeleteFunc(segs, func(s string) bool { return s[0] == '{' })
	return strings.Join(segs, "/"), false
}

// unplaced are providers whose types are in no location.
var unplaced = []string{front, "microsoft.authorization", "microsoft.policyinsights", "microsoft.management", "microsoft.subscription"}

// supported refuses an api-version that the type of a door's path doesn't have,
// in the words of who refuses it: Resource Manager for what is its own, and for
// what is a provider's as it knows it to be in locations or not.
func supported(r *http.Request, v string) error {
	ns := ""
	if _, below, ok := strings.Cut(strings.ToLower(r.URL.Path), "/providers/"); ok {
		ns, _, _ = strings.Cut(below, "/")
	}
	typ, whole := typeOfDoor(r.Pattern, ns)
	if whole {
		if list := namespaceVersions(ns); list == nil || slices.Contains(list, v) {
			return nil // which provider there is, the door itself says
		}
	}
	return Supports(typ, v)
}

// Supports refuses an api-version that a type doesn't have.
func Supports(typ, v string) error {
	list := Versions(typ)
	if slices.Contains(list, v) {
		return nil
	}
	ns, name, _ := strings.Cut(typ, "/")
	switch {
	case strings.EqualFold(ns, front):
		return arm.Errorf(arm.InvalidAPIVersion, "The api-version '%s' is invalid. The supported versions are '%s'.", v, strings.Join(list, ","))
	case slices.Contains(unplaced, strings.ToLower(ns)), strings.HasPrefix(strings.ToLower(ns), own+"."):
		return &arm.Error{Code: "InvalidResourceType", Status: http.StatusNotFound, Message: "The resource type '" + name + "' could not be found in the namespace '" + ns + "' for api version '" + v + "'. The supported api-versions are '" + strings.Join(list, ",") + "'."}
	}
	return &arm.Error{Code: "NoRegisteredProviderFound", Status: http.StatusBadRequest, Message: "There is no registered resource provider for API version '" + v + "' of type '" + name + "'. The supported api-versions are '" + strings.Join(list, ", ") + "'."}
}

var versionForm = regexp.MustCompile(`^[0-9]{4}-[01][0-9]-[0-3][0-9](-(preview|alpha|beta|privatepreview))?$`)

// version wants exactly one api-version, and one that the type asked for has.
func version(r *http.Request) error {
	if strings.Contains(r.URL.RawQuery, ";") {
		return arm.Errorf(arm.InvalidAPIVersion, "the query has a semicolon")
	}
	n := 0
	for name, values := range r.URL.Query() {
		if strings.EqualFold(name, "api-version") {
			n += len(values)
		}
	}
	switch v := r.URL.Query()["api-version"]; {
	case n > 1:
		return arm.Errorf(arm.InvalidAPIVersion, "the query has %d api-versions, in any letter case; it must have one", n)
	case len(v) == 0:
		return arm.Errorf(arm.MissingAPIVersion, "the api-version query parameter (?api-version=) is required for all requests")
	case !versionForm.MatchString(v[0]):
		return arm.Errorf(arm.InvalidAPIVersion, "the api-version %q is invalid; it must be one date such as 2024-04-01, perhaps with -preview", v[0])
	default:
		return supported(r, v[0])
	}
}

// VersionFor is the api-version to ask for what a path names: the newest, other
// than previews, of its type. It is for clients; doors look at patterns.
func VersionFor(path string) string {
	path, _, _ = strings.Cut(path, "?")
	i := strings.LastIndex(strings.ToLower(path), "/providers/")
	if i < 0 {
		return newest(front)
	}
	segs := strings.Split(path[i+len("/providers/"):], "/")
	if len(segs) == 2 && slices.ContainsFunc(ofProviders, func(s string) bool { return strings.EqualFold(s, segs[1]) }) {
		return newest(front)
	}
	typ := segs[:1]
	for n := 1; n < len(segs); n += 2 {
		typ = append(typ, segs[n])
	}
	if v := newest(strings.Join(typ, "/")); v != "" && len(segs) > 1 {
		return v
	}
	if list := namespaceVersions(segs[0]); len(segs) > 2 && list != nil {
		return list[0]
	}
	return newest(front)
}
