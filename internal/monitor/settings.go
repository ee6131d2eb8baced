package monitor

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// The actions of diagnostic settings, Azure's.
var (
	readSettings   = arm.NewAction(settingType+"/read", "see diagnostic settings, and how their deliveries go")
	writeSetting   = arm.NewAction(settingType+"/write", "have a resource's logs sent elsewhere")
	deleteSetting  = arm.NewAction(settingType+"/delete", "end that a resource's logs are sent elsewhere")
	readCategories = arm.NewAction("Microsoft.Insights/diagnosticSettingsCategories/read", "see which logs a resource has")
	// listKeys is what Azure asks of whoever has logs sent to a storage account.
	listKeys = arm.NewAction(accountType+"/listkeys/action", "read an account's keys, which open all of it")
)

// Routes are the doors to diagnostic settings (API version 2021-05-01-preview).
func (d *Diagnostics) Routes() []gate.Route {
	const list = "/{scope...}/providers/" + settingType
	const categories = "/{scope...}/providers/Microsoft.Insights/diagnosticSettingsCategories"
	item := func(r *http.Request, _ gate.Vars) (gate.Target, error) { return resource.Locate(r, 0) }
	scope := func(r *http.Request, _ gate.Vars) (gate.Target, error) { return resource.Locate(r, 3) }
	named := func(r *http.Request, v gate.Vars) (gate.Target, error) {
		at, err := resource.Locate(r, 4)
		at.Item = v["name"]
		return at, err
	}
	return append(d.tenantRoutes(), []gate.Route{
		gate.On(readSettings, "GET "+list, scope, d.list),
		gate.On(readSettings, "GET "+list+"/{name}", item, d.get),
		gate.On(writeSetting, "PUT "+list+"/{name}", item, d.put),
		gate.On(deleteSetting, "DELETE "+list+"/{name}", item, d.delete),
		gate.On(readCategories, "GET "+categories, scope, d.categories),
		gate.On(readCategories, "GET "+categories+"/{name}", named, d.category),
		gate.On(readSettings, "GET /{scope...}/providers/Castellan.Insights/deliveries", scope, d.deliveries),
	}...)
}

var settingName = regexp.MustCompile(`^[^<>*%&:\\?+/\x00-\x1f\x7f]{0,259}[^<>*%&:\\?+/.\x00-\x20\x7f]$`)

// readBody reads what a client says of a setting.
func readBody(w http.ResponseWriter, r *http.Request) (b settingBody, err error) {
	data, err := resource.ReadBody(w, r)
	if err == nil {
		err = arm.Decode(data, &b)
	}
	return b, err
}

