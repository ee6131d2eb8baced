package ml

import (
	"context"
	"encoding/base64"
	"encoding/json"
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
	credNone          = "None"
	credKey           = "AccountKey"
	credSAS           = "Sas"
	defaultDatastore  = "workspaceblobstore"
	artifactDatastore = "workspaceartifactstore"
)

// datastoreProps are a datastore's properties: a container of a storage account
// of this installation, and by what it is reached.
type datastoreProps struct {
	Type         string            `json:"datastoreType"`
	Account      string            `json:"accountName"`
	Container    string            `json:"containerName"`
	Endpoint     string            `json:"endpoint"`
	Protocol     string            `json:"protocol" arm:"only=https"`
	Description  string            `json:"description,omitempty"`
	Tags         map[string]string `json:"tags,omitempty"`
	Properties   map[string]any    `json:"properties,omitempty"`
	Credentials  credentials       `json:"credentials"`
	ServiceData  string            `json:"serviceDataAccessAuthIdentity,omitempty" arm:"only=|None"`
	Group        string            `json:"resourceGroup,omitempty"`
	Subscription string            `json:"subscriptionId,omitempty"`
	IsDefault    any               `json:"isDefault,omitempty" arm:"readonly"`
}

// credentials are by what a datastore is reached. Secrets come in here, and
// leave for where no answer looks before they are kept.
type credentials struct {
	Type    string   `json:"credentialsType" arm:"only=None|AccountKey|Sas"`
	Secrets *secrets `json:"secrets,omitempty"`
}

type secrets struct {
	Type string `json:"secretsType,omitempty" arm:"only=AccountKey|Sas"`
	Key  string `json:"key,omitempty"`
	SAS  string `json:"sasToken,omitempty"`
}

// datastoreInner is what no answer shows of a datastore.
type datastoreInner struct {
	System  bool   `json:"system,omitempty"`  // the workspace's own: reached as its identity
	Default bool   `json:"default,omitempty"` // may not be deleted
	Account arm.ID `json:"account"`
	Key     string `json:"key,omitempty"`
	SAS     string `json:"sas,omitempty"`
	// Proven says that the key opened the container when it was written:
	// resyncKeys renews no other, or whoever writes a datastore would get a key.
	Proven bool `json:"proven,omitempty"`
}

// UnmarshalJSON reads a datastore, if it is one of blobs.
func (p *datastoreProps) UnmarshalJSON(b []byte) error {
	type plain datastoreProps
	if err := chosen(b, "datastoreType", azureBlob, "types of datastores", (*plain)(p)); err != nil {
		return err
	}
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
		Check: s.checkDatastore,
		Needs: s.tryDatastore,
		Save:  s.saveDatastore,
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
		return arm.Errorf(arm.BadRequest, "datastoreType is missing; supported: %s", azureBlob)
	case p.Account == "" || p.Container == "":
		return arm.Errorf(arm.BadRequest, "accountName and containerName must be given; they are %q and %q", p.Account, p.Container)
	case !strings.EqualFold(p.Endpoint, s.Site.StorageSuffix()):
		return arm.Errorf(arm.BadRequest, "endpoint is %q; datastores lie on this installation, whose endpoint is %s", p.Endpoint, s.Site.StorageSuffix())
	}
	if c.Old != nil {
		if in, err := inner[datastoreInner](c.Old); err != nil || in.System {
			return arm.Errorf(arm.BadRequest, "the datastore %s belongs to the workspace itself and can't be changed", c.Doc.Name)
		}
	} else if strings.EqualFold(c.Doc.Name, defaultDatastore) || strings.EqualFold(c.Doc.Name, artifactDatastore) {
		return arm.Errorf(arm.BadRequest, "the name %s is the workspace's own", c.Doc.Name)
	}
	_, _, err = p.secret(c)
	return err
}

