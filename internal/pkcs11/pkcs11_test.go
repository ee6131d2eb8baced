package pkcs11

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const good = "pkcs11:token=My%20token;object=root;id=%01%02;type=secret-key?module-path=/lib/p11.so&pin-source=file:/etc/pin"

// A URI is read whole or not at all.
func TestURI(t *testing.T) {
	u, err := Parse(good)
	if err != nil || u.Attrs["token"] != "My token" || u.Attrs["id"] != "\x01\x02" || u.Module != "/lib/p11.so" || u.PINSource != "/etc/pin" {
		t.Errorf("Parse = %+v, %v", u, err)
	}
	if u, err = Parse(strings.Replace(good, "file:/", "file:///", 1)); err != nil || u.PINSource != "/etc/pin" {
		t.Errorf("with an authority that is empty: %+v, %v", u, err)
	}
	for _, bad := range []string{
		"", "file:/x", "pkcs11:", strings.Replace(good, "token", "Token", 1), strings.Replace(good, "token=My%20token;", "", 1), strings.Replace(good, "%20", "%2", 1),
		strings.Replace(good, "object=root;id=%01%02;", "", 1), strings.Replace(good, "secret-key", "public", 1), strings.Replace(good, "?", "?pin-value=1234&", 1),
		strings.Replace(good, "/lib/", "lib/", 1), strings.Replace(good, "file:/etc", "file:etc", 1), strings.Replace(good, "file:/etc/pin", "|/bin/pin", 1), strings.Replace(good, "root;", "root;object=x;", 1), strings.Replace(good, "root;", ";", 1),
		strings.Split(good, "?")[0], good + "&module-name=p11", good + "&x",
	} {
		if u, err := Parse(bad); err == nil {
			t.Errorf("Parse(%q) = %+v", bad, u)
		} else if strings.Contains(err.Error(), "1234") {
			t.Errorf("Parse(%q) tells the PIN: %v", bad, err)
		}
	}
}

func FuzzURI(f *testing.F) {
	f.Add(good)
	f.Fuzz(func(t *testing.T, text string) {
		if u, err := Parse(text); err == nil && (!filepath.IsAbs(u.Module) || !filepath.IsAbs(u.PINSource) || u.Attrs["token"]+u.Attrs["serial"] == "") {
			t.Errorf("Parse(%q) = %+v", text, u)
		}
	})
}

// A helper that is missing, talks nonsense or too much, or fails, gives no key.
func TestHelperFails(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if _, err := Unwrap(t.Context(), good, Wrapped{}); err == nil || !strings.Contains(err.Error(), Program) {
		t.Errorf("without a helper: %v", err)
	}
	for name, script := range map[string]string{
		"nonsense": "echo key", "nothing": "exit 0", "a refusal": `echo '{"plain":"AAAA","error":"no"}'`, "a failure after an answer": `echo '{"plain":"AAAA"}'; exit 3`,
		"too much": `printf '{"plain":"'; while printf AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA; do :; done`,
	} {
		if err := os.WriteFile(filepath.Join(dir, Program), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if got, err := Unwrap(t.Context(), good, Wrapped{}); err == nil || got != nil {
			t.Errorf("%s: Unwrap = %q, %v", name, got, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, Program), []byte("#!/bin/sh\necho '{\"wrapped\":{\"algorithm\":\"x\",\"data\":\"AA==\"},\"plain\":\"QQ==\"}'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Wrap(t.Context(), good, []byte("key")); err == nil {
		t.Error("a helper that does not give back what it wrapped is believed")
	}
}
