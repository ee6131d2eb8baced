package ml

import (
	"regexp"
	"strings"

	"castellan/internal/arm"
)

// A command names inputs and outputs as ${{inputs.x}}. Their values are data:
// wherever in the shell's text they stand, in quotes or not, the command gets
// them whole and nothing in them is run. (Azure pastes them as they are.)

var expression = regexp.MustCompile(`^(inputs|outputs)\.([A-Za-z_][A-Za-z0-9_]*)$`)

// render is the command with the values of its inputs and outputs.
func (p jobProps) render(input, output func(name string) string) (string, error) {
	text, err := p.optional()
	if err != nil {
		return "", err
	}
	r := renderer{text: text, value: func(kind, name string) (string, error) {
		if kind == "outputs" {
			if p.Outputs[name] == nil {
				return "", arm.Errorf(arm.BadRequest, "command names ${{outputs.%s}}, but the job has no such output", name)
			}
			return output(name), nil
		}
		in := p.Inputs[name]
		if in == nil {
			return "", arm.Errorf(arm.BadRequest, "command names ${{inputs.%s}}, but the job has no such input", name)
		}
		if in.literal() {
			return in.text()
		}
		return input(name), nil
	}}
	return r.run()
}

// optional keeps a part in $[[ ]] if the job has all inputs that it names.
func (p jobProps) optional() (string, error) {
	var out strings.Builder
	rest := p.Command
	for {
		before, after, ok := strings.Cut(rest, "$[[")
		out.WriteString(before)
		if !ok {
			return out.String(), nil
		}
		part, tail, ok := strings.Cut(after, "]]")
		if !ok {
			return "", arm.Errorf(arm.BadRequest, "command has $[[ without ]]")
		}
		if p.has(part) {
			out.WriteString(part)
		}
		rest = tail
	}
}

func (p jobProps) has(part string) bool {
	for {
		_, after, ok := strings.Cut(part, "${{")
		if !ok {
			return true
		}
		expr, tail, _ := strings.Cut(after, "}}")
		m := expression.FindStringSubmatch(strings.TrimSpace(expr))
		if m != nil && m[1] == "inputs" && p.Inputs[m[2]] == nil {
			return false
		}
		part = tail
	}
}

// renderer walks a shell command and knows at each place how it is quoted.
type renderer struct {
	text  string
	value func(kind, name string) (string, error)
	out   strings.Builder
	stack []byte // the quotes and parentheses that are open, the innermost last
}

func (r *renderer) top() byte {
	if len(r.stack) == 0 {
		return 0
	}
	return r.stack[len(r.stack)-1]
}

func (r *renderer) run() (string, error) {
	for i := 0; i < len(r.text); {
		if strings.HasPrefix(r.text[i:], "${{") {
			n, err := r.expression(r.text[i+3:])
			if err != nil {
				return "", err
			}
			i += 3 + n
			continue
		}
		n := r.shell(i)
		r.out.WriteString(r.text[i : i+n])
		i += n
	}
	return r.out.String(), nil
}

// expression writes the value of the expression that s begins with, and tells
// how long that is.
func (r *renderer) expression(s string) (int, error) {
	end := strings.Index(s, "}}")
	if end < 0 {
		return 0, arm.Errorf(arm.BadRequest, "command has ${{ without }}")
	}
	m := expression.FindStringSubmatch(strings.TrimSpace(s[:end]))
	if m == nil {
		return 0, arm.Errorf(arm.BadRequest, "command has ${{%s}}; supported: ${{inputs.NAME}} and ${{outputs.NAME}}", s[:end])
	}
	v, err := r.value(m[1], m[2])
	if err != nil {
		return 0, err
	}
	r.out.WriteString(quoted(v, r.top()))
	return end + 2, nil
}

// shell reads one piece of shell text at i, follows its quoting, and tells how
// long it is.
func (r *renderer) shell(i int) int {
	c, top := r.text[i], r.top()
	if top == '\'' {
		if c == '\'' {
			r.pop()
		}
		return 1
	}
	if c == '\\' && i+1 < len(r.text) {
		return 2
	}
	if strings.HasPrefix(r.text[i:], "$(") {
		r.push('(')
		return 2
	}
	switch {
	case c == '"' && top == '"', c == '`' && top == '`', c == ')' && top == '(':
		r.pop()
	case c == '"', c == '`':
		r.push(c)
	case top == '"':
	case c == '\'', c == '(':
		r.push(c)
	case c == '#' && (i == 0 || strings.IndexByte(" \t\n;&|(", r.text[i-1]) >= 0):
		if end := strings.IndexByte(r.text[i:], '\n'); end >= 0 {
			return end
		}
		return len(r.text) - i
	}
	return 1
}

func (r *renderer) push(c byte) { r.stack = append(r.stack, c) }

func (r *renderer) pop() { r.stack = r.stack[:len(r.stack)-1] }

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:=@%+,-]+$`)

// quoted is v as text that the shell reads as v, between quotes of the kind.
func quoted(v string, kind byte) string {
	switch kind {
	case '"':
		return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`").Replace(v)
	case '\'':
		return strings.ReplaceAll(v, `'`, `'\''`)
	}
	if plainWord.MatchString(v) {
		return v
	}
	return `'` + strings.ReplaceAll(v, `'`, `'\''`) + `'`
}
