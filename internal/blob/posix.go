package blob

import (
	"cmp"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"castellan/internal/arm"
)

// access is what a path's POSIX permissions are: an owner, a group and two lists.
// It is replaced, never changed. nil lets nobody do anything.
type access struct {
	Owner   string  `json:"owner"`
	Group   string  `json:"group"`
	Sticky  bool    `json:"sticky,omitempty"`  // only owners take away what lies in it
	List    []entry `json:"list"`              // of the path itself
	Default []entry `json:"default,omitempty"` // for what is made in it
}

// entry is one line of a list.
type entry struct {
	Of   string `json:"of"`           // user, group, mask or other
	ID   string `json:"id,omitempty"` // of a named user or group; "" is the owner's, or the group's
	Perm bits   `json:"perm"`
}

// bits are permissions: what reads, writes and goes through.
type bits uint8

const (
	canRead    bits = 4
	canWrite   bits = 2
	canExecute bits = 1
	canAll     bits = 7
)

func (b bits) String() string {
	out := []byte("---")
	for i, c := range []byte("rwx") {
		if b>>(2-i)&1 == 1 {
			out[i] = c
		}
	}
	return string(out)
}

// superuser owns what account keys make. Nobody is called so.
const superuser = "$superuser"

// maxEntries is how many lines each of a path's lists may have.
const maxEntries = 32

// Permissions that paths are made with, and what is taken from them, unless a
// request says otherwise.
const (
	dirMode   = 0o777
	fileMode  = 0o666
	usualMask = 0o027
)

// ofMode is a list of the three permissions in mode.
func ofMode(mode int) []entry {
	return []entry{{"user", "", bits(mode >> 6 & 7)}, {"group", "", bits(mode >> 3 & 7)}, {"other", "", bits(mode & 7)}}
}

// rootAccess is that of a new container's root.
func rootAccess(owner string) *access {
	return &access{Owner: owner, Group: owner, List: ofMode(0o750)}
}

// find is the place of an entry, or below 0.
func find(list []entry, of, id string) int {
	return slices.IndexFunc(list, func(e entry) bool { return e.Of == of && e.ID == id })
}

func permOf(list []entry, of string, none bits) bits {
	if i := find(list, of, ""); i >= 0 {
		return list[i].Perm
	}
	return none
}

// lets reports whether who may do want with the path, as Azure documents it: the
// owner by the owner's entry, others by the first of those that name them, but
// for what the mask takes away.
func (a *access) lets(who arm.Caller, want bits) bool {
	if a == nil || who.Object == "" {
		return false
	}
	has := func(p bits) bool { return p&want == want }
	if who.Object == a.Owner {
		return has(permOf(a.List, "user", 0))
	}
	mask := permOf(a.List, "mask", canAll)
	if i := find(a.List, "user", who.Object); i >= 0 {
		return has(a.List[i].Perm & mask)
	}
	for _, e := range a.List {
		id := cmp.Or(e.ID, a.Group)
		if e.Of == "group" && slices.Contains(who.Groups, id) && has(e.Perm&mask) {
			return true
		}
	}
	return has(permOf(a.List, "other", 0) & mask)
}

// inherit is the access of what is made, with the mode and the umask that its
// request says, in a directory that has a.
func (a *access) inherit(owner string, dir bool, mode, umask int) *access {
	out := &access{Owner: owner, Group: a.Group, Sticky: mode&0o1000 != 0}
	if a.Default == nil {
		out.List = ofMode(mode &^ umask)
		return out
	}
	out.List = slices.Clone(a.Default)
	out.List[find(out.List, "user", "")].Perm &= bits(mode >> 6 & 7)
	out.List[find(out.List, "other", "")].Perm &= bits(mode & 7)
	class := find(out.List, "mask", "")
	if class < 0 {
		class = find(out.List, "group", "")
	}
	out.List[class].Perm &= bits(mode >> 3 & 7)
	if dir {
		out.Default = slices.Clone(a.Default)
	}
	return out
}

