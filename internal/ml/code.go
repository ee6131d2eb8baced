package ml

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Limits of one code snapshot, which are Azure's.
const (
	maxCodeFiles = 2000
	maxCodeBytes = 300 << 20
)

// uploads has the containers that code and data are uploaded to before their
// version is there, under the version's id and who began it; and, under
// container|, whose workspace each container is.
const uploads = "ml_uploads"

// codeProps are the properties of a version of code.
type codeProps struct {
	assetProps
	URI   string `json:"codeUri"`
	State any    `json:"provisioningState,omitempty" arm:"readonly,since=2022-10-01-preview"`
}

// snapshot is what code is, whatever may become of the blobs.
type snapshot struct {
	Account   arm.ID   `json:"account"`
	Container string   `json:"container"`
	Prefix    string   `json:"prefix"` // of all blobs' names
	Digest    string   `json:"digest"` // of Files
	Files     []digest `json:"files"`
}

// digest is one file of a snapshot.
type digest struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// sum is the digest of all files, their names and sizes.
func (s snapshot) sum() string {
	h := sha256.New()
	for _, f := range s.Files {
		fmt.Fprintf(h, "%q %d %s\n", f.Path, f.Size, f.SHA256)
	}
	return hex.EncodeToString(h.Sum(nil))
}

var writeCodeVersion = arm.NewAction(workspaceType+"/codes/versions/write", "make or change a version of code")

func (s *Service) codeVersionKind() *resource.Kind {
	return &resource.Kind{
		Type: workspaceType + "/codes/versions", Doc: "a version of code", Parent: s.kinds.code,
		Props:  func() any { return &codeProps{} },
		Needs:  s.readCode,
		Save:   s.saveCode,
		Remove: versionRemoved,
		Show:   func(_ *resource.Doc, p map[string]any) { p["provisioningState"] = "Succeeded" },
		Filter: codeFilter,
	}
}

// codeFilter finds the version that has a client's own hash of its files.
func codeFilter(q url.Values) (func(*resource.Doc) bool, error) {
	hash, of := q.Get("hash"), q.Get("hashVersion")
	return func(d *resource.Doc) bool {
		p, err := props[codeProps](d)
		if err != nil {
			return false
		}
		text := func(k string) string {
			if v, ok := p.Properties[k]; ok && v != nil {
				return strings.TrimSuffix(fmt.Sprint(v), ".0")
			}
			return ""
		}
		return hash == "" || text("hash_sha256") == hash && (of == "" || text("hash_version") == of || numeric(p.Properties["hash_version"]) == of)
	}, nil
}

// numeric spells a JSON number without an exponent.
func numeric(v any) string {
	if f, ok := v.(float64); ok {
		return fmt.Sprintf("%.0f", f)
	}
	return ""
}

// readCode reads the files of a new version as they are now: from here on the
// version is these bytes and no others.
func (s *Service) readCode(ctx context.Context, c resource.Change) (any, error) {
	p, err := props[codeProps](c.Doc)
	if err != nil || c.Old != nil {
		return nil, err
	}
	w, err := s.load(ctx, c.Doc.ID.Parent().Parent())
	if err != nil {
		return nil, err
	}
	snap, err := s.codeAt(ctx, w, p.URI)
	if err != nil {
		return nil, err
	}
	if snap.Files, err = s.digests(ctx, w, snap); err != nil {
		return nil, err
	}
	snap.Digest = snap.sum()
	return &snap, nil
}

// codeAt is where a codeUri points: into the workspace's own container, or into
// one that was made for an upload to this workspace. Anything else would be
// read as the workspace in the stead of somebody who may not.
func (s *Service) codeAt(ctx context.Context, w workspace, uri string) (snapshot, error) {
	if uri == "" {
		return snapshot{}, arm.Errorf(arm.BadRequest, "codeUri is missing")
	}
	if strings.HasPrefix(strings.ToLower(uri), "azureml://") {
		var l location
		err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
			l, err = s.locate(tx, w, uri)
			return err
		})
		if err == nil && (!l.in.System || l.container != w.blobContainer()) {
			err = arm.Errorf(arm.BadRequest, "codeUri is in the datastore %s; code lies in %s", l.name, defaultDatastore)
		}
		return snapshot{Account: l.account, Container: l.container, Prefix: l.path}, err
	}
	account, container, path, err := s.blobURL(uri)
	if err != nil {
		return snapshot{}, err
	}
	if !strings.EqualFold(account, w.StorageAccount.Name()) {
		return snapshot{}, arm.Errorf(arm.BadRequest, "codeUri is in the storage account %s; the workspace's is %s", account, w.StorageAccount.Name())
	}
	mine := container == w.blobContainer()
	if !mine {
		if err := s.DB.View(ctx, func(tx *store.Tx) error {
			b, err := tx.Get(uploads, "container|"+w.StorageAccount.Key()+"|"+container)
			mine = string(b) == w.workspaceInner.ID
			return err
		}); err != nil {
			return snapshot{}, err
		}
	}
	if !mine {
		return snapshot{}, arm.Errorf(arm.BadRequest, "codeUri is in the container %s, which is not one that code is uploaded to; ask for one with startPendingUpload", container)
	}
	prefix, err := cleanPath(path)
	return snapshot{Account: w.StorageAccount.ID, Container: container, Prefix: prefix}, err
}

