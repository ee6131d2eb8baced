// Package node is what touches the kernel: it starts one command in a sandbox, as a complete plan says, and watches it until it ends.
//
// The law of the package: a plan is carried out whole or not at all. Whatever
// this machine cannot hold is refused before the command runs, and what is only
// advisory is said so in the result. README-level explanation of the tiers and
// of what was left out stands in docs/decisions/sandbox.md.
package node

import (
	"encoding/json"
	"fmt"
)

// Tier is how much isolation this machine can hold; it is found by trying.
type Tier string

// The tiers, from the strongest. The zero Tier is None: no jobs run.
const (
	None     Tier = ""         // nothing can be held; jobs are refused
	Landlock Tier = "landlock" // no namespaces: Landlock, seccomp and rlimits
	Userns   Tier = "userns"   // all namespaces, by an ordinary user
	Root     Tier = "root"     // all namespaces, a host user per sandbox, cgroups
)

// String is the tier's name; that of None is "none".
func (t Tier) String() string {
	if t == None {
		return "none"
	}
	return string(t)
}

// Namespaced reports whether a sandbox of this tier has file system, network
// and processes of its own.
func (t Tier) Namespaced() bool { return t == Userns || t == Root }

// MarshalJSON writes the tier's name, so that no isolation reads "none" and not "".
func (t Tier) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }

// UnmarshalJSON reads what MarshalJSON writes.
func (t *Tier) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	switch got := Tier(s); got {
	case Landlock, Userns, Root:
		*t = got
	case "", "none":
		*t = None
	default:
		return fmt.Errorf("tier %q is not one of none, landlock, userns, root", s)
	}
	return nil
}

// Standing is what Probe found out about this machine.
type Standing struct {
	Tier     Tier     // the strongest tier that works here
	Missing  []string // why each stronger tier does not work, one sentence each
	Landlock int      // Landlock's ABI; 0 where the kernel has none
	Users    bool     // a sandbox gets a user namespace of its own
	Cgroups  []string // resources that the kernel limits per sandbox: memory, pids, cpu
}

// Refusal is the reason why jobs cannot run here, "" if they can.
func (s Standing) Refusal() string {
	if s.Tier != None {
		return ""
	}
	why := "this machine holds no sandbox, so jobs are refused"
	for _, m := range s.Missing {
		why += "; " + m
	}
	return why
}
