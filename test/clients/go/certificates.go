package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azcertificates"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

// certificates makes certificates in the vault at url and reads them with Go's
// own crypto/x509.
func (r *run) certificates(url string) {
	client := func(who azcore.TokenCredential) *azcertificates.Client {
		c, err := azcertificates.NewClient(url, who, &azcertificates.ClientOptions{ClientOptions: r.opts})
		if err != nil {
			r.ok("azcertificates: client", err)
		}
		return c
	}
	c := client(r.admin)
	secrets, err := azsecrets.NewClient(url, r.admin, &azsecrets.ClientOptions{ClientOptions: r.opts})
	if c == nil || !r.ok("azsecrets: client", err) {
		return
	}
	keys, err := azkeys.NewClient(url, r.admin, &azkeys.ClientOptions{ClientOptions: r.opts})
	if !r.ok("azkeys: client", err) {
		return
	}
	r.selfSigned(c, secrets, keys)
	r.signedElsewhere(c, secrets)
	r.issuers(c)
	for name, who := range map[string]azcore.TokenCredential{"a reader's": r.reader, "a stranger's": r.stranger} {
		_, err := client(who).GetCertificate(r.ctx, "self", "", nil)
		r.refused(name+" get of a certificate", err, "Forbidden")
		_, err = client(who).DeleteCertificate(r.ctx, "self", nil)
		r.refused(name+" delete of a certificate", err, "Forbidden")
	}
}

func certPolicy(issuer string) *azcertificates.CertificatePolicy {
	return &azcertificates.CertificatePolicy{
		IssuerParameters: &azcertificates.IssuerParameters{Name: &issuer},
		KeyProperties:    &azcertificates.KeyProperties{KeyType: to.Ptr(azcertificates.KeyTypeEC), Curve: to.Ptr(azcertificates.CurveNameP256), Exportable: to.Ptr(true)},
		SecretProperties: &azcertificates.SecretProperties{ContentType: to.Ptr("application/x-pem-file")},
		X509CertificateProperties: &azcertificates.X509CertificateProperties{
			Subject: to.Ptr("CN=go.example"), SubjectAlternativeNames: &azcertificates.SubjectAlternativeNames{DNSNames: []*string{to.Ptr("go.example")}}, ValidityInMonths: to.Ptr(int32(6)),
			KeyUsage: []*azcertificates.KeyUsageType{to.Ptr(azcertificates.KeyUsageTypeDigitalSignature)}, EnhancedKeyUsage: []*string{to.Ptr("1.3.6.1.5.5.7.3.1")},
		},
		LifetimeActions: []*azcertificates.LifetimeAction{{Action: &azcertificates.LifetimeActionType{ActionType: to.Ptr(azcertificates.CertificatePolicyActionEmailContacts)}, Trigger: &azcertificates.LifetimeActionTrigger{DaysBeforeExpiry: to.Ptr(int32(20))}}},
	}
}

// pair is an error unless the secret has the certificate with its key and n
// certificates in all.
func (r *run) pair(secrets *azsecrets.Client, name string, cer []byte, n int) error {
	s, err := secrets.GetSecret(r.ctx, name, "", nil)
	if err != nil {
		return err
	}
	p, err := tls.X509KeyPair([]byte(value(s.Value)), []byte(value(s.Value)))
	if err != nil {
		return err
	}
	if string(p.Certificate[0]) != string(cer) || len(p.Certificate) != n || !value(s.Managed) {
		return fmt.Errorf("it has %d certificates, or another one, or is not managed", len(p.Certificate))
	}
	return nil
}

