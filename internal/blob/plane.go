package blob

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// cancelled lets data of a cancelled subscription be read and nothing else, as Azure does.
func cancelled(a arm.Action) error {
	if strings.HasSuffix(a.Key(), "/read") || strings.HasSuffix(a.Key(), "/getacl/action") || a.Is(BlobFilter) {
		return nil
	}
	return fail(http.StatusForbidden, "AccountIsDisabled", "The specified account is disabled: its subscription was cancelled, so that data can be read and not changed.")
}

// Plane is the face of the accounts' blobs, on one host per account.
func (s *Service) Plane() *gate.Plane {
	p := &gate.Plane{
		Name:  "blob",
		Host:  func(host string) bool { return arm.Label(host, "blob."+s.Site.StorageSuffix()) != "" },
		Query: doorOf,
		// A lock on an account holds what Resource Manager does, never its data.
		Unlocked:  func(arm.Action) bool { return true },
		Cancelled: cancelled,
		Refuse:    s.refuse,
	}
	p.Pass = s.pass
	p.Who = func(r *http.Request) (arm.Caller, error) { return s.who(p, r) }
	const container, blob = "/{container}", "/{container}/{blob...}"
	p.Routes = []gate.Route{
		gate.On(ContainerRead, "GET /?comp=list", s.atService, s.serve(s.listContainers)),
		gate.On(BlobFilter, "GET /?comp=blobs", s.atService, s.serve(s.findBlobs, "where")),
		gate.On(ServiceRead, "GET /?restype=service&comp=properties", s.atService, s.serve(s.getServiceProperties)),
		gate.On(ServiceWrite, "PUT /?restype=service&comp=properties", s.atService, s.serve(s.setServiceProperties)),
		gate.On(ServiceRead, "GET /?restype=service&comp=stats", s.atService, s.serve(s.getServiceStats)),
		gate.Public(batchWhy, "POST /?comp=batch", s.batch(p)),
		gate.Public(batchWhy, "POST "+container+"?restype=container&comp=batch", s.batch(p)),
		gate.On(DelegationKey, "POST /?restype=service&comp=userdelegationkey", s.atService, s.serve(s.getUserDelegationKey)),

		gate.On(ContainerWrite, "PUT "+container+"?restype=container", s.atContainer, s.serve(s.createContainer)),
		gate.On(ContainerRead, "GET "+container+"?restype=container", s.atContainer, s.serve(s.getContainer)),
		gate.On(ContainerRead, "HEAD "+container+"?restype=container", s.atContainer, s.serve(s.getContainer)),
		gate.On(ContainerRead, "GET "+container+"?restype=container&comp=metadata", s.atContainer, s.serve(s.getContainer)),
		gate.On(ContainerRead, "HEAD "+container+"?restype=container&comp=metadata", s.atContainer, s.serve(s.getContainer)),
		gate.On(ContainerWrite, "PUT "+container+"?restype=container&comp=metadata", s.atContainer, s.serve(s.setContainerMeta)),
		gate.On(ContainerWrite, "PUT "+container+"?restype=container&comp=lease", s.atContainer, s.serve(s.leaseOfContainer)),
		gate.On(PolicyRead, "GET "+container+"?restype=container&comp=acl", s.atContainer, s.serve(s.getPolicies)),
		gate.On(PolicyRead, "HEAD "+container+"?restype=container&comp=acl", s.atContainer, s.serve(s.getPolicies)),
		gate.On(PolicyWrite, "PUT "+container+"?restype=container&comp=acl", s.atContainer, s.serve(s.putPolicies)),
		gate.On(ContainerWrite, "PUT "+container+"?restype=container&comp=undelete", s.atContainer, s.serve(s.restoreContainer)),
		gate.On(ContainerDelete, "DELETE "+container+"?restype=container", s.atContainer, s.serve(s.deleteContainer)),
		gate.On(BlobRead, "GET "+container+"?restype=container&comp=list", s.atContainer, s.serve(s.listBlobs, "showonly")),

		gate.On(BlobFilter, "GET "+container+"?restype=container&comp=blobs", s.atContainer, s.serve(s.findBlobs, "where")),

		gate.Stream(BlobRead, "GET "+blob, s.atBlob, s.serve(s.getBlob, reading...)),
		gate.On(BlobRead, "HEAD "+blob, s.atBlob, s.serve(s.headBlob, reading...)),
		gate.Stream(BlobWrite, "PUT "+blob, s.atBlob, s.serve(s.putBlob, making...)),
		gate.On(BlobDelete, "DELETE "+blob, s.atBlob, s.serve(s.deleteBlob, "snapshot", ifTags)),
		gate.On(BlobDeletePermanent, "DELETE "+blob+"?deletetype=permanent", s.atBlob, s.serve(s.deletePermanently, "snapshot", "versionid", "deletetype")),
		gate.On(BlobDeleteVersion, "DELETE "+blob+"?versionid", s.atBlob, s.serve(s.deleteBlob, "versionid", ifTags)),
		gate.On(BlobWrite, "PUT "+blob+"?comp=snapshot", s.atBlob, s.serve(s.snapshotBlob, ifTags)),
		gate.On(BlobWrite, "PUT "+blob+"?comp=seal", s.atBlob, s.serve(s.sealBlob, ifTags)),
		gate.On(BlobWrite, "PUT "+blob+"?comp=undelete", s.atBlob, s.serve(s.undeleteBlob)),
		gate.Stream(BlobWrite, "PUT "+blob+"?comp=block", s.atBlob, s.serve(s.putBlockOf, from...)),
		gate.On(BlobWrite, "PUT "+blob+"?comp=blocklist", s.atBlob, s.serve(s.putBlockList, ifTags, "x-ms-tags", "x-ms-access-tier")),
		gate.On(BlobRead, "GET "+blob+"?comp=blocklist", s.atBlob, s.serve(s.getBlockList)),
		gate.Stream(BlobAdd, "PUT "+blob+"?comp=appendblock", s.atBlob, s.serve(s.appendBlock, append(from, ifTags)...)),
		gate.Stream(BlobWrite, "PUT "+blob+"?comp=page", s.atBlob, s.serve(s.putPage, append(from, ifTags)...)),
		gate.On(BlobRead, "GET "+blob+"?comp=pagelist", s.atBlob, s.serve(s.getPages, "snapshot", "prevsnapshot", ifTags)),
		gate.On(BlobRead, "GET "+blob+"?comp=metadata", s.atBlob, s.serve(s.getBlobMeta, reading...)),
		gate.On(BlobRead, "HEAD "+blob+"?comp=metadata", s.atBlob, s.serve(s.getBlobMeta, reading...)),
		gate.On(BlobWrite, "PUT "+blob+"?comp=metadata", s.atBlob, s.serve(s.setBlobMeta, ifTags)),
		gate.On(BlobWrite, "PUT "+blob+"?comp=lease", s.atBlob, s.serve(s.leaseOfBlob, ifTags)),
		gate.On(BlobWrite, "PUT "+blob+"?comp=properties", s.atBlob, s.serve(s.setBlobHeaders, ifTags)),
		gate.On(BlobWrite, "PUT "+blob+"?comp=tier", s.atBlob, s.serve(s.setBlobTier, "snapshot", "versionid", ifTags, "x-ms-access-tier", "x-ms-rehydrate-priority")),
		gate.On(BlobWrite, "PUT "+blob+"?comp=copy", s.atBlob, s.serve(s.abortCopy, "copyid")),
		gate.On(BlobTagsRead, "GET "+blob+"?comp=tags", s.atBlob, s.serve(s.getTags, reading...)),
		gate.On(BlobTagsWrite, "PUT "+blob+"?comp=tags", s.atBlob, s.serve(s.putTags, "versionid", ifTags)),
	}
	for _, x := range []struct {
		path   string
		locate gate.Locate
	}{{"/", s.atService}, {container, s.atContainer}, {blob, s.atBlob}} {
		p.Routes = append(p.Routes, gate.Public(preflightWhy, "OPTIONS "+x.path+"?preflight", s.preflight),
			gate.On(ServiceRead, "GET "+x.path+"?restype=account&comp=properties", x.locate, s.serve(s.getAccountInfo)),
			gate.On(ServiceRead, "HEAD "+x.path+"?restype=account&comp=properties", x.locate, s.serve(s.getAccountInfo)))
	}
	return p
}

