package compliance

import (
	"regexp"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/policy"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// The modes of a data plane that are judged here, and what their rules judge: a
// workspace as one of its jobs uses it, and a job itself.
const (
	mlMode        = "Microsoft.MachineLearningServices.Data"
	mlMode2       = "Microsoft.MachineLearningServices.v2.Data"
	usesType      = mlMode + "/workspaces"
	componentType = mlMode2 + "/workspaces/jobs"
	jobType       = "Microsoft.MachineLearningServices/workspaces/jobs"
	workspaceType = "Microsoft.MachineLearningServices/workspaces"
)

// Job is what policies of a data plane's mode know of a job.
type Job struct {
	Compute     string
	ComputeType string // in the policies' words, such as MachineLearningCompute
	Isolated    bool   // the compute is in a network of its own
	Tags        []string
	Image       string
	// Authors wrote what the job runs: the command, and the code if it has any.
	Authors []string
}

// LogFilter says which lines of a job's log people see, and in which datastore
// of the workspace all of them are kept.
type LogFilter struct {
	Lines     []*regexp.Regexp
	Datastore string
}

// The settings of enforceSetting that bind jobs here.
const (
	allowedACRs    = "allowedACRs"
	allowedAuthors = "allowedModuleAuthors"
	logFilter      = "logFilter"
)

// unbound are the settings of Azure that have nothing here to bind, and why.
var unbound = map[string]string{
	"allowedPythonPackageChannels": "no packages are installed for jobs",
	"signingKeys":                  "the code of jobs is held by its digest, not by signatures",
	"approvalEndpoint":             "jobs are announced to no endpoint",
}

// setting is what enforceSetting sets, read.
type setting struct {
	name    string
	allowed []string
	log     LogFilter
}

// readSetting reads a setting; what could not be kept is an error that names it.
func readSetting(v map[string]any) (*setting, error) {
	x := &setting{}
	x.name, _ = v["name"].(string)
	value, _ := v["value"].(map[string]any)
	for name, why := range unbound {
		if strings.EqualFold(name, x.name) {
			return nil, arm.Errorf(arm.Unsupported, "the setting %s has nothing here to bind: %s", name, why)
		}
	}
	for _, known := range []string{allowedACRs, allowedAuthors, logFilter} {
		if strings.EqualFold(known, x.name) {
			x.name = known
			return x, x.read(value)
		}
	}
	return nil, arm.Errorf(arm.Unsupported, "enforceSetting sets %q; supported: %s, %s, %s", x.name, allowedACRs, allowedAuthors, logFilter)
}

func (x *setting) read(value map[string]any) (err error) {
	list := "allowedList"
	if x.name == logFilter {
		list = "filters"
	}
	for k := range value {
		if k != list && !(k == "trustIPProtectedComponent" && x.name != logFilter) && !(k == "datastore" && x.name == logFilter) {
			return arm.Errorf(arm.Unsupported, "the setting %s has %q, which is not known here", x.name, k)
		}
	}
	if trust, _ := value["trustIPProtectedComponent"].(string); strings.EqualFold(trust, "Yes") {
		return arm.Errorf(arm.Unsupported, "the setting %s has trustIPProtectedComponent Yes, but no components are protected here; it must be No or None", x.name)
	}
	if x.allowed, err = textsOf(value[list]); err != nil {
		return arm.Errorf(arm.InvalidRequest, "the setting %s needs %s, an array of strings", x.name, list)
	}
	if x.name != logFilter {
		return nil
	}
	for _, text := range x.allowed {
		re, err := regexp.Compile(text)
		if err != nil {
			return arm.Errorf(arm.InvalidRequest, "the setting %s has the filter %q, which is no regular expression: %v", x.name, text, err)
		}
		x.log.Lines = append(x.log.Lines, re)
	}
	if x.log.Datastore, _ = value["datastore"].(string); x.log.Datastore == "" || arm.CheckSegment(x.log.Datastore) != nil {
		return arm.Errorf(arm.InvalidRequest, "the setting %s needs datastore, the name of one of the workspace's datastores", x.name)
	}
	return nil
}

func textsOf(v any) ([]string, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, arm.Errorf(arm.InvalidRequest, "it is no array")
	}
	out := make([]string, len(list))
	for i, m := range list {
		if out[i], ok = m.(string); !ok {
			return nil, arm.Errorf(arm.InvalidRequest, "it has something in it that is no string")
		}
	}
	return out, nil
}

