package app

import (
	"context"
	"slices"

	"golang.org/x/crypto/acme/autocert"

	"castellan/internal/server"
	"castellan/internal/store"
)

// ACME has the certificates of the installation's names from an authority that is
// not its own.
func (a *App) ACME(directory, roots string) (*server.ACME, error) {
	return server.NewACME(directory, roots, acmeCache{a.db}, a.named, a.Log)
}

// named reports whether a name is the platform's, or a vault's or account's that
// there is.
func (a *App) named(name string) bool {
	return slices.ContainsFunc(a.identity.TenantIDs(), func(t string) bool { return slices.Contains(a.names(t), name) })
}

// acmeCache keeps certificates and their keys in the store, which seals them.
type acmeCache struct{ db *store.DB }

const acmeTable = "acme"

func (c acmeCache) Get(ctx context.Context, key string) (data []byte, err error) {
	err = c.db.View(ctx, func(tx *store.Tx) error {
		if data, err = tx.Get(acmeTable, key); err == nil && data == nil {
			err = autocert.ErrCacheMiss
		}
		return err
	})
	return data, err
}

func (c acmeCache) Put(ctx context.Context, key string, data []byte) error {
	return c.db.Do(ctx, func(tx *store.Tx) error { return tx.Put(acmeTable, key, data) })
}

func (c acmeCache) Delete(ctx context.Context, key string) error {
	return c.db.Do(ctx, func(tx *store.Tx) error { return tx.Delete(acmeTable, key) })
}
