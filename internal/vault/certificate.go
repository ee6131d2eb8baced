package vault

import (
	"context"
	"crypto/sha1"
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/cert"
	"castellan/internal/gate"
	"castellan/internal/key"
	"castellan/internal/store"
)

// Issuers that every vault has: a certificate signs itself, or somebody else
// signs it and the result is merged.
const (
	issuerSelf    = "Self"
	issuerUnknown = "Unknown"
)

// What a certificate's secret is written as.
const (
	typePFX = "application/x-pkcs12"
	typePEM = "application/x-pem-file"
)

// pending is how the making of a certificate goes or went.
type pending struct {
	Version   string            `json:"version"`
	Status    string            `json:"status"`
	Issuer    Issuing           `json:"issuer"`
	CSR       []byte            `json:"csr"`
	Sealed    []byte            `json:"sealed,omitempty"` // the key, until there is a certificate
	Key       *Key              `json:"key,omitempty"`
	Tags      map[string]string `json:"tags,omitempty"`
	Disabled  bool              `json:"disabled,omitempty"`
	Cancelled bool              `json:"cancelled,omitempty"`
	Kept      bool              `json:"kept,omitempty"` // the key may not leave, whatever the policy says by then
	Request   string            `json:"request"`
}

// States of a pending certificate.
const (
	inProgress = "inProgress"
	completed  = "completed"
	cancelled  = "cancelled"
)

// Operation is the making of a certificate, as its clients see it.
type Operation struct {
	Name      string
	Status    string
	Issuer    Issuing
	CSR       []byte // PKCS #10, DER
	Cancelled bool
	Request   string
}

func (p *pending) operation(name string) Operation {
	return Operation{name, p.Status, p.Issuer, p.CSR, p.Cancelled, p.Request}
}

func noPending(name string) error {
	return &arm.Error{Code: "PendingCertificateNotFound", Status: http.StatusNotFound, Message: "There is no pending certificate " + name + "."}
}

// pendingContext is the place of a pending certificate's key.
func pendingContext(uid, name, version string) string {
	return "pending certificate " + versionKey(uid, name, version)
}

// CertificateDraft is a certificate about to be made or brought. Without a Policy
// it is made by the one that the name has.
type CertificateDraft struct {
	Policy   *Policy
	Tags     map[string]string
	Disabled bool
	kept     bool // the key may not leave
}

// CreateCertificate makes a certificate that signs itself as the newest version
// of the one that the Grant is for, or, where somebody else is to sign it, a
// request that MergeCertificate ends.
func (s *Service) CreateCertificate(ctx context.Context, g gate.Grant, d CertificateDraft) (out Operation, err error) {
	v, name, err := s.of(g, CertificateCreate)
	if err != nil {
		return out, err
	}
	policy, reused, err := s.plan(ctx, v, name, d.Policy)
	if err != nil {
		return out, err
	}
	d.kept = !*policy.Key.Exportable
	k, csr, made, err := s.draw(policy, reused)
	if err != nil {
		return out, said400(err)
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		have, err := s.roomForCertificate(tx, v, name)
		if err != nil {
			return err
		}
		if have.Pending != nil && have.Pending.Status == inProgress {
			return &arm.Error{Code: arm.Conflict, Message: fmt.Sprintf("Certificate %s is being made already; merge, cancel or delete what is pending first.", name)}
		}
		policy.stamp(have.Policy, s.Now())
		have.Policy = &policy
		have.Pending = &pending{Version: arm.NewHex(), Status: inProgress, Issuer: policy.Issuer, CSR: csr, Tags: d.Tags, Disabled: d.Disabled, Kept: d.kept, Request: arm.NewHex()}
		out = have.Pending.operation(name)
		if policy.Issuer.Name == issuerSelf {
			have.Pending.Status, out.Status = completed, completed
			return s.addCertificate(tx, v, have, cert.Bundle{Key: k, Chain: made}, have.Pending.Version, d)
		}
		if err := checkMeta("", d.Tags, Attributes{}); err != nil {
			return err
		}
		return s.keepPending(tx, v, have, k)
	})
	return out, err
}

