package rbac

import (
	_ "embed"
	"fmt"
	"strings"
)

// builtinText has the built-in roles in the form that parseRoles reads. It is
// written by the tests with -update.
//
//go:embed builtin.txt
var builtinText string

// BuiltIn makes the roles that come with the program: Azure's, with its ids,
// names and permissions.
func BuiltIn() []Role {
	roles, err := parseRoles(builtinText)
	if err != nil {
		panic(err) // the text is part of the program, and tested
	}
	for i := range roles {
		roles[i].BuiltIn = true
		roles[i].AssignableScopes = []string{"/"}
		roles[i].Description = describe(roles[i].Permissions)
	}
	return roles
}

// parseRoles reads blocks that an empty line ends. The first line of a block is
// id and name; "&" begins a further permission; the others add to the last one.
// Lines that begin with # say nothing.
func parseRoles(text string) ([]Role, error) {
	var roles []Role
	open := false
	for n, line := range strings.Split(text, "\n") {
		if line == "" {
			open = false
			continue
		}
		if line[0] == '#' {
			continue
		}
		if !open {
			id, name, ok := strings.Cut(line, " ")
			if !ok {
				return nil, fmt.Errorf("line %d of the roles: %q is not an id and a name", n+1, line)
			}
			roles = append(roles, Role{ID: id, Name: name, Permissions: make([]Permission, 1)})
			open = true
			continue
		}
		if err := roles[len(roles)-1].readLine(line); err != nil {
			return nil, fmt.Errorf("line %d of the roles: %w", n+1, err)
		}
	}
	return roles, nil
}

// readLine takes in one line of a block below its first.
func (r *Role) readLine(line string) error {
	if line == "&" {
		r.Permissions = append(r.Permissions, Permission{})
		return nil
	}
	p := &r.Permissions[len(r.Permissions)-1]
	mark, rest, ok := strings.Cut(line, " ")
	if !ok || rest == "" {
		return fmt.Errorf("%q has nothing after its mark", line)
	}
	switch mark {
	case "+":
		p.Actions = append(p.Actions, rest)
	case "-":
		p.NotActions = append(p.NotActions, rest)
	case "d+":
		p.DataActions = append(p.DataActions, rest)
	case "d-":
		p.NotDataActions = append(p.NotDataActions, rest)
	case "if":
		p.ConditionVersion, p.Condition, ok = strings.Cut(rest, " ")
		if !ok {
			return fmt.Errorf("%q is a condition without its version", line)
		}
	default:
		return fmt.Errorf("%q begins with none of + - d+ d- if &", line)
	}
	return nil
}

// writeRoles is the reverse of parseRoles.
func writeRoles(roles []Role) string {
	var b strings.Builder
	for _, r := range roles {
		fmt.Fprintf(&b, "%s %s\n", r.ID, r.Name)
		for i, p := range r.Permissions {
			if i > 0 {
				b.WriteString("&\n")
			}
			p.write(&b)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (p *Permission) write(b *strings.Builder) {
	for _, l := range []struct {
		mark  string
		texts []string
	}{{"+", p.Actions}, {"-", p.NotActions}, {"d+", p.DataActions}, {"d-", p.NotDataActions}} {
		for _, t := range l.texts {
			fmt.Fprintf(b, "%s %s\n", l.mark, t)
		}
	}
	if p.Condition != "" {
		fmt.Fprintf(b, "if %s %s\n", p.ConditionVersion, p.Condition)
	}
}
