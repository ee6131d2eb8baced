// Package gate is the only way in: it authenticates, decides and records in
// one act, and hands out a Grant without which nothing behind it opens.
package gate

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/condition"
	"castellan/internal/store"
)

// Target is what somebody wants to act on: a resource, and perhaps an item in
// it that has no resource id of its own (a blob's name, a run's id).
type Target struct {
	ID   arm.ID
	Item string
	// Attributes are what conditions of role assignments may ask about the
	// request and the target. They are asked for only where a condition decides;
	// nil is none, and a condition on what is not there does not hold.
	Attributes func() *condition.Attributes
	// Op is which operation of the action it is, where access lists tell them
	// apart; "" is the one that they ask most for.
	Op string
}

// Decider says whether c may do a on the target, and why.
type Decider func(c arm.Caller, a arm.Action, on Target) (allowed bool, reason string)

// Lists says whether access lists that the target itself has let c do a, and which.
type Lists func(c arm.Caller, a arm.Action, on Target) (allowed bool, reason string)

// Locks say what may not be changed now, whoever asks.
type Locks struct {
	DB *store.DB
	// Holding is nil, or the error that says what keeps a from being done to id.
	Holding func(tx *store.Tx, a arm.Action, id arm.ID) error
}

// Gate admits callers. The zero Gate admits nobody.
type Gate struct {
	decide Decider
	log    *audit.Log
	// Lists are asked where the decider does not allow, unless something is denied
	// there; nil: there are none.
	Lists Lists
	// Locks are asked at every door that does more than read, once its caller may
	// pass, and again in the transaction of the change; nil: nothing is locked.
	Locks *Locks
	// Inside reports whether c has any right at id or below it: such a caller
	// is shown that the subscription id is there. nil shows it to nobody.
	Inside func(c arm.Caller, id arm.ID) bool
	// Report is told of answers that are our own fault, with their causes, for
	// operators; nil reports to nobody.
	Report func(r *http.Request, err error)
	// Ready prepares for an admitted caller what the target needs and no transaction
	// may wait for; nil prepares nothing.
	Ready func(ctx context.Context, id arm.ID)
	// Site tells which tenant owns what; only callers of that tenant may act on it.
	Site arm.Site
}

// New makes a Gate that asks decide and records in log.
func New(decide Decider, log *audit.Log) *Gate { return &Gate{decide: decide, log: log} }

// Grant is the proof that its holder may do one action on one target, once.
// The zero Grant opens nothing.
type Grant struct{ s *state }

type state struct {
	gate        *Gate
	caller      arm.Caller
	action      arm.Action
	target      Target
	reason      string
	plane       string
	correlation string
	address     string // where the request came from
	filtered    bool   // the caller may not see the whole list
	listed      bool   // access lists let the caller in, and nothing else did
	held        bool   // locks are asked

	mu       sync.Mutex // guards what follows
	closed   bool
	recorded bool
	begins   bool // what is done goes on after the answer
}

// Admit decides whether c may do a on the target and records the decision. On
// yes the caller must Close the Grant. On no the error says which action on
// which scope was missing, whether or not the target exists.
func (g *Gate) Admit(ctx context.Context, c arm.Caller, a arm.Action, on Target) (Grant, error) {
	return g.admit(ctx, "", c, a, on)
}

// admit is Admit at a door of the plane.
func (g *Gate) admit(ctx context.Context, plane string, c arm.Caller, a arm.Action, on Target) (Grant, error) {
	s, ok, err := g.weigh(ctx, plane, c, a, on)
	if err != nil {
		return Grant{}, err
	}
	if ok {
		return Grant{s}, nil
	}
	if g.foreign(c, on.ID) {
		return Grant{}, g.refuseForeign(ctx, s)
	}
	e := s.entry("refused", string(arm.Forbidden))
	if err := g.log.Record(ctx, e); err != nil {
		return Grant{}, unrecorded(err)
	}
	return Grant{}, arm.Errorf(arm.Forbidden,
		"The client '%s' with object id '%s' does not have authorization to perform action '%s' over scope '%s' or the scope is invalid. If access was recently granted, please refresh your credentials. Correlation id: %s.",
		name(c), c.Object, a.Name(), on.ID, s.correlation)
}

