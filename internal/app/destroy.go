package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/backup"
	"castellan/internal/cmk"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// destructionsRead is the right to see which keys were destroyed.
var destructionsRead = arm.NewAction("Castellan.Keys/destructions/read", "see which keys were destroyed, with signed statements")

// statementTable has the signed statements, under the keys' uids.
const statementTable = "destruction_statements"

// stated is a key that is destroyed, and the statement that says so.
type stated struct {
	ID        arm.ID    `json:"id"`
	UID       string    `json:"uid"`
	At        time.Time `json:"at"`
	Statement string    `json:"statement"`
}

// destroyEvery is how soon after a deletion its key is destroyed on disk, or tried to.
const destroyEvery = 5 * time.Second

// runDestroy destroys on disk the keys that were deleted, until ctx is done.
func (a *App) runDestroy(ctx context.Context) error {
	tick := time.NewTicker(destroyEvery)
	defer tick.Stop()
	for {
		if err := a.destroyKeys(ctx); err != nil && !errors.Is(err, store.ErrReading) && ctx.Err() == nil {
			a.Log.Error("deleted keys are not destroyed yet; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// destroyKeys overwrites on disk the keys that were deleted, and then says so.
func (a *App) destroyKeys(ctx context.Context) error {
	var gone []cmk.Destroyed
	if err := a.db.View(ctx, func(tx *store.Tx) (err error) {
		gone, err = cmk.Unstated(tx)
		return err
	}); err != nil || len(gone) == 0 {
		return err
	}
	if err := a.db.Shred(ctx); err != nil {
		return err
	}
	copies, err := backup.Notes(a.Data)
	if err != nil {
		return err
	}
	return a.db.Do(ctx, func(tx *store.Tx) error {
		for _, d := range gone {
			if err := a.state(tx, d, copies); err != nil {
				return err
			}
		}
		return nil
	})
}

// state keeps the statement that a key is destroyed, with its audit entry.
func (a *App) state(tx *store.Tx, d cmk.Destroyed, copies []backup.Note) error {
	now := a.Now().UTC()
	text, err := audit.Sign(tx, a.destructionText(d, now, copies))
	if err != nil {
		return err
	}
	if err := store.PutJSON(tx, statementTable, d.UID, stated{d.ID, d.UID, now, string(text)}); err != nil {
		return err
	}
	by := a.system(a.Site.TenantOf(d.ID), "keys", nil)
	if err := a.Audit.Append(tx, audit.Entry{Tenant: by.Tenant, Caller: by.Object, Name: by.Name, Credential: by.Token, Action: "Castellan.Keys/dataKeys/destroy/action",
		Target: d.ID.String(), Item: d.UID, Decision: "allowed", Reason: "deleted by " + d.By, Outcome: "ok"}); err != nil {
		return err
	}
	return cmk.State(tx, d)
}

// destructionText is what is stated of a key.
func (a *App) destructionText(d cmk.Destroyed, now time.Time, copies []backup.Note) string {
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "%s: %s\n", name, strings.Map(printable, value)) }
	what, held := "a data key was destroyed, without which what it sealed can't be opened", ""
	if d.Key != "" {
		what, held = "a key of a vault was destroyed, without which what it wrapped or encrypted can't be opened", ", and every backup that a client took of the key"
	}
	line("what", what)
	line("installation", a.Site.Suffix)
	line("resource", d.ID.String())
	line("sealed", d.Protects)
	line("key id", d.UID)
	line("sha256 of the wrapped key", d.Thumbprint)
	by := "root key"
	if c := d.Customer; c != nil {
		by += ", and around that " + a.keyID(*c, d.With)
	}
	if d.Key != "" {
		by = "data key of the vault"
		line("version", d.Version)
	}
	line("wrapped by", by)
	line("made", d.Made.Format(time.RFC3339))
	line("deleted", d.At.Format(time.RFC3339))
	line("deleted by", d.By)
	line("destroyed", now.Format(time.RFC3339))
	line("how", "the row was deleted, its place in the store's page zeroed, and the log of writes overwritten and cut")
	line("still held by", "every copy of the data folder that was made from "+d.Made.Format(time.RFC3339)+" to "+now.Format(time.RFC3339)+", and by what the file system or the disk keep of overwritten blocks"+held)
	for _, n := range copies {
		if !n.At.Before(d.Made.Truncate(time.Second)) && !n.At.After(now) {
			line("backup that may hold it", n.Folder+" "+n.Point)
		}
	}
	return b.String()
}

func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return '?'
}

// destructionRoutes is the door to the statements.
func (a *App) destructionRoutes() []gate.Route {
	return []gate.Route{gate.Each(destructionsRead, "GET /subscriptions/{sub}/providers/Castellan.Keys/destructions", func(r *http.Request, v gate.Vars) (gate.Target, error) {
		if err := resource.Version(r); err != nil {
			return gate.Target{}, err
		}
		id, err := arm.ParseID("/subscriptions/" + v["sub"])
		return gate.Target{ID: id}, err
	}, func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		sub, err := g.On(destructionsRead)
		if err != nil {
			return err
		}
		list := []any{}
		if err := a.db.View(r.Context(), func(tx *store.Tx) error {
			all, err := store.ScanJSON[stated](tx, statementTable, "", "", 0)
			for _, s := range all {
				if s.ID.Within(sub) && g.Sees(destructionsRead, s.ID) {
					list = append(list, map[string]any{"id": sub.String() + "/providers/Castellan.Keys/destructions/" + s.UID, "name": s.UID, "type": "Castellan.Keys/destructions",
						"properties": map[string]any{"scope": s.ID, "destroyed": s.At, "statement": s.Statement}})
				}
			}
			return err
		}); err != nil {
			return err
		}
		gate.WriteJSON(w, http.StatusOK, map[string]any{"value": list})
		return nil
	})}
}
