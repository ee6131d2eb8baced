package ml

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// The secrets that v1 keeps for jobs lie in the workspace's vault, written and
// read as the workspace's identity, and bear its id in a tag. What else is in
// the vault (somebody's own secrets, what opens datastores) these doors do not
// open by the workspace's rights: there the caller's own rights in the vault decide.

// secretTag is the tag that says for which workspace a secret was kept.
const secretTag = "azureml-workspace"

// maxBatch is how many secrets a batch may name.
const maxBatch = 100

func (s *Service) v1SecretRoutes() []gate.Route {
	const all = credentialV2 + "/secrets"
	return []gate.Route{
		gate.On(readSecrets, "GET "+all, s.v1Secret, s.listV1Secrets),
		gate.On(writeSecrets, "PUT "+all, s.v1Secret, s.setV1Secret),
		gate.On(readSecrets, "GET "+all+"/{secret}", s.v1Secret, s.getV1Secret),
		gate.On(deleteSecrets, "DELETE "+all+"/{secret}", s.v1Secret, s.deleteV1Secret),
		gate.On(writeSecrets, "PUT "+all+":putbatch", s.v1Secret, s.setV1Secrets),
		gate.On(readSecrets, "POST "+all+":getbatch", s.v1Secret, s.getV1Secrets),
		gate.On(deleteSecrets, "POST "+all+":deletebatch", s.v1Secret, s.deleteV1Secrets),
	}
}

// v1Secret is the workspace, with the secret's name, or the run that asks by its own token.
func (s *Service) v1Secret(r *http.Request, v gate.Vars) (gate.Target, error) {
	on, err := v1Workspace(r, v)
	if err != nil {
		return on, err
	}
	if strings.EqualFold(r.URL.Query().Get("systemSecret"), "true") {
		return on, arm.Errorf(arm.Unsupported, "systemSecret is true; the service's own secrets have no door")
	}
	if on.Item = v["secret"]; on.Item != "" {
		if err := arm.CheckSegment(on.Item); err != nil {
			return on, err
		}
	}
	if c, ok, err := s.RunToken(r); ok && err == nil {
		on.Item = c.Lease.Item
	}
	return on, nil
}

// v1Credential is a secret on the wire (azureml-core's CredentialDto).
type v1Credential struct {
	Name     string     `json:"name"`
	Value    string     `json:"value,omitempty"`
	Type     string     `json:"contentType,omitempty"`
	Created  *time.Time `json:"createdTime,omitempty"`
	Modified *time.Time `json:"modifiedTime,omitempty"`
}

type v1Batch struct {
	Secrets []v1Credential `json:"secrets"`
	Missing []string       `json:"notFoundSecrets"`
}

// names are the secrets of a batch.
func (b v1Batch) names() (out []string) {
	for _, c := range b.Secrets {
		out = append(out, c.Name)
	}
	return out
}

// readBatch reads a batch, or one secret, out of a body.
func readBatch(r *http.Request) (in v1Batch, err error) {
	data, err := v1Body(r)
	if err == nil {
		err = arm.Decode(data, &in)
	}
	if n := len(in.Secrets); err == nil && (n == 0 || n > maxBatch) {
		err = arm.Errorf(arm.BadRequest, "secrets has %d secrets; it must have 1 to %d", n, maxBatch)
	}
	return in, err
}

// keeper is what the doors of secrets act on: a workspace's secrets, for one caller.
type keeper struct {
	*Service
	w  workspace
	as arm.Caller
}

// keeper is the caller's, once the Grant is for a.
func (s *Service) keeper(ctx context.Context, g gate.Grant, a arm.Action) (keeper, error) {
	id, err := g.On(a)
	if err != nil {
		return keeper{}, err
	}
	w, err := s.load(ctx, id)
	return keeper{s, w, g.Caller()}, err
}

// owner is who acts on the secret: the workspace if it was kept for it, or if there is
// none and it is to be made; else the caller.
func (k keeper) owner(ctx context.Context, name string, making bool) (arm.Caller, VaultSecret, error) {
	found, err := k.Vaults.Secret(ctx, k.w.self(), k.w.KeyVault.ID, name)
	switch {
	case err == nil && found.Tags[secretTag] == k.w.workspaceInner.ID, noSecret(err) && making:
		return k.w.self(), found, nil
	case err == nil:
		return k.as, VaultSecret{}, nil
	}
	return arm.Caller{}, VaultSecret{}, err
}

func noSecret(err error) bool { return arm.CodeOf(err) == "SecretNotFound" }

func (k keeper) get(ctx context.Context, name string) (VaultSecret, error) {
	as, found, err := k.owner(ctx, name, false)
	if err == nil && found.Name == "" {
		found, err = k.Vaults.Secret(ctx, as, k.w.KeyVault.ID, name)
	}
	return found, err
}

func (k keeper) set(ctx context.Context, c v1Credential) error {
	if c.Value == "" {
		return arm.Errorf(arm.BadRequest, "value is missing; it is what the secret %q is", c.Name)
	}
	as, _, err := k.owner(ctx, c.Name, true)
	if err != nil {
		return err
	}
	_, err = k.Vaults.Keep(ctx, as, k.w.KeyVault.ID, VaultSecret{
		Name: c.Name, Value: arm.NewSecret([]byte(c.Value)), Type: c.Type, Tags: map[string]string{secretTag: k.w.workspaceInner.ID},
	})
	return err
}

func (k keeper) discard(ctx context.Context, name string) error {
	as, _, err := k.owner(ctx, name, false)
	if err == nil {
		err = k.Vaults.Discard(ctx, as, k.w.KeyVault.ID, name)
	}
	return err
}

