package blob

import (
	"context"
	"encoding/base64"
	"encoding/xml"
	"net/http"
	"strconv"
	"strings"
	"time"

	"castellan/internal/gate"
)

// metaXML is metadata, an element a name.
type metaXML map[string]string

// MarshalXML writes the names as elements: they are identifiers.
func (m metaXML) MarshalXML(e *xml.Encoder, start xml.StartElement) error {
	if err := e.EncodeToken(start); err != nil {
		return err
	}
	for _, k := range sortedKeys(m) {
		if err := e.EncodeElement(m[k], xml.StartElement{Name: xml.Name{Local: k}}); err != nil {
			return err
		}
	}
	return e.EncodeToken(start.End())
}

// listXML is a list of containers or blobs.
type listXML struct {
	XMLName    xml.Name      `xml:"EnumerationResults"`
	Endpoint   string        `xml:"ServiceEndpoint,attr"`
	Container  string        `xml:"ContainerName,attr,omitempty"`
	Prefix     string        `xml:"Prefix,omitempty"`
	Marker     string        `xml:"Marker,omitempty"`
	MaxResults int           `xml:"MaxResults,omitempty"`
	Delimiter  string        `xml:"Delimiter,omitempty"`
	Containers *containerXML `xml:"Containers"`
	Blobs      *blobsXML     `xml:"Blobs"`
	Next       string        `xml:"NextMarker"`
}

type containerXML struct{ Items []containerItemXML }

type containerItemXML struct {
	XMLName    xml.Name `xml:"Container"`
	Name       string
	Deleted    bool   `xml:",omitempty"`
	Version    string `xml:",omitempty"`
	Properties struct {
		Modified string `xml:"Last-Modified"`
		Etag     string
		Status   string `xml:"LeaseStatus"`
		State    string `xml:"LeaseState"`
		Duration string `xml:"LeaseDuration,omitempty"`
		Scope    string `xml:"DefaultEncryptionScope"`
		Deny     bool   `xml:"DenyEncryptionScopeOverride"`
		Policy   bool   `xml:"HasImmutabilityPolicy"`
		Hold     bool   `xml:"HasLegalHold"`
		Gone     string `xml:"DeletedTime,omitempty"`
		Days     *int   `xml:"RemainingRetentionDays"`
	}
	Metadata metaXML `xml:",omitempty"`
}

func httpTime(t time.Time) string { return t.UTC().Format(http.TimeFormat) }

// listContainers is List Containers.
func (s *Service) listContainers(x exchange) error {
	limit, err := x.q.count("maxresults", maxPage)
	if err != nil {
		return err
	}
	show, err := x.q.include("metadata", "deleted", "system")
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
	list, next, err := s.listContainersOf(x.r.Context(), x.g, x.q["prefix"], after, limit, show["deleted"])
	if err != nil {
		return err
	}
	out := listXML{Endpoint: s.Site.BlobURL(s.accountOf(x.r.Host)), Prefix: x.q["prefix"], Marker: x.q["marker"], Containers: &containerXML{}}
	if _, ok := x.q["maxresults"]; ok {
		out.MaxResults = limit
	}
	if next != "" {
		out.Next = newMarker(next)
	}
	for _, c := range list {
		i := containerItemXML{Name: c.Name}
		p := &i.Properties
		p.Modified, p.Etag, p.Status, p.State, p.Scope = httpTime(c.Modified), c.ETag, c.lease.status(s.Now()), c.lease.state(s.Now()), "$account-encryption-key"
		if p.State == leased {
			p.Duration = c.lease.duration()
		}
		p.Policy, p.Hold = c.guard.policy(), c.guard.held()
		if c.version != "" {
			days := daysLeft(c.until, s.Now())
			i.Deleted, i.Version, p.Gone, p.Days = true, c.version, httpTime(c.deleted), &days
		}
		if show["metadata"] && len(c.Meta) > 0 {
			i.Metadata = c.Meta
		}
		out.Containers.Items = append(out.Containers.Items, i)
	}
	writeXML(x.w, http.StatusOK, out)
	return nil
}

