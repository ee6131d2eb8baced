package governance

import (
	"net/http"
	"slices"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// lockRoutes are the doors to locks.
func (s *Service) lockRoutes() []gate.Route {
	const list = "/{scope...}/providers/" + lockType
	return []gate.Route{
		gate.On(ReadLock, "GET "+list, locateScope, s.listLocks),
		gate.On(ReadLock, "GET "+list+"/{lock}", locateItem, s.getLock),
		gate.On(WriteLock, "PUT "+list+"/{lock}", locateItem, s.putLock),
		gate.On(DeleteLock, "DELETE "+list+"/{lock}", locateItem, s.deleteLock),
	}
}

func (s *Service) putLock(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(WriteLock)
	if err != nil {
		return err
	}
	data, err := resource.ReadBody(w, r)
	if err != nil {
		return err
	}
	var b lockBody
	if err := arm.Decode(data, &b); err != nil {
		return err
	}
	l, err := b.read(id)
	if err != nil {
		return err
	}
	status := http.StatusCreated
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		if l.Scope, err = s.scope(tx, id.Parent()); err != nil {
			return err
		}
		if l.Scope.Subscription() == "" {
			return arm.Errorf(arm.InvalidRequest, "%s can't be locked; locks are at subscriptions, resource groups and resources", l.Scope)
		}
		l.ID = itemID(l.Scope, lockType, id.Name())
		old, ok, err := store.GetJSON[lock](tx, locks, id.Key())
		if err != nil {
			return err
		}
		if ok {
			l.ID, l.System, status = old.ID, old.System, http.StatusOK
		}
		l.System.Stamp(g.Caller(), s.Now())
		return store.PutJSON(tx, locks, l.ID.Key(), l)
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, status, l.show())
	return nil
}

func (s *Service) getLock(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(ReadLock)
	if err != nil {
		return err
	}
	return s.DB.View(r.Context(), func(tx *store.Tx) error {
		l, ok, err := store.GetJSON[lock](tx, locks, id.Key())
		if err != nil {
			return err
		}
		if !ok {
			return &arm.Error{Code: "LockNotFound", Status: http.StatusNotFound, Message: "The lock '" + id.Name() + "' could not be found."}
		}
		gate.WriteJSON(w, http.StatusOK, l.show())
		return nil
	})
}

func (s *Service) deleteLock(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(DeleteLock)
	if err != nil {
		return err
	}
	status := http.StatusNoContent
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		_, ok, err := store.GetJSON[lock](tx, locks, id.Key())
		if err != nil || !ok {
			return err
		}
		status = http.StatusOK
		return tx.Delete(locks, id.Key())
	})
	if err != nil {
		return err
	}
	w.WriteHeader(status)
	return nil
}

// listLocks lists the locks at the scope, above it and, without atScope(), below
// it: those that hold something there.
func (s *Service) listLocks(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	scope, err := g.On(ReadLock)
	if err != nil {
		return err
	}
	clauses, err := parseFilter(r.URL.Query().Get("$filter"), "atScope()")
	if err != nil {
		return err
	}
	var found []*lock
	err = s.DB.View(r.Context(), func(tx *store.Tx) error {
		if _, err := s.scope(tx, scope); err != nil {
			return err
		}
		found, err = locksAround(tx, scope, len(clauses) == 0)
		return err
	})
	if err != nil {
		return err
	}
	list := make([]any, len(found))
	for i, l := range found {
		list[i] = l.show()
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": list})
	return nil
}

// locksAround are the locks at a scope and above it, the outermost first, and
// below it if that is asked for.
func locksAround(tx *store.Tx, scope arm.ID, below bool) ([]*lock, error) {
	var out []*lock
	for i, k := range slices.Backward(scope.Scopes()) {
		read := locksAt
		if i == 0 && below {
			read = locksBelow
		}
		found, err := read(tx, k)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}
