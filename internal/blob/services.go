package blob

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Types in lower case, to compare with.
const (
	serviceType     = "microsoft.storage/storageaccounts/blobservices"
	containerType   = "microsoft.storage/storageaccounts/blobservices/containers"
	fileServiceType = "microsoft.storage/storageaccounts/fileservices"
	shareType       = "microsoft.storage/storageaccounts/fileservices/shares"
)

// ServiceProperties are the settings of an account's blobs. All that Azure can
// switch on is off.
type ServiceProperties struct {
	CORS            *Rules     `json:"cors,omitempty"`
	Version         string     `json:"defaultServiceVersion,omitempty"`
	Retention       *Retention `json:"deleteRetentionPolicy,omitempty"`
	ContainerRetain *Retention `json:"containerDeleteRetentionPolicy,omitempty" arm:"since=2019-06-01"`
	Versioning      bool       `json:"isVersioningEnabled" arm:"since=2019-06-01"`
	AutoSnapshot    bool       `json:"automaticSnapshotPolicyEnabled" arm:"only=false,since=2019-04-01"`
	ChangeFeed      *Switch    `json:"changeFeed,omitempty" arm:"since=2019-04-01"`
	Restore         *struct {
		Switch
		Days any `json:"days,omitempty" arm:"readonly"`
	} `json:"restorePolicy,omitempty" arm:"since=2019-06-01"`
	LastAccess *struct {
		Enable bool `json:"enable" arm:"only=false"`
	} `json:"lastAccessTimeTrackingPolicy,omitempty" arm:"since=2019-06-01"`
}

// FileServiceProperties are the settings of an account's file shares.
type FileServiceProperties struct {
	CORS      *Rules          `json:"cors,omitempty"`
	Retention *shareRetention `json:"shareDeleteRetentionPolicy,omitempty" arm:"since=2019-06-01"` // what is deleted is not kept
	Protocol  any             `json:"protocolSettings,omitempty" arm:"readonly,since=2020-08-01-preview"`
}

type shareRetention struct {
	Switch
	Permanent bool `json:"allowPermanentDelete,omitempty" arm:"only=false,since=2021-09-01"`
	Days      any  `json:"days,omitempty" arm:"readonly"`
}

func fileServiceDefaults() *FileServiceProperties {
	return &FileServiceProperties{CORS: &Rules{[]Rule{}}, Retention: &shareRetention{}}
}

// Retention says how long what was deleted is kept.
type Retention struct {
	Enabled   bool `json:"enabled"`
	Days      *int `json:"days,omitempty"`
	Permanent bool `json:"allowPermanentDelete,omitempty" arm:"since=2021-09-01"` // what is kept may be removed before its time
}

// period is how long, or 0; field names it in errors.
func (r *Retention) period(field string) (time.Duration, error) {
	switch {
	case r == nil || !r.Enabled && r.Days == nil:
		return 0, nil
	case r.Days == nil:
		return 0, arm.Errorf(arm.BadRequest, "properties.%s.days is missing; it must be from 1 to 365", field)
	case *r.Days < 1 || *r.Days > 365:
		return 0, arm.Errorf(arm.BadRequest, "properties.%s.days is %d; it must be from 1 to 365", field, *r.Days)
	case !r.Enabled:
		return 0, nil
	}
	return time.Duration(*r.Days) * 24 * time.Hour, nil
}

// rules are the settings of an account's blobs that requests go by.
type rules struct {
	cors           []Rule
	version        string // of requests that name none; "" is the platform's
	versioning     bool
	keep           time.Duration // deleted blobs, snapshots and versions; 0 is not at all
	permanent      bool          // what is kept may be removed before its time
	keepContainers time.Duration
}

