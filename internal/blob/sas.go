package blob

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"castellan/internal/arm"
	"castellan/internal/condition"
	"castellan/internal/gate"
)

// A request is what a signature is held against.
type request struct {
	account   *account
	container string // "" if it is about the account
	blob      string // "" if it is about a container
	action    arm.Action
	list      bool // reads names, not bytes
	creates   bool // makes a blob, and can be held to change none
	breaks    bool // breaks a lease
	secure    bool // came by TLS
	peer      netip.Addr
	at        moment // of the blob
	dir       string // a directory signature must be for it, or for one above it
	root      bool   // about the root directory, not the container
	op        string // of the action, as access lists tell them apart
	adds      bool   // adds to the end of a file
	isDir     bool   // about a directory of a share
	mark      string // tells its signature from others in logs
}

// The first versions of signatures that are taken: older ones leave out what
// kind of thing they are for.
const (
	firstSAS      = "2018-11-09"
	directorySAS  = "2020-02-10"
	encryptionSAS = "2020-12-06"
	delegatedSAS  = "2025-07-05"
)

var versionForm = regexp.MustCompile(`^20[0-9]{2}-[01][0-9]-[0-3][0-9]$`)

// bySAS is the caller who shows the signature in q: a narrow lease, for this
// request alone.
func (s *Service) bySAS(ctx context.Context, rq request, q query) (arm.Caller, error) {
	if rq.account == nil {
		return arm.Caller{}, unauthentic("there is no such account")
	}
	for k, v := range q {
		if slices.Contains(sasNames, k) && strings.IndexFunc(v, unicode.IsControl) >= 0 {
			return arm.Caller{}, unauthentic("the signature's " + k + " has control characters")
		}
	}
	if v := q["sv"]; !versionForm.MatchString(v) || v < firstSAS {
		return arm.Caller{}, unauthentic("the signature's version (sv) must be " + firstSAS + " or a later date")
	}
	given, err := base64.StdEncoding.DecodeString(q["sig"])
	if err != nil || len(given) == 0 {
		return arm.Caller{}, unauthentic("the signature (sig) is not base64")
	}
	rq.mark = mark(given)
	switch {
	case q.only(accountNames):
		return s.byAccountSAS(rq, q, given)
	case q.only(serviceNames):
		return s.byServiceSAS(ctx, rq, q, given)
	case q.only(delegationNames):
		return s.byDelegation(ctx, rq, q, given)
	}
	return arm.Caller{}, unauthentic("the signature has parameters of more than one kind of signature, or lacks some")
}

// What the kinds of signatures may have. Those with an exclamation mark they
// must. What is not here would narrow a signature in ways that the platform
// can't hold it to: saoid, suoid, skdutid, sduoid, srh, srq, ses.
var (
	commonNames     = " sv! sig! st se sp sip spr"
	servedNames     = commonNames + " sr! rscc rscd rsce rscl rsct"
	accountNames    = commonNames + " ss! srt!"
	serviceNames    = servedNames + " si sdd"
	delegationNames = servedNames + " skoid! sktid! skt! ske! sks! skv! scid sdd saoid suoid"
)

// only reports whether the parameters of signatures in q are these.
func (q query) only(names string) bool {
	list := strings.Fields(names)
	for _, n := range list {
		if name, must := strings.CutSuffix(n, "!"); must && q[name] == "" {
			return false
		}
	}
	for k, v := range q {
		if v != "" && slices.Contains(sasNames, k) && !slices.Contains(list, k) && !slices.Contains(list, k+"!") {
			return false
		}
	}
	return true
}

// lines joins what a signature is over.
func (q query) lines(names ...string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = q[n]
	}
	return strings.Join(out, "\n")
}

// byAccountSAS is whoever has a signature over a whole account.
func (s *Service) byAccountSAS(rq request, q query, given []byte) (arm.Caller, error) {
	if !rq.account.sharedKey {
		return arm.Caller{}, noKeys()
	}
	text := rq.account.ID.Name() + "\n" + q.lines("sp", "ss", "srt", "st", "se", "sip", "spr", "sv") + "\n"
	if q["sv"] >= encryptionSAS {
		text += q["ses"] + "\n"
	}
	which := rq.account.signer(given, text)
	if which == 0 {
		return arm.Caller{}, unauthentic("the signature did not match")
	}
	if err := s.inForce(rq, q, q["st"], q["se"]); err != nil {
		return arm.Caller{}, err
	}
	service := "b"
	if rq.account.files {
		service = "f"
	}
	if !strings.Contains(q["ss"], service) {
		return arm.Caller{}, fail(http.StatusForbidden, "AuthorizationServiceMismatch", "This request is not authorized to perform this operation using this service.")
	}
	if !strings.Contains(q["srt"], rq.level()) {
		return arm.Caller{}, fail(http.StatusForbidden, "AuthorizationResourceTypeMismatch", "This request is not authorized to perform this operation using this resource type.")
	}
	return s.sasCaller(rq, rq.account.ID, "", which, rq.opens(q["sp"], true)), nil
}

