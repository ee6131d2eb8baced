package identity

import (
	"context"
	"errors"
	"slices"

	"castellan/internal/store"
)

const (
	behalfGrant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	behalfUse   = "on_behalf_of"
)

// giveBehalf is the on-behalf-of grant: an application that a person called
// calls on for them. The person's token for the application is what it shows;
// what comes of it is of the same sign-in, so it ends with it.
func (s *Service) giveBehalf(ctx context.Context, a *asking) (_ map[string]any, err error) {
	e := signIn{app: a.form.Get("client_id"), grant: behalfUse}
	defer func() { err = s.note(ctx, e, err) }()
	if use := a.form.Get("requested_token_use"); use != behalfUse {
		return nil, problemf(900144, "invalid_request", "The request body must contain the following parameter: 'requested_token_use', with the value %s.", behalfUse)
	}
	raw := a.form.Get("assertion")
	if raw == "" {
		return nil, problemf(900144, "invalid_request", "The request body must contain the following parameter: 'assertion'.")
	}
	v, err := s.open(raw, s.Now())
	if err != nil {
		return nil, badAssertion(err)
	}
	t := s.index.tenantOf(v.tenant)
	if t == nil || a.tenant != nil && a.tenant.ID != t.ID {
		return nil, problemf(50013, "invalid_grant", "Assertion failed signature validation: it is of another tenant.")
	}
	// The client first: what is wrong with a person's token is told to nobody else.
	if a.client, err = s.authenticate(ctx, a.r, a.form, t); err != nil {
		return nil, err
	}
	a.tenant, e.tenant, e.app, e.how = t, t.ID, a.client.app.AppID, a.client.how
	if a.client.evidence == "" || a.client.principal == nil {
		return nil, problemf(7000218, "invalid_client", "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
	}
	e.object = v.object
	if err := s.mayShow(a.client, v); err != nil {
		return nil, err
	}
	if err := s.readWish(a); err != nil {
		return nil, err
	}
	if a.wish.resource == "" {
		return nil, problemf(900144, "invalid_request", "The request body must contain the following parameter: 'scope' or, at the v1 endpoint, 'resource'.")
	}
	return s.person(ctx, &e, a, s.behalf(a.client, v), func(*store.Tx) (bool, error) { return false, nil })
}

// badAssertion words why a person's token is not taken.
func badAssertion(err error) error {
	if errors.Is(err, errExpired) {
		return problemf(500133, "invalid_grant", "Assertion is not within its valid time range. Ensure that the access token is not expired before using it for user assertion, or request a new token.")
	}
	return problemf(50013, "invalid_grant", "Assertion failed signature validation.")
}

// mayShow says whether a client may show this token: a person's, that still
// counts, and for the client's own API.
func (s *Service) mayShow(c client, v *verified) error {
	if !slices.Contains(append([]string{c.app.AppID, "api://" + c.app.AppID}, c.app.URIs...), v.audience) {
		return problemf(500131, "invalid_grant", "Assertion audience does not match the Client app presenting the assertion. The audience in the assertion was '%s' and the expected audience is '%s' or one of the Application Uris of this application with App ID '%s'.",
			printable(v.audience), c.app.AppID, c.app.AppID)
	}
	if v.loan != "" || v.sandbox != "" {
		return badAssertion(errToken) // what is lent to a job is not lent on
	}
	if s.index.user(v.object) == nil && s.index.sp(v.object) != nil {
		return problemf(7000114, "invalid_grant", "Application '%s' is not allowed to make application on-behalf-of calls.", c.app.AppID)
	}
	if _, err := s.living(v); err != nil {
		return problemf(50173, "invalid_grant", "The provided grant has expired due to it being revoked, a fresh auth token is needed. The user might have changed or reset their password.")
	}
	return nil
}

// behalf is what the client gets to act on: the person's own sign-in.
func (s *Service) behalf(c client, v *verified) grant {
	return grant{Tenant: v.tenant, User: v.object, Client: c.app.AppID, Family: v.family, Epoch: v.epoch, Confidential: true, Proofs: v.proofs, DeviceCode: v.device, Kind: v.kind}
}
