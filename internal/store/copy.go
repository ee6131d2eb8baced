package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"castellan/internal/seal"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/driver"
)

// FileName is the name of a store's file in its folder.
const FileName = "castellan.db"

// uri is how SQLite is told of a store's file.
func uri(dir string, key seal.Key) string {
	return "file:" + (&url.URL{Path: filepath.Join(dir, FileName)}).EscapedPath() + "?vfs=" + vfsName + "&hexkey=" + hex.EncodeToString(key.Derive("pages").Bytes())
}

// Copy makes, in the folder to, a copy of the store in dir as it is at one moment,
// sealed under the same key. Other processes may use the store meanwhile.
func Copy(dir string, key seal.Key, to string) error {
	if _, err := os.Stat(filepath.Join(dir, FileName)); err != nil {
		return fmt.Errorf("copying the store: %w", err)
	}
	// Made by hand, for its owner alone.
	f, err := os.OpenFile(filepath.Join(to, FileName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("copying the store: %w", err)
	}
	defer f.Close()
	c, err := sqlite3.Open(uri(dir, key))
	if err != nil {
		return fmt.Errorf("copying the store: %w", err)
	}
	defer c.Close()
	if err := c.Exec(`PRAGMA busy_timeout=10000`); err != nil {
		return fmt.Errorf("copying the store: %w", err)
	}
	if err := c.Backup("main", uri(to, key)); err != nil {
		return fmt.Errorf("copying the store (is it the right root key?): %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("copying the store: %w", err)
	}
	return nil
}

// ViewCopy runs fn on what Copy made in dir, and leaves it as it is.
func ViewCopy(ctx context.Context, dir string, key seal.Key, fn func(*Tx) error) error {
	r, err := driver.Open(uri(dir, key) + "&mode=ro&immutable=1")
	if err != nil {
		return fmt.Errorf("reading a copy of the store: %w", err)
	}
	defer r.Close()
	on, err := prepare(r)
	if err != nil {
		return fmt.Errorf("reading a copy of the store: %w", err)
	}
	return (&DB{read: r, on: map[*sql.DB]*statements{r: on}, key: key.Derive("values")}).View(ctx, fn)
}
