package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"castellan/internal/access"
	"castellan/internal/arm"
	"castellan/internal/gate"
)

// verified is a token whose signature, times and issuer were found good. What
// can change while it lives is looked at on every call.
type verified struct {
	key                        *signingKey
	expires                    time.Time
	tenant, object, app        string
	audience, family, evidence string
	epoch                      int
	amr, shown                 []string
	proofs                     access.Proofs // which shown tells
	loan, sandbox              string
	device                     bool          // signed in with a device code
	kind                       access.Client // signed in with
	contexts                   []string      // authentication contexts
	cp1                        bool          // the client can answer claims challenges
	issued                     time.Time
	scp                        []string
}

// maxVerified is how many tokens are remembered at most.
const maxVerified = 20_000

// tokenCache remembers verified tokens by the hash of exactly their text.
type tokenCache struct {
	mu sync.RWMutex // guards m
	m  map[[sha256.Size]byte]*verified
}

func (c *tokenCache) get(k [sha256.Size]byte) *verified {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.m[k]
}

func (c *tokenCache) put(k [sha256.Size]byte, v *verified, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.m) >= maxVerified {
		for k, v := range c.m {
			if now.After(v.expires) {
				delete(c.m, k)
			}
		}
	}
	if len(c.m) >= maxVerified {
		clear(c.m)
	}
	c.m[k] = v
}

// VerifyToken is the caller that an access token for one of the audiences
// proves, of any tenant. Whether the caller still exists and is enabled, and
// the groups, are read from the directory each time.
func (s *Service) VerifyToken(ctx context.Context, raw string, audiences []string) (arm.Caller, error) {
	now := s.Now()
	v, err := s.open(raw, now)
	if err != nil {
		return arm.Caller{}, refuseToken(err)
	}
	if !slices.Contains(audiences, strings.TrimSuffix(v.audience, "/")) {
		return arm.Caller{}, arm.Errorf(arm.Unauthenticated, "The access token has been obtained for wrong audience or resource '%s'. It should exactly match with one of the allowed audiences '%s'.",
			printable(v.audience), strings.Join(audiences, "','"))
	}
	if v.sandbox != "" && v.sandbox != gate.Origin(ctx) {
		return arm.Caller{}, refuseToken(badToken("it is bound to a sandbox and comes from elsewhere"))
	}
	c, err := s.living(v)
	if err != nil {
		return arm.Caller{}, s.challenge(v, err)
	}
	return c, nil
}

// challenge words why a token that was good is so no more. A client that can
// answer is told to get a newer one, at which all that holds now is asked.
func (s *Service) challenge(v *verified, err error) error {
	if !v.cp1 {
		return refuseToken(err)
	}
	newer := map[string]any{"nbf": map[string]any{"essential": true, "value": strconv.FormatInt(s.Now().Unix(), 10)}}
	return &arm.Error{Code: arm.Unauthenticated, Message: "The access token is no longer good: its sign-in was ended, or a policy now wants another.", Claims: claimsText(newer), Err: err}
}

// open verifies a token, or remembers that it did.
func (s *Service) open(raw string, now time.Time) (*verified, error) {
	k := sha256.Sum256([]byte(raw))
	v := s.cache.get(k)
	if v != nil && s.keys.usable(accessClass, v.key.KID, now) == nil {
		return nil, badToken("its key is unknown")
	}
	if v != nil {
		if !now.Before(v.expires.Add(skew)) {
			return nil, errExpired
		}
		return v, nil
	}
	v, err := s.read(raw, now)
	if err != nil {
		return nil, err
	}
	s.cache.put(k, v, now)
	return v, nil
}

// read verifies a token that was not seen before.
func (s *Service) read(raw string, now time.Time) (*verified, error) {
	m, key, err := s.keys.verify(accessClass, raw, now)
	if err != nil {
		return nil, err
	}
	exp, err := timely(m, now)
	if err != nil {
		return nil, err
	}
	v := &verified{
		key: key, expires: exp, tenant: text(m, "tid"), object: text(m, "oid"), audience: text(m, "aud"),
		family: text(m, "sid"), evidence: text(m, "evd"), epoch: number(m, "epc"), amr: texts(m, "amr"), shown: texts(m, "shown"), device: m["dvc"] == true, scp: strings.Fields(text(m, "scp")),
		kind: access.Client(text(m, "clk")), contexts: texts(m, "acrs"), cp1: slices.Contains(texts(m, "xms_cc"), capabilityCP1), issued: time.Unix(int64(number(m, "iat")), 0),
	}
	if v.proofs = shownProofs(v.shown); v.kind == "" {
		v.kind = access.Native
	}
	v.loan = text(m, "loan")
	if bound, ok := m["cnf"]; ok {
		cnf, _ := bound.(map[string]any)
		if v.sandbox = text(cnf, sandboxClaim); v.sandbox == "" {
			return nil, badToken("it is bound to what is not known here")
		}
	}
	if v.app = text(m, "appid"); v.app == "" {
		v.app = text(m, "azp")
	}
	want := s.issuer(v.tenant, text(m, "ver") == "1.0")
	if v.tenant == "" || v.object == "" || v.audience == "" || text(m, "iss") != want {
		return nil, badToken("its issuer is another")
	}
	return v, nil
}

// issuer is the iss of access tokens of a tenant.
func (s *Service) issuer(tenant string, v1 bool) string {
	if v1 {
		return s.Site.Base() + "/" + tenant + "/"
	}
	return s.Site.Base() + "/" + tenant + "/v2.0"
}

