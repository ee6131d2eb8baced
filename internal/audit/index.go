package audit

import (
	"context"
	"fmt"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// The index finds entries without a walk over the log, whose rows it leaves as
// they are. It has, each with the entry's place in the log as its value,
//
//	correlation|ID           the last refusal or change of this id
//	ended|ID                 the end of what went on after such a change
//	change|SUBSCRIPTION|TIME|PLACE   a change of a resource, by any outcome
//
// Reads that were allowed are not in it: they are most of the log.
const index = "audit_index"

// stamp is the time in keys: all of one length, so that they lie in order.
const stamp = "20060102T150405.000000000"

// index writes what the index has of e.
func (e *Entry) index(tx *store.Tx) error {
	sub, change := e.Change()
	if e.Correlation != "" && (change || e.Decision == "refused") {
		if err := tx.Put(index, e.correlationKey(), []byte(key(e.Seq))); err != nil {
			return err
		}
	}
	if !change {
		return nil
	}
	return tx.Put(index, changeKey(sub, e), []byte(key(e.Seq)))
}

func (e *Entry) correlationKey() string {
	if e.Event == Ended {
		return "ended|" + e.Correlation
	}
	return "correlation|" + e.Correlation
}

// unindex takes away what the index has of e.
func (e *Entry) unindex(tx *store.Tx) error {
	at, err := tx.Get(index, e.correlationKey())
	if err != nil {
		return err
	}
	if string(at) == key(e.Seq) {
		if err := tx.Delete(index, e.correlationKey()); err != nil {
			return err
		}
	}
	if sub, change := e.Change(); change {
		return tx.Delete(index, changeKey(sub, e))
	}
	return nil
}

func changeKey(sub string, e *Entry) string {
	return "change|" + sub + "|" + e.Time.UTC().Format(stamp) + "|" + key(e.Seq)
}

// Change reports whether e is of the control plane's changes, which Azure calls
// administrative events, and of which subscription.
func (e *Entry) Change() (subscription string, ok bool) {
	verb := strings.ToLower(e.Action[strings.LastIndexByte(e.Action, '/')+1:])
	if e.Plane != "arm" || e.Data || verb != "write" && verb != "delete" && verb != "action" {
		return "", false
	}
	id, err := arm.ParseID(e.Target)
	if err != nil {
		return "", false
	}
	return id.Subscription(), id.Subscription() != ""
}

// Find is the last refusal or change of a correlation id, not the end of one; ok is
// false if there is none.
func (l *Log) Find(ctx context.Context, correlation string) (e Entry, ok bool, err error) {
	if err := l.Sync(ctx); err != nil {
		return Entry{}, false, err
	}
	err = l.db.View(ctx, func(tx *store.Tx) error {
		at, err := tx.Get(index, "correlation|"+correlation)
		if err != nil || at == nil {
			return err
		}
		e, ok, err = entryAt(tx, string(at))
		return err
	})
	return e, ok, err
}

// Correlated is the changes of a correlation id and how they ended, the newest first:
// what one transaction changed lies together in the log.
func (l *Log) Correlated(ctx context.Context, correlation string) (out []Entry, err error) {
	if err := l.Sync(ctx); err != nil {
		return nil, err
	}
	err = l.db.View(ctx, func(tx *store.Tx) error {
		for _, from := range []string{"ended|", "correlation|"} {
			at, err := tx.Get(index, from+correlation)
			if err != nil {
				return err
			}
			for at := string(at); at != ""; {
				e, ok, err := entryAt(tx, at)
				if err != nil {
					return err
				}
				if !ok || e.Correlation != correlation {
					break
				}
				if _, change := e.Change(); change {
					out = append(out, e)
				}
				if at = key(e.Seq - 1); e.Event == Ended {
					break
				}
			}
		}
		return nil
	})
	return out, err
}

// Changes is up to n of a subscription's changes, the newest first, from on and
// until till, a time that counts too. after is the cursor that the last answer
// gave, "" at first; next is "" when there are no more. All of it reads n
// entries at most.
func (l *Log) Changes(ctx context.Context, subscription string, from, till time.Time, after string, n int) (out []Entry, next string, err error) {
	if err := l.Sync(ctx); err != nil {
		return nil, "", err
	}
	prefix := "change|" + strings.ToLower(subscription) + "|"
	before := prefix + after
	if after == "" {
		before = prefix + till.UTC().Format(stamp) + "}" // behind every place of that time
	}
	err = l.db.View(ctx, func(tx *store.Tx) error {
		rows, err := tx.ScanDown(index, prefix, before, n)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if r.Key < prefix+from.UTC().Format(stamp) {
				return nil
			}
			e, ok, err := entryAt(tx, string(r.Value))
			if err != nil {
				return err
			}
			if !ok {
				return fmt.Errorf("audit: the index names entry %s, which is not there", r.Value)
			}
			out = append(out, e)
		}
		if len(rows) == n {
			next = strings.TrimPrefix(rows[n-1].Key, prefix)
		}
		return nil
	})
	return out, next, err
}
