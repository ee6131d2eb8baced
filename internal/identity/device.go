package identity

import (
	"context"
	"crypto/rand"
	"net/http"
	"strings"
	"sync"
	"time"

	"castellan/internal/access"
	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// deviceState is how far a device code has come.
type deviceState string

const (
	pending  deviceState = "pending"
	approved deviceState = "approved"
	declined deviceState = "declined"
)

const (
	interval   = 5 * time.Second // between two polls
	tolerance  = time.Second     // that a poll may come early, for clocks and networks
	codeLength = 9
	// codeLetters has no two that look alike and no vowels, so that no words come out.
	codeLetters = "BCDFGHJKLMNPQRSTVWXZ"
	// maxGuesses is how many wrong user codes a person may type, and mostGuesses
	// how many all together, in guessTime.
	maxGuesses  = 10
	mostGuesses = 200
	guessTime   = 15 * time.Minute
)

// newUserCode is a code that people type: 20^9 is more than 38 bits.
func newUserCode() string {
	out := make([]byte, 0, codeLength)
	var b [1]byte
	for len(out) < codeLength {
		_, _ = rand.Read(b[:])       // never fails
		if n := int(b[0]); n < 240 { // 12 times 20: no letter is more likely than another
			out = append(out, codeLetters[n%len(codeLetters)])
		}
	}
	return string(out)
}

// typed is a user code as people type it, without spaces, dashes and case.
func typed(code string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' || r == '-' {
			return -1
		}
		return r
	}, strings.ToUpper(fold(code)))
}

// pace remembers when device codes were last asked after, and how often user
// codes were guessed wrong. A restart forgets it, which costs one round.
type pace struct {
	mu      sync.Mutex // guards all
	polls   map[string]time.Time
	guesses map[string][]time.Time // by person; all under ""
}

// early reports whether a poll comes too soon after the one before.
func (p *pace) early(key string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	last, ok := p.polls[key]
	if len(p.polls) > 10_000 {
		clear(p.polls)
	}
	p.polls[key] = now
	return ok && now.Sub(last) < interval-tolerance
}

// guess reports whether a person may try a code.
func (p *pace) guess(person string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.recent(person, now) < maxGuesses && p.recent("", now) < mostGuesses
}

func (p *pace) recent(who string, now time.Time) int {
	list := p.guesses[who]
	for len(list) > 0 && now.Sub(list[0]) > guessTime {
		list = list[1:]
	}
	if p.guesses[who] = list; len(list) == 0 {
		delete(p.guesses, who)
	}
	return len(list)
}

// wrong counts a wrong code.
func (p *pace) wrong(person string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.guesses[person] = append(p.guesses[person], now)
	p.guesses[""] = append(p.guesses[""], now)
}

// serveDevice begins a sign-in on a device without a browser (RFC 8628).
func (s *Service) serveDevice(v1 bool) func(http.ResponseWriter, *http.Request, gate.Vars) error {
	return func(w http.ResponseWriter, r *http.Request, v gate.Vars) error {
		a := &asking{r: r, v1: v1}
		var err error
		if a.form, err = readDeviceForm(w, r); err != nil {
			return err
		}
		if a.tenant, err = s.tenantNamed(v["tenant"]); err != nil {
			return err
		}
		if err := s.readWish(a); err != nil {
			return err
		}
		if a.demand, err = s.readDemand(a.form.Get("claims")); err != nil {
			return err
		}
		answer, err := s.beginDevice(r.Context(), a)
		if err != nil {
			return err
		}
		w.Header().Set("Cache-Control", "no-store, no-cache")
		gate.WriteJSON(w, http.StatusOK, answer)
		return nil
	}
}

// readDeviceForm is readForm, but v1 clients put the parameters in the query.
func readDeviceForm(w http.ResponseWriter, r *http.Request) (map[string][]string, error) {
	if r.Method == http.MethodGet {
		q := r.URL.Query()
		return q, once(q)
	}
	return readForm(w, r)
}

func (s *Service) beginDevice(ctx context.Context, a *asking) (map[string]any, error) {
	tenant := s.Home()
	if a.tenant != nil {
		tenant = a.tenant.ID
	}
	c, err := s.lookup(tenant, a.form.Get("client_id"))
	if err != nil {
		return nil, err
	}
	if !c.app.Public {
		return nil, problemf(7000218, "invalid_client", "Only public clients can use device codes; application '%s' is none.", c.app.AppID)
	}
	if a.wish.resource == "" {
		a.wish.resource = s.Site.GraphAudiences()[0]
	}
	if _, err := s.target(tenant, a.wish.resource); err != nil {
		return nil, err
	}
	now, user := s.Now(), newUserCode()
	g := grant{
		Class: deviceGrant, Client: c.app.AppID, Family: arm.NewUUID(), Resource: a.wish.resource, Scope: strings.Join(a.wish.scopes, " "),
		State: pending, Demand: a.demand, Issued: now, Expires: now.Add(deviceLife), UserCode: grantKey("user code", user),
	}
	if a.tenant != nil {
		g.Tenant = a.tenant.ID
	}
	raw := ""
	if err := s.DB.Do(ctx, func(tx *store.Tx) (err error) {
		if raw, err = newGrant(tx, g); err != nil {
			return err
		}
		return tx.Put(userCodes, g.UserCode, []byte(grantKey(deviceGrant, raw)))
	}); err != nil {
		return nil, err
	}
	at := s.base(a.r) + "/common/oauth2/deviceauth"
	out := map[string]any{
		"user_code": user, "device_code": raw, "verification_uri": at, "verification_url": at, "expires_in": int(deviceLife / time.Second), "interval": int(interval / time.Second),
		"message": "To sign in, use a web browser to open the page " + at + " and enter the code " + user + " to authenticate.",
	}
	if a.v1 {
		out["expires_in"], out["interval"] = "900", "5"
	}
	return out, nil
}

