package arm

import (
	"fmt"
	"strings"
)

// ID is a resource id, parsed once. Two spellings of one id are the same
// resource: compare Key, show String. The zero ID is nowhere.
type ID struct {
	text string // as it was first written, without a trailing slash
	key  string // text, lower case
}

// Root is the scope above every management group and subscription.
var Root = ID{text: "/", key: "/"}

// maxID is the longest id taken, in bytes.
const maxID = 2048

// ParseID reads an absolute resource id. It refuses what a second reader could
// take for another id: percent signs, backslashes, dot segments, empty
// segments, control and non-ASCII characters.
func ParseID(s string) (ID, error) {
	if s == "/" {
		return Root, nil
	}
	if len(s) > maxID {
		return ID{}, Errorf(InvalidResourceName, "the resource id is %d characters long; at most %d are allowed", len(s), maxID)
	}
	if !strings.HasPrefix(s, "/") {
		return ID{}, Errorf(InvalidResourceName, "the resource id %q must start with a slash", s)
	}
	for _, seg := range strings.Split(s[1:], "/") {
		if err := CheckSegment(seg); err != nil {
			return ID{}, err
		}
	}
	id := ID{text: s, key: strings.ToLower(s)}
	if err := id.shape(); err != nil {
		return ID{}, err
	}
	return id, nil
}

// CheckSegment says whether seg can be one segment of a resource id.
func CheckSegment(seg string) error {
	if seg == "" || strings.Trim(seg, ".") == "" {
		return Errorf(InvalidResourceName, "a resource id has the segment %q; segments must be neither empty nor dots", seg)
	}
	for _, r := range seg {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune(`/%\;<>?#&"`, r) {
			return Errorf(InvalidResourceName, "the segment %q has the character %q, which a resource id may not have", seg, r)
		}
	}
	return nil
}

// shape holds the id against the grammar: scope, then providers/NS/type/name
// pairs, perhaps more than once (an extension resource).
func (id ID) shape() error {
	p := strings.Split(id.key[1:], "/")
	i := 0
	switch p[0] {
	case "subscriptions":
		if len(p) < 2 {
			return id.malformed()
		}
		if i = 2; len(p) > 2 && p[2] == "resourcegroups" {
			if len(p) < 4 {
				return id.malformed()
			}
			i = 4
		}
	case "providers":
	default:
		return id.malformed()
	}
	for i < len(p) {
		if p[i] != "providers" || i+1 >= len(p) {
			return id.malformed()
		}
		for i += 2; i < len(p) && p[i] != "providers"; i += 2 {
			if i+1 >= len(p) {
				return id.malformed()
			}
		}
	}
	return nil
}

func (id ID) malformed() error {
	return Errorf(InvalidResourceName, "%q is not a resource id; expected /subscriptions/ID[/resourceGroups/NAME][/providers/NAMESPACE/TYPE/NAME...]", id.text)
}

// MustID is ParseID for ids that the program itself spells.
func MustID(s string) ID {
	id, err := ParseID(s)
	if err != nil {
		panic(err)
	}
	return id
}

// String is the id as it was first written.
func (id ID) String() string { return id.text }

// Key is the id in the one form that is compared, indexed and hashed.
func (id ID) Key() string { return id.key }

// IsZero reports whether id names nothing.
func (id ID) IsZero() bool { return id.key == "" }

func (id ID) segments() []string { return strings.Split(id.text, "/")[1:] }

// Name is the last segment.
func (id ID) Name() string { return id.text[strings.LastIndexByte(id.text, '/')+1:] }

// Type is the resource type, such as Microsoft.KeyVault/vaults, as written;
// Microsoft.Resources/subscriptions and .../resourceGroups for those scopes.
func (id ID) Type() string {
	p := id.segments()
	at := -1
	for i, s := range p {
		if strings.EqualFold(s, "providers") {
			at = i
		}
	}
	if at < 0 || at+2 >= len(p) {
		switch {
		case at >= 0, id.IsZero(), id == Root:
			return ""
		case len(p) == 2:
			return "Microsoft.Resources/subscriptions"
		default:
			return "Microsoft.Resources/subscriptions/resourceGroups"
		}
	}
	t := p[at+1]
	for i := at + 2; i < len(p); i += 2 {
		t += "/" + p[i]
	}
	return t
}

// Parent is the scope that directly holds id: the parent resource, the scope
// an extension lies on, the group, the subscription, at last Root.
func (id ID) Parent() ID {
	p := id.segments()
	if id.IsZero() || id == Root || len(p) < 3 {
		return Root
	}
	cut := len(p) - 2
	if cut >= 2 && strings.EqualFold(p[cut-2], "providers") {
		cut -= 2
	} else if strings.EqualFold(p[cut], "providers") {
		return Root.or(p[:cut])
	}
	return Root.or(p[:cut])
}

func (ID) or(p []string) ID {
	if len(p) == 0 {
		return Root
	}
	t := "/" + strings.Join(p, "/")
	return ID{text: t, key: strings.ToLower(t)}
}

// Scopes lists the keys of id and of all that hold it, innermost first; the
// last is "/". Access given at any of them reaches id.
func (id ID) Scopes() []string {
	out := []string{id.key}
	for id != Root && !id.IsZero() {
		id = id.Parent()
		out = append(out, id.key)
	}
	return out
}

// Within reports whether id is scope or lies below it, by whole segments.
func (id ID) Within(scope ID) bool {
	if id.IsZero() || scope.IsZero() {
		return false
	}
	return scope == Root || id.key == scope.key || strings.HasPrefix(id.key, scope.key+"/")
}

// Subscription is the subscription id part, lower case, or "".
func (id ID) Subscription() string {
	if p := strings.Split(id.key, "/"); len(p) > 2 && p[1] == "subscriptions" {
		return p[2]
	}
	return ""
}

// Group is the resource group that holds id, or the zero ID.
func (id ID) Group() ID {
	p := id.segments()
	if len(p) >= 4 && strings.EqualFold(p[0], "subscriptions") && strings.EqualFold(p[2], "resourceGroups") {
		return id.or(p[:4])
	}
	return ID{}
}

// Child is the id of a child resource: typ/name below a resource, or
// providers/namespace/typ/name below a scope when typ has a slash.
func (id ID) Child(typ, name string) ID {
	t := strings.TrimSuffix(id.text, "/")
	if strings.Contains(typ, "/") {
		t += "/providers/" + typ + "/" + name
	} else {
		t += "/" + typ + "/" + name
	}
	return ID{text: t, key: strings.ToLower(t)}
}

// MarshalText writes the id as it was spelt.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.text), nil }

// UnmarshalText parses an id; an empty text is the zero ID.
func (id *ID) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*id = ID{}
		return nil
	}
	if *id, err = ParseID(string(b)); err != nil {
		return fmt.Errorf("reading an id: %w", err)
	}
	return nil
}
