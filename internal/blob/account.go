package blob

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/cmk"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/seal"
	"castellan/internal/store"
)

// keySize is the size of an account key, in bytes.
const keySize = 64

// accountRow is who has an account name, and the account's secrets.
type accountRow struct {
	ID         arm.ID        `json:"id"`
	UID        string        `json:"uid"`
	Keys       [2]accountKey `json:"keys"`
	Delegation []byte        `json:"delegation"` // makes user delegation keys
	Data       []byte        `json:"data"`       // wrapped key of the account's bytes, unless Customer has it
	Customer   *cmk.Wrapped  `json:"customer,omitempty"`
	Outer      []byte        `json:"outer,omitempty"` // wrapped second key, of an account that is sealed twice
}

// accountKey is key1 or key2.
type accountKey struct {
	Value   []byte    `json:"value"`
	Created time.Time `json:"created"`
}

// account is what is known of a storage account, so that requests find it. It
// is replaced, never changed.
type account struct {
	accountRow
	plain     seal.Key // of its bytes; zero if a customer's key guards it
	outer     seal.Key // the second; zero if it is sealed once
	sharedKey bool     // whether the account's keys open anything
	rules     rules
	files     bool  // it is the account's face for file shares: rules are theirs, and there is no tree
	fileRules rules // of that face
	net       networks
	tls13     bool // connections must have TLS 1.3
	hns       bool // names are paths in a tree of directories, which have access lists
}

func nameKey(name string) string { return strings.ToLower(name) }

