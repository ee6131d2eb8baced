package blob

import (
	"encoding/base64"
	"net/http"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/condition"
	"castellan/internal/gate"
)

// Paths is the Data Lake face of the accounts' blobs (ADLS Gen2), on one host per
// account: containers are file systems there, and blobs are files.
func (s *Service) Paths() *gate.Plane {
	p := &gate.Plane{
		Name:      "dfs",
		Host:      func(host string) bool { return arm.Label(host, "dfs."+s.Site.StorageSuffix()) != "" },
		Query:     pathDoorOf,
		Unlocked:  func(arm.Action) bool { return true },
		Cancelled: cancelled,
		Refuse:    s.refuse,
		Pass:      s.pass,
	}
	p.Who = func(r *http.Request) (arm.Caller, error) { return s.who(p, r) }
	const system, path = "/{container}", "/{container}/{any...}"
	const of = "?resource=filesystem"
	shaping := []string{"resource", "mode", "continuation"}
	updating := []string{"action", "position", "retainuncommitteddata", "close", "flush"}
	p.Routes = []gate.Route{
		gate.On(ContainerRead, "GET /?resource=account", s.atService, s.serve(s.listSystems, "resource", "continuation")),
		gate.On(ContainerWrite, "PUT "+system+of, s.atContainer, s.serve(s.createSystem, "resource")),
		gate.On(ContainerRead, "HEAD "+system+of, s.atContainer, s.serve(s.getSystem, "resource")),
		gate.On(ContainerWrite, "PATCH "+system+of, s.atContainer, s.serve(s.setSystem, "resource")),
		gate.On(ContainerDelete, "DELETE "+system+of, s.atContainer, s.serve(s.deleteContainer, "resource")),
		gate.On(BlobRead, "GET "+system+of, s.atList, s.serve(s.listPaths, "resource", "recursive", "directory", "continuation", "upn")),

		gate.On(BlobWrite, "PUT "+path+"?resource=file", s.atPath(""), s.serve(s.createPath, shaping...)),
		gate.On(BlobWrite, "PUT "+path+"?resource=directory", s.atPath(""), s.serve(s.createPath, shaping...)),
		gate.On(BlobWrite, "PUT "+path, s.atPath(opRename), s.serve(s.renamePath, shaping...)),
		gate.Stream(BlobWrite, "PATCH "+path+"?action=append", s.atPath(""), s.serve(s.appendPath, updating...)),
		gate.On(BlobWrite, "PATCH "+path+"?action=flush", s.atPath(""), s.serve(s.flushPath, updating...)),
		gate.On(BlobWrite, "PATCH "+path+"?action=setProperties", s.atPath(""), s.serve(s.setPathProperties, "action")),
		gate.On(BlobPermissions, "PATCH "+path+"?action=setAccessControl", s.atPath(""), s.serve(s.setAccess, "action")),
		gate.On(BlobPermissions, "PATCH "+path+"?action=setAccessControlRecursive", s.atPath(""), s.serve(s.setAccessBelow, "action", "mode", "forceflag", "maxrecords", "continuation")),
		gate.On(BlobWrite, "POST "+path, s.atPath(""), s.serve(s.leaseOfBlob)),
		gate.Stream(BlobRead, "GET "+path, s.atPath(""), s.serve(s.getBlob)),
		gate.On(BlobRead, "HEAD "+path, s.atPath(opStat), s.serve(s.statPath)),
		gate.On(BlobRead, "HEAD "+path+"?action=getStatus", s.atPath(opStat), s.serve(s.statPath, "action", "upn")),
		gate.On(BlobRead, "HEAD "+path+"?action=getAccessControl", s.atPath(opStat), s.serve(s.statPath, "action", "upn")),
		gate.On(BlobDelete, "DELETE "+path, s.atPath(""), s.serve(s.deletePath, "recursive", "continuation", "paginated")),
	}
	// Clients that do not know our suffixes ask this host for what blobs do, too, by
	// the parameters that tell it apart.
	for _, rt := range s.Plane().Routes {
		if strings.Contains(rt.Pattern, "?restype=") || strings.Contains(rt.Pattern, "?comp=") || rt.Method == http.MethodOptions {
			if !strings.HasSuffix(rt.Pattern, "comp=batch") {
				p.Routes = append(p.Routes, rt)
			}
		}
	}
	return p
}

