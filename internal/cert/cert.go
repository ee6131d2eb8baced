// Package cert makes X.509 certificates and requests for them as a policy of Key
// Vault says, and reads and writes the files in which they come with their keys
// (RFC 5280, RFC 2986, RFC 7292). It keeps nothing and knows no vault.
package cert

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"castellan/internal/key"
)

type badError string

func (e badError) Error() string   { return string(e) }
func (badError) Is(err error) bool { return err == key.ErrBad }

func bad(format string, args ...any) error { return badError(fmt.Sprintf(format, args...)) }

// Request is what a certificate shall say.
type Request struct {
	Subject string   `json:"subject,omitempty"` // a distinguished name (RFC 4514)
	Names   Names    `json:"sans"`
	Usage   []string `json:"key_usage"` // of Usages
	EKUs    []string `json:"ekus"`      // object identifiers
	Months  int      `json:"validity_months,omitempty"`
}

// Names are the alternative names of a certificate's subject.
type Names struct {
	DNS    []string `json:"dns_names,omitempty"`
	Emails []string `json:"emails,omitempty"`
	UPNs   []string `json:"upns,omitempty"` // user principal names
	URIs   []string `json:"uris,omitempty"`
	IPs    []string `json:"ipAddresses,omitempty"`
}

// Usages are the names of what a key may be used for, in the order of their bits
// (RFC 5280, section 4.2.1.3).
var Usages = []string{"digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment", "keyAgreement", "keyCertSign", "cRLSign", "encipherOnly", "decipherOnly"}

// Limits of a Request.
const (
	maxMonths  = 1200
	maxSubject = 2048 // bytes
	maxNames   = 500
)

// Object identifiers of extensions and names (RFC 5280, appendix A).
var (
	oidSAN   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidUsage = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidEKU   = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidUPN   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}
)

// attributes of distinguished names (RFC 4519) and how they are written.
var attributes = map[string]asn1.ObjectIdentifier{
	"CN": {2, 5, 4, 3}, "SN": {2, 5, 4, 4}, "SERIALNUMBER": {2, 5, 4, 5}, "C": {2, 5, 4, 6}, "L": {2, 5, 4, 7}, "ST": {2, 5, 4, 8}, "S": {2, 5, 4, 8},
	"STREET": {2, 5, 4, 9}, "O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11}, "T": {2, 5, 4, 12}, "G": {2, 5, 4, 42}, "GN": {2, 5, 4, 42},
	"UID": {0, 9, 2342, 19200300, 100, 1, 1}, "DC": {0, 9, 2342, 19200300, 100, 1, 25}, "E": {1, 2, 840, 113549, 1, 9, 1}, "EMAILADDRESS": {1, 2, 840, 113549, 1, 9, 1},
}

// Check holds the request against the rules.
func (r Request) Check() error {
	_, err := r.template()
	return err
}

// template is the request as a certificate without time, number and key.
func (r Request) template() (*x509.Certificate, error) {
	if r.Months < 1 || r.Months > maxMonths {
		return nil, bad("validity_months is %d; it must be from 1 to %d", r.Months, maxMonths)
	}
	subject, err := parseSubject(r.Subject)
	if err != nil {
		return nil, err
	}
	usage, err := r.usage()
	if err != nil {
		return nil, err
	}
	ekus, err := r.ekus()
	if err != nil {
		return nil, err
	}
	san, err := r.Names.extension(r.Subject == "")
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{RawSubject: subject, KeyUsage: usage, UnknownExtKeyUsage: ekus, BasicConstraintsValid: true}
	if san != nil {
		t.ExtraExtensions = []pkix.Extension{*san}
	} else if r.Subject == "" {
		return nil, bad("subject and sans are empty; there must be one of them")
	}
	return t, nil
}

func (r Request) usage() (out x509.KeyUsage, err error) {
	for _, u := range r.Usage {
		i := slices.Index(Usages, u)
		if i < 0 {
			return 0, bad("key_usage has %q; it may have %s", u, strings.Join(Usages, ", "))
		}
		out |= 1 << i
	}
	return out, nil
}

func (r Request) ekus() (out []asn1.ObjectIdentifier, err error) {
	for _, e := range r.EKUs {
		oid, ok := parseOID(e)
		if !ok {
			return nil, bad("ekus has %q; it must have object identifiers such as 1.3.6.1.5.5.7.3.1", e)
		}
		out = append(out, oid)
	}
	return out, nil
}

