package seal

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Argon2id cost for a passphrase (RFC 9106, second recommended option).
const (
	argonTime   = 3
	argonMemory = 64 << 10 // KiB
	argonLanes  = 4
)

// FromPassphrase derives a root key from a passphrase and the installation's salt.
func FromPassphrase(pass, salt []byte) (Key, error) {
	if len(pass) < 12 {
		return Key{}, fmt.Errorf("seal: the passphrase has %d characters; it must have at least 12", len(pass))
	}
	if len(salt) < 16 {
		return Key{}, errors.New("seal: the salt is shorter than 16 bytes")
	}
	return NewKey(argon2.IDKey(pass, salt, argonTime, argonMemory, argonLanes, KeySize))
}

// FromFile reads a root key from a file that only its owner may read; if the
// file is not there and create is set, it makes one.
func FromFile(path string, create bool) (Key, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		k := Random()
		return k, ToFile(path, k)
	}
	if err != nil {
		return Key{}, fmt.Errorf("reading the root key: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return Key{}, fmt.Errorf("seal: the root key %s can be read by others (mode %o); chmod 600 it", path, st.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Key{}, fmt.Errorf("reading the root key: %w", err)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return Key{}, fmt.Errorf("seal: the root key %s is not base64", path)
	}
	return NewKey(raw)
}

// ToFile keeps a root key in a new file, which FromFile reads.
func ToFile(path string, k Key) error {
	if err := WriteOnce(path, []byte(base64.StdEncoding.EncodeToString(k.raw)+"\n")); err != nil {
		return fmt.Errorf("making the root key: %w", err)
	}
	return nil
}

// WriteOnce makes a file that only its owner may read, whole or not at all, and
// on disk when it returns. It is an error if the file is there already.
func WriteOnce(path string, data []byte) error {
	return write(path, data, os.Link) // a rename would take the place of what is there
}

// Replace is WriteOnce in the place of a file that may be there.
func Replace(path string, data []byte) error { return write(path, data, os.Rename) }

func write(path string, data []byte, place func(from, to string) error) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := place(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir puts on disk which files a folder has.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
