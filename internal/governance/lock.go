package governance

import (
	"net/http"
	"regexp"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Locks lie in one table under the keys of their ids, so that those at a scope,
// and those below it, are each one range.
const (
	locks    = "locks"
	lockType = "Microsoft.Authorization/locks"
)

// Locked is the code of what a lock refuses.
const Locked arm.Code = "ScopeLocked"

// The actions of locks. Owner and User Access Administrator have them.
var (
	ReadLock   = arm.NewAction(lockType+"/read", "see locks")
	WriteLock  = arm.NewAction(lockType+"/write", "lock a scope, or change its lock")
	DeleteLock = arm.NewAction(lockType+"/delete", "take a lock away")
)

// The levels of locks.
const (
	canNotDelete = "CanNotDelete"
	readOnly     = "ReadOnly"
)

// lock is a lock as it is kept.
type lock struct {
	ID     arm.ID          `json:"id"`
	Scope  arm.ID          `json:"scope"`
	Props  lockProps       `json:"properties"`
	System resource.System `json:"systemData"`
}

type lockProps struct {
	Level  string      `json:"level" arm:"only=CanNotDelete|ReadOnly"`
	Notes  string      `json:"notes,omitempty"`
	Owners []lockOwner `json:"owners,omitempty"`
}

// lockOwner is an application that a lock is of; it may do no more than others.
type lockOwner struct {
	Application string `json:"applicationId"`
}

// lockBody is what a client may send of a lock.
type lockBody struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	Type       string    `json:"type"`
	Properties lockProps `json:"properties"`
	System     any       `json:"systemData" arm:"readonly"`
}

const maxNotes = 512 // bytes of a lock's notes

var lockName = regexp.MustCompile(`^[^<>%&:\\?/\x00-\x1f\x7f]{1,260}$`)

// read is the lock that the body asks for at id.
func (b lockBody) read(id arm.ID) (*lock, error) {
	switch {
	case !lockName.MatchString(id.Name()):
		return nil, arm.Errorf(arm.InvalidResourceName, "The name '%s' must have 1 to 260 characters, none of <>%%&:\\?/ and no control characters.", id.Name())
	case b.ID != "" && !strings.EqualFold(b.ID, id.String()):
		return nil, arm.Errorf(arm.InvalidRequest, "the body's id is %q; the request's is %q", b.ID, id)
	case b.Name != "" && !strings.EqualFold(b.Name, id.Name()):
		return nil, arm.Errorf(arm.InvalidRequest, "the body's name is %q; the request's is %q", b.Name, id.Name())
	case b.Type != "" && !strings.EqualFold(b.Type, lockType):
		return nil, arm.Errorf(arm.InvalidRequest, "the body's type is %q; it must be %s", b.Type, lockType)
	case b.Properties.Level == "":
		return nil, arm.Errorf(arm.InvalidRequest, "properties.level is missing; it must be %s or %s", canNotDelete, readOnly)
	case len(b.Properties.Notes) > maxNotes:
		return nil, arm.Errorf(arm.InvalidRequest, "properties.notes has %d bytes; at most %d are allowed", len(b.Properties.Notes), maxNotes)
	}
	return &lock{ID: id, Props: b.Properties}, nil
}

func (l *lock) show() map[string]any {
	return map[string]any{"id": l.ID, "name": l.ID.Name(), "type": lockType, "properties": l.Props, "systemData": l.System}
}

// locksAt are the locks at a scope itself, given by its key.
func locksAt(tx *store.Tx, scope string) ([]*lock, error) {
	return store.ScanJSON[*lock](tx, locks, scope+"/providers/"+strings.ToLower(lockType)+"/", "", 0)
}

// locksBelow are the locks at a scope and at all that lies in it.
func locksBelow(tx *store.Tx, scope string) ([]*lock, error) {
	return store.ScanJSON[*lock](tx, locks, scope+"/", "", 0)
}

// locksAbove are the locks at id and at what holds it.
func locksAbove(tx *store.Tx, id arm.ID) (found []*lock, err error) {
	for _, scope := range id.Scopes() {
		at, err := locksAt(tx, scope)
		if err != nil {
			return nil, err
		}
		found = append(found, at...)
	}
	return found, nil
}

// Lock is a lock's level, CanNotDelete or ReadOnly, and where it is.
type Lock struct {
	Level string
	Scope arm.ID
}

// Locks are those at id, at what holds it, and in it. They are told to whoever
// runs into them anyway.
func (s *Service) Locks(tx *store.Tx, id arm.ID) ([]Lock, error) {
	found, err := locksAbove(tx, id)
	if err != nil {
		return nil, err
	}
	below, err := locksBelow(tx, id.Key())
	if err != nil {
		return nil, err
	}
	var out []Lock
	for _, l := range append(found, below...) {
		if x := (Lock{l.Props.Level, l.Scope}); !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out, nil
}

// free reports whether no lock stands against a whatever it is done to: locks
// themselves could else never be taken away, and the answers about compliance
// are read, although by POST.
func free(a arm.Action) bool {
	return strings.HasPrefix(a.Key(), strings.ToLower(lockType)+"/") || strings.HasPrefix(a.Key(), "microsoft.policyinsights/policystates/") || strings.HasPrefix(a.Key(), "microsoft.policyinsights/policyevents/")
}

// Holding is what the gate asks before anybody, the Owner too, changes id by
// Resource Manager: nil, or the error that names the locks that stand against it.
func (s *Service) Holding(tx *store.Tx, a arm.Action, id arm.ID) error {
	if free(a) || id.Subscription() == "" {
		return nil
	}
	if err := enabled(tx, a, id); err != nil {
		return err
	}
	removes := strings.HasSuffix(a.Key(), "/delete")
	found, err := locksAbove(tx, id)
	if err != nil {
		return err
	}
	found = slices.DeleteFunc(found, func(l *lock) bool { return !removes && l.Props.Level != readOnly })
	if removes && strings.EqualFold(a.Name(), id.Type()+"/delete") { // id itself goes, and all in it
		below, err := locksBelow(tx, id.Key())
		if err != nil {
			return err
		}
		found = append(found, below...)
	}
	if len(found) == 0 {
		return nil
	}
	does := map[bool]string{true: "delete", false: "write"}[removes]
	var at []string
	for _, l := range found {
		if text := "'" + l.Scope.String() + "'"; !slices.Contains(at, text) {
			at = append(at, text)
		}
	}
	return &arm.Error{Code: Locked, Status: http.StatusConflict, Message: "The scope '" + id.String() + "' cannot perform " + does +
		" operation because following scope(s) are locked: " + strings.Join(at, ",") + ". Please remove the lock and try again."}
}

// dropLocks forgets the locks at a resource that is gone, and below it: what
// goes by its own data plane is not held.
func dropLocks(tx *store.Tx, id arm.ID) error {
	gone, err := locksBelow(tx, id.Key())
	if err != nil {
		return err
	}
	for _, l := range gone {
		if err := tx.Delete(locks, l.ID.Key()); err != nil {
			return err
		}
	}
	return nil
}
