package ml

import (
	"context"
	"net/url"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// location is where data lies: below a path of a datastore of the workspace.
type location struct {
	datastore *resource.Doc
	name      string // of the datastore
	account   arm.ID
	container string // or the share
	files     bool   // it is a share
	path      string // of a blob, or of a folder; no slash at either end
	in        datastoreInner
	creds     credentials
}

// locate finds what a uri names. It must be in a datastore of this workspace:
// nothing is fetched from anywhere else.
func (s *Service) locate(tx *store.Tx, w workspace, uri string) (location, error) {
	datastore, path, err := s.split(tx, w, uri)
	if err != nil {
		return location{}, err
	}
	d, err := resource.Load(tx, w.Doc.ID.Child("datastores", datastore))
	if err != nil {
		return location{}, err
	}
	if d == nil {
		return location{}, arm.Errorf(arm.BadRequest, "%q names the datastore %s, which does not exist in the workspace", uri, datastore)
	}
	p, err := props[datastoreProps](d)
	if err != nil {
		return location{}, err
	}
	l, err := whole(d, p)
	if err != nil {
		return location{}, err
	}
	l.path, err = cleanPath(path)
	return l, err
}

// whole is the place of a datastore itself.
func whole(d *resource.Doc, p datastoreProps) (location, error) {
	in, err := inner[datastoreInner](d)
	p.Credentials.Type = spelt(p.Credentials.Type, credentialTypes[p.Type]...)
	return location{datastore: d, name: d.Name, account: in.Account, container: p.place(), files: p.Type == azureFile, in: in, creds: p.Credentials}, err
}

// described is whole of a datastore as a change describes it.
func described(tx *store.Tx, d *resource.Doc, p datastoreProps) (location, error) {
	l, err := whole(d, p)
	if err == nil {
		l.account, err = account(tx, p.Account, d.ID)
	}
	return l, err
}

// split reads a uri as a datastore's name and a path.
func (s *Service) split(tx *store.Tx, w workspace, uri string) (datastore, path string, err error) {
	if rest, ok := cutFold(uri, "azureml://"); ok {
		return splitAzureML(w, uri, rest)
	}
	if !strings.HasPrefix(strings.ToLower(uri), "https://") {
		return "", "", arm.Errorf(arm.BadRequest, "%q is not a place that this workspace reads; use azureml://datastores/NAME/paths/PATH, a data asset, or the https URL of a blob in one of the workspace's datastores", uri)
	}
	account, container, path, err := s.blobURL(uri)
	if err != nil {
		return "", "", err
	}
	all, err := resource.List(tx, s.kinds.datastore.Type, w.Doc.ID, "", 0)
	if err != nil {
		return "", "", err
	}
	for _, d := range all {
		p, err := props[datastoreProps](d)
		if err == nil && strings.EqualFold(p.Account, account) && p.Type != azureFile && p.place() == container {
			return d.Name, path, nil
		}
	}
	return "", "", arm.Errorf(arm.BadRequest, "no datastore of the workspace is the container %s of the storage account %s", container, account)
}

// splitAzureML reads datastores/N/paths/P, perhaps behind the workspace's path.
func splitAzureML(w workspace, uri, rest string) (datastore, path string, err error) {
	bad := arm.Errorf(arm.BadRequest, "%q is not of the form azureml://datastores/NAME/paths/PATH", uri)
	if i := strings.Index(strings.ToLower(rest), "datastores/"); i > 0 {
		if !w.spelt(rest[:i]) {
			return "", "", arm.Errorf(arm.BadRequest, "%q is in another workspace; a job reads from its own workspace's datastores", uri)
		}
		rest = rest[i:]
	}
	rest, ok := cutFold(rest, "datastores/")
	if !ok {
		return "", "", bad
	}
	datastore, path, _ = strings.Cut(rest, "/")
	if path != "" {
		if path, ok = cutFold(path+"/", "paths/"); !ok {
			return "", "", bad
		}
	}
	if arm.CheckSegment(datastore) != nil {
		return "", "", bad
	}
	return datastore, path, nil
}

// spelt reports whether s, such as subscriptions/S/resourcegroups/G/workspaces/W/,
// is this workspace.
func (w workspace) spelt(s string) bool {
	s = strings.ToLower(strings.Trim(s, "/"))
	long := strings.Trim(w.Doc.ID.Key(), "/")
	short := strings.Replace(long, "/providers/"+strings.ToLower(namespace), "", 1)
	return s == long || s == short
}

// blobURL reads the https URL of a blob of this installation.
func (s *Service) blobURL(text string) (account, container, path string, err error) {
	u, err := url.Parse(text)
	if err != nil || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", "", "", arm.Errorf(arm.BadRequest, "%q must be the URL of a blob, without a query", s.clip(text))
	}
	account = arm.Label(u.Hostname(), "blob."+s.Site.StorageSuffix())
	if u.Scheme != "https" || account == "" {
		return "", "", "", arm.Errorf(arm.BadRequest, "%q is not on this installation, whose blobs are at https://ACCOUNT.blob.%s/", text, s.Site.StorageSuffix())
	}
	container, path, _ = strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if container == "" {
		return "", "", "", arm.Errorf(arm.BadRequest, "%q names no container", text)
	}
	return account, container, path, nil
}

// clip is a URL without what may be a signature in it.
func (s *Service) clip(text string) string {
	text, _, _ = strings.Cut(text, "?")
	return text
}

// cleanPath is a path without slashes at its ends. It is refused if a second
// reader could take it for another.
func cleanPath(p string) (string, error) {
	p = strings.Trim(p, "/")
	if p == "" {
		return "", nil
	}
	for _, seg := range strings.Split(p, "/") {
		if seg == "" || seg == "." || seg == ".." || strings.ContainsAny(seg, "\\\x00") {
			return "", arm.Errorf(arm.BadRequest, "the path %q has the segment %q", p, seg)
		}
	}
	return p, nil
}

// cutFold is strings.CutPrefix for prefixes in any case.
func cutFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// access is by what a job reaches the location: by what the datastore keeps; as
// the workspace itself in the workspace's own, unless that goes by identities;
// else as the job's own identity. used is the secret that opens it, if there is one.
func (s *Service) access(ctx context.Context, w workspace, l location, job arm.Caller) (by Access, used secrets, err error) {
	switch {
	case l.creds.Type == credNone && job.IsZero():
		return by, used, arm.Errorf(arm.Forbidden, "the datastore %s keeps no credentials and the job has no identity: give the compute cluster a managed identity with a role on the storage account", l.name)
	case l.creds.Type == credNone:
		return Access{As: job}, used, nil
	case l.in.System && l.files: // roles open no share to the workspace, its account's key does
		key, err := s.Accounts.Key(ctx, w.self(), l.account)
		return Access{Key: key, Files: true}, secrets{Type: credKey, Key: string(key.Reveal())}, err
	case l.in.System:
		return Access{As: w.self()}, used, nil
	}
	if used, err = s.kept(ctx, w, l.datastore, l.in); err != nil {
		return by, used, err
	}
	by, err = s.opening(ctx, l, used)
	return by, used, err
}
