package ml

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

const commandJob = "Command"

// jobProps are a job's properties.
type jobProps struct {
	Type        string                `json:"jobType"`
	DisplayName string                `json:"displayName,omitempty"`
	Description string                `json:"description,omitempty"`
	Tags        map[string]string     `json:"tags,omitempty"`
	Properties  map[string]string     `json:"properties,omitempty"`
	Archived    flag                  `json:"isArchived"`
	Experiment  string                `json:"experimentName,omitempty"`
	ComputeID   link                  `json:"computeId"`
	Command     string                `json:"command"`
	CodeID      string                `json:"codeId,omitempty"`
	Environment string                `json:"environmentId"`
	Variables   map[string]string     `json:"environmentVariables,omitempty"`
	Inputs      map[string]*jobInput  `json:"inputs,omitempty"`
	Outputs     map[string]*jobOutput `json:"outputs,omitempty"`
	Identity    *jobIdentity          `json:"identity,omitempty"`
	Limits      *jobLimits            `json:"limits,omitempty"`
	Resources   *jobResources         `json:"resources,omitempty"`

	Distribution any    `json:"distribution,omitempty" arm:"only={}"`
	Queue        any    `json:"queueSettings,omitempty" arm:"only={}"`
	Notify       any    `json:"notificationSetting,omitempty" arm:"only={}"`
	Autolog      any    `json:"autologgerSettings,omitempty" arm:"only={}"`
	Secrets      any    `json:"secretsConfiguration,omitempty" arm:"only={}"`
	Component    string `json:"componentId,omitempty" arm:"only="`
	Parent       string `json:"parentJobName,omitempty" arm:"only="`

	Status     any `json:"status,omitempty" arm:"readonly"`
	Services   any `json:"services,omitempty" arm:"readonly"`
	Parameters any `json:"parameters,omitempty" arm:"readonly"`
}

type jobInput struct {
	Type        string `json:"jobInputType" arm:"only=literal|uri_file|uri_folder"`
	Description string `json:"description,omitempty"`
	Value       any    `json:"value,omitempty"`
	URI         string `json:"uri,omitempty"`
	Mode        string `json:"mode,omitempty" arm:"only=|ReadOnlyMount|Download|Direct"`
	PathOn      any    `json:"pathOnCompute,omitempty" arm:"only="`
}

type jobOutput struct {
	Type        string `json:"jobOutputType" arm:"only=uri_file|uri_folder"`
	Description string `json:"description,omitempty"`
	URI         string `json:"uri,omitempty"`
	Mode        string `json:"mode,omitempty" arm:"only=|ReadWriteMount|Upload"`
	AssetName   string `json:"assetName,omitempty" arm:"only="`
	Asset2      string `json:"assetVersion,omitempty" arm:"only="`
	AutoDelete  any    `json:"autoDeleteSetting,omitempty" arm:"only={}"`
	PathOn      any    `json:"pathOnCompute,omitempty" arm:"only="`
}

type jobIdentity struct {
	Type     string `json:"identityType"`
	Client   string `json:"clientId,omitempty"`
	Object   string `json:"objectId,omitempty"`
	Resource string `json:"resourceId,omitempty"`
}

type jobLimits struct {
	Type    string `json:"jobLimitsType,omitempty" arm:"only=Command"`
	Timeout string `json:"timeout,omitempty"`
}

type jobResources struct {
	Instances  int    `json:"instanceCount,omitempty"`
	Type       string `json:"instanceType,omitempty" arm:"only="`
	Shm        string `json:"shmSize,omitempty"`
	DockerArgs string `json:"dockerArgs,omitempty" arm:"only="`
	Properties any    `json:"properties,omitempty"`
	Locations  any    `json:"locations,omitempty" arm:"only=[]"`
	MaxCount   any    `json:"maxInstanceCount,omitempty" arm:"only=1"`
}

// UnmarshalJSON reads a job, if it is a command.
func (p *jobProps) UnmarshalJSON(b []byte) error {
	type plain jobProps
	return chosen(b, "jobType", commandJob, "types of jobs", (*plain)(p))
}

