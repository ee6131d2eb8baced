package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources/v3"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

// noted is a credential that notes what the SDK asks of it.
type noted struct {
	azcore.TokenCredential
	asked []policy.TokenRequestOptions
	token string // the last one
}

func (n *noted) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	n.asked = append(n.asked, o)
	t, err := n.TokenCredential.GetToken(ctx, o)
	if err == nil {
		n.token = t.Token
	}
	return t, err
}

// continuous disables an application that has a token: the next call is
// challenged, which the SDK answers by itself, and no other token is given.
func (r *run) continuous() {
	secret, err := r.secret(r.Robot, r.Robot.ClientSecret)
	if !r.ok("azidentity: the robot's credential", err) {
		return
	}
	robot := &noted{TokenCredential: secret}
	groups, err := armresources.NewResourceGroupsClient(r.SubscriptionID, robot, r.arm())
	get := func() error {
		_, err := groups.Get(r.ctx, path.Base(r.Group), nil)
		return err
	}
	if err == nil {
		err = get()
	}
	if !r.ok("armresources: group get with EnableCAE", err) {
		return
	}
	r.ok("azidentity: the token's xms_cc", equal(capability(robot.token), "[cp1]"))
	secrets, err := r.theirSecrets(robot)
	if !r.ok("azsecrets: a client for the robot", err) {
		return
	}
	look := func() error {
		_, err := secrets.NewListSecretPropertiesPager(nil).NextPage(r.ctx)
		return err
	}
	r.refused("the robot's look at secrets", look(), "403")
	defer func() { r.ok("graph: the robot enabled again", r.enable(r.Robot, true)) }()
	r.ok("graph: the robot disabled", r.enable(r.Robot, false))
	r.refused("group get by an application that was disabled", get(), "AADSTS7000112")
	r.refused("a look at secrets by an application that was disabled", look(), "AADSTS7000112")
	last := robot.asked[len(robot.asked)-1]
	if !last.EnableCAE || !strings.Contains(last.Claims, `"nbf"`) {
		err = fmt.Errorf("asked with %+v", last)
	}
	r.ok("azcore: the claims of the challenge", err)
}

// theirSecrets is a client of the vault that all suites share.
func (r *run) theirSecrets(who azcore.TokenCredential) (*azsecrets.Client, error) {
	vaults, err := armkeyvault.NewVaultsClient(r.SubscriptionID, who, r.arm())
	if err != nil {
		return nil, err
	}
	v, err := vaults.Get(r.ctx, path.Base(r.Group), "clients-kv", nil)
	if err != nil || v.Properties == nil {
		return nil, fmt.Errorf("the vault: %+v, %w", v, err)
	}
	return azsecrets.NewClient(value(v.Properties.VaultURI), who, &azsecrets.ClientOptions{ClientOptions: r.opts})
}

// capability is the claim xms_cc of a token.
func capability(token string) string {
	var claims struct {
		Capabilities []string `json:"xms_cc"`
	}
	parts := strings.Split(token, ".")
	if len(parts) == 3 {
		b, _ := base64.RawURLEncoding.DecodeString(parts[1])
		_ = json.Unmarshal(b, &claims) // what can't be read has none
	}
	return fmt.Sprint(claims.Capabilities)
}

// enable enables or disables an application's principal.
func (r *run) enable(p principal, on bool) error {
	token, err := r.admin.GetToken(r.ctx, policy.TokenRequestOptions{Scopes: []string{r.Graph + "/.default"}})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(r.ctx, http.MethodPatch, r.Graph+"/v1.0/servicePrincipals/"+p.ObjectID, bytes.NewReader(fmt.Appendf(nil, `{"accountEnabled":%t}`, on)))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token.Token)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return equal(res.StatusCode, http.StatusNoContent)
}
