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
	SignIn                    arm.SignIn `json:"signIn"` // kept for jobs with their identity alone
}

func submittedBy(c arm.Caller) submitter {
	return submitter{Tenant: c.Tenant, Object: c.Object, App: c.App, Name: c.Name, Kind: c.Kind}
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
	in := jobInner{Status: NotStarted, Submitted: s.Now().UTC(), By: submittedBy(c.Caller)}
	if p.asUser() {
		if in.By.SignIn, err = lends(c.Caller); err != nil {
			return err
		}
	}
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
	if d.Shut != nil {
		return s.removeShut(tx, d)
	}
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

// removeShut is removeJob of a job of which the queue alone tells.
func (s *Service) removeShut(tx *store.Tx, d *resource.Doc) error {
	rows, err := tx.Scan(openJobs, "", "", 0)
	if err != nil {
		return err
	}
	for _, r := range rows {
		var j openJob
		if err := json.Unmarshal(r.Value, &j); err != nil {
			return err
		}
		if j.ID.Key() != d.ID.Key() {
			continue
		}
		tx.After(func() {
			s.live.end(d.ID.Parent(), d.Name)
			s.engine.kill(j.Instance)
		})
		if err := tx.Delete(openJobs, r.Key); err != nil {
			return err
		}
	}
	return nil
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
