package ml

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

const amlCompute = "AmlCompute"

// computeProps are a cluster's properties.
type computeProps struct {
	Type         string       `json:"computeType"`
	Description  string       `json:"description,omitempty"`
	LocalAuthOff *flag        `json:"disableLocalAuth,omitempty" arm:"only=true"`
	Location     string       `json:"computeLocation,omitempty"`
	ResourceID   string       `json:"resourceId,omitempty" arm:"only="`
	Cluster      clusterProps `json:"properties"`
	State        string       `json:"provisioningState,omitempty"`
	Errors       any          `json:"provisioningErrors,omitempty" arm:"readonly"`
	Attached     any          `json:"isAttachedCompute,omitempty" arm:"readonly"`
	Created      any          `json:"createdOn,omitempty" arm:"readonly"`
	Modified     any          `json:"modifiedOn,omitempty" arm:"readonly"`
}

// clusterProps are what the nodes are and how many. Nodes are sandboxes of this
// machine: there is no one to log in to, and nothing has a public address.
type clusterProps struct {
	VMSize        string        `json:"vmSize"`
	VMPriority    string        `json:"vmPriority,omitempty" arm:"only=Dedicated"`
	OS            string        `json:"osType,omitempty" arm:"only=Linux"`
	Scale         scaleSettings `json:"scaleSettings"`
	RemoteLogin   string        `json:"remoteLoginPortPublicAccess,omitempty" arm:"only=|NotSpecified|Disabled"`
	NodePublicIP  *flag         `json:"enableNodePublicIp,omitempty"`
	Isolated      *flag         `json:"isolatedNetwork,omitempty" arm:"only=false"`
	Users         any           `json:"userAccountCredentials,omitempty" arm:"only={}"`
	Subnet        any           `json:"subnet,omitempty" arm:"only={}"`
	Image         any           `json:"virtualMachineImage,omitempty" arm:"only={}"`
	Bag           *clusterBag   `json:"propertyBag,omitempty"`
	Allocation    any           `json:"allocationState,omitempty" arm:"readonly"`
	Transition    any           `json:"allocationStateTransitionTime,omitempty" arm:"readonly"`
	Current       any           `json:"currentNodeCount,omitempty" arm:"readonly"`
	Target        any           `json:"targetNodeCount,omitempty" arm:"readonly"`
	Counts        any           `json:"nodeStateCounts,omitempty" arm:"readonly"`
	ClusterErrors any           `json:"errors,omitempty" arm:"readonly"`
}

// clusterBag is what Azure leaves to whoever runs a cloud.
type clusterBag struct {
	BindTokens flag `json:"bindTokens"` // tokens of the cluster's identities are good out of the sandbox that got them alone
}

type scaleSettings struct {
	Max  int    `json:"maxNodeCount"`
	Min  int    `json:"minNodeCount"`
	Idle string `json:"nodeIdleTimeBeforeScaleDown,omitempty"`
}

// UnmarshalJSON reads a compute, if it is a cluster.
func (p *computeProps) UnmarshalJSON(b []byte) error {
	type plain computeProps
	state := p.State
	if err := chosen(b, "computeType", "types of computes", (*plain)(p), amlCompute); err != nil {
		return err
	}
	if p.State == "" {
		p.State = state
	}
	return nil
}

