// Package resource serves kinds of resources: one value per kind, all doors follow.
package resource

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// Doc is a resource as it is kept.
type Doc struct {
	ID         arm.ID            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	Kind       string            `json:"kind,omitempty"`
	SKU        map[string]any    `json:"sku,omitempty"`
	Identity   *Identity         `json:"identity,omitempty"`
	Properties json.RawMessage   `json:"properties"`
	Etag       string            `json:"etag,omitempty"`
	System     *System           `json:"systemData,omitempty"`

	// Inner is what the kind keeps beside the properties; no answer shows it.
	Inner json.RawMessage `json:"-"`
	// Instance tells this resource from another that had its id before or after.
	Instance string `json:"-"`
	// Shut is why no more than the id is known of a resource: a customer's key
	// guards it and can't be used. It may be deleted.
	Shut error `json:"-"`
}

// System says who made and changed a resource, and when (Azure's systemData).
type System struct {
	CreatedBy      string    `json:"createdBy"`
	CreatedByType  string    `json:"createdByType"`
	CreatedAt      time.Time `json:"createdAt"`
	ModifiedBy     string    `json:"lastModifiedBy"`
	ModifiedByType string    `json:"lastModifiedByType"`
	ModifiedAt     time.Time `json:"lastModifiedAt"`
}

// body is what a client may send of a resource.
type body struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags"`
	Kind       string            `json:"kind"`
	SKU        map[string]any    `json:"sku"`
	Identity   *Identity         `json:"identity"`
	Properties any               `json:"properties"`
	Etag       string            `json:"etag" arm:"readonly"`
	System     any               `json:"systemData" arm:"readonly"`
}

// Change is a resource about to be written, with what was before.
type Change struct {
	Doc       *Doc
	Old       *Doc // nil if the resource is new
	Caller    arm.Caller
	Query     url.Values  // the request's, for the kind's Needs alone
	Seen      any         // what the kind's Needs found; nil before that
	Version   string      // the request's api-version
	Policy    any         // what Policies found, for Settled
	Operation string      // id of the operation that applies the change, once there is one
	begun     *gate.Begun // nil if nothing goes on after the answer
}

// Correlation is the id of the change in the audit log, "" for one that ends with its
// request.
func (c Change) Correlation() string {
	if c.begun == nil {
		return ""
	}
	return c.begun.Correlation
}

// Linked is another resource that a change points to, and what the caller must
// be allowed to do there.
type Linked struct {
	Action arm.Action
	ID     arm.ID
	Field  string
}

// Post is an operation by POST on one resource, such as listKeys.
type Post struct {
	Name   string // the path's last segment
	Action arm.Action
	Do     func(ctx context.Context, g gate.Grant, d *Doc, body []byte) (status int, answer any, err error)
}

// Kind is one kind of resource. Its zero fields mean: nothing special.
type Kind struct {
	Type    string     // such as Microsoft.KeyVault/vaults
	Doc     string     // a phrase for people: "a key vault"
	Parent  *Kind      // Group, Subscription or another kind; nil for an extension of any scope
	Props   func() any // a pointer to a fresh properties struct, with the defaults filled in
	Global  bool       // no location
	Created int        // status of a PUT that made it; 0 means 201
	Updated int        // status of a PUT or PATCH that changed it; 0 means 200
	Deleted int        // status of a DELETE that removed it; 0 means 200
	Check   func(Change) error
	Links   func(*Doc) ([]Linked, error)
	Save    func(tx *store.Tx, c Change) error // in the change's own transaction
	Remove  func(tx *store.Tx, d *Doc) error   // in the deletion's own transaction
	Settled func(d *Doc)                       // after a change or deletion was committed
	Show    func(d *Doc, props map[string]any) // adds what is computed, for an answer
	Posts   []Post
	// Shape is the whole answer, for kinds that Azure shows in a form of their own.
	Shape func(s arm.Site, d *Doc) any

	// Apply makes the world follow d, after the PUT or PATCH was answered and
	// until it returns nil; provisioningState tells how far it is. It must be
	// safe to repeat. An *arm.Error other than Internal ends the operation as
	// Failed; anything else is tried again.
	Apply func(ctx context.Context, d *Doc) error
	// Waits is set for kinds whose Apply waits for other operations: it takes
	// no place of those that are applied at the same time.
	Waits bool
	// Body makes JSON of a PUT's body, for kinds of which clients send another form.
	Body func(data []byte) ([]byte, error)
	// Identity names the system-assigned identity of d; nil means that the
	// kind takes no managed identities.
	Identity func(d *Doc) string
	// Needs looks at what a change can't be judged without and no transaction
	// may wait for, such as a file. It changes nothing; it runs once the caller's
	// rights are clear, before the transaction, and Save finds in Change.Seen
	// what it returned.
	Needs func(ctx context.Context, c Change) (any, error)
	// Moved follows d, which was at from and has its new id, in the move's own
	// transaction; what lies below d has moved with it. nil: it can't be moved.
	Moved func(tx *store.Tx, from arm.ID, d *Doc) error
	// Holds is set for kinds that would not find again what their Links point to:
	// it can't be moved while they do.
	Holds bool
	// Filter reads a list's query; what it returns says which rows are meant.
	Filter func(q url.Values) (func(d *Doc) bool, error)
	// Implied is set for kinds that come into being with their first child,
	// whose Save must make them.
	Implied bool
	// Each is set for kinds of which lists show the rows that the caller may see.
	Each bool
	// Wide is set for kinds of groups that lie at wider scopes too: subscriptions,
	// management groups and the tenant. It is nil, or the error that says that
	// there is no such scope.
	Wide func(tx *store.Tx, scope arm.ID) error
	// Since says of properties, by their paths, with which api-version they came,
	// where the tags of Props don't: who asks with an older one neither sees nor
	// sends them. "A" is A and whatever comes after it, "A B" are previews from A on
	// and others from B on, and "A previews" are previews alone.
	Since Shape
	// SystemData says in the same way with which version answers came to have
	// systemData; "" is the first, and "never" none.
	SystemData string
	// Etag is set for kinds whose answers have the etag in their bodies too.
	Etag bool
	// NoPut, NoPatch and NoDelete shut those doors.
	NoPut, NoPatch, NoDelete bool

	read, write, remove arm.Action
	once                sync.Once
	came                Shape // Since, and what the tags say
}

