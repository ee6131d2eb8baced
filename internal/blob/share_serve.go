package blob

import (
	"encoding/xml"
	"math"
	"net/http"
	"strconv"
	"strings"
)

// createShare is Create Share.
func (s *Service) createShare(x exchange) error {
	p, err := s.target(x.g, ShareWrite)
	if err != nil {
		return err
	}
	var props ShareProperties
	if err := x.quota(&props); err != nil {
		return err
	}
	if props.Meta, err = metaOf(x.r.Header); err != nil {
		return err
	}
	if props, err = props.whole(); err != nil {
		return err
	}
	info, err := s.createIn(x.r.Context(), x.g, p, props.Meta, props)
	return x.containerAnswer(http.StatusCreated, info, err)
}

// getShare is Get Share Properties and Get Share Metadata.
func (s *Service) getShare(x exchange) error {
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	info, err := s.showContainer(x.r.Context(), x.g, Conditions{Lease: when.Lease})
	if err != nil {
		return err
	}
	h := x.w.Header()
	x.showLease(info.lease)
	h.Set("x-ms-share-quota", strconv.Itoa(info.share.Quota))
	h.Set("x-ms-access-tier", info.share.Tier)
	h.Set("x-ms-enabled-protocols", info.share.Protocols)
	setMeta(h, info.Meta)
	return x.containerAnswer(http.StatusOK, info, nil)
}

// getShareStats is Get Share Stats.
func (s *Service) getShareStats(x exchange) error {
	n, err := s.used(x.r.Context(), x.g)
	if err != nil {
		return err
	}
	writeXML(x.w, http.StatusOK, struct {
		XMLName xml.Name `xml:"ShareStats"`
		Bytes   int64    `xml:"ShareUsageBytes"`
	}{Bytes: n})
	return nil
}

// setShare is Set Share Properties.
func (s *Service) setShare(x exchange) error {
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	var said ShareProperties
	if err := x.quota(&said); err != nil {
		return err
	}
	info, err := s.changeProps(x.r.Context(), x.g, when, func(props map[string]any) {
		if said.Quota > 0 {
			props["shareQuota"] = said.Quota
		}
		if said.Tier != "" {
			props["accessTier"] = said.Tier
		}
	})
	return x.containerAnswer(http.StatusOK, info, err)
}

// sharedPath is the share of a request, and the path in it as it is written.
func sharedPath(r *http.Request) (share, path string) {
	share, path, _ = strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	return share, strings.Trim(path, "/")
}

// getDirectory is Get Directory Properties, also of the root.
func (s *Service) getDirectory(x exchange) error {
	if x.g.Item() != "" {
		return s.headBlob(x)
	}
	p, err := s.target(x.g, FileRead)
	if err != nil {
		return err
	}
	info, err := s.shareRoot(x.r.Context(), p)
	if err == nil {
		x.showSMB(nil)
		x.w.Header().Set("x-ms-server-encrypted", "true")
	}
	return x.containerAnswer(http.StatusOK, info, err)
}

// createDirectory is Create Directory.
func (s *Service) createDirectory(x exchange) error {
	meta, err := metaOf(x.r.Header)
	if err != nil {
		return err
	}
	n, err := x.newborn()
	if err != nil {
		return err
	}
	info, err := s.makeDirectory(x.r.Context(), x.g, n, meta)
	return x.shared(http.StatusCreated, info, err)
}

// setDirectory is Set Directory Properties.
func (s *Service) setDirectory(x exchange) error {
	change, err := x.smb()
	if err != nil {
		return err
	}
	now := s.Now().UTC()
	var bad error
	info, err := s.revise(x.r.Context(), x.g, Conditions{}, false, func(b *row) {
		b.SMB, bad = b.SMB.changed(change, now)
	})
	return x.shared(http.StatusOK, info, orElse(err, bad))
}

// setFile is Set File Properties, which can change a file's size.
func (s *Service) setFile(x exchange) error {
	d, err := x.draft(false)
	if err != nil {
		return err
	}
	z := resized{when: d.when}
	if !d.head.none() { // else they stay
		z.head = &d.head
	}
	if z.size, err = x.fileSize(); err != nil {
		return err
	}
	if z.smb, err = x.smb(); err != nil {
		return err
	}
	info, err := s.resize(x.r.Context(), x.g, z)
	return x.shared(http.StatusOK, info, err)
}

