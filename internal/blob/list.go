package blob

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"castellan/internal/gate"
	"castellan/internal/store"
)

// maxPage is the most entries in one answer of a list, as Azure's.
const maxPage = 5000

// afterAll sorts behind every name that begins alike: no name has this character.
const afterAll = "\U0010ffff"

// Page is some entries of a list, in the order of their names, and where to go
// on, "" at the end.
type Page struct {
	Items []Info
	Next  string
}

// listing is what somebody wants to see of a container's blobs.
type listing struct {
	prefix, delimiter, marker string
	limit                     int
	snapshots                 bool
	versions                  bool
	deleted                   bool
	uncommitted               bool // blobs of which there are only blocks that wait
	onlyPast                  bool // names of which there are only versions
}

// List lists up to limit blobs of the container that the Grant, for BlobRead, is
// about, whose names begin with prefix, from marker on. With a delimiter, names
// that have it behind the prefix are shown once, up to and with it, as a Prefix.
func (s *Service) List(ctx context.Context, g gate.Grant, prefix, delimiter, marker string, limit int) (Page, error) {
	return s.list(ctx, g, listing{prefix: prefix, delimiter: delimiter, marker: marker, limit: limit})
}

// list is List with what a blob was in the past, each after the blob itself.
func (s *Service) list(ctx context.Context, g gate.Grant, l listing) (page Page, err error) {
	p, err := s.target(g, BlobRead)
	if err != nil {
		return page, err
	}
	if g.Item() != "" || p.container == "" {
		return page, fmt.Errorf("blob: the grant is for one blob, not for a list")
	}
	if l.limit < 1 || l.limit > maxPage {
		l.limit = maxPage
	}
	after, err := readMarker(l.marker)
	if err != nil {
		return page, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		if err != nil {
			return err
		}
		if page, err = l.walk(tx, c, after); err != nil {
			return err
		}
		names := []string{l.prefix}
		for _, i := range page.Items {
			name := i.Name
			if i.Prefix && l.delimiter == "/" {
				name = strings.TrimSuffix(name, "/") // the directory is shown, not what it has
			}
			names = append(names, name)
		}
		return s.opens(tx, c, g, parentOf(l.prefix), names)
	})
	return page, err
}

// walk reads rows in their order, and jumps over those that a prefix stands for.
func (l listing) walk(tx *store.Tx, c containerRow, after string) (page Page, err error) {
	m := l.cursors(tx, c, after)
	for {
		cur, key, value, err := m.least()
		if err != nil || cur == nil {
			return page, err
		}
		name, stamp, _ := strings.Cut(key, "\x01")
		b, ok, err := l.shown(tx, c, cur, name, value)
		if err != nil {
			return page, err
		}
		if !ok {
			cur.pass(key)
			continue
		}
		if len(page.Items) == l.limit {
			page.Next = newMarker(after)
			return page, nil
		}
		if l.delimiter == "/" && b.Dir && !strings.Contains(name[len(l.prefix):], "/") {
			full, err := hasChildren(tx, c, name)
			if err != nil {
				return page, err
			}
			if !full { // else what lies in it shows it
				page.Items = append(page.Items, Info{Name: name + "/", Prefix: true})
				after = key
			}
			cur.pass(key)
			continue
		}
		if group := groupOf(name, l.prefix, l.delimiter); group != "" {
			page.Items = append(page.Items, Info{Name: group, Prefix: true})
			after = group + afterAll
			for _, x := range m {
				x.pass(after)
			}
			continue
		}
		info := b.info(name)
		if b.Past == isSnapshot || b.Past == isBase {
			info.snapshot = stamp
		}
		page.Items = append(page.Items, info)
		after = key
		cur.pass(key)
	}
}

func (l listing) cursors(tx *store.Tx, c containerRow, after string) merge {
	batch := l.limit + 1
	if l.delimiter != "" {
		batch = min(batch, 200) // many of them may be jumped over
	}
	at := func(table string) *cursor {
		return &cursor{tx: tx, table: table, base: c.UID + "/", prefix: l.prefix, after: after, batch: min(batch, 1000)}
	}
	m := merge{at(blobTable)}
	if l.snapshots || l.versions || l.deleted {
		m = append(m, at(pastTable))
	}
	for table, shown := range map[string]bool{blockTable: l.uncommitted, pastTable: l.onlyPast} {
		if !shown {
			continue
		}
		names := at(table)
		names.whole = true
		if after != "" {
			names.pass(after)
		}
		m = append(m, names)
	}
	return m
}