func parseOID(text string) (out asn1.ObjectIdentifier, ok bool) {
	parts := strings.Split(text, ".")
	if len(parts) < 3 || len(parts) > 32 {
		return nil, false
	}
	for _, p := range parts {
		n, err := strconv.ParseUint(p, 10, 31)
		if err != nil {
			return nil, false
		}
		out = append(out, int(n))
	}
	return out, out[0] < 2 && out[1] < 40 || out[0] == 2
}

// parseSubject is a distinguished name in DER. The last part of the text is the
// first of the name (RFC 4514, section 2.1).
func parseSubject(text string) ([]byte, error) {
	if len(text) > maxSubject {
		return nil, bad("subject has %d bytes; at most %d are allowed", len(text), maxSubject)
	}
	dn, err := ldap.ParseDN(text)
	if err != nil {
		return nil, bad("subject is %q; it must be a distinguished name such as CN=example.com, O=Example", text)
	}
	seq := pkix.RDNSequence{}
	for _, r := range slices.Backward(dn.RDNs) {
		set := pkix.RelativeDistinguishedNameSET{}
		for _, a := range r.Attributes {
			name := strings.ToUpper(strings.TrimSpace(a.Type))
			oid, ok := attributes[name]
			if !ok {
				oid, ok = parseOID(strings.TrimPrefix(name, "OID."))
			}
			if !ok {
				return nil, bad("subject has %q, which is no attribute that is known; it may be CN, O, OU, C, L, ST, STREET, DC, E, UID, SERIALNUMBER, SN, G, T or an object identifier", a.Type)
			}
			if a.Value == "" || name == "C" && len(a.Value) != 2 {
				return nil, bad("subject has %s=%q; it must have a value, and a country (C) two letters", a.Type, a.Value)
			}
			var value any = a.Value
			if name == "DC" || name == "E" || name == "EMAILADDRESS" {
				if !ascii(a.Value) {
					return nil, bad("subject has %s=%q; it must be ASCII", a.Type, a.Value)
				}
				value = asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(a.Value)}
			}
			set = append(set, pkix.AttributeTypeAndValue{Type: oid, Value: value})
		}
		seq = append(seq, set)
	}
	return asn1.Marshal(seq)
}

// subjectOf is a distinguished name as parseSubject reads it.
func subjectOf(der []byte) string {
	var seq pkix.RDNSequence
	if _, err := asn1.Unmarshal(der, &seq); err != nil {
		return ""
	}
	var parts []string
	for _, set := range slices.Backward(seq) {
		var same []string
		for _, a := range set {
			name := a.Type.String()
			for _, known := range []string{"CN", "O", "OU", "C", "L", "ST", "STREET", "DC", "E", "UID", "SERIALNUMBER", "SN", "G", "T"} {
				if attributes[known].Equal(a.Type) {
					name = known
				}
			}
			same = append(same, name+"="+ldap.EscapeDN(fmt.Sprint(a.Value)))
		}
		parts = append(parts, strings.Join(same, "+"))
	}
	return strings.Join(parts, ",")
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 126 || r < 32 })
}

// Tags of general names (RFC 5280, section 4.2.1.6).
const (
	tagOther = 0
	tagEmail = 1
	tagDNS   = 2
	tagURI   = 6
	tagIP    = 7
)

// extension is the names as an extension of a certificate; nil if there are none.
func (n Names) extension(critical bool) (*pkix.Extension, error) {
	if total := len(n.DNS) + len(n.Emails) + len(n.UPNs) + len(n.URIs) + len(n.IPs); total == 0 {
		return nil, nil
	} else if total > maxNames {
		return nil, bad("sans has %d names; at most %d are allowed", total, maxNames)
	}
	var all []asn1.RawValue
	add := func(tag int, b []byte) {
		all = append(all, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: b})
	}
	for _, x := range []struct {
		field string
		tag   int
		names []string
	}{{"dns_names", tagDNS, n.DNS}, {"emails", tagEmail, n.Emails}, {"uris", tagURI, n.URIs}} {
		for _, s := range x.names {
			if u, err := url.Parse(s); s == "" || !ascii(s) || strings.ContainsRune(s, ' ') || x.tag == tagURI && (err != nil || !u.IsAbs()) {
				return nil, bad("sans.%s has %q, which is none", x.field, s)
			}
			add(x.tag, []byte(s))
		}
	}
	for _, s := range n.IPs {
		ip := net.ParseIP(s)
		if ip == nil {
			return nil, bad("sans.ipAddresses has %q, which is no address", s)
		}
		if v4 := ip.To4(); v4 != nil {
			ip = v4
		}
		add(tagIP, ip)
	}
	for _, s := range n.UPNs {
		if s == "" {
			return nil, bad("sans.upns has an empty name")
		}
		inner, err := asn1.Marshal(struct {
			Type  asn1.ObjectIdentifier
			Value string `asn1:"utf8,explicit,tag:0"`
		}{oidUPN, s})
		if err != nil {
			return nil, bad("sans.upns has %q, which is no text", s)
		}
		var seq asn1.RawValue
		if _, err := asn1.Unmarshal(inner, &seq); err != nil {
			return nil, err
		}
		all = append(all, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tagOther, IsCompound: true, Bytes: seq.Bytes})
	}
	der, err := asn1.Marshal(all)
	return &pkix.Extension{Id: oidSAN, Critical: critical, Value: der}, err
}

