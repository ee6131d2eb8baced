package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// An authorize request of this response type asks for no code but for an
// administrator's consent to all that the application says it needs.
const adminConsent = "admin_consent"

// asked is what a client wants at one API.
type asked struct {
	shop     shop
	resource string // object id of the API's principal
	scopes   []Scope
	roles    []AppRole // only asked of administrators
}

// demand is what an authorize request wants of a person that was not consented
// to, or everything if all is set: what it names, and for .default what the
// application says it needs of anybody.
func (s *Service) demand(tx *store.Tx, a *authorization, u *User, all bool) ([]asked, error) {
	if a.client.principal == nil {
		return nil, nil // the platform's own; nobody is asked about it
	}
	wanted, err := s.wanted(a, u.Tenant)
	if err != nil {
		return nil, err
	}
	if !all && a.wholly() {
		had, err := s.consented(tx, u.Tenant, a.client, wanted[0].shop, u.ID)
		if err != nil || len(had) > 0 {
			return nil, err // .default is whatever there is already, as at Entra
		}
	}
	var out []asked
	for _, w := range wanted {
		had, err := s.consented(tx, u.Tenant, a.client, w.shop, u.ID)
		if err != nil {
			return nil, err
		}
		if !all {
			w.scopes = slices.DeleteFunc(w.scopes, func(x Scope) bool { return slices.Contains(had, x.Value) })
		}
		if len(w.scopes) > 0 || len(w.roles) > 0 {
			out = append(out, w)
		}
	}
	return out, nil
}

// wanted is all that a request is about.
func (s *Service) wanted(a *authorization, tenant string) ([]asked, error) {
	whole := a.adminConsent() || a.wholly()
	var out []asked
	if !a.adminConsent() {
		to, err := s.target(tenant, a.wish.resource)
		if err != nil {
			return nil, err
		}
		w, err := s.offer(tenant, to.app, to.name)
		if err != nil {
			return nil, err
		}
		for _, name := range bareScopes(a.wish.scopes) {
			x, ok := w.shop.named(name)
			switch {
			case name == ".default":
			case !ok:
				return nil, problemf(650053, "invalid_scope", "The application '%s' asked for scope '%s' that doesn't exist on the resource '%s'.", a.client.app.AppID, printable(name), w.shop.app)
			default:
				w.scopes = append(w.scopes, x)
			}
		}
		out = append(out, w)
	}
	if !whole {
		return out, nil
	}
	for _, n := range a.client.app.Needs {
		w, err := s.offer(tenant, n.App, n.App)
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(out, func(o asked) bool { return o.resource == w.resource })
		if at < 0 {
			out, at = append(out, w), len(out)
		}
		out[at].add(n, a.adminConsent())
	}
	return out, nil
}

func (s *Service) offer(tenant, appID, name string) (asked, error) {
	h, ok := s.shop(tenant, appID)
	p := s.index.spOf(tenant, appID)
	if !ok || p == nil {
		return asked{}, problemf(650052, "invalid_resource", "The app is trying to access a service '%s' that the organization lacks a service principal for.", printable(name))
	}
	return asked{shop: h, resource: p.ID}, nil
}

// add takes over what an application says it needs of an API.
func (w *asked) add(n Needs, roles bool) {
	for _, id := range n.Scopes {
		if x, ok := w.shop.byID(id); ok && !slices.ContainsFunc(w.scopes, func(y Scope) bool { return y.ID == x.ID }) {
			w.scopes = append(w.scopes, x)
		}
	}
	if !roles {
		return
	}
	for _, r := range w.shop.roles {
		if !r.Disabled && slices.Contains(n.Roles, r.ID) && slices.Contains(r.Members, "Application") {
			w.roles = append(w.roles, r)
		}
	}
}

// wholly reports whether the request names no scopes but all that there are.
func (a *authorization) wholly() bool {
	return !a.adminConsent() && (len(a.wish.scopes) == 0 || slices.Contains(bareScopes(a.wish.scopes), ".default"))
}

func (a *authorization) adminConsent() bool { return a.query.Get("response_type") == adminConsent }

// consents reports whether a person may consent for everybody, and whether for
// themselves: if the tenant lets people do that, to what is not for administrators alone.
func (s *Service) consents(u *User, list []asked) (everybody, oneself bool) {
	c := arm.Caller{Tenant: u.Tenant, Object: u.ID, Kind: arm.User, Name: u.UPN, Token: "session"}
	everybody, _ = s.decide(c, consentAll, tenantID(u.Tenant))
	if slices.ContainsFunc(list, func(w asked) bool { return w.shop.first && len(w.roles) > 0 }) { // as visit.mayAssign
		makes, _ := s.decide(c, assignRole, tenantID(u.Tenant))
		everybody = everybody && makes
	}
	t := s.index.tenantOf(u.Tenant)
	oneself = t != nil && t.UserConsent
	for _, w := range list {
		if len(w.roles) > 0 || slices.ContainsFunc(w.scopes, func(x Scope) bool { return x.Admin }) {
			oneself = false
		}
	}
	return everybody, everybody || oneself
}

