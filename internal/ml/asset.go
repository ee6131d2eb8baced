package ml

import (
	"encoding/json"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// An asset is a container of versions. A container comes with its first
// version; a version never changes what it stands for.

// containerProps are a container's properties.
type containerProps struct {
	Description string            `json:"description,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Properties  map[string]any    `json:"properties,omitempty"`
	Archived    flag              `json:"isArchived"`
	Latest      any               `json:"latestVersion,omitempty" arm:"readonly"`
	Next        any               `json:"nextVersion,omitempty" arm:"readonly"`
}

// statedProps are a container's that is not of data, where Azure shows no state.
type statedProps struct {
	containerProps
	State any `json:"provisioningState,omitempty" arm:"readonly,since=2022-10-01-preview"`
}

// dataContainerProps are those of data.
type dataContainerProps struct {
	containerProps
	DataType string `json:"dataType,omitempty"`
}

// containerInner is what the container knows of its versions.
type containerInner struct {
	Latest string `json:"latest,omitempty"` // made last
	Next   int    `json:"next"`             // above every version that is a number
}

// assetProps are what versions of all assets have.
type assetProps struct {
	Description string            `json:"description,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Properties  map[string]any    `json:"properties,omitempty"`
	Anonymous   flag              `json:"isAnonymous"`
	Archived    flag              `json:"isArchived"`
}

// assetInner is what no answer shows of a version.
type assetInner struct {
	Snapshot *snapshot `json:"snapshot,omitempty"` // of code
}

var (
	assetName        = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$`)
	assetVersionName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,99}$`)
)

// containerKind is the kind of an asset's containers.
func (s *Service) containerKind(name, doc string, props func() any) *resource.Kind {
	return &resource.Kind{
		Type: workspaceType + "/" + name, Doc: doc, Parent: s.kinds.workspace, Implied: true,
		Props: props,
		Check: func(c resource.Change) error { return checkName(c.Doc.Name) },
		Save: func(_ *store.Tx, c resource.Change) error {
			if c.Old != nil {
				return nil
			}
			return setInner(c.Doc, containerInner{Next: 1})
		},
		Show: func(d *resource.Doc, p map[string]any) {
			in, err := inner[containerInner](d)
			if err != nil {
				return
			}
			p["latestVersion"], p["nextVersion"] = nil, strconv.Itoa(max(in.Next, 1))
			if in.Latest != "" {
				p["latestVersion"] = in.Latest
			}
			if name != "data" {
				p["provisioningState"] = "Succeeded"
			}
		},
		Filter: byView,
	}
}

func checkName(name string) error {
	if !assetName.MatchString(name) {
		return arm.Errorf(arm.InvalidResourceName, "the name %q must be letters, digits, hyphens, underscores and dots, and begin with a letter or digit", name)
	}
	return nil
}

// byView is listViewType: whether archived assets are listed.
func byView(q url.Values) (func(*resource.Doc) bool, error) {
	view := q.Get("listViewType")
	switch strings.ToLower(view) {
	case "", "activeonly", "archivedonly", "all":
	default:
		return nil, arm.Errorf(arm.BadRequest, "listViewType is %q; it must be ActiveOnly, ArchivedOnly or All", view)
	}
	return func(d *resource.Doc) bool {
		var p struct {
			Archived bool `json:"isArchived"`
		}
		if json.Unmarshal(d.Properties, &p) != nil {
			return false
		}
		return strings.EqualFold(view, "all") || p.Archived == strings.EqualFold(view, "archivedonly")
	}, nil
}

// versionAdded tells the container, which it makes if need be, of a new version.
func (s *Service) versionAdded(tx *store.Tx, k *resource.Kind, c resource.Change, dataType string) error {
	if !assetVersionName.MatchString(c.Doc.Name) {
		return arm.Errorf(arm.InvalidResourceName, "the version %q must be letters, digits, hyphens, underscores and dots, and begin with a letter or digit", c.Doc.Name)
	}
	id := c.Doc.ID.Parent()
	if err := checkName(id.Name()); err != nil {
		return err
	}
	d, err := resource.Load(tx, id)
	if err != nil {
		return err
	}
	if d == nil {
		d = &resource.Doc{ID: id, Name: id.Name(), Type: k.Type, Instance: c.Doc.Instance, Etag: c.Doc.Etag, System: c.Doc.System}
		if d.Properties, err = json.Marshal(dataContainerProps{DataType: dataType}); err != nil {
			return err
		}
		if err := setInner(d, containerInner{Next: 1}); err != nil {
			return err
		}
	}
	if c.Old == nil {
		in, err := inner[containerInner](d)
		if err != nil {
			return err
		}
		in.Latest = c.Doc.Name
		if n, err := strconv.Atoi(c.Doc.Name); err == nil && n >= in.Next && n < 1<<30 {
			in.Next = n + 1
		}
		if err := setInner(d, in); err != nil {
			return err
		}
	}
	return resource.Save(tx, d)
}

