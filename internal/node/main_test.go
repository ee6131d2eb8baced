//go:build linux && (amd64 || arm64)

package node

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

func TestMain(m *testing.M) {
	Main()
	code := m.Run()
	if code == 0 && os.Geteuid() == 0 {
		code = asOrdinaryUser()
	}
	os.Exit(code)
}

// asOrdinaryUser runs all tests again as nobody, in whose hands the weaker
// tiers are.
func asOrdinaryUser() int {
	args := []string{"node.test"}
	for _, name := range []string{"test.run", "test.v", "test.timeout"} {
		args = append(args, "-"+name+"="+flag.Lookup(name).Value.String())
	}
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: args, Dir: "/", Stdout: os.Stdout, Stderr: os.Stderr,
		Env:         []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=/tmp", "HOME=/nonexistent"},
		SysProcAttr: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}}
	fmt.Println("again as user 65534:")
	if err := cmd.Run(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// What this machine holds is found by trying, and said.
func TestProbeSaysWhatHolds(t *testing.T) {
	s := Probe(context.Background())
	t.Logf("%+v", s)
	if s.Tier == None && s.Refusal() == "" {
		t.Error("no tier and no reason")
	}
}
