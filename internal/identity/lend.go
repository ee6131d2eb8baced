package identity

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"castellan/internal/access"
	"castellan/internal/arm"
	"castellan/internal/gate"
)

// A person who submits a job may lend it their identity: the job gets tokens of
// theirs for some of the platform's APIs. A loan lives in this process only and
// says all about it; what it does not say is not lent. It never outlives the
// sign-in that it came of, and a token of it dies with it.

// MintLent is what a token of a person for a job asks for. No role has it: only
// the platform's own leases do.
var MintLent = arm.NewDataAction("Castellan.Identity/users/lend/action", "get a token of a person who lent a job their identity")

// jobsApp is the application that tokens on loan are given to: Azure's id for
// the machine learning service itself.
const jobsApp = "0736f41a-0425-4b46-bdb5-1563eff02385"

// Loan is a person's identity in the hands of one execution of a job.
type Loan struct {
	ID           string // of the execution, never used again
	Tenant, User string
	SignIn       arm.SignIn // by which the job was submitted
	Sandbox      string     // where the tokens are good, and nowhere else
}

// loans are those that tokens may be shown of.
type loans struct {
	mu sync.RWMutex // guards m
	m  map[string]Loan
}

func (l *loans) has(id string) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	_, ok := l.m[id]
	return ok
}

// address is where the job of a loan was submitted from; a zero one, which
// policies take for any, if that is not known.
func (l *loans) address(id string) netip.Addr {
	l.mu.RLock()
	defer l.mu.RUnlock()
	a, _ := netip.ParseAddr(l.m[id].SignIn.Address)
	return a
}

// Lend begins a loan.
func (s *Service) Lend(l Loan) {
	s.loans.mu.Lock()
	defer s.loans.mu.Unlock()
	if s.loans.m == nil {
		s.loans.m = map[string]Loan{}
	}
	s.loans.m[l.ID] = l
}

// Recall ends a loan: its tokens are dead at once.
func (s *Service) Recall(id string) {
	s.loans.mu.Lock()
	defer s.loans.mu.Unlock()
	delete(s.loans.m, id)
}

// Lender is the person of a loan, or of one to be, as the directory knows them
// now. It is an error if they are gone or disabled, or if the sign-in that the
// loan came of was ended since.
func (s *Service) Lender(l Loan) (arm.Caller, error) {
	u := s.index.user(l.User)
	switch {
	case u == nil || u.Tenant != l.Tenant:
		return arm.Caller{}, arm.Errorf(arm.Forbidden, "the person who submitted the job is no longer in the directory")
	case u.Disabled:
		return arm.Caller{}, arm.Errorf(arm.Forbidden, "the account of the person who submitted the job, %s, is disabled", u.UPN)
	case l.SignIn.Family == "" || s.revoked.has(l.SignIn.Family) || u.Epoch != l.SignIn.Epoch:
		return arm.Caller{}, arm.Errorf(arm.Forbidden, "the sign-in by which %s submitted the job was revoked, or their password changed since", u.UPN)
	}
	return arm.Caller{Tenant: u.Tenant, Object: u.ID, App: jobsApp, Kind: arm.User, Name: u.UPN, Groups: s.index.groupsOf(u.ID), AMR: shownProofs(l.SignIn.Shown).AMR(), Token: "lent"}, nil
}

// LentToken makes an access token of a live loan's person. The Grant is for the
// job; its item is the loan. Directory and applications are not lent: a job
// needs neither, and with them it could change who the person is.
func (s *Service) LentToken(ctx context.Context, g gate.Grant, audience string) (token string, expires time.Time, clientID string, err error) {
	if _, err := g.On(MintLent); err != nil {
		return "", time.Time{}, "", err
	}
	s.loans.mu.RLock()
	l, ok := s.loans.m[g.Item()]
	s.loans.mu.RUnlock()
	if !ok || g.Caller().Lease == nil {
		return "", time.Time{}, "", arm.Errorf(arm.Forbidden, "there is no such loan")
	}
	e := signIn{tenant: l.Tenant, object: l.User, app: jobsApp, how: "lent to a job", grant: "lent", resource: printable(audience)}
	defer func() {
		if err = s.note(ctx, e, err); err != nil {
			token = ""
		}
	}()
	c, err := s.Lender(l)
	if err != nil {
		return "", time.Time{}, "", err
	}
	e.name = c.Name
	to, err := s.lendable(audience)
	if err != nil {
		return "", time.Time{}, "", err
	}
	u := s.index.user(l.User)
	if u == nil {
		return "", time.Time{}, "", arm.Errorf(arm.Forbidden, "the person who submitted the job is no longer in the directory")
	}
	if e.verdict, err = s.lendingConditions(u, l, to); err != nil {
		return "", time.Time{}, "", err
	}
	sub := subject{user: u, client: jobsApp, family: l.SignIn.Family, proofs: shownProofs(l.SignIn.Shown), kind: access.Client(l.SignIn.Client), device: l.SignIn.DeviceCode, how: "certificate", loan: l.ID, sandbox: l.Sandbox}
	token, expires, err = s.accessToken(sub, to)
	return token, expires, jobsApp, err
}

// lendingConditions asks the tenant's Conditional Access policies, as they are
// now, with what the person showed when they signed in and from where they
// submitted the job: nobody is there to show more.
func (s *Service) lendingConditions(u *User, l Loan, to api) (access.Verdict, error) {
	f := s.factsOf(u)
	f.App, f.Resource, f.Client, f.DeviceCode, f.Proofs = jobsApp, to.app, access.Client(l.SignIn.Client), l.SignIn.DeviceCode, shownProofs(l.SignIn.Shown)
	if f.Client == "" {
		f.Client = access.Native // jobs of old don't say
	}
	f.Address = s.loans.address(l.ID)
	v := s.rulesOf(u.Tenant).Decide(f, s.Now())
	if err := unmet(v, demand{}); err != nil {
		return v, &arm.Error{Code: arm.Forbidden, Message: "Conditional Access does not allow the job a token of " + u.UPN + ": " + problemOf(err).description(), Err: err}
	}
	return v, nil
}

// lendable is the API that audience names exactly, if people's tokens for it are lent.
func (s *Service) lendable(audience string) (api, error) {
	a, ok := s.exactly("", audience)
	if !ok || !a.v1 || a.name == graphName {
		return api{}, arm.Errorf(arm.BadRequest, "the resource is not one that a person's identity is lent for: Resource Manager, storage, key vaults or machine learning, spelt exactly")
	}
	return a, nil
}