// secret is what opens the datastore, as it was sent or as it is kept.
func (p datastoreProps) secret(c resource.Change) (key, sas string, err error) {
	if c.Old != nil && p.Credentials.Secrets == nil {
		was, err := props[datastoreProps](c.Old)
		if err != nil {
			return "", "", err
		}
		in, err := inner[datastoreInner](c.Old)
		if err != nil {
			return "", "", err
		}
		if was.Account == p.Account && was.Container == p.Container && strings.EqualFold(was.Credentials.Type, p.Credentials.Type) {
			return in.Key, in.SAS, nil
		}
	}
	sent := secrets{}
	if p.Credentials.Secrets != nil {
		sent = *p.Credentials.Secrets
	}
	switch {
	case strings.EqualFold(p.Credentials.Type, credNone):
		return "", "", nil
	case strings.EqualFold(p.Credentials.Type, credKey):
		if b, err := base64.StdEncoding.DecodeString(sent.Key); err != nil || len(b) == 0 {
			return "", "", arm.Errorf(arm.BadRequest, "credentials.secrets.key must be the account's key, in base64")
		}
		return sent.Key, "", nil
	}
	sas = strings.TrimPrefix(sent.SAS, "?")
	if q, err := url.ParseQuery(sas); err != nil || q.Get("sig") == "" {
		return "", "", arm.Errorf(arm.BadRequest, "credentials.secrets.sasToken must be a shared access signature, with a sig")
	}
	return "", sas, nil
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

// tryDatastore opens a new datastore's container with the credentials that it
// was given; a client may have one that does not open kept all the same. Without credentials it is the
// reader's identity that must open it, and that is not known yet.
func (s *Service) tryDatastore(ctx context.Context, c resource.Change) (any, error) {
	p, err := props[datastoreProps](c.Doc)
	if err != nil {
		return nil, err
	}
	var id arm.ID
	if err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
		id, err = account(tx, p.Account, c.Doc.ID)
		return err
	}); err != nil {
		return nil, err
	}
	key, sas, err := p.secret(c)
	if err != nil {
		return nil, err
	}
	if key == "" && sas == "" {
		return nil, nil
	}
	if err := s.tryOpen(ctx, c.Doc.Name, id, p.Container, key, sas); err != nil {
		if strings.EqualFold(c.Query.Get("skipValidation"), "true") {
			return nil, nil
		}
		_, message := gate.PublicError(err)
		return nil, arm.Errorf("InvalidDatastore", "the container %s of %s does not open with the credentials given: %s (skipValidation=true keeps the datastore all the same)", p.Container, p.Account, message)
	}
	return proven{}, nil
}

// proven is what tryDatastore has seen of credentials that open.
type proven struct{}

// saveDatastore moves the secrets to where no answer looks.
func (s *Service) saveDatastore(tx *store.Tx, c resource.Change) error {
	p, err := props[datastoreProps](c.Doc)
	if err != nil {
		return err
	}
	in := datastoreInner{}
	if in.Account, err = account(tx, p.Account, c.Doc.ID); err != nil {
		return err
	}
	if in.Key, in.SAS, err = p.secret(c); err != nil {
		return err
	}
	_, in.Proven = c.Seen.(proven)
	p.Credentials.Secrets = nil
	for _, t := range []string{credNone, credKey, credSAS} {
		if strings.EqualFold(t, p.Credentials.Type) {
			p.Credentials.Type = t
		}
	}
	if c.Doc.Properties, err = json.Marshal(p); err != nil {
		return err
	}
	return setInner(c.Doc, in)
}

var deleteDatastore = arm.NewAction(workspaceType+"/datastores/delete", "delete a datastore")

// keepDatastore is the door at which the workspace's own datastores can't be
// deleted; they go with the workspace.
func (s *Service) keepDatastore(_ http.ResponseWriter, _ *http.Request, g gate.Grant) error {
	id, err := g.On(deleteDatastore)
	if err != nil {
		return err
	}
	return arm.Errorf(arm.BadRequest, "the datastore %s is the workspace's own and can't be deleted", id.Name())
}

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
// does not expire.
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
	switch {
	case p.Credentials.Type == credNone:
		return http.StatusOK, map[string]any{"secretsType": credNone}, nil
	case in.SAS != "":
		return http.StatusOK, map[string]any{"secretsType": credSAS, "sasToken": in.SAS}, nil
	case !in.System:
		return http.StatusOK, map[string]any{"secretsType": credKey, "key": in.Key}, nil
	}
	w, err := s.load(ctx, id.Parent())
	if err != nil {
		return 0, nil, err
	}
	if !ask.Expirable {
		key, err := s.storageKey(ctx, w)
		return http.StatusOK, map[string]any{"secretsType": credKey, "key": key}, err
	}
	// The platform signs for an hour at most; who asked for longer asks again.
	sas, err := s.Accounts.Sign(ctx, w.self(), w.StorageAccount.ID, p.Container, "racwl", s.Now().Add(time.Hour))
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, map[string]any{"secretsType": credSAS, "sasToken": string(sas.Reveal())}, nil
}