// digest names a list of demands, so that a person's yes is to what was shown.
func digest(client string, list []asked) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n", client)
	for _, w := range list {
		fmt.Fprintf(sum, "%s\n", w.resource)
		for _, x := range w.scopes {
			fmt.Fprintf(sum, "scope %s %q\n", x.ID, x.Value)
		}
		for _, r := range w.roles {
			fmt.Fprintf(sum, "role %s %q\n", r.ID, r.Value)
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// askConsent shows what the client wants, if anybody must be asked about it;
// asked is false if nobody must.
func (s *Service) askConsent(w http.ResponseWriter, r *http.Request, a *authorization, u *User, session grant) (shown bool, err error) {
	var list []asked
	all := a.adminConsent() || a.prompts("consent")
	err = s.DB.View(r.Context(), func(tx *store.Tx) (err error) {
		list, err = s.demand(tx, a, u, all)
		return err
	})
	if err != nil {
		return true, s.sendError(w, r, a, err)
	}
	if len(list) == 0 && !a.adminConsent() {
		return false, nil
	}
	if err := s.consentConditions(r, a, u, session); err != nil {
		return true, s.sendError(w, r, a, err)
	}
	everybody, oneself := s.consents(u, list)
	switch {
	case a.prompts("none"):
		return true, s.sendError(w, r, a, &problem{status: 400, number: 65001, code: "consent_required", text: problemOf(unconsented(a.client)).text})
	case !oneself || a.adminConsent() && !everybody:
		return true, s.sendError(w, r, a, problemf(90094, "consent_required", "An administrator of %s has set a policy that prevents you from granting %s the permissions it is requesting. Contact an administrator who can grant permissions to this application on your behalf.", u.Tenant, printable(a.client.app.Name)))
	}
	f := s.newFlow(w, r, goalCode, a.path)
	f.V1, f.Query, f.User, f.Epoch, f.Code = a.v1, a.query, u.ID, u.Epoch, digest(a.client.app.AppID, list)
	return true, s.form(w, r, http.StatusOK, stepConsent, f, a, consentView(a, u, list, everybody))
}

// consentConditions asks Conditional Access about the person who consents: for
// the API that the client asks for, or for the directory.
func (s *Service) consentConditions(r *http.Request, a *authorization, u *User, session grant) error {
	resource := a.wish.resource
	if a.adminConsent() {
		resource = s.Site.GraphAudiences()[0]
	}
	to, err := s.target(u.Tenant, resource)
	if err != nil {
		return err
	}
	_, err = s.conditions(r, u, a.client.app.AppID, to, a.with(session))
	return err
}

// consentView says in words what a yes would let the client do.
func consentView(a *authorization, u *User, list []asked, everybody bool) view {
	var lines []string
	for _, w := range list {
		for _, x := range w.scopes {
			text := x.UserName
			if text == "" {
				text = x.AdminName
			}
			lines = append(lines, fmt.Sprintf("%s: %s (%s)", w.shop.name, text, x.Value))
		}
		for _, r := range w.roles {
			lines = append(lines, fmt.Sprintf("%s, as itself and for nobody: %s (%s)", w.shop.name, r.Name, r.Value))
		}
	}
	v := view{Title: "Permissions requested", Who: u.UPN, Text: "Accept only if you trust the application. It may then:", Items: lines}
	if len(lines) == 0 {
		v.Text = "This application asks for no permissions."
	}
	if !a.adminConsent() {
		v.Buttons = append(v.Buttons, button{Name: "answer", Value: "me", Label: "Accept for myself"})
	}
	if everybody {
		v.Buttons = append(v.Buttons, button{Name: "answer", Value: "all", Label: "Accept for everybody in the organization", Other: !a.adminConsent()})
	}
	v.Buttons = append(v.Buttons, button{Name: "answer", Value: "no", Label: "Cancel", Other: true})
	return v
}

// serveConsent takes a person's answer to what a client wants.
func (s *Service) serveConsent(w http.ResponseWriter, r *http.Request, form url.Values, f flow, a *authorization) error {
	u, session, ok := s.session(r)
	if !ok || u.ID != f.User || u.Epoch != f.Epoch {
		return s.fault(w, r, errFlow)
	}
	if a == nil {
		return s.fault(w, r, errFlow)
	}
	answer := form.Get("answer")
	if answer != "me" && answer != "all" {
		err := problemf(65004, "access_denied", "User declined to consent to access the app.")
		return s.sendError(w, r, a, s.note(r.Context(), signIn{tenant: u.Tenant, object: u.ID, name: u.UPN, app: a.client.app.AppID, how: "session", grant: "consent"}, err))
	}
	if err := s.consentConditions(r, a, u, session.grant); err != nil {
		return s.sendError(w, r, a, err)
	}
	if err := s.consent(r.Context(), a, u, f.Code, answer == "all"); err != nil {
		return s.sendError(w, r, a, err)
	}
	if a.adminConsent() {
		a.tenant = s.index.tenantOf(u.Tenant)
		return s.send(w, r, a, url.Values{"admin_consent": {"True"}, "tenant": {u.Tenant}, "state": {a.state}})
	}
	return s.answerCode(w, r, a, u, session.grant)
}

// consent keeps a person's yes, together with its audit entry. What was shown
// must still be what is asked, and whoever said yes must still be who may.
func (s *Service) consent(ctx context.Context, a *authorization, u *User, shown string, everybody bool) error {
	return s.DB.Do(ctx, func(tx *store.Tx) error {
		list, err := s.demand(tx, a, u, a.adminConsent() || a.prompts("consent"))
		if err != nil {
			return err
		}
		forAll, forMe := s.consents(u, list)
		switch {
		case digest(a.client.app.AppID, list) != shown:
			return errFlow
		case everybody && !forAll || !forMe || a.adminConsent() && !everybody:
			return problemf(90094, "consent_required", "You may not consent to this.")
		}
		user := u.ID
		if everybody {
			user = ""
		}
		for _, w := range list {
			if err := s.allow(tx, u.Tenant, a.client.principal, w, user); err != nil {
				return err
			}
		}
		return s.Log.Append(tx, audit.Entry{Tenant: u.Tenant, Caller: u.ID, Name: u.UPN, App: a.client.app.AppID, Credential: "session", Action: consentAll.Name(), Target: tenantID(u.Tenant).String(),
			Item: "consent to " + a.client.principal.ID + ": " + summary(list), Decision: "allowed", Reason: map[bool]string{true: "an administrator consented for everybody", false: "a person consented for themselves"}[everybody], Outcome: "ok"})
	})
}

// summary names what was consented to, for the audit log.
func summary(list []asked) string {
	var out []string
	for _, w := range list {
		for _, x := range w.scopes {
			out = append(out, w.shop.app+"/"+x.Value)
		}
		for _, r := range w.roles {
			out = append(out, w.shop.app+"/roles/"+r.Value)
		}
	}
	text := strings.Join(out, " ")
	return text[:min(len(text), 2000)]
}

// allow adds scopes to what a client may do for a person or for everybody, and
// gives it the roles.
func (s *Service) allow(tx *store.Tx, tenant string, client *Principal, w asked, user string) error {
	g, err := s.consentOf(tx, tenant, client.ID, w.resource, user)
	if err != nil {
		return err
	}
	for _, x := range w.scopes {
		if !slices.Contains(g.Scopes, x.Value) {
			g.Scopes = append(g.Scopes, x.Value)
		}
	}
	if len(w.scopes) > 0 {
		if err := store.PutJSON(tx, consentTable, g.key(), g); err != nil {
			return err
		}
	}
	for _, r := range w.roles {
		had, err := s.assigned(tx, tenant, w.resource, []string{client.ID})
		if err != nil {
			return err
		}
		if slices.ContainsFunc(had, func(x Assignment) bool { return x.Role == r.ID }) {
			continue
		}
		x := Assignment{ID: arm.NewUUID(), Tenant: tenant, Principal: client.ID, Kind: arm.ServicePrincipal, Resource: w.resource, Role: r.ID, Created: s.Now().UTC()}
		if err := s.assign(tx, x); err != nil {
			return err
		}
	}
	return nil
}

// consentOf is the consent for these three, or a new one.
func (s *Service) consentOf(tx *store.Tx, tenant, client, resource, user string) (Consent, error) {
	rows, err := store.ScanJSON[Consent](tx, consentTable, tenant+"|"+client+"|", "", 0)
	if err != nil {
		return Consent{}, err
	}
	for _, g := range rows {
		if g.Resource == resource && g.User == user {
			return g, nil
		}
	}
	return Consent{ID: arm.NewUUID(), Tenant: tenant, Client: client, Resource: resource, User: user, Created: s.Now().UTC()}, nil
}

// serveAdminConsent is where an administrator is sent to consent for everybody.
// It is an authorize request that ends without a code.
func (s *Service) serveAdminConsent(w http.ResponseWriter, r *http.Request, v gate.Vars) error {
	q := r.URL.Query()
	if err := once(q); err != nil {
		return s.fault(w, r, err)
	}
	a, sendable, err := s.readAuthorization(v["tenant"], url.Values{
		"client_id": {q.Get("client_id")}, "redirect_uri": {q.Get("redirect_uri")}, "state": {q.Get("state")}, "response_type": {adminConsent},
	}, false)
	switch {
	case err != nil && sendable:
		return s.sendError(w, r, a, err)
	case err != nil:
		return s.fault(w, r, err)
	}
	return s.proceed(w, r, a)
}
