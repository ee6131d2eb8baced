package ml

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

const (
	azureBlob         = "AzureBlob"
	azureGen2         = "AzureDataLakeGen2"
	azureFile         = "AzureFile"
	defaultDatastore  = "workspaceblobstore"
	artifactDatastore = "workspaceartifactstore"
	fileDatastore     = "workspacefilestore"
)

// datastoreProps are a datastore's properties: a container or a share of a storage account
// of this installation, and by what it is reached.
type datastoreProps struct {
	Type         string            `json:"datastoreType"`
	Account      string            `json:"accountName"`
	Container    string            `json:"containerName,omitempty"` // of AzureBlob
	Filesystem   string            `json:"filesystem,omitempty"`    // of AzureDataLakeGen2: the same, by its other name
	Share        string            `json:"fileShareName,omitempty"` // of AzureFile
	Endpoint     string            `json:"endpoint"`
	Protocol     string            `json:"protocol" arm:"only=https"`
	Description  string            `json:"description,omitempty"`
	Tags         map[string]string `json:"tags,omitempty"`
	Properties   map[string]any    `json:"properties,omitempty"`
	Credentials  credentials       `json:"credentials"`
	ServiceData  string            `json:"serviceDataAccessAuthIdentity,omitempty" arm:"only=|None|WorkspaceSystemAssignedIdentity|WorkspaceUserAssignedIdentity"`
	Group        string            `json:"resourceGroup,omitempty"`
	Subscription string            `json:"subscriptionId,omitempty"`
	IsDefault    any               `json:"isDefault,omitempty" arm:"readonly"`
}

// placeFields are by what name each type of datastore has its container.
var placeFields = map[string]string{azureBlob: "containerName", azureGen2: "filesystem", azureFile: "fileShareName"}

// place is the container, or the share, that the datastore is.
func (p datastoreProps) place() string {
	switch p.Type {
	case azureGen2:
		return p.Filesystem
	case azureFile:
		return p.Share
	}
	return p.Container
}

// datastoreInner is what no answer shows of a datastore.
type datastoreInner struct {
	System  bool   `json:"system,omitempty"`  // the workspace's own: reached as its identity
	Default bool   `json:"default,omitempty"` // may not be deleted
	Account arm.ID `json:"account"`
	// Secret is what opens the datastore, in the workspace's vault.
	Secret secretRef `json:"secret,omitzero"`
	Stale  secretRef `json:"stale,omitzero"` // what does no more
	// Proven says that the key opened the container when it was written:
	// resyncKeys renews no other, or whoever writes a datastore would get a key.
	Proven bool `json:"proven,omitempty"`
}

// UnmarshalJSON reads a datastore, if it is of a type that there is.
func (p *datastoreProps) UnmarshalJSON(b []byte) error {
	type plain datastoreProps
	if err := chosen(b, "datastoreType", "types of datastores", (*plain)(p), azureBlob, azureGen2, azureFile); err != nil {
		return err
	}
	p.Type = spelt(p.Type, azureBlob, azureGen2, azureFile)
	return nil
}

var listSecrets = arm.NewAction(workspaceType+"/datastores/listsecrets/action", "read a datastore's credentials")

var datastoreName = regexp.MustCompile(`^[a-zA-Z0-9_]{1,255}$`)

func (s *Service) datastoreKind() *resource.Kind {
	return &resource.Kind{
		Type: workspaceType + "/datastores", Doc: "a datastore", Parent: s.kinds.workspace,
		Props: func() any {
			return &datastoreProps{Endpoint: s.Site.StorageSuffix(), Protocol: "https", Credentials: credentials{Type: credNone}}
		},
		Check:   s.checkDatastore,
		Needs:   s.tryDatastore,
		Save:    s.saveDatastore,
		Settled: s.tidyDatastore,
		Show: func(d *resource.Doc, p map[string]any) {
			in, err := inner[datastoreInner](d)
			p["isDefault"] = err == nil && in.Default
			if c, ok := p["credentials"].(map[string]any); ok && c["credentialsType"] != credNone {
				c["secrets"] = map[string]any{"secretsType": c["credentialsType"]}
			}
		},
		Filter: datastoreFilter,
		Posts:  []resource.Post{{Name: "listSecrets", Action: listSecrets, Do: s.listSecrets}},
	}
}