// tenant is the one that people of the request's account sign in to.
func (s *Service) tenant(r *http.Request) string {
	if a := s.at(r.Host); a != nil {
		return s.Site.TenantOf(a.ID)
	}
	return s.Site.Tenant
}

// accountOf is the account name in a host, or "".
func (s *Service) accountOf(host string) string {
	return text(arm.Label(host, "blob."+s.Site.StorageSuffix()), text(arm.Label(host, "dfs."+s.Site.StorageSuffix()), arm.Label(host, "file."+s.Site.StorageSuffix())))
}

// who proves who is calling: by a token, an account key, or a signature.
func (s *Service) who(p *gate.Plane, r *http.Request) (arm.Caller, error) {
	if r.TLS == nil {
		return arm.Caller{}, fail(http.StatusBadRequest, "AccountRequiresHttps", "The account being accessed does not support http.")
	}
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return arm.Caller{}, err
	}
	given := r.Header.Values("Authorization")
	_, signed := q["sig"]
	if len(given) > 1 || len(given) == 1 && signed {
		return arm.Caller{}, fail(http.StatusBadRequest, "InvalidAuthenticationInfo", "The request shows more than one credential.")
	}
	if signed {
		return s.bySAS(r.Context(), s.requestOf(p, r), q)
	}
	if len(given) == 0 {
		return arm.Caller{}, arm.Errorf(arm.Unauthenticated, "Server failed to authenticate the request. Please refer to the information in the www-authenticate header.")
	}
	scheme, credentials, _ := strings.Cut(given[0], " ")
	switch {
	case scheme == "SharedKey", scheme == "SharedKeyLite":
		return s.bySharedKey(s.at(r.Host), scheme, credentials, r, q)
	case s.Who == nil:
		return arm.Caller{}, arm.Errorf(arm.Unauthenticated, "these accounts take no tokens")
	}
	return s.Who(r)
}

