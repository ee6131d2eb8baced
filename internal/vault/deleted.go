package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Routes are the doors of the ARM plane that no kind gives: access policies,
// deleted vaults, free names, and the secrets' names as ARM shows them.
func (s *Service) Routes() []gate.Route {
	const vault = "/subscriptions/{sub}/resourcegroups/{group}/providers/Microsoft.KeyVault/vaults/{name}"
	const sub = "/subscriptions/{sub}/providers/Microsoft.KeyVault"
	return []gate.Route{
		gate.On(PolicyWrite, "PUT "+vault+"/accessPolicies/{op}", locateVault, s.putPolicies),
		gate.Each(DeletedList, "GET "+sub+"/deletedVaults", locateSub, s.listDeleted),
		gate.Each(DeletedRead, "GET "+sub+"/locations/{location}/deletedVaults/{name}", locateSub, s.getDeleted),
		gate.On(DeletedPurge, "POST "+sub+"/locations/{location}/deletedVaults/{name}/purge", locateSub, s.purgeDeleted),
		gate.On(NameCheck, "POST "+sub+"/checkNameAvailability", locateSub, s.checkName),
		gate.On(SecretMetadata, "GET "+vault+"/secrets", locateVault, s.armSecrets),
		gate.On(SecretMetadata, "GET "+vault+"/secrets/{secret}", locateSecret, s.armSecret),
		gate.On(SecretSet, "PUT "+vault+"/secrets/{secret}", locateSecret, s.armPutSecret),
	}
}

func locateVault(r *http.Request, v gate.Vars) (gate.Target, error) {
	return resource.InGroup(r, v, "Microsoft.KeyVault/vaults")
}

func locateSecret(r *http.Request, v gate.Vars) (gate.Target, error) {
	t, err := locateVault(r, v)
	if err != nil {
		return t, err
	}
	return secrets.within(t.ID, v["secret"])
}

func locateSub(r *http.Request, v gate.Vars) (gate.Target, error) {
	if err := resource.Version(r); err != nil {
		return gate.Target{}, err
	}
	if err := arm.CheckSegment(v["sub"]); err != nil {
		return gate.Target{}, err
	}
	id, err := arm.ParseID("/subscriptions/" + v["sub"])
	item := v["name"]
	if v["location"] != "" {
		item = v["location"] + "/" + v["name"]
	}
	return gate.Target{ID: id, Item: item}, err
}

