package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"castellan/internal/arm"
	"castellan/internal/compliance"
	"castellan/internal/policy"
	"castellan/internal/resource"
	"castellan/internal/template"
	"castellan/internal/trial"

	"github.com/spf13/cobra"
)

// policyCommand is castellan policy: what policies would say before they are in force.
func policyCommand() *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "Try policies before they are in force", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(policyTest())
	return c
}

// policyFlags are what castellan policy test is told.
type policyFlags struct {
	definitions, params, templateParams             []string
	template, resource, group, subscription, region string
	history                                         time.Duration
	asJSON, verbose                                 bool
	junit                                           string
}

func policyTest() *cobra.Command {
	var f policyFlags
	c := &cobra.Command{
		Use:   "test POLICY|TESTS...",
		Short: "Tell what a policy would say of a template, a resource or the past; or run tests of policies",
		Long: `Tell what a policy would say, before it is assigned.

POLICY is a file (JSON or YAML) with a definition, a bare rule or an initiative,
or the name of a built-in definition. It is held against one of these:

  --template FILE   every resource that an ARM template makes, without a server
  --resource FILE   a resource as Resource Manager shows it, without a server
  --resource ID     the resource of an id, on the server that you are signed in to
  --history 168h    past writes there, as far back as this: which would have been
                    denied, audited or changed, when, whose and of what. A server
                    keeps no copy of what was sent, so each line says what it was
                    judged by, or that it can't be judged. You see what you may see
                    in the activity log, of resources that you may read.

TESTS are files with tests of a policy, which need no server:

  policy: no-public-access.json     a file beside this one, or the policy itself
  definitions: [tls.json]           those of an initiative's members
  parameters: {effect: Deny}        of all cases; a case has more of its own
  cases:
    - name: a public account is denied
      resource: {type: Microsoft.Storage/storageAccounts, name: a, location: local,
                 properties: {allowBlobPublicAccess: true}}
      expect: deny                  the outcome: none, or the strongest effect; an
                                    array means exactly these effects
    - name: an old version of TLS is replaced
      resource: account.json
      parameters: {effect: Modify}
      expect: modify
      becomes: {properties: {minimumTlsVersion: TLS1_2}}

A case may also have apiVersion, subscription, resourceGroup, related (resources that
are there, for ...IfNotExists), now (the time), and message (what the name of a rule
that applies, or the reason why it can't be judged, must contain).
-v shows tests that pass, and which branches of the rules no test takes.

The exit status is 1 if a test fails, if a resource of a template or a file would be
denied, or if nobody can say.`,
		Example: `  castellan policy test deny.json --template main.json --template-parameters main.parameters.json
  castellan policy test deny.json --parameters effect=Audit --resource account.json
  castellan policy test deny.json --history 720h
  castellan policy test tests/*.yaml --junit report.xml`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args) },
	}
	fl := c.Flags()
	fl.StringArrayVar(&f.definitions, "definition", nil, "file of a definition that an initiative has; may be repeated")
	fl.StringArrayVarP(&f.params, "parameters", "p", nil, "the policy's parameters: a file, or NAME=VALUE; may be repeated")
	fl.StringVar(&f.template, "template", "", "file of an ARM template")
	fl.StringArrayVar(&f.templateParams, "template-parameters", nil, "the template's parameters: a file, or NAME=VALUE; may be repeated")
	fl.StringVar(&f.group, "resource-group", "group", "name of the resource group that the template is deployed to")
	fl.StringVar(&f.subscription, "subscription", "00000000-0000-0000-0000-000000000000", "id of the subscription that the template is deployed to; of the past: of which it is (default: the one that you are signed in to)")
	fl.StringVar(&f.region, "location", "local", "location of the resource group")
	fl.StringVar(&f.resource, "resource", "", "file of a resource, or the id of one on the server")
	fl.DurationVar(&f.history, "history", 0, "how far back to look at past writes, such as 168h")
	fl.BoolVar(&f.asJSON, "json", false, "print JSON")
	fl.StringVar(&f.junit, "junit", "", "also write how tests went to this file, as JUnit does")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "show also what passes, and branches of rules that no test takes")
	c.MarkFlagsMutuallyExclusive("template", "resource", "history")
	return c
}

func (f *policyFlags) run(c *cobra.Command, args []string) error {
	if f.template == "" && f.resource == "" && f.history == 0 {
		return f.suites(c, args)
	}
	if len(args) > 1 || f.junit != "" {
		return errors.New("one policy is held against a template, a resource or the past; several files, and --junit, are for tests")
	}
	rules, err := f.rules(args[0])
	if err != nil {
		return err
	}
	switch {
	case f.template != "":
		return f.againstTemplate(c, rules)
	case f.history != 0:
		return f.againstHistory(c, rules)
	}
	return f.againstResource(c, rules)
}

