package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// assertions signs in by tokens of others: a cluster's, which an application
// trusts, and a person's, on whose behalf one goes on.
func (r *run) assertions(scope policy.TokenRequestOptions) {
	r.ok("azidentity: client assertion", r.is(r.Federated.ObjectID, scope, r.asserted(r.Federated)))
	r.ok("azidentity: workload identity", r.is(r.Federated.ObjectID, scope, r.workload(r.Federated)))
	r.ok("azidentity: on behalf of", r.is(r.Behalf.Person, scope, r.behalf(r.Behalf)))
	r.refused("a cluster's token at an application that does not trust it", r.is("", scope, r.asserted(r.Reader)), "AADSTS7002")
	r.refused("a cluster's token file at an application that does not trust it", r.is("", scope, r.workload(r.Reader)), "AADSTS7002")
	r.refused("on behalf of, with a token for somebody else", r.is("", scope, r.behalf(r.Robot)), "AADSTS500131", "AADSTS50013")
	mixed := r.Behalf
	mixed.Assertion = r.Federated.Assertion
	r.refused("on behalf of, with a cluster's token", r.is("", scope, r.behalf(mixed)), "AADSTS50013")
	mixed = r.Federated
	mixed.Assertion = r.Behalf.Assertion
	r.refused("client assertion with a person's token", r.is("", scope, r.workload(mixed)), "AADSTS7002")
}

type credential func() (azcore.TokenCredential, error)

// is holds if the credential's token is of this object.
func (r *run) is(object string, scope policy.TokenRequestOptions, make credential) error {
	c, err := make()
	if err != nil {
		return err
	}
	t, err := c.GetToken(r.ctx, scope)
	if err != nil {
		return err
	}
	parts := strings.Split(t.Token, ".")
	if len(parts) != 3 {
		return fmt.Errorf("the token has %d parts", len(parts))
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return err
	}
	var said struct{ OID string }
	if err := json.Unmarshal(b, &said); err != nil {
		return err
	}
	return equal(said.OID, object)
}

// asserted proves p by the cluster's token.
func (r *run) asserted(p principal) credential {
	read := func(context.Context) (string, error) {
		b, err := os.ReadFile(r.Federated.Assertion)
		return string(b), err
	}
	return func() (azcore.TokenCredential, error) {
		return azidentity.NewClientAssertionCredential(r.TenantID, p.ClientID, read, &azidentity.ClientAssertionCredentialOptions{ClientOptions: r.opts, DisableInstanceDiscovery: true})
	}
}

// workload proves p by its own token file, or the cluster's if it has none.
func (r *run) workload(p principal) credential {
	file := p.Assertion
	if file == "" {
		file = r.Federated.Assertion
	}
	return func() (azcore.TokenCredential, error) {
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{ClientOptions: r.opts, ClientID: p.ClientID, TenantID: r.TenantID, TokenFilePath: file, DisableInstanceDiscovery: true})
	}
}

// behalf goes on as the person whose token p shows, or that was given for another.
func (r *run) behalf(p principal) credential {
	file := p.Assertion
	if file == "" {
		file = r.Behalf.Assertion
	}
	return func() (azcore.TokenCredential, error) {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		return azidentity.NewOnBehalfOfCredentialWithSecret(r.TenantID, p.ClientID, string(b), p.ClientSecret, &azidentity.OnBehalfOfCredentialOptions{ClientOptions: r.opts, DisableInstanceDiscovery: true})
	}
}
