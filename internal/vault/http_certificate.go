package vault

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/cert"
	"castellan/internal/gate"
)

func (s *Service) certificateRoutes() []gate.Route {
	at, get, update := s.at(certificates), s.answer(certificates, s.getCertificate), s.answer(certificates, s.updateCertificate)
	return []gate.Route{
		s.on(CertificateCreate, "POST /certificates/{name}/create", at, s.createCertificate),
		s.on(CertificateImport, "POST /certificates/{name}/import", at, s.answer(certificates, s.importCertificate)),
		s.on(CertificateRead, "GET /certificates/{name}", at, get),
		s.on(CertificateRead, "GET /certificates/{name}/", at, get),
		s.on(CertificateRead, "GET /certificates/{name}/{version}", at, get),
		s.on(CertificateUpdate, "PATCH /certificates/{name}", at, update),
		s.on(CertificateUpdate, "PATCH /certificates/{name}/", at, update),
		s.on(CertificateUpdate, "PATCH /certificates/{name}/{version}", at, update),
		s.on(CertificateRead, "GET /certificates/{name}/policy", at, s.getPolicy),
		s.on(CertificateUpdate, "PATCH /certificates/{name}/policy", at, s.patchPolicy),
		s.on(CertificateRead, "GET /certificates/{name}/pending", at, s.operation(func(r *http.Request, g gate.Grant) (Operation, error) { return s.PendingOf(r.Context(), g) })),
		s.on(CertificateUpdate, "PATCH /certificates/{name}/pending", at, s.operation(s.cancelPending)),
		s.on(CertificateUpdate, "DELETE /certificates/{name}/pending", at, s.operation(func(r *http.Request, g gate.Grant) (Operation, error) { return s.DeletePending(r.Context(), g) })),
		s.on(CertificateCreate, "POST /certificates/{name}/pending/merge", at, s.mergeCertificate),
		s.on(ContactsWrite, "GET /certificates/contacts", s.atVault, s.contacts(func(r *http.Request, g gate.Grant) ([]Contact, error) { return s.Contacts(r.Context(), g) })),
		s.on(ContactsWrite, "PUT /certificates/contacts", s.atVault, s.contacts(s.putContacts)),
		s.on(ContactsWrite, "DELETE /certificates/contacts", s.atVault, s.contacts(func(r *http.Request, g gate.Grant) ([]Contact, error) { return s.DeleteContacts(r.Context(), g) })),
		s.on(IssuerRead, "GET /certificates/issuers", s.atVault, s.listIssuers),
		s.on(IssuerRead, "GET /certificates/issuers/{issuer}", s.atIssuer, s.issuer(func(r *http.Request, g gate.Grant) (Issuer, error) { return s.GetIssuer(r.Context(), g) })),
		s.on(IssuerWrite, "PUT /certificates/issuers/{issuer}", s.atIssuer, s.issuer(s.putIssuer(true))),
		s.on(IssuerWrite, "PATCH /certificates/issuers/{issuer}", s.atIssuer, s.issuer(s.putIssuer(false))),
		s.on(IssuerDelete, "DELETE /certificates/issuers/{issuer}", s.atIssuer, s.issuer(func(r *http.Request, g gate.Grant) (Issuer, error) { return s.DeleteIssuer(r.Context(), g) })),
	}
}

// atIssuer finds the issuer that the path names.
func (s *Service) atIssuer(r *http.Request, v gate.Vars) (gate.Target, error) {
	t, err := s.atVault(r, v)
	if err != nil {
		return t, err
	}
	if !nameOf.MatchString(v["issuer"]) {
		return gate.Target{}, bad("the issuer's name %q is invalid; it must be 1 to 127 letters, digits and hyphens", v["issuer"])
	}
	return gate.Target{ID: t.ID.Child("certificatecas", v["issuer"]), Item: v["issuer"]}, nil
}

// saidOfCertificate is what a client says about a certificate.
type saidOfCertificate struct {
	ID         string            `json:"id" arm:"readonly"`
	Policy     any               `json:"policy"`
	Tags       map[string]string `json:"tags"`
	Attributes struct {
		Enabled *bool  `json:"enabled"`
		Begins  any    `json:"nbf" arm:"readonly"` // the certificate says both
		Ends    any    `json:"exp" arm:"readonly"`
		Created any    `json:"created" arm:"readonly"`
		Updated any    `json:"updated" arm:"readonly"`
		Level   string `json:"recoveryLevel" arm:"readonly"`
		Days    int    `json:"recoverableDays" arm:"readonly"`
	} `json:"attributes"`
	Value    string   `json:"value"` // of an import
	Password string   `json:"pwd"`
	Chain    [][]byte `json:"x5c"`               // of a merge
	Order    bool     `json:"preserveCertOrder"` // the certificate of the key is always the first
}