// living is the caller that a verified token speaks for, as the directory now
// knows it.
func (s *Service) living(v *verified) (arm.Caller, error) {
	c := arm.Caller{Tenant: v.tenant, Object: v.object, App: v.app, AMR: v.amr, ACRS: v.contexts, Token: string(accessClass)}
	if s.revoked.has(v.family) || v.loan != "" && !s.loans.has(v.loan) {
		return arm.Caller{}, badToken("it was revoked")
	}
	if u := s.index.user(v.object); u != nil {
		if u.Tenant != v.tenant || u.Disabled || u.Epoch != v.epoch {
			return arm.Caller{}, badToken("it was revoked")
		}
		c.Kind, c.Name, c.Groups = arm.User, u.UPN, s.index.groupsOf(u.ID)
		c.Scopes = v.scp
		if v.loan == "" { // what is lent is not lent on
			c.SignIn = arm.SignIn{Family: v.family, Epoch: v.epoch, Shown: v.shown, Client: string(v.kind), DeviceCode: v.device}
		}
		return c, nil
	}
	p := s.index.sp(v.object)
	if p == nil || p.Tenant != v.tenant || p.Disabled || p.Epoch != v.epoch || !s.stands(p, v.evidence) {
		return arm.Caller{}, badToken("it was revoked")
	}
	c.Kind, c.Name, c.Groups = arm.ServicePrincipal, p.Name, s.index.groupsOf(p.ID)
	return c, nil
}

// stands reports whether the credential that a token was given for is still
// the application's. Managed identities have none but trusts in other issuers.
func (s *Service) stands(p *Principal, keyID string) bool {
	if p.Managed {
		return keyID == "" || trusts(p.Federated, keyID)
	}
	a := s.index.client(p.AppID)
	if a == nil || keyID == "" {
		return false
	}
	return slices.ContainsFunc(a.Secrets, func(x Secret) bool { return x.KeyID == keyID }) ||
		slices.ContainsFunc(a.Certs, func(x Cert) bool { return x.KeyID == keyID }) || trusts(a.Federated, keyID)
}

// refuseToken words err as Resource Manager does, without saying more than helps.
func refuseToken(err error) error {
	if errors.Is(err, errExpired) {
		return &arm.Error{Code: arm.Unauthenticated, Message: "The access token expiry UTC time is earlier than current UTC time.", Err: err}
	}
	if errors.Is(err, errToken) {
		return &arm.Error{Code: arm.Unauthenticated, Message: "The access token is invalid.", Err: err}
	}
	return err
}

// printable is s as far as it may be repeated to a client.
func printable(s string) string {
	if len(s) > 200 {
		return "(too long)"
	}
	for _, r := range s {
		if r < ' ' || r > '~' {
			return "(not printable)"
		}
	}
	return s
}

// ErrNoToken is the cause of errors about requests that bring no token at all.
var ErrNoToken = errors.New("no bearer token")

// token is the request's one bearer token. A token anywhere but in the
// Authorization header is not looked at.
func token(r *http.Request) (string, error) {
	h := r.Header.Values("Authorization")
	switch {
	case len(h) == 0 || len(h) == 1 && strings.TrimSpace(h[0]) == "":
		return "", &arm.Error{Code: arm.Unauthenticated, Message: "Authentication failed. The 'Authorization' header is missing.", Err: ErrNoToken}
	case len(h) > 1:
		return "", arm.Errorf(arm.Unauthenticated, "Authentication failed. The 'Authorization' header is given more than once.")
	}
	scheme, raw, ok := strings.Cut(h[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || raw == "" {
		return "", arm.Errorf(arm.Unauthenticated, "Authentication failed. The 'Authorization' header is provided in an invalid format; expected 'Bearer TOKEN'.")
	}
	return raw, nil
}

// Bearer reads the caller from a request's bearer token, which must be for one
// of the audiences. The caller may be of any tenant: the gate holds that against
// whose the target is.
func (s *Service) Bearer(audiences ...string) func(*http.Request) (arm.Caller, error) {
	return func(r *http.Request) (arm.Caller, error) {
		raw, err := token(r)
		if err != nil {
			return arm.Caller{}, err
		}
		c, err := s.VerifyToken(r.Context(), raw, audiences)
		if at := addressOf(r); err == nil && c.SignIn.Family != "" && at.IsValid() {
			c.SignIn.Address = at.String()
		}
		if err == nil {
			err = s.judged(r, raw, c)
		}
		if err != nil {
			return arm.Caller{}, err
		}
		return c, nil
	}
}

// judged refuses a person with a good token whom a policy now keeps out: every
// call is judged by the policies of this moment, the address that it comes from,
// and all else as it was at the sign-in. A job's call with what was lent to it
// comes from where its person submitted it.
func (s *Service) judged(r *http.Request, raw string, c arm.Caller) error {
	rules, u := s.rulesOf(c.Tenant), s.index.user(c.Object)
	if rules == nil || u == nil {
		return nil
	}
	now := s.Now()
	v, err := s.open(raw, now)
	if err != nil {
		return refuseToken(err)
	}
	to, _ := s.api(c.Tenant, v.audience)
	f := s.factsOf(u)
	f.App, f.Resource, f.Address, f.Client, f.DeviceCode = fold(c.App), to.app, addressOf(r), v.kind, v.device
	f.Contexts, f.Issued, f.Proofs = v.contexts, v.issued, v.proofs
	if v.loan != "" {
		f.Address = s.loans.address(v.loan)
	}
	if id := rules.Unmet(f, now); id != "" {
		return s.challenge(v, badToken("the Conditional Access policy "+id+" now forbids it"))
	}
	return nil
}
