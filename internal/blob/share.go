package blob

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// A share is a container, and a file in it a blob with pages of one byte: it is what is
// kept under a path whose directories are there. Paths differ by more than case.

// ShareProperties are those of a file share that a client may set.
type ShareProperties struct {
	Meta      map[string]string `json:"metadata,omitempty"`
	Quota     int               `json:"shareQuota,omitempty"` // GiB
	Tier      string            `json:"accessTier,omitempty" arm:"only=TransactionOptimized|Hot|Cool,since=2019-06-01"`
	Protocols string            `json:"enabledProtocols,omitempty" arm:"only=SMB,since=2019-06-01"`
	Squash    any               `json:"rootSquash,omitempty" arm:"readonly,since=2019-06-01"`
	Modified  any               `json:"lastModifiedTime,omitempty" arm:"readonly"`
	Lease     any               `json:"leaseStatus,omitempty" arm:"readonly,since=2021-04-01"`
	LeaseAt   any               `json:"leaseState,omitempty" arm:"readonly,since=2021-04-01"`
	LeaseFor  any               `json:"leaseDuration,omitempty" arm:"readonly,since=2021-04-01"`
	TierAt    any               `json:"accessTierChangeTime,omitempty" arm:"readonly,since=2019-06-01"`
	Usage     any               `json:"shareUsageBytes,omitempty" arm:"readonly,since=2019-06-01"`
	Deleted   any               `json:"deleted,omitempty" arm:"readonly,since=2019-06-01"`
	Days      any               `json:"remainingRetentionDays,omitempty" arm:"readonly,since=2019-06-01"`
	Version   any               `json:"version,omitempty" arm:"readonly,since=2019-06-01"`
	Snapshot  any               `json:"snapshotTime,omitempty" arm:"readonly,since=2020-08-01-preview"`
}

// Limits of shares and files, as Azure's.
const (
	usualQuota = 5120   // GiB, of a share that says none
	maxQuota   = 102400 // GiB
	maxFile    = 4 << 40
	usualTier  = "TransactionOptimized"
)

// shareTiers are the tiers of shares, which are told and change nothing.
var shareTiers = map[string]string{"transactionoptimized": usualTier, "hot": "Hot", "cool": "Cool"}

// whole fills in what was left unsaid.
func (p ShareProperties) whole() (ShareProperties, error) {
	if p.Quota == 0 {
		p.Quota = usualQuota
	}
	if p.Quota < 0 || p.Quota > maxQuota {
		return p, arm.Errorf(arm.BadRequest, "shareQuota is %d; it must be from 1 to %d GiB", p.Quota, maxQuota)
	}
	if p.Tier == "" {
		p.Tier = usualTier
	}
	p.Protocols = "SMB"
	return p, checkMeta(p.Meta)
}

func sharePropsOf(d *resource.Doc) (p ShareProperties, err error) {
	if err = json.Unmarshal(d.Properties, &p); err == nil {
		p, err = p.whole()
	}
	return p, err
}

// shares is the kind of file shares.
func (s *Service) shares(parent *resource.Kind) *resource.Kind {
	return &resource.Kind{
		Type: "Microsoft.Storage/storageAccounts/fileServices/shares", SystemData: "2025-08-01", Etag: true, Doc: "a file share", Parent: parent, Global: true,
		Props: func() any { return &ShareProperties{} },
		Check: func(c resource.Change) error {
			if c.Old == nil {
				if err := CheckContainerName(c.Doc.Name); err != nil {
					return err
				}
			}
			p, err := sharePropsOf(c.Doc)
			if err != nil {
				return err
			}
			c.Doc.Properties, err = json.Marshal(p)
			return err
		},
		Save:   s.saveContainer,
		Remove: s.removeContainer,
		Show: func(d *resource.Doc, props map[string]any) {
			s.showInner(d, props)
			delete(props, "hasLegalHold")
			delete(props, "hasImmutabilityPolicy")
			if d.System != nil {
				props["lastModifiedTime"] = d.System.ModifiedAt
			}
		},
	}
}

// fileType is the type of the rows of files, and of directories, in shares.
const fileType = "File"

// The kinds of what a path of a share can be.
const (
	fileKind = "file"
	dirKind  = "directory"
)

// sparse reports whether b's bytes lie where its pieces say.
func (b *row) sparse() bool { return b.Type == pageBlob || b.Type == fileType && !b.Dir }

// fits says whether b is of the kind that the place is to be.
func (p place) fits(b *row) error {
	if p.kind != "" && b.Dir != (p.kind == dirKind) {
		return noBlob()
	}
	return nil
}