// requestOf is what a signature is held against. It finds the door as the gate
// does, so both speak of one thing.
func (s *Service) requestOf(p *gate.Plane, r *http.Request) request {
	rt, v, _, err := p.Find(r)
	if err != nil {
		return request{}
	}
	if byDFS(s, r) {
		return s.pathRequest(r, rt, v)
	}
	if s.fileHost(r.Host) {
		return s.fileRequest(r, rt, v)
	}
	door := doorOf(r)
	rq := request{
		account: s.at(r.Host), container: v["container"], blob: v["blob"], action: rt.Action,
		list: strings.HasSuffix(door, "comp=list"), secure: r.TLS != nil, peer: peerOf(r), dir: v["blob"],
	}
	if q, err := parseQuery(r.URL.RawQuery); err == nil {
		rq.at = moment{q["snapshot"], q["versionid"]}
		if rq.list {
			rq.dir = directoryOf(q["prefix"])
		}
	}
	if rq.blob != "" && r.Method == http.MethodHead {
		rq.op = opStat
	}
	rq.breaks = door == "comp=lease" && strings.EqualFold(r.Header.Get("x-ms-lease-action"), "break")
	rq.creates = r.Method == http.MethodPut && (door == "" || door == "comp=block" || door == "comp=blocklist" || door == "comp=snapshot" || door == "restype=container")
	return rq
}

// peerOf is the address at the other end of the connection; no header counts.
func peerOf(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr()
}

func (s *Service) atService(r *http.Request, _ gate.Vars) (gate.Target, error) {
	a := s.at(r.Host)
	if a == nil {
		return gate.Target{}, noAccount(s.accountOf(r.Host))
	}
	return gate.Target{ID: a.service()}, nil
}

func (s *Service) atContainer(r *http.Request, v gate.Vars) (gate.Target, error) {
	a := s.at(r.Host)
	if a == nil {
		return gate.Target{}, noAccount(s.accountOf(r.Host))
	}
	if err := CheckContainerName(v["container"]); err != nil {
		return gate.Target{}, err
	}
	t := gate.Target{ID: a.containerID(v["container"])}
	if a.files {
		return t, nil
	}
	t.Attributes = s.attributes(r, t.ID, "")
	if strings.HasSuffix(doorOf(r), "comp=list") {
		t.Op = opList
	}
	return t, nil
}

func (s *Service) atBlob(r *http.Request, v gate.Vars) (gate.Target, error) {
	t, err := s.atContainer(r, v)
	if err != nil {
		return t, err
	}
	t.Item = v["blob"]
	t.Attributes = s.attributes(r, t.ID, t.Item)
	if r.Method == http.MethodHead {
		t.Op = opStat
	}
	return t, place{account: s.byID(t.ID.Parent().Parent()), blob: t.Item}.checkName()
}

