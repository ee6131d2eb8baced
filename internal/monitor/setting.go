package monitor

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/resource"
	"castellan/internal/store"
)

const (
	settingType = "Microsoft.Insights/diagnosticSettings"
	accountType = "Microsoft.Storage/storageAccounts"
	// sinkPrefix begins the ids by which settings name the sinks that the server's
	// administrator configured.
	sinkPrefix  = "/providers/Castellan.Insights/sinks/"
	maxSettings = 5 // of one resource, as Azure
)

// settingBody is what a client may send of a diagnostic setting.
type settingBody struct {
	ID         string       `json:"id"`
	Name       string       `json:"name"`
	Type       string       `json:"type"`
	Location   any          `json:"location" arm:"readonly"`
	Kind       any          `json:"kind" arm:"readonly"`
	Tags       any          `json:"tags" arm:"readonly"`
	Identity   any          `json:"identity" arm:"readonly"`
	System     any          `json:"systemData" arm:"readonly"`
	Properties settingProps `json:"properties"`
}

// settingProps is Azure's DiagnosticSettings (API version 2021-05-01-preview).
type settingProps struct {
	Storage     arm.ID       `json:"storageAccountId,omitzero"`
	Workspace   string       `json:"workspaceId,omitempty"`
	EventHub    string       `json:"eventHubAuthorizationRuleId,omitempty"`
	HubName     string       `json:"eventHubName,omitempty"`
	ServiceBus  string       `json:"serviceBusRuleId,omitempty"`
	Sink        arm.ID       `json:"marketplacePartnerId,omitzero"`
	Destination string       `json:"logAnalyticsDestinationType,omitempty"`
	Logs        []logChoice  `json:"logs"`
	Metrics     []metricItem `json:"metrics"`
}

type logChoice struct {
	Category  string     `json:"category,omitempty"`
	Group     string     `json:"categoryGroup,omitempty"`
	Enabled   bool       `json:"enabled"`
	Retention *retention `json:"retentionPolicy,omitempty"`
}

type metricItem struct {
	Category  string     `json:"category,omitempty"`
	Grain     string     `json:"timeGrain,omitempty"`
	Enabled   bool       `json:"enabled"`
	Retention *retention `json:"retentionPolicy,omitempty"`
}

type retention struct {
	Enabled bool `json:"enabled"`
	Days    int  `json:"days"`
}

// setting is a diagnostic setting as it is kept, in the table of resources: so it
// ends with what it is about, and policies see whether there is one.
type setting struct {
	id    arm.ID
	about arm.ID // what the entries must be about
	props settingProps
	inner settingInner
}

// settingInner is what a setting keeps beside its properties.
type settingInner struct {
	// Since has, for each category, the last entry of the log that it does not send.
	Since map[string]uint64
	// Account tells the storage account from another that gets its name later.
	Account string `json:",omitempty"`
}

func readSetting(d *resource.Doc) (*setting, error) {
	s := &setting{id: d.ID, about: d.ID.Parent()}
	if err := json.Unmarshal(d.Properties, &s.props); err != nil {
		return nil, fmt.Errorf("reading the diagnostic setting %s: %w", d.ID, err)
	}
	if err := json.Unmarshal(d.Inner, &s.inner); err != nil {
		return nil, fmt.Errorf("reading the diagnostic setting %s: %w", d.ID, err)
	}
	return s, nil
}

// sinks are where the setting sends, by the keys of their ids.
func (p settingProps) sinks() (out []string) {
	for _, id := range []arm.ID{p.Storage, p.Sink} {
		if !id.IsZero() {
			out = append(out, id.Key())
		}
	}
	return out
}

// enabled are the categories that the setting sends. It has been checked.
func (p settingProps) enabled(src source) (out []string) {
	for _, l := range p.Logs {
		if !l.Enabled {
			continue
		}
		list, ok := src.group(l.Group)
		if !ok {
			list = []string{l.Category}
		}
		for _, c := range list {
			if !slices.Contains(out, c) {
				out = append(out, c)
			}
		}
	}
	return out
}

// check holds what a client sent against the rules, which are Azure's, and gives
// categories Azure's spelling.
func (p *settingProps) check(about arm.ID, src source, named []string) error {
	switch {
	case p.Workspace != "":
		return arm.Errorf(arm.BadRequest, "properties.workspaceId is set: Log Analytics workspaces collect nothing here. Send to a storage account (storageAccountId) or %s", sinksText(named))
	case p.EventHub != "" || p.HubName != "" || p.ServiceBus != "":
		return arm.Errorf(arm.BadRequest, "properties.eventHubAuthorizationRuleId, eventHubName and serviceBusRuleId can't be set: there are no event hubs here. Send to a storage account (storageAccountId) or %s", sinksText(named))
	case p.Destination != "":
		return arm.Errorf(arm.BadRequest, "properties.logAnalyticsDestinationType is %q; it can't be set, since Log Analytics workspaces collect nothing here", p.Destination)
	case p.Storage.IsZero() && p.Sink.IsZero():
		return arm.Errorf(arm.BadRequest, "At least one data sink needs to be specified: a storage account (storageAccountId) or %s", sinksText(named))
	case !p.Storage.IsZero() && !strings.EqualFold(p.Storage.Type(), accountType):
		return arm.Errorf(arm.BadRequest, "properties.storageAccountId is %s; it must be the id of a %s", p.Storage, accountType)
	case !p.Storage.IsZero() && about.Within(p.Storage):
		return arm.Errorf(arm.BadRequest, "the storage account %s can't keep its own logs: each write would cause another", p.Storage)
	case !p.Sink.IsZero() && !slices.ContainsFunc(named, func(n string) bool { return strings.EqualFold(sinkPrefix+n, p.Sink.String()) }):
		return arm.Errorf(arm.BadRequest, "properties.marketplacePartnerId is %s; it must be %s", p.Sink, sinksText(named))
	}
	if err := p.checkLogs(about, src); err != nil {
		return err
	}
	for i, m := range p.Metrics {
		if m.Enabled {
			return arm.Errorf(arm.BadRequest, "properties.metrics[%d] enables the metrics %q; no metrics are collected here", i, m.Category)
		}
	}
	return nil
}

