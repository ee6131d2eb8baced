package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"castellan/internal/pkcs11"
)

const tokenPIN = "canary-4711-pin"

// softhsm is a folder of tokens of SoftHSM's, which are files, and the helper in PATH.
type softhsm struct {
	*testing.T
	dir, module string
}

func newSoftHSM(t *testing.T) *softhsm {
	s := &softhsm{T: t, dir: t.TempDir()}
	lack := func(err error) {
		if os.Getenv("CASTELLAN_PKCS11") == "must" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if _, err := exec.LookPath("softhsm2-util"); err != nil {
		lack(fmt.Errorf("a root key in a token is not tried: %w", err))
	}
	for _, m := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so"} {
		if _, err := os.Stat(m); err == nil {
			s.module = m
		}
	}
	if out, err := exec.Command("go", "build", "-o", s.dir, "castellan/cmd/"+pkcs11.Program).CombinedOutput(); err != nil || s.module == "" {
		lack(fmt.Errorf("a root key in a token is not tried: the helper wants a C compiler: %w: %s", err, out))
	}
	t.Setenv("PATH", s.dir+":"+os.Getenv("PATH"))
	t.Setenv("SOFTHSM2_CONF", s.file("conf", "directories.tokendir = "+s.dir+"/tokens\nobjectstore.backend = file\n"))
	if err := os.Mkdir(s.dir+"/tokens", 0o700); err != nil {
		t.Fatal(err)
	}
	s.file("pin", tokenPIN+"\n")
	return s
}

func (s *softhsm) file(name, text string) string {
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	return path
}

func (s *softhsm) util(args ...string) string {
	s.Helper()
	out, err := exec.Command("softhsm2-util", args...).CombinedOutput()
	if err != nil {
		s.Fatalf("softhsm2-util %v: %v: %s", args, err, out)
	}
	return string(out)
}

// token makes a token with a key of AES.
func (s *softhsm) token(label, object string) {
	s.util("--init-token", "--free", "--label", label, "--so-pin", "so-"+tokenPIN, "--pin", tokenPIN)
	s.key(label, object, "01", []byte(rand.Text()+"012345"), "--aes") // 32 bytes; the tool stops at some that are no text
}

func (s *softhsm) key(label, object, id string, raw []byte, more ...string) {
	s.util(append([]string{"--import", s.file("raw", string(raw)), "--token", label, "--label", object, "--id", id, "--pin", tokenPIN}, more...)...)
}

func (s *softhsm) uri(token, object string) string {
	return "pkcs11:token=" + token + ";object=" + object + "?module-path=" + s.module + "&pin-source=file:" + s.dir + "/pin"
}

