package blob

import (
	"testing"

	"castellan/internal/arm"
	"castellan/internal/rbac"
)

// A condition on a data role holds to the container and path that it says, at
// every door of a blob, and as the source of a copy.
func TestConditionsOnBlobs(t *testing.T) {
	w := newWorld(t)
	const only = "00000000-0000-0000-0000-0000000000d7"
	const at = "Microsoft.Storage/storageAccounts/blobServices/containers"
	condition := "(!(ActionMatches{'" + at + "/blobs/read'} AND NOT SubOperationMatches{'Blob.List'}) OR @Resource[" + at + "/blobs:path] StringLike 'team/*') AND " +
		"(!(SubOperationMatches{'Blob.List'}) OR @Request[" + at + "/blobs:prefix] StringStartsWith 'team/') AND " +
		"(!(ActionMatches{'" + at + "/blobs/write'}) OR @Resource[" + at + "/blobs:path] StringLike 'team/drafts/*') AND (!(ActionMatches{'" + at + "/blobs/delete'}))"
	role := ""
	for _, r := range rbac.BuiltIn() {
		if r.Name == "Storage Blob Data Contributor" {
			role = r.ID
		}
	}
	w.must(w.roles.PutAssignment(rbac.Assignment{ID: "conditional", Scope: arm.MustID(accounts + "acct1"), RoleID: role, Principal: only, Condition: condition, ConditionVersion: "2.0"}))
	for _, b := range []string{"team/a", "team/drafts/b", "other/c"} {
		w.do(contrib, "PUT", "acct1:/con1/"+b, []byte("x"), 201)
	}
	for _, x := range []struct {
		method, target string
		want           int
	}{
		{"GET", "/con1/team/a", 200}, {"HEAD", "/con1/team/a", 200}, {"GET", "/con1/team/a?comp=metadata", 200}, {"GET", "/con1/other/c", 403}, {"HEAD", "/con1/other/c", 403},
		{"GET", "/con1/Team/a", 403}, {"GET", "/con1/team%2Fa", 200}, {"GET", "/con1/other%2F..%2Fteam/a", 0},
		{"GET", "/con1?restype=container&comp=list&prefix=team/", 200}, {"GET", "/con1?restype=container&comp=list", 403}, {"GET", "/con1?restype=container&comp=list&prefix=other/", 403},
		{"PUT", "/con1/team/drafts/n", 201}, {"PUT", "/con1/team/n", 403}, {"PUT", "/con1/other/n", 403}, {"PUT", "/con1/team/n?comp=block&blockid=QQ%3D%3D", 403}, {"PUT", "/con1/team/a?comp=metadata", 403},
		{"DELETE", "/con1/team/drafts/b", 403}, {"DELETE", "/con1/team/a", 403},
	} {
		body := []byte(nil)
		if x.method == "PUT" {
			body = []byte("x")
		}
		if x.want == 0 {
			if r := w.do(only, x.method, "acct1:"+x.target, body, 0); r.code < 400 {
				t.Errorf("%s %s = %d", x.method, x.target, r.code)
			}
			continue
		}
		w.do(only, x.method, "acct1:"+x.target, body, x.want)
	}
	// A copy reads its source by the same condition.
	source := "x-ms-copy-source: https://acct1.blob." + testSite.StorageSuffix() + "/con1/"
	w.do(only, "PUT", "acct1:/con1/team/drafts/copy", nil, 202, source+"team/a")
	w.do(only, "PUT", "acct1:/con1/team/drafts/copy2", nil, 403, source+"other/c")
}
