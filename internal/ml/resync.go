package ml

import (
	"context"
	"net/http"
	"slices"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// resyncKeys does what making the workspace did, again: it gives back what was
// taken from the workspace's identity, and puts the key that the account has now
// into datastores that kept an older one. It says what it had to repair.
func (s *Service) resyncKeys(ctx context.Context, g gate.Grant, d *resource.Doc, _ []byte) (int, any, error) {
	if _, err := g.On(resyncKeys); err != nil {
		return 0, nil, err
	}
	w, err := s.readWorkspace(d)
	if err != nil {
		return 0, nil, err
	}
	why := "resyncKeys of the workspace " + w.Name + ", for " + g.Caller().Object
	given, err := s.give(ctx, w, why)
	if err != nil {
		return 0, nil, err
	}
	for _, c := range w.containers() {
		if _, err := s.Blobs.List(ctx, Access{As: w.self()}, w.StorageAccount.ID, c, "\x7f", 1); missing(err) {
			given = append(given, "the container "+c+" of "+w.StorageAccount.String())
		}
	}
	if gone, err := s.shareGone(ctx, w); err != nil {
		return 0, nil, err
	} else if gone {
		given = append(given, "the file share "+w.share()+" of "+w.StorageAccount.String())
	}
	if err := s.equip(ctx, w); err != nil {
		return 0, nil, err
	}
	renewed, err := s.renewKeys(ctx, w, why)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, map[string]any{"restored": append(append([]string{}, given...), renewed...)}, nil
}

// shareGone reports whether the share of the workspace's datastore is not there. Where
// the account's key opens nothing, that is not known, and something else is wrong.
func (s *Service) shareGone(ctx context.Context, w workspace) (bool, error) {
	var l location
	err := s.DB.View(ctx, func(tx *store.Tx) error {
		d, err := resource.Load(tx, w.Doc.ID.Child("datastores", fileDatastore))
		if err != nil || d == nil {
			return err
		}
		p, err := props[datastoreProps](d)
		if err == nil {
			l, err = whole(d, p)
		}
		return err
	})
	if err != nil || l.datastore == nil {
		return false, err
	}
	by, _, err := s.access(ctx, w, l, arm.Caller{})
	if err == nil {
		_, err = s.Blobs.List(ctx, by, l.account, l.container, "", 1)
	}
	return missing(err), nil
}

// missing reports whether err says that a container is not there.
func missing(err error) bool {
	return slices.Contains([]arm.Code{arm.NotFound, "ContainerNotFound"}, arm.CodeOf(err))
}

// renewKeys renews the keys of the datastores on the workspace's own account
// that opened it once and don't any more. Other accounts are not the workspace's
// to list keys of: their datastores are registered anew.
func (s *Service) renewKeys(ctx context.Context, w workspace, why string) (renewed []string, err error) {
	if w.byIdentity() {
		return nil, nil
	}
	all, err := s.datastores(ctx, w)
	if err != nil {
		return nil, err
	}
	for _, d := range all {
		if !d.inner.Proven || d.Credentials.Type != credKey || d.inner.Account.Key() != w.StorageAccount.Key() || arm.CodeOf(s.tryKept(ctx, w, d)) != wrongKey {
			continue
		}
		key, err := s.Accounts.Key(ctx, w.self(), w.StorageAccount.ID)
		if err != nil {
			return renewed, err
		}
		if d.inner.Secret, err = s.keepSecret(ctx, w, d.Doc, d.inner.Secret.Name, secrets{Type: credKey, Key: string(key.Reveal())}); err != nil {
			return renewed, err
		}
		if err := s.act(ctx, why, s.kinds.datastore.Write(), d.ID, func(tx *store.Tx) error { return s.rekey(tx, d) }); err != nil {
			return renewed, err
		}
		renewed = append(renewed, "the account key of the datastore "+d.Name)
	}
	return renewed, nil
}

// rekey points a datastore that is still as it was seen to another key.
func (s *Service) rekey(tx *store.Tx, seen datastore) error {
	if l := s.Gate.Locks; l != nil { // no door has asked the locks of the datastore
		if err := l.Holding(tx, s.kinds.datastore.Write(), seen.ID); err != nil {
			return err
		}
	}
	d, err := resource.Load(tx, seen.ID)
	if err != nil {
		return err
	}
	if d == nil || d.Etag != seen.Etag {
		return arm.Errorf(arm.Conflict, "the datastore %s was changed meanwhile; call resyncKeys again", seen.Name)
	}
	d.Etag = `"` + arm.NewHex() + `"`
	if err := setInner(d, seen.inner); err != nil {
		return err
	}
	return resource.Save(tx, d)
}

// datastore is a datastore, read for work.
type datastore struct {
	*resource.Doc
	datastoreProps
	inner datastoreInner
}

// datastores are those that were made in the workspace, not its own.
func (s *Service) datastores(ctx context.Context, w workspace) (out []datastore, err error) {
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		all, err := resource.List(tx, s.kinds.datastore.Type, w.Doc.ID, "", 0)
		if err != nil {
			return err
		}
		for _, d := range all {
			x := datastore{Doc: d}
			if x.inner, err = inner[datastoreInner](d); err != nil {
				return err
			}
			if x.datastoreProps, err = props[datastoreProps](d); err != nil {
				return err
			}
			if !x.inner.System {
				out = append(out, x)
			}
		}
		return nil
	})
	return out, err
}

// wrongKey is what a storage account answers to a key that is not, or no more, its own.
const wrongKey arm.Code = "AuthenticationFailed"

// tryKept opens a datastore with the credentials that it keeps.
func (s *Service) tryKept(ctx context.Context, w workspace, d datastore) error {
	l, err := whole(d.Doc, d.datastoreProps)
	if err != nil {
		return err
	}
	return s.tryOpen(ctx, w, l, nil)
}
