package node

import (
	"context"
	"fmt"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// What this machine holds is found by trying, and said.
func TestProbeSaysWhatHolds(t *testing.T) {
	s := Probe(context.Background())
	t.Log(fmt.Sprintf("%+v", s))
	if s.Tier == None && s.Refusal() == "" {
		t.Error("no tier and no reason")
	}
}