func (r *run) selfSigned(c *azcertificates.Client, secrets *azsecrets.Client, keys *azkeys.Client) {
	op, err := c.CreateCertificate(r.ctx, "self", azcertificates.CreateCertificateParameters{CertificatePolicy: certPolicy("Self"), Tags: map[string]*string{"a": to.Ptr("b")}}, nil)
	for tries := 0; err == nil && value(op.Status) == "inProgress" && tries < 20; tries++ {
		got, e := c.GetCertificateOperation(r.ctx, "self", nil)
		op.CertificateOperation, err = got.CertificateOperation, e
	}
	if err == nil {
		err = equal(value(op.Status), "completed")
	}
	r.ok("azcertificates: create, self-signed", err)
	got, err := c.GetCertificate(r.ctx, "self", "", nil)
	if !r.ok("azcertificates: get", err) {
		return
	}
	leaf, err := x509.ParseCertificate(got.CER)
	if err == nil {
		if err = leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature); err == nil {
			err = leaf.VerifyHostname("go.example")
		}
	}
	r.ok("azcertificates: it signs itself, for its name", err)
	r.ok("azcertificates: its secret has certificate and key", r.pair(secrets, "self", got.CER, 1))
	_, err = secrets.DeleteSecret(r.ctx, "self", nil)
	r.refused("delete of a certificate's secret", err, "Forbidden")
	_, err = keys.DeleteKey(r.ctx, "self", nil)
	r.refused("delete of a certificate's key", err, "Forbidden")
	_, err = c.UpdateCertificate(r.ctx, "self", got.ID.Version(), azcertificates.UpdateCertificateParameters{CertificateAttributes: &azcertificates.CertificateAttributes{Enabled: to.Ptr(false)}, Tags: map[string]*string{"c": to.Ptr("d")}}, nil)
	r.ok("azcertificates: update", err)
	_, err = secrets.GetSecret(r.ctx, "self", "", nil)
	r.refused("get of a disabled certificate's secret", err, "SecretDisabled", "Forbidden")
	changed, err := c.UpdateCertificatePolicy(r.ctx, "self", azcertificates.CertificatePolicy{X509CertificateProperties: &azcertificates.X509CertificateProperties{ValidityInMonths: to.Ptr(int32(9))}}, nil)
	if err == nil {
		err = equal(value(changed.X509CertificateProperties.Subject), "CN=go.example")
	}
	r.ok("azcertificates: policy update", err)
	policy, err := c.GetCertificatePolicy(r.ctx, "self", nil)
	if err == nil {
		err = equal(value(policy.X509CertificateProperties.ValidityInMonths), 9)
	}
	r.ok("azcertificates: policy get", err)
	_, err = c.CreateCertificate(r.ctx, "self", azcertificates.CreateCertificateParameters{CertificatePolicy: &policy.CertificatePolicy}, nil)
	r.ok("azcertificates: create by the policy that it has", err)
	n := 0
	for pages := c.NewListCertificatePropertiesVersionsPager("self", nil); pages.More(); {
		page, e := pages.NextPage(r.ctx)
		if err = e; err != nil {
			break
		}
		n += len(page.Value)
	}
	if err == nil {
		err = equal(n, 2)
	}
	r.ok("azcertificates: list of versions", err)
	saved, err := c.BackupCertificate(r.ctx, "self", nil)
	r.ok("azcertificates: backup", err)
	_, err = c.DeleteCertificate(r.ctx, "self", nil)
	r.ok("azcertificates: delete", err)
	_, err = c.GetDeletedCertificate(r.ctx, "self", nil)
	r.ok("azcertificates: the deleted certificate", err)
	_, err = c.RecoverDeletedCertificate(r.ctx, "self", nil)
	r.ok("azcertificates: recover", err)
	if _, err = c.DeleteCertificate(r.ctx, "self", nil); err == nil {
		_, err = c.PurgeDeletedCertificate(r.ctx, "self", nil)
	}
	r.ok("azcertificates: purge", err)
	_, err = secrets.GetDeletedSecret(r.ctx, "self", nil)
	r.refused("get of a purged certificate's secret", err, "SecretNotFound")
	back, err := c.RestoreCertificate(r.ctx, azcertificates.RestoreCertificateParameters{CertificateBackup: saved.Value}, nil)
	if err == nil {
		err = r.pair(secrets, "self", back.CER, 1)
	}
	r.ok("azcertificates: restore, with its secret", err)
}