// fold is a name in the one spelling that the names have which a share takes for the same.
func fold(name string) string {
	if !utf8.ValidString(name) {
		return name // which is none that a path can have
	}
	return strings.Map(func(r rune) rune { return unicode.ToLower(unicode.ToUpper(r)) }, name)
}

// Limits of paths in shares, as Azure's.
const (
	maxFileName  = 255 // characters
	maxFileDepth = 250
)

// devices are what Windows takes for devices, with whatever behind a dot.
var devices = strings.Fields("con prn aux nul clock$ com1 com2 com3 com4 com5 com6 com7 com8 com9 lpt1 lpt2 lpt3 lpt4 lpt5 lpt6 lpt7 lpt8 lpt9")

// checkFilePath says whether a share can have the path, folded. What clients of another
// system could take for another path is none.
func checkFilePath(path string) error {
	bad := func(seg, why string) error {
		return fail(http.StatusBadRequest, arm.InvalidResourceName, "The path has the name %q, which is invalid: %s.", seg, why)
	}
	if err := checkBlobName(path); err != nil {
		return err
	}
	segs := strings.Split(path, "/")
	if len(segs) > maxFileDepth {
		return fail(http.StatusBadRequest, arm.InvalidResourceName, "The path has %d names; at most %d are allowed.", len(segs), maxFileDepth)
	}
	for _, seg := range segs {
		stem, _, _ := strings.Cut(seg, ".")
		switch {
		case seg == "":
			return bad(seg, "it is empty")
		case len([]rune(seg)) > maxFileName:
			return bad(seg, "it has more than 255 characters")
		case strings.ContainsAny(seg, `"\:|<>*?`):
			return bad(seg, `it has one of the characters "\:|<>*?`)
		case strings.HasSuffix(seg, ".") || strings.HasSuffix(seg, " "):
			return bad(seg, "it ends with a dot or a space, which some clients take away")
		}
		for _, d := range devices {
			if stem == d {
				return bad(seg, "it is that of a device")
			}
		}
	}
	return nil
}

// smb is what clients that know files by SMB see of one.
type smb struct {
	ID      int64     `json:"id"`
	Parent  int64     `json:"parent,omitempty"` // 0 is the root
	Attr    string    `json:"attr,omitempty"`
	Created time.Time `json:"created"`
	Written time.Time `json:"written"`
	Changed time.Time `json:"changed"`
}

// written is a after a write.
func (a *smb) written(now time.Time) *smb {
	if a == nil {
		return nil
	}
	b := *a
	b.Written, b.Changed = now, now
	return &b
}

// changed is a as fn makes it.
func (a *smb) changed(fn func(smb) (smb, error), now time.Time) (*smb, error) {
	var b smb
	if a != nil {
		b = *a
	}
	b.Changed = now
	b, err := fn(b)
	return &b, err
}

func readOnly() error {
	return fail(http.StatusConflict, "ReadOnlyAttribute", "The specified resource is read-only and cannot be modified at this time.")
}

func (a *smb) readOnly() bool { return a != nil && strings.Contains(a.Attr, "ReadOnly") }

// charge counts next in the place of old, which both may be nil, to what a share's files
// have, and says whether that is too much. What is read-only stays as it is until it
// is no more.
func (p place) charge(tx *store.Tx, c containerRow, old, next *row) error {
	if !p.files {
		return nil
	}
	var more int64
	if old != nil {
		if old.SMB.readOnly() && (next == nil || next.SMB.readOnly()) {
			return readOnly()
		}
		more -= old.Size
	}
	if next != nil {
		if next.Size > maxFile {
			return fail(http.StatusBadRequest, "OutOfRangeInput", "The file would have %d bytes; at most %d are allowed.", next.Size, int64(maxFile))
		}
		more += next.Size
	}
	if more == 0 {
		return nil
	}
	c.Used += more
	if more > 0 {
		d, err := resource.Load(tx, p.containerID(p.container))
		if err != nil || d == nil {
			return orElse(err, noContainer(p.container))
		}
		props, err := sharePropsOf(d)
		if err != nil {
			return err
		}
		if c.Used > int64(props.Quota)<<30 {
			return fail(http.StatusRequestEntityTooLarge, "ShareSizeLimitReached", "The specified share size limit has been reached: its files would have %d bytes, its quota is %d GiB.", c.Used, props.Quota)
		}
	}
	return p.putContainer(tx, c)
}
