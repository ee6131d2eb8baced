package governance

import (
	"cmp"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/rbac"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Aliases of subscriptions lie under their tenant and their names in lower case.
const (
	aliases   = "subscriptionaliases"
	aliasType = "Microsoft.Subscription/aliases"

	deploymentType = "Microsoft.Resources/deployments"
)

// The actions of subscriptions. Aliases are asked for at the root management
// group: whoever may write there may make subscriptions.
var (
	readAlias   = arm.NewAction(aliasType+"/read", "see by which alias a subscription was made")
	writeAlias  = arm.NewAction(aliasType+"/write", "make a subscription")
	deleteAlias = arm.NewAction(aliasType+"/delete", "forget the alias of a subscription, which stays")
	rename      = arm.NewAction("Microsoft.Subscription/rename/action", "give a subscription another name")
	cancel      = arm.NewAction("Microsoft.Subscription/cancel/action", "disable a subscription: nothing in it can be changed then, but deleted")
	enable      = arm.NewAction("Microsoft.Subscription/enable/action", "enable a subscription that was cancelled")
)

// Subscription is what a subscription's properties say. Old ones do not name
// their tenant, which is the home tenant then.
type Subscription struct {
	Name   string `json:"displayName"`
	Tenant string `json:"tenantId,omitempty"`
	State  string `json:"state,omitempty"` // Disabled, or "" for Enabled
}

// alias is the name by which a subscription was made, once.
type alias struct {
	Name         string          `json:"name"`
	Subscription string          `json:"subscription"`
	System       resource.System `json:"systemData"`
}

var (
	aliasName        = regexp.MustCompile(`^[A-Za-z0-9._-]{1,63}$`)
	subscriptionName = regexp.MustCompile(`^[^<>;|\x00-\x1f\x7f]{1,64}$`)
)

// NewSubscription makes a tenant's subscription, of whoever is then given roles
// there: without anybody to give roles nobody could ever.
func (s *Service) NewSubscription(tx *store.Tx, id string, p Subscription) (arm.ID, error) {
	props, err := json.Marshal(p)
	if err != nil {
		return arm.ID{}, err
	}
	sub := arm.MustID("/subscriptions/" + id)
	if err := resource.Save(tx, &resource.Doc{ID: sub, Name: id, Type: resource.Subscription.Type, Instance: arm.NewUUID(), Etag: `"1"`, Properties: props}); err != nil {
		return arm.ID{}, err
	}
	tx.After(func() { s.Engine.Move(func() { s.Site.Tenancy.Put(id, p.Tenant) }) })
	return sub, s.land(tx, id, p.Tenant)
}

// subscriptionRoutes are the doors to what makes and names subscriptions.
func (s *Service) subscriptionRoutes() []gate.Route {
	const one = "/providers/" + aliasType + "/{alias}"
	return []gate.Route{
		gate.Each(readAlias, "GET /providers/"+aliasType, locateGroups, s.listAliases),
		gate.On(readAlias, "GET "+one, locateItem, s.getAlias),
		gate.On(writeAlias, "PUT "+one, locateItem, s.putAlias),
		gate.On(deleteAlias, "DELETE "+one, locateItem, s.deleteAlias),
		gate.On(rename, "POST /subscriptions/{sub}/providers/Microsoft.Subscription/rename", locateScope, s.renameSubscription),
		gate.On(cancel, "POST /subscriptions/{sub}/providers/Microsoft.Subscription/cancel", locateScope, s.cancelSubscription),
		gate.On(enable, "POST /subscriptions/{sub}/providers/Microsoft.Subscription/enable", locateScope, s.enableSubscription),
	}
}

// ofTenant reports whether the action is one on an alias, or on a deployment to
// the tenant: on what every tenant has its own of at /.
func ofTenant(a arm.Action, id arm.ID) bool {
	typ := aliasType
	if strings.HasPrefix(a.Key(), "microsoft.aadiam/") {
		return true
	}
	if strings.HasPrefix(a.Key(), strings.ToLower(deploymentType)+"/") {
		typ = deploymentType
	} else if !a.Is(readAlias) && !a.Is(writeAlias) && !a.Is(deleteAlias) {
		return false
	}
	return id == arm.Root || strings.EqualFold(id.Type(), typ) && resource.Shown(id).Parent() == arm.Root
}

// aliasBody is what a client may send to make a subscription.
type aliasBody struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Properties struct {
		Display      string `json:"displayName"`
		Workload     string `json:"workload" arm:"only=Production|DevTest"`
		Billing      string `json:"billingScope"`
		Subscription string `json:"subscriptionId"`
		More         struct {
			Group  string            `json:"managementGroupId"`
			Owner  string            `json:"subscriptionOwnerId"`
			Tenant string            `json:"subscriptionTenantId"`
			Tags   map[string]string `json:"tags"`
		} `json:"additionalProperties"`
	} `json:"properties"`
}