// getUserDelegationKey is Get User Delegation Key.
func (s *Service) getUserDelegationKey(x exchange) error {
	n, err := readXML(x.w, x.r, "KeyInfo")
	if err != nil {
		return err
	}
	if err := n.only("Start", "Expiry"); err != nil {
		return err
	}
	var at [2]time.Time
	for i, name := range []string{"Start", "Expiry"} {
		v, err := n.one(name)
		if err != nil {
			return err
		}
		t, ok := sasTime(v)
		if at[i] = t; !ok && (v != "" || name == "Expiry") {
			return fail(http.StatusBadRequest, "InvalidXmlNodeValue", "%s is %q; it must be a time such as 2026-01-02T15:04:05Z.", name, v)
		}
		if v == "" {
			at[i] = s.Now()
		}
	}
	k, err := s.userDelegation(x.r.Context(), x.g, at[0], at[1], s.versionOf(x.r))
	if err != nil {
		return err
	}
	writeXML(x.w, http.StatusOK, struct {
		XMLName       xml.Name `xml:"UserDelegationKey"`
		SignedOid     string
		SignedTid     string
		SignedStart   string
		SignedExpiry  string
		SignedService string
		SignedVersion string
		Value         string
	}{SignedOid: k.query["skoid"], SignedTid: k.query["sktid"], SignedStart: k.query["skt"], SignedExpiry: k.query["ske"], SignedService: "b", SignedVersion: k.query["skv"], Value: base64.StdEncoding.EncodeToString(k.value)})
	return nil
}

// createContainer is Create Container.
func (s *Service) createContainer(x exchange) error {
	if err := x.notPublic(); err != nil {
		return err
	}
	meta, err := metaOf(x.r.Header)
	if err != nil {
		return err
	}
	info, err := s.CreateContainer(x.r.Context(), x.g, meta)
	return x.containerAnswer(http.StatusCreated, info, err)
}

func (x exchange) notPublic() error {
	if x.r.Header.Get("x-ms-blob-public-access") != "" {
		return fail(http.StatusConflict, "PublicAccessNotPermitted", "Public access is not permitted on this storage account.")
	}
	return nil
}

func (x exchange) containerAnswer(status int, info ContainerInfo, err error) error {
	if err != nil {
		return err
	}
	h := x.w.Header()
	h.Set("ETag", info.ETag)
	h.Set("Last-Modified", httpTime(info.Modified))
	x.w.WriteHeader(status)
	return nil
}

// getContainer is Get Container Properties and Get Container Metadata.
func (s *Service) getContainer(x exchange) error {
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
	h.Set("x-ms-has-immutability-policy", strconv.FormatBool(info.guard.policy()))
	h.Set("x-ms-has-legal-hold", strconv.FormatBool(info.guard.held()))
	h.Set("x-ms-default-encryption-scope", "$account-encryption-key")
	h.Set("x-ms-deny-encryption-scope-override", "false")
	setMeta(h, info.Meta)
	return x.containerAnswer(http.StatusOK, info, nil)
}