// shown is the row as the list shows it, if it does.
func (l listing) shown(tx *store.Tx, c containerRow, cur *cursor, name string, value []byte) (b row, ok bool, err error) {
	if cur.table == blockTable {
		is, err := findBlob(tx, c, name)
		return row{Type: blockBlob, waits: true}, is == nil, err
	}
	if cur.whole {
		ok, err := onlyVersions(tx, c, name)
		return row{onlyPast: true}, ok, err
	}
	if err := json.Unmarshal(value, &b); err != nil {
		return b, false, fmt.Errorf("reading a blob's row: %w", err)
	}
	switch {
	case b.deleted() && !l.deleted:
		return b, false, nil
	case b.Past == isSnapshot:
		return b, l.snapshots, nil
	case b.Past == isVersion:
		return b, l.versions, nil
	case b.Past == isBase:
		return l.shownBase(tx, c, name, b)
	}
	return b, true, nil
}

// onlyVersions reports whether there are versions of the blob, and not itself.
func onlyVersions(tx *store.Tx, c containerRow, name string) (found bool, err error) {
	if b, err := findBlob(tx, c, name); err != nil || b != nil {
		return false, err
	}
	err = pastOf(tx, c, name, func(r pastRow) error {
		found = found || r.Past == isVersion
		return nil
	})
	return found, err
}

// shownBase shows a deleted blob as itself if there is no other, else as a snapshot.
func (l listing) shownBase(tx *store.Tx, c containerRow, name string, b row) (row, bool, error) {
	is, err := findBlob(tx, c, name)
	if err != nil || is != nil {
		return b, l.snapshots, err
	}
	last := b.Deleted
	err = pastOf(tx, c, name, func(r pastRow) error {
		if r.Past == isBase && r.Deleted.After(last) {
			last = r.Deleted
		}
		return nil
	})
	if err != nil || last.After(b.Deleted) {
		return b, l.snapshots, err
	}
	b.Past = ""
	return b, true, nil
}

// cursor reads the rows of a table in parts.
type cursor struct {
	tx     *store.Tx
	table  string
	base   string // what all keys begin with, and none is shown with
	prefix string
	after  string
	batch  int
	whole  bool // all rows of one name count as one, under the name alone
	rows   []store.Row
	done   bool
}

// peek is the next row.
func (c *cursor) peek() (key string, value []byte, ok bool, err error) {
	if len(c.rows) == 0 && !c.done {
		if c.rows, err = c.tx.Scan(c.table, c.base+c.prefix, c.base+c.after, c.batch); err != nil {
			return "", nil, false, err
		}
		c.done = len(c.rows) < c.batch
	}
	if len(c.rows) == 0 {
		return "", nil, false, nil
	}
	key = strings.TrimPrefix(c.rows[0].Key, c.base)
	if c.whole {
		key, _, _ = strings.Cut(key, "\x01")
	}
	return key, c.rows[0].Value, true, nil
}

// pass goes on behind key.
func (c *cursor) pass(key string) {
	if c.whole {
		key, _, _ = strings.Cut(key, "\x01")
		key += "\x02"
	}
	c.after = max(c.after, key)
	for len(c.rows) > 0 && c.rows[0].Key <= c.base+c.after {
		c.rows = c.rows[1:]
	}
}

// merge reads several tables in the order of their keys.
type merge []*cursor

// least is the cursor with the first row, or nil at the end.
func (m merge) least() (cur *cursor, key string, value []byte, err error) {
	for _, c := range m {
		k, v, ok, err := c.peek()
		if err != nil {
			return nil, "", nil, err
		}
		if ok && (cur == nil || k < key) {
			cur, key, value = c, k, v
		}
	}
	return cur, key, value, nil
}

// groupOf is what name is shown as in a list with a delimiter, or "" if as itself.
func groupOf(name, prefix, delimiter string) string {
	if delimiter == "" {
		return ""
	}
	i := strings.Index(name[len(prefix):], delimiter)
	if i < 0 {
		return ""
	}
	return name[:len(prefix)+i+len(delimiter)]
}

// Markers are names that clients need not know to be names.
func newMarker(after string) string {
	return "1!" + base64.RawURLEncoding.EncodeToString([]byte(after))
}

func readMarker(m string) (string, error) {
	if m == "" {
		return "", nil
	}
	text, ok := strings.CutPrefix(m, "1!")
	b, err := base64.RawURLEncoding.DecodeString(text)
	if !ok || err != nil || len(b) > 8<<10 {
		return "", fail(http.StatusBadRequest, "InvalidQueryParameterValue", "The marker is not one that a list gave.")
	}
	return string(b), nil
}