// admitEach admits any caller to a list; without the right to all of it the
// Grant only sees the rows that the caller may see.
func (g *Gate) admitEach(ctx context.Context, plane string, c arm.Caller, a arm.Action, on Target) (Grant, error) {
	s, ok, err := g.weigh(ctx, plane, c, a, on)
	if err != nil {
		return Grant{}, err
	}
	if g.foreign(c, on.ID) {
		return Grant{}, g.refuseForeign(ctx, s)
	}
	if s.filtered = !ok; s.filtered {
		s.reason = "only the rows that the caller may see: " + s.reason
	}
	return Grant{s}, nil
}

// foreign reports whether id belongs to another tenant than the caller's.
func (g *Gate) foreign(c arm.Caller, id arm.ID) bool {
	owner := g.Site.TenantOf(id)
	return owner != "" && owner != c.Tenant
}

// refuseForeign records, with the tenant that the target belongs to, that
// somebody of another tenant knocked, and words the refusal as Azure does.
func (g *Gate) refuseForeign(ctx context.Context, s *state) error {
	owner := g.Site.TenantOf(s.target.ID)
	e := s.entry("refused", string(arm.WrongTenant))
	e.Tenant, e.Reason = owner, "the caller is of the tenant "+s.caller.Tenant
	if err := g.log.Record(ctx, e); err != nil {
		return unrecorded(err)
	}
	base := g.Site.Base() + "/"
	return arm.Errorf(arm.WrongTenant, "The access token is from the wrong issuer '%s%s/'. It must match the tenant '%s%s/' associated with this subscription. Please use the authority (URL) '%s%s' to get the token.",
		base, s.caller.Tenant, base, owner, base, owner)
}

// weigh is what every admission begins with: who and what are there, the log
// can be written, and the decision.
func (g *Gate) weigh(ctx context.Context, plane string, c arm.Caller, a arm.Action, on Target) (s *state, ok bool, err error) {
	if g == nil || g.decide == nil || g.log == nil || c.IsZero() || a.IsZero() || on.ID.IsZero() {
		return nil, false, arm.Errorf(arm.Forbidden, "nobody may do this")
	}
	if err := g.log.Err(); err != nil {
		return nil, false, unrecorded(err)
	}
	ok, listed, reason := g.judge(c, a, on)
	if ok && g.Ready != nil {
		g.Ready(ctx, on.ID)
	}
	return &state{gate: g, caller: c, action: a, target: on, reason: reason, listed: listed, plane: plane, correlation: arm.NewHex(), address: Peer(ctx)}, ok, nil
}

func unrecorded(err error) error {
	return &arm.Error{Code: "ServiceUnavailable", Status: http.StatusServiceUnavailable, Message: "The request can't be recorded, so it is not carried out.", Err: err}
}

// Sees reports whether the holder of the Grant may do a on id, a row of the
// list that the Grant is for.
func (g Grant) Sees(a arm.Action, id arm.ID) bool {
	if g.s == nil || a.IsZero() || id.IsZero() {
		return false
	}
	g.s.mu.Lock()
	closed := g.s.closed
	g.s.mu.Unlock()
	if closed {
		return false
	}
	if !g.s.filtered && g.s.action.Is(a) && id.Within(g.s.target.ID) && !g.s.gate.foreign(g.s.caller, id) {
		return true // what lies in / may be another tenant's
	}
	ok, _, _ := g.s.gate.judge(g.s.caller, a, Target{ID: id})
	return ok
}

// Listed reports whether access lists alone let the Grant's holder in: a change
// holds them against what is there then.
func (g Grant) Listed() bool { return g.s != nil && g.s.listed }

// Op is the target's, or "".
func (g Grant) Op() string {
	if g.s == nil {
		return ""
	}
	return g.s.target.Op
}

