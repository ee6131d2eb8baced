package blob

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

const lakeOwner = "00000000-0000-0000-0000-00000000000d" // Storage Blob Data Owner

// acl sets a path's list, by the account's key.
func (w *world) acl(path, acl string) {
	w.t.Helper()
	w.do("key1", "PATCH", lakeFS+path+"?action=setAccessControl", nil, 200, "x-ms-acl: "+acl)
}

// shows are a path's owner, permissions and list.
func (w *world) shows(who, path string) string {
	w.t.Helper()
	h := w.do(who, "HEAD", lakeFS+path+"?action=getAccessControl", nil, 200).header
	return h.Get("x-ms-owner") + " " + h.Get("x-ms-permissions") + " " + h.Get("x-ms-acl")
}

// onlyFor is a list that gives somebody, and the owner, permissions.
func onlyFor(who, perm string) string {
	return "user::rwx,user:" + who + ":" + perm + ",group::---,mask::rwx,other::---"
}

// Without a role, what one may do is what the lists say: of the path, of the
// directory that it lies in, and the way through all above it, by both endpoints.
func TestAccessListsLetIn(t *testing.T) {
	w := newWorld(t)
	w.lake()
	w.mkdir("d/sub")
	w.file("d/f", "data")
	w.file("d/sub/g", "deep")
	const all, none = "user::rwx,group::rwx,other::rwx", "user::rwx,group::---,other::---"
	type try struct {
		name, method, target string
		body                 string
		want                 int
		headers              []string
	}
	read := try{"read", "GET", lakeFS + "d/f", "", 200, nil}
	readBlob := try{"read blob", "GET", "lake1:/fsy/d/f", "", 200, nil}
	stat := try{"stat", "HEAD", lakeFS + "d/f?action=getStatus", "", 200, nil}
	access := try{"access", "HEAD", lakeFS + "d/f?action=getAccessControl", "", 200, nil}
	list := try{"list", "GET", "lake1.dfs:/fsy?resource=filesystem&recursive=false&directory=d", "", 200, nil}
	listAll := try{"list all", "GET", "lake1.dfs:/fsy?resource=filesystem&recursive=true&directory=d", "", 200, nil}
	listBlobs := try{"list blobs", "GET", "lake1:/fsy?restype=container&comp=list&prefix=d/&delimiter=/", "", 200, nil}
	listDeep := try{"list blobs below", "GET", "lake1:/fsy?restype=container&comp=list&prefix=d/", "", 200, nil}
	add := try{"append", "PATCH", lakeFS + "d/f?action=append&position=4", "x", 202, nil}
	props := try{"properties", "PATCH", lakeFS + "d/f?action=setProperties", "", 200, []string{"x-ms-properties: a=YQ=="}}
	create := try{"create", "PUT", lakeFS + "d/new?resource=file", "", 201, nil}
	createBlob := try{"create blob", "PUT", "lake1:/fsy/d/new2", "x", 201, nil}
	replace := try{"replace blob", "PUT", "lake1:/fsy/d/f", "data", 201, nil}
	remove := try{"delete", "DELETE", lakeFS + "d/f", "", 200, nil}
	move := try{"move", "PUT", lakeFS + "d/moved", "", 201, []string{"x-ms-rename-source: /fsy/d/f"}}
	chmod := try{"chmod", "PATCH", lakeFS + "d/f?action=setAccessControl", "", 200, []string{"x-ms-permissions: 0777"}}
	chown := try{"chown", "PATCH", lakeFS + "d/f?action=setAccessControl", "", 200, []string{"x-ms-owner: " + nobody}}
	every := []try{read, readBlob, stat, access, list, listAll, listBlobs, listDeep, add, props, create, createBlob, replace, remove, move, chmod, chown}
	for _, x := range []struct {
		root, d, sub, f string
		opens           []try
	}{
		{none, all, all, all, nil},
		{onlyFor(nobody, "--x"), none, all, all, nil},
		{onlyFor(nobody, "rw-"), all, all, all, nil},
		{onlyFor(nobody, "--x"), onlyFor(nobody, "--x"), none, none, []try{stat, access}},
		{onlyFor(nobody, "--x"), onlyFor(nobody, "--x"), none, onlyFor(nobody, "r--"), []try{read, readBlob, stat, access}},
		{onlyFor(nobody, "--x"), onlyFor(nobody, "--x"), none, onlyFor(nobody, "-w-"), []try{stat, access}},
		{onlyFor(nobody, "--x"), onlyFor(nobody, "--x"), none, onlyFor(nobody, "rw-"), []try{read, readBlob, stat, access, add, props, replace}},
		{onlyFor(nobody, "--x"), onlyFor(nobody, "r--"), all, all, nil},
		{onlyFor(nobody, "--x"), onlyFor(nobody, "r-x"), none, none, []try{stat, access, list, listBlobs}},
		{onlyFor(nobody, "--x"), onlyFor(nobody, "r-x"), onlyFor(nobody, "r-x"), none, []try{stat, access, list, listAll, listBlobs, listDeep}},
		{onlyFor(nobody, "--x"), onlyFor(nobody, "-wx"), none, none, []try{stat, access, create, createBlob, remove, move}},
	} {
		for path, acl := range map[string]string{"": x.root, "d": x.d, "d/sub": x.sub, "d/f": x.f} {
			w.acl(path, acl)
		}
		for _, y := range every {
			want := 403
			if slices.ContainsFunc(x.opens, func(o try) bool { return o.name == y.name }) {
				want = y.want
			}
			var body []byte
			if y.body != "" {
				body = []byte(y.body)
			}
			if r := w.do(nobody, y.method, y.target, body, 0, y.headers...); r.code != want {
				t.Errorf("root %s, d %s, sub %s, f %s: %s = %d, want %d: %.300s", x.root, x.d, x.sub, x.f, y.name, r.code, want, r.body)
			}
			if want == y.want { // put it back
				for _, gone := range []string{"d/new", "d/new2", "d/moved"} {
					w.do("key1", "DELETE", lakeFS+gone, nil, 0)
				}
				w.file("d/f", "data")
				w.acl("d/f", x.f)
			}
		}
	}
	w.do("", "GET", lakeFS+"d/f", nil, 401)
	for _, x := range [][2]string{{"HEAD", "lake1.dfs:/fsy?resource=filesystem"}, {"DELETE", "lake1.dfs:/fsy?resource=filesystem"}, {"GET", "lake1.dfs:/?resource=account"}, {"PUT", "lake1.dfs:/new?resource=filesystem"}} {
		w.acl("", all)
		w.do(nobody, x[0], x[1], nil, 403)
	}
	// It is recorded with its reason.
	w.acl("d", all)
	w.acl("d/f", onlyFor(nobody, "r--"))
	w.do(nobody, "GET", lakeFS+"d/f", nil, 200)
	found := false
	w.must(w.db.View(t.Context(), func(tx *store.Tx) error {
		rows, err := tx.Scan("audit", "", "", 0)
		for _, r := range rows {
			found = found || strings.Contains(string(r.Value), nobody) && strings.Contains(string(r.Value), "the access lists of /d/f")
		}
		return err
	}))
	if !found {
		t.Error("no entry says that access lists let somebody in")
	}
}

