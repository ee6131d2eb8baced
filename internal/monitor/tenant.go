package monitor

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// tenantSettingType is of the settings that send a tenant's own logs: sign-ins, and
// changes of its directory (API version 2017-04-01). Each tenant has its own.
const tenantSettingType = "microsoft.aadiam/diagnosticSettings"

// The actions are Azure's.
var (
	readTenantSettings   = arm.NewAction(tenantSettingType+"/read", "see where a tenant's sign-ins and directory logs are sent")
	writeTenantSetting   = arm.NewAction(tenantSettingType+"/write", "have a tenant's sign-ins and directory logs sent elsewhere")
	deleteTenantSetting  = arm.NewAction(tenantSettingType+"/delete", "end that a tenant's sign-ins and directory logs are sent elsewhere")
	readTenantCategories = arm.NewAction("microsoft.aadiam/diagnosticSettingsCategories/read", "see which logs a tenant has")
)

// ofTenant has Entra's categories, as far as there are events of them.
var ofTenant = source{
	categories: []string{"AuditLogs", "SignInLogs", "NonInteractiveUserSignInLogs", "ServicePrincipalSignInLogs", "ManagedIdentitySignInLogs"}, single: true,
}

func isTenant(id arm.ID) bool {
	return strings.EqualFold(id.Type(), "Microsoft.Resources/tenants") && id.Parent() == arm.Root
}

func (d *Diagnostics) tenantRoutes() []gate.Route {
	const list = "/providers/" + tenantSettingType
	item := func(r *http.Request, _ gate.Vars) (gate.Target, error) { return resource.Locate(r, 0) }
	root := func(r *http.Request, _ gate.Vars) (gate.Target, error) { return locateRoot(r, nil) }
	return []gate.Route{
		gate.On(readTenantSettings, "GET "+list, root, d.listTenant),
		gate.On(readTenantSettings, "GET "+list+"/{name}", item, d.getTenant),
		gate.On(writeTenantSetting, "PUT "+list+"/{name}", item, d.putTenant),
		gate.On(deleteTenantSetting, "DELETE "+list+"/{name}", item, d.deleteTenant),
		gate.On(readTenantCategories, "GET /providers/microsoft.aadiam/diagnosticSettingsCategories", root, tenantCategories),
	}
}

// mine is where a setting of the caller's tenant is kept.
func mine(g gate.Grant, id arm.ID) (arm.ID, error) {
	if g.Caller().Tenant == "" {
		return arm.ID{}, arm.Errorf(arm.Forbidden, "the caller is of no tenant")
	}
	return resource.Kept(id, g.Caller().Tenant), nil
}

func (d *Diagnostics) putTenant(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(writeTenantSetting)
	if err != nil {
		return err
	}
	kept, err := mine(g, id)
	if err != nil {
		return err
	}
	b, err := readBody(w, r)
	if err != nil {
		return err
	}
	if err := b.named(id); err != nil {
		return err
	}
	if err := b.Properties.check(kept.Parent(), ofTenant, d.named(g.Caller().Tenant)); err != nil {
		return err
	}
	if err := d.linked(r, g, writeTenantSetting, id, b.Properties); err != nil {
		return err
	}
	var doc *resource.Doc
	err = g.Change(r.Context(), d.DB, func(tx *store.Tx) error {
		doc, err = d.keep(tx, g.Caller(), kept, ofTenant, b.Properties)
		return err
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, showSetting(doc))
	return nil
}

func (d *Diagnostics) getTenant(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(readTenantSettings)
	if err != nil {
		return err
	}
	if id, err = mine(g, id); err != nil {
		return err
	}
	return d.DB.View(r.Context(), func(tx *store.Tx) error { return answer(w, tx, id) })
}

func (d *Diagnostics) deleteTenant(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(deleteTenantSetting)
	if err != nil {
		return err
	}
	if id, err = mine(g, id); err != nil {
		return err
	}
	return d.remove(w, r, g, id)
}

func (d *Diagnostics) listTenant(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	if _, err := g.On(readTenantSettings); err != nil {
		return err
	}
	if g.Caller().Tenant == "" {
		return arm.Errorf(arm.Forbidden, "the caller is of no tenant")
	}
	list := []any{}
	err := d.DB.View(r.Context(), func(tx *store.Tx) error {
		docs, err := resource.List(tx, tenantSettingType, arm.TenantScope(g.Caller().Tenant), "", 0)
		for _, doc := range docs {
			list = append(list, showSetting(doc))
		}
		return err
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": list})
	return nil
}

func tenantCategories(w http.ResponseWriter, _ *http.Request, g gate.Grant) error {
	if _, err := g.On(readTenantCategories); err != nil {
		return err
	}
	list := []any{}
	for _, c := range ofTenant.categories {
		const typ = "microsoft.aadiam/diagnosticSettingsCategories"
		list = append(list, map[string]any{"id": "/providers/" + typ + "/" + c, "name": c, "type": typ, "properties": map[string]any{"categoryType": "Logs"}})
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": list})
	return nil
}

// chooseDirectory adds the entry as often as settings of its tenant send it.
func (d *Diagnostics) chooseDirectory(p *part, settings []*setting, e *audit.Entry) error {
	if d.Directory == nil || e.Tenant == "" || !slices.ContainsFunc(settings, func(s *setting) bool { return isTenant(s.about) }) {
		return nil
	}
	category, told := d.Directory(*e)
	for _, s := range settings {
		if since, ok := s.inner.Since[category]; !ok || e.Seq <= since || s.about.Key() != arm.TenantScope(e.Tenant).Key() {
			continue
		}
		r, err := directoryRecord(e, s.about, category, d.Site.Location, told)
		if err != nil {
			return err
		}
		p.records = append(p.records, r)
	}
	return nil
}

// directoryRecord is the entry as Entra's schema of logs has it.
func directoryRecord(e *audit.Entry, about arm.ID, category, location string, told map[string]any) (Record, error) {
	operation, result, signature := "Sign-in activity", "0", "SUCCESS"
	if category == "AuditLogs" {
		operation, result = e.Action, "Success"
	}
	failed := e.Outcome != "ok"
	if failed {
		signature = "FAILURE"
		if result = "Failure"; category != "AuditLogs" {
			result = "1"
			if status, ok := told["status"].(map[string]any); ok {
				if n, ok := status["errorCode"].(int); ok {
					result = strconv.Itoa(n)
				}
			}
		}
	}
	resource := "/tenants/" + about.Name() + "/providers/Microsoft.aadiam"
	line := map[string]any{
		"time": e.Time.UTC().Format(azureTime), "resourceId": resource, "operationName": operation, "operationVersion": "1.0", "category": category,
		"tenantId": about.Name(), "resultType": result, "resultSignature": signature, "resultDescription": e.Reason, "durationMs": 0,
		"correlationId": e.Correlation, "identity": e.Name, "Level": 4, "location": location, "properties": told,
	}
	if e.Address != "" {
		line["callerIpAddress"] = e.Address
	}
	b, err := json.Marshal(line)
	return Record{Seq: e.Seq, Time: e.Time.UTC(), Category: category, About: about, Failed: failed, JSON: b, Operation: operation, Correlation: e.Correlation, Resource: resource}, err
}
