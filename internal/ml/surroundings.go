package ml

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// The listeners of a job's sandbox that tell tokens: two of its cluster's
// managed identities, one of the person who submitted it.
const (
	msiListener  = "msi"
	imdsListener = "imds"
	oboListener  = "obo"
)

// trusted is where a sandbox has the authorities that it trusts, the platform's
// own among them. Python's clients look only where they are told to.
const trusted = "/etc/ssl/certs/ca-certificates.crt"

// surroundings are a job's environment variables and the listeners that its
// sandbox has. The job's own variables come first: none replaces the platform's.
func (k *work) surroundings(token arm.Secret, expiry time.Time) ([]string, map[string]http.Handler) {
	env := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8",
		"HOME": k.s.Sandboxes.Inside(k.dir.root), "TMPDIR": k.s.Sandboxes.Inside(k.dir.root) + "/tmp",
		"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": strconv.Itoa(k.cl.size.CPUs), "MLFLOW_DISABLE_TELEMETRY": "true",
		"SSL_CERT_FILE": trusted, "REQUESTS_CA_BUNDLE": trusted,
	}
	maps.Copy(env, k.p.Variables)
	maps.Copy(env, k.azureml(token, expiry))
	listeners := k.metadata(env)
	out := make([]string, 0, len(env))
	for _, name := range sortedKeys(env) {
		out = append(out, name+"="+env[name])
	}
	return out, listeners
}

// azureml are the variables by which a job knows itself and its services.
func (k *work) azureml(token arm.Secret, expiry time.Time) map[string]string {
	base, id := k.s.Site.Base(), k.w.Doc.ID
	scope := id.String()
	return map[string]string{
		"AZUREML_RUN_TOKEN":                    string(token.Reveal()),
		"AZUREML_RUN_TOKEN_EXPIRY":             strconv.FormatInt(expiry.Unix(), 10),
		"AZUREML_RUN_TOKEN_RENEW":              base + "/mlservice/v1.0" + scope + "/runs/" + k.run + "/token",
		"AZUREML_RUN_ID":                       k.run,
		"AZUREML_ROOT_RUN_ID":                  k.run,
		"AZUREML_ARM_SUBSCRIPTION":             id.Subscription(),
		"AZUREML_ARM_RESOURCEGROUP":            id.Group().Name(),
		"AZUREML_ARM_WORKSPACE_NAME":           k.w.Doc.Name,
		"AZUREML_ARM_PROJECT_NAME":             k.p.Experiment,
		"AZUREML_SERVICE_ENDPOINT":             base,
		"AZUREML_DISCOVERY_SERVICE_ENDPOINT":   base + "/discovery",
		"AZUREML_RUN_HISTORY_SERVICE_ENDPOINT": base,
		"AZUREML_EXPERIMENT_ID":                k.in.ExpID,
		"AZUREML_EXPERIMENT_SCOPE":             scope + "/experiments/" + k.p.Experiment,
		"AZUREML_WORKSPACE_ID":                 k.w.workspaceInner.ID,
		"AZUREML_WORKSPACE_SCOPE":              scope,
		"AZUREML_COMPUTE":                      k.cl.Doc.Name,
		"AZUREML_NODE_COUNT":                   "1",
		"MLFLOW_TRACKING_URI":                  base + "/mlflow/v2.0" + scope,
		"MLFLOW_TRACKING_TOKEN":                string(token.Reveal()),
		"MLFLOW_RUN_ID":                        k.run,
		"MLFLOW_EXPERIMENT_ID":                 k.in.ExpID,
		"MLFLOW_EXPERIMENT_NAME":               k.p.Experiment,
	}
}

// metadata adds the endpoints that tell tokens, and what the job must know to ask
// them. The workspace's own identity is at none of them, whoever asks.
func (k *work) metadata(env map[string]string) map[string]http.Handler {
	for _, name := range []string{"MSI_ENDPOINT", "MSI_SECRET", "IDENTITY_ENDPOINT", "IDENTITY_HEADER", "DEFAULT_IDENTITY_CLIENT_ID", "OBO_ENDPOINT", "AZUREML_OBO_ENABLED"} {
		delete(env, name)
	}
	out := map[string]http.Handler{}
	if k.lent != nil {
		out[oboListener] = k.s.Metadata.Lent(k.onBehalf)
		env["OBO_ENDPOINT"], env["AZUREML_OBO_ENABLED"] = "http://"+k.s.Sandboxes.Address(oboListener)+"/obo/token", "True"
	}
	all := k.cl.identities()
	if len(all) == 0 {
		out[imdsListener] = k.s.Metadata.Instance(nil, k.facts())
		return out
	}
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	secret := hex.EncodeToString(b[:])
	endpoint := "http://" + k.s.Sandboxes.Address(msiListener) + "/msi/token"
	k.hide.hide(secret)
	env["MSI_ENDPOINT"], env["MSI_SECRET"] = endpoint, secret
	env["IDENTITY_ENDPOINT"], env["IDENTITY_HEADER"] = endpoint, secret
	env["DEFAULT_IDENTITY_CLIENT_ID"] = cmp.Or(k.who.client, k.s.Tokens.Client(k.who.of, k.who.principal))
	out[msiListener] = k.s.Metadata.Managed(arm.NewSecret([]byte(secret)), k.tokens(all))
	out[imdsListener] = k.s.Metadata.Instance(k.tokens(all), k.facts())
	return out
}