// early is how long before now a certificate begins, for clocks that are late.
const early = 10 * time.Minute

// signing is what the key is to sign, and with what.
func (r Request) signing(k key.Key) (*x509.Certificate, crypto.Signer, error) {
	t, err := r.template()
	if err != nil {
		return nil, nil, err
	}
	signer := k.Signer()
	if signer == nil {
		return nil, nil, bad("a key of type %s %s has no certificate; it must be RSA or EC by P-256, P-384 or P-521", k.Type, k.Curve)
	}
	return t, signer, nil
}

// SelfSigned is a certificate of the key that it signs itself, from now on.
func (r Request) SelfSigned(k key.Key, now time.Time) (*x509.Certificate, error) {
	t, signer, err := r.signing(k)
	if err != nil {
		return nil, err
	}
	t.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now = now.UTC().Truncate(time.Second).Add(-early)
	t.SerialNumber.Add(t.SerialNumber, big.NewInt(1))
	t.NotBefore, t.NotAfter = now, now.AddDate(0, r.Months, 0)
	der, err := x509.CreateCertificate(rand.Reader, t, t, signer.Public(), signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// CSR is a request of the key's for a certificate (PKCS #10, DER).
func (r Request) CSR(k key.Key) ([]byte, error) {
	t, signer, err := r.signing(k)
	if err != nil {
		return nil, err
	}
	exts := t.ExtraExtensions
	if t.KeyUsage != 0 {
		exts = append(exts, usageExtension(t.KeyUsage))
	}
	if len(t.UnknownExtKeyUsage) > 0 {
		der, err := asn1.Marshal(t.UnknownExtKeyUsage)
		if err != nil {
			return nil, err
		}
		exts = append(exts, pkix.Extension{Id: oidEKU, Value: der})
	}
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: t.RawSubject, ExtraExtensions: exts}, signer)
}

func usageExtension(u x509.KeyUsage) pkix.Extension {
	bits, last := make([]byte, 2), 0
	for i := range Usages {
		if u&(1<<i) != 0 {
			bits[i/8] |= 0x80 >> (i % 8)
			last = i + 1
		}
	}
	der, err := asn1.Marshal(asn1.BitString{Bytes: bits[:(last+7)/8], BitLength: last})
	if err != nil {
		panic(err) // two bytes can be written
	}
	return pkix.Extension{Id: oidUsage, Critical: true, Value: der}
}

// Describe is what a certificate says, as a request for one alike.
func Describe(c *x509.Certificate) Request {
	r := Request{Subject: subjectOf(c.RawSubject), Usage: []string{}, EKUs: []string{}}
	r.Names.DNS, r.Names.Emails = c.DNSNames, c.EmailAddresses
	for _, u := range c.URIs {
		r.Names.URIs = append(r.Names.URIs, u.String())
	}
	for _, ip := range c.IPAddresses {
		r.Names.IPs = append(r.Names.IPs, ip.String())
	}
	for i, name := range Usages {
		if c.KeyUsage&(1<<i) != 0 {
			r.Usage = append(r.Usage, name)
		}
	}
	for _, e := range c.Extensions {
		var oids []asn1.ObjectIdentifier
		if !e.Id.Equal(oidEKU) {
			continue
		}
		if _, err := asn1.Unmarshal(e.Value, &oids); err == nil {
			for _, o := range oids {
				r.EKUs = append(r.EKUs, o.String())
			}
		}
	}
	const month = 365.25 * 24 / 12 // hours
	r.Months = min(max(1, int(math.Round(c.NotAfter.Sub(c.NotBefore).Hours()/month))), maxMonths)
	return r
}