// level is what the request is about, as account signatures name it.
func (rq request) level() string {
	switch {
	case rq.account.files && rq.list && rq.container != "":
		return "c"
	case rq.blob != "" || rq.root:
		return "o"
	case rq.container != "":
		return "c"
	}
	return "s"
}

// resource is what a service signature must be over, or an error.
func (rq request) resource(sr, depth string) (canonical string, err error) {
	path := "/blob/" + rq.account.ID.Name() + "/" + rq.container
	if rq.account.files {
		path = "/file/" + rq.account.ID.Name() + "/" + rq.container
		switch {
		case depth != "" || sr != "s" && sr != "f":
			return "", unauthentic("the signature's resource (sr) must be s or f")
		case sr == "s" && rq.container != "":
			return path, nil
		case sr == "f" && rq.blob != "" && !rq.isDir:
			return path + "/" + rq.blob, nil
		}
		return "", fail(http.StatusForbidden, "AuthorizationResourceTypeMismatch", "The signature is over a %s; this request is about more.", map[string]string{"s": "share", "f": "file"}[sr])
	}
	if (sr == "d") != (depth != "") || sr == "d" && !rq.account.hns {
		return "", unauthentic("the signature's resource (sr) is d and has a depth (sdd), or neither, and only accounts with a hierarchical namespace have directories")
	}
	switch {
	case sr == "d" && rq.container != "":
		dir, ok := rq.above(depth)
		if !ok {
			return "", fail(http.StatusForbidden, "AuthorizationResourceTypeMismatch", "The signature is over a directory; this request is about more.")
		}
		return path + "/" + dir, nil
	case sr == "c" && rq.container != "":
		return path, nil
	case sr == "b" && rq.blob != "" && rq.at.current(), sr == "bs" && rq.at.snapshot != "", sr == "bv" && rq.at.version != "":
		return path + "/" + rq.blob, nil
	case sr == "b" || sr == "c" || sr == "bs" || sr == "bv":
		return "", fail(http.StatusForbidden, "AuthorizationResourceTypeMismatch", "The signature is over a %s; this request is about more.", map[string]string{"b": "blob", "c": "container", "bs": "snapshot", "bv": "version"}[sr])
	}
	return "", unauthentic("the signature's resource (sr) must be b, bs, bv, c or d")
}

// above is the directory of that depth that the request is about, or lies in.
func (rq request) above(depth string) (dir string, ok bool) {
	n, err := strconv.Atoi(depth)
	segs := strings.Split(rq.dir, "/")
	if err != nil || n < 1 || strconv.Itoa(n) != depth || n > len(segs) || rq.dir == "" {
		return "", false
	}
	return strings.Join(segs[:n], "/"), true
}

// byServiceSAS is whoever has a signature over a container or blob, by an account key.
func (s *Service) byServiceSAS(ctx context.Context, rq request, q query, given []byte) (arm.Caller, error) {
	if !rq.account.sharedKey {
		return arm.Caller{}, noKeys()
	}
	canonical, err := rq.resource(q["sr"], q["sdd"])
	if err != nil {
		return arm.Caller{}, err
	}
	text := q.lines("sp", "st", "se") + "\n" + canonical + "\n"
	switch {
	case rq.account.files: // sr is not signed: a share's name has no slash
		text += q.lines("si", "sip", "spr", "sv") + "\n"
	case q["sv"] >= encryptionSAS:
		text += q.lines("si", "sip", "spr", "sv", "sr") + "\n" + q.signedMoment() + "\n" + q["ses"] + "\n"
	default:
		text += q.lines("si", "sip", "spr", "sv", "sr") + "\n" + q.signedMoment() + "\n"
	}
	text += q.lines("rscc", "rscd", "rsce", "rscl", "rsct")
	which := rq.account.signer(given, text)
	if which == 0 {
		return arm.Caller{}, unauthentic("the signature did not match")
	}
	start, expiry, perms := q["st"], q["se"], q["sp"]
	if id := q["si"]; id != "" {
		pol, err := s.findPolicy(ctx, place{account: rq.account, container: rq.container}, id)
		if err != nil {
			return arm.Caller{}, err
		}
		for _, x := range []struct {
			said   *string
			stored string
		}{{&start, pol.Start}, {&expiry, pol.Expiry}, {&perms, pol.Permissions}} {
			if *x.said != "" && x.stored != "" {
				return arm.Caller{}, unauthentic("the signature and its stored access policy both name the same field")
			}
			*x.said = *x.said + x.stored
		}
		// That a policy lets only make and not change could not be told from the
		// query later, so c of a policy does not count.
		rq.creates = rq.creates && q["sp"] != ""
	}
	if err := s.inForce(rq, q, start, expiry); err != nil {
		return arm.Caller{}, err
	}
	scope, item := rq.within(q["sr"])
	return s.sasCaller(rq, scope, item, which, rq.opens(perms, false)), nil
}