// facts are what the instance metadata service tells of the job's node.
func (k *work) facts() map[string]any {
	id := k.cl.Doc.ID
	return map[string]any{
		"compute": map[string]any{
			"azEnvironment": k.s.Site.Suffix, "location": k.s.Site.Location, "name": "node-" + k.run, "osType": "Linux", "provider": namespace,
			"resourceGroupName": id.Group().Name(), "resourceId": id.String(), "subscriptionId": id.Subscription(), "vmId": k.open.Instance, "vmSize": k.cl.size.Name,
		},
		"network": map[string]any{"interface": []any{}},
	}
}

// mintManaged is what minting a managed identity's token asks for.
var mintManaged = arm.NewDataAction("Castellan.Identity/managedIdentities/mint/action", "get a token as a managed identity")

// tokens mints for this job's identities, while the job runs.
func (k *work) tokens(all []identity) TokenFunc {
	return func(ctx context.Context, audience, clientID, objectID, resourceID string) (arm.Secret, string, time.Time, error) {
		none := arm.Errorf(arm.BadRequest, "Identity not found: this job's cluster has no such managed identity")
		if _, alive := k.s.live.find(k.w.Doc.ID, k.run); !alive {
			return arm.Secret{}, "", time.Time{}, arm.Errorf(arm.BadRequest, "the job is over")
		}
		for _, i := range k.candidates(all, clientID, objectID, resourceID) {
			held, err := k.held(ctx, i)
			if err == nil && !held {
				err = none
			}
			if err != nil {
				return arm.Secret{}, "", time.Time{}, err
			}
			as := k.s.system("giving the job "+k.run+" its cluster's identity", i.of, mintManaged)
			token, client, end, err := k.s.Tokens.Managed(ctx, as, i.of, audience, k.bound())
			if err != nil {
				return arm.Secret{}, "", time.Time{}, err
			}
			if clientID != "" && !strings.EqualFold(clientID, client) || i.client != "" && i.client != client {
				continue // the latter is of another identity, made since under the same id
			}
			k.hide.hide(string(token.Reveal()))
			return token, client, end, nil
		}
		return arm.Secret{}, "", time.Time{}, none
	}
}

// held reports whether the cluster, as it is now, still has the identity: one
// that was taken from it is the job's no more.
func (k *work) held(ctx context.Context, i identity) (held bool, err error) {
	err = k.s.DB.View(ctx, func(tx *store.Tx) error {
		cl, ok, err := k.s.clusterIn(tx, k.cl.Doc.ID)
		if err != nil || !ok {
			return err
		}
		for _, x := range cl.identities() {
			held = held || x.of.Key() == i.of.Key() && x.principal == i.principal
		}
		return nil
	})
	return held, err
}

// bound is the sandbox that tokens of the cluster's identities are bound to, or
// "": Azure's are good anywhere, and jobs hand them to others.
func (k *work) bound() string {
	if b := k.cl.Cluster.Bag; b != nil && bool(b.BindTokens) {
		return sandboxName(k.open.Instance)
	}
	return ""
}

// acting is as whom the job reaches data now: the person who lent it their
// identity, or else its cluster's identity.
func (k *work) acting(ctx context.Context) (arm.Caller, error) {
	if k.lent != nil {
		return k.lender(ctx)
	}
	held, err := k.held(ctx, k.who)
	if err != nil || !held {
		return arm.Caller{}, err
	}
	return k.who.caller(k.w.tenant), nil
}

// candidates are the identities that a question may mean.
func (k *work) candidates(all []identity, clientID, objectID, resourceID string) []identity {
	if clientID == "" && objectID == "" && resourceID == "" {
		return []identity{k.who}
	}
	var out []identity
	for _, i := range all {
		switch {
		case clientID != "" && i.client != "" && !strings.EqualFold(clientID, i.client),
			objectID != "" && !strings.EqualFold(objectID, i.principal),
			resourceID != "" && !strings.EqualFold(resourceID, i.of.String()):
			continue
		}
		out = append(out, i)
	}
	return out
}

// sortedKeys are a map's keys in order.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
