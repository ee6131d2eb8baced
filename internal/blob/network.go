package blob

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/netip"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Network says from where an account's data are reached. It holds the storage
// protocol alone, never Resource Manager.
type Network struct {
	Bypass    string         `json:"bypass,omitempty"` // AzureServices, None, Logging, Metrics, or some with commas
	Default   string         `json:"defaultAction,omitempty" arm:"only=Allow|Deny"`
	IPs       []IPRule       `json:"ipRules"`
	IPv6      []any          `json:"ipv6Rules,omitempty" arm:"since=2025-01-01"`
	Subnets   []any          `json:"virtualNetworkRules"`
	Resources []ResourceRule `json:"resourceAccessRules" arm:"since=2020-08-01-preview"`
}

// IPRule lets in an address or a range of them.
type IPRule struct {
	Value  string `json:"value"`
	Action string `json:"action,omitempty" arm:"only=Allow"`
}

// ResourceRule lets in the identity of a resource.
type ResourceRule struct {
	Tenant string `json:"tenantId"`
	ID     string `json:"resourceId"`
}

// Limits of an account's rules, as Azure's.
const (
	maxIPRules       = 400
	maxResourceRules = 200
)

// networks is from where an account is reached. The zero value is from everywhere:
// accounts are opened with what their properties say.
type networks struct {
	shut      bool // but for what follows
	trusted   bool // the platform's own services
	ranges    []netip.Prefix
	resources []arm.ID
}

// checkNetwork holds the rules against what there is, and writes out what the
// client left unsaid.
func (s *Service) checkNetwork(p *Properties, old Properties, account arm.ID) error {
	p.PublicNetwork = text(p.PublicNetwork, text(old.PublicNetwork, "Enabled"))
	if p.Network == nil {
		p.Network = old.Network
	}
	if p.Network == nil {
		p.Network = &Network{}
	}
	n := p.Network
	if len(n.IPv6)+len(n.Subnets) > 0 {
		return arm.Errorf(arm.Unsupported, "properties.networkAcls has ipv6Rules or virtualNetworkRules; there are no networks here, so they must be empty")
	}
	*n = Network{Bypass: text(n.Bypass, "AzureServices"), Default: text(n.Default, "Allow"), IPs: n.IPs, Resources: n.Resources, Subnets: []any{}}
	for i := range n.IPs {
		n.IPs[i].Action = "Allow"
	}
	if n.IPs == nil {
		n.IPs = []IPRule{}
	}
	if n.Resources == nil {
		n.Resources = []ResourceRule{}
	}
	_, err := networksOf(*p, s.Site.TenantOf(account))
	return err
}

// networksOf reads the rules.
func networksOf(p Properties, tenant string) (out networks, err error) {
	n := p.Network
	if n == nil {
		n = &Network{}
	}
	if out.trusted, err = bypassed(text(n.Bypass, "AzureServices")); err != nil {
		return out, err
	}
	if len(n.IPs) > maxIPRules || len(n.Resources) > maxResourceRules {
		return out, arm.Errorf(arm.BadRequest, "properties.networkAcls has %d ipRules and %d resourceAccessRules; at most %d and %d are allowed", len(n.IPs), len(n.Resources), maxIPRules, maxResourceRules)
	}
	out.shut = n.Default == "Deny" || p.PublicNetwork == "Disabled"
	for _, r := range n.IPs {
		x, ok := rangeOf(r.Value)
		if !ok {
			return out, arm.Errorf(arm.BadRequest, "properties.networkAcls.ipRules has %q; it must be an IPv4 address or a range such as 192.0.2.0/24 that begins with its first address", r.Value)
		}
		if p.PublicNetwork != "Disabled" { // then no address opens the account
			out.ranges = append(out.ranges, x)
		}
	}
	for _, r := range n.Resources {
		id, err := arm.ParseID(r.ID)
		if err != nil || !strings.EqualFold(r.Tenant, tenant) || id.Type() == "" {
			return out, arm.Errorf(arm.BadRequest, "properties.networkAcls.resourceAccessRules has the tenantId %q and the resourceId %q; they must be the account's tenant and the id of a resource", r.Tenant, r.ID)
		}
		out.resources = append(out.resources, id)
	}
	return out, nil
}

func bypassed(list string) (services bool, err error) {
	for x := range strings.SplitSeq(list, ",") {
		switch strings.TrimSpace(x) {
		case "AzureServices":
			services = true
		case "None", "Logging", "Metrics":
		default:
			return false, arm.Errorf(arm.BadRequest, "properties.networkAcls.bypass is %q; it must be None, or of AzureServices, Logging and Metrics", list)
		}
	}
	return services, nil
}

func rangeOf(v string) (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(v); err == nil && a.Is4() {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(v)
	return p, err == nil && p.Addr().Is4() && p.Masked() == p
}

// reach says whether who may reach the account's data from the address.
func (s *Service) reach(a *account, who arm.Caller, from netip.Addr) error {
	n := a.net
	if !n.shut {
		return nil
	}
	from = from.Unmap()
	for _, p := range n.ranges {
		if from.IsValid() && p.Contains(from) {
			return nil
		}
	}
	return s.resourceReaches(n, who)
}

// resourceReaches lets in the system-assigned identities of the resources that
// the rules name, by a token of their own.
func (s *Service) resourceReaches(n networks, who arm.Caller) error {
	refused := fail(http.StatusForbidden, "AuthorizationFailure", "This request is not authorized to perform this operation.")
	if who.Lease != nil || who.Kind != arm.ServicePrincipal || who.Object == "" {
		return refused
	}
	found := false
	err := s.DB.View(context.Background(), func(tx *store.Tx) error {
		for _, id := range n.resources {
			d, err := resource.Load(tx, id)
			if err != nil {
				return err
			}
			found = found || d != nil && d.Identity != nil && d.Identity.Principal == who.Object && d.Identity.Tenant == who.Tenant
		}
		return nil
	})
	if err != nil || !found {
		return orElse(err, refused)
	}
	return nil
}

// Trusts says whether a service of the platform that acts as who may reach the
// account's data: it comes from no address.
func (s *Service) Trusts(who arm.Caller, id arm.ID) error {
	a := s.byID(id)
	if a == nil {
		return noAccount(id.Name())
	}
	if !a.net.shut || a.net.trusted {
		return nil
	}
	return s.resourceReaches(a.net, who)
}

// pass lets a request go on that may reach its account.
func (s *Service) pass(_ http.ResponseWriter, r *http.Request, who arm.Caller) (done func(), err error) {
	a := s.at(r.Host)
	if a == nil {
		return nil, noAccount(s.accountOf(r.Host))
	}
	if a.tls13 && (r.TLS == nil || r.TLS.Version < tls.VersionTLS13) {
		return nil, fail(http.StatusBadRequest, "TlsVersionNotPermitted", "The TLS version of the connection is not permitted on this storage account.")
	}
	return func() {}, s.reach(a, who, peerOf(r))
}
