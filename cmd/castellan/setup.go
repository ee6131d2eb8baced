package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"castellan/internal/app"

	"github.com/spf13/cobra"
)

// setup is castellan setup: what one does to clients so that they reach the server.
func setup() *cobra.Command {
	c := &cobra.Command{Use: "setup", Short: "Say what clients need to reach the server"}
	var data, write string
	var check bool
	cl := &cobra.Command{
		Use:   "clients",
		Short: "Print what each client needs, or write it to a folder, or prove it",
		Long: `Print the environment that unmodified Azure clients need to reach the server of a
data folder, and what each client wants besides. No client is patched.

  eval "$(castellan setup clients --env)"   set the environment of this shell
  castellan setup clients --write DIR       write env.sh and one note per client
  castellan setup clients --check           one real call by every client installed here`,
		Args: cobra.NoArgs,
	}
	env := cl.Flags().Bool("env", false, "print the environment only")
	cl.Flags().StringVar(&data, "data", "", "data folder of the server (default $XDG_DATA_HOME/castellan)")
	cl.Flags().StringVar(&write, "write", "", "write the files to this folder instead of printing them")
	cl.Flags().BoolVar(&check, "check", false, "prove every installed client with one real call; needs CASTELLAN_CLIENT_ID and CASTELLAN_CLIENT_SECRET")
	cl.RunE = func(c *cobra.Command, _ []string) error {
		r, err := readReady(data)
		if err != nil {
			return err
		}
		out := c.OutOrStdout()
		switch {
		case check:
			return checkClients(c.Context(), out, r)
		case *env:
			return printEnv(out, r)
		case write != "":
			return writeClients(out, r, write)
		}
		return printClients(out, r)
	}
	c.AddCommand(cl)
	return c
}