// read takes a request that may have what allowed names besides attributes and tags.
func (in *saidOfCertificate) read(r *http.Request, allowed ...string) (d CertificateDraft, err error) {
	if err := decode(r, in); err != nil {
		return d, err
	}
	for name, there := range map[string]bool{"policy": in.Policy != nil, "value": in.Value != "", "pwd": in.Password != "", "x5c": in.Chain != nil, "preserveCertOrder": in.Order} {
		if there && !strings.Contains(strings.Join(allowed, " "), name) {
			return d, bad("%s must be left out", name)
		}
	}
	if in.Policy != nil {
		d.Policy = &Policy{}
		if err := arm.DecodeTree(in.Policy, d.Policy); err != nil {
			return d, err
		}
	}
	d.Tags, d.Disabled = in.Tags, in.Attributes.Enabled != nil && !*in.Attributes.Enabled
	return d, nil
}

func (s *Service) createCertificate(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	var in saidOfCertificate
	d, err := in.read(r, "policy", "preserveCertOrder")
	if err != nil {
		return err
	}
	op, err := s.CreateCertificate(r.Context(), g, d)
	if err != nil {
		return err
	}
	w.Header().Set("Location", s.base(r)+"certificates/"+op.Name+"/pending?api-version="+r.URL.Query().Get("api-version")+"&request_id="+op.Request)
	op.Status = inProgress // clients wait for an end, and have no result of what had ended before they asked
	gate.WriteJSON(w, http.StatusAccepted, s.showOperation(r, op))
	return nil
}

func (s *Service) importCertificate(r *http.Request, g gate.Grant) (Object, error) {
	var in saidOfCertificate
	d, err := in.read(r, "policy", "value", "pwd", "preserveCertOrder")
	if err != nil {
		return Object{}, err
	}
	format := typePFX
	if strings.Contains(in.Value, "-----BEGIN") || d.Policy != nil && strings.EqualFold(d.Policy.Secret.ContentType, typePEM) {
		format = typePEM
	}
	var b cert.Bundle
	if format == typePEM {
		text := []byte(in.Value)
		if raw, err := base64.StdEncoding.DecodeString(in.Value); err == nil && bytes.Contains(raw, []byte("-----BEGIN")) {
			text = raw // some clients write all in base64
		}
		b, err = cert.ReadPEM(text)
	} else {
		pfx, bad64 := base64.StdEncoding.DecodeString(in.Value)
		if bad64 != nil || len(pfx) == 0 {
			return Object{}, bad("value must be a PKCS #12 file in base64, or PEM text")
		}
		b, err = cert.ReadPFX(pfx, in.Password)
	}
	if err != nil {
		return Object{}, said400(err)
	}
	return s.ImportCertificate(r.Context(), g, b, format, d)
}

func (s *Service) getCertificate(r *http.Request, g gate.Grant) (Object, error) {
	return s.GetCertificate(r.Context(), g, lastSegment(r, 3))
}

func (s *Service) updateCertificate(r *http.Request, g gate.Grant) (Object, error) {
	var in saidOfCertificate
	if _, err := in.read(r, "policy"); err != nil {
		return Object{}, err
	}
	var change func(*Policy) error
	if in.Policy != nil {
		change = func(p *Policy) error { return arm.DecodeTree(in.Policy, p) }
	}
	return s.UpdateCertificate(r.Context(), g, lastSegment(r, 3), Amend{Tags: in.Tags, Enabled: in.Attributes.Enabled}, change)
}

func (s *Service) mergeCertificate(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	var in saidOfCertificate
	d, err := in.read(r, "x5c", "preserveCertOrder")
	if err != nil {
		return err
	}
	x, err := s.MergeCertificate(r.Context(), g, in.Chain, d)
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusCreated, s.bundle(r, certificates, x, whole))
	return nil
}

func (s *Service) getPolicy(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	p, err := s.PolicyOf(r.Context(), g)
	return s.showPolicy(w, r, p, err)
}

func (s *Service) patchPolicy(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	var said any
	if err := decode(r, &said); err != nil {
		return err
	}
	p, err := s.UpdatePolicy(r.Context(), g, func(p *Policy) error { return arm.DecodeTree(said, p) })
	return s.showPolicy(w, r, p, err)
}