// plan is the policy by which a certificate is made, and the key that it shall
// have again, if there is one.
func (s *Service) plan(ctx context.Context, v *live, name string, said *Policy) (policy Policy, reused *key.Key, err error) {
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		row, _, err := store.GetJSON[nameRow](tx, certificates.names, nameKey(v.UID, name))
		switch {
		case err != nil:
			return err
		case said != nil:
			policy = *said
		case row.Policy != nil:
			policy = *row.Policy
		default:
			return bad("the property policy is missing")
		}
		if err := policy.settle(); err != nil {
			return err
		}
		if err := s.mayIssue(tx, v, policy.Issuer.Name); err != nil {
			return err
		}
		if row.Current == "" || !policy.Key.Reuse {
			return nil
		}
		_, ver, err := keys.current(tx, v.UID, name, row.Current)
		if err != nil || !policy.Key.fits(ver.Key.Public) {
			return err
		}
		if ver.Kept && *policy.Key.Exportable {
			return bad("key_props has exportable and reuse_key, but the key that certificate %s has may not leave the vault; one of them must be false", name)
		}
		k, err := s.dataKey(tx, v.UID)
		if err != nil {
			return err
		}
		raw, err := keys.open(k, v.UID, name, ver)
		if err != nil {
			return err
		}
		old, err := ver.Key.Open(raw.Reveal())
		reused = &old
		return err
	})
	return policy, reused, err
}

// draw makes the key, the request and the certificate if it signs itself. It is
// slow, and so not within a transaction.
func (s *Service) draw(p Policy, reused *key.Key) (k key.Key, csr []byte, chain []*x509.Certificate, err error) {
	if reused != nil {
		k = *reused
	} else if k, err = key.Generate(p.Key.Type, p.Key.Curve, p.Key.bits()); err != nil {
		return k, nil, nil, err
	}
	if csr, err = p.X509.CSR(k); err != nil || p.Issuer.Name != issuerSelf {
		return k, csr, nil, err
	}
	leaf, err := p.X509.SelfSigned(k, s.Now())
	return k, csr, []*x509.Certificate{leaf}, err
}

// roomForCertificate is the name to which a version of a certificate can be
// added, with its key and its secret.
func (s *Service) roomForCertificate(tx *store.Tx, v *live, name string) (have nameRow, err error) {
	if err := s.alive(tx, v); err != nil {
		return have, err
	}
	if slices.Contains(taken, strings.ToLower(name)) {
		return have, bad("no certificate can be named %s, which has another meaning there", name)
	}
	for _, c := range certificates.with {
		other, err := s.room(tx, c, v.UID, name)
		if err != nil {
			return have, err
		}
		if other.Current != "" && !other.Managed {
			return have, &arm.Error{Code: arm.Conflict, Message: fmt.Sprintf("%s %s is there already, and belongs to no certificate; a certificate has a key and a secret of its own name.", c.noun, name)}
		}
	}
	return s.room(tx, certificates, v.UID, name)
}

// taken are names that mean something else in a certificate's place.
var taken = []string{"contacts", "issuers", "restore"}

// keepPending seals the key until there is a certificate for it.
func (s *Service) keepPending(tx *store.Tx, v *live, have nameRow, k key.Key) error {
	seal, err := s.dataKey(tx, v.UID)
	if err != nil {
		return err
	}
	raw, err := k.Private()
	if err != nil {
		return err
	}
	p := have.Pending
	if p.Key, err = keyOf(k.Public, nil); err != nil {
		return err
	}
	p.Sealed = seal.Seal(raw, pendingContext(v.UID, have.Name, p.Version))
	return store.PutJSON(tx, certificates.names, nameKey(v.UID, have.Name), have)
}

// addCertificate makes the bundle the newest version of what has the name, with
// its key and its secret.
func (s *Service) addCertificate(tx *store.Tx, v *live, have nameRow, b cert.Bundle, version string, d CertificateDraft) error {
	now := s.Now().UTC().Truncate(time.Second)
	leaf := b.Leaf()
	nbf, exp := leaf.NotBefore.UTC(), leaf.NotAfter.UTC()
	base := versionRow{Version: version, Tags: d.Tags, Attributes: Attributes{Enabled: !d.Disabled, NotBefore: &nbf, Expires: &exp, Created: now, Updated: now}}
	if err := checkMeta("", base.Tags, base.Attributes); err != nil {
		return err
	}
	seal, err := s.dataKey(tx, v.UID)
	if err != nil {
		return err
	}
	raw, err := b.Key.Private()
	if err != nil {
		return err
	}
	shown, err := keyOf(b.Key.Public, nil)
	if err != nil {
		return err
	}
	secret, err := have.Policy.secret(b, !d.kept)
	if err != nil {
		return err
	}
	if len(secret) > maxValue {
		return bad("the certificate with those that lead to its issuer has %d bytes; at most %d are allowed", len(secret), maxValue)
	}
	print := sha1.Sum(leaf.Raw)
	c, k, x := base, base, base
	k.Kept = d.kept
	c.Thumbprint, k.Key, x.ContentType = print[:], shown, have.Policy.Secret.ContentType
	for _, part := range []struct {
		class *class
		row   versionRow
		value []byte
	}{{certificates, c, leaf.Raw}, {keys, k, raw}, {secrets, x, secret}} {
		part.row.Sealed = seal.Seal(part.value, part.class.context(v.UID, have.Name, version))
		if err := store.PutJSON(tx, part.class.versions, versionKey(v.UID, have.Name, version), part.row); err != nil {
			return err
		}
		name := nameRow{Name: have.Name, Managed: true}
		if part.class == certificates {
			name = have
		}
		name.Current = version
		if err := store.PutJSON(tx, part.class.names, nameKey(v.UID, have.Name), name); err != nil {
			return err
		}
	}
	return nil
}