// readReady is what the server of the data folder wrote of itself.
func readReady(data string) (r app.Ready, err error) {
	if data, err = app.DataFolder(data); err != nil {
		return r, err
	}
	b, err := os.ReadFile(filepath.Join(data, "server.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("no server has run on %s yet; start one with castellan up, or name its folder with --data", data)
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("reading %s/server.json: %w", data, err)
	}
	return r, nil
}

// environment is what all clients read, in the order in which it is shown.
func environment(r app.Ready) [][2]string {
	bundle := r.CABundleFile
	if bundle == "" {
		bundle = r.CAFile
	}
	return [][2]string{
		{"HTTPS_PROXY", r.Proxy}, {"https_proxy", r.Proxy},
		{"NO_PROXY", "127.0.0.1,::1"}, {"no_proxy", "127.0.0.1,::1"},
		{"SSL_CERT_FILE", bundle}, {"REQUESTS_CA_BUNDLE", bundle}, {"NODE_EXTRA_CA_CERTS", r.CAFile},
		{"ARM_CLOUD_METADATA_URL", r.ARM + "/metadata/endpoints?api-version=2019-05-01"},
		{"ARM_METADATA_HOSTNAME", strings.TrimPrefix(r.ARM, "https://")},
		{"AZUREML_CURRENT_CLOUD", "Castellan"}, {"AZURE_CORE_INSTANCE_DISCOVERY", "false"},
		{"AZURE_AUTHORITY_HOST", r.Login}, {"AZURE_TENANT_ID", r.TenantID},
		{"AZURE_SUBSCRIPTION_ID", r.SubscriptionID}, {"MLFLOW_DISABLE_TELEMETRY", "true"},
	}
}

func printEnv(out io.Writer, r app.Ready) error {
	for _, kv := range environment(r) {
		if _, err := fmt.Fprintf(out, "export %s='%s'\n", kv[0], strings.ReplaceAll(kv[1], "'", `'\''`)); err != nil {
			return err
		}
	}
	return nil
}

// note is what one client needs besides the environment.
type note struct{ name, text string }

func notes(r app.Ready) []note {
	return []note{
		{"az", fmt.Sprintf(`# Azure CLI: ARM_CLOUD_METADATA_URL makes the cloud known, and the active one
mkdir -p "${AZURE_CONFIG_DIR:-$HOME/.azure}"
az login --service-principal -u CLIENT_ID -p CLIENT_SECRET --tenant %[1]s    # or: az login --use-device-code --tenant %[1]s
`, r.TenantID)},
		{"go", fmt.Sprintf(`// Azure SDK for Go
c := cloud.Configuration{
	ActiveDirectoryAuthorityHost: %q,
	Services: map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: %q, Audience: %q}},
}
o := azcore.ClientOptions{Cloud: c}
cred, err := azidentity.NewClientSecretCredential(%q, clientID, secret,
	&azidentity.ClientSecretCredentialOptions{ClientOptions: o, DisableInstanceDiscovery: true})
`, r.Login+"/", r.ARM, r.ARM, r.TenantID)},
		{"python", fmt.Sprintf(`# azure-identity and azure-ai-ml
cred = ClientSecretCredential(%q, client_id, secret, authority=%q, disable_instance_discovery=True)
ml = MLClient(cred, %q, "GROUP", "WORKSPACE")    # the cloud comes from ARM_CLOUD_METADATA_URL and AZUREML_CURRENT_CLOUD
`, r.TenantID, r.Login, r.SubscriptionID)},
		{"mlflow", fmt.Sprintf(`# mlflow, with no plugin
export MLFLOW_TRACKING_URI=%s/mlflow/v2.0/subscriptions/%s/resourceGroups/GROUP/providers/Microsoft.MachineLearningServices/workspaces/WORKSPACE
export MLFLOW_TRACKING_TOKEN="$(az account get-access-token --query accessToken -o tsv)"
`, r.ML, r.SubscriptionID)},
		{"js", fmt.Sprintf(`// Azure SDK for JavaScript
const cred = new ClientSecretCredential(%q, clientId, secret, {authorityHost: %q, disableInstanceDiscovery: true});
const ml = new AzureMachineLearningWorkspaces(cred, %q, {endpoint: %q, credentialScopes: %q});
`, r.TenantID, r.Login, r.SubscriptionID, r.ARM, r.ARM+"/.default")},
	}
}

func printClients(out io.Writer, r app.Ready) error {
	fmt.Fprintln(out, "# The environment of every client:")
	if err := printEnv(out, r); err != nil {
		return err
	}
	for _, n := range notes(r) {
		if _, err := fmt.Fprintf(out, "\n%s", n.text); err != nil {
			return err
		}
	}
	return nil
}

func writeClients(out io.Writer, r app.Ready, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var b strings.Builder
	if err := printEnv(&b, r); err != nil {
		return err
	}
	files := append([]note{{"env.sh", b.String()}}, notes(r)...)
	for _, n := range files {
		path := filepath.Join(dir, n.name)
		if n.name != "env.sh" {
			path += ".txt"
		}
		if err := os.WriteFile(path, []byte(n.text), 0o644); err != nil {
			return err
		}
		fmt.Fprintln(out, "wrote", path)
	}
	return nil
}

// proof is one real call of one client.
type proof struct {
	client string
	needs  []string // programs, and python modules as python3:module
	script string   // of sh
}

var proofs = []proof{
	{"curl", []string{"curl"}, `curl -fsS --cacert "$SSL_CERT_FILE" -X POST "$LOGIN/$AZURE_TENANT_ID/oauth2/v2.0/token" -d grant_type=client_credentials -d "client_id=$AZURE_CLIENT_ID" --data-urlencode "client_secret=$AZURE_CLIENT_SECRET" --data-urlencode "scope=$ARM/.default"`},
	{"az", []string{"az"}, `az login --service-principal -u "$AZURE_CLIENT_ID" -p "$AZURE_CLIENT_SECRET" --tenant "$AZURE_TENANT_ID" && az group list`},
	{"azure-identity (Python)", []string{"python3", "python3:azure.identity"}, `python3 -c 'import os
from azure.identity import ClientSecretCredential
c = ClientSecretCredential(os.environ["AZURE_TENANT_ID"], os.environ["AZURE_CLIENT_ID"], os.environ["AZURE_CLIENT_SECRET"], authority=os.environ["LOGIN"], disable_instance_discovery=True)
assert c.get_token(os.environ["ARM"] + "/.default").token'`},
	{"@azure/identity (Node)", []string{"node", "node:@azure/identity"}, `node -e 'const {ClientSecretCredential} = require("@azure/identity"); const e = process.env;
new ClientSecretCredential(e.AZURE_TENANT_ID, e.AZURE_CLIENT_ID, e.AZURE_CLIENT_SECRET, {authorityHost: e.LOGIN, disableInstanceDiscovery: true}).getToken(e.ARM + "/.default").catch(x => { console.error(x.message); process.exit(1) })'`},
}

// checkClients makes one real call by every client that is installed, and fails
// if one fails or if none is there.
func checkClients(ctx context.Context, out io.Writer, r app.Ready) error {
	id, secret := os.Getenv("CASTELLAN_CLIENT_ID"), os.Getenv("CASTELLAN_CLIENT_SECRET")
	if id == "" || secret == "" {
		return errors.New("--check signs in as an application: set CASTELLAN_CLIENT_ID and CASTELLAN_CLIENT_SECRET (the first start of castellan up prints those of its administrator)")
	}
	home, err := os.MkdirTemp("", "castellan-check-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "AZURE_") })
	for _, kv := range environment(r) {
		env = append(env, kv[0]+"="+kv[1])
	}
	env = append(env, "AZURE_CONFIG_DIR="+home, "AZURE_CLIENT_ID="+id, "AZURE_CLIENT_SECRET="+secret, "ARM="+r.ARM, "LOGIN="+r.Login, "GRAPH="+r.Graph)
	ran, failed := 0, 0
	for _, p := range proofs {
		if missing := lacks(ctx, p.needs); missing != "" {
			fmt.Fprintf(out, "skip  %s: %s is not installed\n", p.client, missing)
			continue
		}
		ran++
		if err := prove(ctx, p, env); err != nil {
			failed++
			fmt.Fprintf(out, "FAIL  %s: %v\n", p.client, err)
			continue
		}
		fmt.Fprintf(out, "ok    %s\n", p.client)
	}
	if ran == 0 {
		return errors.New("none of the clients is installed here, so nothing was proven")
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d clients failed", failed, ran)
	}
	return nil
}

// lacks is the first thing of needs that is not installed, or "".
func lacks(ctx context.Context, needs []string) string {
	for _, n := range needs {
		program, module, ok := strings.Cut(n, ":")
		switch {
		case !ok:
			if _, err := exec.LookPath(program); err != nil {
				return program
			}
		case program == "python3":
			if exec.CommandContext(ctx, program, "-c", "import "+module).Run() != nil {
				return "the Python package " + module
			}
		case program == "node":
			if exec.CommandContext(ctx, program, "-e", "require.resolve('"+module+"')").Run() != nil {
				return "the Node package " + module
			}
		}
	}
	return ""
}

// prove runs one proof. What it prints is not shown, since it may be a token.
func prove(ctx context.Context, p proof, env []string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", p.script)
	cmd.Env = env
	var errText strings.Builder
	cmd.Stderr = &errText
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(errText.String()), "\n")
		return fmt.Errorf("%w: %s", err, lines[len(lines)-1])
	}
	return nil
}
