package app

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"castellan/internal/backup"
	"castellan/internal/pkcs11"
	"castellan/internal/seal"
	"castellan/internal/store"
)

// rootKey is the installation's root key: from a passphrase if there is one, from
// a token, else from a file beside the data folder.
func rootKey(ctx context.Context, cfg Config) (seal.Key, error) {
	if cfg.inToken() {
		return tokenKey(ctx, cfg, cfg.Data)
	}
	if _, err := os.Stat(filepath.Join(cfg.Data, backup.WrappedKey)); err == nil {
		return seal.Key{}, fmt.Errorf("the root key of %s is in a token; name it by --root-key with its URI", cfg.Data)
	}
	if cfg.PassphraseFile == "" {
		return seal.FromFile(cfg.keyFile(), true)
	}
	pass, err := passphrase(cfg.PassphraseFile)
	if err != nil {
		return seal.Key{}, err
	}
	salt, err := saltOf(cfg.Data)
	if err != nil {
		return seal.Key{}, err
	}
	return seal.FromPassphrase([]byte(strings.TrimRight(string(pass), "\r\n")), salt)
}

func (c Config) inToken() bool { return strings.HasPrefix(c.RootKey, pkcs11.Scheme) }

// tokenKey is the root key that lies in dir, a data or backup folder, wrapped by a
// token's key. Where there is no data yet it is made.
func tokenKey(ctx context.Context, cfg Config, dir string) (k seal.Key, err error) {
	if cfg.PassphraseFile != "" {
		return k, errors.New("the root key is in a token or made of a passphrase; not both")
	}
	text, err := os.ReadFile(filepath.Join(dir, backup.WrappedKey))
	if errors.Is(err, fs.ErrNotExist) {
		for _, there := range []string{store.FileName, "points"} {
			if _, err := os.Stat(filepath.Join(dir, there)); err == nil {
				return k, fmt.Errorf("the root key of %s is in no token; castellan keys move puts it there", dir)
			}
		}
		k = seal.Random()
		return k, putToken(ctx, cfg.RootKey, dir, k)
	}
	if err != nil {
		return k, fmt.Errorf("reading the wrapped root key: %w", err)
	}
	var w pkcs11.Wrapped
	if err := json.Unmarshal(text, &w); err != nil {
		return k, fmt.Errorf("reading the wrapped root key: %w", err)
	}
	raw, err := pkcs11.Unwrap(ctx, cfg.RootKey, w)
	if err != nil {
		return k, fmt.Errorf("opening the root key: %w", err)
	}
	return seal.NewKey(raw)
}

// putToken keeps the root key of a data folder as a token's key wraps it.
func putToken(ctx context.Context, uri, dir string, k seal.Key) error {
	w, err := pkcs11.Wrap(ctx, uri, k.Bytes())
	if err != nil {
		return fmt.Errorf("wrapping the root key: %w", err)
	}
	text, err := json.Marshal(w)
	if err != nil {
		return err
	}
	return seal.Replace(filepath.Join(dir, backup.WrappedKey), append(text, '\n'))
}

// MoveRootKey keeps the root key, which stays what it is, elsewhere: under a token's
// key, or in a file that is not there yet. A server may run meanwhile.
func MoveRootKey(ctx context.Context, cfg Config, to string) error {
	cfg, err := cfg.existing()
	if err != nil {
		return err
	}
	k, err := rootKey(ctx, cfg)
	if err != nil {
		return err
	}
	db, err := store.Open(cfg.Data, k)
	if err == nil {
		err = errors.Join(db.View(ctx, func(tx *store.Tx) error {
			_, _, err := store.GetJSON[installation](tx, installations, "it")
			return err
		}), db.Close())
	}
	if err != nil {
		return fmt.Errorf("this root key does not open the data folder: %w", err)
	}
	if strings.HasPrefix(to, pkcs11.Scheme) {
		return putToken(ctx, to, cfg.Data, k)
	}
	if err := seal.ToFile(to, k); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(cfg.Data, backup.WrappedKey)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return seal.SyncDir(cfg.Data)
}

// passphrase reads a file that only its owner may read, as that of a root key.
// What is no regular file (a pipe) was made for this reader.
func passphrase(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	if st.Mode().IsRegular() && st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the passphrase file %s can be read by others (mode %o); chmod 600 it", path, st.Mode().Perm())
	}
	pass, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	return pass, nil
}

// saltOf is the salt that the data folder keeps for its passphrase; it is no secret.
func saltOf(dir string) ([]byte, error) {
	path := filepath.Join(dir, "salt")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		salt := make([]byte, 16)
		_, _ = rand.Read(salt) // never fails
		if err := seal.WriteOnce(path, []byte(base64.StdEncoding.EncodeToString(salt)+"\n")); err != nil {
			return nil, fmt.Errorf("writing the salt: %w", err)
		}
		return salt, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the salt: %w", err)
	}
	return base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
}
