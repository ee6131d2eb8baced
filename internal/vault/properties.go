package vault

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/resource"
)

// Properties are those of a vault. A nil pointer means that nobody said.
type Properties struct {
	Tenant                string         `json:"tenantId"`
	SKU                   *SKU           `json:"sku"`
	Policies              []AccessPolicy `json:"accessPolicies"`
	URI                   string         `json:"vaultUri,omitempty" arm:"readonly"`
	ForDeployment         bool           `json:"enabledForDeployment"`
	ForDiskEncryption     bool           `json:"enabledForDiskEncryption"`
	ForTemplateDeployment bool           `json:"enabledForTemplateDeployment"`
	SoftDelete            *bool          `json:"enableSoftDelete"`
	Retention             *int           `json:"softDeleteRetentionInDays" arm:"since=2019-09-01"`
	RBAC                  *bool          `json:"enableRbacAuthorization" arm:"since=2019-09-01"`
	PurgeProtection       *bool          `json:"enablePurgeProtection,omitempty"`
	CreateMode            string         `json:"createMode,omitempty" arm:"only=default|recover"`
	Network               *Network       `json:"networkAcls,omitempty" arm:"since=2018-02-14-preview"`
	PublicAccess          string         `json:"publicNetworkAccess" arm:"only=Enabled|Disabled,since=2021-06-01-preview"`
	State                 string         `json:"provisioningState,omitempty" arm:"readonly,since=2019-09-01"`
	HSMPool               string         `json:"hsmPoolResourceId,omitempty" arm:"readonly,since=2019-09-01"`
	Endpoints             []any          `json:"privateEndpointConnections,omitempty" arm:"readonly,since=2018-02-14"`
}

// SKU is what a vault is made of: keys kept by software.
type SKU struct {
	Family string `json:"family" arm:"only=A"`
	Name   string `json:"name" arm:"only=standard"`
}

// AccessPolicy says what one principal may do where roles do not decide.
type AccessPolicy struct {
	Tenant      string      `json:"tenantId"`
	Object      string      `json:"objectId"`
	App         string      `json:"applicationId,omitempty"`
	Permissions Permissions `json:"permissions"`
}

// Permissions are those of an access policy.
type Permissions struct {
	Keys         []string `json:"keys,omitempty"`
	Secrets      []string `json:"secrets,omitempty"`
	Certificates []string `json:"certificates,omitempty"`
	Storage      []string `json:"storage,omitempty"`
}

func (p Properties) rbac() bool      { return p.RBAC == nil || *p.RBAC }
func (p Properties) protected() bool { return p.PurgeProtection != nil && *p.PurgeProtection }

func (p Properties) retention() int {
	if p.Retention == nil {
		return maxRetention
	}
	return *p.Retention
}

// The days for which a deleted vault or secret can be recovered.
const (
	minRetention = 7
	maxRetention = 90
)

func propsOf(d *resource.Doc) (p Properties, err error) {
	if err = json.Unmarshal(d.Properties, &p); err != nil {
		err = fmt.Errorf("reading the properties of %s: %w", d.ID, err)
	}
	return p, err
}

func (p Properties) keep(d *resource.Doc) (err error) {
	d.Properties, err = json.Marshal(p)
	return err
}

var nameForm = regexp.MustCompile(`^[A-Za-z](-?[A-Za-z0-9])*$`)

// CheckName says whether a vault can have the name.
func CheckName(name string) error {
	if len(name) < 3 || len(name) > 24 || !nameForm.MatchString(name) {
		return arm.Errorf("VaultNameNotValid", "The vault name %q is invalid; it must be 3 to 24 letters, digits and single hyphens, begin with a letter and end with a letter or digit.", name)
	}
	return nil
}

// check holds a change of a vault against the rules and writes out what the
// client left unsaid: what was, else the default.
func (s *Service) check(c resource.Change) error {
	if c.Old == nil {
		if err := CheckName(c.Doc.Name); err != nil {
			return err
		}
	}
	p, err := propsOf(c.Doc)
	if err != nil {
		return err
	}
	if c.Old == nil && strings.EqualFold(p.CreateMode, "recover") {
		p.CreateMode = "recover" // Save puts what was in the place of all this
		return p.keep(c.Doc)
	}
	p.CreateMode = ""
	old := Properties{}
	if c.Old != nil {
		if old, err = propsOf(c.Old); err != nil {
			return err
		}
	}
	if err := p.settle(old, c.Old == nil); err != nil {
		return err
	}
	if err := s.validate(s.Site.TenantOf(c.Doc.ID), &p); err != nil {
		return err
	}
	return p.keep(c.Doc)
}