// open reads a file of JSON or YAML.
func open(name string) (*trial.File, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return trial.Read(name, b)
}

// builtIn finds built-in definitions.
func builtIn(id string) (*trial.File, bool) {
	b, ok := compliance.BuiltIn(id)
	if !ok {
		return nil, false
	}
	f, err := trial.Read("built-in", b)
	return f, err == nil
}

// rules are the policy's, with the parameters of the command line.
func (f *policyFlags) rules(name string) ([]trial.Rule, error) {
	var files []*trial.File
	for _, d := range f.definitions {
		x, err := open(d)
		if err != nil {
			return nil, err
		}
		files = append(files, x)
	}
	file, ok := builtIn(name)
	if !ok {
		var err error
		if file, err = open(name); err != nil {
			return nil, err
		}
	}
	if trial.IsSuite(file) {
		return nil, fmt.Errorf("%s holds tests; they are run without --template, --resource and --history", name)
	}
	p, err := trial.ReadPolicy(file, trial.Among(files, builtIn))
	if err != nil {
		return nil, err
	}
	params, err := values(f.params)
	if err != nil {
		return nil, err
	}
	rules, err := p.Bind(params)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return rules, nil
}

// values reads parameters: files, and NAME=VALUE, where VALUE is JSON if it can be.
func values(from []string) (map[string]any, error) {
	out := map[string]any{}
	for _, x := range from {
		name, text, pair := strings.Cut(x, "=")
		if _, err := os.Stat(x); !pair || err == nil {
			file, err := open(x)
			if err != nil {
				return nil, err
			}
			more, err := trial.Values(file.Tree)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", x, err)
			}
			for k, v := range more {
				out[k] = v
			}
			continue
		}
		v, err := arm.ParseJSON([]byte(text))
		if out[name] = policy.Plain(v); err != nil {
			out[name] = text
		}
	}
	return out, nil
}

func (f *policyFlags) suites(c *cobra.Command, names []string) error {
	var all []trial.Report
	failed := 0
	for _, name := range names {
		file, err := open(name)
		if err != nil {
			return err
		}
		if !trial.IsSuite(file) {
			return fmt.Errorf("%s has no cases; say what a policy is held against with --template, --resource or --history", name)
		}
		beside := func(x string) (*trial.File, error) {
			if b, ok := builtIn(x); ok {
				return b, nil
			}
			if !filepath.IsAbs(x) {
				x = filepath.Join(filepath.Dir(name), x)
			}
			return open(x)
		}
		s, err := trial.ReadSuite(file, beside, builtIn)
		if err != nil {
			return err
		}
		r := s.Run()
		failed += r.Failed
		all = append(all, r)
		if !f.asJSON {
			if err := r.Text(c.OutOrStdout(), f.verbose); err != nil {
				return err
			}
		}
	}
	if f.junit != "" {
		if err := writeJUnit(f.junit, all); err != nil {
			return err
		}
	}
	if f.asJSON {
		if err := printJSON(c.OutOrStdout(), all); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of the tests failed", failed)
	}
	return nil
}

