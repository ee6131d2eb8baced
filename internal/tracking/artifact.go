package tracking

import (
	"context"
	"io"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// maxArtifact is the most bytes of one artifact.
const maxArtifact = 64 << 30

// listPage is how many artifacts one answer of a list has.
const listPage = 1000

func (s *Service) artifactRoutes() []gate.Route {
	at := s.locate(proxiedRun(func(_ *http.Request, v gate.Vars) string { return v["path"] }))
	listed := s.locate(proxiedRun(func(r *http.Request, _ gate.Vars) string { return r.URL.Query().Get("path") }))
	return []gate.Route{
		gate.On(ArtifactsRead, "GET "+proxyPath, listed, s.listProxied),
		gate.Stream(ArtifactsRead, "GET "+proxyPath+"/{path...}", at, s.download),
		gate.On(ArtifactsWrite, "PUT "+proxyPath+"/{path...}", at, s.upload),
		gate.On(artifactsDelete, "DELETE "+proxyPath+"/{path...}", at, s.deleteArtifacts),
	}
}

// proxiedRun is the run whose artifact a path names, also by a model it logged.
func proxiedRun(of func(*http.Request, gate.Vars) string) subject {
	return func(s *Service, r *http.Request, v gate.Vars, ws arm.ID) (string, error) {
		p, err := parsePlace(of(r, v))
		if err != nil {
			return "", err
		}
		return s.runOf(r.Context(), ws, p)
	}
}

// runOf is the run that a place belongs to; "" for that of a logged model
// that is not there or belongs to none.
func (s *Service) runOf(ctx context.Context, ws arm.ID, p place) (string, error) {
	if p.run != "" {
		return p.run, nil
	}
	run := ""
	err := s.DB.View(ctx, func(tx *store.Tx) error {
		w, ok, err := s.Workspaces.Find(tx, ws)
		if err != nil || !ok {
			return err
		}
		m, err := loadLogged(tx, w.UID, p.model)
		if arm.CodeOf(err) == notThere {
			return nil
		}
		run = m.Run
		return err
	})
	return run, err
}

// held is the workspace of a Grant, once the run or model of the place is
// there; the place then has the run's id as the run spells it.
func (s *Service) held(ctx context.Context, g gate.Grant, a arm.Action, p *place) (w Workspace, err error) {
	err = s.view(ctx, g, a, func(tx *store.Tx, at Workspace) error {
		w = at
		if p.run != "" {
			if err := notOwn(g, p.run); err != nil {
				return err
			}
			find := activeRun
			if a.Key() == ArtifactsRead.Key() {
				find = loadRun
			}
			r, err := find(tx, w.UID, p.run)
			if err == nil {
				p.run = r.ID
			}
			return err
		}
		m, err := loadLogged(tx, w.UID, p.model)
		if err != nil {
			return err
		}
		if own(g) != "" {
			return notOwn(g, m.Run)
		}
		return nil
	})
	return w, err
}

// pathVar is the proxied artifact that a path names, behind
// api/2.0/mlflow-artifacts/artifacts.
func pathVar(r *http.Request) string {
	if seg := behind(r); len(seg) > 4 {
		return strings.Join(seg[4:], "/")
	}
	return ""
}

func (s *Service) download(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	p, err := parsePlace(pathVar(r))
	if err != nil {
		return err
	}
	if p.path == "" {
		return bad("Invalid path: it names no artifact.")
	}
	ws, err := s.held(r.Context(), g, ArtifactsRead, &p)
	if err != nil {
		return err
	}
	c, err := s.Blobs.Open(r.Context(), ws, p.blob(), 0)
	if err != nil {
		return missing(err, p)
	}
	defer c.Close()
	h := w.Header()
	// Whatever a job wrote is data: a browser must neither run nor show it.
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": path.Base(p.path)}))
	h.Set("Content-Length", strconv.FormatInt(c.Size, 10))
	if _, err := io.Copy(w, c); err != nil {
		return err
	}
	return nil
}

func missing(err error, p place) error {
	if arm.CodeOf(err) == arm.NotFound {
		return arm.Errorf(notThere, "There is no artifact '%s'.", clip(p.path))
	}
	return err
}

func (s *Service) upload(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	p, err := parsePlace(pathVar(r))
	if err != nil {
		return err
	}
	if err := s.put(r.Context(), g, p, r.Header.Get("Content-Type"), r.Body, r.ContentLength); err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, struct{}{})
	return nil
}