// pathDoorOf is what of a query tells doors of the Data Lake endpoint apart.
func pathDoorOf(r *http.Request) string {
	if asBlob(r) {
		return doorOf(r)
	}
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return "unreadable"
	}
	for _, k := range []string{"resource", "action"} {
		if v, ok := q[k]; ok {
			return k + "=" + v
		}
	}
	return ""
}

// dfs reports whether the request came by the Data Lake endpoint, and speaks its protocol.
func (x exchange) dfs() bool { return byDFS(x.s, x.r) }

func byDFS(s *Service, r *http.Request) bool { return byDFSHost(s, r.Host) && !asBlob(r) }

func byDFSHost(s *Service, host string) bool {
	return arm.Label(host, "dfs."+s.Site.StorageSuffix()) != ""
}

// asBlob reports whether a request speaks the protocol of blobs, wherever it goes.
func asBlob(r *http.Request) bool {
	q, err := parseQuery(r.URL.RawQuery)
	_, restype := q["restype"]
	_, comp := q["comp"]
	return err == nil && (restype || comp || r.Method == http.MethodOptions)
}

// pathIn is the path that a door's wildcard names, "" for the root.
func pathIn(v gate.Vars) string { return strings.Trim(v["any"], "/") }

// atPath locates a path, for an operation as access lists tell them apart.
func (s *Service) atPath(op string) gate.Locate {
	return func(r *http.Request, v gate.Vars) (gate.Target, error) {
		t, err := s.atContainer(r, v)
		if err != nil {
			return t, err
		}
		t.Item, t.Op = pathIn(v), op
		t.Attributes = s.attributes(r, t.ID, t.Item)
		if t.Item == "" {
			return t, nil
		}
		return t, place{account: s.byID(t.ID.Parent().Parent()), blob: t.Item}.checkName()
	}
}

// atList locates a list of what a directory has.
func (s *Service) atList(r *http.Request, v gate.Vars) (gate.Target, error) {
	t, err := s.atContainer(r, v)
	if err != nil {
		return t, err
	}
	dir, err := directoryIn(r)
	t.Op = opList
	t.Attributes = func() *condition.Attributes {
		a := &condition.Attributes{SubOperation: listOp, Resource: map[string]any{attrContainer: t.ID.Name()}, Request: map[string]any{attrPrefix: ""}}
		if dir != "" {
			a.Request[attrPrefix] = dir + "/"
		}
		return a
	}
	return t, err
}

// directoryIn is the directory that a request lists, "" for the root.
func directoryIn(r *http.Request) (string, error) {
	q, err := parseQuery(r.URL.RawQuery)
	dir := strings.Trim(q["directory"], "/")
	if err == nil && dir != "" {
		err = checkBlobName(dir)
	}
	return dir, err
}

// pathRequest is what a signature is held against at the Data Lake endpoint.
func (s *Service) pathRequest(r *http.Request, rt gate.Route, v gate.Vars) request {
	door := pathDoorOf(r)
	rq := request{
		account: s.at(r.Host), container: v["container"], blob: pathIn(v), action: rt.Action,
		list: r.Method == http.MethodGet && strings.HasPrefix(door, "resource="), secure: r.TLS != nil, peer: peerOf(r), dir: pathIn(v),
		creates: r.Method == http.MethodPut && door != "", adds: door == "action=append",
		breaks: r.Method == http.MethodPost && strings.EqualFold(r.Header.Get("x-ms-lease-action"), "break"),
	}
	rq.root = rq.blob == "" && rq.container != "" && !strings.HasPrefix(door, "resource=filesystem")
	switch {
	case rq.list && rq.container != "":
		rq.dir, _ = directoryIn(r) // atList says what is wrong with it
	case r.Method == http.MethodHead && door == "action=getAccessControl":
		rq.op = opAccess
	case r.Method == http.MethodHead && rt.Action.Is(BlobRead):
		rq.op = opStat
	case r.Method == http.MethodPut && door == "":
		rq.op = opRename
	}
	return rq
}

