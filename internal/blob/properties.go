package blob

import (
	"encoding/json"
	"net/http"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/resource"
)

// Properties are those of a storage account. What promises something that the
// platform doesn't keep is not taken.
type Properties struct {
	SharedKey     *bool       `json:"allowSharedKeyAccess" arm:"since=2019-04-01"`
	PublicBlobs   bool        `json:"allowBlobPublicAccess" arm:"only=false,since=2019-04-01"`
	MinimumTLS    string      `json:"minimumTlsVersion" arm:"only=TLS1_2|TLS1_3,since=2019-04-01"`
	HTTPSOnly     *bool       `json:"supportsHttpsTrafficOnly" arm:"only=true,since=2016-12-01"`
	PublicNetwork string      `json:"publicNetworkAccess" arm:"only=Enabled|Disabled,since=2021-06-01"`
	Network       *Network    `json:"networkAcls" arm:"since=2017-06-01"`
	Tier          string      `json:"accessTier" arm:"only=Hot,since=2016-01-01"`
	CrossTenant   bool        `json:"allowCrossTenantReplication" arm:"only=false,since=2021-04-01"`
	OAuthDefault  *bool       `json:"defaultToOAuthAuthentication" arm:"since=2021-06-01"`
	Endpoint      string      `json:"dnsEndpointType" arm:"only=Standard,since=2021-09-01"`
	Hierarchical  *bool       `json:"isHnsEnabled" arm:"since=2018-02-01"`
	NFS           bool        `json:"isNfsV3Enabled" arm:"only=false,since=2021-01-01"`
	SFTP          bool        `json:"isSftpEnabled" arm:"only=false,since=2021-08-01"`
	LocalUsers    bool        `json:"isLocalUserEnabled" arm:"since=2021-08-01"` // no protocol here has any
	LargeShares   string      `json:"largeFileSharesState,omitempty" arm:"only=Disabled,since=2019-04-01"`
	Encryption    *Encryption `json:"encryption,omitempty" arm:"since=2016-01-01"`

	State           string `json:"provisioningState,omitempty" arm:"readonly"`
	Endpoints       any    `json:"primaryEndpoints,omitempty" arm:"readonly"`
	SecondEndpoints any    `json:"secondaryEndpoints,omitempty" arm:"readonly"`
	Primary         string `json:"primaryLocation,omitempty" arm:"readonly"`
	Secondary       string `json:"secondaryLocation,omitempty" arm:"readonly"`
	Status          string `json:"statusOfPrimary,omitempty" arm:"readonly"`
	StatusSecond    string `json:"statusOfSecondary,omitempty" arm:"readonly"`
	CreationTime    any    `json:"creationTime,omitempty" arm:"readonly"`
	KeyCreation     any    `json:"keyCreationTime,omitempty" arm:"readonly,since=2021-02-01"`
	Connections     any    `json:"privateEndpointConnections,omitempty" arm:"readonly,since=2019-06-01"`
	SKUConversion   any    `json:"storageAccountSkuConversionStatus,omitempty" arm:"readonly,since=2021-09-01"`
}

func (p Properties) hns() bool { return p.Hierarchical != nil && *p.Hierarchical }

func (p Properties) sharedKey() bool { return p.SharedKey == nil || *p.SharedKey }

// checkAccount holds a change against the rules and writes out what the client
// left unsaid. A PUT that does not speak of shared keys leaves them as they were.
func (s *Service) checkAccount(c resource.Change) error {
	if c.Old == nil {
		if err := CheckAccountName(c.Doc.Name); err != nil {
			return err
		}
	}
	p, err := propsOf(c.Doc)
	if err != nil {
		return err
	}
	old := Properties{}
	if c.Old != nil {
		if old, err = propsOf(c.Old); err != nil {
			return err
		}
	}
	p.SharedKey = or(p.SharedKey, old.SharedKey, true)
	p.HTTPSOnly = or(p.HTTPSOnly, nil, true)
	p.Hierarchical = or(p.Hierarchical, old.Hierarchical, false)
	if c.Old != nil && p.hns() != old.hns() {
		return fail(http.StatusConflict, "AccountPropertyCannotBeUpdated", "The property 'isHnsEnabled' was specified in the input, but it cannot be updated as it is read-only.")
	}
	p.OAuthDefault = or(p.OAuthDefault, old.OAuthDefault, false)
	p.MinimumTLS = text(p.MinimumTLS, text(old.MinimumTLS, "TLS1_2"))
	p.Tier, p.Endpoint = "Hot", "Standard"
	if err := s.checkEncryption(c.Doc, &p, old, c.Old == nil); err != nil {
		return err
	}
	if err := s.checkNetwork(&p, old, c.Doc.ID); err != nil {
		return err
	}
	if err := checkSKU(c); err != nil {
		return err
	}
	c.Doc.Properties, err = json.Marshal(p)
	return err
}

// checkSKU takes the one redundancy there is, and the one kind.
func checkSKU(c resource.Change) error {
	d := c.Doc
	if d.SKU == nil && c.Old != nil {
		d.SKU = c.Old.SKU
	}
	name, ok := d.SKU["name"].(string)
	if !ok || name == "" {
		return arm.Errorf(arm.BadRequest, `sku.name is missing; it must be Standard_LRS`)
	}
	if !strings.EqualFold(name, "Standard_LRS") {
		return arm.Errorf(arm.Unsupported, "sku.name is %q; the platform keeps one copy in one place, so it must be Standard_LRS", name)
	}
	d.SKU = map[string]any{"name": "Standard_LRS", "tier": "Standard"}
	if d.Kind == "" && c.Old == nil || strings.EqualFold(d.Kind, "StorageV2") || d.Kind == "" {
		d.Kind = "StorageV2"
		return nil
	}
	return arm.Errorf(arm.Unsupported, "kind is %q; it must be StorageV2", d.Kind)
}

func or[T any](x, y *T, z T) *T {
	switch {
	case x != nil:
		return x
	case y != nil:
		return y
	}
	return &z
}

// text is x, or y if x is empty.
func text(x, y string) string {
	if x != "" {
		return x
	}
	return y
}
