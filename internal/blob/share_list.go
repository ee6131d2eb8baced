package blob

import (
	"encoding/xml"
	"net/http"
	"strconv"
	"time"
)

type shareXML struct {
	XMLName    xml.Name `xml:"Share"`
	Name       string
	Properties struct {
		Modified  string `xml:"Last-Modified"`
		Etag      string
		Quota     int
		Tier      string `xml:"AccessTier"`
		Status    string `xml:"LeaseStatus"`
		State     string `xml:"LeaseState"`
		Duration  string `xml:"LeaseDuration,omitempty"`
		Protocols string `xml:"EnabledProtocols"`
	}
	Metadata metaXML `xml:",omitempty"`
}

// listShares is List Shares.
func (s *Service) listShares(x exchange) error {
	limit, err := x.q.count("maxresults", maxPage)
	if err != nil {
		return err
	}
	show, err := x.q.include("metadata", "snapshots", "deleted") // there are none of the latter
	if err != nil {
		return err
	}
	if show["metadata"] {
		if err := s.readable(x); err != nil {
			return err
		}
	}
	after, err := readMarker(x.q["marker"])
	if err != nil {
		return err
	}
	list, next, err := s.Containers(x.r.Context(), x.g, x.q["prefix"], after, limit)
	if err != nil {
		return err
	}
	out := struct {
		XMLName    xml.Name   `xml:"EnumerationResults"`
		Endpoint   string     `xml:"ServiceEndpoint,attr"`
		Prefix     string     `xml:"Prefix,omitempty"`
		Marker     string     `xml:"Marker,omitempty"`
		MaxResults int        `xml:"MaxResults,omitempty"`
		Shares     []shareXML `xml:"Shares>Share"`
		Next       string     `xml:"NextMarker"`
	}{Endpoint: s.Site.FileURL(s.accountOf(x.r.Host)), Prefix: x.q["prefix"], Marker: x.q["marker"]}
	if _, ok := x.q["maxresults"]; ok {
		out.MaxResults = limit
	}
	if next != "" {
		out.Next = newMarker(next)
	}
	for _, c := range list {
		i := shareXML{Name: c.Name}
		p := &i.Properties
		p.Modified, p.Etag, p.Status, p.State, p.Quota, p.Tier, p.Protocols = httpTime(c.Modified), c.ETag, c.lease.status(s.Now()), c.lease.state(s.Now()), c.share.Quota, c.share.Tier, c.share.Protocols
		if p.State == leased {
			p.Duration = c.lease.duration()
		}
		if show["metadata"] && len(c.Meta) > 0 {
			i.Metadata = c.Meta
		}
		out.Shares = append(out.Shares, i)
	}
	writeXML(x.w, http.StatusOK, out)
	return nil
}

// getFileServiceProperties is Get File Service Properties. Metrics are off.
func (s *Service) getFileServiceProperties(x exchange) error {
	props, err := s.serviceProperties(x.r.Context(), x.g)
	if err != nil {
		return err
	}
	writeXML(x.w, http.StatusOK, struct {
		XMLName       xml.Name `xml:"StorageServiceProperties"`
		HourMetrics   metricsXML
		MinuteMetrics metricsXML
		Cors          corsListXML
	}{HourMetrics: metricsXML{Version: "1.0"}, MinuteMetrics: metricsXML{Version: "1.0"}, Cors: showCORS(props.CORS)})
	return nil
}

// entryXML is a file or a directory in a list.
type entryXML struct {
	XMLName    xml.Name
	ID         string `xml:"FileId,omitempty"`
	Name       string
	Properties struct {
		Size     *int64 `xml:"Content-Length"`
		Created  string `xml:"CreationTime,omitempty"`
		Accessed string `xml:"LastAccessTime,omitempty"`
		Written  string `xml:"LastWriteTime,omitempty"`
		Changed  string `xml:"ChangeTime,omitempty"`
		Modified string `xml:"Last-Modified,omitempty"`
		Etag     string `xml:",omitempty"`
	}
	Attributes string `xml:",omitempty"`
	Permission string `xml:"PermissionKey,omitempty"`
}

// listDirectory is List Directories and Files.
func (s *Service) listDirectory(x exchange) error {
	limit, err := x.q.count("maxresults", maxPage)
	if err != nil {
		return err
	}
	show, err := x.q.include("timestamps", "etag", "attributes", "permissionkey")
	if err != nil {
		return err
	}
	after, err := readMarker(x.q["marker"])
	if err != nil {
		return err
	}
	list, of, next, err := s.children(x.r.Context(), x.g, x.q["prefix"], after, limit)
	if err != nil {
		return err
	}
	share, path := sharedPath(x.r)
	out := struct {
		XMLName    xml.Name `xml:"EnumerationResults"`
		Endpoint   string   `xml:"ServiceEndpoint,attr"`
		Share      string   `xml:"ShareName,attr"`
		Path       string   `xml:"DirectoryPath,attr"`
		Prefix     string   `xml:"Prefix,omitempty"`
		Marker     string   `xml:"Marker,omitempty"`
		MaxResults int      `xml:"MaxResults,omitempty"`
		ID         string   `xml:"DirectoryId"`
		Entries    struct{ Items []entryXML }
		Next       string `xml:"NextMarker"`
	}{Endpoint: s.Site.FileURL(s.accountOf(x.r.Host)), Share: share, Path: path, Prefix: x.q["prefix"], Marker: x.q["marker"], ID: "0"}
	if of != nil {
		out.ID = strconv.FormatInt(of.ID, 10)
	}
	if _, ok := x.q["maxresults"]; ok {
		out.MaxResults = limit
	}
	if next != "" {
		out.Next = newMarker(next)
	}
	for _, b := range list {
		out.Entries.Items = append(out.Entries.Items, b.entry(show))
	}
	writeXML(x.w, http.StatusOK, out)
	return nil
}

func (b Info) entry(show map[string]bool) entryXML {
	e := entryXML{XMLName: xml.Name{Local: "File"}, Name: b.Name, ID: strconv.FormatInt(b.smb.ID, 10)}
	p := &e.Properties
	if b.dir {
		e.XMLName.Local = "Directory"
	} else {
		p.Size = &b.Size
	}
	if show["timestamps"] {
		at := func(t time.Time) string { return t.UTC().Format(smbTime) }
		p.Created, p.Accessed, p.Written, p.Changed, p.Modified = at(b.smb.Created), at(b.smb.Written), at(b.smb.Written), at(b.smb.Changed), httpTime(b.Modified)
	}
	if show["etag"] {
		p.Etag = b.ETag
	}
	if show["attributes"] {
		e.Attributes = b.smb.Attr
	}
	if show["permissionkey"] {
		e.Permission = onePermission
	}
	return e
}
