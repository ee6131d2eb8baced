package vault

import (
	"net/http"
	"net/netip"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// Network says from where the content of a vault is reached. What the platform
// does by itself, as an identity of its own, comes from nowhere: bypass lets it in.
type Network struct {
	Bypass  string   `json:"bypass,omitempty" arm:"only=AzureServices|None"`
	Default string   `json:"defaultAction,omitempty" arm:"only=Allow|Deny"`
	IPs     []IPRule `json:"ipRules"`
	Subnets []any    `json:"virtualNetworkRules"`
}

// IPRule is an address, or a range of them (CIDR), that may come.
type IPRule struct {
	Value string `json:"value"`
}

// maxIPRules are those that a vault has at most, as in Azure.
const maxIPRules = 1000

func (r IPRule) prefix() (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(r.Value); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(r.Value)
	return p, err == nil && p == p.Masked() && !p.Addr().Is4In6()
}

// shut reports whether somebody is kept out by where they come from. Vaults of
// former times may have no default action, which is to allow.
func (p Properties) shut() bool {
	return p.PublicAccess == "Disabled" || p.Network != nil && p.Network.Default != "" && !strings.EqualFold(p.Network.Default, "Allow")
}

// settleNetwork writes the firewall's words as Azure spells them and holds them
// against the rules.
func (p *Properties) settleNetwork() error {
	if p.PublicAccess == "" || strings.EqualFold(p.PublicAccess, "Enabled") {
		p.PublicAccess = "Enabled"
	} else {
		p.PublicAccess = "Disabled"
	}
	n := p.Network
	if n != nil {
		if err := n.settle(); err != nil {
			return err
		}
	}
	if p.shut() && n != nil && n.Bypass == "None" {
		return arm.Errorf(arm.Unsupported, "properties.networkAcls.bypass is None, but the platform's own services reach a vault otherwise than by its network; where defaultAction is Deny or publicNetworkAccess is Disabled it must be AzureServices")
	}
	return nil
}

func (n *Network) settle() error {
	switch {
	case len(n.Subnets) > 0:
		return arm.Errorf(arm.Unsupported, "properties.networkAcls.virtualNetworkRules has rules; there are no virtual networks yet, so it must be empty")
	case len(n.IPs) > maxIPRules:
		return arm.Errorf(arm.BadRequest, "properties.networkAcls.ipRules has %d entries; at most %d are allowed", len(n.IPs), maxIPRules)
	case len(n.IPs) > 0 && n.Default == "":
		return arm.Errorf(arm.BadRequest, "properties.networkAcls has ipRules and no defaultAction; it must be Deny, for else everybody may come, or Allow")
	}
	for i, r := range n.IPs {
		p, ok := r.prefix()
		if !ok {
			return arm.Errorf(arm.BadRequest, "properties.networkAcls.ipRules[%d].value is %q; it must be an address or a range such as 10.1.0.0/16, which ends where its addresses begin to differ", i, r.Value)
		}
		n.IPs[i].Value = p.String()
	}
	if n.Default == "" || strings.EqualFold(n.Default, "Allow") {
		n.Default = "Allow"
	} else {
		n.Default = "Deny"
	}
	if n.Bypass == "" || strings.EqualFold(n.Bypass, "AzureServices") {
		n.Bypass = "AzureServices"
	} else {
		n.Bypass = "None"
	}
	n.Subnets = []any{}
	if n.IPs == nil {
		n.IPs = []IPRule{}
	}
	return nil
}

// on is gate.On for a door to what a vault keeps: whoever may pass it must come
// from where the vault may be reached, too. Who comes from nowhere, as out of a
// sandbox, comes from no rule's address.
func (s *Service) on(a arm.Action, pattern string, locate gate.Locate, verb gate.Verb) gate.Route {
	return gate.On(a, pattern, locate, func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		v, err := s.target(g, a)
		if err != nil {
			return err
		}
		if err := v.reached(g.Caller(), gate.Peer(r.Context())); err != nil {
			return err
		}
		if err := s.paced(v.UID, a); err != nil {
			return err
		}
		return verb(w, r, g)
	})
}

// reached is an error if the vault keeps out who comes from the address.
func (v *live) reached(c arm.Caller, from string) error {
	if !v.Props.shut() {
		return nil
	}
	who := "\r\nCaller: appid=" + c.App + ";oid=" + c.Object + "\r\nVault: " + v.ID.Name()
	if v.Props.PublicAccess == "Disabled" {
		return shut("ForbiddenByConnection", "%s", "Public network access is disabled and request is not from a trusted service nor via an approved private link."+who)
	}
	addr, err := netip.ParseAddr(from)
	if err == nil {
		for _, r := range v.Props.Network.IPs {
			if p, ok := r.prefix(); ok && p.Contains(addr.Unmap()) {
				return nil
			}
		}
	}
	if from == "" {
		from = "none: a sandbox"
	}
	return shut("ForbiddenByFirewall", "%s", "Client address is not authorized and caller is not a trusted service.\r\nClient address: "+from+who)
}
