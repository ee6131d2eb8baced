package blob

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	permissionKey = "x-ms-file-permission-key"
	// onePermission is the key of the permission that all paths have: what their share's.
	onePermission = "1*1"
	// smbTime is the form of times by SMB.
	smbTime = "2006-01-02T15:04:05.0000000Z"
)

// attributeNames are what x-ms-file-attributes may have, with bars between them.
var attributeNames = []string{"ReadOnly", "Hidden", "System", "Directory", "Archive", "Temporary", "Offline", "NotContentIndexed", "NoScrubData"}

// attributesOf reads them; those of a directory have Directory, and those of a file not.
func attributesOf(v string, dir bool) (string, error) {
	const header = "x-ms-file-attributes"
	var has []string
	for word := range strings.SplitSeq(v, "|") {
		word = strings.TrimSpace(word)
		i := slices.IndexFunc(attributeNames, func(n string) bool { return strings.EqualFold(n, word) })
		switch {
		case strings.EqualFold(word, "None") && !strings.Contains(v, "|"):
		case i < 0 || attributeNames[i] == "Directory" && !dir:
			return "", badHeader(header, v, "None, or with bars between them some of "+strings.Join(attributeNames, ", ")+", a file not Directory")
		default:
			has = append(has, attributeNames[i])
		}
	}
	var out []string
	for _, n := range attributeNames {
		if slices.Contains(has, n) || dir && n == "Directory" {
			out = append(out, n)
		}
	}
	if len(out) == 0 {
		return "Archive", nil
	}
	return strings.Join(out, " | "), nil
}

// newborn is what a request says of the path that it makes, or moves.
func (x exchange) newborn() (n newborn, err error) {
	if n.name, err = x.nameIn(); err != nil {
		return n, err
	}
	n.smb, err = x.smb()
	return n, err
}

// smb is what a request says of what is known by SMB: what it does not name stays as it is.
func (x exchange) smb() (func(smb) (smb, error), error) {
	dir := x.g.Op() == dirKind
	now := x.s.Now().UTC()
	var said [3]time.Time
	for i, name := range []string{"x-ms-file-creation-time", "x-ms-file-last-write-time", "x-ms-file-change-time"} {
		switch v := x.r.Header.Get(name); strings.ToLower(v) {
		case "", "preserve":
		case "now":
			said[i] = now
		default:
			var err error
			if said[i], err = time.Parse(time.RFC3339Nano, v); err != nil {
				return nil, badHeader(name, v, "now, preserve or a time such as "+smbTime)
			}
		}
	}
	var err error
	attr := x.r.Header.Get("x-ms-file-attributes")
	if keep := strings.EqualFold(attr, "preserve"); attr != "" && !keep {
		if attr, err = attributesOf(attr, dir); err != nil {
			return nil, err
		}
	} else {
		attr = ""
	}
	return func(a smb) (smb, error) {
		for i, to := range []*time.Time{&a.Created, &a.Written, &a.Changed} {
			if !said[i].IsZero() {
				*to = said[i].UTC()
			}
		}
		if attr != "" {
			a.Attr = attr
		}
		return usualSMB(dir)(a)
	}, nil
}

// showSMB writes what is known by SMB as headers; nil is the root.
func (x exchange) showSMB(a *smb) {
	if a == nil {
		a = &smb{Attr: "Directory"}
	}
	h := x.w.Header()
	h.Set("x-ms-file-attributes", a.Attr)
	h.Set("x-ms-file-id", strconv.FormatInt(a.ID, 10))
	h.Set("x-ms-file-parent-id", strconv.FormatInt(a.Parent, 10))
	h.Set(permissionKey, onePermission)
	for n, t := range map[string]time.Time{"creation": a.Created, "last-write": a.Written, "change": a.Changed} {
		if !t.IsZero() {
			h.Set("x-ms-file-"+n+"-time", t.UTC().Format(smbTime))
		}
	}
}

// shared answers for a change of a path.
func (x exchange) shared(status int, info Info, err error) error {
	if err == nil {
		x.showSMB(info.smb)
	}
	return x.written(status, info, err)
}

// shown writes what is known of a file, or of a directory, as headers.
func (x exchange) shown(b Info) {
	h := x.w.Header()
	if !b.dir {
		x.served(b)
		h.Set("x-ms-type", "File")
	} else {
		h.Set("ETag", b.ETag)
		h.Set("Last-Modified", httpTime(b.Modified))
		setMeta(h, b.Meta)
	}
	x.showSMB(b.smb)
	h.Set("x-ms-server-encrypted", "true")
}

// fileSize is the size that a request says for a file; nil is none.
func (x exchange) fileSize() (*int64, error) {
	const name = "x-ms-content-length"
	n, err := x.number(name)
	if err == nil && n != nil && *n > maxFile {
		err = badHeader(name, x.r.Header.Get(name), "at most 4 TiB")
	}
	return n, err
}

// quota reads the quota and the tier that a request says for a share.
func (x exchange) quota(p *ShareProperties) error {
	n, err := x.number("x-ms-share-quota")
	if err != nil {
		return err
	}
	if n != nil {
		if *n < 1 || *n > maxQuota {
			return badHeader("x-ms-share-quota", x.r.Header.Get("x-ms-share-quota"), "from 1 to "+strconv.Itoa(maxQuota)+" GiB")
		}
		p.Quota = int(*n)
	}
	if v := x.r.Header.Get("x-ms-access-tier"); v != "" {
		if p.Tier = shareTiers[strings.ToLower(v)]; p.Tier == "" {
			return badHeader("x-ms-access-tier", v, "TransactionOptimized, Hot or Cool")
		}
	}
	if v := x.r.Header.Get("x-ms-enabled-protocols"); v != "" && !strings.EqualFold(v, "SMB") {
		return badHeader("x-ms-enabled-protocols", v, "SMB")
	}
	return nil
}