// Read is the action that sees resources of the kind.
func (k *Kind) Read() arm.Action { return k.read }

// Write is the action that makes and changes them.
func (k *Kind) Write() arm.Action { return k.write }

// Delete is the action that deletes them.
func (k *Kind) Delete() arm.Action { return k.remove }

// name is the kind's last type segment, such as vaults.
func (k *Kind) name() string { return k.Type[strings.LastIndexByte(k.Type, '/')+1:] }

// actions gives the kind its actions, once.
func (k *Kind) actions() {
	if !k.read.IsZero() {
		return
	}
	k.read = arm.NewAction(k.Type+"/read", "see "+k.Doc)
	k.write = arm.NewAction(k.Type+"/write", "make or change "+k.Doc)
	k.remove = arm.NewAction(k.Type+"/delete", "delete "+k.Doc)
}

// The scopes that other kinds lie in.
var (
	Subscription = &Kind{Type: "Microsoft.Resources/subscriptions", Doc: "a subscription", Global: true, Each: true, NoPut: true, NoDelete: true, Shape: shapeSubscription}
	Group        = &Kind{SystemData: "never", Type: "Microsoft.Resources/subscriptions/resourceGroups", Doc: "a resource group", Parent: Subscription, Each: true, Props: groupProps, Check: checkGroup, Filter: filterGroups}
)

func groupProps() any {
	return &struct {
		State string `json:"provisioningState" arm:"readonly"`
	}{"Succeeded"}
}

// decode reads what a client sent with an api-version for id over base, which
// holds the defaults (PUT) or what is (PATCH); old is what is, or nil.
func (k *Kind) decode(data []byte, id arm.ID, version string, base, old *Doc) error {
	var b body
	if err := arm.Decode(data, &b); err != nil {
		return err
	}
	if err := agree(b, id, k.Type); err != nil {
		return err
	}
	if b.Location != "" && !locationForm.MatchString(b.Location) {
		return arm.Errorf("InvalidResourceLocation", "the location is %q; it must be letters, digits, spaces and hyphens", b.Location)
	}
	if base.Location == "" {
		base.Location = b.Location
	} else if b.Location != "" && place(b.Location) != place(base.Location) {
		return arm.Errorf("InvalidResourceLocation", "the resource is in %s; its location can't be changed to %s", base.Location, b.Location)
	}
	if b.Tags != nil {
		base.Tags = b.Tags
	}
	if b.Kind != "" {
		base.Kind = b.Kind
	}
	if b.SKU != nil {
		base.SKU = b.SKU
	}
	if b.Identity != nil {
		if k.Identity == nil && !strings.EqualFold(b.Identity.Type, "None") {
			return arm.Errorf(arm.InvalidRequest, "%s can't have managed identities", k.Doc)
		}
		if err := merge(base, b.Identity); err != nil {
			return err
		}
	}
	if err := k.shape().known(version, b.Properties, "properties."); err != nil {
		return err
	}
	if old != nil && base.Properties == nil {
		var err error
		if b.Properties, err = k.shape().kept(version, b.Properties, old.Properties); err != nil {
			return fmt.Errorf("reading the properties of %s: %w", id, err)
		}
	}
	return k.decodeProps(b.Properties, base)
}

func (k *Kind) decodeProps(tree any, base *Doc) error {
	props := k.props()
	if len(base.Properties) > 0 {
		if err := json.Unmarshal(base.Properties, props); err != nil {
			return fmt.Errorf("reading the properties of %s: %w", base.ID, err)
		}
	}
	if tree != nil {
		if _, ok := tree.(map[string]any); !ok {
			return arm.Errorf(arm.InvalidRequest, "properties must be an object")
		}
		if err := arm.DecodeTree(tree, props); err != nil {
			return err
		}
	}
	b, err := json.Marshal(props)
	if err != nil {
		return fmt.Errorf("writing the properties of %s: %w", base.ID, err)
	}
	base.Properties = b
	return nil
}

func (k *Kind) props() any {
	if k.Props == nil {
		return &struct {
			State string `json:"provisioningState,omitempty" arm:"readonly"`
		}{}
	}
	return k.Props()
}

var locationForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 -]{0,89}$`)

// place is a location without the freedom people take with it.
func place(s string) string { return strings.ToLower(strings.ReplaceAll(s, " ", "")) }

// agree holds what the body says of itself against the path.
func agree(b body, id arm.ID, typ string) error {
	for _, c := range []struct{ field, got, want string }{{"id", b.ID, id.String()}, {"name", b.Name, id.Name()}, {"type", b.Type, typ}} {
		if c.got != "" && !strings.EqualFold(c.got, c.want) {
			return arm.Errorf(arm.InvalidRequest, "the body's %s is %q; the request's is %q", c.field, c.got, c.want)
		}
	}
	return nil
}

// Paths are the properties of the kind, as arm.Paths spells them.
func (k *Kind) Paths() []string { return arm.Paths(k.props()) }
