package server

import (
	"net/http"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// Metadata are the doors by which clients learn the installation's host names.
// Azure has three shapes of the answer, told apart by the api-version.
func Metadata(site arm.Site) []gate.Route {
	return []gate.Route{
		gate.Public("a client that has no token yet must learn where to get one", "GET /metadata/endpoints", func(w http.ResponseWriter, r *http.Request, _ gate.Vars) error {
			v := r.URL.Query()["api-version"]
			if len(v) != 1 {
				return arm.Errorf(arm.MissingAPIVersion, "the api-version query parameter (?api-version=) is required, once; such as 2022-09-01")
			}
			switch {
			case v[0] < "2018-05-01":
				gate.WriteJSON(w, http.StatusOK, oldest(site))
			case v[0] < "2022-09-01":
				gate.WriteJSON(w, http.StatusOK, []any{cloud(site)})
			default:
				gate.WriteJSON(w, http.StatusOK, cloud(site))
			}
			return nil
		}),
		gate.Public("a load balancer has no identity", "GET /healthz", func(w http.ResponseWriter, _ *http.Request, _ gate.Vars) error {
			gate.WriteJSON(w, http.StatusOK, map[string]string{"status": "ok"})
			return nil
		}),
	}
}

// oldest is the shape of 2015-01-01.
func oldest(s arm.Site) any {
	return map[string]any{
		"galleryEndpoint": s.Base() + "/", "graphEndpoint": "https://" + s.GraphHost() + "/", "portalEndpoint": portal(s),
		"authentication": map[string]any{"loginEndpoint": s.Base() + "/", "audiences": []string{s.Base() + "/"}},
	}
}

func portal(s arm.Site) string { return "https://portal." + s.Suffix }

// cloud is the whole cloud in one object. What the installation does not have
// is left out, for clients take a name that is there for a service that is.
func cloud(s arm.Site) map[string]any {
	graph := "https://" + s.GraphHost() + "/"
	return map[string]any{
		"name": "Castellan", "portal": portal(s), "resourceManager": s.Base() + "/", "resourceManagerEndpoint": s.Base() + "/",
		"authentication": map[string]any{
			"loginEndpoint": s.Base() + "/", "audiences": []string{s.Base() + "/", "https://management.azure.com/", "https://management.core.windows.net/"},
			"tenant": "common", "identityProvider": "AAD",
		},
		"graph": graph, "graphAudience": graph, "microsoftGraphResourceId": graph, "activeDirectoryGraphResourceId": graph,
		"gallery": s.Base() + "/", "batch": s.Base() + "/", "media": s.Base() + "/", "sqlManagement": s.Base() + "/",
		"vmImageAliasDoc": s.Base() + "/", "activeDirectoryDataLake": s.Base() + "/",
		"azureMachineLearning": "https://ml.azure.com",
		"suffixes": map[string]any{
			"storage": s.StorageSuffix(), "keyVaultDns": s.VaultSuffix(), "acrLoginServer": s.RegistrySuffix(), "mhsmDns": "managedhsm." + s.Suffix,
		},
	}
}
