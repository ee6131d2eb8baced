package identity

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

// directoryText says who may do what to a directory, in the form that its own
// first lines tell.
//
//go:embed directoryroles.txt
var directoryText string

// holder is somebody that rights on the directory are given to: a role, an
// application permission, owners, people, everybody.
type holder struct {
	kind    string // role, right, owner, people or everybody
	id      string // of a role its template id, of a right its id as an application permission, of an owner the kind of object
	scope   string // of a right, its id as a scope, or "" if no client can have it for a person
	name    string
	doc     string
	actions []string // lower case, * for any part
	guards  []string // kinds of objects (or *) of which it may change those that are administrators
	admin   bool     // whoever has it is an administrator
}

// roleBook is who may do what to a directory, read once.
type roleBook struct {
	roles       []*holder // in the order of the text
	byID        map[string]*holder
	rights      map[string]*holder // by lower-case value
	permissions []*holder          // the rights in the order of the text
	owners      map[string]*holder // by lower-case kind of object
	people      *holder
	everyone    *holder
}

// book is the program's own.
var book = mustBook(directoryText)

func mustBook(text string) *roleBook {
	b, err := readBook(text)
	if err != nil {
		panic(err) // the text is part of the program, and tested
	}
	return b
}

func readBook(text string) (*roleBook, error) {
	b := &roleBook{byID: map[string]*holder{}, rights: map[string]*holder{}, owners: map[string]*holder{}, people: &holder{}, everyone: &holder{}}
	var h *holder
	var inherits []func() error
	for n, line := range strings.Split(text, "\n") {
		if line == "" {
			h = nil
			continue
		}
		if line[0] == '#' {
			continue
		}
		if h == nil {
			if h = b.begin(line); h == nil {
				return nil, fmt.Errorf("line %d of the directory's roles: %q begins no block", n+1, line)
			}
			continue
		}
		mark, rest, _ := strings.Cut(line, " ")
		to := h
		switch mark {
		case ":":
			h.doc = rest
		case "~":
			h.admin = false
		case "!":
			h.admin = true
		case "^":
			h.guards = append(h.guards, fold(rest))
		case "+":
			h.actions = append(h.actions, fold(rest))
		case ">":
			inherits = append(inherits, func() error { return b.inherit(to, rest) })
		default:
			return nil, fmt.Errorf("line %d of the directory's roles: %q has an unknown mark", n+1, line)
		}
	}
	for _, f := range inherits {
		if err := f(); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// begin opens the block that line is the first of; nil if it is none.
func (b *roleBook) begin(line string) *holder {
	kind, rest, _ := strings.Cut(line, " ")
	h := &holder{kind: kind, id: rest, name: rest}
	switch kind {
	case "role":
		h.id, h.name, _ = strings.Cut(rest, " ")
		if !isGUID(h.id) || h.name == "" || b.byID[h.id] != nil {
			return nil
		}
		h.admin, b.byID[h.id], b.roles = true, h, append(b.roles, h)
	case "right":
		ids := strings.Fields(rest)
		if len(ids) != 3 || !isGUID(ids[0]) || ids[1] != "-" && !isGUID(ids[1]) || b.rights[fold(ids[2])] != nil {
			return nil
		}
		h.id, h.scope, h.name = ids[0], strings.TrimPrefix(ids[1], "-"), ids[2]
		b.rights[fold(h.name)], b.permissions = h, append(b.permissions, h)
	case "owner":
		b.owners[fold(rest)] = h
	case "people":
		b.people = h
	case "everybody":
		b.everyone = h
	default:
		return nil
	}
	return h
}

func (b *roleBook) inherit(to *holder, name string) error {
	for _, r := range b.roles {
		if r.name == name && r != to {
			to.actions = append(to.actions, r.actions...)
			return nil
		}
	}
	return fmt.Errorf("the directory's roles: %s has all that %q has, which is no role", to.name, name)
}

// allows reports whether the holder has an action, given by its key.
func (h *holder) allows(action string) bool {
	return slices.ContainsFunc(h.actions, func(p string) bool { return fits(p, action) })
}

// guards reports whether the holder may change administrators of a kind.
func (h *holder) mayGuard(class string) bool {
	return slices.Contains(h.guards, "*") || slices.Contains(h.guards, fold(class))
}

// fits reports whether s has the form of pattern, in which * stands for any text.
func fits(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	last := len(parts) - 1
	if last == 0 {
		return pattern == s
	}
	if !strings.HasPrefix(s, parts[0]) {
		return false
	}
	s = s[len(parts[0]):]
	for _, p := range parts[1:last] {
		at := strings.Index(s, p)
		if at < 0 {
			return false
		}
		s = s[at+len(p):]
	}
	return strings.HasSuffix(s, parts[last])
}

// standing is what a decision on the directory rests on: what the caller is and
// has, and what the object is that it is about.
type standing struct {
	person    bool
	roles     []string // template ids
	rights    []string // application permissions; only of applications
	class     string   // of the object (users, groups, ...), or "" for the directory as a whole
	owner     bool     // the caller owns the object
	protected bool     // the object is an administrator, or leads to being one
}

// decide says whether somebody with this standing may do an action of the
// directory, given by its key, and why. It looks at nothing else.
func (b *roleBook) decide(s standing, action string) (bool, string) {
	guarded := s.protected && !strings.HasSuffix(action, "/read") && !strings.HasPrefix(action, "microsoft.directory/me/")
	near := false
	for _, h := range b.holders(s) {
		if !h.allows(action) {
			continue
		}
		if near = true; guarded && !h.mayGuard(s.class) {
			continue
		}
		return true, h.why()
	}
	if near {
		return false, "it is an administrator, or leads to being one; only who may change those may change it"
	}
	return false, "the caller lacks a directory role that allows it"
}

// holders are all that give somebody with this standing rights.
func (b *roleBook) holders(s standing) []*holder {
	out := []*holder{b.everyone}
	if s.person {
		out = append(out, b.people)
	}
	for _, id := range s.roles {
		if h := b.byID[id]; h != nil {
			out = append(out, h)
		}
	}
	for _, r := range s.rights {
		if h := b.rights[fold(r)]; h != nil && !s.person {
			out = append(out, h)
		}
	}
	if h := b.owners[fold(s.class)]; h != nil && s.owner {
		out = append(out, h)
	}
	return out
}

// why is the reason that the audit log gives for what the holder allowed.
func (h *holder) why() string {
	switch h.kind {
	case "role":
		return "the directory role " + h.name
	case "right":
		return "the application permission " + h.name
	}
	return h.doc
}

// administers reports whether somebody with these roles and rights is an
// administrator, whom not everybody may change.
func (b *roleBook) administers(roles, rights []string) bool {
	for _, id := range roles {
		if h := b.byID[id]; h == nil || h.admin {
			return true // a role that nobody knows any more is no reason to be careless
		}
	}
	for _, r := range rights {
		if h := b.rights[fold(r)]; h != nil && h.admin {
			return true
		}
	}
	return false
}
