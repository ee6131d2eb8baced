package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"
)

// verb is one command of administration: one line of the table says all of it.
type verb struct {
	use, short, example string
	columns             []string // of the table for people, as paths into a row
	flags               []string // name=usage
	bools               []string // name=usage
	needs               []string // flags that must be there
	run                 func(a *admin, args []string) (any, error)
	lines               func(out any) []any // of the table, where they are not the answer's rows; may be nil
}

// admin is one run of a verb.
type admin struct {
	ctx context.Context
	s   *session
	h   *http.Client
	c   *cobra.Command
}

// noun is a command that has verbs.
func noun(use, short string, verbs ...verb) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	for _, v := range verbs {
		c.AddCommand(v.command())
	}
	return c
}

func (v verb) command() *cobra.Command {
	c := &cobra.Command{Use: v.use, Short: v.short, Example: "  castellan " + v.example, Args: cobra.ExactArgs(strings.Count(v.use, " "))}
	fl := c.Flags()
	output := fl.String("output", "table", "table or json")
	for _, f := range v.flags {
		name, usage, _ := strings.Cut(f, "=")
		fl.String(name, "", usage)
	}
	for _, f := range v.bools {
		name, usage, _ := strings.Cut(f, "=")
		fl.Bool(name, false, usage)
	}
	for _, name := range v.needs {
		_ = c.MarkFlagRequired(name) // it was just made
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := checkOutput(*output); err != nil {
			return err
		}
		a := &admin{ctx: c.Context(), c: c}
		var err error
		if a.s, err = loadSession(); err != nil {
			return err
		}
		if a.h, err = a.s.client(); err != nil {
			return err
		}
		out, err := v.run(a, args)
		if err != nil {
			return err
		}
		return v.print(c, out)
	}
	return c
}

func checkOutput(form string) error {
	if form != "table" && form != "json" {
		return fmt.Errorf("--output is %q; it must be table or json", form)
	}
	return nil
}

// print shows what run found in the form that --output wants.
func (v verb) print(c *cobra.Command, out any) error {
	if c.Flag("output").Value.String() == "json" {
		e := json.NewEncoder(c.OutOrStdout())
		e.SetIndent("", "  ")
		return e.Encode(out)
	}
	if text, ok := out.(string); ok { // signed: as it is
		_, err := io.WriteString(c.OutOrStdout(), text)
		return err
	}
	if v.lines != nil {
		out = v.lines(out)
	}
	return v.table(c.OutOrStdout(), out)
}

// table prints rows, or one, for people. With nothing to show it says so.
func (v verb) table(w io.Writer, out any) error {
	rows, ok := out.([]any)
	if m, is := out.(map[string]any); is && len(m) > 0 {
		rows, ok = []any{m}, true
	}
	if !ok {
		_, err := fmt.Fprintln(w, "Done.")
		return err
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintln(w, "There is none.")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	var heads []string
	for _, c := range v.columns {
		heads = append(heads, strings.ToUpper(c[strings.LastIndexByte(c, '.')+1:]))
	}
	fmt.Fprintln(t, strings.Join(heads, "\t"))
	for _, row := range rows {
		var cells []string
		for _, c := range v.columns {
			cells = append(cells, cell(row, c))
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	return t.Flush()
}

// cell is what lies at a path such as properties.status.
func cell(row any, path string) string {
	for _, name := range strings.Split(path, ".") {
		m, _ := row.(map[string]any)
		row = m[name]
	}
	switch x := row.(type) {
	case nil:
		return ""
	case string:
		return plain(x)
	case []any, map[string]any:
		b, _ := json.Marshal(x) // came from JSON
		return plain(string(b))
	}
	return fmt.Sprint(row)
}

// plain is text without what would steer a terminal: names are chosen by others.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

func (a *admin) flag(name string) string { return a.c.Flag(name).Value.String() }

func (a *admin) is(name string) bool { return a.flag(name) == "true" }

// graph calls Microsoft Graph.
func (a *admin) graph(method, path string, body any) (map[string]any, error) {
	return a.s.call(a.ctx, a.h, method, a.s.Graph, "/v1.0/"+path, body)
}

func (a *admin) graphList(path string) ([]any, error) {
	return a.s.list(a.ctx, a.h, a.s.Graph, "/v1.0/"+path)
}

// listOf is a verb's run that lists what is at a path of Graph.
func listOf(path string) func(*admin, []string) (any, error) {
	return func(a *admin, _ []string) (any, error) { return a.graphList(path) }
}

// seg is a name as a segment of a path.
func seg(name string) string { return url.PathEscape(name) }

// where is a $filter as a query.
func where(format string, values ...any) string {
	for i, v := range values {
		values[i] = strings.ReplaceAll(fmt.Sprint(v), "'", "''")
	}
	return "?$filter=" + url.QueryEscape(fmt.Sprintf(format, values...))
}

// guid reports whether a name is an object's id.
func guid(s string) bool {
	return len(s) == 36 && strings.Trim(strings.ToLower(s), "0123456789abcdef-") == "" && strings.Count(s, "-") == 4
}

// only is the id of the one object that a list of a class has.
func (a *admin) only(class, name, filter string) (string, error) {
	rows, err := a.graphList(class + filter)
	if err != nil {
		return "", err
	}
	if len(rows) != 1 {
		return "", fmt.Errorf("%d of the %s go by %q; name one by its id (castellan has list commands)", len(rows), class, name)
	}
	return cell(rows[0], "id"), nil
}

// named is the id of an object that goes by its id or its display name.
func (a *admin) named(class, name string) (string, error) {
	if guid(name) {
		return name, nil
	}
	return a.only(class, name, where("displayName eq '%s'", name))
}

// principal is the id and kind of a person (by user name or id), a group or an
// application (by its id as an object, or as a client).
func (a *admin) principal(name string) (id, kind string, err error) {
	if strings.Contains(name, "@") {
		u, err := a.graph("GET", "users/"+seg(name), nil)
		return cell(u, "id"), "User", err
	}
	if !guid(name) {
		return "", "", fmt.Errorf("%q is nobody; name a person by user name, all else by id", name)
	}
	apps, err := a.graphList("servicePrincipals" + where("appId eq '%s'", name))
	if err != nil {
		return "", "", err
	}
	if len(apps) == 1 {
		return cell(apps[0], "id"), "ServicePrincipal", nil
	}
	o, err := a.graph("GET", "directoryObjects/"+seg(name), nil)
	kinds := map[string]string{"#microsoft.graph.user": "User", "#microsoft.graph.group": "Group", "#microsoft.graph.servicePrincipal": "ServicePrincipal"}
	typ, _ := o["@odata.type"].(string)
	return name, kinds[typ], err
}
