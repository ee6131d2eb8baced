package blob

import (
	"context"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// The operations that access lists tell apart, beside reading, writing and
// deleting what the target names.
const (
	opStat   = "stat"   // sees what a path is, and its access
	opList   = "list"   // sees what a directory has; the attribute prefix says which
	opAccess = "access" // sees a path's access list
	opRename = "rename" // puts something in the target's place
)

// Lists says whether the access lists of a container's paths let c do a. It is for
// whoever roles do not allow it.
func (s *Service) Lists(c arm.Caller, a arm.Action, on gate.Target) (allowed bool, reason string) {
	if !a.Data() || strings.ToLower(on.ID.Type()) != containerType {
		return false, ""
	}
	p := place{account: s.byID(on.ID.Parent().Parent()), container: strings.ToLower(on.ID.Name()), blob: on.Item}
	if p.account == nil || !p.hns {
		return false, ""
	}
	name := on.Item
	if on.Op == opList && on.Attributes != nil {
		prefix, _ := on.Attributes().Request[attrPrefix].(string)
		name = directoryOf(prefix)
	}
	err := s.DB.View(context.Background(), func(tx *store.Tx) error {
		row, err := findContainer(tx, p)
		if err == nil {
			allowed, err = permits(tx, row, c, a, on.Op, name)
		}
		return err
	})
	if err != nil || !allowed {
		return false, ""
	}
	return true, "the access lists of /" + name
}

// directoryOf is the directory that all names with the prefix lie in.
func directoryOf(prefix string) string { return parentOf(prefix) }

// permits is Lists in a transaction. Whatever is asked for, its ancestors must let
// who through.
func permits(tx *store.Tx, c containerRow, who arm.Caller, a arm.Action, op, name string) (bool, error) {
	at := c.Root // the last directory on the way
	for _, dir := range ancestors(name) {
		if !at.lets(who, canExecute) {
			return false, nil
		}
		b, err := findBlob(tx, c, dir)
		if err != nil {
			return false, err
		}
		if b == nil { // what is missing is made in the last that is there
			return asks(a, op, false, at, nil).of(who, at), nil
		}
		if !b.Dir {
			return false, nil
		}
		at = b.Access
	}
	if name == "" {
		return asks(a, op, true, nil, c.Root).of(who, nil), nil
	}
	if !at.lets(who, canExecute) {
		return false, nil
	}
	b, err := findBlob(tx, c, name)
	if err != nil {
		return false, err
	}
	var own *access
	dir := false
	if b != nil {
		own, dir = b.Access, b.Dir
	}
	return asks(a, op, dir, at, own).of(who, at), nil
}

// need is what access lists must give: of the path itself, of the directory that it
// lies in, or to be the path's owner.
type need struct {
	own, parent bits
	path        *access // the path's own, nil if it is not there
	owner       bool
	removes     bool // takes the path from where it is, which sticky directories hold
	never       bool
}

// asks is what an action needs. own is nil if the path is not there, parent is nil
// for the root.
func asks(a arm.Action, op string, dir bool, parent, own *access) need {
	n := need{path: own}
	switch a.Key() {
	case BlobRead.Key():
		switch {
		case op == opStat || op == opAccess:
		case op == opList || dir:
			n.own = canRead | canExecute
		default:
			n.own = canRead
		}
		n.never = parent == nil && op == "" // lists all there is
	case BlobWrite.Key(), BlobAdd.Key():
		switch {
		case op == opRename:
			n.parent, n.removes = canWrite|canExecute, own != nil
		case own == nil:
			n.parent = canWrite | canExecute
		case dir:
			n.own = canWrite
		default:
			n.own = canRead | canWrite
		}
	case BlobDelete.Key(), BlobMove.Key():
		n.parent, n.removes = canWrite|canExecute, own != nil
		n.never = parent == nil
	case BlobPermissions.Key(), BlobOwnership.Key():
		n.owner = true
	default:
		n.never = true
	}
	return n
}

// of reports whether who has what is needed of a path in a directory with the
// access parent.
func (n need) of(who arm.Caller, parent *access) bool {
	switch {
	case n.never, n.parent != 0 && !parent.lets(who, n.parent):
		return false
	case n.owner:
		return n.path != nil && who.Object != "" && n.path.Owner == who.Object
	case n.removes && parent.Sticky && parent.Owner != who.Object && n.path.Owner != who.Object:
		return false
	}
	return n.path == nil || n.path.lets(who, n.own)
}

// lists holds what access lists let the Grant's holder do against what is there
// now: what they were asked about may be another by then.
func (s *Service) lists(tx *store.Tx, c containerRow, g gate.Grant, name string, actions ...arm.Action) error {
	who, is, err := s.listedAs(g)
	if err != nil || !is {
		return err
	}
	for _, a := range actions {
		if _, err := g.On(a); err != nil {
			continue
		}
		ok, err := permits(tx, c, who, a, g.Op(), name)
		if err != nil || ok {
			return err
		}
	}
	return notListed(name)
}

// opens says whether access lists let the Grant's holder see all of the directory
// base: those of each directory that what has these names lies in.
func (s *Service) opens(tx *store.Tx, c containerRow, g gate.Grant, base string, names []string) error {
	who, is, err := s.listedAs(g)
	if err != nil || !is {
		return err
	}
	seen := map[string]bool{}
	for _, name := range names {
		for _, dir := range append([]string{""}, ancestors(name)...) {
			if seen[dir] {
				continue
			}
			seen[dir] = true
			at := &row{Dir: true, Access: c.Root}
			if dir != "" {
				if at, err = findBlob(tx, c, dir); err != nil {
					return err
				}
			}
			want := canRead | canExecute
			if base != "" && dir != base && !strings.HasPrefix(dir, base+"/") {
				want = canExecute // it leads to base
			}
			if at == nil || !at.Access.lets(who, want) {
				return notListed(dir)
			}
		}
	}
	return nil
}

// listedAs is for whom access lists must let the Grant's holder in, if anybody.
func (s *Service) listedAs(g gate.Grant) (who arm.Caller, is bool, err error) {
	if !g.Listed() {
		return who, false, nil
	}
	who = g.Caller()
	if l := who.Lease; l != nil {
		who, err = s.Signer(context.Background(), who.Tenant, l.For)
	}
	return who, true, err
}

func notListed(name string) error {
	return arm.Errorf(arm.Forbidden, "The access lists of /%s, and of what it lies in, do not allow it.", name)
}
