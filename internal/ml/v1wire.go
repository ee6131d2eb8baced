package ml

import (
	"encoding/json"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/resource"
)

// v1Store is a datastore as v1's service has it (azureml-core's DataStore).
type v1Store struct {
	Name      string            `json:"name,omitempty"`
	Type      string            `json:"dataStoreType"`
	Validated any               `json:"hasBeenValidated" arm:"readonly"`
	Tags      map[string]string `json:"tags,omitempty"`
	Storage   *v1Storage        `json:"azureStorageSection,omitempty"`
}

// v1Storage is where such a datastore lies, and what opens it.
type v1Storage struct {
	Account      string    `json:"accountName"`
	Container    string    `json:"containerName"`
	Endpoint     string    `json:"endpoint,omitempty"`
	Protocol     string    `json:"protocol,omitempty"`
	Kind         string    `json:"credentialType,omitempty" arm:"only=|None|Sas|AccountKey|ClientCredentials"`
	Credential   string    `json:"credential,omitempty"` // the key or the signature
	Client       *v1Client `json:"clientCredentials,omitempty"`
	CacheTimeout *int      `json:"blobCacheTimeout,omitempty"` // seconds
	IsSAS        any       `json:"isSas,omitempty" arm:"readonly"`
	Key          string    `json:"accountKey,omitempty"` // the key again, where clients look for it
	SAS          string    `json:"sasToken,omitempty"`
	Managed      *bool     `json:"areWorkspaceManagedIdentitiesAllowed,omitempty"`
	Subscription string    `json:"subscriptionId,omitempty"`
	Group        string    `json:"resourceGroup,omitempty"`
	ServiceData  string    `json:"serviceDataAccessAuthIdentity,omitempty"`
}

// v1Client is a service principal that opens a datastore.
type v1Client struct {
	ID           string `json:"clientId,omitempty"`
	Tenant       string `json:"tenantId,omitempty"`
	ByCert       bool   `json:"isCertAuth"`
	Certificate  string `json:"certificate,omitempty"`
	Thumbprint   string `json:"thumbprint,omitempty"`
	Secret       string `json:"clientSecret,omitempty"`
	Authority    string `json:"authorityUrl,omitempty"`
	Resource     string `json:"resourceUri,omitempty"`
	Subscription string `json:"subscriptionId,omitempty"`
	Group        string `json:"resourceGroup,omitempty"`
}

const (
	v1ClientCredentials = "ClientCredentials"
	cacheTimeout        = "blobCacheTimeout" // among a datastore's free properties
)

// arm is the body by which Resource Manager is asked for the same datastore.
func (v v1Store) arm() ([]byte, error) {
	bad := func(format string, args ...any) ([]byte, error) {
		return nil, arm.Errorf(arm.BadRequest, format, args...)
	}
	p := datastoreProps{Type: spelt(v.Type, azureBlob, azureGen2, azureFile), Protocol: "https", Tags: v.Tags}
	if p.Type == "" {
		return nil, arm.Errorf(arm.Unsupported, "dataStoreType is %q; supported: %s, %s, %s", v.Type, azureBlob, azureGen2, azureFile)
	}
	x := v.Storage
	if x == nil {
		return bad("azureStorageSection is missing, which a datastore of type %s has", p.Type)
	}
	if managed := x.ServiceData != "" && !strings.EqualFold(x.ServiceData, credNone); x.Managed != nil && *x.Managed != managed {
		return bad("areWorkspaceManagedIdentitiesAllowed is %t, and serviceDataAccessAuthIdentity is %q", *x.Managed, x.ServiceData)
	}
	p.Account, p.Container, p.ServiceData, p.Subscription, p.Group = x.Account, x.Container, x.ServiceData, x.Subscription, x.Group
	switch p.Type {
	case azureGen2:
		p.Container, p.Filesystem = "", x.Container
	case azureFile:
		p.Container, p.Share = "", x.Container
	}
	if x.Protocol != "" {
		p.Protocol = x.Protocol
	}
	if x.CacheTimeout != nil {
		p.Properties = map[string]any{cacheTimeout: *x.CacheTimeout}
	}
	creds, err := x.credentials()
	if err != nil {
		return nil, err
	}
	p.Credentials = creds
	doc := map[string]any{"properties": p}
	if p.Endpoint = x.Endpoint; p.Endpoint == "" {
		doc["properties"] = struct {
			datastoreProps
			Endpoint any `json:"endpoint,omitempty"` // which Resource Manager then fills in
		}{datastoreProps: p}
	}
	return json.Marshal(doc)
}