func writeJUnit(name string, all []trial.Report) error {
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(trial.JUnit(out, all), out.Close())
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func (f *policyFlags) againstTemplate(c *cobra.Command, rules []trial.Rule) error {
	file, err := open(f.template)
	if err != nil {
		return err
	}
	given, err := values(f.templateParams)
	if err != nil {
		return err
	}
	params := map[string]any{}
	for k, v := range given {
		params[k] = map[string]any{"value": v}
	}
	all, err := trial.Template(rules, file, params, template.Scope{
		Subscription: f.subscription, SubscriptionName: f.subscription, Group: f.group, GroupLocation: f.region, GroupTags: map[string]string{},
		Deployment: "test", Environment: map[string]any{}, Now: time.Now().UTC(), Seed: arm.NewHex(),
	})
	if err != nil {
		return err
	}
	return f.verdicts(c, all)
}

func (f *policyFlags) againstResource(c *cobra.Command, rules []trial.Rule) error {
	var doc map[string]any
	if strings.HasPrefix(f.resource, "/subscriptions/") {
		a, err := signedIn(c)
		if err != nil {
			return err
		}
		if doc, err = a.resourceAt(f.resource); err != nil {
			return err
		}
	} else {
		file, err := open(f.resource)
		if err != nil {
			return err
		}
		if doc, err = trial.ResourceOf(file, file.Tree, ""); err != nil {
			return err
		}
	}
	return f.verdicts(c, []trial.Verdict{trial.One(rules, trial.Subject{Resource: doc, Now: time.Now()})})
}

// resourceAt is the resource of an id as rules see it.
func (a *admin) resourceAt(id string) (map[string]any, error) {
	if strings.ContainsAny(id, "?#") {
		return nil, fmt.Errorf("the resource is %q; it must be its id, such as /subscriptions/ID/resourceGroups/NAME", id)
	}
	m, err := a.arm("GET", (&url.URL{Path: id}).EscapedPath(), resource.VersionFor(id), nil)
	if err != nil {
		return nil, err
	}
	return policy.Plain(m).(map[string]any), nil
}

// signedIn is a run of a command that needs the server.
func signedIn(c *cobra.Command) (a *admin, err error) {
	a = &admin{ctx: c.Context(), c: c}
	if a.s, err = loadSession(); err != nil {
		return nil, err
	}
	a.h, err = a.s.client()
	return a, err
}

// verdicts prints what a policy says of resources. What would be denied, or can't
// be said, is an error.
func (f *policyFlags) verdicts(c *cobra.Command, all []trial.Verdict) error {
	bad := 0
	var rows [][]string
	for _, v := range all {
		if v.Bad() {
			bad++
		}
		if v.Outcome != trial.None || f.verbose {
			rows = append(rows, []string{v.Outcome, v.Resource, said(v.Findings, v.Unknown), v.Place})
		}
	}
	out := c.OutOrStdout()
	if f.asJSON {
		if err := printJSON(out, all); err != nil {
			return err
		}
	} else if err := printRows(out, []string{"OUTCOME", "RESOURCE", "RULES", "PLACE"}, rows, fmt.Sprintf("%d resources", len(all))); err != nil {
		return err
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d resources would be denied, or can't be judged", bad, len(all))
	}
	return nil
}

// said is what rules found, on one line.
func said(found []trial.Finding, unknown string) string {
	if unknown != "" {
		return unknown
	}
	var out []string
	for _, x := range found {
		s := x.Rule + " (" + string(x.Effect) + ")"
		for _, ch := range x.Changes {
			s += " " + ch.Operation + " " + ch.Field
		}
		if x.Error != "" {
			s += ": " + x.Error
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

func printRows(w io.Writer, heads []string, rows [][]string, sum string) error {
	if len(rows) > 0 {
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, strings.Join(heads, "\t"))
		for _, r := range rows {
			for i := range r {
				r[i] = plain(r[i])
			}
			fmt.Fprintln(t, strings.Join(r, "\t"))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "%s; %d of them listed\n", sum, len(rows))
	return err
}

func (f *policyFlags) againstHistory(c *cobra.Command, rules []trial.Rule) error {
	if f.history <= 0 {
		return fmt.Errorf("--history is %s; it must be a time such as 168h", f.history)
	}
	a, err := signedIn(c)
	if err != nil {
		return err
	}
	sub := a.s.Subscription
	if c.Flags().Changed("subscription") || sub == "" {
		sub = f.subscription
	}
	events, err := a.armList("/subscriptions/"+seg(sub)+"/providers/Microsoft.Insights/eventtypes/management/values"+
		where("eventTimestamp ge '%s'", time.Now().Add(-f.history).UTC().Format(time.RFC3339)), "2015-04-01")
	if err != nil {
		return err
	}
	begun := map[string]bool{} // what went on after its answer was a write, however it ended
	for _, e := range events.([]any) {
		if cell(e, "status.value") == "Started" {
			begun[cell(e, "correlationId")+cell(e, "resourceId")] = true
		}
	}
	var writes []trial.Write
	for _, e := range events.([]any) {
		w := trial.Write{Caller: cell(e, "caller"), Action: cell(e, "authorization.action"), Resource: cell(e, "resourceId"), Correlation: cell(e, "correlationId")}
		if w.Time, err = time.Parse(time.RFC3339, cell(e, "eventTimestamp")); err != nil {
			return fmt.Errorf("the activity log has an event without a time: %w", err)
		}
		status := cell(e, "status.value")
		if strings.HasSuffix(strings.ToLower(w.Action), "/write") && (status == "Started" || status == "Succeeded" && !begun[w.Correlation+w.Resource]) {
			writes = append(writes, w)
		}
	}
	all := trial.History(rules, writes, time.Now(), typeOf, a.resourceAt)
	if err := c.Context().Err(); err != nil {
		return err
	}
	if f.asJSON {
		return printJSON(c.OutOrStdout(), all)
	}
	var rows [][]string
	for _, r := range all {
		if r.Outcome != trial.None || f.verbose {
			by := r.JudgedBy
			if by == "" {
				by = "can't be judged"
			}
			rows = append(rows, []string{r.Outcome, r.Time.Format(time.RFC3339), r.Caller, r.Resource, said(r.Findings, r.Unknown), by})
		}
	}
	return printRows(c.OutOrStdout(), []string{"OUTCOME", "TIME", "CALLER", "RESOURCE", "RULES", "JUDGED BY"}, rows, fmt.Sprintf("%d writes", len(all)))
}

// typeOf is the type of the resource of an id, "" if it is none.
func typeOf(id string) string {
	x, err := arm.ParseID(id)
	if err != nil {
		return ""
	}
	return x.Type()
}