// kept says whether a job of a workspace keeps the setting.
func (x *setting) kept(tx *store.Tx, workspace arm.ID, j Job) error {
	switch x.name {
	case allowedACRs:
		if !slices.ContainsFunc(x.allowed, func(a string) bool { return ofRegistry(j.Image, a) }) {
			return arm.Errorf(Disallowed, "the image %s comes from none of the allowed registries: %s", j.Image, strings.Join(x.allowed, ", "))
		}
	case allowedAuthors:
		for _, a := range j.Authors {
			if a == "" || !contains(x.allowed, a) {
				return arm.Errorf(Disallowed, "%s wrote what the job runs and is none of the allowed authors: %s", a, strings.Join(x.allowed, ", "))
			}
		}
	case logFilter:
		d, err := resource.Load(tx, workspace.Child("datastores", x.log.Datastore))
		if err != nil {
			return err
		}
		if d == nil {
			return arm.Errorf(Disallowed, "the datastore %s, which full logs go to, is not in the workspace", x.log.Datastore)
		}
	}
	return nil
}

// ofRegistry reports whether an image comes from an allowed registry, or from
// below a path of one. A host without one is Docker Hub's, in Docker's way.
func ofRegistry(image, allowed string) bool {
	first, _, _ := strings.Cut(image, "/")
	if !strings.Contains(image, "/") || !strings.ContainsAny(first, ".:") && first != "localhost" {
		image = "docker.io/" + image
	}
	image, allowed = strings.ToLower(image), strings.ToLower(strings.Trim(allowed, "/"))
	rest, ok := strings.CutPrefix(image, allowed)
	return ok && allowed != "" && rest != "" && (rest[0] == '/' || strings.Contains(allowed, "/") && (rest[0] == ':' || rest[0] == '@'))
}

// checkData refuses, on assignment, rules of a data plane's mode that nothing
// here would keep.
func (b *bound) checkData() error {
	for _, x := range b.all {
		if err := x.checkData(); err != nil {
			return err
		}
	}
	return nil
}

func (x *one) checkData() error {
	r := x.rule
	var may []policy.Effect
	judges := ""
	switch r.Mode {
	case policy.All, policy.Indexed:
		if r.Effect == policy.EnforceSetting {
			return arm.Errorf(arm.Unsupported, "the effect enforceSetting goes with the mode %s alone", mlMode)
		}
		return nil
	case mlMode:
		may, judges = []policy.Effect{policy.EnforceSetting}, usesType
	case mlMode2:
		may, judges = []policy.Effect{policy.Audit, policy.Deny}, componentType
	}
	switch {
	case r.Effect == policy.Disabled:
		return nil
	case may == nil:
		return arm.Errorf(arm.Unsupported, "the definition %s has the mode %s, by which nothing is judged here; supported: %s, %s, %s, %s", x.def.id.Name(), r.Mode, policy.All, policy.Indexed, mlMode, mlMode2)
	case !slices.Contains(may, r.Effect):
		return arm.Errorf(arm.Unsupported, "the effect %s is not supported in the mode %s; supported: %v and disabled", r.Effect, r.Mode, may)
	case r.Types != nil && !slices.Contains(r.Types, strings.ToLower(judges)):
		return arm.Errorf(arm.Unsupported, "the definition %s judges %s, which is not here; the mode %s judges %s", x.def.id.Name(), strings.Join(r.Types, ", "), r.Mode, judges)
	}
	if r.Effect == policy.EnforceSetting {
		_, err := readSetting(r.Details.Setting)
		return err
	}
	return nil
}

// usage is a rule that applies to a job.
type usage struct {
	hit
	broken  bool     // the job is not as the rule wants
	exempt  bool     // and need not be
	setting *setting // of enforceSetting
}

// usesOf are the rules of data planes' modes that apply to a job.
func (s *Service) usesOf(tx *store.Tx, all []*bound, d *resource.Doc) ([]usage, error) {
	if !strings.EqualFold(d.Type, jobType) || !slices.ContainsFunc(all, func(b *bound) bool { return len(b.data) > 0 }) {
		return nil, nil
	}
	j, err := s.Jobs(tx, d)
	if err != nil {
		return nil, err
	}
	ws, err := resource.Load(tx, d.ID.Parent())
	if err != nil {
		return nil, err
	}
	if ws == nil {
		return nil, arm.Errorf(arm.NotFound, "the workspace %s does not exist", d.ID.Parent())
	}
	v1, v2, err := s.documents(tx, d, ws, j)
	if err != nil {
		return nil, err
	}
	var out []usage
	for _, b := range all {
		if !selected(b.selectors, strings.ToLower(ws.Type), ws.Location) {
			continue
		}
		for _, r := range b.data {
			x := v1
			if r.rule.Mode == mlMode2 {
				x = v2
			}
			u := usage{hit: hit{bound: b, one: r, component: d.ID}}
			yes, err := r.rule.Applies(x.judging(u.hit))
			if !yes && err == nil {
				continue
			}
			u.hit.err, u.broken = err, true
			if err == nil && r.rule.Effect == policy.EnforceSetting {
				if u.setting, err = readSetting(r.rule.Details.Setting); err == nil {
					err = u.setting.kept(tx, ws.ID, j)
				}
				if err != nil && arm.CodeOf(err) == arm.Internal {
					return nil, err
				}
				u.hit.err, u.broken = err, err != nil
			}
			u.exempt = s.exempting(b, r, d.ID, strings.ToLower(ws.Type), ws.Location) != nil
			out = append(out, u)
		}
	}
	return out, nil
}