// exchange is one request that was let in, and its answer.
type exchange struct {
	w http.ResponseWriter
	r *http.Request
	g gate.Grant
	q query
	s *Service
}

// lastVersion is what requests without a version are answered with.
const lastVersion = "2021-12-02"

// ifTags is the header with a condition on a blob's tags.
const ifTags = "x-ms-if-tags"

// What doors take besides: those that read a blob, and those that make one.
var (
	reading = []string{"snapshot", "versionid", ifTags}
	making  = []string{ifTags, "x-ms-tags", "x-ms-access-tier", "x-ms-copy-source", "x-ms-copy-source-authorization", "x-ms-source-content-md5", "x-ms-source-content-crc64", "x-ms-source-if-tags", "x-ms-seal-blob"}
	from    = []string{"x-ms-copy-source", "x-ms-copy-source-authorization", "x-ms-source-content-md5", "x-ms-source-content-crc64", "x-ms-source-range", "x-ms-source-if-tags"}
)

// rareQuery and rareHeaders are what only some doors take. What a door does not
// name is refused there, for it would change what is done.
var (
	rareQuery = []string{"snapshot", "prevsnapshot", "versionid", "sharesnapshot", "prevsharesnapshot", "showonly", "where", "startfrom", "endbefore", "deletetype", "copyid", "tier", "qt",
		"resource", "recursive", "directory", "continuation", "upn", "action", "position", "retainuncommitteddata", "close", "flush", "mode", "maxrecords", "forceflag", "paginated", "beginfrom"}
	rareHeaders = append([]string{ifTags, "x-ms-tags", "x-ms-access-tier", "x-ms-rehydrate-priority", "x-ms-seal-blob"}, from...)
)

// serve reads what all requests have in common. takes are the rare parameters and
// headers of the door.
func (s *Service) serve(do func(x exchange) error, takes ...string) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		q, err := parseQuery(r.URL.RawQuery)
		if err != nil {
			return err
		}
		x := exchange{w, r, g, q, s}
		if err := x.supported(takes); err != nil {
			return err
		}
		x.identify()
		x.cors()
		if err := x.rights(); err != nil {
			return err
		}
		return do(x)
	}
}

// identify repeats what tells a client which answer this is.
func (x exchange) identify() {
	h := x.w.Header()
	h.Set("x-ms-version", x.s.versionOf(x.r))
	if h.Get("x-ms-request-id") == "" {
		h.Set("x-ms-request-id", arm.NewHex())
	}
	if c := x.r.Header.Get("x-ms-client-request-id"); c != "" && len(c) <= 128 {
		h.Set("x-ms-client-request-id", c)
	}
}

func (s *Service) versionOf(r *http.Request) string {
	if v := r.Header.Get("x-ms-version"); versionForm.MatchString(v) {
		return v
	}
	if q, err := parseQuery(r.URL.RawQuery); err == nil && versionForm.MatchString(q["sv"]) {
		return q["sv"]
	}
	if a := s.at(r.Host); a != nil {
		return text(a.rules.version, lastVersion)
	}
	return lastVersion
}

// refusedHeaders ask for what the platform does not do.
var refusedHeaders = []string{
	"x-ms-encryption-key", "x-ms-encryption-scope", "x-ms-structured-body", "x-ms-legal-hold",
	"x-ms-immutability-policy-until-date", "x-ms-previous-snapshot-url", "x-ms-immutability-policy-mode",
	"x-ms-default-encryption-scope", "x-ms-copy-source-tag-option",
}

// rights asks for those to tags, if the request speaks of any.
func (x exchange) rights() error {
	if x.files() {
		return x.intends()
	}
	if x.r.Header.Get(ifTags) != "" {
		if err := x.also(BlobTagsRead); err != nil {
			return err
		}
	}
	if x.r.Header.Get("x-ms-tags") != "" {
		return x.also(BlobTagsWrite)
	}
	return nil
}

func (x exchange) supported(takes []string) error {
	if v := x.r.Header.Get("x-ms-version"); v != "" && !versionForm.MatchString(v) {
		return badHeader("x-ms-version", v, "a date such as 2021-12-02")
	}
	for _, n := range refusedHeaders {
		if x.r.Header.Get(n) != "" {
			return unsupportedHeader(n)
		}
	}
	if err := x.inTree(); err != nil {
		return err
	}
	if x.files() {
		if err := x.ofFiles(); err != nil {
			return err
		}
	}
	for _, n := range rareHeaders {
		if x.r.Header.Get(n) != "" && !slices.Contains(takes, n) {
			return unsupportedHeader(n)
		}
	}
	for _, n := range rareQuery {
		if v, ok := x.q[n]; ok && !slices.Contains(takes, n) {
			return fail(http.StatusBadRequest, "UnsupportedQueryParameter", "The query parameter %s (%q) is not supported by this operation here.", n, v)
		}
	}
	return nil
}