// createFile is Create File and Copy File.
func (s *Service) createFile(x exchange) error {
	d, err := x.draft(false)
	if err != nil {
		return err
	}
	if d.file, err = x.newborn(); err != nil {
		return err
	}
	if err := x.noBody(); err != nil {
		return err
	}
	if x.r.Header.Get("x-ms-copy-source") != "" {
		return s.copyFile(x, d)
	}
	if err := x.noSource(); err != nil {
		return err
	}
	if v := x.r.Header.Get("x-ms-type"); !strings.EqualFold(v, "file") {
		return badHeader("x-ms-type", v, "file")
	}
	n, err := x.fileSize()
	if err != nil {
		return err
	}
	if n == nil {
		return fail(http.StatusBadRequest, "MissingRequiredHeader", "The header x-ms-content-length is missing; it must be the size of the file.")
	}
	d.typ, d.size, d.content = fileType, *n, content{body: http.NoBody}
	info, err := s.put(x.r.Context(), x.g, d)
	return x.shared(http.StatusCreated, info, err)
}

// copyFile is Copy File. It is done when it is answered.
func (s *Service) copyFile(x exchange, d draft) error {
	src, err := s.source(x, whole)
	if err != nil {
		return err
	}
	defer src.body.Close()
	made := x.copyDraft(d, src.info, src.body, src.url)
	made.typ, made.file, made.tags, made.tier = fileType, d.file, nil, ""
	info, err := s.put(x.r.Context(), x.g, made)
	if err == nil {
		x.w.Header().Set("x-ms-copy-id", info.Copy.ID)
		x.w.Header().Set("x-ms-copy-status", "success")
	}
	return x.shared(http.StatusAccepted, info, err)
}

// putRange is Put Range and Put Range From URL.
func (s *Service) putRange(x exchange) error {
	w := paged{}
	var err error
	if w.at, err = x.bytesAsked(); err != nil {
		return err
	}
	if w.when, err = conditions(x.r.Header, ""); err != nil {
		return err
	}
	switch v := strings.ToLower(x.r.Header.Get("x-ms-file-last-write-time")); v {
	case "", "now":
	case "preserve":
		w.keeps = true
	default:
		return badHeader("x-ms-file-last-write-time", v, "now or preserve")
	}
	done, err := x.overwrite(&w, "x-ms-write")
	if err != nil {
		return err
	}
	defer done()
	info, sum, err := s.writePages(x.r.Context(), x.g, w)
	x.sums(w, sum, err)
	return x.shared(http.StatusCreated, info, err)
}

// getRanges is List Ranges.
func (s *Service) getRanges(x exchange) error {
	_, when, err := x.terms()
	if err != nil {
		return err
	}
	in := stretch{0, math.MaxInt64}
	if text(x.r.Header.Get("x-ms-range"), x.r.Header.Get("Range")) != "" {
		if in, err = x.bytesAsked(); err != nil {
			return err
		}
	}
	list, info, err := s.pages(x.r.Context(), x.g, moment{}, when, "", in)
	if err != nil {
		return err
	}
	type item struct{ Start, End int64 }
	out := struct {
		XMLName xml.Name `xml:"Ranges"`
		Items   []item   `xml:"Range"`
	}{}
	for _, r := range list {
		if n := len(out.Items); n > 0 && out.Items[n-1].End+1 == r.from { // two writes side by side
			out.Items[n-1].End = r.to - 1
			continue
		}
		out.Items = append(out.Items, item{r.from, r.to - 1})
	}
	h := x.w.Header()
	h.Set("ETag", info.ETag)
	h.Set("Last-Modified", httpTime(info.Modified))
	h.Set("x-ms-content-length", strconv.FormatInt(info.Size, 10))
	writeXML(x.w, http.StatusOK, out)
	return nil
}

// deleteShared is Delete File and Delete Directory.
func (s *Service) deleteShared(x exchange) error { return x.deleteBy(s.removePath) }

// renameShared is Rename File and Rename Directory.
func (s *Service) renameShared(x exchange) error {
	var m moving
	var err error
	if m.newborn, err = x.newborn(); err != nil {
		return err
	}
	if m.meta, err = metaOf(x.r.Header); err != nil {
		return err
	}
	if m.when, err = conditions(x.r.Header, "x-ms-destination-"); err != nil {
		return err
	}
	if m.fromWhen, err = conditions(x.r.Header, "x-ms-source-"); err != nil {
		return err
	}
	switch v := strings.ToLower(x.r.Header.Get("x-ms-file-rename-replace-if-exists")); v {
	case "", "false":
	case "true":
		m.replaces = true
	default:
		return badHeader("x-ms-file-rename-replace-if-exists", v, "true or false")
	}
	if err := x.noBody(); err != nil {
		return err
	}
	src, err := s.moveSource(x, &m)
	if err != nil {
		return err
	}
	ctx := x.r.Context()
	info, err := s.movePath(ctx, x.g, src, m)
	if err = src.Close(ctx, err); err != nil {
		return err
	}
	return x.shared(http.StatusOK, info, nil)
}
