package blob

import (
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// Shares is the face of the accounts' file shares (Azure Files by REST), on one host per
// account.
func (s *Service) Shares() *gate.Plane {
	p := &gate.Plane{
		Name:      "file",
		Host:      s.fileHost,
		Query:     doorOf,
		Unlocked:  func(arm.Action) bool { return true },
		Cancelled: cancelled,
		Refuse:    s.refuse,
		Pass:      s.pass,
	}
	p.Who = func(r *http.Request) (arm.Caller, error) { return s.who(p, r) }
	const share, path = "/{container}", "/{container}/{any...}"
	const of, dir = "?restype=share", "?restype=directory"
	p.Routes = []gate.Route{
		gate.On(ShareRead, "GET /?comp=list", s.atService, s.serve(s.listShares)),
		gate.On(FileServiceRead, "GET /?restype=service&comp=properties", s.atService, s.serve(s.getFileServiceProperties)),
		gate.On(FileServiceWrite, "PUT /?restype=service&comp=properties", s.atService, s.serve(s.setServiceProperties)),

		gate.On(ShareWrite, "PUT "+share+of, s.atContainer, s.serve(s.createShare, "x-ms-access-tier")),
		gate.On(ShareRead, "GET "+share+of, s.atContainer, s.serve(s.getShare)),
		gate.On(ShareRead, "HEAD "+share+of, s.atContainer, s.serve(s.getShare)),
		gate.On(ShareRead, "GET "+share+of+"&comp=metadata", s.atContainer, s.serve(s.getShare)),
		gate.On(ShareRead, "HEAD "+share+of+"&comp=metadata", s.atContainer, s.serve(s.getShare)),
		gate.On(ShareRead, "GET "+share+of+"&comp=stats", s.atContainer, s.serve(s.getShareStats)),
		gate.On(ShareWrite, "PUT "+share+of+"&comp=metadata", s.atContainer, s.serve(s.setContainerMeta)),
		gate.On(ShareWrite, "PUT "+share+of+"&comp=properties", s.atContainer, s.serve(s.setShare, "x-ms-access-tier")),
		gate.On(ShareWrite, "PUT "+share+of+"&comp=lease", s.atContainer, s.serve(s.leaseOfContainer)),
		gate.On(SharePolicyRead, "GET "+share+of+"&comp=acl", s.atContainer, s.serve(s.getPolicies)),
		gate.On(SharePolicyRead, "HEAD "+share+of+"&comp=acl", s.atContainer, s.serve(s.getPolicies)),
		gate.On(SharePolicyWrite, "PUT "+share+of+"&comp=acl", s.atContainer, s.serve(s.putPolicies)),
		gate.On(ShareDelete, "DELETE "+share+of, s.atContainer, s.serve(s.deleteContainer)),

		gate.On(FileRead, "GET "+path+dir, s.atShared(dirKind), s.serve(s.getDirectory)),
		gate.On(FileRead, "HEAD "+path+dir, s.atShared(dirKind), s.serve(s.getDirectory)),
		gate.On(FileRead, "GET "+path+dir+"&comp=list", s.atShared(dirKind), s.serve(s.listDirectory)),
		gate.On(FileRead, "GET "+path+dir+"&comp=metadata", s.atShared(dirKind), s.serve(s.getBlobMeta)),
		gate.On(FileRead, "HEAD "+path+dir+"&comp=metadata", s.atShared(dirKind), s.serve(s.getBlobMeta)),
		gate.On(FileWrite, "PUT "+path+dir, s.atShared(dirKind), s.serve(s.createDirectory)),
		gate.On(FileWrite, "PUT "+path+dir+"&comp=metadata", s.atShared(dirKind), s.serve(s.setBlobMeta)),
		gate.On(FileWrite, "PUT "+path+dir+"&comp=properties", s.atShared(dirKind), s.serve(s.setDirectory)),
		gate.On(FileWrite, "PUT "+path+dir+"&comp=rename", s.atShared(dirKind), s.serve(s.renameShared)),
		gate.On(FileDelete, "DELETE "+path+dir, s.atShared(dirKind), s.serve(s.deleteShared)),

		gate.Stream(FileRead, "GET "+path, s.atShared(fileKind), s.serve(s.getBlob)),
		gate.On(FileRead, "HEAD "+path, s.atShared(fileKind), s.serve(s.headBlob)),
		gate.Stream(FileWrite, "PUT "+path, s.atShared(""), s.serve(s.createFile, from...)),
		gate.Stream(FileWrite, "PUT "+path+"?comp=range", s.atShared(fileKind), s.serve(s.putRange, from...)),
		gate.On(FileRead, "GET "+path+"?comp=rangelist", s.atShared(fileKind), s.serve(s.getRanges)),
		gate.On(FileRead, "GET "+path+"?comp=metadata", s.atShared(fileKind), s.serve(s.getBlobMeta)),
		gate.On(FileRead, "HEAD "+path+"?comp=metadata", s.atShared(fileKind), s.serve(s.getBlobMeta)),
		gate.On(FileWrite, "PUT "+path+"?comp=metadata", s.atShared(fileKind), s.serve(s.setBlobMeta)),
		gate.On(FileWrite, "PUT "+path+"?comp=properties", s.atShared(fileKind), s.serve(s.setFile)),
		gate.On(FileWrite, "PUT "+path+"?comp=lease", s.atShared(fileKind), s.serve(s.leaseOfBlob)),
		gate.On(FileWrite, "PUT "+path+"?comp=rename", s.atShared(fileKind), s.serve(s.renameShared)),
		gate.On(FileWrite, "PUT "+path+"?comp=copy", s.atShared(fileKind), s.serve(s.abortCopy, "copyid")),
		gate.On(FileDelete, "DELETE "+path, s.atShared(fileKind), s.serve(s.deleteShared)),
	}
	for _, x := range []string{"/", share, path} {
		p.Routes = append(p.Routes, gate.Public(preflightWhy, "OPTIONS "+x+"?preflight", s.preflight))
	}
	return p
}

// fileHost reports whether a host is an account's File endpoint.
func (s *Service) fileHost(host string) bool {
	return arm.Label(host, "file."+s.Site.StorageSuffix()) != ""
}

// files reports whether the request came by the File endpoint.
func (x exchange) files() bool { return x.s.fileHost(x.r.Host) }

// atShared locates a path of a share, of that kind. Only a list, and what asks for a
// directory's properties, may be about the root.
func (s *Service) atShared(kind string) gate.Locate {
	return func(r *http.Request, v gate.Vars) (gate.Target, error) {
		t, err := s.atContainer(r, v)
		if err != nil {
			return t, err
		}
		t.Item, t.Op = fold(pathIn(v)), kind
		if t.Item == "" {
			if door := doorOf(r); kind == dirKind && (r.Method == http.MethodGet || r.Method == http.MethodHead) && !strings.HasSuffix(door, "comp=metadata") {
				return t, nil
			}
			return t, fail(http.StatusBadRequest, "InvalidUri", "The request is about the root of a share; it can't be made, changed so, moved or deleted.")
		}
		return t, checkFilePath(t.Item)
	}
}

// fileRequest is what a signature is held against at the File endpoint.
func (s *Service) fileRequest(r *http.Request, rt gate.Route, v gate.Vars) request {
	door := doorOf(r)
	rq := request{
		account: s.at(r.Host), container: v["container"], blob: pathIn(v), action: rt.Action,
		list: strings.HasSuffix(door, "comp=list"), secure: r.TLS != nil, peer: peerOf(r), isDir: strings.Contains(door, "restype=directory"),
		breaks:  strings.HasSuffix(door, "comp=lease") && strings.EqualFold(r.Header.Get("x-ms-lease-action"), "break"),
		creates: r.Method == http.MethodPut && (door == "" || door == "restype=share" || door == "restype=directory"),
	}
	rq.root = rq.isDir && rq.blob == ""
	return rq
}

// intends asks a token for what it must have besides to read or change files, and for the
// word that it is used so.
func (x exchange) intends() error {
	also := FileBackupWrite
	switch _, err := x.g.On(FileRead, FileWrite, FileDelete); {
	case err != nil:
		return nil
	default:
		if _, err := x.g.On(FileRead); err == nil {
			also = FileBackupRead
		}
	}
	const header = "x-ms-file-request-intent"
	if v := x.r.Header.Get(header); x.g.Caller().Lease == nil && !strings.EqualFold(v, "backup") {
		return fail(http.StatusBadRequest, "MissingRequiredHeader", "The header %s is %q; with a token it must be backup.", header, v)
	}
	return x.also(also)
}

// refusedOfFiles are headers that ask for what shares by SMB have not, or not here.
var refusedOfFiles = []string{"x-ms-mode", "x-ms-owner", "x-ms-group", "x-ms-file-file-type", "x-ms-file-property-semantics", "x-ms-file-permission-format", "x-ms-file-rename-ignore-readonly",
	"x-ms-file-copy-ignore-readonly", "x-ms-file-copy-set-archive", "x-ms-file-permission-copy-mode", "x-ms-file-mode-copy-mode", "x-ms-file-owner-copy-mode", "x-ms-root-squash", "x-ms-enable-smb-directory-lease"}

// ofFiles refuses those, but for words that ask for nothing.
func (x exchange) ofFiles() error {
	for _, n := range refusedOfFiles {
		if v := x.r.Header.Get(n); v != "" && !strings.EqualFold(v, "false") && !(n == "x-ms-file-permission-copy-mode" && strings.EqualFold(v, "source")) {
			return unsupportedHeader(n)
		}
	}
	if v := strings.ToLower(x.r.Header.Get("x-ms-file-permission")); v != "" && !slices.Contains([]string{"inherit", "preserve"}, v) {
		return badHeader("x-ms-file-permission", "…", "inherit or preserve: files have no access lists of their own here")
	}
	if v := x.r.Header.Get(permissionKey); v != "" && v != onePermission && !strings.EqualFold(v, "preserve") {
		return fail(http.StatusNotFound, "FilePermissionKeyNotFound", "There is no permission with the key %q; all paths have %s here.", v, onePermission)
	}
	return nil
}

// fileCodes are the File endpoint's names of errors that blobs have too.
var fileCodes = map[arm.Code]arm.Code{
	"ContainerNotFound": "ShareNotFound", "ContainerAlreadyExists": "ShareAlreadyExists", "BlobNotFound": "ResourceNotFound", "BlobAlreadyExists": "ResourceAlreadyExists",
}