// documents are a job as the rules of the two modes see it.
func (s *Service) documents(tx *store.Tx, d, ws *resource.Doc, j Job) (v1, v2 *subject, err error) {
	isolated := "No"
	if j.Isolated {
		isolated = "Yes"
	}
	tags := []any{}
	for _, t := range j.Tags {
		tags = append(tags, t)
	}
	facts := map[string]any{"computeName": j.Compute, "computeType": j.ComputeType, "isIsolatedNetwork": isolated, "tags": tags}
	if v1, err = s.subjectOf(tx, ws.ID, usesType, map[string]any{"id": ws.ID.String(), "name": ws.Name, "type": usesType, "location": ws.Location, "properties": facts}, ""); err != nil {
		return nil, nil, err
	}
	doc, err := s.Resources.Tree(d)
	if err != nil {
		return nil, nil, err
	}
	props, _ := doc["properties"].(map[string]any)
	props = copyTree(props).(map[string]any)
	for _, k := range []string{"computeName", "computeType", "isIsolatedNetwork"} {
		props[k] = facts[k]
	}
	props["image"] = j.Image
	doc["properties"], doc["type"] = props, componentType
	v2, err = s.subjectOf(tx, d.ID, componentType, doc, "")
	return v1, v2, err
}

// denies reports whether a rule keeps a job from being submitted or run.
func (u usage) denies() bool {
	return u.broken && !u.exempt && u.enforce && (u.rule.Effect == policy.Deny || u.rule.Effect == policy.EnforceSetting)
}

// JobSettings are the filters for the log of a job that is about to run. An
// error means that policies do not let it run, as they are now.
func (s *Service) JobSettings(tx *store.Tx, d *resource.Doc) ([]LogFilter, error) {
	all, err := s.usesOf(tx, s.reaching(d.ID), d)
	if err != nil {
		return nil, err
	}
	var denied []hit
	var out []LogFilter
	for _, u := range all {
		switch {
		case u.denies():
			denied = append(denied, u.hit)
		case u.enforce && !u.exempt && u.setting != nil && u.setting.name == logFilter:
			out = append(out, u.setting.log)
		}
	}
	if len(denied) > 0 {
		return nil, s.disallowed(d.Name, denied)
	}
	return out, nil
}

// component is a part of a resource that a rule of a data plane's mode judges.
type component struct {
	ID    arm.ID `json:"id"`
	Type  string `json:"type"`
	Name  string `json:"name"`
	State string `json:"complianceState"`
}

// componentStates judges all jobs of a workspace by the rules of data planes'
// modes: one state for each rule, with what it judged.
func (s *Service) componentStates(tx *store.Tx, ws *resource.Doc, only choice, out []state) ([]state, error) {
	if !strings.EqualFold(ws.Type, workspaceType) {
		return out, nil
	}
	all := slices.DeleteFunc(s.reaching(ws.ID), func(b *bound) bool {
		return len(b.data) == 0 || !selected(b.selectors, strings.ToLower(ws.Type), ws.Location)
	})
	if len(all) == 0 {
		return out, nil
	}
	jobs, err := resource.List(tx, jobType, ws.ID, "", 0)
	if err != nil {
		return nil, err
	}
	from := len(out)
	for _, b := range all {
		for _, r := range b.data {
			if only.takes(b, r) {
				out = append(out, state{bound: b, one: r, doc: ws, value: Compliant})
			}
		}
	}
	for _, d := range jobs {
		used, err := s.usesOf(tx, all, d)
		for i := from; i < len(out); i++ {
			c := component{d.ID, componentType, d.Name, Compliant}
			for _, u := range used {
				if u.one == out[i].one && u.broken {
					c.State = NonCompliant
					if u.exempt {
						c.State = Exempted
					}
				}
			}
			if err != nil { // what the job names is gone
				c.State = Failed
			}
			out[i].components = append(out[i].components, c)
			if slices.Index(worse, c.State) < slices.Index(worse, out[i].value) {
				out[i].value = c.State
			}
		}
	}
	return out, nil
}

// where is the resource that an event or a state is told of: of a component it
// is the workspace.
func (h hit) where(d *resource.Doc) (id arm.ID, typ string) {
	if h.component.IsZero() {
		return d.ID, d.Type
	}
	return d.ID.Parent(), workspaceType
}
