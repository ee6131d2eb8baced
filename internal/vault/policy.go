package vault

import (
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"castellan/internal/cert"
	"castellan/internal/key"
)

// Policy says how the versions of a certificate are made, and what is done with
// them in time.
type Policy struct {
	ID         string           `json:"id,omitempty" arm:"readonly"`
	Key        PolicyKey        `json:"key_props"`
	Secret     PolicyFile       `json:"secret_props"`
	X509       cert.Request     `json:"x509_props"`
	Actions    []Renewal        `json:"lifetime_actions"`
	Issuer     Issuing          `json:"issuer"`
	Attributes PolicyAttributes `json:"attributes"`
}

// PolicyKey says which key a certificate has, and whether it may leave the vault
// in the certificate's secret.
type PolicyKey struct {
	Exportable *bool  `json:"exportable"`
	Type       string `json:"kty"`
	Size       int    `json:"key_size,omitempty"` // bits
	Reuse      bool   `json:"reuse_key"`          // the next version has it too
	Curve      string `json:"crv,omitempty"`
}

// PolicyFile says as what a certificate's secret is written.
type PolicyFile struct {
	ContentType string `json:"contentType" arm:"only=application/x-pkcs12|application/x-pem-file"`
}

// Issuing says who signs a certificate.
type Issuing struct {
	Name         string `json:"name"`
	Type         string `json:"cty,omitempty"`
	Transparency *bool  `json:"cert_transparency,omitempty"`
}

// Renewal is what is done when a part of a version's life is over.
type Renewal struct {
	Trigger struct {
		Percentage int `json:"lifetime_percentage,omitempty"`
		Days       int `json:"days_before_expiry,omitempty"`
	} `json:"trigger"`
	Action struct {
		Type string `json:"action_type" arm:"only=AutoRenew|EmailContacts"`
	} `json:"action"`
}

// PolicyAttributes say when the policy was set, in seconds since 1970.
type PolicyAttributes struct {
	Enabled bool  `json:"enabled"`
	Created int64 `json:"created" arm:"readonly"`
	Updated int64 `json:"updated" arm:"readonly"`
}

const (
	autoRenew     = "AutoRenew"
	emailContacts = "EmailContacts"
)

// settle fills in what was not said, as Azure does, and holds the policy against
// the rules.
func (p *Policy) settle() error {
	x := &p.X509
	if x.Months == 0 {
		x.Months = 12
	}
	if x.Usage == nil {
		x.Usage = []string{"digitalSignature", "keyEncipherment"}
	}
	if x.EKUs == nil {
		x.EKUs = []string{"1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"} // TLS servers and clients
	}
	if err := x.Check(); err != nil {
		return said400(err)
	}
	return p.settleRest()
}

// settleRest is settle but for what the certificate says.
func (p *Policy) settleRest() error {
	if err := p.Key.settle(); err != nil {
		return err
	}
	p.Secret.ContentType = strings.ToLower(p.Secret.ContentType)
	if p.Secret.ContentType == "" {
		p.Secret.ContentType = typePFX
	}
	return p.settleIssuer()
}

func (p *Policy) settleIssuer() error {
	for _, known := range []string{issuerSelf, issuerUnknown} {
		if strings.EqualFold(p.Issuer.Name, known) {
			p.Issuer.Name = known
		}
	}
	if p.Issuer.Name == "" {
		return bad("policy.issuer.name is missing; it must be Self, Unknown or the name of an issuer of the vault")
	}
	if p.Actions == nil {
		r := Renewal{}
		r.Trigger.Percentage, r.Action.Type = 80, emailContacts
		if p.Issuer.Name != issuerUnknown {
			r.Action.Type = autoRenew
		}
		p.Actions = []Renewal{r}
	}
	for i, a := range p.Actions {
		t := a.Trigger
		switch {
		case a.Action.Type == "" || slices.ContainsFunc(p.Actions[:i], func(b Renewal) bool { return a.Action == b.Action }):
			return bad("lifetime_actions must have at most one action of each type: AutoRenew, EmailContacts")
		case a.Action.Type == autoRenew && p.Issuer.Name == issuerUnknown:
			return bad("lifetime_actions has AutoRenew, but the issuer is Unknown: whoever that is must be asked by others")
		case (t.Percentage == 0) == (t.Days == 0):
			return bad("the trigger of %s must have one of lifetime_percentage and days_before_expiry", a.Action.Type)
		case t.Percentage < 0 || t.Percentage > 99:
			return bad("lifetime_percentage is %d; it must be from 1 to 99", t.Percentage)
		case t.Days < 0 || t.Days > 27*p.X509.Months:
			return bad("days_before_expiry is %d; for validity_months of %d it must be from 1 to %d", t.Days, p.X509.Months, 27*p.X509.Months)
		}
	}
	return nil
}

