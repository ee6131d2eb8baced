package ml

import (
	"strings"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// What jobs can run in, until there is a registry: this machine's own programs,
// read-only.
const (
	hostEnvironment = "host"
	hostImage       = "castellan.local/host:1"
)

// envProps are the properties of a version of an environment.
type envProps struct {
	assetProps
	Image       string `json:"image,omitempty"`
	Conda       string `json:"condaFile,omitempty"`
	Build       any    `json:"build,omitempty"`
	Inference   any    `json:"inferenceConfig,omitempty" arm:"only={}"`
	OS          string `json:"osType,omitempty" arm:"only=Linux"`
	AutoRebuild string `json:"autoRebuild,omitempty" arm:"only=Disabled,since=2022-10-01"`
	Type        any    `json:"environmentType,omitempty" arm:"readonly"`
	State       any    `json:"provisioningState,omitempty" arm:"readonly,since=2022-10-01-preview"`
	IP          any    `json:"intellectualProperty,omitempty" arm:"only={},since=2023-04-01-preview previews"`
	Stage       string `json:"stage,omitempty" arm:"since=2023-04-01-preview"`
}

func (s *Service) envVersionKind() *resource.Kind {
	return &resource.Kind{
		Type: workspaceType + "/environments/versions", Doc: "a version of an environment", Parent: s.kinds.env,
		Props:  func() any { return &envProps{} },
		Check:  checkEnvironment,
		Save:   func(tx *store.Tx, c resource.Change) error { return s.versionAdded(tx, s.kinds.env, c, "") },
		Remove: versionRemoved,
		Show: func(d *resource.Doc, p map[string]any) {
			p["provisioningState"], p["osType"], p["environmentType"] = "Succeeded", "Linux", "UserCreated"
			if strings.EqualFold(d.ID.Parent().Name(), hostEnvironment) {
				p["environmentType"] = "Curated"
			}
		},
		Filter: byView,
	}
}

// checkEnvironment refuses what could not be run as it says.
func checkEnvironment(c resource.Change) error {
	p, err := props[envProps](c.Doc)
	if err != nil {
		return err
	}
	const allowed = "the one image is " + hostImage + ", this machine's own programs read-only, without conda packages or a build; the environment " + hostEnvironment + ", version 1, is it"
	switch {
	case p.Build != nil:
		return arm.Errorf(arm.Unsupported, "build is given, but this installation builds no images; %s", allowed)
	case p.Conda != "":
		return arm.Errorf(arm.Unsupported, "condaFile is given, but this installation builds no images; %s", allowed)
	case p.Image == "":
		return arm.Errorf(arm.BadRequest, "image is missing; %s", allowed)
	case p.Image != hostImage:
		return arm.Errorf(arm.Unsupported, "image is %q, but this installation has no registry yet; %s", p.Image, allowed)
	}
	return nil
}
