package tracking

import (
	"context"
	"io"
	"time"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// Workspace is what tracking must know of one.
type Workspace struct {
	ID        arm.ID
	UID       string // its GUID (properties.workspaceId); two workspaces never share it
	Account   arm.ID // its storage account
	Container string // the container of the account that artifacts lie in
	Identity  string // object id of the workspace's identity, as which blobs are reached
}

// Workspaces knows the workspaces.
type Workspaces interface {
	// Find is the workspace with the id; ok is false if there is none. It is
	// asked on every request and must only read tx.
	Find(tx *store.Tx, id arm.ID) (w Workspace, ok bool, err error)
}

// Blob is one artifact as the store of blobs lists it.
type Blob struct {
	Name     string // whole, or up to and with the slash that ends a folder
	Folder   bool   // a prefix that more names share
	Size     int64
	Modified time.Time
}

// Content is an open blob.
type Content struct {
	io.ReadCloser
	Size int64 // of the whole blob
	Type string
}

// Blobs reaches the artifacts of workspaces as their own identity: through the
// gate, so what the identity may not do does not happen and is in the audit
// log. What does not exist is arm.NotFound. Names are those of blobs in the
// workspace's artifact container, of which tracking has checked every segment.
type Blobs interface {
	// Put keeps one blob wholly; when it returns the blob is durable, and if it
	// fails what was there before is still there. size is -1 if it isn't known.
	Put(ctx context.Context, w Workspace, name, contentType string, content io.Reader, size int64) error
	// Append adds data to the end of an append blob, which the first call makes.
	Append(ctx context.Context, w Workspace, name string, data []byte) error
	// Open reads a blob from offset on. The reader shows the blob as it was when opened.
	Open(ctx context.Context, w Workspace, name string, offset int64) (Content, error)
	// List is up to limit blobs whose names begin with prefix, in the order of
	// their names, and a mark for the ones after them, "" if there are none. With
	// flat unset, names that go on behind a further slash are shown once, as a
	// Folder.
	List(ctx context.Context, w Workspace, prefix string, flat bool, mark string, limit int) (blobs []Blob, next string, err error)
	// Delete removes one blob.
	Delete(ctx context.Context, w Workspace, name string) error
	// Sign is a URL by which whoever has it may do to this one blob, until then,
	// what permissions says ("r", or "rcw" to make it); not more than the
	// workspace's identity may.
	Sign(ctx context.Context, w Workspace, name, permissions string, until time.Time) (arm.Secret, error)
}
