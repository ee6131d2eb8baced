package tracking

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"castellan/internal/arm"
)

// Artifacts have three names: MLflow's URI (mlflow-artifacts:/runs/RUN/PATH),
// Azure's (azureml://…/datastores/workspaceartifactstore/paths/…), and that of
// the blob. place is the one thing behind them.
const (
	proxied     = "mlflow-artifacts:/"
	runFolder   = "runs/"
	modelFolder = "models/"
	datastore   = "workspaceartifactstore"
)

// place is where artifacts of a run or of a logged model lie, and a path there.
type place struct {
	run   string // or
	model string
	path  string // "" for all of it
}

// folder is what the names of the place's blobs begin with, with the slash. The
// run's id must be spelt as the run is.
func (p place) folder() string {
	if p.model != "" {
		return "LoggedModel/dcid." + p.model + "/"
	}
	return "ExperimentRun/dcid." + p.run + "/"
}

func (p place) blob() string { return p.folder() + p.path }

// prefix is what the blobs below the path begin with.
func (p place) prefix() string {
	if p.path == "" {
		return p.folder()
	}
	return p.folder() + p.path + "/"
}

func (p place) uri() string {
	base := proxied + runFolder + p.run
	if p.model != "" {
		base = proxied + modelFolder + p.model
	}
	return strings.TrimSuffix(base+"/"+p.path, "/")
}

// azure is the place as a path in a datastore, which Azure's clients can follow.
func (p place) azure(ws arm.ID) string {
	return "azureml://subscriptions/" + ws.Subscription() + "/resourcegroups/" + ws.Group().Name() + "/workspaces/" + ws.Name() + "/datastores/" + datastore + "/paths/" + strings.TrimSuffix(p.blob(), "/")
}

const (
	maxPath  = 900 // bytes of an artifact's path
	maxDepth = 64
)

// checkPath says whether path can be an artifact's. It refuses whatever a second
// reader could take for another place: dot segments, empty segments,
// backslashes, schemes and drives, queries, parameters and fragments, control characters,
// and percent escapes, which somebody might decode once more.
func checkPath(path string) error {
	if len(path) > maxPath || strings.Count(path, "/") >= maxDepth {
		return bad("Invalid path: it has %d bytes and %d segments; at most %d and %d are allowed.", len(path), strings.Count(path, "/")+1, maxPath, maxDepth)
	}
	if !utf8.ValidString(path) {
		return bad("Invalid path: it is not UTF-8.")
	}
	for i, r := range path {
		switch {
		case r < ' ' || r == 0x7f || r >= 0x80 && r <= 0x9f || strings.ContainsRune(`\?#;`, r), r == utf8.RuneError:
			return bad("Invalid path: '%s' has the character %q.", clip(path), r)
		case r == '%' && i+2 < len(path) && isHex(path[i+1]) && isHex(path[i+2]):
			return bad("Invalid path: '%s' has a percent escape.", clip(path))
		}
	}
	for i, seg := range strings.Split(path, "/") {
		if seg == "" || strings.Trim(seg, ". ") == "" || strings.HasSuffix(seg, ".") {
			return bad("Invalid path: '%s' has the segment '%s'.", clip(path), clip(seg))
		}
		if i == 0 && strings.Contains(seg, ":") {
			return bad("Invalid path: '%s' begins like a URI or a drive.", clip(path))
		}
	}
	return nil
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f'
}

// folderPath is checkPath for a path that may be empty or end with a slash, as
// clients write that of a folder.
func folderPath(path string) (string, error) {
	path = strings.TrimSuffix(path, "/")
	if path == "" {
		return "", nil
	}
	return path, checkPath(path)
}

// parsePlace reads what follows mlflow-artifacts:/ .
func parsePlace(s string) (place, error) {
	kind, rest, _ := strings.Cut(strings.TrimSuffix(s, "/"), "/")
	id, path, _ := strings.Cut(rest, "/")
	p := place{path: path}
	if path != "" {
		if err := checkPath(path); err != nil {
			return place{}, err
		}
	}
	switch kind + "/" {
	case runFolder:
		p.run = id
		return p, checkRunID(id)
	case modelFolder:
		p.model = id
		return p, checkModelID(id)
	}
	return place{}, bad("Invalid path: '%s'. Artifacts lie in %sRUN/PATH and %sMODEL/PATH.", clip(s), runFolder, modelFolder)
}

// checkModelID says whether id can be a logged model's, as we make them.
func checkModelID(id string) error {
	hex, ok := strings.CutPrefix(id, "m-")
	if !ok || len(hex) != 32 || strings.Trim(hex, "0123456789abcdef") != "" {
		return bad("Invalid model ID: '%s'.", clip(id))
	}
	return nil
}

