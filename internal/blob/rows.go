package blob

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// Names lie in the store alone, and so do all rows:
//
//	accounts    name                          the account's keys
//	containers  account uid / name            the container's own id
//	shares      account uid / name            the share's own id
//	blobs       container uid / name          a blob
//	blocks      container uid / name \x01 id  a block that waits to be committed
//	layouts     generation                    pieces of a blob that has many
//	past        container uid / name \x01 stamp  what the blob was
//	refs        generation or piece id        how many more have it
//	due         time / key                    what is removed then
//	lost        account uid / name \x01 stamp  a deleted container that is kept
//	bytes       piece id                      a small piece, sealed
//	files       piece id                      that a file of this name belongs to a piece
//	trash       container uid                 what a deleted container held
const (
	accountTable   = "blob_accounts"
	containerTable = "blob_containers"
	shareTable     = "blob_shares"
	blobTable      = "blob_blobs"
	blockTable     = "blob_blocks"
	layoutTable    = "blob_layouts"
	byteTable      = "blob_bytes"
	fileTable      = "blob_files"
	trashTable     = "blob_trash"
	pastTable      = "blob_past"
	refTable       = "blob_refs"
	dueTable       = "blob_due"
	lostTable      = "blob_lost"
)

// containerRow is what is known of a container beside its resource.
type containerRow struct {
	UID      string   `json:"uid"`
	Policies []policy `json:"policies,omitempty"`
	Guard    *guard   `json:"guard,omitempty"`
	Root     *access  `json:"root,omitempty"` // of the tree's root, where names are paths
	Used     int64    `json:"used,omitempty"` // bytes that a share's files have
}

// The types of blobs.
const (
	blockBlob  = "BlockBlob"
	appendBlob = "AppendBlob"
	pageBlob   = "PageBlob"
)

// Headers are what a blob is served with.
type Headers struct {
	ContentType string `json:"type,omitempty"`
	Encoding    string `json:"encoding,omitempty"`
	Language    string `json:"language,omitempty"`
	Disposition string `json:"disposition,omitempty"`
	Cache       string `json:"cache,omitempty"`
	MD5         []byte `json:"md5,omitempty"`
}

// row is one blob. It is replaced, never changed.
type row struct {
	Gen      string            `json:"gen"` // another for every change of content
	Type     string            `json:"kind"`
	Size     int64             `json:"size"`
	ETag     string            `json:"etag"`
	Created  time.Time         `json:"created"`
	Modified time.Time         `json:"modified"`
	Head     Headers           `json:"head"`
	Meta     map[string]string `json:"meta,omitempty"`
	Pieces   []piece           `json:"pieces,omitempty"`
	Apart    bool              `json:"apart,omitempty"`   // the pieces lie in a layout
	Appends  int               `json:"appends,omitempty"` // blocks added to an append blob
	Sealed   bool              `json:"sealed,omitempty"`  // of an append blob
	Sequence int64             `json:"seq,omitempty"`     // of a page blob
	Base     string            `json:"base,omitempty"`    // of a page blob, another for each that is made
	Copy     *copied           `json:"copy,omitempty"`
	Tags     map[string]string `json:"tags,omitempty"`
	Tier     string            `json:"tier,omitempty"`  // "" is the account's
	Tiered   time.Time         `json:"tiered,omitzero"` // when the tier was set
	Lease    *lease            `json:"lease,omitempty"`
	Version  string            `json:"version,omitempty"` // the stamp of this version
	Past     string            `json:"past,omitempty"`    // what it is in the past; "" in the present
	Deleted  time.Time         `json:"deleted,omitzero"`
	Until    time.Time         `json:"until,omitzero"` // when it is removed for good
	With     string            `json:"with,omitempty"` // the deletion of a directory that took it along
	Dir      bool              `json:"dir,omitempty"`
	Access   *access           `json:"access,omitempty"` // where names are paths
	Name     string            `json:"name,omitempty"`   // of a share's path, as it was first written; keys have it folded
	SMB      *smb              `json:"smb,omitempty"`    // of a share's path

	waits    bool // there are only blocks that wait to be committed
	onlyPast bool // there are only versions
}

// piece is some bytes of a blob. It belongs to one blob or to one waiting block.
type piece struct {
	ID    string `json:"i"`
	Size  int64  `json:"s"`
	Block string `json:"b,omitempty"` // the block's id, in base64
	Small bool   `json:"m,omitempty"` // the bytes lie in the store

	// Of a page blob: at At it has Len bytes of the piece, from From on.
	At   int64 `json:"a,omitempty"`
	From int64 `json:"f,omitempty"`
	Len  int64 `json:"l,omitempty"`
}

// waiting is a block that waits to be committed.
type waiting struct {
	Piece piece     `json:"piece"`
	Since time.Time `json:"since"`
}

// fewPieces is how many pieces lie in a blob's own row.
const fewPieces = 4