// within is what a signature over a container or a blob opens.
func (rq request) within(sr string) (scope arm.ID, item string) {
	if sr != "c" && sr != "s" { // of a directory it is the path that the request is about
		item = rq.blob
	}
	if rq.account.files {
		item = fold(item)
	}
	return rq.account.containerID(rq.container), item
}

// inForce holds a signature's times, protocol and addresses against the request.
func (s *Service) inForce(rq request, q query, start, expiry string) error {
	end, ok := sasTime(expiry)
	if !ok {
		return unauthentic("the signature has no expiry (se) in a form such as 2026-01-02T15:04:05Z")
	}
	begin, ok := sasTime(start)
	if start != "" && !ok {
		return unauthentic("the signature's start (st) must be as 2026-01-02T15:04:05Z")
	}
	now := s.Now()
	if !now.Before(end) || start != "" && now.Before(begin) {
		return unauthentic("the signature is not in force: it is from " + text(start, "ever") + " to " + expiry)
	}
	switch q["spr"] {
	case "", "https,http", "http,https":
	case "https":
		if !rq.secure {
			return fail(http.StatusForbidden, "AuthorizationProtocolMismatch", "This request is not authorized to perform this operation using this protocol.")
		}
	default:
		return unauthentic("the signature's protocol (spr) must be https or https,http")
	}
	if v, has := q["sip"]; has && !addressIn(rq.peer, v) {
		return fail(http.StatusForbidden, "AuthorizationSourceIPMismatch", "This request is not authorized to perform this operation using this source IP.")
	}
	return nil
}

// addressIn reports whether a is the address, or in the range, that sip names.
func addressIn(a netip.Addr, sip string) bool {
	first, last, ranged := strings.Cut(sip, "-")
	if !ranged {
		last = first
	}
	lo, err := netip.ParseAddr(first)
	hi, err2 := netip.ParseAddr(last)
	a = a.Unmap()
	return err == nil && err2 == nil && a.IsValid() && lo.BitLen() == a.BitLen() && hi.BitLen() == a.BitLen() && lo.Compare(a) <= 0 && a.Compare(hi) <= 0
}

// permitted reports whether permissions, in letters, allow the request.
func (rq request) permitted(perms string, wholeAccount bool) bool {
	has := func(letters string) bool { return strings.ContainsAny(perms, letters) }
	switch rq.action.Key() {
	case BlobRead.Key():
		switch {
		case rq.list:
			return has("l")
		case rq.op == opAccess:
			return has("e")
		}
		return has("r") || rq.op == opStat && rq.account.hns && has("e")
	case BlobWrite.Key():
		return has("w") || rq.creates && has("c") || rq.breaks && has("d") || rq.adds && has("a")
	case BlobMove.Key():
		return has("m")
	case BlobPermissions.Key():
		return has("p")
	case BlobOwnership.Key():
		return has("o")
	case BlobAdd.Key():
		return has("aw")
	case BlobDelete.Key():
		return has("d")
	case BlobDeleteVersion.Key():
		return has("x")
	case BlobDeletePermanent.Key():
		return has("y")
	case BlobTagsRead.Key(), BlobTagsWrite.Key():
		return has("t")
	case BlobFilter.Key():
		return has("f")
	case FileRead.Key():
		return rq.list && has("l") || !rq.list && has("r")
	case FileWrite.Key():
		return has("w") || rq.creates && has("c") || rq.breaks && has("d")
	case FileDelete.Key():
		return has("d")
	}
	if !wholeAccount {
		return false // no service signature opens a container or service itself
	}
	switch rq.action.Key() {
	case ContainerRead.Key(), ShareRead.Key():
		return rq.list && has("l") || !rq.list && has("r")
	case ContainerWrite.Key(), ShareWrite.Key():
		return has("w") || rq.creates && has("c")
	case ContainerDelete.Key(), ShareDelete.Key():
		return has("d")
	case ServiceRead.Key(), FileServiceRead.Key():
		return has("r")
	case ServiceWrite.Key(), FileServiceWrite.Key():
		return has("w")
	}
	return false
}

