// Package pkcs11 has a root key wrapped by a key in a PKCS #11 token, which it
// reaches through the program castellan-pkcs11.
package pkcs11

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Scheme begins a URI of a token's key.
const Scheme = "pkcs11:"

// URI names a key in a token (RFC 7512). It holds no PIN, only where one is.
type URI struct {
	Attrs     map[string]string // of the path, decoded, by their names
	Module    string            // absolute path of the token's library
	PINSource string            // absolute path of the file with the user's PIN
}

// known are the attributes of a path that are looked at.
var known = []string{"token", "serial", "manufacturer", "model", "slot-id", "object", "id", "type"}

// Parse reads a URI such as
// pkcs11:token=castellan;object=root?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/castellan/pin.
// What it doesn't know it refuses: an attribute that is passed over would let
// in a key that was not meant.
func Parse(text string) (u URI, err error) {
	rest, ok := strings.CutPrefix(text, Scheme)
	if !ok {
		return u, fmt.Errorf("the URI of a token's key must begin with %q", Scheme)
	}
	path, query, _ := strings.Cut(rest, "?")
	if u.Attrs, err = attributes(path, ";", known); err != nil {
		return u, err
	}
	more, err := attributes(query, "&", []string{"module-path", "pin-source"})
	if err != nil {
		return u, err
	}
	u.Module, u.PINSource = more["module-path"], strings.TrimPrefix(strings.TrimPrefix(more["pin-source"], "file:"), "//")
	switch typ := u.Attrs["type"]; {
	case u.Attrs["token"] == "" && u.Attrs["serial"] == "":
		return u, fmt.Errorf("the URI of a token's key must name the token, by token= or serial=")
	case u.Attrs["object"] == "" && u.Attrs["id"] == "":
		return u, fmt.Errorf("the URI of a token's key must name the key, by object= or id=")
	case typ != "" && typ != "secret-key" && typ != "private":
		return u, fmt.Errorf("type is %q; it must be secret-key (AES) or private (RSA)", typ)
	case !filepath.IsAbs(u.Module):
		return u, fmt.Errorf("module-path is %q; it must be the absolute path of the token's library", u.Module)
	case !filepath.IsAbs(u.PINSource):
		return u, fmt.Errorf("pin-source must be file: and the absolute path of a file with the PIN")
	}
	return u, nil
}

func attributes(text, between string, names []string) (map[string]string, error) {
	out := map[string]string{}
	for part := range strings.SplitSeq(text, between) {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		if name == "pin-value" {
			return nil, fmt.Errorf("pin-value would show the PIN to everybody on the machine; name a file by pin-source")
		}
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("a token's key has no attribute %q here; there are %s", name, strings.Join(names, ", "))
		}
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("the attribute %s is given twice", name)
		}
		v, err := url.PathUnescape(value)
		if err != nil || v == "" {
			return nil, fmt.Errorf("the attribute %s has no value that can be read", name)
		}
		out[name] = v
	}
	return out, nil
}

// PIN reads the user's PIN from a file that only its owner may read. What is no
// regular file (a pipe) was made for this reader.
func (u URI) PIN() (string, error) {
	st, err := os.Stat(u.PINSource)
	if err != nil {
		return "", fmt.Errorf("reading the PIN: %w", err)
	}
	if st.Mode().IsRegular() && st.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("the PIN in %s can be read by others (mode %o); chmod 600 it", u.PINSource, st.Mode().Perm())
	}
	text, err := os.ReadFile(u.PINSource)
	if err != nil {
		return "", fmt.Errorf("reading the PIN: %w", err)
	}
	pin := strings.TrimRight(string(text), "\r\n")
	if pin == "" {
		return "", fmt.Errorf("%s has no PIN", u.PINSource)
	}
	return pin, nil
}
