package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/key"
	"castellan/internal/store"
)

// Key is what is public of a version of a key, and what it may be used for.
type Key struct {
	key.Public
	Ops []string `json:"key_ops"`
}

// What keys may be used for, as JSON Web Keys call it (RFC 7517, section 4.3).
const (
	opEncrypt = "encrypt"
	opDecrypt = "decrypt"
	opWrap    = "wrapKey"
	opUnwrap  = "unwrapKey"
	opSign    = "sign"
	opVerify  = "verify"
)

// uses are what a key of a type can be used for, in the order of Key Vault.
var uses = map[string][]string{
	key.RSA: {opEncrypt, opDecrypt, opSign, opVerify, opWrap, opUnwrap},
	key.EC:  {opSign, opVerify},
	key.Oct: {opEncrypt, opDecrypt, opWrap, opUnwrap},
}

// keyOf is a key for these uses; nil are all that its type has.
func keyOf(p key.Public, ops []string) (*Key, error) {
	k := &Key{Public: p, Ops: ops}
	if ops == nil {
		k.Ops = uses[p.Type]
	}
	return k, k.checkOps()
}

func (k Key) checkOps() error {
	for i, op := range k.Ops {
		switch {
		case !slices.Contains(uses[k.Type], op):
			return bad("key_ops has %q; for a key of type %s it may have %s", op, k.Type, strings.Join(uses[k.Type], ", "))
		case slices.Contains(k.Ops[:i], op):
			return bad("key_ops has %q twice", op)
		}
	}
	return nil
}

// show is the key as a JSON Web Key.
func (k Key) show(id string) map[string]any {
	out := map[string]any{"kid": id, "kty": k.Type, "key_ops": append([]string{}, k.Ops...)}
	if k.Curve != "" {
		out["crv"] = k.Curve
	}
	for name, b := range map[string]key.Bytes{"n": k.N, "e": k.E, "x": k.X, "y": k.Y} {
		if len(b) > 0 {
			out[name] = b
		}
	}
	return out
}

// KeyDraft is a key about to be made or brought.
type KeyDraft struct {
	Ops       []string // nil are all that the type has
	Tags      map[string]string
	Disabled  bool
	NotBefore *time.Time
	Expires   *time.Time
}

// CreateKey makes a key of a type, curve and size (see key.Generate) as the
// newest version of the key that the Grant is for.
func (s *Service) CreateKey(ctx context.Context, g gate.Grant, typ, curve string, bits int, d KeyDraft) (Object, error) {
	if _, _, err := s.of(g, KeyCreate); err != nil {
		return Object{}, err
	}
	k, err := key.Generate(typ, curve, bits)
	if err != nil {
		return Object{}, said400(err)
	}
	return s.putKey(ctx, g, KeyCreate, k, d)
}

// ImportKey takes a key from elsewhere as the newest version of the key that the
// Grant is for.
func (s *Service) ImportKey(ctx context.Context, g gate.Grant, j key.JWK, d KeyDraft) (Object, error) {
	if _, _, err := s.of(g, KeyImport); err != nil {
		return Object{}, err
	}
	k, err := j.Import()
	if err != nil {
		return Object{}, said400(err)
	}
	return s.putKey(ctx, g, KeyImport, k, d)
}

// said400 is err as Key Vault tells it, if the client can be told.
func said400(err error) error {
	if errors.Is(err, key.ErrBad) {
		return bad("%s", err)
	}
	return err
}

func (s *Service) putKey(ctx context.Context, g gate.Grant, a arm.Action, k key.Key, d KeyDraft) (out Object, err error) {
	v, name, err := s.of(g, a)
	if err != nil {
		return out, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		if err := s.alive(tx, v); err != nil {
			return err
		}
		have, err := s.roomFor(tx, keys, v.UID, name)
		if err != nil {
			return err
		}
		out, err = s.addKey(tx, v, have, k, d)
		return err
	})
	return out, err
}

// addKey makes k the newest version of what has the name.
func (s *Service) addKey(tx *store.Tx, v *live, have nameRow, k key.Key, d KeyDraft) (Object, error) {
	shown, err := keyOf(k.Public, d.Ops)
	if err != nil {
		return Object{}, err
	}
	now := s.Now().UTC().Truncate(time.Second)
	row := versionRow{
		Version: arm.NewHex(), Tags: d.Tags, Key: shown,
		Attributes: Attributes{Enabled: !d.Disabled, NotBefore: d.NotBefore, Expires: d.Expires, Created: now, Updated: now},
	}
	if err := checkMeta("", row.Tags, row.Attributes); err != nil {
		return Object{}, err
	}
	seal, err := s.dataKey(tx, v.UID)
	if err != nil {
		return Object{}, err
	}
	raw, err := k.Private()
	if err != nil {
		return Object{}, err
	}
	have.Current = row.Version
	row.Sealed = seal.Seal(raw, keys.context(v.UID, have.Name, row.Version))
	if err := store.PutJSON(tx, keys.versions, versionKey(v.UID, have.Name, row.Version), row); err != nil {
		return Object{}, err
	}
	return row.object(have), store.PutJSON(tx, keys.names, nameKey(v.UID, have.Name), have)
}