// looks is what all files of a folder are.
func looks(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		fmt.Fprintf(h, "%s %d\n%s", path, len(b), b)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// try runs a command to its end.
func try(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := root()
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

// A token's key holds the root key: without it, with another key in its place, or
// with a wrong PIN nothing starts and nothing changes; the root key moves between
// files and tokens and stays the same; backups open by the token alone.
func TestTokenHoldsTheRootKey(t *testing.T) {
	s := newSoftHSM(t)
	s.token("first", "root")
	s.token("second", "root")
	uri, data := s.uri("first", "root"), filepath.Join(t.TempDir(), "data")
	s.part("a token holds the root key", func(t *testing.T) {
		serve(t, data, `"ready":true`, "--json", "--root-key", uri)
		serve(t, data, `"ready":true`, "--json", "--root-key", uri)
		if _, err := os.Stat(data + ".root-key"); err == nil {
			t.Error("a root key lies in a file too")
		}
		if out, err := try(t, "keys", "--data", data, "--root-key", uri); err != nil || !strings.Contains(out, "a key in a token") {
			t.Errorf("the keys: %v\n%s", err, out)
		}
	})
	s.part("refused: other keys, tokens, PINs and libraries, and nothing changed", func(t *testing.T) { s.attack(t, uri, data) })
	file := filepath.Join(t.TempDir(), "root-key")
	s.part("it moves to a file, to a key of RSA and back", func(t *testing.T) { s.move(t, uri, data, file) })
	s.part("a backup opens by the token alone", func(t *testing.T) {
		to, back := filepath.Join(t.TempDir(), "to"), filepath.Join(t.TempDir(), "back")
		for _, args := range [][]string{{"backup", "--data", data, "--to", to}, {"backup", "check", "--from", to}, {"restore", "--from", to, "--data", back}} {
			if out, err := try(t, append(args, "--root-key", uri)...); err != nil {
				t.Fatalf("%v: %v %s", args, err, out)
			}
		}
		serve(t, back, `"ready":true`, "--json", "--root-key", uri)
		for _, key := range []string{s.uri("second", "root"), s.uri("second", "rsa"), s.file("other", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")} {
			if out, err := try(t, "backup", "check", "--from", to, "--root-key", key); err == nil {
				t.Errorf("a backup opens by %s: %s", key, out)
			}
		}
	})
}

// part is a step without which the next ones have no ground.
func (s *softhsm) part(name string, do func(t *testing.T)) {
	if !s.Run(name, do) {
		s.FailNow()
	}
}

func (s *softhsm) move(t *testing.T, uri, data, file string) {
	move := func(from, to string) {
		t.Helper()
		if out, err := try(t, "keys", "move", "--data", data, "--root-key", from, "--to", to); err != nil {
			t.Fatalf("moving the root key from %s to %s: %v %s", from, to, err, out)
		}
		serve(t, data, `"ready":true`, "--json", "--root-key", to)
	}
	move(uri, file)
	before := looks(t, data)
	if _, err := try(t, "keys", "move", "--data", data, "--root-key", file, "--to", file); err == nil {
		t.Error("a file that is there was written over")
	}
	if _, err := try(t, "keys", "move", "--data", data, "--root-key", s.file("other", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), "--to", uri); err == nil {
		t.Error("a root key that opens nothing was moved")
	}
	if looks(t, data) != before {
		t.Error("what was refused changed the data folder")
	}
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	s.key("second", "rsa", "02", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	move(file, s.uri("second", "rsa"))
	move(s.uri("second", "rsa"), uri)
}

// attack tries to start on what is not the token's key.
func (s *softhsm) attack(t *testing.T, uri, data string) {
	before := looks(t, data)
	broken := s.file("broken.so", "no library")
	for name, c := range map[string]struct{ key, says string }{
		"a wrong PIN":           {strings.Replace(uri, s.dir+"/pin", s.file("wrong", "0000"), 1), "PIN_INCORRECT"},
		"no PIN":                {strings.Replace(uri, s.dir+"/pin", s.file("empty", "\n"), 1), "no PIN"},
		"no library":            {strings.Replace(uri, s.module, "/nonexistent.so", 1), "can't be loaded"},
		"no true library":       {strings.Replace(uri, s.module, broken, 1), "can't be loaded"},
		"no such token":         {s.uri("third", "root"), "0 tokens"},
		"no such key":           {s.uri("first", "other"), "0 keys"},
		"another token's key":   {s.uri("second", "root"), "is it the key"},
		"no token":              {"", "is in a token"},
		"a file":                {s.file("key", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), "is in a token"},
		"a PIN in the URI":      {strings.Replace(uri, "pin-source=file:"+s.dir+"/pin", "pin-value="+tokenPIN, 1), "pin-source"},
		"an unknown attribute":  {strings.Replace(uri, "token=", "library-version=3;token=", 1), "library-version"},
		"a relative library":    {strings.Replace(uri, s.module, "libsofthsm2.so", 1), "absolute"},
		"an attribute twice":    {strings.Replace(uri, ";object", ";token=second;object", 1), "twice"},
		"no key at all":         {strings.Replace(uri, ";object=root", "", 1), "object="},
		"the wrong kind of key": {strings.Replace(uri, "?", ";type=private?", 1), "0 keys"},
	} {
		args := []string{"up", "--data", data, "--listen", "127.0.0.1:0"}
		if c.key != "" {
			args = append(args, "--root-key", c.key)
		}
		out, err := try(t, args...)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
		if strings.Contains(out, tokenPIN) || err != nil && strings.Contains(err.Error(), tokenPIN) {
			t.Errorf("%s tells the PIN", name)
		}
	}
	// A second token of one label, and a second key.
	s.util("--init-token", "--free", "--label", "first", "--so-pin", "so-"+tokenPIN, "--pin", tokenPIN)
	if _, err := try(t, "up", "--data", data, "--listen", "127.0.0.1:0", "--root-key", uri); err == nil || !strings.Contains(err.Error(), "2 tokens") {
		t.Errorf("of two tokens with one label: %v", err)
	}
	s.util("--delete-token", "--serial", s.emptyToken())
	s.key("second", "twin", "03", bytes.Repeat([]byte("k"), 32), "--aes")
	s.key("second", "twin", "04", bytes.Repeat([]byte("k"), 32), "--aes")
	if _, err := try(t, "up", "--data", data, "--listen", "127.0.0.1:0", "--root-key", s.uri("second", "twin")); err == nil || !strings.Contains(err.Error(), "2 keys") {
		t.Errorf("of two keys with one label: %v", err)
	}
	// What was wrapped, altered.
	path := filepath.Join(data, "root-key.pkcs11")
	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"{}", "", strings.Replace(string(kept), `"data":"`, `"data":"AA`, 1)} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := try(t, "up", "--data", data, "--listen", "127.0.0.1:0", "--root-key", uri); err == nil {
			t.Errorf("started on the wrapped key %q", bad)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := try(t, "up", "--data", data, "--listen", "127.0.0.1:0", "--root-key", uri); err == nil || !strings.Contains(err.Error(), "in no token") {
		t.Errorf("without the wrapped key: %v", err)
	}
	if err := os.WriteFile(path, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	if after := looks(t, data); after != before {
		t.Error("what was refused changed the data folder")
	}
}

// emptyToken is the serial of the token without keys: of the last one made.
func (s *softhsm) emptyToken() string {
	s.Helper()
	dirs, err := filepath.Glob(s.dir + "/tokens/*")
	if err != nil {
		s.Fatal(err)
	}
	for _, d := range dirs {
		if objects, _ := filepath.Glob(d + "/*.object"); len(objects) == 1 { // the token itself is one
			text := strings.ReplaceAll(filepath.Base(d), "-", "")
			return text[len(text)-16:]
		}
	}
	s.Fatal("there is no empty token")
	return ""
}