// checkDatastore judges a datastore by itself.
func (s *Service) checkDatastore(c resource.Change) error {
	p, err := props[datastoreProps](c.Doc)
	if err != nil {
		return err
	}
	switch {
	case !datastoreName.MatchString(c.Doc.Name):
		return arm.Errorf(arm.InvalidResourceName, "the datastore name %q must be letters, digits and underscores", c.Doc.Name)
	case p.Type == "":
		return arm.Errorf(arm.BadRequest, "datastoreType is missing; supported: %s, %s, %s", azureBlob, azureGen2, azureFile)
	case p.Account == "" || p.place() == "" || p.place() != p.Container+p.Filesystem+p.Share:
		return arm.Errorf(arm.BadRequest, "accountName and %s must be given; they are %q and %q", placeFields[p.Type], p.Account, p.place())
	case !strings.EqualFold(p.Endpoint, s.Site.StorageSuffix()):
		return arm.Errorf(arm.BadRequest, "endpoint is %q; datastores lie on this installation, whose endpoint is %s", p.Endpoint, s.Site.StorageSuffix())
	}
	if c.Old != nil {
		if in, err := inner[datastoreInner](c.Old); err != nil || in.System {
			return arm.Errorf(arm.BadRequest, "the datastore %s belongs to the workspace itself and can't be changed", c.Doc.Name)
		}
	} else if strings.EqualFold(c.Doc.Name, defaultDatastore) || strings.EqualFold(c.Doc.Name, artifactDatastore) || strings.EqualFold(c.Doc.Name, fileDatastore) {
		return arm.Errorf(arm.BadRequest, "the name %s is the workspace's own", c.Doc.Name)
	}
	_, _, err = s.credential(c, p)
	return err
}

// account is the storage account of that name, by its id.
func account(tx *store.Tx, name string, near arm.ID) (arm.ID, error) {
	sub, err := arm.ParseID("/subscriptions/" + near.Subscription())
	if err != nil {
		return arm.ID{}, err
	}
	all, err := resource.List(tx, storageType, sub, "", 0)
	if err != nil {
		return arm.ID{}, err
	}
	for _, d := range all {
		if strings.EqualFold(d.Name, name) {
			return d.ID, nil
		}
	}
	return arm.ID{}, arm.Errorf(arm.BadRequest, "accountName is %q; there is no such storage account in this subscription", name)
}

var deleteDatastore = arm.NewAction(workspaceType+"/datastores/delete", "delete a datastore")

func datastoreFilter(q url.Values) (func(*resource.Doc) bool, error) {
	only := strings.EqualFold(q.Get("isDefault"), "true")
	names := q["names"]
	search := strings.ToLower(q.Get("searchText"))
	return func(d *resource.Doc) bool {
		if only {
			if in, err := inner[datastoreInner](d); err != nil || !in.Default {
				return false
			}
		}
		named := len(names) == 0
		for _, n := range names {
			named = named || strings.EqualFold(n, d.Name)
		}
		return named && strings.Contains(strings.ToLower(d.Name), search)
	}, nil
}

// listSecrets gives out what opens a datastore. For the workspace's own that is
// a signature for an hour, or the account's key if the client wants one that
// does not expire, and of the share, for which nothing else signs.
func (s *Service) listSecrets(ctx context.Context, g gate.Grant, d *resource.Doc, body []byte) (int, any, error) {
	id, err := g.On(listSecrets)
	if err != nil {
		return 0, nil, err
	}
	var ask struct {
		Expirable flag `json:"expirableSecret"`
		Hours     int  `json:"expireAfterHours"`
	}
	if len(body) > 0 {
		if err := arm.Decode(body, &ask); err != nil {
			return 0, nil, err
		}
	}
	in, err := inner[datastoreInner](d)
	if err != nil {
		return 0, nil, err
	}
	p, err := props[datastoreProps](d)
	if err != nil {
		return 0, nil, err
	}
	w, err := s.load(ctx, id.Parent())
	if err != nil {
		return 0, nil, err
	}
	if p.Credentials.Type == credNone {
		return http.StatusOK, map[string]any{"secretsType": credNone}, nil
	}
	if !in.System {
		kept, err := s.kept(ctx, w, d, in)
		s.hideFrom(ctx, kept.texts()...)
		return http.StatusOK, kept, err
	}
	if !ask.Expirable || p.Type == azureFile {
		key, err := s.storageKey(ctx, w)
		return http.StatusOK, map[string]any{"secretsType": credKey, "key": key}, err
	}
	// The platform signs for an hour at most; who asked for longer asks again.
	sas, err := s.Accounts.Sign(ctx, w.self(), w.StorageAccount.ID, p.Container, "racwl", s.Now().Add(time.Hour))
	if err != nil {
		return 0, nil, err
	}
	s.hideFrom(ctx, secrets{SAS: string(sas.Reveal())}.texts()...)
	return http.StatusOK, map[string]any{"secretsType": credSAS, "sasToken": string(sas.Reveal())}, nil
}