// settle fills in what was not said and refuses to take back what is for good.
func (p *Properties) settle(old Properties, fresh bool) error {
	p.SoftDelete = or(p.SoftDelete, old.SoftDelete, true)
	p.RBAC = or(p.RBAC, old.RBAC, true)
	if !*p.SoftDelete {
		return arm.Errorf(arm.BadRequest, "properties.enableSoftDelete is false; every vault has soft delete, so it must be true or left out")
	}
	if p.PurgeProtection != nil && !*p.PurgeProtection && old.protected() {
		return arm.Errorf(arm.BadRequest, "properties.enablePurgeProtection is false; purge protection is on and can't be turned off")
	}
	if p.PurgeProtection == nil || !*p.PurgeProtection {
		p.PurgeProtection = old.PurgeProtection
	}
	if fresh {
		p.Retention = or(p.Retention, nil, maxRetention)
	} else {
		was := old.retention()
		if p.Retention != nil && *p.Retention != was {
			return arm.Errorf(arm.BadRequest, "properties.softDeleteRetentionInDays is %d; it was set to %d when the vault was made and can't be changed", *p.Retention, was)
		}
		p.Retention = &was
	}
	if n := *p.Retention; n < minRetention || n > maxRetention {
		return arm.Errorf(arm.BadRequest, "properties.softDeleteRetentionInDays is %d; it must be from %d to %d", n, minRetention, maxRetention)
	}
	return nil
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

func (s *Service) validate(tenant string, p *Properties) error {
	if p.Tenant == "" {
		return arm.Errorf(arm.BadRequest, "properties.tenantId is missing; it must be %s", tenant)
	}
	if !strings.EqualFold(p.Tenant, tenant) {
		return arm.Errorf(arm.BadRequest, "properties.tenantId is %q; it must be %s", p.Tenant, tenant)
	}
	if p.SKU == nil || p.SKU.Name == "" || p.SKU.Family == "" {
		return arm.Errorf(arm.BadRequest, `properties.sku is missing; it must be {"family":"A","name":"standard"}`)
	}
	p.SKU = &SKU{"A", "standard"}
	if err := p.settleNetwork(); err != nil {
		return err
	}
	if p.Policies == nil {
		p.Policies = []AccessPolicy{}
	}
	return validatePolicies(tenant, p.Policies)
}

// maxPolicies is how many access policies a vault has at most.
const maxPolicies = 1024

var guid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

func validatePolicies(tenant string, ps []AccessPolicy) error {
	if len(ps) > maxPolicies {
		return arm.Errorf(arm.BadRequest, "accessPolicies has %d entries; at most %d are allowed", len(ps), maxPolicies)
	}
	seen := map[string]bool{}
	for i := range ps {
		p := &ps[i]
		switch {
		case !strings.EqualFold(p.Tenant, tenant):
			return arm.Errorf(arm.BadRequest, "accessPolicies[%d].tenantId is %q; it must be %s", i, p.Tenant, tenant)
		case !guid.MatchString(p.Object):
			return arm.Errorf(arm.BadRequest, "accessPolicies[%d].objectId is %q; it must be the object id of a user, group or service principal", i, p.Object)
		case p.App != "" && !guid.MatchString(p.App):
			return arm.Errorf(arm.BadRequest, "accessPolicies[%d].applicationId is %q; it must be an application's id or left out", i, p.App)
		case seen[p.who()]:
			return arm.Errorf(arm.BadRequest, "accessPolicies has two entries for objectId %s; it must have one", p.Object)
		}
		seen[p.who()] = true
		if err := p.Permissions.validate(i); err != nil {
			return err
		}
	}
	return nil
}

func (p AccessPolicy) who() string { return strings.ToLower(p.Object + "/" + p.App) }

const (
	keyPermissions         = "all get list create update import delete backup restore recover purge encrypt decrypt wrapkey unwrapkey sign verify release rotate getrotationpolicy setrotationpolicy"
	secretPermissions      = "all get list set delete backup restore recover purge"
	certificatePermissions = "all get list delete create import update managecontacts getissuers listissuers setissuers deleteissuers manageissuers recover purge backup restore"
	storagePermissions     = "all get list delete set update regeneratekey recover purge backup restore setsas listsas getsas deletesas"
)

func (p Permissions) validate(i int) error {
	for _, x := range []struct {
		field     string
		got       []string
		permitted string
	}{
		{"keys", p.Keys, keyPermissions}, {"secrets", p.Secrets, secretPermissions},
		{"certificates", p.Certificates, certificatePermissions}, {"storage", p.Storage, storagePermissions},
	} {
		known := strings.Fields(x.permitted)
		for _, g := range x.got {
			if !slices.Contains(known, strings.ToLower(g)) {
				return arm.Errorf(arm.BadRequest, "accessPolicies[%d].permissions.%s has %q; it may have: %s", i, x.field, g, strings.Join(known, ", "))
			}
		}
	}
	return nil
}