// Roles come before lists: who has one is not asked for them; and a Data Owner alone,
// or the owner of a path, changes its list.
func TestWhoChangesAccess(t *testing.T) {
	w := newWorld(t)
	w.lake()
	w.give(lakeOwner, "Storage Blob Data Owner", accounts+"lake1")
	w.do(contrib, "PUT", lakeFS+"c?resource=file", nil, 201)
	if got := w.shows(contrib, "c"); got != contrib+" rw-r----- user::rw-,group::r--,other::---" {
		t.Errorf("what a contributor makes is %s", got)
	}
	if got := w.shows("key1", ""); got != "$superuser rwxr-x--- user::rwx,group::r-x,other::---" {
		t.Errorf("the root is %s", got)
	}
	w.file("k", "")
	set := func(who, path string, want int, headers ...string) {
		t.Helper()
		w.do(who, "PATCH", lakeFS+path+"?action=setAccessControl", nil, want, headers...)
	}
	set(contrib, "c", 403, "x-ms-permissions: 0777") // it owns it, but may not go through the root
	set(reads, "k", 403, "x-ms-permissions: 0777")
	set(contrib, "k", 403, "x-ms-permissions: 0777")
	set(nobody, "k", 403, "x-ms-permissions: 0777")
	set(lakeOwner, "", 200, "x-ms-permissions: 0711")
	set(contrib, "c", 200, "x-ms-permissions: 0640")
	set(contrib, "c", 403, "x-ms-owner: "+nobody)
	set(contrib, "c", 403, "x-ms-group: "+g2)
	set(contrib, "k", 403, "x-ms-permissions: 0777")
	set(lakeOwner, "k", 200, "x-ms-owner: "+contrib, "x-ms-group: "+g2, "x-ms-permissions: 0600")
	if got := w.shows(reads, "k"); got != contrib+" rw------- user::rw-,group::---,other::---" {
		t.Errorf("k is %s", got)
	}
	set(contrib, "k", 200, "x-ms-acl: user::r--,group::---,other::---")
	for _, bad := range [][]string{{}, {"x-ms-permissions: 777"}, {"x-ms-permissions: 0777", "x-ms-acl: user::rwx,group::---,other::---"}, {"x-ms-owner: bob"}, {"x-ms-acl: user::rwx"}} {
		set("key1", "k", 400, bad...)
	}
	set("key1", "none", 404, "x-ms-permissions: 0777")
	// Who writes over a file that is another's does not make it theirs.
	w.do(contrib, "PUT", lakeFS+"s?resource=file", nil, 201, "x-ms-acl: "+onlyFor(nobody, "rw-"))
	w.do("key1", "PUT", lakeFS+"mine?resource=file", nil, 201)
	w.do(contrib, "PUT", lakeFS+"mine?resource=file", nil, 403, "x-ms-permissions: 0777")
	w.do(contrib, "PUT", lakeFS+"mine?resource=file", nil, 201)
	w.do(contrib, "PUT", lakeFS+"theirs?resource=file", nil, 403, "x-ms-owner: "+nobody)
	if got := w.shows("key1", "mine"); !strings.HasPrefix(got, "$superuser rw-r-----") {
		t.Errorf("what was written over is %s", got)
	}
	// nor does who may write to it and says that it is theirs, by a list or a role.
	w.do(contrib, "PUT", lakeFS+"mine?resource=file", nil, 403, "x-ms-owner: "+contrib)
	w.mkdir("dir")
	w.file("dir/f", "")
	w.acl("dir", onlyFor(nobody, "rwx"))
	w.acl("dir/f", onlyFor(nobody, "rw-"))
	for _, path := range []string{"dir?resource=directory", "dir/f?resource=file"} {
		w.do(nobody, "PUT", lakeFS+path, nil, 403, "x-ms-owner: "+nobody)
		w.do(nobody, "PUT", lakeFS+path, nil, 201)
	}
	for _, path := range []string{"dir", "dir/f"} {
		if got := w.shows("key1", path); !strings.HasPrefix(got, "$superuser ") {
			t.Errorf("what was written over is %s", got)
		}
	}
	w.do(nobody, "PUT", lakeFS+"dir/own?resource=file", nil, 201, "x-ms-owner: "+nobody)
	w.do(nobody, "PUT", lakeFS+"dir/own?resource=file", nil, 201, "x-ms-owner: "+nobody)
	w.do(nobody, "PUT", lakeFS+"dir/own?resource=file", nil, 403, "x-ms-owner: "+contrib)
	w.do(nobody, "PUT", lakeFS+"dir/own?resource=file", nil, 403, "x-ms-group: "+g2)
	// Sticky directories keep what is others'.
	w.mkdir("t", "x-ms-permissions: 1777", "x-ms-umask: 0000")
	w.do(nobody, "PUT", lakeFS+"t/n?resource=file", nil, 201)
	w.file("t/k", "")
	w.do(nobody, "DELETE", lakeFS+"t/k", nil, 403)
	w.do(nobody, "PUT", lakeFS+"t/x", nil, 403, "x-ms-rename-source: /fsy/t/k")
	w.do(nobody, "PUT", lakeFS+"t/k", nil, 403, "x-ms-rename-source: /fsy/t/n")
	w.do(nobody, "PUT", lakeFS+"t/m", nil, 201, "x-ms-rename-source: /fsy/t/n")
	w.do(nobody, "DELETE", lakeFS+"t/m", nil, 200)
	// A tree is deleted by lists only where every directory in it lets one.
	w.mkdir("t/tree/in", "x-ms-permissions: 0777", "x-ms-umask: 0000")
	set("key1", "t", 200, "x-ms-permissions: 0777")
	w.acl("t/tree", "user::rwx,group::rwx,other::rwx")
	w.acl("t/tree/in", "user::rwx,group::rwx,other::rw-")
	w.do(nobody, "DELETE", lakeFS+"t/tree?recursive=true", nil, 403)
	w.acl("t/tree/in", "user::rwx,group::rwx,other::rwx")
	w.do(nobody, "DELETE", lakeFS+"t/tree?recursive=true", nil, 200)
}