// ImportCertificate takes a certificate with its key from elsewhere as the newest
// version of the one that the Grant is for. What its policy leaves unsaid is as
// in the certificate.
func (s *Service) ImportCertificate(ctx context.Context, g gate.Grant, b cert.Bundle, format string, d CertificateDraft) (Object, error) {
	v, name, err := s.of(g, CertificateImport)
	if err != nil {
		return Object{}, err
	}
	p := Policy{}
	if d.Policy != nil {
		p = *d.Policy
	}
	if err := p.describe(b, format); err != nil {
		return Object{}, err
	}
	d.kept = !*p.Key.Exportable
	version := arm.NewHex()
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		have, err := s.roomForCertificate(tx, v, name)
		if err != nil {
			return err
		}
		p.stamp(have.Policy, s.Now())
		have.Policy = &p
		return s.addCertificate(tx, v, have, b, version, d)
	})
	if err != nil {
		return Object{}, err
	}
	return s.loadFor(ctx, g, certificates, CertificateImport, version)
}

// loadFor is what a change has just made, as the Grant for the change shows it.
func (s *Service) loadFor(ctx context.Context, g gate.Grant, c *class, a arm.Action, version string) (Object, error) {
	return s.load(ctx, g, c, a, version, func(versionRow) error { return nil })
}

// GetCertificate is a version of the certificate that the Grant is for; the newest
// if version is "".
func (s *Service) GetCertificate(ctx context.Context, g gate.Grant, version string) (Object, error) {
	return s.loadFor(ctx, g, certificates, CertificateRead, version)
}

// UpdateCertificate changes what is said about a version, the newest if version
// is "", and the policy if change is not nil.
func (s *Service) UpdateCertificate(ctx context.Context, g gate.Grant, version string, in Amend, change func(*Policy) error) (Object, error) {
	err := s.changeRow(ctx, g, func(tx *store.Tx, v *live, row *nameRow) error {
		if change != nil {
			if err := s.changePolicy(row, change); err != nil {
				return err
			}
		}
		_, err := s.amendParts(tx, certificates, v.UID, row.Name, version, in)
		return err
	})
	if err != nil {
		return Object{}, err
	}
	return s.loadFor(ctx, g, certificates, CertificateUpdate, version)
}

// PolicyOf is the policy of the certificate that the Grant is for.
func (s *Service) PolicyOf(ctx context.Context, g gate.Grant) (Policy, error) {
	row, err := s.certificateRow(ctx, g, CertificateRead)
	if err != nil {
		return Policy{}, err
	}
	return *row.Policy, nil
}

// UpdatePolicy changes the policy of the certificate that the Grant is for, by
// which its next version is made.
func (s *Service) UpdatePolicy(ctx context.Context, g gate.Grant, change func(*Policy) error) (out Policy, err error) {
	err = s.changeRow(ctx, g, func(_ *store.Tx, _ *live, row *nameRow) error {
		err := s.changePolicy(row, change)
		out = *row.Policy
		return err
	})
	return out, err
}

func (s *Service) changePolicy(row *nameRow, change func(*Policy) error) error {
	p := *row.Policy
	if err := change(&p); err != nil {
		return err
	}
	if err := p.settle(); err != nil {
		return err
	}
	p.stamp(row.Policy, s.Now())
	row.Policy = &p
	return nil
}

