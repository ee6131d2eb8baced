package vault

import (
	"net/http"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/key"
)

func (s *Service) keyRoutes() (out []gate.Route) {
	at, create, get, update := s.at(keys), s.answer(keys, s.createKey), s.answer(keys, s.getKey), s.answer(keys, s.updateKey)
	out = []gate.Route{
		s.on(KeyCreate, "POST /keys/{name}/create", at, create),
		s.on(KeyImport, "PUT /keys/{name}", at, s.answer(keys, s.importKey)),
		s.on(KeyRead, "GET /keys/{name}", at, get),
		s.on(KeyRead, "GET /keys/{name}/", at, get),
		s.on(KeyRead, "GET /keys/{name}/{version}", at, get),
		s.on(KeyUpdate, "PATCH /keys/{name}", at, update),
		s.on(KeyUpdate, "PATCH /keys/{name}/", at, update),
		s.on(KeyUpdate, "PATCH /keys/{name}/{version}", at, update),
		s.on(KeyRotate, "POST /keys/{name}/rotate", at, s.answer(keys, s.rotateKey)),
		s.on(RotationRead, "GET /keys/{name}/rotationpolicy", at, s.getRotation),
		s.on(RotationWrite, "PUT /keys/{name}/rotationpolicy", at, s.putRotation),
		s.on(KeyRelease, "POST /keys/{name}/{version}/release", at, noRelease),
	}
	for _, x := range []struct {
		action arm.Action
		verb   string
		do     gate.Verb
	}{
		{KeyEncrypt, "encrypt", s.encrypt}, {KeyDecrypt, "decrypt", s.decrypt}, {KeyWrap, "wrapkey", s.wrap},
		{KeyUnwrap, "unwrapkey", s.unwrap}, {KeySign, "sign", s.sign}, {KeyVerify, "verify", s.verify},
	} {
		// clients name no version by an empty segment
		out = append(out,
			s.on(x.action, "POST /keys/{name}/{version}/"+x.verb, at, x.do),
			s.on(x.action, "POST /keys/{name}//"+x.verb, at, x.do),
			s.on(x.action, "POST /keys/{name}/"+x.verb, at, x.do))
	}
	return out
}

// saidOf is what a client says about a key.
type saidOfKey struct {
	Type       string            `json:"kty"`
	Curve      string            `json:"crv"`
	Size       int               `json:"key_size"`
	Exponent   int               `json:"public_exponent"`
	Ops        []string          `json:"key_ops"`
	HSM        bool              `json:"Hsm"`
	Key        *jwk              `json:"key"`
	Tags       map[string]string `json:"tags"`
	Release    any               `json:"release_policy"`
	Attributes struct {
		validity
		Exportable bool `json:"exportable"`
	} `json:"attributes"`
}

// jwk is a JSON Web Key, and what Key Vault has beside.
type jwk struct {
	key.JWK
	ID    string    `json:"kid" arm:"readonly"`
	Ops   []string  `json:"key_ops"`
	Token key.Bytes `json:"key_hsm"`
}

func (in saidOfKey) draft() (d KeyDraft, err error) {
	switch {
	case in.HSM || in.Key != nil && len(in.Key.Token) > 0:
		return d, bad("keys in hardware (Hsm, key_hsm) are not to be had: vaults here have the SKU standard")
	case in.Release != nil || in.Attributes.Exportable:
		return d, bad("release_policy and attributes.exportable must be left out: keys never leave this vault, since nothing here attests to whom")
	case in.Exponent != 0 && in.Exponent != 65537:
		return d, bad("public_exponent is %d; it must be 65537", in.Exponent)
	}
	d = KeyDraft{Ops: in.Ops, Tags: in.Tags, Disabled: in.Attributes.Enabled != nil && !*in.Attributes.Enabled}
	d.NotBefore, d.Expires, err = in.Attributes.times()
	return d, err
}

func keyType(t string) (string, error) {
	switch t {
	case key.RSA, key.EC, key.Oct:
		return t, nil
	case "RSA-HSM", "EC-HSM", "oct-HSM":
		return "", bad("the key type %s is kept in hardware, which vaults of the SKU standard have not; it may be RSA, EC or oct", t)
	}
	return "", bad("kty is %q; it may be RSA, EC or oct", t)
}

func (s *Service) createKey(r *http.Request, g gate.Grant) (Object, error) {
	var in saidOfKey
	if err := decode(r, &in); err != nil {
		return Object{}, err
	}
	if in.Key != nil {
		return Object{}, bad("key must be left out: a key is made; PUT brings one")
	}
	d, err := in.draft()
	if err != nil {
		return Object{}, err
	}
	typ, err := keyType(in.Type)
	if err != nil {
		return Object{}, err
	}
	return s.CreateKey(r.Context(), g, typ, in.Curve, in.Size, d)
}