// A recursive change goes through all there is, in parts of any size, once each;
// by an owner it changes what is theirs, and says of the rest that it doesn't.
func TestRecursiveAccess(t *testing.T) {
	w := newWorld(t)
	w.lake()
	w.acl("", "user::rwx,group::---,other::--x")
	w.mkdir("a/b", "x-ms-owner: "+nobody)
	w.do("key1", "PATCH", lakeFS+"a?action=setAccessControl", nil, 200, "x-ms-owner: "+nobody)
	for i := range 5 {
		w.file(fmt.Sprintf("a/b/-f%d", i), "", "x-ms-owner: "+nobody)
	}
	w.file("a/z", "", "x-ms-owner: "+nobody)
	w.do("key1", "PUT", lakeFS+"-first?resource=file", nil, 201)
	type answer struct{ directories, files, failures, requests int }
	run := func(who, path, mode, acl string, most int, extra string) (out answer, failed []string) {
		t.Helper()
		next := ""
		for {
			r := w.do(who, "PATCH", fmt.Sprintf("%s%s?action=setAccessControlRecursive&mode=%s&maxRecords=%d&continuation=%s%s", lakeFS, path, mode, most, url.QueryEscape(next), extra), nil, 200, "x-ms-acl: "+acl)
			var j recursionJSON
			w.must(json.Unmarshal([]byte(r.body), &j))
			out.directories, out.files, out.failures, out.requests = out.directories+j.Directories, out.files+j.Files, out.failures+j.Failures, out.requests+1
			for _, f := range j.Failed {
				failed = append(failed, f.Type+" "+f.Name)
			}
			if next = r.header.Get("x-ms-continuation"); next == "" || out.requests > 50 {
				return out, failed
			}
		}
	}
	for _, most := range []int{1, 2, 3, 7, 100} {
		if got, _ := run("key1", "", modifiesList, "user:"+bob+":r-x", most, ""); got.directories != 3 || got.files != 7 || got.failures != 0 {
			t.Errorf("by %d: %+v", most, got)
		}
	}
	if got := w.shows("key1", "a/b/-f3"); !strings.Contains(got, "user:"+bob+":r-x") {
		t.Errorf("a file is %s", got)
	}
	if got, _ := run("key1", "a", removesList, "user:"+bob, 2, ""); got.directories != 2 || got.files != 6 {
		t.Errorf("removing: %+v", got)
	}
	if got := w.shows("key1", "a/b/-f3"); strings.Contains(got, bob) {
		t.Errorf("a file is %s", got)
	}
	w.do("key1", "PATCH", lakeFS+"a/b/-f2?action=setAccessControl", nil, 200, "x-ms-owner: "+contrib)
	got, failed := run(nobody, "a", setsLists, "user::rwx,group::r--,other::---", 3, "&forceFlag=true")
	if got.directories != 2 || got.files != 5 || got.failures != 1 || !slices.Equal(failed, []string{"FILE a/b/-f2"}) {
		t.Errorf("by an owner: %+v %v", got, failed)
	}
	if got, _ := run(nobody, "a", setsLists, "user::rwx,group::r--,other::---", 1, ""); got.failures != 1 || got.files >= 5 {
		t.Errorf("by an owner who does not go on: %+v", got)
	}
	w.do(nobody, "PATCH", lakeFS+"?action=setAccessControlRecursive&mode=set", nil, 403, "x-ms-acl: user::rwx,group::r--,other::---")
	w.do("key1", "PATCH", lakeFS+"a?action=setAccessControlRecursive&mode=set", nil, 400, "x-ms-acl: user::rwx")
	w.do("key1", "PATCH", lakeFS+"a?action=setAccessControlRecursive&mode=add", nil, 400, "x-ms-acl: user:"+bob+":rwx")
	w.do("key1", "PATCH", lakeFS+"a?action=setAccessControlRecursive&mode=set", nil, 400)
}

