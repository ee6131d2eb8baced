package app

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs/parity.md makes each claim once, names tests that there are, and no claim is without a witness. Where
// CASTELLAN_CLIENTS_LOG names what `make clients` printed, the checks it names are among those that passed.
func TestEveryClaimHasAWitness(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/parity.md")
	if err != nil {
		t.Fatal(err)
	}
	run, err := os.ReadFile("../../test/clients/run.sh")
	if err != nil {
		t.Fatal(err)
	}
	suites := " " + regexp.MustCompile(`suites=\$\{\*:-([a-z0-9 ]+)\}`).FindStringSubmatch(string(run))[1] + " "
	tests := ownTests(t)

	checks, ran := os.LookupEnv("CASTELLAN_CLIENTS_LOG")
	if ran {
		checks = passed(t, checks)
	}

	named := regexp.MustCompile(`^[a-z]+\.(Test|Fuzz|Benchmark)[A-Za-z0-9_]*$`)
	quoted := regexp.MustCompile("`([^`]+)`")
	claims := map[string]bool{}
	_, tables, _ := strings.Cut(string(text), "\n## ")
	for line := range strings.Lines(tables) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || strings.HasPrefix(line, "|---") || strings.HasSuffix(line, "| witness |\n") {
			continue
		}
		claim, witness := cells[1], strings.Join(cells[2:], "|")
		if claims[claim] {
			t.Errorf("claimed twice:%s", claim)
		}
		claims[claim] = true
		found := strings.Contains(witness, "*demo*")
		for _, m := range quoted.FindAllStringSubmatch(witness, -1) {
			switch name := m[1]; {
			case named.MatchString(name):
				if !tests[name] {
					t.Errorf("there is no test %s, the witness of:%s", name, claim)
				}
			case strings.HasPrefix(name, "CASTELLAN_"): // how to have more of a test
				continue
			case !strings.Contains(name, " ") && strings.Contains(suites, " "+name+" "):
			case ran && !strings.Contains(checks, name):
				t.Errorf("no client's check says %q, the witness of:%s", name, claim)
			}
			found = true
		}
		if !found {
			t.Errorf("nothing witnesses:%s", claim)
		}
	}
	if len(claims) < 200 {
		t.Errorf("%d claims were read; the page has more", len(claims))
	}
}

// passed are the lines of a log that tell of checks that passed.
func passed(t *testing.T, log string) string {
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(regexp.MustCompile(`(?m)^ok .*$`).FindAllString(string(text), -1), "\n")
}

// ownTests are the program's tests, as package.TestName; those of a command stand under its folder's name too.
func ownTests(t *testing.T) map[string]bool {
	all := map[string]bool{}
	for _, root := range []string{"../../internal", "../../cmd"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
					all[strings.TrimSuffix(file.Name.Name, "_test")+"."+f.Name.Name] = true
					all[filepath.Base(filepath.Dir(path))+"."+f.Name.Name] = true
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}