func (s *Service) open(tx *store.Tx, r accountRow, d *resource.Doc) (*account, error) {
	p, err := propsOf(d)
	if err != nil {
		return nil, err
	}
	a := &account{accountRow: r, sharedKey: p.sharedKey(), tls13: p.MinimumTLS == "TLS1_3", hns: p.hns()}
	if r.Customer == nil {
		if a.plain, err = s.unwrap(context.Background(), r); err != nil {
			return nil, err
		}
	}
	if r.Outer != nil {
		if a.outer, err = s.outer.Unwrap(r.Outer, r.UID); err != nil {
			return nil, fmt.Errorf("opening the second key of the account %s: %w", r.ID, err)
		}
	}
	if a.net, err = networksOf(p, s.Site.TenantOf(r.ID)); err != nil {
		return nil, err
	}
	for _, x := range []struct {
		id arm.ID
		to *rules
	}{{a.service(), &a.rules}, {a.forFiles().service(), &a.fileRules}} {
		service, err := resource.Load(tx, x.id)
		if err != nil || service == nil {
			return nil, orElse(err, fmt.Errorf("blob: the account %s has no %s", r.ID, x.id.Type()))
		}
		if *x.to, err = rulesOf(service); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// forFiles is the account as the File endpoint shows it.
func (a *account) forFiles() *account {
	f := *a
	f.files, f.hns, f.rules = true, false, a.fileRules
	return &f
}

func newKey() []byte {
	b := make([]byte, keySize)
	_, _ = rand.Read(b) // never fails
	return b
}

// service is the id of the account's blob service, or of its file service.
func (a *account) service() arm.ID {
	if a.files {
		return a.ID.Child("fileServices", "default")
	}
	return a.ID.Child("blobServices", "default")
}

// containerID is the id of a container of the account, or of a share.
func (a *account) containerID(name string) arm.ID {
	if a.files {
		return a.service().Child("shares", name)
	}
	return a.service().Child("containers", name)
}

// containers is the table of the account's containers, or of its shares.
func (a *account) containers() string {
	if a.files {
		return shareTable
	}
	return containerTable
}

var accountName = regexp.MustCompile(`^[a-z0-9]{3,24}$`)

// CheckAccountName says whether a storage account can have the name.
func CheckAccountName(name string) error {
	if !accountName.MatchString(name) {
		return arm.Errorf("AccountNameInvalid", "%s is not a valid storage account name. Storage account name must be between 3 and 24 characters in length and use numbers and lower-case letters only.", name)
	}
	return nil
}

// accounts is the kind of storage accounts.
func (s *Service) accounts() *resource.Kind {
	return &resource.Kind{
		Type: "Microsoft.Storage/storageAccounts", SystemData: "2025-08-01",
		Since:    map[string]string{"primaryEndpoints.dfs": "2018-02-01"},
		Doc:      "a storage account",
		Parent:   resource.Group,
		Created:  http.StatusOK, // Azure's clients take 200 and 202, never 201
		Props:    func() any { return &Properties{} },
		Check:    s.checkAccount,
		Needs:    s.needsKey,
		Save:     s.saveAccount,
		Remove:   s.removeAccount,
		Moved:    s.movedAccount,
		Identity: func(d *resource.Doc) string { return d.Name },
		Show:     s.showAccount,
		Posts: []resource.Post{
			{Name: "listKeys", Action: KeyList, Do: s.listKeys},
			{Name: "regenerateKey", Action: KeyRegenerate, Do: s.regenerateKey},
			{Name: "revokeUserDelegationKeys", Action: DelegationRevoke, Do: s.revoke},
		},
	}
}

// saveAccount gives a new account its name and its keys.
func (s *Service) saveAccount(tx *store.Tx, c resource.Change) error {
	r, taken, err := store.GetJSON[accountRow](tx, accountTable, nameKey(c.Doc.Name))
	if err != nil {
		return err
	}
	n, _ := c.Seen.(*rekeyed)
	if c.Old != nil {
		if n != nil {
			if err := n.rekey(&r); err != nil {
				return err
			}
			if err := store.PutJSON(tx, accountTable, nameKey(c.Doc.Name), r); err != nil {
				return err
			}
		}
		return s.remember(tx, r, c.Doc)
	}
	if taken {
		return fail(http.StatusConflict, "StorageAccountAlreadyTaken", "The storage account named %s is already taken.", c.Doc.Name)
	}
	now := s.Now().UTC()
	r = accountRow{ID: c.Doc.ID, UID: arm.NewHex(), Keys: [2]accountKey{{newKey(), now}, {newKey(), now}}, Delegation: newKey()}
	if n != nil {
		err = n.rekey(&r)
	} else {
		r.Data = s.root.Wrap(seal.Random(), r.UID)
	}
	if err != nil {
		return err
	}
	p, err := propsOf(c.Doc)
	if err != nil {
		return err
	}
	if p.Encryption.twice() {
		r.Outer = s.outer.Wrap(seal.Random(), r.UID)
	}
	for _, d := range services(c.Doc) {
		if err := resource.Save(tx, d); err != nil {
			return err
		}
	}
	if err := store.PutJSON(tx, accountTable, nameKey(c.Doc.Name), r); err != nil {
		return err
	}
	return s.remember(tx, r, c.Doc)
}

// remember has requests find the account as it is once tx is committed.
func (s *Service) remember(tx *store.Tx, r accountRow, d *resource.Doc) error {
	a, err := s.open(tx, r, d)
	if err != nil {
		return err
	}
	tx.After(func() { s.know(a) })
	return nil
}

// removeAccount forgets the account's keys, without which its bytes are noise.
// Its containers were removed before it, each with what it held.
func (s *Service) removeAccount(tx *store.Tx, d *resource.Doc) error {
	if err := s.forgetLost(tx, d); err != nil {
		return err
	}
	r, _, err := store.GetJSON[accountRow](tx, accountTable, nameKey(d.Name))
	if err != nil {
		return err
	}
	for _, k := range r.kept(d) {
		if err := cmk.Destroy(tx, k, s.Now()); err != nil {
			return err
		}
	}
	tx.After(func() { s.forget(d.ID) })
	return tx.Delete(accountTable, nameKey(d.Name))
}

// movedAccount keeps the account's name, and with it its keys and what it holds,
// for its new id.
func (s *Service) movedAccount(tx *store.Tx, _ arm.ID, d *resource.Doc) error {
	r, ok, err := store.GetJSON[accountRow](tx, accountTable, nameKey(d.Name))
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("blob: the account %s has no name", d.ID)
	}
	r.ID = d.ID
	if err := store.PutJSON(tx, accountTable, nameKey(d.Name), r); err != nil {
		return err
	}
	return s.remember(tx, r, d)
}

// Keys are the two keys of the account that the Grant, for KeyList, is about.
func (s *Service) Keys(_ context.Context, g gate.Grant) (key1, key2 arm.Secret, err error) {
	p, err := s.target(g, KeyList)
	if err != nil {
		return key1, key2, err
	}
	text := func(i int) arm.Secret {
		return arm.NewSecret([]byte(base64.StdEncoding.EncodeToString(p.Keys[i].Value)))
	}
	return text(0), text(1), nil
}

func (s *Service) listKeys(ctx context.Context, g gate.Grant, _ *resource.Doc, _ []byte) (int, any, error) {
	p, err := s.target(g, KeyList)
	if err != nil {
		return 0, nil, err
	}
	for _, k := range p.Keys {
		if s.Told != nil {
			s.Told(ctx, arm.NewSecret([]byte(base64.StdEncoding.EncodeToString(k.Value))))
		}
	}
	return http.StatusOK, showKeys(p.accountRow), nil
}

func showKeys(r accountRow) any {
	keys := make([]any, len(r.Keys))
	for i, k := range r.Keys {
		keys[i] = map[string]any{
			"keyName": fmt.Sprintf("key%d", i+1), "value": base64.StdEncoding.EncodeToString(k.Value), "permissions": "FULL", "creationTime": k.Created,
		}
	}
	return map[string]any{"keys": keys}
}

// amend changes the account's row by fn, with the audit entry.
func (s *Service) amend(ctx context.Context, g gate.Grant, a arm.Action, fn func(*accountRow)) (r accountRow, err error) {
	p, err := s.target(g, a)
	if err != nil {
		return r, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		d, err := resource.Load(tx, p.ID)
		if err != nil {
			return err
		}
		var ok bool
		r, ok, err = store.GetJSON[accountRow](tx, accountTable, nameKey(p.ID.Name()))
		if err != nil {
			return err
		}
		if !ok || d == nil || r.UID != p.UID {
			return noAccount(p.ID.Name())
		}
		fn(&r)
		if err := store.PutJSON(tx, accountTable, nameKey(p.ID.Name()), r); err != nil {
			return err
		}
		return s.remember(tx, r, d)
	})
	return r, err
}