func rulesOf(d *resource.Doc) (r rules, err error) {
	var p ServiceProperties
	if err := json.Unmarshal(d.Properties, &p); err != nil {
		return r, fmt.Errorf("reading the properties of %s: %w", d.ID, err)
	}
	r.versioning, r.cors, r.version = p.Versioning, p.CORS.list(), p.Version
	if r.keep, err = p.Retention.period("deleteRetentionPolicy"); err != nil {
		return r, err
	}
	r.permanent = r.keep > 0 && p.Retention.Permanent
	if p.ContainerRetain != nil && p.ContainerRetain.Permanent {
		return r, arm.Errorf(arm.Unsupported, "containerDeleteRetentionPolicy.allowPermanentDelete is true; it must be false")
	}
	r.keepContainers, err = p.ContainerRetain.period("containerDeleteRetentionPolicy")
	return r, err
}

// Switch is something that can't be switched on.
type Switch struct {
	Enabled bool `json:"enabled" arm:"only=false"`
}

func serviceDefaults() *ServiceProperties {
	return &ServiceProperties{CORS: &Rules{[]Rule{}}, Retention: &Retention{}, ContainerRetain: &Retention{}}
}

// services are the singletons that every account has from its beginning.
func services(of *resource.Doc) []*resource.Doc {
	var out []*resource.Doc
	for typ, props := range map[string]any{"blobServices": serviceDefaults(), "fileServices": fileServiceDefaults()} {
		b, err := json.Marshal(props)
		if err != nil {
			panic(err) // they are constants
		}
		out = append(out, &resource.Doc{
			ID: of.ID.Child(typ, "default"), Name: "default", Type: "Microsoft.Storage/storageAccounts/" + typ,
			Properties: b, Etag: newETag(), System: of.System, Instance: arm.NewHex(),
		})
	}
	return out
}

// blobServices is the kind of the one blob service that every account has.
func (s *Service) blobServices(account *resource.Kind) *resource.Kind {
	return &resource.Kind{
		Type: "Microsoft.Storage/storageAccounts/blobServices", SystemData: "2025-08-01", Doc: "the settings of an account's blobs", Parent: account, Global: true,
		Created: http.StatusOK, NoPatch: true, NoDelete: true,
		Props: func() any { return serviceDefaults() },
		Check: func(c resource.Change) error {
			if c.Old == nil {
				return onlyDefault(c.Doc)
			}
			return s.checkService(c.Doc)
		},
		Save: s.saveService,
	}
}

func onlyDefault(d *resource.Doc) error {
	return arm.Errorf(arm.BadRequest, "the service is named %q; every account has one, named default", d.Name)
}

// fileServices is the kind of the one file service that every account has.
func (s *Service) fileServices(account *resource.Kind) *resource.Kind {
	k := s.blobServices(account)
	k.Type, k.Doc = "Microsoft.Storage/storageAccounts/fileServices", "the settings of an account's file shares"
	k.Props = func() any { return fileServiceDefaults() }
	return k
}

// checkService holds the settings against what they may be.
func (s *Service) checkService(d *resource.Doc) error {
	var p ServiceProperties
	if err := json.Unmarshal(d.Properties, &p); err != nil {
		return err
	}
	if a := s.byID(d.ID.Parent()); a != nil && a.hns && p.Versioning {
		return arm.Errorf(arm.Unsupported, "properties.isVersioningEnabled is true; accounts with a hierarchical namespace have no versions")
	}
	if err := p.CORS.check(); err != nil {
		return err
	}
	if p.Version != "" && !versionForm.MatchString(p.Version) {
		return arm.Errorf(arm.BadRequest, "defaultServiceVersion is %q; it must be a date such as %s", p.Version, lastVersion)
	}
	_, err := rulesOf(d)
	return err
}

// saveService has requests go by the settings once they are committed.
func (s *Service) saveService(tx *store.Tx, c resource.Change) error {
	rules, err := rulesOf(c.Doc)
	if err != nil {
		return err
	}
	id := c.Doc.ID.Parent()
	tx.After(func() {
		if a := s.byID(id); a != nil {
			next := *a
			if strings.EqualFold(c.Doc.ID.Type(), fileServiceType) {
				next.fileRules = rules
			} else {
				next.rules = rules
			}
			s.know(&next)
		}
	})
	return nil
}
