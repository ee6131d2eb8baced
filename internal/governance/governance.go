// Package governance keeps role assignments and role definitions as resources.
//
// The store has the truth; the rbac.Engine follows it after every commit and is
// filled from it by Load, so that a crash leaves no difference between the two.
package governance

import (
	"context"
	"errors"
	"slices"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/gate"
	"castellan/internal/rbac"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Directory is what governance needs to know of principals. It is asked in the
// transaction of the assignment, so a principal made in it is there already.
type Directory interface {
	// Principal is the kind of the principal with this object id, whatever the
	// id's letter case; ok is false if the tenant has none.
	Principal(tx *store.Tx, tenant, id string) (kind arm.Kind, ok bool, err error)
	// Groups are the object ids of all groups that the principal is in, also by
	// nesting; none for a principal that is not there.
	Groups(tx *store.Tx, tenant, id string) ([]string, error)
}

// Config is what a Service is made of. All but Exists must be there.
type Config struct {
	DB        *store.DB
	Log       *audit.Log // where decisions are found that are to be explained
	Gate      *gate.Gate
	Engine    *rbac.Engine // made with rbac.BuiltIn
	Directory Directory
	Site      arm.Site
	Now       func() time.Time
	// Known is somebody as the directory knows them now; an error means that it
	// does not, or that they may not sign in.
	Known func(tenant, object string) (arm.Caller, error)
	// Members are the object ids of what is in a group itself, not by nesting;
	// none of what is no group of the tenant.
	Members func(tenant, group string) []string
	// Actions are all actions that the platform's doors ask for, each once.
	Actions func() []arm.Action
	// Exists says whether id is a scope that package resource does not keep,
	// such as a blob container; without it there are no such scopes.
	Exists func(tx *store.Tx, id arm.ID) (bool, error)
	// BreakGlass says whether a person's account is for emergencies, in which
	// nobody may be there to approve; without it no account is.
	BreakGlass func(tx *store.Tx, tenant, id string) (bool, error)
	// Elevates says whether the directory lets somebody make themselves User Access
	// Administrator of all the tenant has: Global Administrators. Without it nobody may.
	Elevates func(c arm.Caller) bool
	// Removed is told of a management group that is gone; without it DropScope is.
	Removed func(tx *store.Tx, d *resource.Doc) error
	// Judge says whether a role assignment that somebody writes may be so; nil
	// lets all be.
	Judge func(tx *store.Tx, d *resource.Doc, by arm.Caller) error
}

// Service keeps who has which role where.
type Service struct {
	Config
	builtIn map[string]rbac.Role // by GUID
	named   map[string]string    // GUID of a built-in role, by its name in lower case
}

// The actions that governance asks for.
var (
	ReadAssignment   = arm.NewAction("Microsoft.Authorization/roleAssignments/read", "see who has which role")
	WriteAssignment  = arm.NewAction("Microsoft.Authorization/roleAssignments/write", "give somebody a role")
	DeleteAssignment = arm.NewAction("Microsoft.Authorization/roleAssignments/delete", "take a role from somebody")
	ReadDefinition   = arm.NewAction("Microsoft.Authorization/roleDefinitions/read", "see what a role allows")
	WriteDefinition  = arm.NewAction("Microsoft.Authorization/roleDefinitions/write", "make or change a custom role")
	DeleteDefinition = arm.NewAction("Microsoft.Authorization/roleDefinitions/delete", "delete a custom role")
	ReadPermissions  = arm.NewAction("Microsoft.Authorization/permissions/read", "see what all of a caller's roles allow at a scope")
)

var elevate = arm.NewAction("Microsoft.Authorization/elevateAccess/action", "become User Access Administrator of all that the tenant has, as a Global Administrator")

// New is a Service over what c names. Load must have succeeded before the first
// request, since the engine denies what it has not been told.
func New(c Config) (*Service, error) {
	if c.DB == nil || c.Log == nil || c.Gate == nil || c.Engine == nil || c.Directory == nil || c.Known == nil || c.Members == nil || c.Actions == nil || c.Now == nil || c.Site.Tenant == "" {
		return nil, errors.New("governance: DB, Log, Gate, Engine, Directory, Known, Members, Actions, Now and Site.Tenant must be set")
	}
	s := &Service{Config: c, builtIn: map[string]rbac.Role{}, named: map[string]string{}}
	for _, r := range rbac.BuiltIn() {
		s.builtIn[key(r.ID)] = r
		s.named[key(r.Name)] = key(r.ID)
	}
	c.Engine.SetParents(c.Site.GroupsAbove)
	c.Engine.SetClock(c.Now)
	return s, nil
}

// Load tells the engine of everything that the store keeps.
func (s *Service) Load(ctx context.Context) error {
	return s.DB.View(ctx, func(tx *store.Tx) error {
		if err := s.loadGroups(tx); err != nil {
			return err
		}
		defs, err := store.ScanJSON[definition](tx, definitions, "", "", 0)
		if err != nil {
			return err
		}
		for _, d := range defs {
			s.Engine.PutRole(d.Role)
		}
		denied, err := store.ScanJSON[*deny](tx, denials, "", "", 0)
		if err != nil {
			return err
		}
		for _, d := range denied {
			if err := s.Engine.PutDeny(d.forEngine()); err != nil {
				return err
			}
		}
		all, err := store.ScanJSON[assignment](tx, assignments, "", "", 0)
		if err != nil {
			return err
		}
		for i := range all {
			if err := s.Engine.PutAssignment(all[i].forEngine()); err != nil {
				return err
			}
		}
		return nil
	})
}

// Routes are the doors of Resource Manager that governance serves.
func (s *Service) Routes() []gate.Route {
	const at = "/{scope...}/providers/Microsoft.Authorization/"
	const root = "/providers/Microsoft.Authorization/"
	return append(slices.Concat(s.privilegedRoutes(), s.lockRoutes(), s.denyRoutes(), s.groupRoutes(), s.subscriptionRoutes()), []gate.Route{
		gate.On(ReadAssignment, "GET "+at+"roleAssignments", locateScope, s.listAssignments),
		gate.On(ReadAssignment, "GET "+at+"roleAssignments/{assignment}", locateItem, s.getAssignment),
		gate.On(WriteAssignment, "PUT "+at+"roleAssignments/{assignment}", s.locateWritten, s.putAssignment),
		gate.On(DeleteAssignment, "DELETE "+at+"roleAssignments/{assignment}", s.locateDeleted, s.deleteAssignment),

		gate.On(ReadDefinition, "GET "+at+"roleDefinitions", locateScope, s.listDefinitions),
		gate.On(ReadDefinition, "GET "+at+"roleDefinitions/{definition}", locateItem, s.getDefinition),
		gate.On(WriteDefinition, "PUT "+at+"roleDefinitions/{definition}", locateItem, s.putDefinition),
		gate.On(DeleteDefinition, "DELETE "+at+"roleDefinitions/{definition}", locateItem, s.deleteDefinition),

		// At the root everybody sees the built-in roles, which come with the
		// program, and of the custom ones those that they may see.
		gate.Each(ReadDefinition, "GET "+root+"roleDefinitions", locateScope, s.listDefinitions),
		gate.Each(ReadDefinition, "GET "+root+"roleDefinitions/{definition}", locateItem, s.getDefinition),

		// Everybody sees their own permissions, perhaps none.
		gate.Each(ReadPermissions, "GET "+at+"permissions", locateScope, s.listPermissions),

		// What roles can grant is no secret: it comes with the program.
		gate.Each(readOperations, "GET "+root+"providerOperations", locateGroups, s.listOperations),
		gate.Each(readOperations, "GET "+root+"providerOperations/{provider}", locateItem, s.getOperations),
		gate.On(elevate, "POST "+root+"elevateAccess", locateGroups, s.elevateAccess),

		// Everybody finds the decisions about themselves, and others those at
		// scopes whose assignments they may read.
		gate.Each(ReadAssignment, "GET /providers/"+decisionType+"/{decision}", locateItem, s.getDecision),
		gate.On(ReadAssignment, "GET /{scope...}/providers/Castellan.Authorization/whoCan", locateScope, s.listWhoCan),
	}...)
}