// curveSizes are the bits of the curves that certificates can have.
var curveSizes = map[string]int{"P-256": 256, "P-384": 384, "P-521": 521}

func (k *PolicyKey) settle() (err error) {
	if k.Type == "" {
		k.Type = key.RSA
	}
	if k.Type, err = keyType(k.Type); err != nil {
		return err
	}
	if k.Exportable == nil {
		yes := true
		k.Exportable = &yes
	}
	switch {
	case k.Type == key.Oct:
		return bad("key_props.kty is oct, which has no certificate; it may be RSA or EC")
	case k.Type == key.RSA && k.Curve != "":
		return bad("key_props has a curve (crv), which RSA has not")
	case k.Type == key.RSA && k.Size == 0:
		k.Size = 2048
	case k.Type == key.RSA && !slices.Contains(key.RSASizes, k.Size):
		return bad("key_props.key_size is %d; of RSA it may be 2048, 3072 or 4096", k.Size)
	case k.Type == key.EC:
		if k.Curve == "" {
			k.Curve = "P-256"
		}
		size, ok := curveSizes[k.Curve]
		if !ok {
			return bad("key_props.crv is %q; of a certificate it may be P-256, P-384 or P-521", k.Curve)
		}
		if k.Size != 0 && k.Size != size {
			return bad("key_props.key_size is %d; %s has %d", k.Size, k.Curve, size)
		}
		k.Size = size
	}
	return nil
}

// bits are what key.Generate wants: curves have their size by name.
func (k PolicyKey) bits() int {
	if k.Type == key.EC {
		return 0
	}
	return k.Size
}

// fits reports whether a key is of the kind that the policy wants.
func (k PolicyKey) fits(p key.Public) bool {
	return p.Type == k.Type && p.Curve == k.Curve && (p.Type != key.RSA || 8*len(p.N) == k.Size)
}

// secret is what the certificate's secret has: all, or all but the key.
func (p *Policy) secret(b cert.Bundle, withKey bool) ([]byte, error) {
	if p.Secret.ContentType == typePEM {
		return b.PEM(withKey)
	}
	pfx, err := b.PFX(withKey)
	return []byte(base64.StdEncoding.EncodeToString(pfx)), err
}

// describe fills in, for a certificate that was brought, what it is.
func (p *Policy) describe(b cert.Bundle, format string) error {
	is := PolicyKey{Exportable: p.Key.Exportable, Reuse: p.Key.Reuse, Type: b.Key.Type, Curve: b.Key.Curve}
	if is.Type == key.RSA {
		is.Size = 8 * len(b.Key.N)
	}
	p.Key = is
	if p.Secret.ContentType == "" {
		p.Secret.ContentType = format
	}
	if p.Issuer.Name == "" {
		p.Issuer.Name = issuerUnknown
	}
	p.X509 = cert.Describe(b.Leaf())
	return p.settleRest()
}

// stamp says when the policy was set.
func (p *Policy) stamp(old *Policy, now time.Time) {
	p.ID = ""
	p.Attributes = PolicyAttributes{true, now.Unix(), now.Unix()}
	if old != nil {
		p.Attributes.Created = old.Attributes.Created
	}
}

// due reports whether a version, the newest, is to be followed by another.
func (p Policy) due(v versionRow, now time.Time) bool {
	if p.Issuer.Name != issuerSelf || !v.Attributes.Enabled {
		return false
	}
	nbf, exp := *v.Attributes.NotBefore, *v.Attributes.Expires
	for _, a := range p.Actions {
		at := exp.AddDate(0, 0, -a.Trigger.Days)
		if n := a.Trigger.Percentage; n > 0 {
			at = nbf.Add(exp.Sub(nbf) / 100 * time.Duration(n))
		}
		if a.Action.Type == autoRenew && !now.Before(at) {
			return true
		}
	}
	return false
}