// parseSource reads what a model version says it was made from: artifacts of a
// run, or a logged model, of this workspace, and nothing else.
func (s *Service) parseSource(ws arm.ID, source string) (place, error) {
	if rest, ok := strings.CutPrefix(source, proxied); ok {
		return sourcePlace(parsePlace(rest))
	}
	if rest, ok := strings.CutPrefix(source, "runs:/"); ok {
		return sourcePlace(parsePlace(runFolder + rest))
	}
	if rest, ok := strings.CutPrefix(source, "models:/"); ok && !strings.Contains(rest, "/") {
		return place{model: rest}, checkModelID(rest)
	}
	if strings.HasPrefix(source, "azureml://") {
		return s.azureSource(ws, source)
	}
	return place{}, noSource(source)
}

func noSource(source string) error {
	return bad("Invalid model version source: '%s'. It must be an artifact of a run of this workspace, as in runs:/RUN/PATH or %sRUN/PATH, or a logged model, as in models:/MODEL.", clip(source), proxied+runFolder)
}

func sourcePlace(p place, err error) (place, error) {
	if err == nil && p.run != "" && p.path == "" {
		return place{}, bad("Invalid model version source: it names no path in the artifacts of run %s.", p.run)
	}
	return p, err
}

// azureSource reads Azure's forms: azureml://HOST/mlflow/…/runs/RUN/artifacts/PATH,
// azureml://jobs/RUN/outputs/artifacts/paths/PATH, and a path in the datastore
// of artifacts.
func (s *Service) azureSource(ws arm.ID, source string) (place, error) {
	u, err := url.Parse(source)
	if err != nil || u.RawQuery != "" || u.Fragment != "" || u.User != nil || strings.ContainsAny(source, "%?#") {
		return place{}, noSource(source)
	}
	path := strings.TrimPrefix(source, "azureml://")
	if rest, ok := strings.CutPrefix(path, "jobs/"); ok {
		id, rest, _ := strings.Cut(rest, "/")
		if rest, ok = strings.CutPrefix(rest, "outputs/artifacts/paths/"); ok {
			return sourcePlace(parsePlace(runFolder + id + "/" + rest))
		}
		return place{}, noSource(source)
	}
	if strings.EqualFold(u.Host, s.Site.Host()) {
		return runArtifacts(ws, source, strings.TrimPrefix(path, u.Host))
	}
	return datastorePlace(ws, source, path)
}

// runArtifacts reads /mlflow/vN/WORKSPACE/experiments/E/runs/R/artifacts/PATH.
func runArtifacts(ws arm.ID, source, path string) (place, error) {
	seg := strings.Split(strings.Trim(path, "/"), "/")
	for i := range seg {
		if i+5 < len(seg) && seg[i] == "experiments" && seg[i+2] == "runs" && seg[i+4] == "artifacts" && i == 10 {
			if id, err := arm.ParseID("/" + strings.Join(seg[2:i], "/")); err == nil && id.Key() == ws.Key() {
				return sourcePlace(parsePlace(runFolder + seg[i+3] + "/" + strings.Join(seg[i+5:], "/")))
			}
		}
	}
	return place{}, noSource(source)
}

// datastorePlace reads [subscriptions/…/workspaces/W/]datastores/D/paths/PATH.
func datastorePlace(ws arm.ID, source, path string) (place, error) {
	at := strings.Index(path, "datastores/"+datastore+"/paths/")
	if at < 0 {
		return place{}, noSource(source)
	}
	if at > 0 && !sameWorkspace(ws, path[:at]) {
		return place{}, noSource(source)
	}
	rest, ok := strings.CutPrefix(path[at:], "datastores/"+datastore+"/paths/ExperimentRun/dcid.")
	if ok {
		return sourcePlace(parsePlace(runFolder + rest))
	}
	if rest, ok = strings.CutPrefix(path[at:], "datastores/"+datastore+"/paths/LoggedModel/dcid."); ok {
		return parsePlace(modelFolder + rest)
	}
	return place{}, noSource(source)
}

// sameWorkspace reports whether subscriptions/S/resourcegroups/G/workspaces/W/
// is ws.
func sameWorkspace(ws arm.ID, path string) bool {
	seg := strings.Split(strings.ToLower(strings.TrimSuffix(path, "/")), "/")
	return len(seg) == 6 && seg[0] == "subscriptions" && seg[2] == "resourcegroups" && seg[4] == "workspaces" &&
		seg[1] == ws.Subscription() && seg[3] == strings.ToLower(ws.Group().Name()) && seg[5] == strings.ToLower(ws.Name())
}
