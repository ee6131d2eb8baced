package blob

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// Limits of tags, as Azure's.
const (
	maxTags     = 10
	maxTagKey   = 128
	maxTagValue = 256
)

func badTags(format string, args ...any) error {
	return fail(http.StatusBadRequest, "InvalidTag", format, args...)
}

func checkTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return badTags("There are %d tags; a blob has at most %d.", len(tags), maxTags)
	}
	for k, v := range tags {
		if k == "" || len(k) > maxTagKey || len(v) > maxTagValue {
			return badTags("The tag %q is invalid: a key has 1 to %d characters, a value at most %d.", k, maxTagKey, maxTagValue)
		}
		for _, c := range k + v {
			if !identifier("_"+string(c)) && !strings.ContainsRune(" +-./:=", c) {
				return badTags("The tag %q is invalid: keys and values are of letters, digits, spaces and + - . / : = _.", k)
			}
		}
	}
	return nil
}

// headerTags reads the tags in the header x-ms-tags, which are as in a query.
func headerTags(r *http.Request) (map[string]string, error) {
	v := r.Header.Get("x-ms-tags")
	if v == "" {
		return nil, nil
	}
	out := map[string]string{}
	for part := range strings.SplitSeq(v, "&") {
		k, val, _ := strings.Cut(part, "=")
		key, err := url.QueryUnescape(k)
		value, err2 := url.QueryUnescape(val)
		if _, twice := out[key]; err != nil || err2 != nil || twice {
			return nil, badHeader("x-ms-tags", v, "KEY=VALUE&KEY=VALUE, percent-encoded, each key once")
		}
		out[key] = value
	}
	return out, checkTags(out)
}

// tagList reads tags in XML.
func tagList(n *node) (map[string]string, error) {
	if err := n.only("TagSet"); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, set := range n.kids {
		if err := set.only("Tag"); err != nil {
			return nil, err
		}
		for _, t := range set.kids {
			if err := t.only("Key", "Value"); err != nil {
				return nil, err
			}
			k, err := t.one("Key")
			if err != nil {
				return nil, err
			}
			if _, twice := out[k]; twice {
				return nil, badTags("The tag %q is there twice.", k)
			}
			if out[k], err = t.one("Value"); err != nil {
				return nil, err
			}
		}
	}
	return out, checkTags(out)
}

type tagsXML struct {
	XMLName xml.Name `xml:"Tags"`
	Set     struct {
		Tags []tagXML `xml:"Tag"`
	} `xml:"TagSet"`
}

type tagXML struct{ Key, Value string }

func showTags(tags map[string]string) *tagsXML {
	out := &tagsXML{}
	for _, k := range sortedKeys(tags) {
		out.Set.Tags = append(out.Set.Tags, tagXML{k, tags[k]})
	}
	return out
}

// tagged holds the tags of b, which may be nil, against the conditions.
func (c Conditions) tagged(b *row) error {
	if c.Tags != nil && (b == nil || !c.Tags.test(b.Tags, "")) {
		return unmet()
	}
	return nil
}

// tags are those of the blob that the Grant, for BlobTagsRead, is about.
func (s *Service) tags(ctx context.Context, g gate.Grant, m moment, when Conditions) (out map[string]string, err error) {
	p, err := s.blobTarget(g, BlobTagsRead)
	if err != nil {
		return nil, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		_, b, err := s.look(tx, p, m, when, true)
		if err == nil {
			out = b.Tags
		}
		return err
	})
	return out, err
}

// setTags replaces the tags of the blob that the Grant, for BlobTagsWrite, is
// about. Its etag stays.
func (s *Service) setTags(ctx context.Context, g gate.Grant, tags map[string]string, m moment, when Conditions) error {
	p, err := s.blobTarget(g, BlobTagsWrite)
	if err != nil {
		return err
	}
	return g.Change(ctx, s.DB, func(tx *store.Tx) error {
		c, b, err := s.alter(tx, g, p, m, when, BlobTagsWrite)
		if err != nil {
			return err
		}
		b.Tags = maps.Clone(tags)
		return put(tx, p, c, m, b)
	})
}

// getTags is Get Blob Tags.
func (s *Service) getTags(x exchange) error {
	m, when, err := x.terms()
	if err != nil {
		return err
	}
	tags, err := s.tags(x.r.Context(), x.g, m, when)
	if err != nil {
		return err
	}
	writeXML(x.w, http.StatusOK, showTags(tags))
	return nil
}

// putTags is Set Blob Tags.
func (s *Service) putTags(x exchange) error {
	m, when, err := x.terms()
	if err != nil {
		return err
	}
	n, err := readXML(x.w, x.r, "Tags")
	if err != nil {
		return err
	}
	tags, err := tagList(n)
	if err != nil {
		return err
	}
	if err := s.setTags(x.r.Context(), x.g, tags, m, when); err != nil {
		return err
	}
	x.w.WriteHeader(http.StatusNoContent)
	return nil
}

