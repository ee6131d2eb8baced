package ml

import (
	"encoding/json"
	"fmt"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/resource"
)

// checkJob judges a job by itself, and a change of one by what was.
func checkJob(c resource.Change) error {
	p, err := props[jobProps](c.Doc)
	if err != nil {
		return err
	}
	if !jobName.MatchString(c.Doc.Name) {
		return arm.Errorf(arm.InvalidResourceName, "the job name %q must be letters, digits, hyphens and underscores, and begin with a letter or digit", c.Doc.Name)
	}
	if err := p.check(); err != nil {
		return err
	}
	if c.Old == nil {
		return nil
	}
	was, err := props[jobProps](c.Old)
	if err != nil {
		return err
	}
	if field := was.differs(p); field != "" {
		return arm.Errorf(arm.Conflict, "the job %s exists and its %s is another; of a job that was submitted only displayName, description, tags, properties and isArchived can be changed", c.Doc.Name, field)
	}
	return nil
}

func (p jobProps) check() error {
	switch {
	case p.Type == "":
		return arm.Errorf(arm.BadRequest, "jobType is missing; supported: %s", commandJob)
	case strings.TrimSpace(p.Command) == "" || len(p.Command) > maxCommand || strings.ContainsRune(p.Command, 0):
		return arm.Errorf(arm.BadRequest, "command has %d bytes; it must have from 1 to %d, none of them NUL", len(p.Command), maxCommand)
	case p.Environment == "":
		return arm.Errorf(arm.BadRequest, "environmentId is missing; it may be azureml:%s:1", hostEnvironment)
	case p.ComputeID.IsZero():
		return arm.Errorf(arm.BadRequest, "computeId is missing; a job needs a cluster, for there is no serverless compute here")
	case !experimentRE.MatchString(p.Experiment):
		return arm.Errorf(arm.BadRequest, "experimentName is %q; it must be letters, digits, hyphens, underscores and dots", p.Experiment)
	case p.Resources != nil && p.Resources.Instances > 1:
		return arm.Errorf(arm.Unsupported, "resources.instanceCount is %d; a job runs on one node", p.Resources.Instances)
	}
	if err := p.ComputeID.is(workspaceType+"/computes", "computeId"); err != nil {
		return err
	}
	if p.Limits != nil {
		if _, err := duration(p.Limits.Timeout); err != nil {
			return err
		}
	}
	if err := p.checkIdentity(); err != nil {
		return err
	}
	for name, v := range p.Variables {
		if !inputName.MatchString(name) || strings.ContainsRune(v, 0) {
			return arm.Errorf(arm.BadRequest, "environmentVariables has the name %q; a name has letters, digits and underscores, begins with no digit, and no value has a NUL", name)
		}
	}
	if err := p.checkPorts(); err != nil {
		return err
	}
	_, err := p.render(func(name string) string { return name }, func(name string) string { return name })
	return err
}

func (p jobProps) checkIdentity() error {
	if p.Identity == nil {
		return nil
	}
	i := *p.Identity
	switch strings.ToLower(i.Type) {
	case "managed":
		return nil
	case "amltoken", "useridentity":
		if i.Client+i.Object+i.Resource != "" {
			return arm.Errorf(arm.BadRequest, "identity.identityType is %s, with which clientId, objectId and resourceId mean nothing; they go with Managed", i.Type)
		}
		return nil
	}
	return arm.Errorf(arm.BadRequest, "identity.identityType is %q; supported: AMLToken, Managed, UserIdentity", i.Type)
}

// checkPorts judges inputs and outputs.
func (p jobProps) checkPorts() error {
	for name, in := range p.Inputs {
		switch {
		case !inputName.MatchString(name):
			return arm.Errorf(arm.BadRequest, "inputs has the name %q; a name has letters, digits and underscores and begins with no digit", name)
		case in == nil || in.Type == "":
			return arm.Errorf(arm.BadRequest, "inputs.%s has no jobInputType; supported: literal, uri_file, uri_folder", name)
		case !in.literal() && in.URI == "":
			return arm.Errorf(arm.BadRequest, "inputs.%s has no uri", name)
		}
		if _, err := in.text(); err != nil {
			return arm.Errorf(arm.BadRequest, "inputs.%s: %s", name, err)
		}
	}
	for name, out := range p.Outputs {
		if !inputName.MatchString(name) || out == nil || out.Type == "" {
			return arm.Errorf(arm.BadRequest, "outputs.%s must have a name of letters, digits and underscores and the jobOutputType uri_file or uri_folder", name)
		}
	}
	return nil
}

func (in *jobInput) literal() bool { return strings.EqualFold(in.Type, "literal") }

// text is a literal as the command sees it.
func (in *jobInput) text() (string, error) {
	switch v := in.Value.(type) {
	case nil:
		return "", nil
	case string:
		if strings.ContainsRune(v, 0) {
			return "", fmt.Errorf("value has a NUL")
		}
		return v, nil
	case bool, float64, json.Number:
		return fmt.Sprint(v), nil
	}
	return "", fmt.Errorf("value must be a string, a number or a boolean")
}

// differs names the first field that may not change but does.
func (p jobProps) differs(q jobProps) string {
	for _, f := range []struct {
		name string
		a, b any
	}{
		{"command", p.Command, q.Command}, {"codeId", strings.ToLower(p.CodeID), strings.ToLower(q.CodeID)}, {"environmentId", strings.ToLower(p.Environment), strings.ToLower(q.Environment)},
		{"computeId", p.ComputeID.Key(), q.ComputeID.Key()}, {"experimentName", p.Experiment, q.Experiment},
		{"environmentVariables", p.Variables, q.Variables}, {"inputs", p.Inputs, q.Inputs}, {"outputs", p.Outputs, q.Outputs},
		{"identity", p.Identity, q.Identity}, {"limits", p.Limits, q.Limits}, {"resources", p.Resources, q.Resources},
	} {
		a, _ := json.Marshal(f.a) // what came from JSON goes back to it
		b, _ := json.Marshal(f.b)
		if string(a) != string(b) && !(empty(a) && empty(b)) {
			return f.name
		}
	}
	return ""
}

func empty(b []byte) bool { return string(b) == "null" || string(b) == "{}" || string(b) == `""` }

// jobLinks: who submits to a cluster must see it.
func jobLinks(d *resource.Doc) ([]resource.Linked, error) {
	p, err := props[jobProps](d)
	if err != nil || p.ComputeID.IsZero() {
		return nil, err
	}
	return []resource.Linked{{Action: readComputes, ID: p.ComputeID.ID, Field: "computeId"}}, nil
}