func (s *Service) regenerateKey(ctx context.Context, g gate.Grant, _ *resource.Doc, body []byte) (int, any, error) {
	var in struct {
		Name string `json:"keyName"`
	}
	if err := arm.Decode(body, &in); err != nil {
		return 0, nil, err
	}
	i := strings.Index("12", strings.TrimPrefix(strings.ToLower(in.Name), "key"))
	if i < 0 || len(in.Name) != len("key1") {
		return 0, nil, arm.Errorf(arm.BadRequest, "keyName is %q; it must be key1 or key2", in.Name)
	}
	r, err := s.amend(ctx, g, KeyRegenerate, func(r *accountRow) { r.Keys[i] = accountKey{newKey(), s.Now().UTC()} })
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, showKeys(r), nil
}

// revoke makes all user delegation keys of the account worthless.
func (s *Service) revoke(ctx context.Context, g gate.Grant, _ *resource.Doc, _ []byte) (int, any, error) {
	if _, err := s.amend(ctx, g, DelegationRevoke, func(r *accountRow) { r.Delegation = newKey() }); err != nil {
		return 0, nil, err
	}
	return http.StatusOK, nil, nil
}

// Routes are the doors of Resource Manager beside those of the kinds.
func (s *Service) Routes() []gate.Route {
	return append(s.policyRoutes(), gate.On(NameCheck, "POST /subscriptions/{sub}/providers/Microsoft.Storage/checkNameAvailability", func(r *http.Request, v gate.Vars) (gate.Target, error) {
		if err := resource.Version(r); err != nil {
			return gate.Target{}, err
		}
		id, err := arm.ParseID("/subscriptions/" + v["sub"])
		return gate.Target{ID: id}, err
	}, s.checkName))
}

// checkName says whether an account name is free, in the whole installation.
func (s *Service) checkName(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	if _, err := g.On(NameCheck); err != nil {
		return err
	}
	data, err := resource.ReadBody(w, r)
	if err != nil {
		return err
	}
	var in struct {
		Name string `json:"name"`
		Type string `json:"type"`
	}
	if err := arm.Decode(data, &in); err != nil {
		return err
	}
	out := map[string]any{"nameAvailable": true}
	if err := CheckAccountName(in.Name); err != nil {
		_, message := gate.PublicError(err)
		out = map[string]any{"nameAvailable": false, "reason": "AccountNameInvalid", "message": message}
	} else if s.byName(in.Name) != nil {
		out = map[string]any{"nameAvailable": false, "reason": "AlreadyExists", "message": "The storage account named " + in.Name + " is already taken."}
	}
	gate.WriteJSON(w, http.StatusOK, out)
	return nil
}

func (s *Service) showAccount(d *resource.Doc, props map[string]any) {
	created := s.Now().UTC()
	if d.System != nil {
		created = d.System.CreatedAt
	}
	props["provisioningState"] = "Succeeded"
	props["primaryEndpoints"] = map[string]any{"blob": s.Site.BlobURL(d.Name), "dfs": s.Site.DFSURL(d.Name), "file": s.Site.FileURL(d.Name)}
	props["primaryLocation"] = d.Location
	props["statusOfPrimary"] = "available"
	props["creationTime"] = created
	props["privateEndpointConnections"] = []any{}
	props["encryption"] = s.showEncryption(d, created)
	if a := s.byName(d.Name); a != nil {
		props["keyCreationTime"] = map[string]any{"key1": a.Keys[0].Created, "key2": a.Keys[1].Created}
	}
}

func propsOf(d *resource.Doc) (p Properties, err error) {
	if err = json.Unmarshal(d.Properties, &p); err != nil {
		err = fmt.Errorf("reading the properties of %s: %w", d.ID, err)
	}
	return p, err
}
