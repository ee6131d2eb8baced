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

// List lists up to limit blobs of the container that the Grant, for BlobRead, is
// about, whose names begin with prefix, from marker on. With a delimiter, names
// that have it behind the prefix are shown once, up to and with it, as a Prefix.
func (s *Service) List(ctx context.Context, g gate.Grant, prefix, delimiter, marker string, limit int) (page Page, err error) {
	p, err := s.target(g, BlobRead)
	if err != nil {
		return page, err
	}
	if g.Item() != "" || p.container == "" {
		return page, fmt.Errorf("blob: the grant is for one blob, not for a list")
	}
	if limit < 1 || limit > maxPage {
		limit = maxPage
	}
	after, err := readMarker(marker)
	if err != nil {
		return page, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		if err != nil {
			return err
		}
		page, err = walk(tx, c, prefix, delimiter, after, limit)
		return err
	})
	return page, err
}

// walk reads rows in parts, and jumps over those that a prefix stands for.
func walk(tx *store.Tx, c containerRow, prefix, delimiter, after string, limit int) (page Page, err error) {
	base := c.UID + "/"
	for {
		want := limit - len(page.Items) + 1
		if delimiter != "" {
			want = min(want, 200) // many of them may be jumped over
		}
		rows, err := tx.Scan(blobTable, base+prefix, base+after, want)
		if err != nil {
			return page, err
		}
		jumped := false
		for _, r := range rows {
			name := strings.TrimPrefix(r.Key, base)
			if len(page.Items) == limit {
				page.Next = newMarker(after)
				return page, nil
			}
			if group := groupOf(name, prefix, delimiter); group != "" {
				page.Items = append(page.Items, Info{Name: group, Prefix: true})
				after, jumped = group+afterAll, true
				break
			}
			var b row
			if err := json.Unmarshal(r.Value, &b); err != nil {
				return page, fmt.Errorf("reading a blob's row: %w", err)
			}
			page.Items = append(page.Items, b.info(name))
			after = name
		}
		if !jumped && len(rows) < want {
			return page, nil
		}
	}
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