// reader is keeper for values: who may list secrets in v2 gets them, and in v1
// legacy mode every reader. A run gets what whoever submitted it would get.
func (s *Service) reader(ctx context.Context, g gate.Grant) (keeper, gate.Grant, error) {
	k, err := s.keeper(ctx, g, readSecrets)
	if err != nil {
		return k, gate.Grant{}, err
	}
	if l := g.Caller().Lease; l != nil {
		return k, gate.Grant{}, s.submitterReads(k.w, l.Item)
	}
	may, _, err := s.unveil(ctx, g, k.w, k.w.Doc.ID)
	if err != nil {
		return k, gate.Grant{}, err
	}
	if _, err := may.On(listSecrets, readSecrets); err != nil {
		return k, gate.Grant{}, arm.Errorf(arm.Forbidden, "The client '%s' may see which secrets there are, and not read them: that takes '%s' over scope '%s', or a workspace in v1 legacy mode", g.Caller().Name, listSecrets.Name(), k.w.Doc.ID)
	}
	return k, may, nil
}

// submitterReads asks what reader asks of the one who submitted a run.
func (s *Service) submitterReads(w workspace, run string) error {
	live, ok := s.live.find(w.Doc.ID, run)
	if !ok {
		return arm.Errorf(arm.Unauthenticated, "the run is over")
	}
	who, err := s.People.Known(live.by.Tenant, live.by.Object)
	if err != nil {
		return err
	}
	actions := []arm.Action{readSecrets}
	if !w.legacy() {
		actions = append(actions, listSecrets)
	}
	for _, a := range actions {
		if ok, _ := s.Gate.Judge(who, a, gate.Target{ID: w.Doc.ID}); !ok {
			return arm.Errorf(arm.Forbidden, "The run was submitted by '%s', who does not have authorization to perform action '%s' over scope '%s'", who.Name, a.Name(), w.Doc.ID)
		}
	}
	return nil
}

func v1SecretShown(x VaultSecret) v1Credential {
	return v1Credential{Name: x.Name, Value: string(x.Value.Reveal()), Type: x.Type, Created: &x.Created, Modified: &x.Updated}
}

func (s *Service) getV1Secret(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	k, may, err := s.reader(r.Context(), g)
	if err != nil {
		return err
	}
	found, err := k.get(r.Context(), secretName(r))
	if err := may.Close(r.Context(), err); err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	gate.WriteJSON(w, http.StatusOK, v1SecretShown(found))
	return nil
}

// secretName is the name at the path's end: a run's Grant is for the run.
func secretName(r *http.Request) string {
	return r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
}

func (s *Service) getV1Secrets(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	k, may, err := s.reader(r.Context(), g)
	if err != nil {
		return err
	}
	out := v1Batch{Secrets: []v1Credential{}, Missing: []string{}}
	err = func() error {
		in, err := readBatch(r)
		if err != nil {
			return err
		}
		for _, name := range in.names() {
			found, err := k.get(r.Context(), name)
			if noSecret(err) {
				out.Missing = append(out.Missing, name)
				continue
			}
			if err != nil {
				return err
			}
			out.Secrets = append(out.Secrets, v1SecretShown(found))
		}
		return nil
	}()
	if err := may.Close(r.Context(), err); err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	gate.WriteJSON(w, http.StatusOK, out)
	return nil
}

// listV1Secrets lists what was kept for the workspace, without values.
func (s *Service) listV1Secrets(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	k, err := s.keeper(r.Context(), g, readSecrets)
	if err != nil {
		return err
	}
	value := []v1Credential{}
	for after := ""; ; {
		found, next, err := s.Vaults.Secrets(r.Context(), k.w.self(), k.w.KeyVault.ID, after)
		if err != nil {
			return err
		}
		for _, x := range found {
			if x.Tags[secretTag] == k.w.workspaceInner.ID {
				value = append(value, v1Credential{Name: x.Name})
			}
		}
		if after = next; after == "" {
			break
		}
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": value})
	return nil
}

func (s *Service) setV1Secret(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	k, err := s.keeper(r.Context(), g, writeSecrets)
	if err != nil {
		return err
	}
	data, err := v1Body(r)
	if err != nil {
		return err
	}
	var in v1Credential
	if err := arm.Decode(data, &in); err != nil {
		return err
	}
	if err := k.set(r.Context(), in); err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, v1Credential{Name: in.Name, Type: in.Type})
	return nil
}

func (s *Service) setV1Secrets(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	k, err := s.keeper(r.Context(), g, writeSecrets)
	if err != nil {
		return err
	}
	in, err := readBatch(r)
	if err != nil {
		return err
	}
	out := v1Batch{Missing: []string{}}
	for _, c := range in.Secrets {
		if err := k.set(r.Context(), c); err != nil {
			return err
		}
		out.Secrets = append(out.Secrets, v1Credential{Name: c.Name, Type: c.Type})
	}
	gate.WriteJSON(w, http.StatusOK, out)
	return nil
}

func (s *Service) deleteV1Secret(_ http.ResponseWriter, r *http.Request, g gate.Grant) error {
	k, err := s.keeper(r.Context(), g, deleteSecrets)
	if err != nil {
		return err
	}
	return k.discard(r.Context(), secretName(r))
}

func (s *Service) deleteV1Secrets(_ http.ResponseWriter, r *http.Request, g gate.Grant) error {
	k, err := s.keeper(r.Context(), g, deleteSecrets)
	if err != nil {
		return err
	}
	in, err := readBatch(r)
	if err != nil {
		return err
	}
	names := in.names()
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if err := k.discard(r.Context(), name); err != nil && !noSecret(err) {
			return err
		}
	}
	return nil
}