var (
	listNodes   = arm.NewAction(workspaceType+"/computes/listNodes/action", "list the nodes of a cluster")
	computeName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9-]{0,30}[a-zA-Z0-9]$`)
)

// maxNodes is the most nodes that one cluster may have.
const maxNodes = 100

func (s *Service) computeKind() *resource.Kind {
	return &resource.Kind{
		Type: workspaceType + "/computes", Doc: "a compute", Parent: s.kinds.workspace,
		Props: func() any {
			return &computeProps{Cluster: clusterProps{VMPriority: "Dedicated", OS: "Linux", RemoteLogin: "NotSpecified", Scale: scaleSettings{Idle: "PT120S"}}}
		},
		Identity: func(d *resource.Doc) string { return d.ID.Parent().Name() + "/computes/" + d.Name },
		Check:    s.checkCompute,
		Apply:    s.applyCompute,
		Settled:  func(*resource.Doc) { s.engine.wake() },
		Show:     s.showCompute,
		Posts:    []resource.Post{{Name: "listNodes", Action: listNodes, Do: s.listNodes}},
	}
}

// checkCompute judges a cluster by itself.
func (s *Service) checkCompute(c resource.Change) error {
	if !computeName.MatchString(c.Doc.Name) {
		return arm.Errorf(arm.InvalidResourceName, "the compute name %q must be 2 to 32 letters, digits and hyphens, begin with a letter and not end with a hyphen", c.Doc.Name)
	}
	if i := c.Doc.Identity; i.Has() && len(i.Users) > 0 {
		return arm.Errorf(arm.BadRequest, "identity.type is %q; a cluster has either a system-assigned identity or user-assigned ones, never both", i.Type)
	}
	p, err := props[computeProps](c.Doc)
	if err != nil {
		return err
	}
	if p.Type == "" {
		return arm.Errorf(arm.BadRequest, "computeType is missing; supported: %s", amlCompute)
	}
	if _, err := s.size(p.Cluster.VMSize); err != nil {
		return err
	}
	if c.Old != nil {
		was, err := props[computeProps](c.Old)
		if err != nil {
			return err
		}
		if !strings.EqualFold(was.Cluster.VMSize, p.Cluster.VMSize) {
			return arm.Errorf(arm.BadRequest, "vmSize is %s and can't be changed; make another cluster", was.Cluster.VMSize)
		}
	}
	n := p.Cluster.Scale
	if n.Max < 1 || n.Max > maxNodes || n.Min < 0 || n.Min > n.Max {
		return arm.Errorf(arm.BadRequest, "scaleSettings are from %d to %d nodes; maxNodeCount must be from 1 to %d and minNodeCount from 0 to maxNodeCount", n.Min, n.Max, maxNodes)
	}
	_, err = duration(n.Idle)
	return err
}

// applyCompute lets the cluster's identity pull images, if the workspace has a
// registry.
func (s *Service) applyCompute(ctx context.Context, d *resource.Doc) error {
	w, err := s.load(ctx, d.ID.Parent())
	if err != nil {
		return err
	}
	if w.ContainerRegistry.IsZero() || !d.Identity.Has() {
		return nil
	}
	if err := s.asMade(ctx, w.ContainerRegistry, "containerRegistry", w.workspaceInner.Registry); err != nil {
		return err
	}
	scope := w.ContainerRegistry.ID
	if s.Roles.Has(d.Identity.Principal, roleAcrPull, scope) {
		return nil
	}
	return s.Roles.Assign(ctx, s.system("setting up the cluster "+d.Name, scope, assignRole), d.Identity.Principal, roleAcrPull, scope)
}

// showCompute adds how many nodes there are. A node is there while it runs a
// job or is held ready, which costs nothing here.
func (s *Service) showCompute(d *resource.Doc, p map[string]any) {
	in, err := props[computeProps](d)
	if err != nil {
		return
	}
	running := len(s.engine.onCluster(d.ID))
	idle := max(in.Cluster.Scale.Min-running, 0)
	if c, ok := p["properties"].(map[string]any); ok {
		c["allocationState"], c["currentNodeCount"], c["targetNodeCount"], c["errors"] = "Steady", running+idle, running+idle, nil
		c["nodeStateCounts"] = map[string]int{"idleNodeCount": idle, "runningNodeCount": running, "preparingNodeCount": 0, "unusableNodeCount": 0, "leavingNodeCount": 0, "preemptedNodeCount": 0}
	}
	p["isAttachedCompute"], p["provisioningErrors"], p["disableLocalAuth"] = false, nil, true
	if d.System != nil {
		p["createdOn"], p["modifiedOn"] = d.System.CreatedAt.Format(time.RFC3339), d.System.ModifiedAt.Format(time.RFC3339)
	}
}

// listNodes lists the nodes that run something.
func (s *Service) listNodes(_ context.Context, g gate.Grant, _ *resource.Doc, _ []byte) (int, any, error) {
	id, err := g.On(listNodes)
	if err != nil {
		return 0, nil, err
	}
	nodes := []any{}
	for _, run := range s.engine.onCluster(id) {
		nodes = append(nodes, map[string]any{"nodeId": "node-" + run, "nodeState": "running", "runId": run, "privateIpAddress": "127.0.0.1", "publicIpAddress": nil, "port": nil})
	}
	return http.StatusOK, map[string]any{"nodes": nodes}, nil
}

// cluster is a cluster, read for work.
type cluster struct {
	*resource.Doc
	computeProps
	size Size
}

// clusterIn loads a cluster in tx; ok is false if there is none.
func (s *Service) clusterIn(tx *store.Tx, id arm.ID) (c cluster, ok bool, err error) {
	if c.Doc, err = resource.Load(tx, id); err != nil || c.Doc == nil {
		return c, false, err
	}
	if c.computeProps, err = props[computeProps](c.Doc); err != nil {
		return c, false, err
	}
	c.size, err = s.size(c.Cluster.VMSize)
	return c, err == nil, err
}
