package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// binary is a canary that is no text, of whatever length.
func (p *planter) binary(kind string, b []byte) []byte {
	p.all = append(p.all, canary{kind: kind, text: base64.StdEncoding.EncodeToString(b), raw: b})
	return b
}

// put puts something into storage.
func (p *planter) store(method, u string, body []byte, header ...string) reply {
	p.t.Helper()
	return p.must(p.t, nil, p.blob, method, u, body, append(header, "x-ms-version", storageVersion)...)
}

// containers: their names, metadata and stored policies, and what is said of a whole account.
func (p *planter) containers() {
	for range 8 {
		u := p.blobURL + p.new("container's name") + "?restype=container"
		p.store(http.MethodPut, u, nil, "x-ms-meta-note", p.new("container's metadata"))
		p.store(http.MethodPut, u+"&comp=acl", []byte("<SignedIdentifiers><SignedIdentifier><Id>"+p.new("stored policy's id")+
			"</Id><AccessPolicy><Expiry>2099-01-01T00:00:00Z</Expiry><Permission>r</Permission></AccessPolicy></SignedIdentifier></SignedIdentifiers>"))
	}
	storage := p.group + "/providers/Microsoft.Storage/storageAccounts/" + p.account
	p.must(p.t, nil, p.arm, http.MethodPut, p.url(storage+"/blobServices/default"), map[string]any{"properties": map[string]any{
		"isVersioningEnabled": true, "deleteRetentionPolicy": map[string]any{"enabled": true, "days": 2},
		"cors": map[string]any{"corsRules": []any{map[string]any{"allowedOrigins": []string{"https://" + p.new("origin") + ".example"}, "allowedMethods": []string{"GET"},
			"allowedHeaders": []string{"x-ms-meta-" + p.new("header of a rule")}, "exposedHeaders": []string{"*"}, "maxAgeInSeconds": 5}}},
	}})
	p.must(p.t, nil, p.arm, http.MethodPut, p.url(storage+"/managementPolicies/default"), map[string]any{"properties": map[string]any{"policy": map[string]any{"rules": []any{map[string]any{
		"enabled": true, "name": p.new("lifecycle rule's name"), "type": "Lifecycle", "definition": map[string]any{
			"filters": map[string]any{"blobTypes": []string{"blockBlob"}, "prefixMatch": []string{"con/" + p.new("lifecycle rule's prefix")}},
			"actions": map[string]any{"baseBlob": map[string]any{"delete": map[string]any{"daysAfterModificationGreaterThan": 90}}}}}}}}})
}

// kinds: all that can be said of a blob, of each type, in blobs that stay, are written over, versioned, copied or deleted.
func (p *planter) kinds() {
	for i := range 24 {
		u, big := p.blobURL+"con/"+p.new("blob's name"), strings.Repeat("x", 70<<10*(i%2))
		head := func() []string {
			return []string{"x-ms-blob-type", "BlockBlob", "x-ms-meta-" + p.new("metadata's name"), p.new("blob's metadata"), "x-ms-tags", p.new("blob tag's key") + "=" + p.new("blob tag's value"),
				"x-ms-blob-content-type", "x/" + p.new("content type"), "x-ms-blob-content-disposition", "attachment; filename=" + p.new("content disposition"),
				"x-ms-blob-cache-control", p.new("cache control"), "x-ms-blob-content-language", p.new("content language"), "x-ms-blob-content-encoding", p.new("content encoding")}
		}
		p.store(http.MethodPut, u, []byte(big+p.new("blob's bytes")), head()...)
		switch i % 6 {
		case 0:
			p.store(http.MethodPut, u, []byte(big+p.new("bytes that replace others")), head()...)
		case 1:
			p.store(http.MethodPut, u+"?comp=snapshot", nil, "x-ms-meta-note", p.new("snapshot's metadata"))
		case 2:
			p.store(http.MethodDelete, u, nil)
		case 3:
			p.store(http.MethodPut, p.blobURL+"con/"+p.new("copy's name"), nil, "x-ms-copy-source", u)
		case 4:
			id := p.new("block's id")
			p.store(http.MethodPut, u+"?comp=block&blockid="+url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(id))), []byte(p.new("block's bytes")))
			p.store(http.MethodPut, u+"?comp=blocklist", []byte("<BlockList><Latest>"+base64.StdEncoding.EncodeToString([]byte(id))+"</Latest></BlockList>"), "x-ms-meta-note", p.new("blob's metadata"))
		}
	}
	log, page := p.blobURL+"con/"+p.new("append blob's name"), p.blobURL+"con/"+p.new("page blob's name")
	p.store(http.MethodPut, log, nil, "x-ms-blob-type", "AppendBlob")
	p.store(http.MethodPut, page, nil, "x-ms-blob-type", "PageBlob", "x-ms-blob-content-length", "8192")
	for i := range 8 {
		p.store(http.MethodPut, log+"?comp=appendblock", []byte(p.new("appended bytes")))
		p.store(http.MethodPut, page+"?comp=page", append([]byte(p.new("bytes of a page")), make([]byte, 512-28)...), "x-ms-page-write", "update", "x-ms-range", fmt.Sprintf("bytes=%d-%d", i*512, i*512+511))
	}
}

