package store

import (
	"database/sql"
	"errors"

	"castellan/internal/seal"
)

// Guard finds the key that seals a row besides the store's own. guarded is false
// if none does; err says why the key can't be had now. It is asked within
// transactions, so it must not wait for the store.
type Guard func(table, key string) (k seal.Key, guarded bool, err error)

// Shut means that a row is there, and that the key that guards it can't be had.
type Shut struct{ Err error }

func (e *Shut) Error() string { return e.Err.Error() }
func (e *Shut) Unwrap() error { return e.Err }

// SetGuard has g asked about each row from now on. It comes before the store is
// used by many.
func (db *DB) SetGuard(g Guard) { db.guard = g }

// sealed seals a row's value for its place.
func (tx *Tx) sealed(table, key string, value []byte) ([]byte, error) {
	at := place(table, key)
	if tx.db.guard != nil {
		k, guarded, err := tx.db.guard(table, key)
		if err != nil {
			return nil, &Shut{err}
		}
		if guarded {
			value, at = k.Seal(value, at), guardedPlace(at)
		}
	}
	return tx.db.key.Seal(value, at), nil
}

// opened opens what sealed made.
func (tx *Tx) opened(table, key string, v []byte) ([]byte, error) {
	at := place(table, key)
	if tx.db.guard == nil {
		return tx.db.key.Open(v, at)
	}
	k, guarded, err := tx.db.guard(table, key)
	if err != nil {
		return nil, &Shut{err}
	}
	if !guarded {
		return tx.db.key.Open(v, at)
	}
	if v, err = tx.db.key.Open(v, guardedPlace(at)); err != nil {
		return nil, err
	}
	return k.Open(v, at)
}

// guardedPlace is a place of its own: a guarded row never passes for one that is not.
func guardedPlace(at string) string { return at + "\x00guarded" }

// Raw calls fn for every row of the store, as it opens without a guard.
func (tx *Tx) Raw(fn func(table, key string, value []byte, err error)) error {
	rows, err := tx.tx.Query("SELECT t,k,v FROM kv")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var t, k string
		var v []byte
		if err := rows.Scan(&t, &k, &v); err != nil {
			return err
		}
		at := place(t, k)
		plain, err := tx.db.key.Open(v, at)
		if err != nil {
			plain, err = tx.db.key.Open(v, guardedPlace(at))
		}
		fn(t, k, plain, err)
	}
	return rows.Err()
}

// Sealed is a row's value as it lies on disk; nil if there is none.
func (tx *Tx) Sealed(table, key string) (v []byte, err error) {
	err = tx.tx.QueryRow("SELECT v FROM kv WHERE t=? AND k=?", table, key).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return v, err
}
