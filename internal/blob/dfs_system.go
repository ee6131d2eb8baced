package blob

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"castellan/internal/gate"
	"castellan/internal/store"
)

// createSystem is Filesystem Create.
func (s *Service) createSystem(x exchange) error {
	meta, _, err := propertiesOf(x.r)
	if err != nil {
		return err
	}
	info, err := s.CreateContainer(x.r.Context(), x.g, meta)
	x.namespace()
	return x.containerAnswer(http.StatusCreated, info, err)
}

// namespace says whether names are paths there.
func (x exchange) namespace() {
	a := x.s.at(x.r.Host)
	x.w.Header().Set("x-ms-namespace-enabled", strconv.FormatBool(a != nil && a.hns))
}

// getSystem is Filesystem Get Properties.
func (s *Service) getSystem(x exchange) error {
	info, err := s.showContainer(x.r.Context(), x.g, Conditions{})
	if err != nil {
		return err
	}
	x.namespace()
	x.w.Header().Set("x-ms-properties", properties(info.Meta))
	return x.containerAnswer(http.StatusOK, info, nil)
}

// setSystem is Filesystem Set Properties.
func (s *Service) setSystem(x exchange) error {
	meta, _, err := propertiesOf(x.r)
	if err != nil {
		return err
	}
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	info, err := s.SetContainerMeta(x.r.Context(), x.g, meta, when)
	return x.containerAnswer(http.StatusOK, info, err)
}

// systemJSON is a file system in a list.
type systemJSON struct {
	Name     string `json:"name"`
	Modified string `json:"lastModified"`
	ETag     string `json:"etag"`
}

// listSystems is Filesystem List.
func (s *Service) listSystems(x exchange) error {
	limit, err := x.q.count("maxresults", maxPage)
	if err != nil {
		return err
	}
	after, err := readMarker(x.q["continuation"])
	if err != nil {
		return err
	}
	list, next, err := s.Containers(x.r.Context(), x.g, x.q["prefix"], after, limit)
	if err != nil {
		return err
	}
	out := struct {
		Systems []systemJSON `json:"filesystems"`
	}{[]systemJSON{}}
	for _, c := range list {
		out.Systems = append(out.Systems, systemJSON{c.Name, httpTime(c.Modified), strings.Trim(c.ETag, `"`)})
	}
	if next != "" {
		x.w.Header().Set("x-ms-continuation", newMarker(next))
	}
	gate.WriteJSON(x.w, http.StatusOK, out)
	return nil
}

// pathJSON is a path in a list. All values are texts there.
type pathJSON struct {
	Name        string `json:"name"`
	Directory   string `json:"isDirectory,omitempty"`
	Length      string `json:"contentLength"`
	Modified    string `json:"lastModified"`
	Created     string `json:"creationTime"` // in steps of 100 ns since 1601
	ETag        string `json:"etag"`
	Owner       string `json:"owner,omitempty"`
	Group       string `json:"group,omitempty"`
	Permissions string `json:"permissions,omitempty"`
}

// fileTime is t in steps of 100 ns since 1601, as Windows counts.
func fileTime(t time.Time) string {
	const until1970 = 11644473600
	return strconv.FormatInt((t.Unix()+until1970)*1e7+int64(t.Nanosecond()/100), 10)
}

// listPaths is Path List.
func (s *Service) listPaths(x exchange) error {
	recursive, err := x.flag("recursive", true)
	if err != nil {
		return err
	}
	limit, err := x.q.count("maxresults", maxPage)
	if err != nil {
		return err
	}
	dir, err := directoryIn(x.r)
	if err != nil {
		return err
	}
	after, err := readMarker(x.q["continuation"])
	if err != nil {
		return err
	}
	name, err := x.names()
	if err != nil {
		return err
	}
	list, next, info, err := s.paths(x, dir, after, recursive, limit)
	if err != nil {
		return err
	}
	out := struct {
		Paths []pathJSON `json:"paths"`
	}{[]pathJSON{}}
	for _, b := range list {
		j := pathJSON{Name: b.Name, Length: strconv.FormatInt(b.Size, 10), Modified: httpTime(b.Modified), Created: fileTime(b.Created), ETag: strings.Trim(b.ETag, `"`)}
		if b.dir || b.Prefix {
			j.Directory = "true"
		}
		if b.access != nil {
			j.Owner, j.Group, j.Permissions = name(b.access.Owner), name(b.access.Group), b.access.mode()
		}
		out.Paths = append(out.Paths, j)
	}
	h := x.w.Header()
	if next != "" {
		h.Set("x-ms-continuation", newMarker(next))
	}
	h.Set("ETag", info.ETag)
	h.Set("Last-Modified", httpTime(info.Modified))
	gate.WriteJSON(x.w, http.StatusOK, out)
	return nil
}

