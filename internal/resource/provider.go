package resource

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

var (
	register   = arm.NewAction("Microsoft.Resources/subscriptions/providers/register/action", "register a resource provider")
	unregister = arm.NewAction("Microsoft.Resources/subscriptions/providers/unregister/action", "unregister a resource provider")
)

// Providers that a subscription has unregistered lie under its key, a bar and
// the namespace in lower case. All others are registered.
const unregistered = "providers_unregistered"

// always are the providers that no subscription is without.
var always = []string{"microsoft.resources", "microsoft.authorization"}

func registration(sub arm.ID, ns string) string { return sub.Key() + "|" + strings.ToLower(ns) }

// registered says whether id's subscription has the provider that serves it.
func registered(tx *store.Tx, id arm.ID, typ string) error {
	ns, _, _ := strings.Cut(typ, "/")
	sub := id.Subscription()
	if sub == "" || slices.Contains(always, strings.ToLower(ns)) {
		return nil
	}
	off, err := tx.Get(unregistered, registration(arm.MustID("/subscriptions/"+sub), ns))
	if err != nil || off == nil {
		return err
	}
	return &arm.Error{Code: "MissingSubscriptionRegistration", Status: http.StatusConflict, Target: ns, Message: "The subscription is not registered to use namespace '" + ns + "'. Register it with: az provider register --namespace " + ns}
}

// describe is a provider as the subscription at shows it, or as all do at the root.
func (s *Server) describe(tx *store.Tx, at arm.ID, ns string, types []string, expand string) (map[string]any, error) {
	list := make([]any, len(types))
	for i, t := range types {
		one := map[string]any{"resourceType": t, "locations": []string{s.Site.Location}, "apiVersions": Versions(ns + "/" + t), "defaultApiVersion": newest(ns + "/" + t), "capabilities": "None"}
		if k := s.Kind(ns + "/" + t); k != nil && strings.EqualFold(expand, "resourceTypes/aliases") {
			one["aliases"] = k.aliases()
		}
		list[i] = one
	}
	state, policy := "Registered", "RegistrationRequired"
	if slices.Contains(always, strings.ToLower(ns)) {
		policy = "RegistrationFree"
	}
	off, err := tx.Get(unregistered, registration(at, ns))
	if err != nil {
		return nil, err
	}
	if off != nil {
		state = "Unregistered"
	}
	return map[string]any{"id": strings.TrimSuffix(at.String(), "/") + "/providers/" + ns, "namespace": ns, "registrationState": state, "registrationPolicy": policy, "resourceTypes": list}, nil
}

func (s *Server) providers(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	at, err := g.On(readProviders)
	if err != nil {
		return err
	}
	all, list := s.namespaces(), []any{}
	if err := s.DB.View(r.Context(), func(tx *store.Tx) error {
		for _, ns := range slices.Sorted(maps.Keys(all)) {
			one, err := s.describe(tx, at, ns, all[ns], r.URL.Query().Get("$expand"))
			if err != nil {
				return err
			}
			list = append(list, one)
		}
		return nil
	}); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"value": list})
}

func (s *Server) provider(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	at, err := g.On(readProviders)
	if err != nil {
		return err
	}
	ns, types, err := s.find(g.Item())
	if err != nil {
		return err
	}
	return s.DB.View(r.Context(), func(tx *store.Tx) error {
		out, err := s.describe(tx, at, ns, types, r.URL.Query().Get("$expand"))
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, out)
	})
}

// providerPermissions are those that a provider needs of a subscription to work
// in it: none does.
func (s *Server) providerPermissions(w http.ResponseWriter, _ *http.Request, g gate.Grant) error {
	if _, err := g.On(readProviders); err != nil {
		return err
	}
	if _, _, err := s.find(g.Item()); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"value": []any{}})
}

// register registers a provider with a subscription, or takes that back, which
// it may not while there are resources of its.
func (s *Server) register(a arm.Action, on bool) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		at, err := g.On(a)
		if err != nil {
			return err
		}
		ns, types, err := s.find(g.Item())
		if err != nil {
			return err
		}
		var out map[string]any
		if err := g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
			if d, err := Load(tx, at); err != nil {
				return err
			} else if d == nil {
				return missing(Subscription, at)
			}
			if on {
				err = tx.Delete(unregistered, registration(at, ns))
			} else if err = s.unused(tx, at, ns, types); err == nil {
				err = tx.Put(unregistered, registration(at, ns), []byte{1})
			}
			if err != nil {
				return err
			}
			out, err = s.describe(tx, at, ns, types, "")
			return err
		}); err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, out)
	}
}

func (s *Server) unused(tx *store.Tx, sub arm.ID, ns string, types []string) error {
	if slices.Contains(always, strings.ToLower(ns)) {
		return arm.Errorf(arm.BadRequest, "The resource provider '%s' can't be unregistered: no subscription is without it.", ns)
	}
	for _, t := range types {
		used, err := List(tx, ns+"/"+t, sub, "", 1)
		if err != nil {
			return err
		}
		if len(used) > 0 {
			return arm.Errorf(arm.Conflict, "The resource provider '%s' can't be unregistered: the subscription has resources of it, such as '%s'. Delete them first.", ns, used[0].ID)
		}
	}
	return nil
}