func (d *Diagnostics) put(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(writeSetting)
	if err != nil {
		return err
	}
	b, err := readBody(w, r)
	if err != nil {
		return err
	}
	src, err := b.agree(id)
	if err != nil {
		return err
	}
	if err := b.Properties.check(id.Parent(), src, d.named(g.Caller().Tenant)); err != nil {
		return err
	}
	if err := d.linked(r, g, writeSetting, id, b.Properties); err != nil {
		return err
	}
	var doc *resource.Doc
	err = g.Change(r.Context(), d.DB, func(tx *store.Tx) error {
		about, err := existing(tx, id.Parent())
		if err != nil {
			return err
		}
		doc, err = d.keep(tx, g.Caller(), about.Child(settingType, id.Name()), src, b.Properties)
		return err
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, showSetting(doc))
	return nil
}

// agree holds what the body says of itself against the path, which must be that
// of a setting of something that has logs.
func (b settingBody) agree(id arm.ID) (source, error) {
	src, ok := sourceOf(id.Parent())
	if !ok {
		return src, arm.Errorf(arm.BadRequest, "The resource type '%s' does not support diagnostic settings; these do: %s.", id.Parent().Type(), strings.Join(sourceTypes(), ", "))
	}
	return src, b.named(id)
}

// named holds the body's id, name and type against the path's.
func (b settingBody) named(id arm.ID) error {
	switch {
	case !settingName.MatchString(id.Name()):
		return arm.Errorf(arm.InvalidResourceName, "The name '%s' must have 1 to 260 characters, none of <>*%%&:\\?+/ and no control characters, and not end with a dot or a space.", id.Name())
	case b.ID != "" && !strings.EqualFold(b.ID, id.String()):
		return arm.Errorf(arm.InvalidRequest, "the body's id is %q; the request's is %q", b.ID, id)
	case b.Name != "" && !strings.EqualFold(b.Name, id.Name()):
		return arm.Errorf(arm.InvalidRequest, "the body's name is %q; the request's is %q", b.Name, id.Name())
	case b.Type != "" && !strings.EqualFold(b.Type, id.Type()):
		return arm.Errorf(arm.InvalidRequest, "the body's type is %q; it must be %s", b.Type, id.Type())
	}
	return nil
}

func sourceTypes() (out []string) {
	for t := range sources {
		out = append(out, t)
	}
	slices.Sort(out)
	return out
}

// linked asks whether the caller may have logs written to the storage account,
// unless the setting does that already.
func (d *Diagnostics) linked(r *http.Request, g gate.Grant, write arm.Action, id arm.ID, p settingProps) error {
	if p.Storage.IsZero() {
		return nil
	}
	had := false
	err := d.DB.View(r.Context(), func(tx *store.Tx) error {
		old, err := resource.Load(tx, resource.Kept(id, g.Caller().Tenant))
		if err != nil || old == nil {
			return err
		}
		s, err := readSetting(old)
		if err != nil {
			return err
		}
		account, err := resource.Load(tx, p.Storage)
		had = account != nil && s.props.Storage.Key() == p.Storage.Key() && s.inner.Account == account.Instance
		return err
	})
	if err != nil || had {
		return err
	}
	return resource.AdmitLinked(r.Context(), d.Gate, g, write, id, []resource.Linked{{Action: listKeys, ID: p.Storage, Field: "properties.storageAccountId"}})
}

// keep writes the setting id of what is there.
func (d *Diagnostics) keep(tx *store.Tx, by arm.Caller, id arm.ID, src source, p settingProps) (*resource.Doc, error) {
	doc := &resource.Doc{ID: id, Name: id.Name(), Type: id.Type(), Instance: arm.NewHex()}
	s := &setting{id: doc.ID, about: id.Parent(), props: p}
	var old *setting
	was, err := resource.Load(tx, id)
	if err != nil {
		return nil, err
	}
	if was != nil {
		if old, err = readSetting(was); err != nil {
			return nil, err
		}
		doc.ID, doc.Name, doc.Instance, doc.System = was.ID, was.Name, was.Instance, was.System
	}
	if err := s.place(tx, src, old); err != nil {
		return nil, err
	}
	if doc.System == nil {
		doc.System = &resource.System{}
	}
	doc.System.Stamp(by, d.Now())
	if doc.Properties, err = json.Marshal(s.props); err != nil {
		return nil, err
	}
	if doc.Inner, err = json.Marshal(s.inner); err != nil {
		return nil, err
	}
	if err := resource.Save(tx, doc); err != nil {
		return nil, err
	}
	return doc, changed(tx)
}

// existing is the id of what is there, as it is spelt, or the error that it isn't.
func existing(tx *store.Tx, id arm.ID) (arm.ID, error) {
	at := id
	if isBlobService(id) {
		at = id.Parent()
	}
	d, err := resource.Load(tx, at)
	if err != nil {
		return id, err
	}
	if d == nil {
		return id, arm.Errorf(arm.NotFound, "The Resource '%s' was not found.", at)
	}
	if isBlobService(id) {
		return d.ID.Child("blobServices", "default"), nil
	}
	return d.ID, nil
}

// showSetting is a setting as Azure shows it.
func showSetting(d *resource.Doc) map[string]any {
	props := map[string]any{"storageAccountId": nil, "workspaceId": nil, "eventHubAuthorizationRuleId": nil, "eventHubName": nil, "serviceBusRuleId": nil, "marketplacePartnerId": nil, "logAnalyticsDestinationType": nil}
	_ = json.Unmarshal(d.Properties, &props) // it was written by json.Marshal
	for _, list := range []string{"logs", "metrics"} {
		if props[list] == nil {
			props[list] = []any{}
		}
	}
	return map[string]any{"id": resource.Shown(d.ID), "name": d.Name, "type": d.Type, "properties": props, "systemData": d.System}
}

func (d *Diagnostics) get(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(readSettings)
	if err != nil {
		return err
	}
	return d.DB.View(r.Context(), func(tx *store.Tx) error {
		if _, err := existing(tx, id.Parent()); err != nil {
			return err
		}
		return answer(w, tx, id)
	})
}

// answer tells the setting that is kept under id.
func answer(w http.ResponseWriter, tx *store.Tx, id arm.ID) error {
	doc, err := resource.Load(tx, id)
	if err != nil {
		return err
	}
	if doc == nil {
		return arm.Errorf(arm.NotFound, "The diagnostic setting '%s' doesn't exist.", id.Name())
	}
	gate.WriteJSON(w, http.StatusOK, showSetting(doc))
	return nil
}

func (d *Diagnostics) list(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	about, err := g.On(readSettings)
	if err != nil {
		return err
	}
	list := []any{}
	err = d.DB.View(r.Context(), func(tx *store.Tx) error {
		if _, err := existing(tx, about); err != nil {
			return err
		}
		docs, err := resource.List(tx, settingType, about, "", 0)
		for _, doc := range docs {
			if doc.ID.Parent().Key() == about.Key() {
				list = append(list, showSetting(doc))
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": list})
	return nil
}

func (d *Diagnostics) delete(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(deleteSetting)
	if err != nil {
		return err
	}
	return d.remove(w, r, g, id)
}

// remove deletes the setting that is kept under id.
func (d *Diagnostics) remove(w http.ResponseWriter, r *http.Request, g gate.Grant, id arm.ID) error {
	status := http.StatusNoContent
	err := g.Change(r.Context(), d.DB, func(tx *store.Tx) error {
		doc, err := resource.Load(tx, id)
		if err != nil || doc == nil {
			return err
		}
		status = http.StatusOK
		if err := resource.Remove(tx, doc); err != nil {
			return err
		}
		return changed(tx)
	})
	if err != nil {
		return err
	}
	w.WriteHeader(status)
	return nil
}

// Removed is one of resource.Server's OnRemove: a setting ends with what it is about.
func (d *Diagnostics) Removed(tx *store.Tx, doc *resource.Doc) error {
	if doc.Type != settingType {
		return nil
	}
	return changed(tx)
}

func (d *Diagnostics) categories(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	list, err := d.categoriesOf(r, g)
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": list})
	return nil
}

func (d *Diagnostics) category(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	list, err := d.categoriesOf(r, g)
	if err != nil {
		return err
	}
	var names []string
	for _, c := range list {
		name := c["name"].(string)
		if strings.EqualFold(name, g.Item()) {
			gate.WriteJSON(w, http.StatusOK, c)
			return nil
		}
		names = append(names, name)
	}
	return arm.Errorf(arm.NotFound, "there is no category %q; there are %s", g.Item(), strings.Join(names, ", "))
}

func (d *Diagnostics) categoriesOf(r *http.Request, g gate.Grant) (list []map[string]any, err error) {
	about, err := g.On(readCategories)
	if err != nil {
		return nil, err
	}
	src, ok := sourceOf(about)
	if !ok {
		return nil, arm.Errorf(arm.BadRequest, "The resource type '%s' does not support diagnostic settings; these do: %s.", about.Type(), strings.Join(sourceTypes(), ", "))
	}
	err = d.DB.View(r.Context(), func(tx *store.Tx) error { about, err = existing(tx, about); return err })
	if err != nil {
		return nil, err
	}
	for _, c := range src.categories {
		groups := []string{}
		for _, name := range src.groups() {
			if in, _ := src.group(name); slices.Contains(in, c) {
				groups = append(groups, name)
			}
		}
		const typ = "Microsoft.Insights/diagnosticSettingsCategories"
		list = append(list, map[string]any{"id": about.Child(typ, c), "name": c, "type": strings.ToLower(typ), "properties": map[string]any{"categoryType": "Logs", "categoryGroups": groups}})
	}
	return list, nil
}
