package app

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// floors are where packages stand: each imports lower floors only, and none
// beside it.
var floors = map[string]int{
	"arm": 0, "odata": 0, "store": 1, "seal": 0, "pkcs11": 0, "mfa": 1, "key": 1, "cmk": 2,
	"template": 1, "condition": 1, "openid": 1, "ldap": 1, "scim": 1, "cert": 2, "access": 2, "audit": 2, "rbac": 2, "node": 2, "policy": 2,
	"gate":     3,
	"trial":    3,
	"issuer":   3,
	"resource": 4, "outside": 4,
	"ops":      5,
	"identity": 6, "governance": 6, "compliance": 6, "vault": 6, "blob": 6, "compute": 6, "ml": 6, "tracking": 6, "deploy": 6, "monitor": 6,
	"server": 7, "backup": 7,
	"app":  8,
	"demo": 9,
}

// muxes are what only the edge may use of net/http.
var muxes = []string{"NewServeMux(", "ListenAndServe", "http.Handle(", "http.HandleFunc("}

// Packages import downwards only, and only the edge listens.
func TestFloors(t *testing.T) {
	t.Parallel()
	dirs, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, d := range dirs {
		files, err := filepath.Glob(filepath.Join("..", d.Name(), "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		if len(files) == 0 {
			continue
		}
		floor, ok := floors[d.Name()]
		if !ok {
			t.Errorf("package %s has no floor", d.Name())
			continue
		}
		seen++
		for _, f := range files {
			if !strings.HasSuffix(f, "_test.go") {
				holdFile(t, d.Name(), floor, f)
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d packages were looked at", seen)
	}
}

func holdFile(t *testing.T, pkg string, floor int, path string) {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := parser.ParseFile(token.NewFileSet(), path, src, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, im := range f.Imports {
		p, _ := strconv.Unquote(im.Path.Value)
		name, ours := strings.CutPrefix(p, "castellan/internal/")
		if !ours {
			if pkg == "arm" && strings.Contains(p, ".") {
				t.Errorf("%s imports %s; arm imports the standard library only", path, p)
			}
			continue
		}
		if to, ok := floors[name]; !ok || to >= floor {
			t.Errorf("%s (floor %d) imports %s (floor %d)", path, floor, name, to)
		}
	}
	if pkg == "server" {
		return
	}
	for _, m := range muxes {
		if strings.Contains(string(src), m) {
			t.Errorf("%s uses %s; only the edge does", path, m)
		}
	}
}

// goFiles are all files of the program that are no tests.
func goFiles(t *testing.T) (out []string) {
	t.Helper()
	all, err := filepath.Glob("../*/*.go")
	if err != nil || len(all) < 100 {
		t.Fatalf("%d files: %v", len(all), err)
	}
	for _, f := range all {
		if !strings.HasSuffix(f, "_test.go") {
			out = append(out, f)
		}
	}
	return out
}
