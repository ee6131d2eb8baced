package app

import (
	"context"

	"castellan/internal/arm"
	"castellan/internal/compliance"
	"castellan/internal/deploy"
	"castellan/internal/gate"
	"castellan/internal/ml"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Every call from one service to another stands on this page. A link goes
// through the gate as the right caller, unless it only looks something up.

// ownerRole is Azure's Owner.
const ownerRole = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"

// system is a worker of the platform, which may do what the lease names and
// nothing else. A nil lease may do nothing through the gate.
func (a *App) system(tenant, name string, lease *arm.Lease) arm.Caller {
	if lease == nil {
		lease = &arm.Lease{Why: "nothing"}
	}
	return arm.Caller{Tenant: tenant, Object: "system:" + name, Name: "the platform's " + name, Kind: arm.ServicePrincipal, Token: "system", Lease: lease}
}

// directory is what governance asks of identity: facts, which need no grant.
type directory struct{ a *App }

func (d directory) Principal(tx *store.Tx, tenant, id string) (arm.Kind, bool, error) {
	return d.a.identity.Principal(tx, tenant, id)
}

func (d directory) Groups(tx *store.Tx, tenant, id string) ([]string, error) {
	return d.a.identity.Groups(tx, tenant, id)
}

// policyJobs tells policies of jobs, and jobs of policies. Neither opens anything:
// what they say goes no further than who may submit the job.
type policyJobs struct{ a *App }

func (l policyJobs) facts(tx *store.Tx, d *resource.Doc) (compliance.Job, error) {
	f, err := l.a.ml.PolicyFacts(tx, d)
	return compliance.Job(f), err
}

// Job is ml's question what a job must keep.
func (l policyJobs) Job(tx *store.Tx, d *resource.Doc) ([]ml.LogFilter, error) {
	found, err := l.a.policies.JobSettings(tx, d)
	var out []ml.LogFilter
	for _, f := range found {
		out = append(out, ml.LogFilter(f))
	}
	return out, err
}

// policyDoors carries what a policy assignment does about a resource, as its
// identity, through the gate.
type policyDoors struct{ a *App }

func (d policyDoors) Do(ctx context.Context, tenant, object, method string, id arm.ID, apiVersion string, body []byte) (int, []byte, error) {
	as, err := d.a.identity.Known(tenant, object)
	if err != nil {
		return 0, nil, err
	}
	in := deploy.Inside{Gate: d.a.gate, Plane: func() *gate.Plane { return d.a.Planes[0] }, Site: d.a.Site}
	answer, err := in.Do(ctx, as, method, id, apiVersion, body)
	return answer.Status, answer.Body, err
}