// What the lists allowed when a request came in is asked again in its transaction.
func TestAccessIsAskedAgain(t *testing.T) {
	w := newWorld(t)
	w.lake()
	w.acl("", "user::rwx,group::---,other::-wx")
	ctx := context.Background()
	on := gate.Target{ID: ContainerID(arm.MustID(accounts+"lake1"), "fsy"), Item: "new"}
	g, err := w.gate.Admit(ctx, person(nobody), BlobWrite, on)
	w.must(err)
	w.file("new", "somebody else's")
	_, err = w.s.Write(ctx, g, strings.NewReader("x"), 1, "", nil)
	if err = g.Close(ctx, err); arm.CodeOf(err) != arm.Forbidden {
		t.Errorf("a file that was made meanwhile was written over: %v", err)
	}
	if r := w.do("key1", "GET", lakeFS+"new", nil, 200); r.body != "somebody else's" {
		t.Errorf("the file has %q", r.body)
	}

	// So it is where something beside the bytes changes.
	for what, change := range map[string]func(g gate.Grant) error{
		"tier":     func(g gate.Grant) error { _, err := w.s.setTier(ctx, g, "Cool", moment{}, Conditions{}); return err },
		"seal":     func(g gate.Grant) error { _, err := w.s.seal(ctx, g, nil, Conditions{}); return err },
		"metadata": func(g gate.Grant) error { _, err := w.s.SetMeta(ctx, g, nil, Conditions{}); return err },
	} {
		w.file(what, "mine")
		w.acl(what, "user::rwx,group::---,other::rwx")
		at := on
		at.Item = what
		g, err := w.gate.Admit(ctx, person(nobody), BlobWrite, at)
		w.must(err)
		w.acl(what, "user::rwx,group::---,other::---")
		if err = g.Close(ctx, change(g)); arm.CodeOf(err) != arm.Forbidden {
			t.Errorf("%s: the access list was changed meanwhile, and the change came through: %v", what, err)
		}
	}
}
