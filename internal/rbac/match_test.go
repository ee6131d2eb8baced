package rbac

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// A star crosses slashes, a whole segment may be missing, case says nothing.
func TestPattern(t *testing.T) {
	for _, x := range []struct {
		name, pattern, action string
		want                  bool
	}{
		{"the same", "N/a/read", "n/a/read", true},
		{"another case", "n/A/listkeys/ACTION", "n/a/listkeys/action", true},
		{"another verb", "N/a/read", "n/a/write", false},
		{"only a prefix", "N/a", "n/a/read", false},
		{"only a suffix", "a/read", "n/a/read", false},
		{"everything", "*", "n/a/read", true},
		{"every read", "*/read", "n/a/b/read", true},
		{"a read is no action", "*/read", "n/a/read/action", false},
		{"reads is not read", "*/read", "n/a/threads", false},
		{"a word that ends so", "*/read", "n/a/bread", false},
		{"the star crosses slashes", "N/a/*/write", "n/a/b/c/write", true},
		{"no segment in the star's place", "N/a/*/write", "n/a/write", true},
		{"two whole segments missing", "N/a/*/*/write", "n/a/write", true},
		{"one of two missing", "N/*/b/*/write", "n/b/x/write", true},
		{"the slash is not used twice", "N/a/*/write", "n/awrite", false},
		{"a longer last word", "N/a/*/write", "n/a/overwrite", false},
		{"a longer first word", "N/a/*/write", "n/ab/write", false},
		{"a star that is part of a segment", "N/a*/write", "n/abc/write", true},
		{"which may be empty", "N/a*/write", "n/a/write", true},
		{"but is no missing segment", "N/a/b*/write", "n/a/write", false},
		{"everything below", "N/a/*", "n/a/b/action", true},
		{"below needs the slash", "N/a/*", "n/ab/action", false},
		{"stars at both ends", "*/a/*", "n/a/read", true},
		{"a piece that must come twice", "*/x/*/x/read", "n/x/read", false},
		{"a piece that comes twice", "*/x/*/x/read", "n/x/x/read", true},
		{"the empty pattern", "", "n/a/read", false},
		{"the empty pattern and nothing", "", "", false},
		{"the star and nothing", "*", "", false},
	} {
		if got := compile(x.pattern).covers(x.action); got != x.want {
			t.Errorf("%s: %q covers %q is %v, want %v", x.name, x.pattern, x.action, got, x.want)
		}
	}
}

// plainCovers is the law in the plainest way: a regular expression.
func plainCovers(pattern, action string) bool {
	if pattern == "" || action == "" {
		return false
	}
	re, ok := plainForms.Load(pattern)
	if !ok {
		re, _ = plainForms.LoadOrStore(pattern, plainForm(pattern))
	}
	return re.(*regexp.Regexp).MatchString(action)
}

// plainForms are the expressions made so far, by pattern.
var plainForms sync.Map

func plainForm(pattern string) *regexp.Regexp {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch {
		case strings.HasPrefix(pattern[i:], "/*/"):
			b.WriteString("(?:/.*)?")
			i++
		case pattern[i] == '*':
			b.WriteString(".*")
		default:
			b.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		}
	}
	return regexp.MustCompile(`(?is)\A` + b.String() + `\z`)
}

// The quick matcher agrees with the plain one on everything short.
func TestPatternAgreesWithPlain(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	text := func(alphabet string) string {
		b := make([]byte, r.IntN(9))
		for i := range b {
			b[i] = alphabet[r.IntN(len(alphabet))]
		}
		return string(b)
	}
	covered := 0
	for range 200_000 {
		p, a := text("ab//**"), text("aab//")
		got, want := compile(p).covers(a), plainCovers(p, a)
		if got != want {
			t.Fatalf("%q covers %q is %v, want %v", p, a, got, want)
		}
		if got {
			covered++
		}
	}
	if covered < 1000 {
		t.Errorf("only %d of the pairs are covered", covered)
	}
}
