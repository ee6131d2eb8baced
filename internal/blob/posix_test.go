package blob

import (
	"strings"
	"testing"

	"castellan/internal/arm"
)

const (
	ann = "aaaaaaaa-0000-0000-0000-000000000001"
	bob = "aaaaaaaa-0000-0000-0000-000000000002"
	eve = "aaaaaaaa-0000-0000-0000-000000000003"
	g1  = "aaaaaaaa-0000-0000-0000-0000000000f1"
	g2  = "aaaaaaaa-0000-0000-0000-0000000000f2"
)

func accessOf(t *testing.T, acl string) *access {
	t.Helper()
	l, err := parseACL(acl, true)
	if err != nil {
		t.Fatal(err)
	}
	a, err := (&access{Owner: ann, Group: g1, List: ofMode(0)}).changed(setsLists, l, true)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func itself(id string) string { return id }

// The check that Azure documents: owner, named users by the mask, groups by the
// mask, and others.
func TestAccessIsChecked(t *testing.T) {
	for _, x := range []struct {
		acl, who, groups, may string
	}{
		{"user::r--,group::rwx,other::rwx", ann, "", "r"},
		{"user::r--,group::rwx,other::rwx", ann, g1, "r"},
		{"user::---,group::rwx,other::r-x", bob, "", "rx"},
		{"user::---,group::rw-,other::---", bob, g1, "rw"},
		{"user::---,group::rw-,other::---", bob, g2, ""},
		{"user::---,user:" + bob + ":rwx,group::---,mask::r--,other::---", bob, "", "r"},
		{"user::---,user:" + bob + ":---,group::rwx,other::rwx", bob, g1, ""},
		{"user::---,group::---,group:" + g2 + ":rwx,mask::-wx,other::---", bob, g2, "wx"},
		{"user::---,group::r--,group:" + g2 + ":-wx,other::---", bob, g1 + " " + g2, "rwx"},
		{"user::rwx,user:" + bob + ":rwx,group::rwx,other::---", eve, "", ""},
		{"user::rwx,user:" + bob + ":rwx,group::rwx,other::---", "", "", ""},
	} {
		a := accessOf(t, x.acl)
		who := arm.Caller{Object: x.who, Groups: strings.Fields(x.groups)}
		got := ""
		for i, b := range []bits{canRead, canWrite, canExecute} {
			if a.lets(who, b) {
				got += "rwx"[i : i+1]
			}
		}
		if got != x.may {
			t.Errorf("%s lets %s (%s) %q, want %q", x.acl, x.who, x.groups, got, x.may)
		}
	}
	if (*access)(nil).lets(arm.Caller{Object: ann}, 0) || (&access{}).lets(arm.Caller{Object: ann}, canRead) {
		t.Error("no access lets somebody in")
	}
}

// What is made in a directory has the access that POSIX gives it.
func TestAccessIsInherited(t *testing.T) {
	plain := accessOf(t, "user::rwx,group::r-x,other::---")
	with := accessOf(t, "user::rwx,group::r-x,other::---,default:user::rwx,default:user:"+bob+":rwx,default:group::r-x,default:mask::rwx,default:other::r--")
	for _, x := range []struct {
		in          *access
		dir         bool
		mode, umask int
		want        string
	}{
		{plain, false, 0o666, 0o027, "user::rw-,group::r--,other::---"},
		{plain, true, 0o777, 0o027, "user::rwx,group::r-x,other::---"},
		{plain, true, 0o777, 0o057, "user::rwx,group::-w-,other::---"},
		{with, false, 0o666, 0o777, "user::rw-,user:" + bob + ":rwx,group::r-x,mask::rw-,other::r--"},
		{with, true, 0o700, 0, "user::rwx,user:" + bob + ":rwx,group::r-x,mask::---,other::---,default:user::rwx,default:user:" + bob + ":rwx,default:group::r-x,default:mask::rwx,default:other::r--"},
	} {
		got := x.in.inherit(eve, x.dir, x.mode, x.umask)
		if got.text(itself) != x.want || got.Owner != eve || got.Group != g1 {
			t.Errorf("made with %o &^ %o: %s of %s and %s, want %s", x.mode, x.umask, got.text(itself), got.Owner, got.Group, x.want)
		}
	}
}

// Lists are changed as setfacl changes them; what no list can be is refused.
func TestAccessListsAreChanged(t *testing.T) {
	base := accessOf(t, "user::rwx,user:"+bob+":r--,group::r-x,other::---")
	for _, x := range []struct{ how, acl, want string }{
		{modifiesList, "user:" + eve + ":-wx", "user::rwx,user:" + bob + ":r--,user:" + eve + ":-wx,group::r-x,mask::rwx,other::---"},
		{modifiesList, "other::r--,mask::r--", "user::rwx,user:" + bob + ":r--,group::r-x,mask::r--,other::r--"},
		{modifiesList, "default:user:" + eve + ":rwx", "user::rwx,user:" + bob + ":r--,group::r-x,mask::r-x,other::---,default:user::rwx,default:user:" + eve + ":rwx,default:group::r-x,default:mask::rwx,default:other::---"},
		{removesList, "user:" + bob + ",user:" + eve, "user::rwx,group::r-x,mask::r-x,other::---"},
		{removesList, "mask", "user::rwx,user:" + bob + ":r--,group::r-x,mask::r-x,other::---"},
		{removesList, "default", "user::rwx,user:" + bob + ":r--,group::r-x,mask::r-x,other::---"},
		{setsLists, "user::r--,group::r--,other::r--", "user::r--,group::r--,other::r--"},
	} {
		l, err := parseACL(x.acl, x.how != removesList)
		if err != nil {
			t.Fatal(err)
		}
		got, err := base.changed(x.how, l, true)
		if err != nil || got.text(itself) != x.want {
			t.Errorf("%s %s: %v %v, want %s", x.how, x.acl, got.text(itself), err, x.want)
		}
	}
	if base.text(itself) != "user::rwx,user:"+bob+":r--,group::r-x,mask::r-x,other::---" {
		t.Errorf("the list itself was changed: %s", base.text(itself))
	}
	for _, acl := range []string{"", "x", "user::rwx", "user::rwx,group::rwx", "user::rwx,user::rwx,group::r--,other::---", "user:bob:rwx,user::rwx,group::rwx,other::---", "mask:" + bob + ":rwx", "owner::rwx", "user::rwz,group::---,other::---", "user::7,group::7,other::7", "default:default:user::rwx", "user::rwx:,group::---,other::---", strings.Repeat("user:"+bob+":rwx,", 40)} {
		l, err := parseACL(acl, true)
		if err == nil {
			_, err = base.changed(setsLists, l, true)
		}
		if arm.CodeOf(err) != "InvalidAccessControlList" {
			t.Errorf("%q is taken: %v", acl, err)
		}
	}
	for _, acl := range []string{"user::", "other", "group", "user:" + bob + ":rwx", "all", "default:user"} {
		if _, err := parseACL(acl, false); err == nil {
			t.Errorf("%q can be removed", acl)
		}
	}
}

// Modes are read and shown in octal and in symbols.
func TestModes(t *testing.T) {
	for text, want := range map[string]string{"0750": "rwxr-x---", "rwxr-x---": "rwxr-x---", "1777": "rwxrwxrwt", "rwxrwx--T": "rwxrwx--T", "0000": "---------"} {
		mode, err := parseMode("h", text, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := (&access{List: ofMode(0)}).chmod(mode).mode(); got != want {
			t.Errorf("%s is shown as %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{"", "777", "0788", "2777", "00777", "rwx", "rwxrwxrwz", "wrxrwxrwx", "rwsrwxrwx"} {
		if _, err := parseMode("h", text, false); err == nil {
			t.Errorf("%q is a mode", text)
		}
	}
	a := accessOf(t, "user::rwx,user:"+bob+":rwx,group::r-x,mask::rwx,other::---").chmod(0o640)
	if got := a.text(itself); got != "user::rw-,user:"+bob+":rwx,group::r-x,mask::r--,other::---" || a.mode() != "rw-r-----+" {
		t.Errorf("chmod gives %s %s", got, a.mode())
	}
}