func blobKey(c containerRow, name string) string { return c.UID + "/" + name }

// blockPrefix is what the keys of a blob's waiting blocks begin with. No blob
// name has a control character.
func blockPrefix(c containerRow, name string) string { return blobKey(c, name) + "\x01" }

// findContainer is the container, or the error that says that there is none.
func findContainer(tx *store.Tx, p place) (containerRow, error) {
	c, ok, err := store.GetJSON[containerRow](tx, p.containers(), p.UID+"/"+p.container)
	if err == nil && !ok {
		err = noContainer(p.container)
	}
	return c, err
}

// findBlob is the blob, or nil.
func findBlob(tx *store.Tx, c containerRow, name string) (*row, error) {
	b, ok, err := store.GetJSON[row](tx, blobTable, blobKey(c, name))
	if err != nil || !ok {
		return nil, err
	}
	return &b, nil
}

// pieces are all pieces of b, which may be nil.
func pieces(tx *store.Tx, b *row) ([]piece, error) {
	if b == nil || !b.Apart {
		if b == nil {
			return nil, nil
		}
		return b.Pieces, nil
	}
	ps, ok, err := store.GetJSON[[]piece](tx, layoutTable, b.Gen)
	if err == nil && !ok {
		err = fmt.Errorf("blob: the layout %s is missing", b.Gen)
	}
	return ps, err
}

// keep writes b with its pieces.
func keep(tx *store.Tx, c containerRow, name string, b *row, ps []piece) error {
	b.Pieces, b.Apart = ps, len(ps) > fewPieces
	if b.Apart {
		b.Pieces = nil
		if err := store.PutJSON(tx, layoutTable, b.Gen, ps); err != nil {
			return err
		}
	}
	return store.PutJSON(tx, blobTable, blobKey(c, name), b)
}

// dropLayout forgets the layout of b, which may be nil.
func dropLayout(tx *store.Tx, b *row) error {
	if b == nil || !b.Apart {
		return nil
	}
	return tx.Delete(layoutTable, b.Gen)
}

// waitingBlocks are the blocks of a blob that wait to be committed.
func waitingBlocks(tx *store.Tx, c containerRow, name string) ([]waiting, error) {
	return store.ScanJSON[waiting](tx, blockTable, blockPrefix(c, name), "", 0)
}

// dropBlocks forgets the waiting blocks of a blob, but not their bytes, and
// says which they were.
func dropBlocks(tx *store.Tx, c containerRow, name string) ([]piece, error) {
	ws, err := waitingBlocks(tx, c, name)
	if err != nil {
		return nil, err
	}
	var out []piece
	for _, w := range ws {
		if err := tx.Delete(blockTable, blockPrefix(c, name)+w.Piece.Block); err != nil {
			return nil, err
		}
		out = append(out, w.Piece)
	}
	return out, nil
}

// release gives back pieces: nobody knows where the bytes of those lie that no
// other content has. These are returned, so that their files are removed once that
// is committed.
func release(tx *store.Tx, ps []piece) (gone []piece, err error) {
	for _, p := range ps {
		last, err := unshare(tx, p.ID)
		if err != nil {
			return nil, err
		}
		if !last {
			continue
		}
		gone = append(gone, p)
		t := fileTable
		if p.Small {
			t = byteTable
		}
		if err := tx.Delete(t, p.ID); err != nil {
			return nil, err
		}
	}
	return gone, nil
}

// Limits of names, as Azure's.
const (
	maxName     = 1024 // characters of a blob's name
	maxSegments = 254  // parts of it between slashes
)

// checkBlobName says whether a blob can have the name. Names are opaque: no
// part of one means anything. Refused is what a list in XML could not show, and
// what a client's URL code could take for another name.
func checkBlobName(name string) error {
	bad := func(why string) error {
		return fail(400, arm.InvalidResourceName, "The blob name %q is invalid: %s.", name, why)
	}
	switch {
	case name == "":
		return bad("it is empty")
	case !utf8.ValidString(name):
		return bad("it is not UTF-8")
	case utf8.RuneCountInString(name) > maxName:
		return bad("it has more than 1,024 characters")
	case strings.Count(name, "/") >= maxSegments:
		return bad("it has more than 254 segments")
	}
	for _, r := range name {
		if unicode.IsControl(r) || r&0xfffe == 0xfffe || r >= 0xfdd0 && r <= 0xfdef {
			return bad("it has a control character or a noncharacter")
		}
	}
	for _, seg := range strings.Split(name, "/") {
		if seg == "." || seg == ".." {
			return bad("it has the segment " + seg)
		}
	}
	return nil
}

// idSize is the size of the ids that arm.NewHex makes, in bytes.
const idSize = 16

// newETag has the form of Azure's, with quotes.
func newETag() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return `"0x` + strings.ToUpper(hex.EncodeToString(b[:])) + `"`
}
