//go:build !linux || !(amd64 || arm64)

package node

import (
	"context"
	"errors"
	"io/fs"
	"net"
)

const openSafely = 0

func diskSize(st fs.FileInfo) int64 { return st.Size() }

// Main does nothing here: there are no sandboxes.
func Main() {}

// Probe says that there is no sandbox here.
func Probe(context.Context) Standing {
	return Standing{Missing: []string{"sandboxes need Linux on amd64 or arm64"}}
}

// Process is never made here.
type Process struct{}

// Start refuses.
func Start(context.Context, Plan) (*Process, error) {
	return nil, errors.New("sandboxes need Linux on amd64 or arm64")
}

// Listeners are none.
func (p *Process) Listeners() map[string]net.Listener { return nil }

// Wait tells that nothing ran.
func (p *Process) Wait() Exit { return Exit{Reason: Broken} }

// Done is nil.
func (p *Process) Done() <-chan struct{} { return nil }

// Stop does nothing.
func (p *Process) Stop() {}

// Encrypt refuses.
func Encrypt(string) (func() error, error) { return nil, ErrPlain }

// ForgetKey does nothing: no folder has a key.
func ForgetKey(string) error { return nil }

// InMemory is not known here.
func InMemory(string) bool { return false }

// SweepCgroups does nothing.
func SweepCgroups(string) {}