func (s *Service) put(ctx context.Context, g gate.Grant, p place, contentType string, content io.Reader, size int64) error {
	if p.path == "" {
		return bad("Invalid path: it names no artifact.")
	}
	if size > maxArtifact {
		return arm.Errorf(arm.TooLarge, "the artifact is %d bytes large; at most %d are allowed", size, int64(maxArtifact))
	}
	w, err := s.held(ctx, g, ArtifactsWrite, &p)
	if err != nil {
		return err
	}
	if len(contentType) > 200 {
		contentType = ""
	}
	return s.Blobs.Put(ctx, w, p.blob(), contentType, &capped{r: content, left: maxArtifact}, size)
}

// capped fails, rather than ends, when there is more to read than allowed.
type capped struct {
	r    io.Reader
	left int64
}

func (c *capped) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if c.left -= int64(n); c.left < 0 {
		return 0, arm.Errorf(arm.TooLarge, "the artifact is larger than %d bytes", int64(maxArtifact))
	}
	return n, err
}

// deleteArtifacts removes one artifact, or all below a folder.
func (s *Service) deleteArtifacts(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	p, err := parsePlace(pathVar(r))
	if err != nil {
		return err
	}
	ws, err := s.held(r.Context(), g, artifactsDelete, &p)
	if err != nil {
		return err
	}
	if p.path != "" {
		if err := s.Blobs.Delete(r.Context(), ws, p.blob()); err != nil && arm.CodeOf(err) != arm.NotFound {
			return err
		}
	}
	if err := s.eachBlob(r.Context(), ws, p.prefix(), func(b Blob) error { return s.Blobs.Delete(r.Context(), ws, b.Name) }); err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, struct{}{})
	return nil
}

// eachBlob calls f with every blob whose name begins with prefix.
func (s *Service) eachBlob(ctx context.Context, w Workspace, prefix string, f func(Blob) error) error {
	mark := ""
	for {
		blobs, next, err := s.Blobs.List(ctx, w, prefix, true, mark, listPage)
		if err != nil {
			return err
		}
		for _, b := range blobs {
			if err := f(b); err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		mark = next
	}
}

// files is one page of what lies directly in a folder, by paths in the place.
func (s *Service) files(ctx context.Context, w Workspace, p place, mark string) (files []map[string]any, next string, err error) {
	blobs, next, err := s.Blobs.List(ctx, w, p.prefix(), false, mark, listPage)
	if err != nil {
		return nil, "", err
	}
	files = make([]map[string]any, 0, len(blobs))
	for _, b := range blobs {
		name := strings.TrimSuffix(strings.TrimPrefix(b.Name, p.folder()), "/")
		f := map[string]any{"path": name, "is_dir": b.Folder}
		if !b.Folder {
			f["file_size"] = b.Size
		}
		files = append(files, f)
	}
	return files, next, nil
}

// listProxied answers with the names alone, as clients of the proxy expect,
// and with all of a folder at once, for they know no pages.
func (s *Service) listProxied(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	p, err := parsePlace(r.URL.Query().Get("path"))
	if err != nil {
		return err
	}
	ws, err := s.held(r.Context(), g, ArtifactsRead, &p)
	if err != nil {
		return err
	}
	all := []map[string]any{}
	for mark := ""; ; {
		files, next, err := s.files(r.Context(), ws, p, mark)
		if err != nil {
			return err
		}
		for _, f := range files {
			f["path"] = path.Base(f["path"].(string))
			all = append(all, f)
		}
		if mark = next; mark == "" {
			break
		}
		if len(all) > 100_000 {
			return arm.Errorf(limited, "The folder has more than 100000 entries.")
		}
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"files": all})
	return nil
}

func (s *Service) listArtifacts(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id, mark := in.target(g), in.text("page_token")
	at, err := folderPath(in.text("path"))
	if err != nil {
		return nil, err
	}
	if err := in.done(); err != nil {
		return nil, err
	}
	p := place{run: id, path: at}
	w, err := s.held(ctx, g, ArtifactsRead, &p)
	if err != nil {
		return nil, err
	}
	files, next, err := s.files(ctx, w, p, mark)
	if err != nil {
		return nil, err
	}
	out := map[string]any{"root_uri": place{run: id}.uri(), "files": files}
	if next != "" {
		out["next_page_token"] = next
	}
	return out, nil
}
