package ml

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// A run token lets a job speak to its own run. It is signed with a key that
// verifies nothing else and lives in this process only: runs do not outlive the
// process, so their tokens need not either. What a token says is not enough;
// its run must be live here, now.

// tokenLife is how long a run token is good for; a job may renew it while it runs.
const tokenLife = 30 * time.Minute

// RunActions is all that a run token allows, on its workspace and for its run.
var RunActions = []arm.Action{
	arm.NewAction(namespace+"/workspaces/experiments/read", "see an experiment"),
	arm.NewAction(namespace+"/workspaces/experiments/runs/read", "see a run"),
	arm.NewAction(namespace+"/workspaces/experiments/runs/write", "write to a run"),
	arm.NewAction(namespace+"/workspaces/metrics/resource/write", "log metrics"),
	arm.NewAction(namespace+"/workspaces/jobs/read", "see a job"),
	arm.NewAction(namespace+"/workspaces/metadata/artifacts/read", "read artifacts"),
	arm.NewAction(namespace+"/workspaces/metadata/artifacts/write", "write artifacts"),
	readSecrets,
	arm.NewAction(namespace+"/workspaces/models/read", "see a model"),
	arm.NewAction(namespace+"/workspaces/models/write", "register a model"),
	arm.NewAction(namespace+"/workspaces/models/versions/read", "see a model's version"),
	arm.NewAction(namespace+"/workspaces/models/versions/write", "register a model's version"),
	renewToken,
}

var renewToken = arm.NewAction(namespace+"/workspaces/experiments/runs/renewToken/action", "renew the token of one's own run")

type signer struct {
	key    *ecdsa.PrivateKey
	sign   jose.Signer
	issuer string
	now    func() time.Time
}

// runClaims are a run token's own claims.
type runClaims struct {
	jwt.Claims
	Workspace string `json:"wsid"`  // the workspace's resource id
	Run       string `json:"runid"` // the run's id
	Attempt   string `json:"rat"`   // which execution of the run
	Object    string `json:"oid"`   // of whom the job acts as
	Tenant    string `json:"tid"`
}

func newSigner(site arm.Site, now func() time.Time) (*signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the run tokens' key: %w", err)
	}
	opts := (&jose.SignerOptions{}).WithType("castellan-run+jwt")
	sign, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, opts)
	if err != nil {
		return nil, fmt.Errorf("making the run tokens' signer: %w", err)
	}
	return &signer{key: key, sign: sign, issuer: site.Base() + "/mlservice", now: now}, nil
}

// liveRun is a run whose command goes on, and who it acts as.
type liveRun struct {
	workspace arm.ID
	run       string
	attempt   string
	object    string
	tenant    string
	kind      arm.Kind  // of object
	by        submitter // who submitted it
	lent      bool      // the one who submitted it lent it their identity; the attempt is the loan
	sandbox   string    // its token is good out of it alone
	hides     *redactor // keeps its secrets out of its log
	until     time.Time // no token outlives it: the job's timeout; zero if it has none
}

// live are the runs that go on in this process.
type live struct {
	recall func(loan string)

	mu   sync.Mutex // guards runs
	runs map[string]liveRun
}

func newLive(recall func(loan string)) *live {
	return &live{recall: recall, runs: map[string]liveRun{}}
}

func liveKey(workspace arm.ID, run string) string {
	return workspace.Key() + "|" + strings.ToLower(run)
}

// begin makes a run live, as a new attempt.
func (l *live) begin(r liveRun) liveRun {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	r.attempt = hex.EncodeToString(b[:])
	l.mu.Lock()
	l.runs[liveKey(r.workspace, r.run)] = r
	l.mu.Unlock()
	return r
}

// end makes every token of the run worthless, and those that were lent to it.
func (l *live) end(workspace arm.ID, run string) {
	l.mu.Lock()
	r := l.runs[liveKey(workspace, run)]
	delete(l.runs, liveKey(workspace, run))
	l.mu.Unlock()
	if r.lent {
		l.recall(r.attempt)
	}
}

func (l *live) find(workspace arm.ID, run string) (liveRun, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.runs[liveKey(workspace, run)]
	return r, ok
}

