package rbac

import (
	"strings"
	"testing"

	"castellan/internal/arm"
)

// The custom roles that Azure's pages print as examples do what the pages
// promise of them. Patterns and actions are relative to a workspace, but for
// those that begin with "Microsoft." or are a star.
func TestCustomRoles(t *testing.T) {
	const authz = "Microsoft.Authorization/*"
	for _, x := range []struct {
		name, give, take string
		yes, no          string
	}{
		{"Data Scientist Custom (intro)", "*", "*/delete write computes/*/write computes/*/delete Microsoft.Authorization/*/write",
			"read jobs/write computes/start/action Microsoft.Authorization/roleAssignments/delete", // the last one slips through, whatever the page says (T17)
			"delete write computes/write computes/delete Microsoft.Authorization/roleAssignments/write jobs/delete"},
		{"Data Scientist Custom", "*/read */action */delete */write",
			"delete write computes/*/write computes/*/delete " + authz + " computes/listKeys/action listKeys/action services/aks/write services/aks/delete endpoints/pipelines/write",
			"read jobs/write experiments/runs/submit/action computes/read jobs/delete",
			"delete write computes/write computes/delete computes/listkeys/action listKeys/action services/aks/write endpoints/pipelines/write Microsoft.Authorization/roleAssignments/read"},
		{"Data Scientist Restricted Custom", "*/read computes/start/action computes/stop/action experiments/runs/write metadata/snapshots/write environments/write models/*/write datasets/*/write datasets/*/delete environments/build/action",
			"computes/write write computes/delete delete computes/listKeys/action connections/listsecrets/action listKeys/action " + authz +
				" datasets/registered/preview/read datasets/registered/profile/read datasets/registered/schema/read datastores/write datastores/delete",
			"read computes/start/action models/write models/versions/write datasets/registered/read datasets/registered/write",
			"computes/write delete datasets/registered/preview/read datasets/registered/schema/read connections/listsecrets/action datastores/write jobs/write"},
		{"MLFlow Data Scientist Custom", "experiments/* jobs/* models/*", "delete write computes/*/write computes/*/delete " + authz,
			"experiments/read experiments/runs/write jobs/write models/delete", "read write computes/write data/versions/write"},
		{"MLOps Custom", "read endpoints/pipelines/read metadata/artifacts/read datasets/*/read environments/write experiments/runs/write experiments/runs/submit/action environments/build/action",
			"computes/write write computes/delete delete computes/listKeys/action listKeys/action " + authz,
			"read endpoints/pipelines/read experiments/runs/submit/action datasets/registered/read", "write computes/write endpoints/pipelines/write listKeys/action"},
		{"Workspace Admin Custom", "*/read */action */write */delete Microsoft.Authorization/roleAssignments/*", "write",
			"read delete computes/write listKeys/action Microsoft.Authorization/roleAssignments/write",
			"write Microsoft.Authorization/roleDefinitions/write Microsoft.MachineLearningServices/locations/updateQuotas/action"},
		{"Labeling Team Lead", "read labeling/labels/read labeling/labels/write labeling/labels/reject/action labeling/labels/update/action labeling/projects/read labeling/projects/summary/read",
			"labeling/projects/write labeling/projects/delete labeling/export/action",
			"labeling/labels/reject/action labeling/labels/write", "labeling/projects/write labeling/export/action labeling/labels/approve_unapprove/action"},
		{"Vendor account admin", "read experiments/runs/read labeling/labels/read labeling/labels/write labeling/labels/reject/action labeling/labels/update/action labeling/labels/approve_unapprove/action labeling/export/action datasets/registered/read", "",
			"labeling/export/action labeling/labels/approve_unapprove/action datasets/registered/read", "write datasets/registered/write labeling/projects/delete"},
		{"Customer QA", "read experiments/runs/read labeling/labels/read labeling/labels/reject/action labeling/labels/approve_unapprove/action labeling/projects/read labeling/projects/summary/read labeling/export/action datasets/registered/read", "",
			"labeling/labels/reject/action datasets/registered/read", "labeling/labels/write labeling/labels/update/action"},
		{"Vendor QA", "read experiments/runs/read labeling/labels/read labeling/labels/reject/action labeling/labels/update/action labeling/labels/approve_unapprove/action labeling/projects/read labeling/projects/summary/read labeling/export/action", "",
			"labeling/labels/update/action", "datasets/registered/read labeling/labels/write"},
		{"control plane, online endpoint", "onlineEndpoints/write onlineEndpoints/delete onlineEndpoints/read onlineEndpoints/token/action onlineEndpoints/listKeys/action onlineEndpoints/regenerateKeys/action", "",
			"onlineEndpoints/write onlineendpoints/listkeys/action", "onlineEndpoints/score/action read"},
		{"scoring, online endpoint", "onlineEndpoints/*/action", "",
			"onlineEndpoints/score/action onlineEndpoints/listKeys/action", "onlineEndpoints/read onlineEndpoints/write"},
		{"batch invoke", "read data/versions/write datastores/read datastores/listsecrets/action batchEndpoints/read batchEndpoints/write batchEndpoints/deployments/jobs/write batchEndpoints/jobs/write computes/read computes/listKeys/action experiments/runs/submit/action", "",
			"batchEndpoints/jobs/write data/versions/write datastores/listsecrets/action", "computes/write batchEndpoints/delete write"},
	} {
		e := New([]Role{{ID: "custom", Name: x.name, Permissions: []Permission{{Actions: absolute(x.give), NotActions: absolute(x.take)}}}})
		put(t, e, Assignment{ID: "/a", Scope: arm.MustID(ws), RoleID: "custom", Principal: alice})
		check := func(actions []string, want bool) {
			for _, a := range actions {
				if d := e.Decide(caller, control(a), arm.MustID(ws)); d.Allowed != want {
					t.Errorf("%s: Decide(%s) = %+v, want %v", x.name, a, d, want)
				}
				if d := e.Decide(caller, data(a), arm.MustID(ws)); d.Allowed {
					t.Errorf("%s: the data action %s is allowed", x.name, a)
				}
			}
		}
		check(absolute(x.yes), true)
		check(absolute(x.no), false)
	}
}

// absolute completes actions and patterns that are relative to a workspace.
func absolute(words string) (out []string) {
	for _, w := range strings.Fields(words) {
		if w != "*" && !strings.HasPrefix(w, "Microsoft.") {
			w = ml + w
		}
		out = append(out, w)
	}
	return out
}
