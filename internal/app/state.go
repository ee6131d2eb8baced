package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"castellan/internal/arm"
	"castellan/internal/seal"
	"castellan/internal/server"
	"castellan/internal/store"
)

// installation is what an installation is and was from its first start on.
type installation struct {
	Suffix       string
	Tenant       string
	Subscription string
	Location     string
	CACert       []byte // DER
	CAKey        []byte // PKCS #8; the store seals it
	Made         time.Time
	// Founded is set when the first start is over: administrators exist and
	// have their roles. A start that was cut off before is begun anew, since
	// nobody was told of what it made.
	Founded bool
}

const installations = "installation"

// openStore opens the data folder's store and what it says of the installation,
// which is new if fresh.
func openStore(ctx context.Context, cfg Config, key seal.Key) (db *store.DB, in installation, fresh bool, err error) {
	if db, err = store.Open(cfg.Data, key); err != nil {
		return nil, in, false, err
	}
	var found bool
	err = db.View(ctx, func(tx *store.Tx) (err error) {
		in, found, err = store.GetJSON[installation](tx, installations, "it")
		return err
	})
	switch {
	case err != nil:
		return nil, in, false, errors.Join(fmt.Errorf("opening the data folder %s (is it the right root key?): %w", cfg.Data, err), db.Close())
	case found && in.Founded:
		return db, in, false, cfg.agrees(in)
	case found: // a first start that was cut off
		if err := db.Close(); err != nil {
			return nil, in, false, err
		}
		if err := forget(cfg.Data); err != nil {
			return nil, in, false, err
		}
		if db, err = store.Open(cfg.Data, key); err != nil {
			return nil, in, false, err
		}
	}
	if in, err = newInstallation(cfg); err != nil {
		return nil, in, false, errors.Join(err, db.Close())
	}
	return db, in, true, db.Do(ctx, func(tx *store.Tx) error { return store.PutJSON(tx, installations, "it", in) })
}

// forget removes the store of a first start that was cut off.
func forget(dir string) error {
	for _, f := range []string{store.FileName, store.FileName + "-wal", store.FileName + "-shm"} {
		if err := os.Remove(filepath.Join(dir, f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("beginning anew: %w", err)
		}
	}
	return nil
}

func newInstallation(cfg Config) (installation, error) {
	cert, key, err := server.NewAuthority("Castellan "+cfg.Suffix, cfg.Now())
	if err != nil {
		return installation{}, fmt.Errorf("making the certificate authority: %w", err)
	}
	return installation{
		Suffix: cfg.Suffix, Tenant: arm.NewUUID(), Subscription: arm.NewUUID(), Location: cfg.Location,
		CACert: cert, CAKey: key, Made: cfg.Now().UTC(),
	}, nil
}

// agrees says whether the installation is the one that the configuration means:
// names are in tokens, certificates and resources, so they can't change later.
func (c Config) agrees(in installation) error {
	if c.Suffix != in.Suffix {
		return fmt.Errorf("this data folder belongs to the suffix %s, which can't be changed to %s", in.Suffix, c.Suffix)
	}
	return nil
}

func (in installation) site() arm.Site {
	return arm.Site{Suffix: in.Suffix, Tenant: in.Tenant, Subscription: in.Subscription, Location: in.Location, Tenancy: &arm.Tenancy{}}
}