// mint makes a token for a live run.
func (g *signer) mint(r liveRun) (arm.Secret, time.Time, error) {
	now := g.now()
	end := now.Add(tokenLife)
	if !r.until.IsZero() && r.until.Before(end) {
		end = r.until
	}
	text, err := jwt.Signed(g.sign).Claims(runClaims{
		Claims: jwt.Claims{
			Issuer: g.issuer, Subject: r.run, Audience: jwt.Audience{g.issuer},
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(end),
		},
		Workspace: r.workspace.String(), Run: r.run, Attempt: r.attempt, Object: r.object, Tenant: r.tenant,
	}).Serialize()
	if err != nil {
		return arm.Secret{}, time.Time{}, fmt.Errorf("signing a run token: %w", err)
	}
	return arm.NewSecret([]byte(text)), end, nil
}

// read is what a run token says, if it was signed here and is in time.
func (g *signer) read(raw string) (runClaims, error) {
	var c runClaims
	t, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return c, err
	}
	if err := t.Claims(&g.key.PublicKey, &c); err != nil {
		return c, err
	}
	return c, c.ValidateWithLeeway(jwt.Expected{Issuer: g.issuer, AnyAudience: jwt.Audience{g.issuer}, Time: g.now()}, 0)
}

// RunToken is the caller that a request's run token proves. ok is false if the
// request carries none, so that another verifier may look at it; a run token
// that is not good any more is an error, and so is one that comes from anywhere
// but its run's own sandbox: whoever stole it has nothing.
func (s *Service) RunToken(r *http.Request) (c arm.Caller, ok bool, err error) {
	raw, ok := bearer(r)
	if !ok || !s.signer.mine(raw) {
		return arm.Caller{}, false, nil
	}
	refused := arm.Errorf(arm.Unauthenticated, "the run token is not valid: it was altered, has expired, or its run is over")
	claims, err := s.signer.read(raw)
	if err != nil {
		return arm.Caller{}, true, refused
	}
	workspace, err := arm.ParseID(claims.Workspace)
	if err != nil {
		return arm.Caller{}, true, refused
	}
	run, alive := s.live.find(workspace, claims.Run)
	if !alive || run.attempt != claims.Attempt || run.object != claims.Object {
		return arm.Caller{}, true, refused
	}
	if from := gate.Origin(r.Context()); run.sandbox == "" || from != run.sandbox {
		return arm.Caller{}, true, arm.Errorf(arm.Unauthenticated, "the run token is not valid here: it is bound to its run's sandbox, and the request comes from elsewhere")
	}
	return run.caller(), true, nil
}

// caller is the run, as the gate sees it: the principal that the job acts as,
// with the run's lease instead of that principal's roles.
func (r liveRun) caller() arm.Caller {
	return arm.Caller{
		Tenant: r.tenant, Object: r.object, Kind: r.kind, Name: "run " + r.run, Token: "run",
		Lease: &arm.Lease{Scope: r.workspace, Actions: RunActions, Item: r.run, Why: "the token of run " + r.run},
	}
}

func bearer(r *http.Request) (string, bool) {
	h := r.Header.Values("Authorization")
	if len(h) != 1 {
		return "", false
	}
	scheme, raw, _ := strings.Cut(h[0], " ")
	return raw, strings.EqualFold(scheme, "bearer") && raw != ""
}

// mine reports whether raw says of itself that it is a run token; it proves nothing.
func (g *signer) mine(raw string) bool {
	t, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return false
	}
	var c jwt.Claims
	return t.UnsafeClaimsWithoutVerification(&c) == nil && c.Issuer == g.issuer
}

// renew gives a live run a fresh token. Only the run's own token opens the
// door: rights that roles give, however wide, are not enough.
func (s *Service) renew(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	workspace, err := g.On(renewToken)
	if err != nil {
		return err
	}
	if c := g.Caller(); c.Token != "run" || c.Lease == nil || c.Lease.Item == "" || c.Lease.Item != g.Item() {
		return arm.Errorf(arm.Forbidden, "only a run's own token renews it")
	}
	run, alive := s.live.find(workspace, g.Item())
	if !alive {
		return arm.Errorf(arm.Unauthenticated, "the run is over")
	}
	token, end, err := s.signer.mint(run)
	if err != nil {
		return err
	}
	run.hides.hide(string(token.Reveal()))
	w.Header().Set("Cache-Control", "no-store")
	gate.WriteJSON(w, http.StatusOK, map[string]any{"token": string(token.Reveal()), "expiryTimeUtc": end.UTC().Format(time.RFC3339)})
	return nil
}
