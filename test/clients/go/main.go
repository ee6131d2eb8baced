// Command clients drives the Azure SDK for Go against a Castellan: it makes a
// group, an account, a vault and a workspace of its own, uses them, tries what
// must be refused, and prints one line for every check.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// principal is an application that signs in.
type principal struct {
	ObjectID     string `json:"objectId"`
	ClientID     string `json:"clientId"`
	ClientSecret string `json:"clientSecret"`
	Certificate  string `json:"certificate"` // path of a PEM file with key and certificate
	Assertion    string `json:"assertion"`   // path of a token of somebody else
	Person       string `json:"person"`      // object id of whom that token is of
}

// world is what the other suites share with this one.
type world struct {
	ARM            string            `json:"armEndpoint"`
	Login          string            `json:"loginEndpoint"`
	Graph          string            `json:"graphEndpoint"`
	TenantID       string            `json:"tenantId"`
	SubscriptionID string            `json:"subscriptionId"`
	Location       string            `json:"location"`
	Suffixes       map[string]string `json:"suffixes"`
	Group          string            `json:"group"`

	Admin, Reader, Scientist, Stranger, Robot, Federated, Behalf principal
}

// run is one run of this suite.
type run struct {
	suite
	world
	ctx  context.Context
	opts azcore.ClientOptions

	admin, reader, stranger azcore.TokenCredential
}

// fast asks as often as the SDK allows how a long operation is.
var fast = &runtime.PollUntilDoneOptions{Frequency: time.Second}

const group = "by-go"

func main() {
	r := &run{}
	b, err := os.ReadFile(os.Getenv("CASTELLAN_WORLD"))
	if err == nil {
		err = json.Unmarshal(b, &r.world)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "reading CASTELLAN_WORLD:", err)
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	r.ctx = ctx
	r.opts = azcore.ClientOptions{
		Cloud: cloud.Configuration{
			ActiveDirectoryAuthorityHost: r.Login + "/",
			Services:                     map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: r.ARM, Audience: r.ARM}},
		},
		Retry: policy.RetryOptions{MaxRetries: 1, RetryDelay: 100 * time.Millisecond},
	}
	if r.identity() && r.resources() {
		r.continuous()
		r.storage()
		r.lake()
		r.shares()
		r.vault()
		r.ml()
		r.management()
		r.end()
	}
	fmt.Println("done go")
	if r.failed > 0 {
		os.Exit(1)
	}
}

// arm are the options of a Resource Manager client.
func (r *run) arm() *arm.ClientOptions { return &arm.ClientOptions{ClientOptions: r.opts} }

func (r *run) id(provider string) string {
	return "/subscriptions/" + r.SubscriptionID + "/resourceGroups/" + group + "/providers/" + provider
}

func (r *run) secret(p principal, secret string) (azcore.TokenCredential, error) {
	return azidentity.NewClientSecretCredential(r.TenantID, p.ClientID, secret, &azidentity.ClientSecretCredentialOptions{ClientOptions: r.opts, DisableInstanceDiscovery: true})
}

// identity signs in by secret and by certificate.
func (r *run) identity() bool {
	scope := policy.TokenRequestOptions{Scopes: []string{r.ARM + "/.default"}}
	for _, w := range []struct {
		name string
		who  principal
		to   *azcore.TokenCredential
	}{{"administrator", r.Admin, &r.admin}, {"reader", r.Reader, &r.reader}, {"stranger", r.Stranger, &r.stranger}} {
		c, err := r.secret(w.who, w.who.ClientSecret)
		if err == nil {
			_, err = c.GetToken(r.ctx, scope)
		}
		if *w.to = c; !r.ok("azidentity: the "+w.name+" signs in by secret", err) {
			return false
		}
	}
	r.ok("azidentity: the robot signs in by certificate", r.certificate(scope))
	r.assertions(scope)
	bad, err := r.secret(r.Admin, "wrong-wrong-wrong-wrong-wrong-wrong-wrong")
	if err == nil {
		_, err = bad.GetToken(r.ctx, scope)
	}
	r.refused("a wrong secret", err, "AADSTS7000215", "invalid_client")
	return true
}

func (r *run) certificate(scope policy.TokenRequestOptions) error {
	pem, err := os.ReadFile(r.Robot.Certificate)
	if err != nil {
		return err
	}
	certs, key, err := azidentity.ParseCertificates(pem, nil)
	if err != nil {
		return err
	}
	c, err := azidentity.NewClientCertificateCredential(r.TenantID, r.Robot.ClientID, certs, key, &azidentity.ClientCertificateCredentialOptions{ClientOptions: r.opts, DisableInstanceDiscovery: true})
	if err != nil {
		return err
	}
	_, err = c.GetToken(r.ctx, scope)
	return err
}

// bare asks url with a token for a resource that the SDK would not ask it with.
func (r *run) bare(url, resource string) error {
	token, err := r.admin.GetToken(r.ctx, policy.TokenRequestOptions{Scopes: []string{resource + "/.default"}})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(r.ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token.Token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode < 300 {
		return nil
	}
	return fmt.Errorf("status %d", res.StatusCode)
}