// flag is a parameter that must be true or false; must is whether it must be there.
func (x exchange) flag(name string, must bool) (bool, error) {
	switch v, ok := x.q[name]; {
	case !ok && must:
		return false, fail(http.StatusBadRequest, "MissingRequiredQueryParameter", "The query parameter %s is missing; it must be true or false.", name)
	case !ok:
		return false, nil
	case strings.EqualFold(v, "true"):
		return true, nil
	case strings.EqualFold(v, "false"):
		return false, nil
	default:
		return false, badQuery(name, v, "true or false")
	}
}

// names shows ids of owners and groups: by their names in the directory if the
// request asks for these.
func (x exchange) names() (func(id string) string, error) {
	upn, err := x.flag("upn", false)
	if err != nil || !upn || x.s.NameOf == nil {
		return func(id string) string { return id }, err
	}
	tenant := x.s.tenant(x.r)
	return func(id string) string {
		if id == superuser {
			return id
		}
		return text(x.s.NameOf(tenant, id), id)
	}, nil
}

// paths are up to limit of what lies below a directory, behind the path after,
// and where to go on. Without recursive only what lies in the directory itself.
func (s *Service) paths(x exchange, dir, after string, recursive bool, limit int) (out []Info, next string, info ContainerInfo, err error) {
	p, err := s.target(x.g, BlobRead)
	if err != nil {
		return nil, "", info, err
	}
	prefix := ""
	if dir != "" {
		prefix = dir + "/"
	}
	err = s.DB.View(x.r.Context(), func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		if err != nil {
			return err
		}
		d, err := s.loadContainer(tx, p, Conditions{}, true)
		if err != nil {
			return err
		}
		if info, err = containerInfo(d); err != nil {
			return err
		}
		if err := isDirectory(tx, p, c, dir); err != nil {
			return err
		}
		names := []string{prefix}
		cur := &cursor{tx: tx, table: blobTable, base: c.UID + "/", prefix: prefix, after: after, batch: min(limit+1, 1000)}
		for {
			key, value, ok, err := cur.peek()
			if err != nil || !ok {
				return orElse(err, s.opens(tx, c, x.g, dir, names))
			}
			i, behind, err := pathEntry(key, value, prefix, recursive, p.hns)
			if err != nil {
				return err
			}
			if i.Name != "" && len(out) == limit {
				next = after
				return s.opens(tx, c, x.g, dir, names)
			}
			if i.Name != "" {
				out, names = append(out, i), append(names, i.Name)
			}
			after = behind
			cur.pass(after)
		}
	})
	return out, next, info, err
}

// isDirectory says that there is no such directory, if there is none. Where there
// is no tree a directory is what names begin with.
func isDirectory(tx *store.Tx, p place, c containerRow, dir string) error {
	if dir == "" {
		return nil
	}
	b, err := findBlob(tx, c, dir)
	if err != nil {
		return err
	}
	is := b != nil && b.Dir
	if !p.hns {
		is, err = hasChildren(tx, c, dir)
	}
	if err == nil && !is {
		err = noBlob()
	}
	return err
}

// pathEntry is what a list below prefix shows of a row, a path without a name if
// nothing, and behind what the list goes on.
func pathEntry(key string, value []byte, prefix string, recursive, hns bool) (i Info, behind string, err error) {
	if first, _, deeper := strings.Cut(key[len(prefix):], "/"); deeper && !recursive {
		if !hns {
			i = Info{Name: prefix + first, Prefix: true}
		}
		return i, prefix + first + "/" + afterAll, nil
	}
	var b row
	if err := json.Unmarshal(value, &b); err != nil {
		return i, "", fmt.Errorf("reading a blob's row: %w", err)
	}
	return b.info(key), key, nil
}