// PendingOf is how the making of the certificate that the Grant is for goes.
func (s *Service) PendingOf(ctx context.Context, g gate.Grant) (Operation, error) {
	row, err := s.certificateRow(ctx, g, CertificateRead)
	if err != nil {
		return Operation{}, err
	}
	if row.Pending == nil {
		return Operation{}, noPending(row.Name)
	}
	return row.Pending.operation(row.Name), nil
}

// certificateRow is what is there under the name that the Grant is for, also if
// the certificate is yet to be made.
func (s *Service) certificateRow(ctx context.Context, g gate.Grant, a arm.Action) (row nameRow, err error) {
	v, name, err := s.of(g, a)
	if err != nil {
		return row, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		row, err = s.rowOf(tx, v, name)
		return err
	})
	return row, err
}

func (s *Service) rowOf(tx *store.Tx, v *live, name string) (nameRow, error) {
	if err := s.alive(tx, v); err != nil {
		return nameRow{}, err
	}
	row, ok, err := store.GetJSON[nameRow](tx, certificates.names, nameKey(v.UID, name))
	if err == nil && !ok {
		err = certificates.missing(name)
	}
	return row, err
}

// changeRow changes what is there under the name that the Grant, for
// CertificateUpdate, is for.
func (s *Service) changeRow(ctx context.Context, g gate.Grant, change func(*store.Tx, *live, *nameRow) error) error {
	v, name, err := s.of(g, CertificateUpdate)
	if err != nil {
		return err
	}
	return g.Change(ctx, s.DB, func(tx *store.Tx) error {
		row, err := s.rowOf(tx, v, name)
		if err != nil {
			return err
		}
		if err := change(tx, v, &row); err != nil {
			return err
		}
		if row.Current == "" && row.Pending == nil {
			return tx.Delete(certificates.names, nameKey(v.UID, name))
		}
		return store.PutJSON(tx, certificates.names, nameKey(v.UID, name), row)
	})
}

// CancelPending ends the making of a certificate.
func (s *Service) CancelPending(ctx context.Context, g gate.Grant) (out Operation, err error) {
	err = s.changeRow(ctx, g, func(_ *store.Tx, _ *live, row *nameRow) error {
		switch p := row.Pending; {
		case p == nil:
			return noPending(row.Name)
		case p.Status != inProgress:
			return &arm.Error{Code: arm.Conflict, Message: fmt.Sprintf("The making of certificate %s is %s; it can be cancelled while it is %s.", row.Name, p.Status, inProgress)}
		default:
			p.Status, p.Cancelled, p.Sealed = cancelled, true, nil
			out = p.operation(row.Name)
		}
		return nil
	})
	return out, err
}

// DeletePending forgets the making of a certificate; if there was none before,
// its name is free then.
func (s *Service) DeletePending(ctx context.Context, g gate.Grant) (out Operation, err error) {
	err = s.changeRow(ctx, g, func(_ *store.Tx, _ *live, row *nameRow) error {
		if row.Pending == nil {
			return noPending(row.Name)
		}
		out = row.Pending.operation(row.Name)
		row.Pending = nil
		return nil
	})
	return out, err
}

// MergeCertificate ends the making of a certificate with what its issuer gave:
// certificates in DER, of which one is that of the pending key.
func (s *Service) MergeCertificate(ctx context.Context, g gate.Grant, ders [][]byte, d CertificateDraft) (Object, error) {
	v, name, err := s.of(g, CertificateCreate)
	if err != nil {
		return Object{}, err
	}
	version := ""
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		have, err := s.roomForCertificate(tx, v, name)
		if err != nil {
			return err
		}
		p := have.Pending
		if p == nil || p.Status != inProgress {
			return noPending(name)
		}
		seal, err := s.dataKey(tx, v.UID)
		if err != nil {
			return err
		}
		raw, err := seal.Open(p.Sealed, pendingContext(v.UID, have.Name, p.Version))
		if err != nil {
			return fmt.Errorf("opening the key of the pending certificate %s of vault %s: %w", name, v.UID, err)
		}
		k, err := p.Key.Open(raw)
		if err != nil {
			return err
		}
		b, err := cert.Merge(k, ders)
		if err != nil {
			return said400(err)
		}
		if d.Tags == nil {
			d.Tags = p.Tags
		}
		d.Disabled, d.kept = d.Disabled || p.Disabled, p.Kept || !*have.Policy.Key.Exportable
		p.Status, p.Sealed, version = completed, nil, p.Version
		return s.addCertificate(tx, v, have, b, version, d)
	})
	if err != nil {
		return Object{}, err
	}
	return s.loadFor(ctx, g, certificates, CertificateCreate, version)
}
