//go:build linux && (amd64 || arm64)

package node

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// usersWork reports whether this process may make user namespaces.
var usersWork = sync.OnceValue(func() bool {
	exe, err := ownProgram()
	if err != nil {
		return false
	}
	cmd := &exec.Cmd{Path: exe, Args: []string{initName}, Env: []string{}, Dir: "/", SysProcAttr: &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: InnerUser, HostID: os.Geteuid(), Size: 1}},
	}}
	if cmd.Start() != nil {
		return false
	}
	cmd.Wait() // it finds no spec and ends
	return true
})

// Probe finds the strongest tier that works here by building an empty sandbox
// of each.
func Probe(ctx context.Context) Standing {
	s := Standing{Landlock: landlockABI()}
	for _, t := range []Tier{Root, Userns, Landlock} {
		p, err := start(ctx, Plan{Name: fmt.Sprintf("probe-%d-%s", os.Getpid(), t), Tier: t, User: 65534, Argv: []string{"/nothing"}, Dir: "/", Timeout: 10 * time.Second}, true)
		if err != nil {
			s.Missing = append(s.Missing, fmt.Sprintf("tier %s: %v", t, err))
			continue
		}
		exit := p.Wait()
		if exit.Reason != Exited {
			s.Missing = append(s.Missing, fmt.Sprintf("tier %s: %s", t, exit.Detail))
			continue
		}
		s.Tier, s.Users, s.Cgroups = t, t.Namespaced() && usersWork(), exit.Enforced
		return s
	}
	return s
}