// onlyCreates reports whether the signature lets make but not change.
func (q query) onlyCreates() bool {
	return q["sig"] != "" && q["si"] == "" && strings.Contains(q["sp"], "c") && !strings.Contains(q["sp"], "w")
}

// sasCaller is whoever has a signature, with a lease for this request's action
// if that is permitted, else for none.
func (s *Service) sasCaller(rq request, scope arm.ID, item string, which int, permitted []arm.Action) arm.Caller {
	c := s.keyCaller(rq.account, which)
	c.Token, c.Lease = "sas", leash(scope, item, permitted, rq.mark+" by "+c.Lease.Why)
	c.Name = "whoever has " + c.Lease.Why
	return c
}

// mark is what logs call a signature: whoever has the signature can work it out, and
// nobody the signature from it.
func mark(sig []byte) string {
	sum := sha256.Sum256(sig)
	return "the signature with SHA-256 " + hex.EncodeToString(sum[:8])
}

func leash(scope arm.ID, item string, permitted []arm.Action, why string) *arm.Lease {
	return &arm.Lease{Scope: scope, Item: item, Why: why, Actions: permitted}
}

// opens are the actions that permissions, in letters, allow the request: its own,
// and with it what it does to tags.
func (rq request) opens(perms string, wholeAccount bool) []arm.Action {
	if !rq.permitted(perms, wholeAccount) {
		return nil
	}
	out := []arm.Action{rq.action}
	if rq.account.files {
		return append(out, FileBackupRead, FileBackupWrite) // each is asked for beside an action of its kind
	}
	if strings.Contains(perms, "t") {
		out = append(out, BlobTagsRead, BlobTagsWrite)
	}
	for letter, also := range map[string]arm.Action{"m": BlobMove, "p": BlobPermissions, "o": BlobOwnership} {
		if rq.account.hns && strings.Contains(perms, letter) {
			out = append(out, also)
		}
	}
	return out
}

// longestDelegation is how long a user delegation key may live.
const longestDelegation = 7 * 24 * time.Hour

// delegation is what a user delegation key is made of.
func (q query) delegation() string {
	return q.lines("skoid", "sktid", "skt", "ske", "sks", "skv")
}

func (a *account) delegationKey(of query) []byte {
	return hmacOf(a.Delegation, "user delegation\n"+of.delegation())
}

// delegated are the texts that a user delegation signature of this version may
// be over. They differ in how many lines they have, and no value has a line
// break, so one text is never two signatures.
func (q query) delegated(canonical string) []string {
	head := q.lines("sp", "st", "se") + "\n" + canonical + "\n" + q.lines("skoid", "sktid", "skt", "ske", "sks", "skv") + "\n"
	tail := q.lines("sip", "spr", "sv", "sr") + "\n" + q.signedMoment() + "\n"
	rsc := q.lines("rscc", "rscd", "rsce", "rscl", "rsct")
	v := q["sv"]
	if v < directorySAS {
		return []string{head + tail + rsc}
	}
	head += q.lines("saoid", "suoid", "scid") + "\n"
	if v < encryptionSAS {
		return []string{head + tail + rsc}
	}
	tail += q["ses"] + "\n"
	if v < delegatedSAS {
		return []string{head + tail + rsc}
	}
	head += q.lines("skdutid", "sduoid") + "\n"
	return []string{head + tail + rsc, head + tail + q.lines("srh", "srq") + "\n" + rsc}
}

// signedMoment is the snapshot or version that a signature for one alone names.
func (q query) signedMoment() string {
	switch q["sr"] {
	case "bs":
		return q["snapshot"]
	case "bv":
		return q["versionid"]
	}
	return ""
}