// notInTree are what accounts with a hierarchical namespace have not, by the parameters
// and headers that ask for it.
var notInTree = map[string]string{"snapshot": "snapshots", "versionid": "versions", "where": "tags"}

// inTree refuses what an account with a hierarchical namespace does not do.
func (x exchange) inTree() error {
	a := x.s.at(x.r.Host)
	if a == nil || !a.hns {
		return nil
	}
	what := map[string]string{"snapshot": "snapshots", "tags": "tags", "blobs": "tags"}[x.q["comp"]]
	for _, n := range sortedKeys(notInTree) {
		if _, ok := x.q[n]; ok {
			what = notInTree[n]
		}
	}
	if x.r.Header.Get(ifTags) != "" || x.r.Header.Get("x-ms-tags") != "" {
		what = "tags"
	}
	if what == "" {
		return nil
	}
	return notInTrees(what)
}

func notInTrees(what string) error {
	return fail(http.StatusConflict, "FeatureNotSupportedForHierarchicalNamespace", "Accounts with a hierarchical namespace have no %s.", what)
}

// notTree refuses what only accounts with a hierarchical namespace do.
func notTree() error {
	return fail(http.StatusBadRequest, "HierarchicalNamespaceNotEnabled", "Hierarchical namespace is not enabled for this account.")
}

// pathTarget is the place of a path, which may be the root if root is true.
func (s *Service) pathTarget(g gate.Grant, root bool, actions ...arm.Action) (place, error) {
	if !root || g.Item() != "" {
		p, err := s.blobTarget(g, actions...)
		if g.Item() == "" {
			err = fail(http.StatusBadRequest, "InvalidUri", "The request is about a path; the root can't be made, changed so, moved or deleted.")
		}
		return p, err
	}
	p, err := s.target(g, actions...)
	if err == nil && !p.hns {
		err = notTree()
	}
	return p, err
}

// treeTarget is pathTarget for requests that only trees know, and that have no body.
func (x exchange) treeTarget(root bool, actions ...arm.Action) (place, error) {
	p, err := x.s.pathTarget(x.g, root, actions...)
	if err == nil && !p.hns {
		err = notTree()
	}
	if err == nil {
		err = x.noBody()
	}
	return p, err
}

// properties is metadata as the Data Lake endpoint writes it: name=base64 with commas.
func properties(meta map[string]string) string {
	var out []string
	for _, k := range sortedKeys(meta) {
		out = append(out, k+"="+base64.StdEncoding.EncodeToString([]byte(meta[k])))
	}
	return strings.Join(out, ",")
}

// propertiesOf reads them; has is whether there are any.
func propertiesOf(r *http.Request) (meta map[string]string, has bool, err error) {
	v := r.Header.Get("x-ms-properties")
	if v == "" {
		return nil, false, nil
	}
	meta = map[string]string{}
	for item := range strings.SplitSeq(v, ",") {
		k, text, ok := strings.Cut(strings.TrimSpace(item), "=")
		b, err := base64.StdEncoding.DecodeString(text)
		if _, twice := meta[strings.ToLower(k)]; !ok || err != nil || twice {
			return nil, true, badHeader("x-ms-properties", v, "names with values in base64, each once, as a=dmFsdWU=,b=dmFsdWU=")
		}
		meta[strings.ToLower(k)] = string(b)
	}
	return meta, true, checkMeta(meta)
}

// jsonError is an error as the Data Lake endpoint writes it.
type jsonError struct {
	Error struct {
		Code    arm.Code `json:"code"`
		Message string   `json:"message"`
	} `json:"error"`
}

// pathCodes are the Data Lake endpoint's names of errors that blobs have too.
var pathCodes = map[arm.Code]arm.Code{
	"ContainerNotFound": "FilesystemNotFound", "ContainerAlreadyExists": "FilesystemAlreadyExists", "BlobNotFound": "PathNotFound", "BlobAlreadyExists": "PathAlreadyExists",
}