// xmlError is an error as the storage protocol writes it.
type xmlError struct {
	XMLName xml.Name `xml:"Error"`
	Code    arm.Code
	Message string
}

// refuse writes err as Azure's storage does.
func (s *Service) refuse(w http.ResponseWriter, r *http.Request, err error) {
	x := exchange{w: w, r: r, s: s}
	x.identify()
	x.cors()
	w = x.w
	code, message := gate.PublicError(err)
	status := gate.Status(err)
	code, message, status = s.translate(r, code, message, status)
	if to, ok := pathCodes[code]; ok && x.dfs() {
		code, message = to, strings.NewReplacer("specified blob", "specified path", "container", "filesystem").Replace(message)
	}
	if to, ok := fileCodes[code]; ok && x.files() {
		code, message = to, strings.NewReplacer("specified blob", "specified resource", "container", "share").Replace(message)
	}
	if code == "DirectoryNotEmpty" && !x.dfs() && !x.files() {
		code, message = "DirectoryIsNotEmpty", "This operation is not permitted on a non-empty directory."
	}
	if status >= 500 && serious(err) {
		s.Log.Error("a request to a storage account failed", "request", w.Header().Get("x-ms-request-id"), "account", s.accountOf(r.Host), "error", err)
	}
	h := w.Header()
	h.Set("x-ms-error-code", string(code))
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer authorization_uri="+s.Site.Base()+"/"+s.tenant(r)+"/oauth2/authorize resource_id="+s.Site.StorageAudiences()[0])
	}
	for _, n := range []string{"Content-Length", "Content-Encoding", "Content-Language", "Content-Disposition", "Content-MD5", "ETag"} {
		h.Del(n)
	}
	if r.Method == http.MethodHead || status == http.StatusNotModified {
		h.Del("Content-Type")
		w.WriteHeader(status)
		return
	}
	message += fmt.Sprintf("\nRequestId:%s\nTime:%s", h.Get("x-ms-request-id"), s.Now().UTC().Format(time.RFC3339Nano))
	if x.dfs() {
		var out jsonError
		out.Error.Code, out.Error.Message = code, message
		gate.WriteJSON(w, status, out)
		return
	}
	writeXML(w, status, xmlError{Code: code, Message: message})
}

// translate gives errors that the whole platform has the names they have here.
func (s *Service) translate(r *http.Request, code arm.Code, message string, status int) (arm.Code, string, int) {
	switch code {
	case arm.Unauthenticated, arm.WrongTenant:
		if code = "InvalidAuthenticationInfo"; r.Header.Get("Authorization") == "" {
			code = "NoAuthenticationInformation"
		}
	case arm.Forbidden:
		code, message = "AuthorizationPermissionMismatch", "This request is not authorized to perform this operation using this permission. "+message
	case arm.Internal:
		code = "InternalError"
	case arm.PreconditionFailed:
		code = "ConditionNotMet"
	case arm.TooLarge:
		code = "RequestBodyTooLarge"
	case arm.MethodNotAllowed:
		code, message = "UnsupportedHttpVerb", "The resource doesn't support the HTTP verb "+r.Method+" with these query parameters."
	case "InvalidResourceType": // no door has the request
		q, err := parseQuery(r.URL.RawQuery)
		if err != nil {
			code, message = gate.PublicError(err)
			return code, message, gate.Status(err)
		}
		code, status = "UnsupportedQueryParameter", http.StatusBadRequest
		message = fmt.Sprintf("There is no operation %s with restype %q and comp %q on this path here.", r.Method, q["restype"], q["comp"])
		if q.door() == "" {
			code, message = "InvalidUri", "The requested URI does not represent any resource on the server."
		}
	}
	return code, message, status
}

func writeXML(w http.ResponseWriter, status int, v any) {
	b, err := xml.Marshal(v)
	if err != nil { // only for values that the program itself made wrong
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("Content-Length", fmt.Sprint(len(xml.Header)+len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(append([]byte(xml.Header), b...)) // the client may have gone
}