func (s *Service) listDeleted(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	sub, err := g.On(DeletedList)
	if err != nil {
		return err
	}
	list := []any{}
	err = s.DB.View(r.Context(), func(tx *store.Tx) error {
		rows, err := store.ScanJSON[named](tx, nameTable, "", "", 0)
		if err != nil {
			return err
		}
		for _, n := range rows {
			if n.Deleted == nil || !n.ID.Within(sub) || !s.Now().Before(n.Deleted.Purge) || !g.Sees(DeletedList, n.ID) {
				continue
			}
			v, err := s.showDeleted(n)
			if err != nil {
				return err
			}
			list = append(list, v)
		}
		return nil
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": list})
	return nil
}

func (s *Service) showDeleted(n named) (map[string]any, error) {
	var d resource.Doc
	if err := json.Unmarshal(n.Deleted.Doc, &d); err != nil {
		return nil, fmt.Errorf("reading the deleted vault %s: %w", n.ID, err)
	}
	p, err := propsOf(&d)
	if err != nil {
		return nil, err
	}
	props := map[string]any{"vaultId": d.ID, "location": d.Location, "tags": d.Tags, "deletionDate": n.Deleted.At.Format(time.RFC3339), "scheduledPurgeDate": n.Deleted.Purge.Format(time.RFC3339)}
	if p.protected() {
		props["purgeProtectionEnabled"] = true
	}
	return map[string]any{
		"id":   "/subscriptions/" + d.ID.Subscription() + "/providers/Microsoft.KeyVault/locations/" + d.Location + "/deletedVaults/" + d.Name,
		"name": d.Name, "type": "Microsoft.KeyVault/deletedVaults", "properties": props,
	}, nil
}

// inBin is the deleted vault that item, LOCATION/NAME, means in sub.
func (s *Service) inBin(tx *store.Tx, sub arm.ID, item string) (named, error) {
	location, name, _ := strings.Cut(item, "/")
	missing := &arm.Error{Code: "DeletedVaultNotFound", Status: http.StatusNotFound, Message: fmt.Sprintf("The specified deleted vault '%s' does not exist.", name)}
	n, taken, err := s.lookup(tx, name)
	if err != nil {
		return n, err
	}
	if !taken || n.Deleted == nil || !n.ID.Within(sub) {
		return n, missing
	}
	var d resource.Doc
	if err := json.Unmarshal(n.Deleted.Doc, &d); err != nil {
		return n, fmt.Errorf("reading the deleted vault %s: %w", n.ID, err)
	}
	if place(location) != place(d.Location) {
		return n, missing
	}
	return n, nil
}

// Recoverable is until when the vault that had the id can be recovered: zero if
// there is one, or none was deleted.
func (s *Service) Recoverable(tx *store.Tx, id arm.ID) (time.Time, error) {
	n, taken, err := s.lookup(tx, id.Name())
	if err != nil || !taken || n.Deleted == nil || n.ID.Key() != id.Key() {
		return time.Time{}, err
	}
	return n.Deleted.Purge, nil
}

func place(s string) string { return strings.ToLower(strings.ReplaceAll(s, " ", "")) }

func (s *Service) getDeleted(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	sub, err := g.On(DeletedRead)
	if err != nil {
		return err
	}
	var n named
	if err := s.DB.View(r.Context(), func(tx *store.Tx) (err error) {
		n, err = s.inBin(tx, sub, g.Item())
		return err
	}); err != nil {
		return err
	}
	if !g.Sees(DeletedRead, n.ID) {
		_, name, _ := strings.Cut(g.Item(), "/")
		return &arm.Error{Code: "DeletedVaultNotFound", Status: http.StatusNotFound, Message: fmt.Sprintf("The specified deleted vault '%s' does not exist.", name)}
	}
	v, err := s.showDeleted(n)
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, v)
	return nil
}

func (s *Service) purgeDeleted(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	sub, err := g.On(DeletedPurge)
	if err != nil {
		return err
	}
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		n, err := s.inBin(tx, sub, g.Item())
		if err != nil {
			return err
		}
		var d resource.Doc
		if err := json.Unmarshal(n.Deleted.Doc, &d); err != nil {
			return fmt.Errorf("reading the deleted vault %s: %w", n.ID, err)
		}
		if p, err := propsOf(&d); err != nil {
			return err
		} else if p.protected() {
			return &arm.Error{Code: "Forbidden", Status: http.StatusForbidden, Message: fmt.Sprintf("Operation 'DeletedVaultPurge' is not allowed: the vault '%s' has purge protection until %s.", d.Name, n.Deleted.Purge.Format(time.RFC3339))}
		}
		if err := s.erase(tx, n); err != nil {
			return err
		}
		return tx.Delete(nameTable, vaultKey(d.Name))
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// Sweep deletes for good the vaults, secrets and keys whose time in the bin is over.
// They are out of reach by then; this frees their names and their room. The
// Grant is for DeletedPurge on the root.
func (s *Service) Sweep(ctx context.Context, g gate.Grant) error {
	if _, err := g.On(DeletedPurge); err != nil {
		return err
	}
	return g.Change(ctx, s.DB, func(tx *store.Tx) error {
		rows, err := tx.Scan(nameTable, "", "", 0)
		if err != nil {
			return err
		}
		for _, r := range rows {
			n, taken, err := s.lookup(tx, r.Key)
			if err != nil {
				return err
			}
			if taken {
				if err := s.sweepBins(tx, n.UID); err != nil {
					return err
				}
				continue
			}
			if err := s.erase(tx, n); err != nil {
				return err
			}
			if err := tx.Delete(nameTable, r.Key); err != nil {
				return err
			}
		}
		return nil
	})
}

// checkName says whether a vault name is free.
func (s *Service) checkName(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	if _, err := g.On(NameCheck); err != nil {
		return err
	}
	var in struct {
		Name string `json:"name"`
		Type string `json:"type" arm:"only=Microsoft.KeyVault/vaults"`
	}
	data, err := resource.ReadBody(w, r)
	if err != nil {
		return err
	}
	if err := arm.Decode(data, &in); err != nil {
		return err
	}
	if err := CheckName(in.Name); err != nil {
		_, message := gate.PublicError(err)
		gate.WriteJSON(w, http.StatusOK, map[string]any{"nameAvailable": false, "reason": "AccountNameInvalid", "message": message})
		return nil
	}
	taken := false
	if err := s.DB.View(r.Context(), func(tx *store.Tx) (err error) {
		_, taken, err = s.lookup(tx, in.Name)
		return err
	}); err != nil {
		return err
	}
	out := map[string]any{"nameAvailable": !taken}
	if taken {
		out["reason"], out["message"] = "AlreadyExists", "The vault name '"+in.Name+"' is already in use."
	}
	gate.WriteJSON(w, http.StatusOK, out)
	return nil
}