func (b *aliasBody) check(id arm.ID, tenant string) error {
	p := &b.Properties
	switch {
	case !aliasName.MatchString(id.Name()):
		return arm.Errorf(arm.InvalidResourceName, "The alias '%s' must have 1 to 63 letters, digits or ._-", id.Name())
	case p.Subscription != "" && !guidForm.MatchString(p.Subscription):
		return arm.Errorf(arm.InvalidRequest, "properties.subscriptionId is %q; it must be a GUID", p.Subscription)
	case p.Subscription != "" && (p.More.Group != "" || p.More.Owner != "" || len(p.More.Tags) > 0):
		return arm.Errorf(arm.InvalidRequest, "properties.subscriptionId is set, so the subscription is there already: properties.additionalProperties must be empty")
	case p.Subscription == "" && !subscriptionName.MatchString(p.Display):
		return arm.Errorf(arm.InvalidRequest, "properties.displayName is %q; it must have 1 to 64 characters, none of <>;| and no control characters", p.Display)
	case p.More.Tenant != "" && !strings.EqualFold(p.More.Tenant, tenant):
		return arm.Errorf(arm.InvalidRequest, "properties.additionalProperties.subscriptionTenantId is %q; a subscription is made in the caller's tenant, %s", p.More.Tenant, tenant)
	case len(p.More.Tags) > 0:
		return arm.Errorf(arm.Unsupported, "properties.additionalProperties.tags is set; tag the subscription once it is there, by Microsoft.Resources/tags")
	}
	return agrees(b.ID, b.Name, b.Type, id, aliasType)
}

func showAlias(a *alias) object {
	id := arm.MustID("/providers/" + aliasType + "/" + a.Name)
	return object{"id": id, "name": a.Name, "type": aliasType, "systemData": a.System, "properties": object{"subscriptionId": a.Subscription, "provisioningState": "Succeeded"}}
}

func aliasKey(tenant, name string) string { return tenant + "|" + key(name) }

func loadAlias(tx *store.Tx, g gate.Grant, id arm.ID) (*alias, error) {
	a, ok, err := store.GetJSON[alias](tx, aliases, aliasKey(g.Caller().Tenant, id.Name()))
	if err == nil && !ok {
		err = notFoundAs("SubscriptionAliasNotFound", "The alias '"+id.Name()+"' was not found.")
	}
	return &a, err
}

// putAlias makes a subscription, or answers with the one that the alias has made.
func (s *Service) putAlias(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(writeAlias)
	if err != nil {
		return err
	}
	var b aliasBody
	if err := decodeBody(w, r, &b); err != nil {
		return err
	}
	by := g.Caller()
	if err := b.check(id, by.Tenant); err != nil {
		return err
	}
	in := ""
	if text := b.Properties.More.Group; text != "" {
		if in, err = groupOf("properties.additionalProperties.managementGroupId", text); err != nil {
			return err
		}
		if err := s.also(r.Context(), g, WriteGroup, gate.Target{ID: groupID(in)}); err != nil {
			return err
		}
	}
	a, status := alias{Name: id.Name(), Subscription: arm.NewUUID()}, http.StatusCreated
	there := key(b.Properties.Subscription)
	if there != "" { // another name for what is there is given by whoever may name it
		if err := s.also(r.Context(), g, rename, gate.Target{ID: arm.MustID("/subscriptions/" + there)}); err != nil {
			return err
		}
		a.Subscription = there
	}
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		old, ok, err := store.GetJSON[alias](tx, aliases, aliasKey(by.Tenant, id.Name()))
		if err != nil {
			return err
		}
		if ok && there != "" && old.Subscription != there {
			return arm.Errorf(arm.Conflict, "The alias '%s' is of the subscription '%s'; delete it first.", id.Name(), old.Subscription)
		}
		if ok {
			a, status = old, http.StatusOK
			return nil
		}
		if there != "" {
			if d, err := resource.Load(tx, arm.MustID("/subscriptions/"+there)); err != nil || d == nil {
				return cmp.Or(err, error(arm.Errorf(arm.InvalidRequest, "properties.subscriptionId is %q, which is not there", there)))
			}
			a.System.Stamp(by, s.Now())
			return store.PutJSON(tx, aliases, aliasKey(by.Tenant, id.Name()), a)
		}
		sub, err := s.NewSubscription(tx, a.Subscription, Subscription{Name: b.Properties.Display, Tenant: by.Tenant})
		if err != nil {
			return err
		}
		if in != "" {
			if _, err := s.group(tx, groupID(in)); err != nil {
				return err
			}
			if err := s.place(tx, a.Subscription, in); err != nil {
				return err
			}
		}
		owner := cmp.Or(key(b.Properties.More.Owner), by.Object)
		kind, ok, err := s.Directory.Principal(tx, by.Tenant, owner)
		if err != nil {
			return err
		}
		if !ok {
			return arm.Errorf("PrincipalNotFound", "Principal %s does not exist in the directory %s.", owner, by.Tenant)
		}
		if err := s.Assign(tx, rbac.Assignment{Scope: sub, RoleID: s.named["owner"], Principal: owner, PrincipalType: kind}, by); err != nil {
			return err
		}
		a.System.Stamp(by, s.Now())
		return store.PutJSON(tx, aliases, aliasKey(by.Tenant, id.Name()), a)
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, status, showAlias(&a))
	return nil
}

func (s *Service) getAlias(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(readAlias)
	if err != nil {
		return err
	}
	return s.DB.View(r.Context(), func(tx *store.Tx) error {
		a, err := loadAlias(tx, g, id)
		if err == nil {
			gate.WriteJSON(w, http.StatusOK, showAlias(a))
		}
		return err
	})
}

func (s *Service) listAliases(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	if _, err := g.On(readAlias); err != nil {
		return err
	}
	return s.answerList(w, r, func(tx *store.Tx, add func(any)) error {
		all, err := store.ScanJSON[alias](tx, aliases, g.Caller().Tenant+"|", "", 0)
		for i := range all {
			if g.Sees(readAlias, arm.MustID("/providers/"+aliasType+"/"+all[i].Name)) {
				add(showAlias(&all[i]))
			}
		}
		return err
	})
}

func (s *Service) deleteAlias(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(deleteAlias)
	if err != nil {
		return err
	}
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		return tx.Delete(aliases, aliasKey(g.Caller().Tenant, id.Name()))
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