// chmod is a with other permissions. Where there is a mask it takes those of the group.
func (a *access) chmod(mode int) *access {
	out := *a
	out.List = slices.Clone(a.List)
	out.Sticky = mode&0o1000 != 0
	class := "group"
	if find(out.List, "mask", "") >= 0 {
		class = "mask"
	}
	for i, of := range []string{"user", class, "other"} {
		out.List[find(out.List, of, "")].Perm = bits(mode >> (6 - 3*i) & 7)
	}
	return &out
}

// mode shows the permissions as ls does, with a plus where lists say more.
func (a *access) mode() string {
	out := permOf(a.List, "user", 0).String() + permOf(a.List, "mask", permOf(a.List, "group", 0)).String() + permOf(a.List, "other", 0).String()
	if a.Sticky {
		last := byte('T')
		if out[8] == 'x' {
			last = 't'
		}
		out = out[:8] + string(last)
	}
	if len(a.List) > 3 || a.Default != nil {
		out += "+"
	}
	return out
}

// String is both lists, as clients know them. name shows ids.
func (a *access) text(name func(id string) string) string {
	var out []string
	for i, list := range [][]entry{a.List, a.Default} {
		for _, e := range list {
			id := e.ID
			if id != "" {
				id = name(id)
			}
			out = append(out, []string{"", "default:"}[i]+e.Of+":"+id+":"+e.Perm.String())
		}
	}
	return strings.Join(out, ",")
}

var (
	octalMode    = regexp.MustCompile(`^[01][0-7]{3}$`)
	symbolicMode = regexp.MustCompile(`^([r-][w-][x-]){2}[r-][w-][xtT-]$`)
	permForm     = regexp.MustCompile(`^[r-][w-][x-]$`)
)

// parseMode reads permissions in octal or symbols. octal takes octal alone.
func parseMode(header, v string, octal bool) (mode int, err error) {
	switch {
	case octalMode.MatchString(v):
		for _, c := range v {
			mode = mode<<3 | int(c-'0')
		}
		return mode, nil
	case !octal && symbolicMode.MatchString(v):
		for _, c := range v {
			mode <<= 1
			if c != '-' && c != 'T' {
				mode |= 1
			}
		}
		if v[8] == 't' || v[8] == 'T' {
			mode |= 0o1000
		}
		return mode, nil
	case octal:
		return 0, badHeader(header, v, "four octal digits such as 0027")
	}
	return 0, badHeader(header, v, "permissions such as rwxr-x--- or 0750")
}

func badACL(format string, args ...any) error {
	return fail(http.StatusBadRequest, "InvalidAccessControlList", "The access control list in x-ms-acl is not valid: "+format+".", args...)
}

// lists are the two lists that a text names, or what of them it removes.
type lists [2][]entry

// parseACL reads entries such as user:ID:rwx and default:other::r--. Without perms
// an entry names what is to be removed.
func parseACL(text string, perms bool) (out lists, err error) {
	if text == "" {
		return out, badACL("it is empty")
	}
	for item := range strings.SplitSeq(text, ",") {
		which, rest := 0, item
		if r, ok := strings.CutPrefix(item, "default:"); ok {
			which, rest = 1, r
		} else if item == "default" && !perms {
			out[1] = append(out[1], entry{Of: "all"})
			continue
		}
		e, err := parseEntry(item, strings.Split(rest, ":"), perms)
		if err != nil {
			return out, err
		}
		if find(out[which], e.Of, e.ID) >= 0 {
			return out, badACL("it has the entry %q twice", item)
		}
		out[which] = append(out[which], e)
	}
	for _, l := range out {
		if len(l) > maxEntries {
			return out, badACL("it has %d entries of one kind; at most %d are allowed", len(l), maxEntries)
		}
	}
	return out, nil
}

