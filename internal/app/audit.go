package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"castellan/internal/arm"
	"castellan/internal/audit"
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

// ReadAudit reads the audit log of a data folder, whether or not a server runs
// on it. It needs the root key, and makes nothing.
func ReadAudit(ctx context.Context, cfg Config, read func(*audit.Log) error) error {
	cfg, err := cfg.existing()
	if err != nil {
		return err
	}
	key, err := rootKey(cfg)
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
	needed := []string{filepath.Join(c.Data, "castellan.db"), c.keyFile()}
	if c.PassphraseFile != "" {
		needed[1] = c.PassphraseFile
	}
	for _, path := range needed {
		if _, err := os.Stat(path); err != nil {
			return c, fmt.Errorf("this needs the data folder and its root key: %w", err)
		}
	}
	return c, nil
}