// SeesBelow reports whether the holder of the Grant has any right inside id.
func (g Grant) SeesBelow(id arm.ID) bool {
	return g.s != nil && g.s.caller.Lease == nil && g.s.gate.Inside != nil && !g.s.gate.foreign(g.s.caller, id) && g.s.gate.Inside(g.s.caller, id)
}

func name(c arm.Caller) string {
	if c.App != "" {
		return c.App
	}
	return c.Name
}

// Would reports whether Admit would let c do a on id now. It admits nobody and
// records nothing: it is for a look ahead.
func (g *Gate) Would(c arm.Caller, a arm.Action, id arm.ID) bool {
	ok, _ := g.Judge(c, a, Target{ID: id})
	return ok
}

// Judge is Would with the reason, for who explains decisions.
func (g *Gate) Judge(c arm.Caller, a arm.Action, on Target) (allowed bool, reason string) {
	if g == nil || g.decide == nil || c.IsZero() || a.IsZero() || on.ID.IsZero() {
		return false, "nobody may do this"
	}
	allowed, _, reason = g.judge(c, a, on)
	return allowed, reason
}

func (g *Gate) judge(c arm.Caller, a arm.Action, on Target) (ok, listed bool, reason string) {
	if g.foreign(c, on.ID) {
		return false, false, "it belongs to another tenant"
	}
	if c.Lease == nil {
		ok, reason = g.decide(c, a, on)
		if !ok && g.Lists != nil && a.Data() {
			if yes, why := g.Lists(c, a, on); yes {
				return true, true, why
			}
		}
		return ok, false, reason
	}
	if !c.Lease.Allows(a, on.ID) {
		return false, false, "outside what " + c.Lease.Why + " allows"
	}
	if c.Lease.Item != "" && on.Item != c.Lease.Item {
		return false, false, c.Lease.Why + " is for another item"
	}
	return true, c.Lease.Listed, c.Lease.Why
}

func (s *state) entry(decision, outcome string) audit.Entry {
	return audit.Entry{
		Tenant: s.caller.Tenant, Caller: s.caller.Object, Name: s.caller.Name, App: s.caller.App,
		Credential: s.caller.Token, Action: s.action.Name(), Data: s.action.Data(), Plane: s.plane, Target: s.target.ID.String(), Item: s.target.Item,
		Decision: decision, Reason: s.reason, Outcome: outcome, Correlation: s.correlation, Address: s.address,
	}
}

// On is the id that the Grant is for, if it is for one of the actions and open.
func (g Grant) On(actions ...arm.Action) (arm.ID, error) {
	if g.s == nil {
		return arm.ID{}, arm.Errorf(arm.Forbidden, "there is no grant")
	}
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	if g.s.closed {
		return arm.ID{}, arm.Errorf(arm.Forbidden, "the grant is closed")
	}
	for _, a := range actions {
		if g.s.action.Is(a) {
			return g.s.target.ID, nil
		}
	}
	return arm.ID{}, arm.Errorf(arm.Forbidden, "the grant is for %s", g.s.action.Name())
}

// Item is the target's item, or "".
func (g Grant) Item() string {
	if g.s == nil {
		return ""
	}
	return g.s.target.Item
}

// Caller is who holds the Grant, for the record (systemData, owners); never to
// decide by.
func (g Grant) Caller() arm.Caller {
	if g.s == nil {
		return arm.Caller{}
	}
	return g.s.caller
}

// Correlation is the id under which the decision stands in the audit log.
func (g Grant) Correlation() string {
	if g.s == nil {
		return ""
	}
	return g.s.correlation
}

// Keep writes the audit entry of a change into the change's own transaction:
// neither exists without the other.
func (g Grant) Keep(tx *store.Tx) error {
	if g.s == nil {
		return arm.Errorf(arm.Forbidden, "there is no grant")
	}
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	if g.s.closed {
		return arm.Errorf(arm.Forbidden, "the grant is closed")
	}
	if g.s.recorded {
		return nil
	}
	e := g.s.entry("allowed", "ok")
	if g.s.begins {
		e.Event = audit.Begun
	}
	if err := g.s.gate.log.Append(tx, e); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	return nil
}

