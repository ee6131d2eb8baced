package tracking

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// A registered model and its versions are resources; MLflow's registry and
// Resource Manager show the same documents. What a version says of where its
// files are and what they are never changes.

const (
	modelType   = namespace + "/workspaces/models"
	versionType = namespace + "/workspaces/models/versions"
)

// modelProps are the properties of a model container.
type modelProps struct {
	Description string            `json:"description,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Properties  map[string]string `json:"properties,omitempty"`
	Archived    bool              `json:"isArchived"`
	Latest      string            `json:"latestVersion,omitempty" arm:"readonly"`
	Next        string            `json:"nextVersion,omitempty" arm:"readonly"`
	State       string            `json:"provisioningState,omitempty" arm:"readonly"`
}

// modelInner is what a model container keeps beside them.
type modelInner struct {
	Aliases map[string]string `json:"aliases,omitempty"` // to versions
	User    string            `json:"user,omitempty"`
	Last    int               `json:"last"`             // the highest number that a version had
	Latest  string            `json:"latest,omitempty"` // the version made last
}

// flavor is what a framework says of a model.
type flavor struct {
	Data map[string]string `json:"data,omitempty"`
}

// versionProps are the properties of a model version.
type versionProps struct {
	Description string            `json:"description,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Properties  map[string]string `json:"properties,omitempty"`
	Anonymous   bool              `json:"isAnonymous"`
	Archived    bool              `json:"isArchived"`
	Stage       string            `json:"stage,omitempty"`
	Flavors     map[string]flavor `json:"flavors"`
	Job         string            `json:"jobName,omitempty"`
	Type        string            `json:"modelType,omitempty"`
	URI         string            `json:"modelUri,omitempty"`
	State       string            `json:"provisioningState,omitempty" arm:"readonly"`
}

// versionInner is what a version keeps beside them.
type versionInner struct {
	Source string `json:"source,omitempty"` // as MLflow's client gave it
	Link   string `json:"link,omitempty"`
	Model  string `json:"model,omitempty"` // the logged model it was made from
	User   string `json:"user,omitempty"`
}

func (s *Service) modelKind() *resource.Kind {
	return &resource.Kind{
		Type: modelType, Doc: "a registered model", Parent: s.Workspace, Global: true, Implied: true,
		Props:  func() any { return &modelProps{} },
		Check:  func(c resource.Change) error { return checkModelName(c.Doc.Name) },
		Filter: listed,
		Save: func(_ *store.Tx, c resource.Change) error {
			in, err := innerOf[modelInner](c.Doc)
			if err == nil && c.Old == nil {
				in.User = c.Caller.Name
			}
			return firstErr(err, setInner(c.Doc, in))
		},
		Show: func(d *resource.Doc, props map[string]any) {
			in, _ := innerOf[modelInner](d) // a container without is new
			props["nextVersion"], props["provisioningState"] = strconv.Itoa(in.Last+1), "Succeeded"
			if in.Latest != "" {
				props["latestVersion"] = in.Latest
			}
		},
	}
}

func (s *Service) versionKind() *resource.Kind {
	return &resource.Kind{
		Type: versionType, Doc: "a version of a registered model", Parent: s.models, Global: true,
		Props:  func() any { return &versionProps{Flavors: map[string]flavor{}} },
		Check:  checkVersion,
		Filter: listed,
		Save:   s.saveVersion,
		Remove: s.versionRemoved,
		Show:   func(_ *resource.Doc, props map[string]any) { props["provisioningState"] = "Succeeded" },
	}
}

// listed reads which of a list's rows are meant: those that are not archived,
// unless the query says otherwise.
func listed(q url.Values) (func(*resource.Doc) bool, error) {
	view := q.Get("listViewType")
	switch strings.ToLower(view) {
	case "", "activeonly", "archivedonly", "all":
	default:
		return nil, arm.Errorf(arm.BadRequest, "listViewType is '%s'; it must be ActiveOnly, ArchivedOnly or All", clip(view))
	}
	return func(d *resource.Doc) bool {
		p, err := propsOf[struct {
			Archived bool `json:"isArchived"`
		}](d)
		return err == nil && (strings.EqualFold(view, "All") || p.Archived == strings.EqualFold(view, "ArchivedOnly"))
	}, nil
}

func firstErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func innerOf[T any](d *resource.Doc) (v T, err error) {
	if d == nil || len(d.Inner) == 0 {
		return v, nil
	}
	if err := json.Unmarshal(d.Inner, &v); err != nil {
		return v, fmt.Errorf("reading what %s keeps: %w", d.ID, err)
	}
	return v, nil
}

func setInner(d *resource.Doc, v any) (err error) {
	d.Inner, err = json.Marshal(v)
	return err
}

func propsOf[T any](d *resource.Doc) (v T, err error) {
	if err := json.Unmarshal(d.Properties, &v); err != nil {
		return v, fmt.Errorf("reading the properties of %s: %w", d.ID, err)
	}
	return v, nil
}

func setProps(d *resource.Doc, v any) (err error) {
	d.Properties, err = json.Marshal(v)
	return err
}

var modelName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$`)

func checkModelName(name string) error {
	if !modelName.MatchString(name) {
		return bad("Invalid model name: '%s'. It must have 1 to 255 letters, digits, '-', '_' and '.', and begin with a letter or digit.", clip(name))
	}
	return nil
}

func checkVersion(c resource.Change) error {
	if err := checkModelName(c.Doc.ID.Parent().Name()); err != nil {
		return err
	}
	if v := c.Doc.Name; len(v) > 30 || !modelName.MatchString(v) {
		return bad("Invalid model version: '%s'. It must have 1 to 30 letters, digits, '-', '_' and '.', and begin with a letter or digit.", clip(v))
	}
	p, err := propsOf[versionProps](c.Doc)
	if err != nil {
		return err
	}
	if p.URI == "" {
		return bad("properties.modelUri is missing; it must say where the model's files are.")
	}
	if len(p.Stage) > 64 {
		return bad("properties.stage has %d bytes; at most 64 are allowed.", len(p.Stage))
	}
	return nil
}

// fixed is what of a version never changes.
func (p versionProps) fixed() string {
	b, err := json.Marshal([]any{p.URI, p.Type, p.Job, p.Flavors})
	if err != nil {
		return "" // strings and maps of strings marshal
	}
	return string(b)
}

// saveVersion holds a version against what it was, and a new one against the
// workspace that it lies in; it makes the container of the first version.
func (s *Service) saveVersion(tx *store.Tx, c resource.Change) error {
	p, err := propsOf[versionProps](c.Doc)
	if err != nil {
		return err
	}
	if c.Old != nil {
		old, err := propsOf[versionProps](c.Old)
		if err != nil {
			return err
		}
		if old.fixed() != p.fixed() {
			return arm.Errorf(arm.Conflict, "Version %s of model %s exists, and its modelUri, modelType, jobName and flavors can't be changed; register a new version.", c.Doc.Name, c.Doc.ID.Parent().Name())
		}
		return nil
	}
	w, err := s.workspace(tx, c.Doc.ID.Parent().Parent())
	if err != nil {
		return err
	}
	if err := s.checkURI(tx, w, &p); err != nil {
		return err
	}
	if p.Type == "" {
		p.Type = "custom_model"
	}
	in, err := innerOf[versionInner](c.Doc)
	if err != nil {
		return err
	}
	in.User = c.Caller.Name
	if err := firstErr(setProps(c.Doc, p), setInner(c.Doc, in)); err != nil {
		return err
	}
	return s.counted(tx, c.Doc, c.Caller)
}

// counted notes a new version with its container, which the first one makes.
func (s *Service) counted(tx *store.Tx, d *resource.Doc, by arm.Caller) error {
	m, err := resource.Load(tx, d.ID.Parent())
	if err != nil {
		return err
	}
	if m == nil {
		m = s.newDoc(d.ID.Parent(), modelType, by)
		if err := firstErr(setProps(m, modelProps{}), setInner(m, modelInner{User: by.Name})); err != nil {
			return err
		}
	}
	in, err := innerOf[modelInner](m)
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(d.Name); err == nil && n > in.Last && n < 1<<31-1 {
		in.Last = n
	}
	in.Latest = d.Name
	s.touch(m, by)
	return firstErr(setInner(m, in), resource.Save(tx, m))
}

// versionRemoved takes a version out of its container's aliases.
func (s *Service) versionRemoved(tx *store.Tx, d *resource.Doc) error {
	if d.Shut != nil {
		return nil // the workspace goes, with the model and its aliases
	}
	if err := s.unregister(tx, d); err != nil {
		return err
	}
	m, err := resource.Load(tx, d.ID.Parent())
	if err != nil || m == nil {
		return err
	}
	in, err := innerOf[modelInner](m)
	if err != nil {
		return err
	}
	for a, v := range in.Aliases {
		if v == d.Name {
			delete(in.Aliases, a)
		}
	}
	if in.Latest == d.Name {
		left, err := versionsOf(tx, m.ID)
		if err != nil {
			return err
		}
		in.Latest = ""
		for _, v := range left {
			if v.ID.Key() != d.ID.Key() {
				in.Latest = v.Name
			}
		}
	}
	return firstErr(setInner(m, in), resource.Save(tx, m))
}

// unregister tells the logged model of a version that the version is gone.
func (s *Service) unregister(tx *store.Tx, d *resource.Doc) error {
	in, err := innerOf[versionInner](d)
	if err != nil || in.Model == "" {
		return err
	}
	w, ok, err := s.Workspaces.Find(tx, d.ID.Parent().Parent())
	if err != nil || !ok {
		return err
	}
	m, err := loadLogged(tx, w.UID, in.Model)
	if arm.CodeOf(err) == notThere {
		return nil
	}
	if err != nil {
		return err
	}
	m.Versions = slices.DeleteFunc(m.Versions, func(r registration) bool {
		return strings.EqualFold(r.Name, d.ID.Parent().Name()) && r.Version == d.Name
	})
	return saveLogged(tx, w.UID, m)
}

// versionsOf are a model's versions, the oldest first.
func versionsOf(tx *store.Tx, model arm.ID) ([]*resource.Doc, error) {
	all, err := resource.List(tx, versionType, model, "", 0)
	slices.SortStableFunc(all, func(a, b *resource.Doc) int {
		x, xerr := strconv.Atoi(a.Name)
		y, yerr := strconv.Atoi(b.Name)
		if xerr == nil && yerr == nil {
			return cmp.Compare(x, y)
		}
		return created(a).Compare(created(b))
	})
	return all, err
}

var (
	datastoreName = regexp.MustCompile(`^[A-Za-z0-9_]{1,255}$`)
	outputName    = regexp.MustCompile(`^jobs/[A-Za-z0-9][A-Za-z0-9._-]{0,254}/outputs/[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}(/paths)?(/.*)?$`)
)

// checkURI holds where a version's files are against the workspace: they lie in
// its datastores, in its account, or with one of its runs. A place of a run is
// written in the one form that all clients can follow.
func (s *Service) checkURI(tx *store.Tx, w Workspace, p *versionProps) error {
	if at, err := s.parseSource(w.ID, p.URI); err == nil {
		if at.run != "" {
			r, err := loadRun(tx, w.UID, at.run)
			if err != nil {
				return err
			}
			if at.run = r.ID; p.Job == "" {
				p.Job = r.ID
			}
		} else if _, err := loadLogged(tx, w.UID, at.model); err != nil {
			return err
		}
		p.URI = at.azure(w.ID)
		return nil
	}
	if rest, ok := strings.CutPrefix(p.URI, s.Site.BlobURL(w.Account.Name())); ok && !w.Account.IsZero() {
		_, err := folderPath(rest)
		return err
	}
	rest, ok := strings.CutPrefix(p.URI, "azureml://")
	if !ok {
		return wrongURI(p.URI)
	}
	if m := outputName.FindStringSubmatch(rest); m != nil {
		_, err := folderPath(strings.TrimPrefix(m[2], "/"))
		return err
	}
	at := strings.Index(rest, "datastores/")
	if at < 0 || at > 0 && !sameWorkspace(w.ID, rest[:at]) {
		return wrongURI(p.URI)
	}
	store, path, ok := strings.Cut(rest[at+len("datastores/"):], "/paths/")
	if !ok || !datastoreName.MatchString(store) {
		return wrongURI(p.URI)
	}
	_, err := folderPath(path)
	return err
}

func wrongURI(uri string) error {
	return &arm.Error{Code: arm.BadRequest, Status: http.StatusBadRequest, Message: "properties.modelUri is '" + clip(uri) + "'; it must be a path in one of this workspace's datastores (azureml://datastores/NAME/paths/PATH), in its storage account, or of one of its runs (runs:/RUN/PATH)."}
}