// credentials are what opens the datastore, as Resource Manager has it.
func (x v1Storage) credentials() (credentials, error) {
	kind := x.Kind
	switch {
	case kind != "":
	case x.Key != "":
		kind = credKey
	case x.SAS != "":
		kind = credSAS
	default:
		kind = credNone
	}
	c := v1Client{}
	if x.Client != nil {
		c = *x.Client
	}
	if secret := c.Secret != "" || c.Certificate != ""; secret != (kind == v1ClientCredentials) {
		return credentials{}, arm.Errorf(arm.BadRequest, "credentialType is %q, and clientCredentials has a secret or a certificate: %t", kind, secret)
	}
	if kind == credNone && (x.Credential != "" || x.Key != "" || x.SAS != "") {
		return credentials{}, arm.Errorf(arm.BadRequest, "credentialType is %q, and there is a credential", kind)
	}
	out := credentials{Type: kind}
	switch kind {
	case credKey:
		out.Secrets = &secrets{Type: credKey, Key: x.Credential}
		if x.Credential == "" {
			out.Secrets.Key = x.Key
		}
	case credSAS:
		out.Secrets = &secrets{Type: credSAS, SAS: x.Credential}
		if x.Credential == "" {
			out.Secrets.SAS = x.SAS
		}
	case v1ClientCredentials:
		out = credentials{Type: credPrincipal, Authority: c.Authority, Resource: c.Resource, Tenant: c.Tenant, Client: c.ID, Thumbprint: c.Thumbprint}
		if out.Secrets = (&secrets{Type: credPrincipal, ClientSecret: c.Secret}); c.ByCert {
			out.Type, out.Secrets = credCertificate, &secrets{Type: credCertificate, Certificate: c.Certificate}
		}
	}
	return out, nil
}

// v1Shown is a datastore as v1 shows it, with what opens it, if that is not zero.
func v1Shown(d *resource.Doc, p datastoreProps, with secrets) (v1Store, error) {
	in, err := inner[datastoreInner](d)
	x := &v1Storage{
		Account: p.Account, Container: p.place(), Endpoint: p.Endpoint, Protocol: p.Protocol, Kind: p.Credentials.Type,
		Subscription: in.Account.Subscription(), Group: in.Account.Group().Name(), ServiceData: p.ServiceData,
	}
	if x.ServiceData == "" {
		x.ServiceData = credNone
	}
	managed := x.ServiceData != credNone
	x.Managed = &managed
	if n, ok := p.Properties[cacheTimeout].(float64); ok {
		seconds := int(n)
		x.CacheTimeout = &seconds
	}
	switch {
	case with.Type == credSAS:
		x.Kind, x.SAS, x.Credential = credSAS, with.SAS, with.SAS
	case with.Type == credKey:
		x.Key, x.Credential = with.Key, with.Key
	case x.Kind == credPrincipal || x.Kind == credCertificate:
		c := p.Credentials
		x.Client = &v1Client{
			ID: c.Client, Tenant: c.Tenant, ByCert: x.Kind == credCertificate, Thumbprint: c.Thumbprint, Authority: c.Authority, Resource: c.Resource,
			Secret: with.ClientSecret, Certificate: with.Certificate,
		}
		x.Kind = v1ClientCredentials
	}
	return v1Store{Name: d.Name, Type: p.Type, Validated: in.Proven || in.System, Tags: p.Tags, Storage: x}, err
}
