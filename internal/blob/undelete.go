package blob

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// In a hierarchical namespace what was deleted is named by its path and a
// deletion's id, for a path may have been deleted more than once. The id is the
// stamp of its row as a number: 100 ns since 1970.

func deletionID(stamp string) (string, error) {
	t, err := time.Parse(stampForm, stamp)
	return strconv.FormatInt(t.UnixNano()/100, 10), err
}

func stampOf(deletion string) (string, error) {
	n, err := strconv.ParseInt(deletion, 10, 64)
	if err != nil || n < 0 || n > 1<<56 {
		return "", badHeader("x-ms-undelete-source", deletion, "a path with ?deletionid= and a number, as a list of deleted paths shows it")
	}
	return time.Unix(n/1e7, n%1e7*100).UTC().Format(stampForm), nil
}

// listDeleted lists deleted paths that are still kept, whose names begin with
// prefix, from marker on.
func (s *Service) listDeleted(ctx context.Context, g gate.Grant, prefix, marker string, limit int) (out []blobXML, next string, err error) {
	p, err := s.target(g, BlobRead)
	if err != nil {
		return nil, "", err
	}
	if err := rolesOnly(g); err != nil {
		return nil, "", err
	}
	after, err := readMarker(marker)
	if err != nil {
		return nil, "", err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		if err != nil {
			return err
		}
		from := after
		if from != "" {
			from = c.UID + "/" + from
		}
		for {
			rows, err := tx.Scan(pastTable, blobKey(c, prefix), from, trashBatch)
			if err != nil {
				return err
			}
			for _, r := range rows {
				from = r.Key
				name, stamp, _ := strings.Cut(strings.TrimPrefix(r.Key, c.UID+"/"), "\x01")
				var b row
				if err := json.Unmarshal(r.Value, &b); err != nil {
					return fmt.Errorf("reading a deleted path: %w", err)
				}
				if b.Past != isBase || !b.deleted() {
					continue
				}
				if len(out) == limit {
					next = newMarker(after)
					return nil
				}
				x := showBlob(b.info(name), nil, s.Now())
				if x.Deletion, err = deletionID(stamp); err != nil {
					return err
				}
				out, after = append(out, x), name+"\x01"+stamp
			}
			if len(rows) < trashBatch {
				return nil
			}
		}
	})
	return out, next, err
}

// rolesOnly refuses whom access lists alone let in: they speak of what there is.
func rolesOnly(g gate.Grant) error {
	if g.Listed() {
		return arm.Errorf(arm.Forbidden, "Deleted paths are seen and brought back by a role, not by access lists.")
	}
	return nil
}

// undeletePath brings back what a path was when it was deleted under that id;
// a directory with all that was deleted with it.
func (s *Service) undeletePath(ctx context.Context, g gate.Grant, deletion string) (kind string, err error) {
	p, err := s.blobTarget(g, BlobWrite)
	if err != nil {
		return "", err
	}
	if err := rolesOnly(g); err != nil {
		return "", err
	}
	stamp, err := stampOf(deletion)
	if err != nil {
		return "", err
	}
	return kind, g.Change(ctx, s.DB, func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		if err != nil {
			return err
		}
		b, ok, err := store.GetJSON[row](tx, pastTable, pastPrefix(c, p.blob)+stamp)
		if err != nil {
			return err
		}
		if !ok || b.Past != isBase || !b.deleted() {
			return fail(http.StatusNotFound, "PathNotFound", "There is no deleted path of the name and the deletionid %s.", deletion)
		}
		now, err := findBlob(tx, c, p.blob)
		if err != nil {
			return err
		}
		if now != nil {
			return fail(http.StatusConflict, "PathAlreadyExists", "The specified path exists again; move it away first.")
		}
		if _, err := s.lead(tx, c, p.blob, birth{owner: ownerOf(g), umask: usualMask}); err != nil {
			return err
		}
		kind = kindOf(b.Dir)
		if b.Dir && b.With != "" {
			if err := reviveBelow(tx, c, p.blob, b.With); err != nil {
				return err
			}
		}
		return revivePath(tx, c, p.blob, stamp, b)
	})
}

// reviveBelow brings back what was deleted with a directory.
func reviveBelow(tx *store.Tx, c containerRow, dir, with string) error {
	for after := ""; ; {
		rows, err := tx.Scan(pastTable, blobKey(c, dir)+"/", after, trashBatch)
		if err != nil {
			return err
		}
		for _, r := range rows {
			after = strings.Clone(r.Key)
			var b row
			if err := json.Unmarshal(r.Value, &b); err != nil {
				return fmt.Errorf("reading a deleted path: %w", err)
			}
			if b.Past != isBase || !b.deleted() || b.With != with {
				continue
			}
			name, stamp, _ := strings.Cut(strings.TrimPrefix(after, c.UID+"/"), "\x01")
			if err := revivePath(tx, c, name, stamp, b); err != nil {
				return err
			}
		}
		if len(rows) < trashBatch {
			return nil
		}
	}
}

// revivePath moves one row from the past to the present.
func revivePath(tx *store.Tx, c containerRow, name, stamp string, b row) error {
	key := pastPrefix(c, name) + stamp
	if err := tx.Delete(dueTable, dueKey(b.Until, key)); err != nil {
		return err
	}
	if err := tx.Delete(pastTable, key); err != nil {
		return err
	}
	b.revive()
	b.Past, b.With = "", ""
	return store.PutJSON(tx, blobTable, blobKey(c, name), b)
}

// undeleteSource is the deletion's id that a request brings back the path of.
func (x exchange) undeleteSource(name string) (deletion string, err error) {
	v := x.r.Header.Get("x-ms-undelete-source")
	path, query, _ := strings.Cut(v, "?")
	q, err := url.ParseQuery(query)
	if err == nil {
		path, err = url.PathUnescape(path)
	}
	if err != nil || path != "" && strings.Trim(path, "/") != name || len(q) != 1 || len(q["deletionid"]) != 1 {
		return "", badHeader("x-ms-undelete-source", v, "the path itself, or nothing, with ?deletionid= and the number that a list of deleted paths shows")
	}
	return q.Get("deletionid"), nil
}
