package governance

import (
	"encoding/json"
	"net/http"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// disabled is the state of a subscription that was cancelled.
const disabled = "Disabled"

// Cancelled reports whether the subscription was cancelled.
func (p Subscription) Cancelled() bool { return p.State == disabled }

// DisabledSubscription is the code of changes in a subscription that was cancelled.
const DisabledSubscription arm.Code = "ReadOnlyDisabledSubscription"

func (s *Service) renameSubscription(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	var b struct {
		Name string `json:"subscriptionName"`
	}
	if err := decodeBody(w, r, &b); err != nil {
		return err
	}
	if !subscriptionName.MatchString(b.Name) {
		return arm.Errorf(arm.InvalidRequest, "subscriptionName is %q; it must have 1 to 64 characters, none of <>;| and no control characters", b.Name)
	}
	return s.reviseSubscription(w, r, g, rename, func(_ *store.Tx, _ arm.ID, p *Subscription) error {
		p.Name = b.Name
		return nil
	})
}

// cancelSubscription disables a subscription. One with resources is cancelled only
// by who says so.
func (s *Service) cancelSubscription(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	ignore := ""
	for name, v := range r.URL.Query() {
		if strings.EqualFold(name, "IgnoreResourceCheck") {
			ignore = strings.ToLower(strings.Join(v, ","))
		}
	}
	if ignore != "" && ignore != "true" && ignore != "false" {
		return arm.Errorf(arm.InvalidRequest, "IgnoreResourceCheck is %q; it must be true or false, once", ignore)
	}
	return s.reviseSubscription(w, r, g, cancel, func(tx *store.Tx, id arm.ID, p *Subscription) error {
		below, err := resource.Below(tx, id)
		if err != nil {
			return err
		}
		if n := len(below); n > 0 && ignore != "true" {
			return arm.Errorf(arm.Conflict, "The subscription '%s' has resource groups and resources, %d in all. Delete them first, or cancel it with IgnoreResourceCheck=true: they stay, and nothing in it can be changed.", id.Name(), n)
		}
		p.State = disabled
		return nil
	})
}

func (s *Service) enableSubscription(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	return s.reviseSubscription(w, r, g, enable, func(_ *store.Tx, _ arm.ID, p *Subscription) error {
		p.State = ""
		return nil
	})
}

// reviseSubscription changes what a subscription's properties say.
func (s *Service) reviseSubscription(w http.ResponseWriter, r *http.Request, g gate.Grant, a arm.Action, fn func(*store.Tx, arm.ID, *Subscription) error) error {
	id, err := g.On(a)
	if err != nil {
		return err
	}
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		d, err := resource.Load(tx, id)
		if err != nil {
			return err
		}
		if d == nil {
			return missing(tx, id)
		}
		var p Subscription
		if err := json.Unmarshal(d.Properties, &p); err != nil {
			return err
		}
		if err := fn(tx, id, &p); err != nil {
			return err
		}
		if d.Properties, err = json.Marshal(p); err != nil {
			return err
		}
		tx.After(func() { s.Site.Tenancy.Cancel(id.Name(), p.Cancelled()) })
		return resource.Save(tx, d)
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, object{"subscriptionId": id.Name()})
	return nil
}

// enabled says whether a may be done in id's subscription: in one that was cancelled
// things are read and deleted, and it is enabled again.
func enabled(tx *store.Tx, a arm.Action, id arm.ID) error {
	if strings.HasSuffix(a.Key(), "/delete") || a.Is(cancel) || a.Is(enable) {
		return nil
	}
	d, err := resource.Load(tx, arm.MustID("/subscriptions/"+id.Subscription()))
	if err != nil || d == nil || !strings.Contains(string(d.Properties), disabled) {
		return err
	}
	var p Subscription
	if err := json.Unmarshal(d.Properties, &p); err != nil {
		return err
	}
	if !p.Cancelled() {
		return nil
	}
	return &arm.Error{Code: DisabledSubscription, Status: http.StatusConflict, Message: "The subscription '" + id.Subscription() +
		"' is disabled, so what is in it can be read and deleted, and nothing else. Enable it first (Microsoft.Subscription/enable)."}
}