// byDelegation is whoever has a signature that somebody made of their own
// rights. It can do what it says and the signer may at this moment.
func (s *Service) byDelegation(ctx context.Context, rq request, q query, given []byte) (arm.Caller, error) {
	if rq.account.files {
		return arm.Caller{}, unauthentic("file shares take no user delegation signatures here")
	}
	canonical, err := rq.resource(q["sr"], q["sdd"])
	if err != nil {
		return arm.Caller{}, err
	}
	key := rq.account.delegationKey(q)
	good := false
	for _, text := range q.delegated(canonical) {
		good = equal(given, hmacOf(key, text)) || good
	}
	if !good {
		return arm.Caller{}, unauthentic("the signature did not match")
	}
	if err := s.keyInForce(q); err != nil {
		return arm.Caller{}, err
	}
	if err := s.inForce(rq, q, q["st"], q["se"]); err != nil {
		return arm.Caller{}, err
	}
	if s.Signer == nil || s.May == nil {
		return arm.Caller{}, unauthentic("this installation takes no user delegation signatures")
	}
	c, err := s.Signer(ctx, q["sktid"], q["skoid"])
	if err != nil || c.IsZero() || c.Lease != nil {
		return arm.Caller{}, unauthentic("the signer is not there any more, or may not sign in")
	}
	scope, item := rq.within(q["sr"])
	l := leash(scope, item, rq.opens(q["sp"], false), rq.mark+" by "+text(c.Name, c.Object)+", as far as their own roles go,")
	if err := s.actsFor(ctx, rq, q, c, l); err != nil {
		return arm.Caller{}, err
	}
	c.Token, c.Lease = "sas", l
	return c, nil
}

// actsFor leaves of what a signature permits what its signer may: by roles, else by
// access lists. Somebody whom it names without a vow for them (suoid) must be let in
// by access lists besides; one whom it vouches for (saoid) owns what is made.
func (s *Service) actsFor(ctx context.Context, rq request, q query, signer arm.Caller, l *arm.Lease) error {
	vouched, held := q["saoid"], q["suoid"]
	switch {
	case vouched == "" && held == "":
	case vouched != "" && held != "" || !guidForm.MatchString(vouched+held):
		return unauthentic("the signature may name one object id, in saoid or suoid")
	case !rq.account.hns:
		return unauthentic("only accounts with a hierarchical namespace take signatures with saoid or suoid")
	}
	by := func(who arm.Caller, a arm.Action) bool {
		if s.Gate == nil || s.Gate.Lists == nil {
			return false
		}
		ok, _ := s.Gate.Lists(who, a, rq.target())
		return ok
	}
	var roles, listed []arm.Action
	for _, a := range l.Actions {
		if s.May(signer, a, l.Scope) {
			roles = append(roles, a)
		} else if by(signer, a) {
			listed = append(listed, a)
		}
	}
	l.Actions, l.For = roles, text(vouched, text(held, signer.Object))
	switch {
	case held != "":
		who, err := s.Signer(ctx, q["sktid"], held)
		if err != nil || who.IsZero() {
			return unauthentic("whom the signature is for (suoid) is not there any more, or may not sign in")
		}
		l.Listed = true
		l.Actions = slices.DeleteFunc(roles, func(a arm.Action) bool { return !by(who, a) })
		l.Why += " for " + held
	case vouched != "":
		l.Why += " for " + vouched
	case !slices.ContainsFunc(roles, rq.action.Is) && len(listed) > 0: // then what is done is held against the lists again
		l.Actions, l.Listed = listed, true
	}
	return nil
}

// target is what the request is about, as access lists are asked.
func (rq request) target() gate.Target {
	t := gate.Target{ID: rq.account.containerID(rq.container), Item: rq.blob, Op: rq.op}
	if rq.list {
		t.Op = opList
		t.Attributes = func() *condition.Attributes {
			return &condition.Attributes{Request: map[string]any{attrPrefix: rq.dir + "/"}}
		}
	}
	return t
}

// keyInForce holds a user delegation key against the time.
func (s *Service) keyInForce(q query) error {
	begin, ok := sasTime(q["skt"])
	end, ok2 := sasTime(q["ske"])
	now := s.Now()
	switch {
	case !ok || !ok2 || q["sks"] != "b" || !versionForm.MatchString(q["skv"]):
		return unauthentic("the user delegation key is malformed")
	case end.Sub(begin) > longestDelegation:
		return unauthentic("the user delegation key lives for more than 7 days")
	case now.Before(begin) || !now.Before(end):
		return unauthentic("the user delegation key is not in force: it is from " + q["skt"] + " to " + q["ske"])
	}
	return nil
}
