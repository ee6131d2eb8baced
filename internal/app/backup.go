package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"castellan/internal/audit"
	"castellan/internal/backup"
	"castellan/internal/seal"
	"castellan/internal/store"
)

// BackupFolder is the backup folder dir, opened with an installation's root key.
func BackupFolder(ctx context.Context, cfg Config, dir string) (*backup.Folder, error) {
	var key seal.Key
	cfg, err := cfg.existing()
	if err == nil {
		key, err = rootKey(ctx, cfg)
	}
	if err != nil {
		return nil, err
	}
	return backup.Open(dir, key), nil
}

// RestoreFolder is BackupFolder where there is no data folder, for Restore: the root
// key comes from its own file, is opened by its token, or is made of the passphrase and
// the backup's salt.
func RestoreFolder(ctx context.Context, cfg Config, dir string) (*backup.Folder, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	var key seal.Key
	var wrapped []byte
	switch {
	case cfg.inToken():
		if wrapped, err = os.ReadFile(filepath.Join(dir, backup.WrappedKey)); err != nil {
			return nil, fmt.Errorf("reading the wrapped root key: %w", err)
		}
		key, err = tokenKey(ctx, cfg, dir)
	case cfg.PassphraseFile == "":
		key, err = seal.FromFile(cfg.keyFile(), false)
	default:
		if _, err := os.Stat(filepath.Join(dir, "salt")); err != nil {
			return nil, fmt.Errorf("reading the salt of the passphrase: %w", err)
		}
		own := cfg
		own.Data = dir
		key, err = rootKey(ctx, own)
	}
	if err != nil {
		return nil, err
	}
	f := backup.Open(dir, key)
	f.Wrapped = wrapped
	return f, nil
}

// Restore makes the data folder of a point, and says so in its audit log.
func Restore(ctx context.Context, cfg Config, f *backup.Folder, p backup.Point) (err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return err
	}
	if err := f.Restore(ctx, p, cfg.Data); err != nil {
		return fmt.Errorf("restoring: %w", err)
	}
	a, err := New(ctx, cfg)
	if err != nil {
		return fmt.Errorf("opening what was restored: %w", err)
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	by := a.system(a.Site.Tenant, "restore", nil)
	return a.db.Do(ctx, func(tx *store.Tx) error {
		return a.Audit.Append(tx, audit.Entry{Tenant: a.Site.Tenant, Caller: by.Object, Name: by.Name, Credential: by.Token, Action: "Castellan.Backup/restore/action",
			Target: "/", Item: p.Name, Decision: "allowed", Reason: "restored with the root key", Outcome: "ok"})
	})
}
