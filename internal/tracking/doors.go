package tracking

import (
	"context"
	"net/http"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// The planes' paths. One door serves MLflow's v1.0 and v2.0 prefix alike.
const (
	workspacePath = "/subscriptions/{sub}/resourceGroups/{group}/providers/" + namespace + "/workspaces/{workspace}"
	mlflowPath    = "/mlflow/{version}" + workspacePath + "/api/2.0/mlflow/"
	proxyPath     = "/mlflow/{version}" + workspacePath + "/api/2.0/mlflow-artifacts/artifacts"
	historyPath   = "/history/v1.0" + workspacePath + "/"
	artifactPath  = "/artifact/{version}" + workspacePath + "/artifacts/"
)

// subject finds the run that a request is about, or "" if it is about none.
type subject func(s *Service, r *http.Request, v gate.Vars, ws arm.ID) (run string, err error)

// verb does what an input asks, and gives the answer.
type verb func(ctx context.Context, g gate.Grant, in *input) (answer any, err error)

// door is a door with a small answer in JSON.
func (s *Service) door(a arm.Action, method, path string, about subject, do verb) gate.Route {
	return gate.On(a, method+" "+path, s.locate(about), func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		answer, err := do(r.Context(), g, read(r).with(r))
		if err != nil {
			return err
		}
		if answer == nil {
			answer = struct{}{}
		}
		gate.WriteJSON(w, http.StatusOK, answer)
		return nil
	})
}

// mlflow is a door of MLflow's API.
func (s *Service) mlflow(a arm.Action, method, path string, about subject, do verb) gate.Route {
	return s.door(a, method, mlflowPath+path, about, do)
}

// locate makes the target of a request: the workspace, and the run that it is
// about. A request that is about no run is, when a run makes it, about that
// run: the verb then shows and changes no more than what is the run's own.
func (s *Service) locate(about subject) gate.Locate {
	return func(r *http.Request, v gate.Vars) (gate.Target, error) {
		switch strings.ToLower(v["version"]) {
		case "", "v1.0", "v2.0":
		default:
			return gate.Target{}, &arm.Error{Code: "InvalidResourceType", Status: http.StatusNotFound, Message: "There is no version " + clip(v["version"]) + " of this API; supported: v1.0, v2.0."}
		}
		for _, n := range []string{"sub", "group", "workspace"} {
			if strings.Contains(v[n], "/") { // escaped in the path, it would end the segment for one reader and not for another
				return gate.Target{}, bad("The path has a slash in the name '%s'.", clip(v[n]))
			}
		}
		id, err := arm.ParseID("/subscriptions/" + v["sub"] + "/resourceGroups/" + v["group"] + "/providers/" + namespace + "/workspaces/" + v["workspace"])
		if err != nil {
			return gate.Target{}, err
		}
		run := ""
		if about != nil {
			if run, err = about(s, r, v, id); err != nil {
				return gate.Target{}, err
			}
		}
		if run == "" {
			run = caller(r)
		}
		return gate.Target{ID: id, Item: run}, nil
	}
}

// who is Config.Who, and notes in the request which run makes it, if one does.
func (s *Service) who(r *http.Request) (arm.Caller, error) {
	c, err := s.Who(r)
	if err == nil && c.Lease != nil {
		*r = *r.WithContext(context.WithValue(r.Context(), leased{}, c.Lease.Item))
	}
	return c, err
}

// leased is where who notes the run.
type leased struct{}

func caller(r *http.Request) string {
	run, _ := r.Context().Value(leased{}).(string)
	return run
}

// own is the run that acts through g by its own token, or "" if somebody else
// does. It only ever narrows what the gate allowed.
func own(g gate.Grant) string {
	if l := g.Caller().Lease; l != nil {
		return l.Item
	}
	return ""
}

// notOwn refuses a run what is not its own.
func notOwn(g gate.Grant, run string) error {
	if o := own(g); o != "" && !strings.EqualFold(o, run) {
		return arm.Errorf(arm.Forbidden, "The token is that of run %s and reaches nothing else.", o)
	}
	return nil
}

// runIn is the run that a field of the request names.
func runIn(names ...string) subject {
	return func(_ *Service, r *http.Request, _ gate.Vars, _ arm.ID) (string, error) {
		in := read(r)
		id := in.either(names...)
		if in.err != nil {
			return "", in.err
		}
		if id == "" {
			return "", bad("Missing value for required parameter '%s'.", names[0])
		}
		return id, checkRunID(id)
	}
}

// runAt is the run that a variable of the path names.
func runAt(_ *Service, _ *http.Request, v gate.Vars, _ arm.ID) (string, error) {
	return v["run"], checkRunID(v["run"])
}

var runOf = runIn("run_id", "run_uuid")

// scopeDepth is how many segments of a path end with the workspace's name.
const scopeDepth = 10

// behind is what a request's path says behind the workspace, segment by segment
// as the router decoded them.
func behind(r *http.Request) []string {
	seg := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	if len(seg) <= scopeDepth {
		return nil
	}
	seg = seg[scopeDepth:]
	for i := range seg {
		seg[i] = unescape(seg[i])
	}
	return seg
}

// with adds to the input what the request says elsewhere.
func (in *input) with(r *http.Request) *input {
	in.path, in.agent, in.behind = r.URL.EscapedPath(), r.UserAgent(), behind(r)
	return in
}

// segment is one of the path behind the workspace, or "".
func (in *input) segment(i int) string {
	if i < len(in.behind) {
		return in.behind[i]
	}
	return ""
}

// target is the run that the Grant is for, which the request names in one of
// two fields.
func (in *input) target(g gate.Grant) string {
	in.ignore("run_id", "run_uuid")
	return g.Item()
}

// change runs fn in a transaction with the Grant's audit entry, in the
// workspace that the Grant is for if it is for one of the actions.
func (s *Service) change(ctx context.Context, g gate.Grant, a arm.Action, fn func(tx *store.Tx, w Workspace) error) error {
	id, err := g.On(a)
	if err != nil {
		return err
	}
	w, err := s.find(ctx, id)
	if err != nil {
		return err
	}
	return g.Change(ctx, s.DB, func(tx *store.Tx) error { return fn(tx, w) })
}

// view runs fn on a snapshot, in the workspace that the Grant is for.
func (s *Service) view(ctx context.Context, g gate.Grant, a arm.Action, fn func(tx *store.Tx, w Workspace) error) error {
	id, err := g.On(a)
	if err != nil {
		return err
	}
	return s.DB.View(ctx, func(tx *store.Tx) error {
		w, err := s.workspace(tx, id)
		if err != nil {
			return err
		}
		return fn(tx, w)
	})
}
