package identity

import (
	"strings"

	"castellan/internal/arm"
)

// api is something that tokens are for.
type api struct {
	audience string // the token's aud
	v1       bool   // tokens have Azure's older form, as for Azure's own services
	name     string
	app      string // app id of whose API it is, which policies name it by; empty: nobody's, and nothing can be consented to
	groups   bool   // its tokens name the groups
}

// service is one of the platform's own APIs, with all names that it goes by.
type service struct {
	name, appID, delegate string
	audiences             []string
}

// services are the platform's own APIs. Their app ids are Azure's, which some
// clients ask for instead of the URL.
func services(s arm.Site) []service {
	return []service{
		{"Azure Resource Manager", "797f4846-ba00-4fd7-ba43-dac1f8f63013", "user_impersonation", s.ARMAudiences()},
		{graphName, graphApp, "User.Read", s.GraphAudiences()},
		{"Azure Storage", "e406a681-f3d4-42a8-90b6-c2b029497af1", "user_impersonation", s.StorageAudiences()},
		{"Azure Key Vault", "cfa8b339-82a2-471a-a3c9-0fc0be7a4093", "user_impersonation", s.VaultAudiences()},
		{"Azure Machine Learning", "18a66f5f-dbdf-4c17-9dd7-1634712a9cbe", "user_impersonation", s.MLAudiences()},
	}
}

// studios are Azure's own pages for machine learning, by app id: policies name
// them, so tenants can have principals of them.
var studios = map[string]string{
	"d7304df8-741f-47d3-9bc2-df0e24e2071f": "Azure Machine Learning Workbench Web App",
	"cb2ff863-7f30-4ced-ab89-a00194bcf6d9": "Azure AI Studio App",
}

// firstParty is the name of the service or page of Azure's with an app id, or "".
func (s *Service) firstParty(appID string) string {
	if n := studios[fold(appID)]; n != "" {
		return n
	}
	if isGUID(appID) {
		return s.apis[fold(appID)].name
	}
	return ""
}

// audiences are the platform's own APIs by the names that clients ask by.
func audiences(s arm.Site) map[string]api {
	out := map[string]api{}
	for _, v := range services(s) {
		for _, aud := range v.audiences {
			out[aud] = api{audience: aud, v1: true, name: v.name, app: v.appID, groups: true}
		}
		main := out[v.audiences[0]]
		out[v.appID] = main
	}
	// A managed identity's token for this opens nothing: it is shown to a token
	// endpoint, ours or Azure's, in the place of a client secret.
	out[ExchangeAudience] = api{audience: ExchangeAudience, name: "Token exchange"}
	return out
}

// graphName is the name of the directory's API.
const graphName = "Microsoft Graph"

// exactly is the API of a tenant that resource names letter by letter: its
// tokens' aud is what was asked for.
func (s *Service) exactly(tenant, resource string) (api, bool) {
	a, ok := s.api(tenant, resource)
	return a, ok && a.audience == resource
}

// api is what resource names, for a client in a tenant; ok is false if the
// tenant has nothing of that name. A slash at the end of a URL stays in aud, as
// clients compare it.
func (s *Service) api(tenant, resource string) (a api, ok bool) {
	bare := strings.TrimSuffix(resource, "/")
	if a, ok = s.apis[bare]; ok {
		if bare != resource && strings.HasPrefix(bare, "https://") {
			a.audience = resource
		}
		return a, true
	}
	app := s.index.api(bare)
	if app == nil {
		app = s.index.client(strings.TrimPrefix(bare, "api://"))
	}
	if app == nil || app.Tenant != tenant {
		return api{}, false
	}
	a = api{audience: app.AppID, name: app.Name, app: app.AppID, groups: app.GroupClaims == "SecurityGroup" || app.GroupClaims == "All"}
	if app.version() == 1 {
		a.v1, a.audience = true, resource
	}
	return a, true
}

// oidcScopes ask for things other than access to an API.
var oidcScopes = map[string]bool{"openid": true, "profile": true, "email": true, "offline_access": true}

// wish is what a request asks for.
type wish struct {
	resource string   // as the client spelt it
	scopes   []string // of the API, as the client spelt them
	oidc     map[string]bool
	standard bool // the API's scope is .default
}

// readScope reads v2's scope. All scopes must be of one API.
func readScope(scope, graph string) (w wish, err error) {
	w.oidc = map[string]bool{}
	for _, s := range strings.Fields(scope) {
		if oidcScopes[strings.ToLower(s)] {
			w.oidc[strings.ToLower(s)] = true
			continue
		}
		resource, name := graph, s
		if i := strings.LastIndexByte(s, '/'); i > 0 {
			resource, name = s[:i], s[i+1:]
		}
		if w.resource != "" && w.resource != resource {
			return w, problemf(28000, "invalid_scope", "The provided value for the input parameter scope is not valid because it contains more than one resource.")
		}
		w.resource, w.scopes = resource, append(w.scopes, s)
		w.standard = name == ".default"
	}
	return w, nil
}
