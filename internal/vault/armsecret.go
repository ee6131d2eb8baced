package vault

import (
	"encoding/base64"
	"net/http"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
)

// The secrets' names and attributes as Resource Manager shows them, and how a
// template sets a secret. These doors ask for the same data actions as the data
// plane: a role that may read or write everything in Resource Manager neither
// finds out what secrets there are nor puts its own in their place.

func (s *Service) armSecrets(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	v, err := s.whole(g, secrets)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	after, err := base64.RawURLEncoding.DecodeString(q.Get("$skiptoken"))
	if err != nil || len(after) > 127 {
		return arm.Errorf(arm.BadRequest, "the $skiptoken is not one that a nextLink gave")
	}
	p, err := s.all(r.Context(), g, secrets, false, string(after), maxPage)
	if err != nil {
		return err
	}
	list := []any{}
	for _, x := range p.Items {
		list = append(list, s.armView(v, x))
	}
	out := map[string]any{"value": list}
	if p.After != "" {
		q.Set("$skiptoken", base64.RawURLEncoding.EncodeToString([]byte(p.After)))
		out["nextLink"] = s.Site.Base() + r.URL.EscapedPath() + "?" + q.Encode()
	}
	gate.WriteJSON(w, http.StatusOK, out)
	return nil
}

func (s *Service) armSecret(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	v, err := s.target(g, SecretMetadata)
	if err != nil {
		return err
	}
	x, err := s.load(r.Context(), g, secrets, SecretMetadata, "", nil)
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, s.armView(v, x))
	return nil
}

func (s *Service) armPutSecret(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	v, _, err := s.of(g, SecretSet)
	if err != nil {
		return err
	}
	data, err := resource.ReadBody(w, r)
	if err != nil {
		return err
	}
	tree, err := arm.ParseJSON(data)
	if err != nil {
		return err
	}
	body, _ := tree.(map[string]any)
	props, ok := body["properties"].(map[string]any)
	if !ok {
		return arm.Errorf(arm.InvalidRequest, "properties must be an object")
	}
	if _, text := props["value"].(string); !text {
		return arm.Errorf(arm.InvalidRequest, "properties.value must be a string")
	}
	var in struct {
		ID         string            `json:"id" arm:"readonly"`
		Name       string            `json:"name" arm:"readonly"`
		Type       string            `json:"type" arm:"readonly"`
		Location   string            `json:"location" arm:"readonly"`
		Tags       map[string]string `json:"tags"`
		Properties said              `json:"properties"`
	}
	if err := arm.DecodeTree(tree, &in); err != nil {
		return err
	}
	in.Properties.Tags = in.Tags
	d, err := in.Properties.draft()
	if err != nil {
		return err
	}
	x, err := s.SetSecret(r.Context(), g, d)
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, s.armView(v, x))
	return nil
}

// armView is a secret without its value.
func (s *Service) armView(v *live, x Object) map[string]any {
	a := map[string]any{"enabled": x.Attributes.Enabled, "created": x.Attributes.Created.Unix(), "updated": x.Attributes.Updated.Unix()}
	if x.Attributes.NotBefore != nil {
		a["nbf"] = x.Attributes.NotBefore.Unix()
	}
	if x.Attributes.Expires != nil {
		a["exp"] = x.Attributes.Expires.Unix()
	}
	uri := s.Site.VaultURL(v.ID.Name()) + "secrets/" + x.Name
	return map[string]any{
		"id": v.ID.Child("secrets", x.Name), "name": x.Name, "type": "Microsoft.KeyVault/vaults/secrets", "tags": x.Tags,
		"properties": map[string]any{"attributes": a, "contentType": x.ContentType, "secretUri": uri, "secretUriWithVersion": uri + "/" + x.Version},
	}
}