// GetKey is what is public of a version of the key that the Grant is for; the
// newest if version is "".
func (s *Service) GetKey(ctx context.Context, g gate.Grant, version string) (Object, error) {
	return s.load(ctx, g, keys, KeyRead, version, nil)
}

// UpdateKey changes what is said about a version, the newest if version is "".
func (s *Service) UpdateKey(ctx context.Context, g gate.Grant, version string, in Amend) (Object, error) {
	return s.amend(ctx, g, keys, KeyUpdate, version, in)
}

// use does op with a version of the key that the Grant, for a, is for. What is
// private of the key is out of its seal only within do.
func (s *Service) use(ctx context.Context, g gate.Grant, a arm.Action, op, version string, do func(key.Key) error) (Object, error) {
	out, err := s.load(ctx, g, keys, a, version, func(v versionRow) error { return s.usableFor(v, op) })
	raw := out.Value
	out.Value = arm.Secret{}
	if err != nil {
		return out, err
	}
	k, err := out.Key.Open(raw.Reveal())
	if err != nil {
		return out, fmt.Errorf("key %s/%s: %w", out.Name, out.Version, err)
	}
	err = do(k)
	if errors.Is(err, key.ErrFailed) {
		return out, &arm.Error{Code: "BadParameter", Status: http.StatusBadRequest, Message: "The value does not open with this key by this algorithm."}
	}
	return out, said400(err)
}

// usableFor says whether op may be done with the version now. What was encrypted
// or signed before a key's time was over can still be opened and checked.
func (s *Service) usableFor(v versionRow, op string) error {
	if !slices.Contains(v.Key.Ops, op) {
		return shut("KeyOperationForbidden", "Operation %s is not permitted on this key.", op)
	}
	if op == opDecrypt || op == opUnwrap || op == opVerify {
		v.Attributes.NotBefore, v.Attributes.Expires = nil, nil
	}
	return keys.usable(v, op, s.Now())
}

// Encrypt encrypts with the key that the Grant is for; the newest version if
// version is "".
func (s *Service) Encrypt(ctx context.Context, g gate.Grant, version, alg string, in key.Box) (of Object, out key.Box, err error) {
	of, err = s.use(ctx, g, KeyEncrypt, opEncrypt, version, func(k key.Key) (err error) { out, err = k.Encrypt(alg, in); return err })
	return of, out, err
}

// Decrypt opens what Encrypt made.
func (s *Service) Decrypt(ctx context.Context, g gate.Grant, version, alg string, in key.Box) (of Object, out []byte, err error) {
	of, err = s.use(ctx, g, KeyDecrypt, opDecrypt, version, func(k key.Key) (err error) { out, err = k.Decrypt(alg, in); return err })
	return of, out, err
}

// Wrap encrypts another key with the key that the Grant is for.
func (s *Service) Wrap(ctx context.Context, g gate.Grant, version, alg string, inner []byte) (of Object, out []byte, err error) {
	of, err = s.use(ctx, g, KeyWrap, opWrap, version, func(k key.Key) (err error) { out, err = k.Wrap(alg, inner); return err })
	return of, out, err
}

// Unwrap opens what Wrap made.
func (s *Service) Unwrap(ctx context.Context, g gate.Grant, version, alg string, wrapped []byte) (of Object, out []byte, err error) {
	of, err = s.use(ctx, g, KeyUnwrap, opUnwrap, version, func(k key.Key) (err error) { out, err = k.Unwrap(alg, wrapped); return err })
	return of, out, err
}

// Sign signs a digest with the key that the Grant is for.
func (s *Service) Sign(ctx context.Context, g gate.Grant, version, alg string, digest []byte) (of Object, out []byte, err error) {
	of, err = s.use(ctx, g, KeySign, opSign, version, func(k key.Key) (err error) { out, err = k.Sign(alg, digest); return err })
	return of, out, err
}

// Verify reports whether sig is the key's signature of a digest.
func (s *Service) Verify(ctx context.Context, g gate.Grant, version, alg string, digest, sig []byte) (ok bool, err error) {
	_, err = s.use(ctx, g, KeyVerify, opVerify, version, func(k key.Key) (err error) { ok, err = k.Verify(alg, digest, sig); return err })
	return ok, err
}
