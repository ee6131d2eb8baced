package ml

import (
	"strings"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Facts is what other services must know of a workspace.
type Facts struct {
	ID        arm.ID
	UID       string // its GUID (properties.workspaceId)
	Account   arm.ID // its storage account
	Container string // the container of the account that artifacts lie in
	Identity  string // object id of the workspace's identity
}

// Facts are those of the workspace id; ok is false if there is none. They need
// no grant, for they open nothing.
func (s *Service) Facts(tx *store.Tx, id arm.ID) (f Facts, ok bool, err error) {
	d, err := resource.Load(tx, id)
	if err != nil || d == nil || !strings.EqualFold(d.Type, workspaceType) {
		return Facts{}, false, err
	}
	w, err := s.readWorkspace(d)
	return Facts{ID: d.ID, UID: w.workspaceInner.ID, Account: w.StorageAccount.ID, Container: artifactContainer, Identity: w.principal()}, err == nil, err
}

// PolicyFacts are what policies may ask of a job that is not in its properties.
type PolicyFacts struct {
	Compute, ComputeType string
	Isolated             bool     // the compute is in a network of its own
	Tags                 []string // of the compute, each NAME:VALUE
	Image                string
	Authors              []string // who wrote the command, and the code
}

// PolicyFacts resolves what a job names, as it is now.
func (s *Service) PolicyFacts(tx *store.Tx, d *resource.Doc) (f PolicyFacts, err error) {
	p, err := props[jobProps](d)
	if err != nil {
		return f, err
	}
	w, err := s.workspaceIn(tx, d.ID.Parent())
	if err != nil {
		return f, err
	}
	if err := s.checkTargets(tx, w, p); err != nil {
		return f, err
	}
	cl, _, err := s.clusterIn(tx, p.ComputeID.ID)
	if err != nil {
		return f, err
	}
	f.Compute, f.ComputeType = cl.Doc.Name, "MachineLearningCompute"
	f.Isolated = cl.Cluster.Isolated != nil && bool(*cl.Cluster.Isolated)
	for _, k := range sortedKeys(cl.Doc.Tags) {
		f.Tags = append(f.Tags, k+":"+cl.Doc.Tags[k])
	}
	wrote := []*resource.Doc{d}
	env, err := s.version(tx, w, "environments", p.Environment)
	if err != nil {
		return f, err
	}
	e, err := props[envProps](env)
	if err != nil {
		return f, err
	}
	f.Image = e.Image
	if p.CodeID != "" {
		code, err := s.version(tx, w, "codes", p.CodeID)
		if err != nil {
			return f, err
		}
		wrote = append(wrote, code)
	}
	for _, d := range wrote {
		who := ""
		if d.System != nil {
			who = d.System.CreatedBy
		}
		f.Authors = append(f.Authors, who)
	}
	return f, nil
}