func (s *Service) importKey(r *http.Request, g gate.Grant) (Object, error) {
	var in saidOfKey
	if err := decode(r, &in); err != nil {
		return Object{}, err
	}
	if in.Key == nil {
		return Object{}, bad("the property key is missing; it must be a JSON Web Key with its private part")
	}
	if in.Type != "" || in.Curve != "" || in.Size != 0 || in.Ops != nil {
		return Object{}, bad("kty, crv, key_size and key_ops must stand in key")
	}
	in.Ops = in.Key.Ops
	d, err := in.draft()
	if err != nil {
		return Object{}, err
	}
	if in.Key.Type, err = keyType(in.Key.Type); err != nil {
		return Object{}, err
	}
	return s.ImportKey(r.Context(), g, in.Key.JWK, d)
}

func (s *Service) getKey(r *http.Request, g gate.Grant) (Object, error) {
	return s.GetKey(r.Context(), g, lastSegment(r, 3))
}

func (s *Service) updateKey(r *http.Request, g gate.Grant) (Object, error) {
	var in saidOfKey
	if err := decode(r, &in); err != nil {
		return Object{}, err
	}
	if in.Key != nil || in.Type != "" || in.Curve != "" || in.Size != 0 || in.Exponent != 0 {
		return Object{}, bad("a key's type and value can't be updated; create or import it to make a new version")
	}
	d, err := in.draft()
	if err != nil {
		return Object{}, err
	}
	return s.UpdateKey(r.Context(), g, lastSegment(r, 3), Amend{Tags: in.Tags, Enabled: in.Attributes.Enabled, NotBefore: d.NotBefore, Expires: d.Expires, Ops: in.Ops})
}

func (s *Service) rotateKey(r *http.Request, g gate.Grant) (Object, error) {
	return s.RotateKey(r.Context(), g)
}

// noRelease answers who may release keys; there are none that can be.
func noRelease(http.ResponseWriter, *http.Request, gate.Grant) error {
	return shut("KeyNotExportable", "Operation release is not allowed: the key is not exportable. Keys never leave this vault, since nothing here attests to whom.")
}

// work is what a client wants done with a key.
type work struct {
	Alg    string    `json:"alg"`
	Value  key.Bytes `json:"value"`
	Digest key.Bytes `json:"digest"`
	IV     key.Bytes `json:"iv"`
	AAD    key.Bytes `json:"aad"`
	Tag    key.Bytes `json:"tag"`
}

// readWork reads a request that may have of iv, aad, tag and digest those that extra names.
func readWork(r *http.Request, box, digest bool) (in work, version string, err error) {
	if err := decode(r, &in); err != nil {
		return in, "", err
	}
	switch {
	case in.Alg == "":
		return in, "", bad("the property alg is missing")
	case len(in.Value) == 0:
		return in, "", bad("the property value is missing or empty")
	case !box && len(in.IV)+len(in.AAD)+len(in.Tag) > 0:
		return in, "", bad("iv, aad and tag must be left out")
	case !digest && len(in.Digest) > 0:
		return in, "", bad("digest must be left out")
	}
	if version = lastSegment(r, 3); version != "" && !versionForm.MatchString(version) {
		version = "" // the path names the verb there
	}
	return in, version, nil
}

func (in work) box() key.Box { return key.Box{Value: in.Value, IV: in.IV, Tag: in.Tag, Extra: in.AAD} }

// done answers with what came out and the key that did it.
func (s *Service) done(w http.ResponseWriter, r *http.Request, of Object, out key.Box, err error) error {
	if err != nil {
		return err
	}
	body := map[string]any{"kid": s.base(r) + "keys/" + of.Name + "/" + of.Version, "value": key.Bytes(out.Value)}
	for name, b := range map[string][]byte{"iv": out.IV, "tag": out.Tag, "aad": out.Extra} {
		if len(b) > 0 {
			body[name] = key.Bytes(b)
		}
	}
	gate.WriteJSON(w, http.StatusOK, body)
	return nil
}

func (s *Service) encrypt(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	in, version, err := readWork(r, true, false)
	if err != nil {
		return err
	}
	of, out, err := s.Encrypt(r.Context(), g, version, in.Alg, in.box())
	return s.done(w, r, of, out, err)
}

func (s *Service) decrypt(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	in, version, err := readWork(r, true, false)
	if err != nil {
		return err
	}
	of, out, err := s.Decrypt(r.Context(), g, version, in.Alg, in.box())
	return s.done(w, r, of, key.Box{Value: out}, err)
}

func (s *Service) wrap(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	in, version, err := readWork(r, false, false)
	if err != nil {
		return err
	}
	of, out, err := s.Wrap(r.Context(), g, version, in.Alg, in.Value)
	return s.done(w, r, of, key.Box{Value: out}, err)
}

func (s *Service) unwrap(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	in, version, err := readWork(r, false, false)
	if err != nil {
		return err
	}
	of, out, err := s.Unwrap(r.Context(), g, version, in.Alg, in.Value)
	return s.done(w, r, of, key.Box{Value: out}, err)
}

func (s *Service) sign(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	in, version, err := readWork(r, false, false)
	if err != nil {
		return err
	}
	of, out, err := s.Sign(r.Context(), g, version, in.Alg, in.Value)
	return s.done(w, r, of, key.Box{Value: out}, err)
}

func (s *Service) verify(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	in, version, err := readWork(r, false, true)
	if err != nil {
		return err
	}
	ok, err := s.Verify(r.Context(), g, version, in.Alg, in.Digest, in.Value)
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": ok})
	return nil
}
