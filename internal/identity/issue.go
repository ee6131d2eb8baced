package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"time"

	"castellan/internal/access"
)

// Access tokens live between these, at random, so that clients do not all come
// back at once. ID tokens live an hour.
const (
	shortest  = 60 * time.Minute
	spread    = 30 * time.Minute
	idLife    = time.Hour
	maxGroups = 200 // in one token; who is in more has the claim hasgroups
)

// subject is who a token is for: a person through a client, or a principal as itself.
type subject struct {
	user     *User
	sp       *Principal
	client   string // app id
	family   string // of the sign-in; empty for principals
	evidence string // id of the credential that a principal showed
	how      string
	proofs   access.Proofs // of a person
	device   bool          // the person signed in with a device code
	kind     access.Client // that the person signed in with
	contexts []string      // authentication contexts that the policies let the person into
	cp1      bool          // the client can answer claims challenges
	public   bool          // the client showed no credential
	loan     string        // the token is dead when this loan is over
	sandbox  string        // the token is good out of this sandbox alone
	scp      string        // what the client may do for a person
	roles    []string      // that the subject has at the API
}

func (sub subject) tenant() string {
	if sub.user != nil {
		return sub.user.Tenant
	}
	return sub.sp.Tenant
}

// lifetime is the random lifetime of an access token.
func lifetime() time.Duration {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return shortest + time.Duration(binary.BigEndian.Uint64(b[:])%uint64(spread/time.Second))*time.Second
}

// shownText is what a person showed, as their tokens carry it for those who act
// for them later.
func shownText(p access.Proofs) []string {
	out := []string{}
	for _, x := range p {
		out = append(out, string(x.Method)+" "+x.At.UTC().Format(time.RFC3339))
	}
	return out
}

// shownProofs reads shownText; what is malformed shows nothing.
func shownProofs(words []string) (p access.Proofs) {
	for _, w := range words {
		method, at, _ := strings.Cut(w, " ")
		if t, err := time.Parse(time.RFC3339, at); err == nil {
			p = append(p, access.Proof{Method: access.Method(method), At: t})
		}
	}
	return p
}

// sandboxClaim is the member of cnf (RFC 7800) that names the sandbox which a
// token is bound to.
const sandboxClaim = "castellan/sandbox"

// accessToken makes an access token. sid, evd and epc are the platform's own: by
// them a token dies with the sign-in, credential or password that it came from;
// so are shown, clk and dvc, by which policies judge each call as they judged the
// sign-in.
func (s *Service) accessToken(sub subject, to api) (string, time.Time, error) {
	now := s.Now()
	exp := now.Add(s.lifeOf(sub.tenant(), to)).Truncate(time.Second)
	m := map[string]any{"aud": to.audience, "iat": now.Unix(), "nbf": now.Unix(), "exp": exp.Unix(), "uti": randomText(16)}
	var object string
	if sub.user != nil {
		object = userClaims(m, sub, to)
	} else {
		object = principalClaims(m, sub)
	}
	tenant := m["tid"].(string)
	if sub.cp1 {
		m["xms_cc"] = []string{capabilityCP1}
	}
	if sub.loan != "" {
		m["loan"] = sub.loan
	}
	if sub.sandbox != "" {
		m["cnf"] = map[string]string{sandboxClaim: sub.sandbox}
	}
	m["oid"] = object
	m["iss"], m["ver"] = s.issuer(tenant, to.v1), map[bool]string{true: "1.0", false: "2.0"}[to.v1]
	proof := map[bool]string{true: "0", false: "1"}[sub.public]
	if sub.how == "certificate" || sub.how == "federated credential" {
		proof = "2"
	}
	if to.v1 {
		m["appid"], m["appidacr"] = sub.client, proof
		m["idp"] = s.issuer(tenant, true)
	} else {
		m["azp"], m["azpacr"] = sub.client, proof
	}
	if len(sub.roles) > 0 {
		m["roles"] = sub.roles
	}
	if groups := s.index.groupsOf(object); !to.groups {
		// not asked for by the API
	} else if len(groups) > maxGroups {
		m["hasgroups"] = true
	} else if len(groups) > 0 {
		m["groups"] = groups
	}
	t, err := s.keys.sign(accessClass, m)
	return t, exp, err
}

func userClaims(m map[string]any, sub subject, to api) string {
	u := sub.user
	m["tid"], m["sub"], m["idtyp"] = u.Tenant, pairwise(u.ID, to.audience), "user"
	m["name"], m["scp"], m["sid"], m["epc"], m["amr"] = u.Name, sub.scp, sub.family, u.Epoch, sub.proofs.AMR()
	m["shown"] = shownText(sub.proofs)
	m["clk"] = string(sub.kind)
	if sub.device {
		m["dvc"] = true
	}
	if len(sub.contexts) > 0 {
		m["acrs"] = sub.contexts
	}
	if to.v1 {
		m["upn"], m["unique_name"] = u.UPN, u.UPN
	}
	m["preferred_username"] = u.UPN
	return u.ID
}

func principalClaims(m map[string]any, sub subject) string {
	p := sub.sp
	m["tid"], m["sub"], m["idtyp"], m["epc"] = p.Tenant, p.ID, "app", p.Epoch
	if sub.evidence != "" {
		m["evd"] = sub.evidence
	}
	if p.Resource != "" {
		m["xms_mirid"] = p.Resource
	}
	return p.ID
}

// pairwise is a person's sub for one audience: two of them can't tell that they
// see the same person, but by oid.
func pairwise(object, audience string) string {
	sum := sha256.Sum256([]byte("sub|" + object + "|" + audience))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// idToken tells a client who signed in.
func (s *Service) idToken(r *http.Request, sub subject, g grant) (string, error) {
	now, u := s.Now(), sub.user
	m := map[string]any{
		"iss": s.base(r) + "/" + u.Tenant + "/v2.0", "aud": sub.client, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(idLife).Unix(),
		"auth_time": g.Proofs.SignedIn().Unix(), "name": u.Name, "preferred_username": u.UPN, "oid": u.ID, "tid": u.Tenant, "sub": pairwise(u.ID, sub.client),
		"amr": g.Proofs.AMR(), "sid": g.Family, "uti": randomText(16), "ver": "2.0", "upn": u.UPN, "unique_name": u.UPN,
	}
	if u.Mail != "" {
		m["email"] = u.Mail
	}
	if g.Nonce != "" {
		m["nonce"] = g.Nonce
	}
	return s.keys.sign(idClass, m)
}

// clientInfo names the account for client libraries.
func clientInfo(u *User) string {
	b, err := json.Marshal(map[string]string{"uid": u.ID, "utid": u.Tenant})
	if err != nil {
		return "" // two strings can be marshalled
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// base is the URL under which the client came, if that is one of ours, else the
// site's. A port that the client used is kept, for clients compare it.
func (s *Service) base(r *http.Request) string {
	host := strings.ToLower(r.Host)
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = host, ""
	}
	if name != s.Site.Host() || port == "" {
		return s.Site.Base()
	}
	for _, c := range port {
		if c < '0' || c > '9' {
			return s.Site.Base()
		}
	}
	return "https://" + name + ":" + port
}