// giveDevice is the grant device_code: the device asks whether the person has
// signed in meanwhile.
func (s *Service) giveDevice(ctx context.Context, a *asking) (_ map[string]any, err error) {
	raw := a.form.Get("device_code")
	if raw == "" {
		raw = a.form.Get("code")
	}
	e := signIn{app: a.form.Get("client_id"), grant: "device_code", how: "device code"}
	defer func() { err = s.note(ctx, e, err) }()
	if raw == "" {
		return nil, problemf(900144, "invalid_request", "The request body must contain the following parameter: 'device_code'.")
	}
	g, err := s.device(ctx, raw)
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(g.Client, a.form.Get("client_id")) {
		return nil, problemf(700009, "invalid_grant", "The device code was issued to another client.")
	}
	early := s.pace.early(g.Key, s.Now())
	switch {
	case g.State == declined:
		return nil, problemf(70015, "authorization_declined", "The person declined the sign-in.")
	case g.State == pending && early:
		return nil, problemf(70018, "slow_down", "The device asks too often; wait at least %d seconds between two requests.", int(interval/time.Second))
	case g.State == pending:
		return nil, problemf(70016, "authorization_pending", "OAuth 2.0 device flow error. Authorization is pending. Continue polling.")
	}
	e.tenant, e.object = g.Tenant, g.User
	if err := s.clientOf(ctx, a, g.grant); err != nil {
		return nil, err
	}
	a.wish = wish{} // what the person was asked for
	return s.person(ctx, &e, a, g.grant, func(tx *store.Tx) (replayed bool, err error) {
		_, replayed, err = s.redeem(tx, deviceGrant, raw, a.arrived)
		return replayed, err
	})
}

// device is the row of a device code; one that is past its time is told apart,
// for the device must begin anew.
func (s *Service) device(ctx context.Context, raw string) (g keyedGrant, err error) {
	ok := false
	err = s.DB.View(ctx, func(tx *store.Tx) (err error) {
		g, ok, err = store.GetJSON[keyedGrant](tx, grantTable, grantKey(deviceGrant, raw))
		return err
	})
	switch {
	case err != nil:
		return g, err
	case !ok || g.Class != deviceGrant:
		return g, problemf(70020, "bad_verification_code", "The provided value for the input parameter 'device_code' is not valid.")
	case !s.Now().Before(g.Expires):
		return g, problemf(70020, "expired_token", "The provided value for the input parameter 'device_code' is not valid. This device code has expired.")
	}
	return g, nil
}

// waiting is the device code that a user code belongs to, while it waits.
func (s *Service) waiting(tx *store.Tx, code string) (g keyedGrant, ok bool, err error) {
	key, err := tx.Get(userCodes, grantKey("user code", typed(code)))
	if err != nil || key == nil {
		return g, false, err
	}
	g, ok, err = store.GetJSON[keyedGrant](tx, grantTable, string(key))
	return g, ok && g.State == pending && s.Now().Before(g.Expires), err
}

// by is the device's sign-in as a person's session makes it.
func (g keyedGrant) by(session grant) grant {
	session.DeviceCode, session.Kind, session.Demand = true, access.Native, g.Demand
	return session
}

// settle writes what the person at the sign-in page decided about a device.
func (s *Service) settle(ctx context.Context, code string, u *User, yes bool, session grant) error {
	return s.DB.Do(ctx, func(tx *store.Tx) error {
		g, ok, err := s.waiting(tx, code)
		if err != nil {
			return err
		}
		if !ok || g.Tenant != "" && g.Tenant != u.Tenant {
			return problemf(70020, "expired_token", "The code is no longer valid. Start again on the device.")
		}
		g.State = declined
		if yes {
			g.State, g.Tenant, g.User, g.Epoch = approved, u.Tenant, u.ID, u.Epoch
			g.Proofs, g.DeviceCode, g.Kind = session.Proofs, true, access.Native
		}
		if err := tx.Delete(userCodes, g.UserCode); err != nil {
			return err
		}
		return putGrant(tx, g)
	})
}
