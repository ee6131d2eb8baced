package ml

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Whatever an input's value is, and however the command quotes it, the command
// gets it whole and none of it is run (JOB-07).
func TestValuesAreDataWhereverTheyStand(t *testing.T) {
	values := []string{"plain", "two words", "it's", `"quoted"`, "$(echo EVIL)", "`echo EVIL`", "$HOME", `back\slash`, `end\`, "a;echo EVIL", "line\nbreak", "*", "~", "", "#no", "${{inputs.x}}", "'; echo EVIL; '", `" ; echo EVIL; "`, "ünïcode"}
	commands := []string{
		`printf %s ${{inputs.x}}`, `printf %s "${{inputs.x}}"`, `printf %s '${{ inputs.x }}'`, `printf %s "$(printf %s ${{inputs.x}})"`, `printf %s "$(printf %s "${{inputs.x}}")"`,
		"# a comment's quote\nprintf %s ${{inputs.x}}", `(printf %s ${{inputs.x}})`, `printf '%s' $[[${{inputs.x}}]]`, `A=${{inputs.x}}; printf %s "$A"`, `printf %s "a\"b" >/dev/null; printf %s "${{inputs.x}}"`,
	}
	for _, v := range values {
		for _, c := range commands {
			p := jobProps{Command: c, Inputs: map[string]*jobInput{"x": {Type: "literal", Value: v}}}
			text, err := p.render(nil, nil)
			if err != nil {
				t.Errorf("render(%q): %v", c, err)
				continue
			}
			got, err := exec.Command("/bin/sh", "-c", text).Output()
			want := strings.TrimRight(v, "\n")
			if err != nil || string(got) != want {
				t.Errorf("%q with %q ran as %q and printed %q, %v", c, v, text, got, err)
			}
		}
	}
}

func TestOptionalParts(t *testing.T) {
	p := jobProps{Command: "run $[[--a ${{inputs.a}}]] $[[--b ${{inputs.b}}]] end", Inputs: map[string]*jobInput{"b": {Type: "literal", Value: json.Number("3")}}}
	if got, err := p.render(nil, nil); err != nil || got != "run  --b 3 end" {
		t.Errorf("render = %q, %v", got, err)
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "PT5M": 5 * time.Minute, "P1DT2H3M4S": 26*time.Hour + 3*time.Minute + 4*time.Second, "PT120S": 2 * time.Minute, "PT0.5S": 0} {
		if got, err := duration(text); err != nil || got != want {
			t.Errorf("duration(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"P", "PT", "5m", "PT5", "-PT5M", "P1Y", "PT99999999999S"} {
		if got, err := duration(text); err == nil {
			t.Errorf("duration(%q) = %v, want an error", text, got)
		}
	}
}
