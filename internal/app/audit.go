package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/backup"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// auditRoutes are the doors by which somebody elsewhere makes sure that the
// audit log is never cut or rolled back.
func (a *App) auditRoutes() []gate.Route {
	const why = "a witness has no identity here; it learns once a minute how many entries there are, and hashes, which tell nothing of them"
	text := func(pattern string, find func(*http.Request) ([]byte, error)) gate.Route {
		return gate.Public(why, pattern, func(w http.ResponseWriter, r *http.Request, _ gate.Vars) error {
			b, err := find(r)
			if err != nil {
				return err
			}
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("Cache-Control", "no-store")
			_, _ = w.Write(b) // the client may have gone
			return nil
		})
	}
	return []gate.Route{
		text("GET /audit/key", func(r *http.Request) ([]byte, error) {
			key, err := a.Audit.Key(r.Context())
			return []byte(key + "\n"), err
		}),
		text("GET /audit/checkpoint", func(r *http.Request) ([]byte, error) { return a.Audit.Published(r.Context()) }),
		text("GET /audit/inclusion", func(r *http.Request) ([]byte, error) {
			index, err := number(r, "index")
			if err != nil {
				return nil, err
			}
			return a.Audit.Inclusion(r.Context(), index)
		}),
		text("GET /audit/growth", func(r *http.Request) ([]byte, error) {
			old, err := number(r, "old")
			if err != nil {
				return nil, err
			}
			return a.Audit.Growth(r.Context(), old)
		}),
	}
}

// number is a request's query parameter.
func number(r *http.Request, name string) (int64, error) {
	given := r.URL.Query()[name]
	if len(given) != 1 {
		return 0, arm.Errorf(arm.BadRequest, "the query parameter %s is required, once: a number of entries", name)
	}
	n, err := strconv.ParseInt(given[0], 10, 64)
	if err != nil {
		return 0, arm.Errorf(arm.BadRequest, "%s is %q; it must be a number of entries", name, given[0])
	}
	return n, nil
}

// openWitness holds the audit log against the checkpoint in the witness's file. It
// comes before anything is written to the log.
func (a *App) openWitness(ctx context.Context) error {
	if a.Witness == "" {
		return nil
	}
	path, err := filepath.Abs(a.Witness)
	if err != nil {
		return err
	}
	if in, err := filepath.Rel(a.Data, path); err == nil && filepath.IsLocal(in) {
		return fmt.Errorf("the witness %s lies in the data folder, so that it would be put back with it; name a file elsewhere, best on another disk", path)
	}
	a.Witness = path
	signed, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		a.Log.Warn("the audit log has no witness yet; one begins", "file", path)
	case err != nil:
		return fmt.Errorf("reading the audit log's witness: %w", err)
	default:
		if err := a.Audit.Holds(ctx, signed); err != nil {
			return fmt.Errorf("the data folder is not what it was for the witness %s: %w; if it was put back on purpose, move that file away", path, err)
		}
	}
	a.witnessed = true
	return a.tellWitness(ctx)
}

// tellWitness puts a new checkpoint in the place of the last one.
func (a *App) tellWitness(ctx context.Context) error {
	if !a.witnessed {
		return nil
	}
	signed, err := a.Audit.Checkpoint(ctx)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(a.Witness), ".new-*")
	if err != nil {
		return fmt.Errorf("telling the audit log's witness: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(signed)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), a.Witness)
	}
	if err != nil {
		return fmt.Errorf("telling the audit log's witness: %w", err)
	}
	return nil
}

// How often the audit log's witness is told, and old entries are pruned.
const (
	witnessEvery = time.Minute
	pruneEvery   = time.Hour
)

// runAudit tells the witness and prunes until ctx is done.
func (a *App) runAudit(ctx context.Context) error {
	tell, prune := time.NewTicker(witnessEvery), time.NewTicker(pruneEvery)
	defer tell.Stop()
	defer prune.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-tell.C:
			err = a.tellWitness(ctx)
		case <-prune.C:
			err = a.pruneAudit(ctx)
		}
		if err != nil && ctx.Err() == nil {
			a.Log.Error("the audit log can't be looked after", "error", err)
		}
	}
}

// pruneAudit prunes what is older than the configuration wants.
func (a *App) pruneAudit(ctx context.Context) error {
	if a.AuditDays == 0 {
		return nil
	}
	by := a.system(a.Site.Tenant, "audit", nil)
	_, err := a.Audit.Prune(ctx, a.Now().AddDate(0, 0, -a.AuditDays), audit.Entry{
		Tenant: by.Tenant, Caller: by.Object, Name: by.Name, Credential: by.Token, Target: "/", Decision: "allowed",
		Reason: fmt.Sprintf("entries are kept for %d days", a.AuditDays), Outcome: "ok",
	})
	return err
}

// ReadAudit reads the audit log of a data folder, whether or not a server runs
// on it. It needs the root key, and makes nothing.
func ReadAudit(ctx context.Context, cfg Config, read func(*audit.Log) error) error {
	cfg, err := cfg.existing()
	if err != nil {
		return err
	}
	key, err := rootKey(ctx, cfg)
	if err != nil {
		return err
	}
	db, err := store.Open(cfg.Data, key)
	if err != nil {
		return err
	}
	return errors.Join(read(audit.Read(db)), db.Close())
}

// existing is c with its defaults, if the data folder and its root key are there:
// what is not there would be made.
func (c Config) existing() (Config, error) {
	c, err := c.withDefaults()
	if err != nil {
		return c, err
	}
	needed := []string{filepath.Join(c.Data, store.FileName), c.keyFile()}
	if c.PassphraseFile != "" {
		needed[1] = c.PassphraseFile
	}
	if c.inToken() {
		needed[1] = filepath.Join(c.Data, backup.WrappedKey)
	}
	for _, path := range needed {
		if _, err := os.Stat(path); err != nil {
			return c, fmt.Errorf("this needs the data folder and its root key: %w", err)
		}
	}
	return c, nil
}