// lake: directories and files of a hierarchical namespace, made, renamed and deleted.
func (p *planter) lake() {
	id := p.group + "/providers/Microsoft.Storage/storageAccounts/lablake"
	p.put(p.t, id, map[string]any{"location": p.location, "kind": "StorageV2", "sku": map[string]any{"name": "Standard_LRS"}, "properties": map[string]any{"isHnsEnabled": true}})
	at := "https://lablake." + p.s.ready.Suffixes["dfs"] + "/" + p.new("file system's name")
	p.store(http.MethodPut, at+"?resource=filesystem", nil)
	for i := range 12 {
		dir := at + "/" + p.new("directory's name")
		p.store(http.MethodPut, dir+"?resource=directory", nil, "x-ms-properties", "note="+base64.StdEncoding.EncodeToString([]byte(p.new("directory's property"))))
		file := dir + "/" + p.new("file's name")
		p.store(http.MethodPut, file+"?resource=file", nil)
		text := []byte(p.new("file's bytes"))
		p.store(http.MethodPatch, file+"?action=append&position=0", text)
		p.store(http.MethodPatch, fmt.Sprintf("%s?action=flush&position=%d", file, len(text)), nil)
		switch i % 3 {
		case 0:
			p.store(http.MethodPut, at+"/"+p.new("directory's new name"), nil, "x-ms-rename-source", strings.TrimPrefix(dir, "https://lablake."+p.s.ready.Suffixes["dfs"]))
		case 1:
			p.store(http.MethodDelete, dir+"?recursive=true", nil)
		}
	}
}

// vaulted: keys and certificates that were brought, with whom to tell, versions, backups, and what is deleted.
func (p *planter) vaulted() {
	const version = "?api-version=7.4"
	b64 := base64.RawURLEncoding.EncodeToString
	for i := range 12 {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			p.t.Fatal(err)
		}
		d, err := k.Bytes()
		if err != nil {
			p.t.Fatal(err)
		}
		point, err := k.PublicKey.Bytes()
		if err != nil {
			p.t.Fatal(err)
		}
		at := p.vaultURL + "keys/" + p.new("key's name")
		p.must(p.t, nil, p.vault, http.MethodPut, at+version, map[string]any{"tags": map[string]any{p.new("key tag's name"): p.new("key's tag")},
			"key": map[string]any{"kty": "EC", "crv": "P-256", "d": b64(p.binary("private key", d)), "x": b64(point[1:33]), "y": b64(point[33:])}})
		if i%4 == 0 {
			p.must(p.t, nil, p.vault, http.MethodPost, at+"/backup"+version, nil)
			p.must(p.t, nil, p.vault, http.MethodDelete, at+version, nil)
		}
	}
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		p.t.Fatal(err)
	}
	part := func(name string, n *big.Int) string { return b64(p.binary("RSA key's "+name, n.Bytes())) }
	p.must(p.t, nil, p.vault, http.MethodPut, p.vaultURL+"keys/rsa"+version, map[string]any{"key": map[string]any{"kty": "RSA", "n": b64(k.N.Bytes()), "e": "AQAB",
		"d": part("exponent", k.D), "p": part("prime", k.Primes[0]), "q": part("other prime", k.Primes[1]), "dp": part("dp", k.Precomputed.Dp), "dq": part("dq", k.Precomputed.Dq), "qi": part("qi", k.Precomputed.Qinv)}})
	for range 8 {
		name := p.new("certificate's name")
		p.must(p.t, nil, p.vault, http.MethodPost, p.vaultURL+"certificates/"+name+"/import"+version, map[string]any{"value": p.certificate(), "tags": map[string]any{"t": p.new("certificate's tag")},
			"policy": map[string]any{"secret_props": map[string]any{"contentType": "application/x-pem-file"}}})
	}
	p.must(p.t, nil, p.vault, http.MethodPut, p.vaultURL+"certificates/contacts"+version, map[string]any{"contacts": []any{map[string]any{"email": p.new("contact's address") + "@example.com", "name": p.new("contact"), "phone": p.new("contact's phone")}}})
	p.must(p.t, nil, p.vault, http.MethodPut, p.vaultURL+"certificates/issuers/"+p.new("issuer's name")+version, map[string]any{"provider": "DigiCert",
		"credentials": map[string]any{"account_id": p.new("issuer's account"), "pwd": p.new("issuer's password")}})
	gone := p.vaultURL + "secrets/" + p.new("deleted secret's name")
	for range 4 {
		p.must(p.t, nil, p.vault, http.MethodPut, gone+version, map[string]any{"value": p.new("old secret's value")})
	}
	var backup struct{ Value string }
	p.must(p.t, &backup, p.vault, http.MethodPost, gone+"/backup"+version, nil)
	p.got("backup of a secret", backup.Value)
	p.must(p.t, nil, p.vault, http.MethodDelete, gone+version, nil)
}

// certificate is one in PEM, with its key.
func (p *planter) certificate() string {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	d, err := k.Bytes()
	if err != nil {
		p.t.Fatal(err)
	}
	p.binary("certificate's private key", d)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: p.new("certificate's subject")}, DNSNames: []string{p.new("certificate's host") + ".example"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		p.t.Fatal(err)
	}
	p8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		p.t.Fatal(err)
	}
	p.got("certificate's key in PEM", base64.StdEncoding.EncodeToString(p8))
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: p8})) + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
