package blob

import (
	"maps"
	"time"
)

// Info is what one sees of a blob without its bytes.
type Info struct {
	Name     string
	Prefix   bool // in a list: not a blob, but what the names of several begin with
	Type     string
	Size     int64
	ETag     string // with its quotes
	Created  time.Time
	Modified time.Time
	Headers
	Meta    map[string]string
	Appends int // blocks of an append blob
	Copy    *copied
	Version string // the stamp of the version, where accounts have versions
	// In lists, what the blob is of its past: a snapshot with its stamp, deleted
	// until when it is removed; or that only blocks wait for it.
	snapshot       string
	past           string
	deleted, until time.Time
	waits          bool
	lease          *lease
	tags           map[string]string
	tier           string
	tiered         time.Time
	sequence       int64
	sealed         bool
	onlyPast       bool    // of a list: there are versions, and no blob
	dir            bool    // a directory, where names are paths
	smb            *smb    // of a path in a share
	access         *access // of a path
}

// copied is where a blob was copied from.
type copied struct {
	ID     string    `json:"id"`
	Source string    `json:"source"` // without a signature
	Size   int64     `json:"size"`
	Ended  time.Time `json:"ended"`
}

// folderMark is the metadata that marks directories, for clients that know blobs alone.
const folderMark = "hdi_isfolder"

func (b *row) info(name string) Info {
	meta := maps.Clone(b.Meta)
	if b.Dir && b.SMB == nil {
		if meta == nil {
			meta = map[string]string{}
		}
		meta[folderMark] = "true"
	}
	return Info{
		Name: name, Type: b.Type, Size: b.Size, ETag: b.ETag, Created: b.Created, Modified: b.Modified,
		Headers: b.Head, Meta: meta, Appends: b.Appends, Copy: b.Copy, lease: b.Lease, Version: b.Version,
		past: b.Past, waits: b.waits,
		sequence: b.Sequence, sealed: b.Sealed, onlyPast: b.onlyPast, tags: b.Tags, tier: b.Tier, tiered: b.Tiered, deleted: b.Deleted, until: b.Until, dir: b.Dir, access: b.Access, smb: b.SMB,
	}
}