// versionRemoved makes the newest of the versions that stay the latest.
func versionRemoved(tx *store.Tx, d *resource.Doc) error {
	if d.Shut != nil {
		return nil // its container goes too
	}
	parent, err := resource.Load(tx, d.ID.Parent())
	if err != nil || parent == nil {
		return err
	}
	in, err := inner[containerInner](parent)
	if err != nil || in.Latest != d.Name {
		return err
	}
	all, err := resource.List(tx, d.Type, parent.ID, "", 0)
	if err != nil {
		return err
	}
	in.Latest = ""
	var newest *resource.Doc
	for _, v := range all {
		if v.ID.Key() != d.ID.Key() && v.System != nil && (newest == nil || v.System.CreatedAt.After(newest.System.CreatedAt)) {
			newest = v
		}
	}
	if newest != nil {
		in.Latest = newest.Name
	}
	if err := setInner(parent, in); err != nil {
		return err
	}
	return resource.Save(tx, parent)
}

// version finds the asset version that ref names: an ARM id, azureml:NAME:VERSION,
// azureml:NAME@latest, NAME:VERSION, or either with labels/latest.
func (s *Service) version(tx *store.Tx, w workspace, kind, ref string) (*resource.Doc, error) {
	bad := arm.Errorf(arm.BadRequest, "%q names no version of the workspace's %s; use azureml:NAME:VERSION or %s/%s/NAME/versions/VERSION", ref, kind, w.Doc.ID, kind)
	name, version := "", ""
	text := ref
	if rest, ok := cutFold(text, "azureml://"); ok {
		text = "/" + rest
	} else if rest, ok := cutFold(text, "azureml:"); ok {
		text = rest
	}
	if strings.HasPrefix(text, "/") {
		i := strings.Index(strings.ToLower(text), "/"+kind+"/")
		if i < 0 || !w.spelt(text[:i]) && !s.located(w, text[:i]) {
			return nil, bad
		}
		parts := strings.Split(text[i+len(kind)+2:], "/")
		if len(parts) != 3 {
			return nil, bad
		}
		name = parts[0]
		switch strings.ToLower(parts[1]) {
		case "versions":
			version = parts[2]
		case "labels":
			version = "@" + parts[2]
		default:
			return nil, bad
		}
	} else if n, label, ok := strings.Cut(text, "@"); ok {
		name, version = n, "@"+label
	} else if n, v, ok := strings.Cut(text, ":"); ok {
		name, version = n, v
	}
	if checkName(name) != nil || version == "" {
		return nil, bad
	}
	container := w.Doc.ID.Child(kind, name)
	if strings.HasPrefix(version, "@") {
		d, err := resource.Load(tx, container)
		if err != nil {
			return nil, err
		}
		if d == nil || !strings.EqualFold(version, "@latest") {
			return nil, bad
		}
		in, err := inner[containerInner](d)
		if err != nil {
			return nil, err
		}
		version = in.Latest
	}
	if !assetVersionName.MatchString(version) {
		return nil, bad
	}
	d, err := resource.Load(tx, container.Child("versions", version))
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, arm.Errorf(arm.BadRequest, "%s:%s does not exist among the workspace's %s", name, version, kind)
	}
	return d, nil
}

// located reports whether s is /locations/L/workspaces/GUID of this workspace.
func (s *Service) located(w workspace, text string) bool {
	p := strings.Split(strings.Trim(text, "/"), "/")
	return len(p) == 4 && strings.EqualFold(p[0], "locations") && strings.EqualFold(p[2], "workspaces") && strings.EqualFold(p[3], w.workspaceInner.ID)
}