// jobInner is where a job is, and what was fixed when it was submitted.
type jobInner struct {
	Status    Status    `json:"status"`
	Queue     string    `json:"queue"` // its key among the open jobs
	Submitted time.Time `json:"submitted"`
	By        submitter `json:"by"`
	Code      *snapshot `json:"code,omitempty"`
	Launched  bool      `json:"launched,omitempty"` // its command may have run
	Cancel    bool      `json:"cancel,omitempty"`
	Started   time.Time `json:"started"`
	Ended     time.Time `json:"ended"`
	Error     string    `json:"error,omitempty"`
	Tier      string    `json:"tier,omitempty"`
	ExpID     string    `json:"expId,omitempty"` // of its experiment, once history knows the run
	Exit      *int      `json:"exit,omitempty"`
}

// submitter is who submitted a job, for the record.
type submitter struct {
	Tenant, Object, App, Name string
	Kind                      arm.Kind
}

func (b submitter) caller() arm.Caller {
	return arm.Caller{Tenant: b.Tenant, Object: b.Object, App: b.App, Name: b.Name, Kind: b.Kind}
}

var (
	writeJob     = arm.NewAction(workspaceType+"/jobs/write", "make or change a job")
	cancelJob    = arm.NewAction(workspaceType+"/jobs/cancel/action", "cancel a job")
	readComputes = arm.NewAction(workspaceType+"/computes/read", "see a compute")

	jobName      = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}$`)
	experimentRE = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$`)
	inputName    = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]{0,254}$`)
)

const maxCommand = 64 << 10 // bytes of a command before substitution

func (s *Service) jobKind() *resource.Kind {
	return &resource.Kind{
		Type: workspaceType + "/jobs", Doc: "a job", Parent: s.kinds.workspace, NoPatch: true,
		Props:   func() any { return &jobProps{Experiment: "Default"} },
		Check:   checkJob,
		Links:   jobLinks,
		Save:    s.saveJob,
		Remove:  s.removeJob,
		Settled: s.engine.settled,
		Show:    s.showJob,
		Filter:  jobFilter,
		Posts:   []resource.Post{{Name: "cancel", Action: cancelJob, Do: s.cancel}},
	}
}

// checkJob judges a job by itself, and a change of one by what was.
func checkJob(c resource.Change) error {
	p, err := props[jobProps](c.Doc)
	if err != nil {
		return err
	}
	if !jobName.MatchString(c.Doc.Name) {
		return arm.Errorf(arm.InvalidResourceName, "the job name %q must be letters, digits, hyphens and underscores, and begin with a letter or digit", c.Doc.Name)
	}
	if err := p.check(); err != nil {
		return err
	}
	if c.Old == nil {
		return nil
	}
	was, err := props[jobProps](c.Old)
	if err != nil {
		return err
	}
	if field := was.differs(p); field != "" {
		return arm.Errorf(arm.Conflict, "the job %s exists and its %s is another; of a job that was submitted only displayName, description, tags, properties and isArchived can be changed", c.Doc.Name, field)
	}
	return nil
}

func (p jobProps) check() error {
	switch {
	case p.Type == "":
		return arm.Errorf(arm.BadRequest, "jobType is missing; supported: %s", commandJob)
	case strings.TrimSpace(p.Command) == "" || len(p.Command) > maxCommand || strings.ContainsRune(p.Command, 0):
		return arm.Errorf(arm.BadRequest, "command has %d bytes; it must have from 1 to %d, none of them NUL", len(p.Command), maxCommand)
	case p.Environment == "":
		return arm.Errorf(arm.BadRequest, "environmentId is missing; it may be azureml:%s:1", hostEnvironment)
	case p.ComputeID.IsZero():
		return arm.Errorf(arm.BadRequest, "computeId is missing; a job needs a cluster, for there is no serverless compute here")
	case !experimentRE.MatchString(p.Experiment):
		return arm.Errorf(arm.BadRequest, "experimentName is %q; it must be letters, digits, hyphens, underscores and dots", p.Experiment)
	case p.Resources != nil && p.Resources.Instances > 1:
		return arm.Errorf(arm.Unsupported, "resources.instanceCount is %d; a job runs on one node", p.Resources.Instances)
	}
	if err := p.ComputeID.is(workspaceType+"/computes", "computeId"); err != nil {
		return err
	}
	if p.Limits != nil {
		if _, err := duration(p.Limits.Timeout); err != nil {
			return err
		}
	}
	if err := p.checkIdentity(); err != nil {
		return err
	}
	for name, v := range p.Variables {
		if !inputName.MatchString(name) || strings.ContainsRune(v, 0) {
			return arm.Errorf(arm.BadRequest, "environmentVariables has the name %q; a name has letters, digits and underscores, begins with no digit, and no value has a NUL", name)
		}
	}
	if err := p.checkPorts(); err != nil {
		return err
	}
	_, err := p.render(func(name string) string { return name }, func(name string) string { return name })
	return err
}

func (p jobProps) checkIdentity() error {
	if p.Identity == nil {
		return nil
	}
	switch strings.ToLower(p.Identity.Type) {
	case "amltoken", "managed":
		return nil
	case "useridentity":
		return arm.Errorf(arm.Unsupported, "identity.identityType is UserIdentity; this version can't lend a user's identity to a job: use Managed (the cluster's identity) or AMLToken")
	}
	return arm.Errorf(arm.BadRequest, "identity.identityType is %q; supported: AMLToken, Managed", p.Identity.Type)
}

// checkPorts judges inputs and outputs.
func (p jobProps) checkPorts() error {
	for name, in := range p.Inputs {
		switch {
		case !inputName.MatchString(name):
			return arm.Errorf(arm.BadRequest, "inputs has the name %q; a name has letters, digits and underscores and begins with no digit", name)
		case in == nil || in.Type == "":
			return arm.Errorf(arm.BadRequest, "inputs.%s has no jobInputType; supported: literal, uri_file, uri_folder", name)
		case !in.literal() && in.URI == "":
			return arm.Errorf(arm.BadRequest, "inputs.%s has no uri", name)
		}
		if _, err := in.text(); err != nil {
			return arm.Errorf(arm.BadRequest, "inputs.%s: %s", name, err)
		}
	}
	for name, out := range p.Outputs {
		if !inputName.MatchString(name) || out == nil || out.Type == "" {
			return arm.Errorf(arm.BadRequest, "outputs.%s must have a name of letters, digits and underscores and the jobOutputType uri_file or uri_folder", name)
		}
	}
	return nil
}

func (in *jobInput) literal() bool { return strings.EqualFold(in.Type, "literal") }

// text is a literal as the command sees it.
func (in *jobInput) text() (string, error) {
	switch v := in.Value.(type) {
	case nil:
		return "", nil
	case string:
		if strings.ContainsRune(v, 0) {
			return "", fmt.Errorf("value has a NUL")
		}
		return v, nil
	case bool, float64, json.Number:
		return fmt.Sprint(v), nil
	}
	return "", fmt.Errorf("value must be a string, a number or a boolean")
}

// differs names the first field that may not change but does.
func (p jobProps) differs(q jobProps) string {
	for _, f := range []struct {
		name string
		a, b any
	}{
		{"command", p.Command, q.Command}, {"codeId", strings.ToLower(p.CodeID), strings.ToLower(q.CodeID)}, {"environmentId", strings.ToLower(p.Environment), strings.ToLower(q.Environment)},
		{"computeId", p.ComputeID.Key(), q.ComputeID.Key()}, {"experimentName", p.Experiment, q.Experiment},
		{"environmentVariables", p.Variables, q.Variables}, {"inputs", p.Inputs, q.Inputs}, {"outputs", p.Outputs, q.Outputs},
		{"identity", p.Identity, q.Identity}, {"limits", p.Limits, q.Limits}, {"resources", p.Resources, q.Resources},
	} {
		a, _ := json.Marshal(f.a) // what came from JSON goes back to it
		b, _ := json.Marshal(f.b)
		if string(a) != string(b) && !(empty(a) && empty(b)) {
			return f.name
		}
	}
	return ""
}

func empty(b []byte) bool { return string(b) == "null" || string(b) == "{}" || string(b) == `""` }

// jobLinks: who submits to a cluster must see it.
func jobLinks(d *resource.Doc) ([]resource.Linked, error) {
	p, err := props[jobProps](d)
	if err != nil || p.ComputeID.IsZero() {
		return nil, err
	}
	return []resource.Linked{{Action: readComputes, ID: p.ComputeID.ID, Field: "computeId"}}, nil
}

// saveJob resolves what a new job names, fixes its code, and queues it.
func (s *Service) saveJob(tx *store.Tx, c resource.Change) error {
	if c.Old != nil {
		return nil
	}
	p, err := props[jobProps](c.Doc)
	if err != nil {
		return err
	}
	w, err := s.workspaceIn(tx, c.Doc.ID.Parent())
	if err != nil {
		return err
	}
	if err := s.checkTargets(tx, w, p); err != nil {
		return err
	}
	in := jobInner{Status: NotStarted, Submitted: s.Now().UTC(), By: submitter{c.Caller.Tenant, c.Caller.Object, c.Caller.App, c.Caller.Name, c.Caller.Kind}}
	if p.CodeID != "" {
		d, err := s.version(tx, w, "codes", p.CodeID)
		if err != nil {
			return err
		}
		code, err := inner[assetInner](d)
		if err != nil {
			return err
		}
		if code.Snapshot == nil {
			return arm.Errorf(arm.BadRequest, "codeId is %q, whose files were never read", p.CodeID)
		}
		in.Code = code.Snapshot
	}
	in.Queue = fmt.Sprintf("%020d|%s", in.Submitted.UnixNano(), c.Doc.Instance)
	if err := setInner(c.Doc, in); err != nil {
		return err
	}
	return store.PutJSON(tx, openJobs, in.Queue, openJob{c.Doc.ID, c.Doc.Instance})
}

// checkTargets wants all that a job names to be there.
func (s *Service) checkTargets(tx *store.Tx, w workspace, p jobProps) error {
	if p.ComputeID.Parent().Key() != w.Doc.ID.Key() {
		return arm.Errorf(arm.BadRequest, "computeId is '%s', which is in another workspace", p.ComputeID)
	}
	cl, ok, err := s.clusterIn(tx, p.ComputeID.ID)
	if err != nil {
		return err
	}
	if !ok {
		return arm.Errorf(arm.BadRequest, "computeId is '%s', which does not exist", p.ComputeID)
	}
	if p.Identity != nil && strings.EqualFold(p.Identity.Type, "managed") {
		if _, err := cl.identity(p.Identity); err != nil {
			return err
		}
	}
	if _, err := s.version(tx, w, "environments", p.Environment); err != nil {
		return err
	}
	for name, in := range p.Inputs {
		if in.literal() {
			continue
		}
		if _, err := s.resolve(tx, w, in.URI); err != nil {
			return at("inputs."+name, err)
		}
	}
	for name, out := range p.Outputs {
		if _, err := s.locate(tx, w, out.place("job", name)); err != nil {
			return at("outputs."+name, err)
		}
	}
	return nil
}

// resolve finds what an input's uri names: a place, or data by name.
func (s *Service) resolve(tx *store.Tx, w workspace, uri string) (location, error) {
	low := strings.ToLower(uri)
	asset := strings.HasPrefix(low, "/") || strings.HasPrefix(low, "azureml:") && !strings.HasPrefix(low, "azureml://") || strings.HasPrefix(low, "azureml://") && strings.Contains(low, "/data/") && !strings.Contains(low, "datastores/")
	if !asset {
		return s.locate(tx, w, uri)
	}
	d, err := s.version(tx, w, "data", uri)
	if err != nil {
		return location{}, err
	}
	p, err := props[dataProps](d)
	if err != nil {
		return location{}, err
	}
	return s.locate(tx, w, p.URI)
}

// place is where an output goes.
func (o *jobOutput) place(job, name string) string {
	if o.URI != "" {
		return strings.ReplaceAll(strings.ReplaceAll(o.URI, "${{name}}", job), "${{output_name}}", name)
	}
	return "azureml://datastores/" + defaultDatastore + "/paths/azureml/" + job + "/" + name
}

// removeJob stops the job and takes it out of the queue.
func (s *Service) removeJob(tx *store.Tx, d *resource.Doc) error {
	in, err := inner[jobInner](d)
	if err != nil {
		return err
	}
	tx.After(func() {
		s.live.end(d.ID.Parent(), d.Name)
		s.engine.kill(d.Instance)
	})
	return tx.Delete(openJobs, in.Queue)
}

// cancel ends a job that waits at once, and one that runs soon. The run's token
// is worthless from this moment.
func (s *Service) cancel(ctx context.Context, g gate.Grant, d *resource.Doc, _ []byte) (int, any, error) {
	id, err := g.On(cancelJob)
	if err != nil {
		return 0, nil, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		d, in, err := jobIn(tx, id)
		if err != nil || in.Status.Over() {
			return err
		}
		in.Cancel = true
		if in.Status == NotStarted || in.Status == Queued {
			in.Status, in.Ended = Canceled, s.Now().UTC()
		} else {
			in.Status = CancelRequested
		}
		if err := setInner(d, in); err != nil {
			return err
		}
		tx.After(func() {
			s.live.end(d.ID.Parent(), d.Name)
			s.engine.kill(d.Instance)
			s.engine.wake()
		})
		return resource.Save(tx, d)
	})
	return http.StatusOK, nil, err
}

// jobIn loads a job.
func jobIn(tx *store.Tx, id arm.ID) (*resource.Doc, jobInner, error) {
	d, err := resource.Load(tx, id)
	if err != nil {
		return nil, jobInner{}, err
	}
	if d == nil {
		return nil, jobInner{}, arm.Errorf(arm.NotFound, "the job %s does not exist", id.Name())
	}
	in, err := inner[jobInner](d)
	return d, in, err
}

// showJob adds where a job is.
func (s *Service) showJob(d *resource.Doc, p map[string]any) {
	in, err := inner[jobInner](d)
	if err != nil {
		return
	}
	ws := d.ID.Parent()
	p["status"] = in.Status
	p["services"] = map[string]any{
		"Tracking": map[string]any{"jobServiceType": "Tracking", "endpoint": "azureml://" + s.Site.Host() + "/mlflow/v1.0" + ws.String()},
		"Studio":   map[string]any{"jobServiceType": "Studio", "endpoint": "https://portal." + s.Site.Suffix + "/runs/" + url.PathEscape(d.Name) + "?wsid=" + url.QueryEscape(ws.String())},
	}
	p["parameters"] = map[string]any{}
	if name, _ := p["displayName"].(string); name == "" {
		p["displayName"] = d.Name
	}
	outs, _ := p["outputs"].(map[string]any)
	for name, v := range outs {
		if o, ok := v.(map[string]any); ok && o["uri"] == nil {
			o["uri"] = (&jobOutput{}).place(d.Name, name)
		}
	}
}

// jobFilter is a list's query: listViewType, jobType and tag.
func jobFilter(q url.Values) (func(*resource.Doc) bool, error) {
	view, err := byView(q)
	if err != nil {
		return nil, err
	}
	kind, tag := q.Get("jobType"), q.Get("tag")
	key, value, exact := strings.Cut(tag, "=")
	return func(d *resource.Doc) bool {
		p, err := props[jobProps](d)
		if err != nil || !view(d) || kind != "" && !strings.EqualFold(kind, p.Type) {
			return false
		}
		got, has := p.Tags[key]
		return tag == "" || has && (!exact || got == value)
	}, nil
}
