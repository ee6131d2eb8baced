package identity

import (
	"bytes"
	"context"
	"errors"

	"castellan/internal/arm"
	"castellan/internal/cert"
)

// Prove is the service principal of a tenant that an application's secret proves,
// or one of its certificates with the private key, in PEM: for whoever keeps its
// credentials and acts as it. It is recorded as a sign-in, and what refuses that at
// the token endpoint refuses it here.
func (s *Service) Prove(ctx context.Context, tenant, clientID string, secret, certificate arm.Secret) (_ arm.Caller, err error) {
	e := signIn{tenant: tenant, app: clientID, grant: "client_credentials"}
	defer func() {
		var p *problem
		if err = s.note(ctx, e, err); errors.As(err, &p) {
			err = arm.Errorf(arm.Unauthenticated, "%s", p.description())
		}
	}()
	c, err := s.lookup(tenant, clientID)
	if err != nil {
		return arm.Caller{}, err
	}
	if certificate.IsZero() {
		c, err = s.checkSecret(c, string(secret.Reveal()))
	} else {
		c, err = s.checkPEM(c, certificate)
	}
	if err != nil {
		return arm.Caller{}, err
	}
	if c.principal == nil {
		return arm.Caller{}, problemf(700016, "unauthorized_client", "The application has no service principal in the directory.")
	}
	e.app, e.how, e.object, e.name = c.app.AppID, c.how, c.principal.ID, c.principal.Name
	return s.Known(tenant, c.principal.ID)
}

// checkPEM is the client, if it has a valid certificate that text is, with its key.
func (s *Service) checkPEM(c client, text arm.Secret) (client, error) {
	b, err := cert.ReadPEM(text.Reveal()) // which wants the key to be the certificate's
	if err != nil {
		return client{}, problemf(700027, "invalid_client", "The certificate can't be read: %s.", err)
	}
	now := s.Now()
	for _, x := range c.app.Certs {
		if bytes.Equal(x.DER, b.Leaf().Raw) && !now.Before(x.Start) && now.Before(x.End) {
			c.evidence, c.how = x.KeyID, "certificate"
			return c, nil
		}
	}
	return client{}, problemf(700027, "invalid_client", "The certificate is not registered on the application '%s', or not valid now.", c.app.AppID)
}