func (p *settingProps) checkLogs(about arm.ID, src source) error {
	seen := map[string]bool{}
	single, grouped := false, false
	for i := range p.Logs {
		l := &p.Logs[i]
		_, isGroup := src.group(l.Group)
		switch name := src.category(l.Category); {
		case (l.Category == "") == (l.Group == ""):
			return arm.Errorf(arm.BadRequest, "properties.logs[%d] must have one of category and categoryGroup", i)
		case l.Group != "" && !isGroup:
			return arm.Errorf(arm.BadRequest, "Category group '%s' is not supported for %s; it must be one of: '%s'.", l.Group, about.Type(), strings.Join(src.groups(), "', '"))
		case l.Category != "" && name == "":
			return arm.Errorf(arm.BadRequest, "Category '%s' is not supported for %s; supported categories are: '%s'.", l.Category, about.Type(), strings.Join(src.categories, "', '"))
		default:
			l.Category = name
		}
		if l.Retention != nil && (l.Retention.Enabled || l.Retention.Days != 0) {
			return arm.Errorf(arm.BadRequest, "properties.logs[%d].retentionPolicy is not carried out; it must be disabled, with 0 days", i)
		}
		key := strings.ToLower(l.Category + "|" + l.Group)
		if seen[key] {
			return arm.Errorf(arm.BadRequest, "properties.logs has %s%s twice", l.Category, l.Group)
		}
		seen[key] = true
		single, grouped = single || l.Category != "" && l.Enabled, grouped || l.Group != "" && l.Enabled
	}
	if single && grouped {
		return arm.Errorf(arm.BadRequest, "properties.logs enables categories and category groups; a setting has the one or the other")
	}
	return nil
}

func sinksText(named []string) string {
	if len(named) == 0 {
		return "have the server's administrator configure a sink; there is none"
	}
	return "a sink of the server (marketplacePartnerId): " + sinkPrefix + strings.Join(named, ", "+sinkPrefix)
}

// settingsAt are the settings of one resource, or of a tenant.
func settingsAt(tx *store.Tx, typ string, about arm.ID) ([]*setting, error) {
	docs, err := resource.List(tx, typ, about, "", 0)
	if err != nil {
		return nil, err
	}
	var out []*setting
	for _, d := range docs {
		s, err := readSetting(d)
		if err != nil {
			return nil, err
		}
		if s.about.Key() == about.Key() {
			out = append(out, s)
		}
	}
	return out, nil
}

// place puts the setting beside the others of its resource, if there is room: two
// of them must not send one category to one sink.
func (s *setting) place(tx *store.Tx, src source, old *setting) error {
	others, err := settingsAt(tx, s.id.Type(), s.about)
	if err != nil {
		return err
	}
	others = slices.DeleteFunc(others, func(o *setting) bool { return o.id.Key() == s.id.Key() })
	if len(others) >= maxSettings {
		return arm.Errorf(arm.BadRequest, "%s has %d diagnostic settings; a resource can have no more", s.about, len(others))
	}
	mine := s.props.enabled(src)
	for _, o := range others {
		for _, sink := range o.props.sinks() {
			for _, c := range o.props.enabled(src) {
				if slices.Contains(s.props.sinks(), sink) && slices.Contains(mine, c) {
					return arm.Errorf(arm.Conflict, "Data sink '%s' is already used in diagnostic setting '%s' for category '%s'. Data sinks can't be reused in different settings on the same category for the same resource.", sink, o.id.Name(), c)
				}
			}
		}
	}
	end, err := audit.End(tx)
	if err != nil {
		return err
	}
	s.inner.Since = map[string]uint64{}
	for _, c := range mine {
		s.inner.Since[c] = end
	}
	if old != nil && slices.Equal(old.props.sinks(), s.props.sinks()) { // what is on its way to them still goes there
		maps.Copy(s.inner.Since, common(old.inner.Since, s.inner.Since))
	}
	return s.pin(tx)
}

// common is what a has of the keys of b.
func common(a, b map[string]uint64) map[string]uint64 {
	out := maps.Clone(a)
	maps.DeleteFunc(out, func(k string, _ uint64) bool { _, ok := b[k]; return !ok })
	return out
}

// pin notes which storage account the setting sends to.
func (s *setting) pin(tx *store.Tx) error {
	if s.props.Storage.IsZero() {
		return nil
	}
	d, err := resource.Load(tx, s.props.Storage)
	if err != nil {
		return err
	}
	if d == nil {
		return arm.Errorf(arm.BadRequest, "properties.storageAccountId is %s, which does not exist", s.props.Storage)
	}
	s.props.Storage, s.inner.Account = d.ID, d.Instance
	return nil
}