func (s *Service) showPolicy(w http.ResponseWriter, r *http.Request, p Policy, err error) error {
	if err != nil {
		return err
	}
	p.ID = s.base(r) + "certificates/" + lastSegment(r, 2) + "/policy"
	gate.WriteJSON(w, http.StatusOK, p)
	return nil
}

// operation answers with how the making of a certificate goes.
func (s *Service) operation(do func(r *http.Request, g gate.Grant) (Operation, error)) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		op, err := do(r, g)
		if err != nil {
			return err
		}
		gate.WriteJSON(w, http.StatusOK, s.showOperation(r, op))
		return nil
	}
}

func (s *Service) showOperation(r *http.Request, op Operation) map[string]any {
	id := s.base(r) + "certificates/" + op.Name
	out := map[string]any{"id": id + "/pending", "issuer": op.Issuer, "csr": op.CSR, "cancellation_requested": op.Cancelled, "status": op.Status, "request_id": op.Request}
	switch {
	case op.Status == completed:
		out["target"] = id
	case op.Status == inProgress && op.Issuer.Name == issuerUnknown:
		out["status_details"] = "The request is to be signed elsewhere and the certificate merged."
	}
	return out
}

func (s *Service) cancelPending(r *http.Request, g gate.Grant) (Operation, error) {
	var in struct {
		Cancel bool `json:"cancellation_requested"`
	}
	if err := decode(r, &in); err != nil {
		return Operation{}, err
	}
	if !in.Cancel {
		return Operation{}, bad("cancellation_requested must be true: nothing else of a pending certificate can be changed")
	}
	return s.CancelPending(r.Context(), g)
}

func (s *Service) contacts(do func(r *http.Request, g gate.Grant) ([]Contact, error)) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		list, err := do(r, g)
		if err != nil {
			return err
		}
		gate.WriteJSON(w, http.StatusOK, map[string]any{"id": s.base(r) + "certificates/contacts", "contacts": list})
		return nil
	}
}

func (s *Service) putContacts(r *http.Request, g gate.Grant) ([]Contact, error) {
	var in struct {
		ID       string    `json:"id" arm:"readonly"`
		Contacts []Contact `json:"contacts"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return in.Contacts, s.SetContacts(r.Context(), g, in.Contacts)
}

func (s *Service) listIssuers(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	if _, err := pageSize(r.URL.Query()); err != nil {
		return err
	}
	list, err := s.Issuers(r.Context(), g)
	if err != nil {
		return err
	}
	items := []any{}
	for _, x := range list {
		items = append(items, map[string]any{"id": s.base(r) + "certificates/issuers/" + x.Name, "provider": x.Provider})
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": items, "nextLink": nil})
	return nil
}

func (s *Service) issuer(do func(r *http.Request, g gate.Grant) (Issuer, error)) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		x, err := do(r, g)
		if err != nil {
			return err
		}
		gate.WriteJSON(w, http.StatusOK, map[string]any{
			"id": s.base(r) + "certificates/issuers/" + x.Name, "provider": x.Provider, "org_details": x.Org,
			"credentials": map[string]any{"account_id": x.Account},
			"attributes":  map[string]any{"enabled": !x.Disabled, "created": x.Created, "updated": x.Updated},
		})
		return nil
	}
}

func (s *Service) putIssuer(fresh bool) func(r *http.Request, g gate.Grant) (Issuer, error) {
	return func(r *http.Request, g gate.Grant) (Issuer, error) {
		var in struct {
			ID          string  `json:"id" arm:"readonly"`
			Provider    *string `json:"provider"`
			Credentials *struct {
				Account  string `json:"account_id"`
				Password string `json:"pwd"`
			} `json:"credentials"`
			Org        *Organization `json:"org_details"`
			Attributes struct {
				Enabled *bool `json:"enabled"`
				Created any   `json:"created" arm:"readonly"`
				Updated any   `json:"updated" arm:"readonly"`
			} `json:"attributes"`
		}
		if err := decode(r, &in); err != nil {
			return Issuer{}, err
		}
		return s.SetIssuer(r.Context(), g, fresh, func(x *Issuer) {
			if in.Provider != nil {
				x.Provider = *in.Provider
			}
			if in.Credentials != nil {
				x.Account = in.Credentials.Account
			}
			if in.Org != nil {
				x.Org = *in.Org
			}
			if in.Attributes.Enabled != nil {
				x.Disabled = !*in.Attributes.Enabled
			}
		})
	}
}