func (r *run) signedElsewhere(c *azcertificates.Client, secrets *azsecrets.Client) {
	op, err := c.CreateCertificate(r.ctx, "merged", azcertificates.CreateCertificateParameters{CertificatePolicy: certPolicy("Unknown")}, nil)
	if !r.ok("azcertificates: create, to be signed elsewhere", err) {
		return
	}
	csr, err := x509.ParseCertificateRequest(op.CSR)
	if err == nil {
		err = csr.CheckSignature()
	}
	if !r.ok("azcertificates: its request", err) {
		return
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.ok("a certificate authority", err)
		return
	}
	now := time.Now()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "go ca"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &k.PublicKey, k)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: csr.Subject, DNSNames: csr.DNSNames, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 6, 0)}
	der, err2 := x509.CreateCertificate(rand.Reader, leaf, ca, csr.PublicKey, k)
	alien, err3 := x509.CreateCertificate(rand.Reader, leaf, ca, &k.PublicKey, k)
	if err != nil || err2 != nil || err3 != nil {
		r.ok("a certificate authority signs", fmt.Errorf("%v %v %v", err, err2, err3))
		return
	}
	_, err = c.MergeCertificate(r.ctx, "merged", azcertificates.MergeCertificateParameters{X509Certificates: [][]byte{alien}}, nil)
	r.refused("merge of another key's certificate", err, "BadParameter")
	merged, err := c.MergeCertificate(r.ctx, "merged", azcertificates.MergeCertificateParameters{X509Certificates: [][]byte{der, caDER}}, nil)
	r.ok("azcertificates: merge", err)
	r.ok("azcertificates: its secret has the whole chain", r.pair(secrets, "merged", merged.CER, 2))
	_, err = c.CreateCertificate(r.ctx, "never", azcertificates.CreateCertificateParameters{CertificatePolicy: certPolicy("Unknown")}, nil)
	if err == nil {
		cancelled, e := c.UpdateCertificateOperation(r.ctx, "never", azcertificates.UpdateCertificateOperationParameter{CancellationRequested: to.Ptr(true)}, nil)
		if err = e; err == nil {
			err = equal(value(cancelled.CancellationRequested), true)
		}
	}
	r.ok("azcertificates: cancel", err)
	_, err = c.DeleteCertificateOperation(r.ctx, "never", nil)
	r.ok("azcertificates: delete of the operation", err)

	own := &x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "brought"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 6, 0)}
	ownDER, err := x509.CreateCertificate(rand.Reader, own, own, &k.PublicKey, k)
	if err == nil {
		var keyDER []byte
		if keyDER, err = x509.MarshalPKCS8PrivateKey(k); err == nil {
			text := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})) + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ownDER}))
			_, err = c.ImportCertificate(r.ctx, "brought", azcertificates.ImportCertificateParameters{Base64EncodedCertificate: &text, CertificatePolicy: &azcertificates.CertificatePolicy{SecretProperties: &azcertificates.SecretProperties{ContentType: to.Ptr("application/x-pem-file")}}}, nil)
		}
	}
	r.ok("azcertificates: import of PEM", err)
	r.ok("azcertificates: its secret has what was brought", r.pair(secrets, "brought", ownDER, 1))
}

func (r *run) issuers(c *azcertificates.Client) {
	_, err := c.SetIssuer(r.ctx, "digi", azcertificates.SetIssuerParameters{Provider: to.Ptr("DigiCert"), Credentials: &azcertificates.IssuerCredentials{AccountID: to.Ptr("me"), Password: to.Ptr("secret")}}, nil)
	r.ok("azcertificates: set issuer", err)
	got, err := c.GetIssuer(r.ctx, "digi", nil)
	if err == nil {
		err = equal(value(got.Credentials.AccountID)+value(got.Credentials.Password), "me")
	}
	r.ok("azcertificates: get issuer", err)
	_, err = c.CreateCertificate(r.ctx, "digi", azcertificates.CreateCertificateParameters{CertificatePolicy: certPolicy("digi")}, nil)
	r.refused("a certificate of an issuer that is not reached", err, "can't be reached")
	n := 0
	for pages := c.NewListIssuerPropertiesPager(nil); pages.More(); {
		page, e := pages.NextPage(r.ctx)
		if err = e; err != nil {
			break
		}
		n += len(page.Value)
	}
	r.ok("azcertificates: list of issuers", equal(n, 1))
	_, err = c.DeleteIssuer(r.ctx, "digi", nil)
	r.ok("azcertificates: delete issuer", err)
	_, err = c.SetContacts(r.ctx, azcertificates.Contacts{ContactList: []*azcertificates.Contact{{Email: to.Ptr("a@example"), Name: to.Ptr("A")}}}, nil)
	r.ok("azcertificates: set contacts", err)
	said, err := c.GetContacts(r.ctx, nil)
	if err == nil {
		err = equal(len(said.ContactList), 1)
	}
	r.ok("azcertificates: get contacts", err)
	_, err = c.DeleteContacts(r.ctx, nil)
	r.ok("azcertificates: delete contacts", err)
}