// found is a blob that a search found.
type found struct {
	container, name string
	tags            map[string]string
}

// searched is how many blobs one request of a search looks at: it goes on behind
// its marker, so no request takes long.
const searched = 10000

// find looks for blobs whose tags meet the condition, in the container or account
// that the Grant, for BlobFilter, is about, from after on, which is
// CONTAINER/NAME. next is where to go on, or "".
func (s *Service) find(ctx context.Context, g gate.Grant, q *where, after string, limit int) (out []found, next string, err error) {
	p, err := s.target(g, BlobFilter)
	if err != nil {
		return nil, "", err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		if p.container != "" {
			if _, err := findContainer(tx, p); err != nil {
				return err
			}
		}
		in, from, _ := strings.Cut(after, "/")
		left := searched
		for {
			name, c, err := s.containerFrom(tx, p, in)
			if err != nil || name == "" {
				return err
			}
			if name != in {
				from = ""
			}
			if next, err = q.within(tx, c, name, from, limit, &left, &out); err != nil || next != "" {
				return err
			}
			if p.container != "" {
				return nil
			}
			in = name + "\x00"
		}
	})
	return out, next, err
}

// containerFrom is the first container not before name, or that of the place.
func (s *Service) containerFrom(tx *store.Tx, p place, name string) (string, containerRow, error) {
	if p.container != "" {
		name = p.container
	}
	if c, ok, err := store.GetJSON[containerRow](tx, containerTable, p.UID+"/"+name); err != nil || ok {
		return name, c, err
	}
	var c containerRow
	rows, err := tx.Scan(containerTable, p.UID+"/", p.UID+"/"+name, 1)
	if err != nil || len(rows) == 0 || p.container != "" {
		return "", c, err
	}
	return strings.TrimPrefix(rows[0].Key, p.UID+"/"), c, json.Unmarshal(rows[0].Value, &c)
}

// within searches one container.
func (q *where) within(tx *store.Tx, c containerRow, container, from string, limit int, left *int, out *[]found) (next string, err error) {
	cur := &cursor{tx: tx, table: blobTable, base: c.UID + "/", after: from, batch: 500}
	for {
		key, value, ok, err := cur.peek()
		if err != nil || !ok {
			return "", err
		}
		if *left == 0 || len(*out) == limit {
			return container + "/" + cur.after, nil
		}
		*left--
		var b struct {
			Tags map[string]string `json:"tags"`
		}
		if err := json.Unmarshal(value, &b); err != nil {
			return "", fmt.Errorf("reading a blob's row: %w", err)
		}
		if len(b.Tags) > 0 && q.test(b.Tags, container) {
			f := found{container, key, map[string]string{}}
			for _, k := range q.keys {
				if v, ok := b.Tags[k]; ok {
					f.tags[k] = v
				}
			}
			*out = append(*out, f)
		}
		cur.pass(key)
	}
}

// findBlobs is Find Blobs by Tags, in an account or in a container.
func (s *Service) findBlobs(x exchange) error {
	if err := s.readable(x); err != nil {
		return err
	}
	limit, err := x.q.count("maxresults", maxPage)
	if err != nil {
		return err
	}
	after, err := readMarker(x.q["marker"])
	if err != nil {
		return err
	}
	q, err := parseWhere(x.q["where"], true)
	if err != nil {
		return err
	}
	list, next, err := s.find(x.r.Context(), x.g, q, after, limit)
	if err != nil {
		return err
	}
	type item struct {
		Name      string
		Container string `xml:"ContainerName"`
		Tags      *tagsXML
	}
	out := struct {
		XMLName  xml.Name `xml:"EnumerationResults"`
		Endpoint string   `xml:"ServiceEndpoint,attr"`
		Where    string
		Blobs    struct{ Blob []item }
		Next     string `xml:"NextMarker"`
	}{Endpoint: s.Site.BlobURL(s.accountOf(x.r.Host)), Where: x.q["where"]}
	for _, f := range list {
		out.Blobs.Blob = append(out.Blobs.Blob, item{f.name, f.container, showTags(f.tags)})
	}
	if next != "" {
		out.Next = newMarker(next)
	}
	writeXML(x.w, http.StatusOK, out)
	return nil
}

// also asks whether the request's caller may do a to the same target besides.
func (x exchange) also(a arm.Action) error {
	id, err := x.g.On(FileRead, FileWrite, FileDelete, BlobRead, BlobWrite, BlobDelete, BlobDeleteVersion, BlobAdd, BlobTagsRead, BlobTagsWrite, BlobPermissions)
	if err != nil {
		return err
	}
	ctx := x.r.Context()
	on := gate.Target{ID: id, Item: x.g.Item(), Op: x.g.Op()}
	if !x.files() {
		on.Op, on.Attributes = "", x.s.attributes(x.r, id, x.g.Item())
	}
	g, err := x.s.Gate.Admit(ctx, x.g.Caller(), a, on)
	if err != nil {
		return err
	}
	return g.Close(ctx, nil)
}