// setContainerMeta is Set Container Metadata.
func (s *Service) setContainerMeta(x exchange) error {
	meta, err := metaOf(x.r.Header)
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

// deleteContainer is Delete Container.
func (s *Service) deleteContainer(x exchange) error { return x.deleteBy(s.DeleteContainer) }

// deleteBy has remove delete what the request is about, under its conditions.
func (x exchange) deleteBy(remove func(context.Context, gate.Grant, Conditions) error) error {
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	if err := remove(x.r.Context(), x.g, when); err != nil {
		return err
	}
	x.w.WriteHeader(http.StatusAccepted)
	return nil
}

// getPolicies is Get Container ACL.
func (s *Service) getPolicies(x exchange) error {
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	ps, info, err := s.policies(x.r.Context(), x.g, Conditions{Lease: when.Lease})
	if err != nil {
		return err
	}
	type access struct{ Start, Expiry, Permission string }
	type item struct {
		XMLName xml.Name `xml:"SignedIdentifier"`
		ID      string   `xml:"Id"`
		Access  access   `xml:"AccessPolicy"`
	}
	out := struct {
		XMLName xml.Name `xml:"SignedIdentifiers"`
		Items   []item
	}{}
	for _, p := range ps {
		out.Items = append(out.Items, item{ID: p.ID, Access: access{p.Start, p.Expiry, p.Permissions}})
	}
	x.w.Header().Set("ETag", info.ETag)
	x.w.Header().Set("Last-Modified", httpTime(info.Modified))
	writeXML(x.w, http.StatusOK, out)
	return nil
}

// putPolicies is Set Container ACL.
func (s *Service) putPolicies(x exchange) error {
	if err := x.notPublic(); err != nil {
		return err
	}
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	var ps []policy
	if x.r.ContentLength != 0 {
		n, err := readXML(x.w, x.r, "SignedIdentifiers")
		if err != nil {
			return err
		}
		if ps, err = policyList(n); err != nil {
			return err
		}
	}
	info, err := s.setPolicies(x.r.Context(), x.g, ps, when)
	return x.containerAnswer(http.StatusOK, info, err)
}

type blobsXML struct{ Items []any }

type prefixXML struct {
	XMLName xml.Name `xml:"BlobPrefix"`
	Name    string
}

type blobXML struct {
	XMLName    xml.Name `xml:"Blob"`
	Name       string
	Deleted    bool   `xml:",omitempty"`
	Deletion   string `xml:"DeletionId,omitempty"` // of a path that was deleted
	Snapshot   string `xml:",omitempty"`
	Version    string `xml:"VersionId,omitempty"`
	Current    bool   `xml:"IsCurrentVersion,omitempty"`
	OnlyPast   bool   `xml:"HasVersionsOnly,omitempty"`
	Properties blobPropertiesXML
	Metadata   *metaXML
	Tags       *tagsXML
}

type blobPropertiesXML struct {
	Created     string `xml:"Creation-Time,omitempty"`
	Modified    string `xml:"Last-Modified,omitempty"`
	Etag        string `xml:",omitempty"`
	Length      int64  `xml:"Content-Length"`
	Type        string `xml:"Content-Type"`
	Encoding    string `xml:"Content-Encoding"`
	Language    string `xml:"Content-Language"`
	CRC         string `xml:"Content-CRC64"`
	MD5         string `xml:"Content-MD5"`
	Cache       string `xml:"Cache-Control"`
	Disposition string `xml:"Content-Disposition"`
	BlobType    string
	Tier        string `xml:"AccessTier,omitempty"`
	Sealed      bool   `xml:",omitempty"`
	Sequence    *int64 `xml:"x-ms-blob-sequence-number"`
	Inferred    string `xml:"AccessTierInferred,omitempty"`
	Tiered      string `xml:"AccessTierChangeTime,omitempty"`
	Tags        int    `xml:"TagCount,omitempty"`
	Status      string `xml:"LeaseStatus"`
	State       string `xml:"LeaseState"`
	Duration    string `xml:"LeaseDuration,omitempty"`
	Encrypted   bool   `xml:"ServerEncrypted"`
	Resource    string `xml:"ResourceType,omitempty"`
	CopyID      string `xml:"CopyId,omitempty"`
	CopyStatus  string `xml:"CopyStatus,omitempty"`
	CopySource  string `xml:"CopySource,omitempty"`
	Gone        string `xml:"DeletedTime,omitempty"`
	Days        *int   `xml:"RemainingRetentionDays"`
}

func showBlob(b Info, show map[string]bool, now time.Time) blobXML {
	p := blobPropertiesXML{
		Created: httpTime(b.Created), Modified: httpTime(b.Modified), Etag: strings.Trim(b.ETag, `"`), Length: b.Size, Type: b.ContentType, Encoding: b.Encoding,
		Language: b.Language, MD5: base64.StdEncoding.EncodeToString(b.MD5), Cache: b.Cache, Disposition: b.Disposition, BlobType: b.Type,
		Status: b.lease.status(now), State: b.lease.state(now), Encrypted: true,
	}
	if p.State == leased {
		p.Duration = b.lease.duration()
	}
	if b.Type == blockBlob {
		p.Tier, p.Inferred = text(b.tier, "Hot"), "true"
		if b.tier != "" {
			p.Inferred, p.Tiered = "", httpTime(b.tiered)
		}
	}
	p.Sealed = b.sealed
	if b.Type == pageBlob {
		p.Sequence = &b.sequence
	}
	if b.access != nil {
		p.Resource = kindOf(b.dir)
	}
	if b.Copy != nil {
		p.CopyID, p.CopyStatus, p.CopySource = b.Copy.ID, "success", b.Copy.Source
	}
	out := blobXML{Name: b.Name, Snapshot: b.snapshot}
	if show["versions"] && b.Version != "" {
		out.Version, out.Current = b.Version, b.past == ""
	}
	if !b.deleted.IsZero() {
		days := daysLeft(b.until, now)
		out.Deleted, p.Gone, p.Days = true, httpTime(b.deleted), &days
	}
	if b.onlyPast {
		return blobXML{Name: b.Name, OnlyPast: true}
	}
	if b.waits { // there is no blob yet
		p = blobPropertiesXML{BlobType: b.Type, Status: p.Status, State: p.State, Encrypted: true}
	}
	p.Tags = len(b.tags)
	out.Properties = p
	if show["tags"] && len(b.tags) > 0 {
		out.Tags = showTags(b.tags)
	}
	if show["metadata"] && !b.waits {
		m := metaXML(b.Meta)
		out.Metadata = &m
	}
	return out
}

// listBlobs is List Blobs.
func (s *Service) listBlobs(x exchange) error {
	limit, err := x.q.count("maxresults", maxPage)
	if err != nil {
		return err
	}
	if only, ok := x.q["showonly"]; ok {
		return s.listOnly(x, only, limit)
	}
	// Of what there is none of, none is shown: that is exact.
	show, err := x.q.include("metadata", "copy", "snapshots", "deleted", "deletedwithversions", "tags", "versions", "uncommittedblobs", "immutabilitypolicy", "legalhold", "permissions")
	if err != nil {
		return err
	}
	if show["snapshots"] && x.q["delimiter"] != "" {
		return badQuery("include", "snapshots", "left out in a list with a delimiter")
	}
	if show["tags"] {
		if err := x.also(BlobTagsRead); err != nil {
			return err
		}
	}
	if show["metadata"] || show["tags"] {
		if err := s.readable(x); err != nil {
			return err
		}
	}
	page, err := s.list(x.r.Context(), x.g, listing{
		prefix: x.q["prefix"], delimiter: x.q["delimiter"], marker: x.q["marker"], limit: limit,
		snapshots: show["snapshots"], versions: show["versions"], deleted: show["deleted"], uncommitted: show["uncommittedblobs"], onlyPast: show["deletedwithversions"],
	})
	if err != nil {
		return err
	}
	var items []any
	for _, b := range page.Items {
		if b.Prefix {
			items = append(items, prefixXML{Name: b.Name})
			continue
		}
		items = append(items, showBlob(b, show, s.Now()))
	}
	return x.listed(items, page.Next, limit)
}

// listed answers with a list of blobs.
func (x exchange) listed(items []any, next string, limit int) error {
	id, err := x.g.On(BlobRead)
	if err != nil {
		return err
	}
	out := listXML{Endpoint: x.s.Site.BlobURL(x.s.accountOf(x.r.Host)), Container: id.Name(), Prefix: x.q["prefix"], Marker: x.q["marker"], Delimiter: x.q["delimiter"], Blobs: &blobsXML{items}, Next: next}
	if _, ok := x.q["maxresults"]; ok {
		out.MaxResults = limit
	}
	writeXML(x.w, http.StatusOK, out)
	return nil
}

// listOnly is List Blobs of what was deleted in a hierarchical namespace.
func (s *Service) listOnly(x exchange, only string, limit int) error {
	a := s.byName(s.accountOf(x.r.Host))
	switch {
	case only != "deleted" || a == nil || !a.hns:
		return badQuery("showonly", only, "deleted, in an account with a hierarchical namespace")
	case x.q["delimiter"] != "" || x.q["include"] != "":
		return badQuery("showonly", only, "without a delimiter and include")
	}
	found, next, err := s.listDeleted(x.r.Context(), x.g, x.q["prefix"], x.q["marker"], limit)
	if err != nil {
		return err
	}
	items := make([]any, len(found))
	for i, b := range found {
		items[i] = b
	}
	return x.listed(items, next, limit)
}