// Also records, in the change's own transaction, what the change does besides:
// a to id, and why that is part of it.
func (g Grant) Also(tx *store.Tx, a arm.Action, id arm.ID, why string) error {
	if g.s == nil {
		return arm.Errorf(arm.Forbidden, "there is no grant")
	}
	e := g.s.entry("allowed", "ok")
	e.Action, e.Data, e.Target, e.Item, e.Reason = a.Name(), a.Data(), id.String(), "", why
	if err := g.s.gate.log.Append(tx, e); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	return nil
}

// Begun is what goes on after its request was answered, for the record of its end.
type Begun audit.Entry

// Begin says that what the Grant is for goes on after the answer: its own entry tells
// of the beginning. Ended records the end by what Begin returns.
func (g Grant) Begin() *Begun {
	if g.s == nil {
		return nil
	}
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	g.s.begins = true
	b := Begun(g.s.entry("allowed", "ok"))
	return &b
}

// Ended records, in the transaction that ends it, how what was begun went: outcome
// is ok or the error's code. Of what began before beginnings were recorded, nil, there
// is nothing to say.
func (g *Gate) Ended(tx *store.Tx, b *Begun, outcome string) error {
	if b == nil {
		return nil
	}
	e := audit.Entry(*b)
	e.Event, e.Outcome = audit.Ended, outcome
	if err := g.log.Append(tx, e); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	return nil
}

// Kept says that the transaction given to Keep was committed.
func (g Grant) Kept() {
	if g.s != nil {
		g.s.mu.Lock()
		g.s.recorded = true
		g.s.mu.Unlock()
	}
}

// Free says whether locks let the Grant's holder do a to id. It is for changes
// of more than the target, which Change asks about.
func (g Grant) Free(tx *store.Tx, a arm.Action, id arm.ID) error {
	if g.s == nil || !g.s.held {
		return nil // without a state nothing opens anyway
	}
	return g.s.gate.Locks.Holding(tx, a, id)
}

// unlocked asks the locks before anything is done: not all that they hold is a
// change of the store, such as listKeys.
func (g Grant) unlocked(ctx context.Context, p *Plane) error {
	s, locks := g.s, g.s.gate.Locks
	if locks == nil || s.action.Data() || strings.HasSuffix(s.action.Key(), "/read") || p.Unlocked != nil && p.Unlocked(s.action) {
		return nil
	}
	s.held = true
	return locks.DB.View(ctx, func(tx *store.Tx) error { return g.Free(tx, s.action, s.target.ID) })
}

// Change runs fn in a transaction together with the Grant's audit entry, if no
// lock stands against it.
func (g Grant) Change(ctx context.Context, db *store.DB, fn func(*store.Tx) error) error {
	err := db.Do(ctx, func(tx *store.Tx) error {
		if g.s != nil {
			if err := g.Free(tx, g.s.action, g.s.target.ID); err != nil {
				return err
			}
			tx.By = fmt.Sprintf("%s (%s), %s, correlation id %s", g.s.caller.Name, g.s.caller.Object, g.s.action.Name(), g.s.correlation)
		}
		if err := fn(tx); err != nil {
			return err
		}
		return g.Keep(tx)
	})
	if err == nil {
		g.Kept()
	}
	return err
}

// Close ends the Grant and records how it went, unless a change already did.
// An answer must not be given before Close returned nil.
func (g Grant) Close(ctx context.Context, err error) error {
	if g.s == nil {
		return err
	}
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	if g.s.closed {
		return err
	}
	g.s.closed = true
	if g.s.recorded && err == nil {
		return nil
	}
	outcome := "ok"
	if err != nil {
		outcome = string(arm.CodeOf(err))
	}
	record := g.s.gate.log.Record
	if err == nil && !strings.HasSuffix(g.s.action.Key(), "/read") {
		record = g.s.gate.log.Write // a secret, perhaps, which must not be out before its entry is there
	}
	if rec := record(context.WithoutCancel(ctx), g.s.entry("allowed", outcome)); rec != nil {
		return unrecorded(rec)
	}
	return err
}