func parseEntry(item string, parts []string, perms bool) (e entry, err error) {
	if n := len(parts); perms && n != 3 || !perms && n != 1 && n != 2 {
		return e, badACL("the entry %q must be as [default:]user|group|mask|other:[ID]%s", item, map[bool]string{true: ":rwx"}[perms])
	}
	if e.Of = parts[0]; !slices.Contains([]string{"user", "group", "mask", "other"}, e.Of) {
		return e, badACL("the entry %q is of no user, group, mask or other", item)
	}
	if len(parts) > 1 {
		e.ID = strings.ToLower(parts[1])
	}
	switch {
	case e.ID != "" && (e.Of == "mask" || e.Of == "other"):
		return e, badACL("the entry %q has an id; those of masks and others have none", item)
	case e.ID != "" && !guidForm.MatchString(e.ID):
		return e, badACL("the entry %q must name a user or group by its object id", item)
	case !perms && e.ID == "" && e.Of != "mask":
		return e, badACL("the entry %q can't be removed; every path has its owner's, its group's and that of others", item)
	case !perms:
		return e, nil
	case !permForm.MatchString(parts[2]):
		return e, badACL("the entry %q must have permissions such as r-x", item)
	}
	for _, c := range parts[2] {
		e.Perm <<= 1
		if c != '-' {
			e.Perm |= 1
		}
	}
	return e, nil
}

// The ways in which a request changes lists.
const (
	setsLists    = "set"
	modifiesList = "modify"
	removesList  = "remove"
)

// changed is a after a change of its lists. Of files the defaults don't count.
func (a *access) changed(how string, l lists, dir bool) (*access, error) {
	out := *a
	for i, to := range []*[]entry{&out.List, &out.Default} {
		if i == 1 && !dir {
			break
		}
		was, to2 := *to, l[i]
		var err error
		switch {
		case how == setsLists && i == 1 && to2 == nil:
			*to = nil
			continue
		case how == setsLists:
			was = nil
		case to2 == nil:
			continue
		}
		if *to, err = merged(how, was, to2, a, i == 1); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

// merged is one list after a change.
func merged(how string, was, change []entry, of *access, def bool) ([]entry, error) {
	out := slices.Clone(was)
	masked := how != removesList && find(change, "mask", "") >= 0
	for _, e := range change {
		i := find(out, e.Of, e.ID)
		switch {
		case how == removesList && e.Of == "all":
			return nil, nil
		case how == removesList && i >= 0:
			out = slices.Delete(out, i, i+1)
		case how == removesList:
		case i >= 0:
			out[i] = e
		default:
			out = append(out, e)
		}
	}
	if def && len(out) == 0 {
		return nil, nil
	}
	if def {
		// Defaults that are not said are the directory's own.
		for _, x := range []string{"user", "group", "other"} {
			if find(out, x, "") < 0 {
				out = append(out, entry{Of: x, Perm: permOf(of.List, x, 0)})
			}
		}
	}
	for _, x := range []string{"user", "group", "other"} {
		if find(out, x, "") < 0 {
			return nil, badACL("it must have entries for the owner, the owning group and others: user::, group:: and other::")
		}
	}
	named := slices.ContainsFunc(out, func(e entry) bool { return e.ID != "" })
	if i := find(out, "mask", ""); named && !masked {
		var all bits
		for _, e := range out {
			if e.ID != "" || e.Of == "group" {
				all |= e.Perm
			}
		}
		if i < 0 {
			out = append(out, entry{Of: "mask", Perm: all})
		} else {
			out[i].Perm = all
		}
	}
	if len(out) > maxEntries {
		return nil, badACL("the path would have %d entries of one kind; at most %d are allowed", len(out), maxEntries)
	}
	order := []string{"user", "group", "mask", "other"}
	slices.SortStableFunc(out, func(x, y entry) int {
		return cmp.Or(cmp.Compare(slices.Index(order, x.Of), slices.Index(order, y.Of)), strings.Compare(x.ID, y.ID))
	})
	return out, nil
}