// digests reads all files of a snapshot.
func (s *Service) digests(ctx context.Context, w workspace, snap snapshot) ([]digest, error) {
	var out []digest
	err := s.eachFile(ctx, Access{As: w.self()}, location{account: snap.Account, container: snap.Container, path: snap.Prefix}, maxCodeFiles, maxCodeBytes,
		func(path string, size int64, r io.Reader) error {
			h := sha256.New()
			n, err := io.Copy(h, r)
			if err != nil {
				return err
			}
			out = append(out, digest{path, n, hex.EncodeToString(h.Sum(nil))})
			return nil
		})
	if err == nil && len(out) == 0 {
		err = arm.Errorf(arm.BadRequest, "there are no files at codeUri; upload them first")
	}
	return out, err
}

// eachFile opens every blob at or below a location, one after the other, and
// gives its path relative to the location ("" never: a single blob has its own
// last segment).
func (s *Service) eachFile(ctx context.Context, by Access, l location, files int, size int64, do func(path string, size int64, r io.Reader) error) error {
	prefix := l.path
	if prefix != "" {
		prefix += "/"
	}
	blobs, err := s.Blobs.List(ctx, by, l.account, l.container, prefix, files)
	if err != nil {
		return err
	}
	if len(blobs) == 0 && l.path != "" {
		single, err := s.Blobs.List(ctx, by, l.account, l.container, l.path, files)
		if err != nil {
			return err
		}
		for _, b := range single {
			if b.Name == l.path {
				blobs, prefix = []Blob{b}, l.path[:strings.LastIndexByte(l.path, '/')+1]
			}
		}
	}
	var total int64
	for _, b := range blobs {
		rel := strings.TrimPrefix(b.Name, prefix)
		if rel == "" || strings.HasSuffix(rel, "/") {
			continue // a folder's own marker
		}
		if clean, err := cleanPath(rel); err != nil || clean != rel {
			return arm.Errorf(arm.BadRequest, "the blob %q has a name that can't be a file's", b.Name)
		}
		if total += b.Size; total > size {
			return arm.Errorf(arm.TooLarge, "there are more than %d bytes at %s/%s", size, l.container, l.path)
		}
		if err := s.oneFile(ctx, by, l, b, rel, do); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) oneFile(ctx context.Context, by Access, l location, b Blob, rel string, do func(string, int64, io.Reader) error) error {
	r, err := s.Blobs.Open(ctx, by, l.account, l.container, b.Name)
	if err != nil {
		return err
	}
	defer r.Close()
	return do(rel, b.Size, io.LimitReader(r, b.Size+1))
}

// saveCode keeps what readCode saw.
func (s *Service) saveCode(tx *store.Tx, c resource.Change) error {
	p, err := props[codeProps](c.Doc)
	if err != nil {
		return err
	}
	if c.Old != nil {
		was, err := props[codeProps](c.Old)
		if err != nil {
			return err
		}
		if was.URI != p.URI {
			return arm.Errorf(arm.Conflict, "version %s of this code is at %s; a version can't be changed, make another", c.Doc.Name, was.URI)
		}
		return s.versionAdded(tx, s.kinds.code, c, "")
	}
	snap, ok := c.Seen.(*snapshot)
	if !ok {
		return arm.Errorf(arm.Conflict, "the version was deleted meanwhile; try again")
	}
	if err := setInner(c.Doc, assetInner{Snapshot: snap}); err != nil {
		return err
	}
	return s.versionAdded(tx, s.kinds.code, c, "")
}
