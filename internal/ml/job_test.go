package ml

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// ready is a world with a workspace, a cluster and code.
func ready(t *testing.T, identity string) *world {
	w := newWorld(t)
	w.workspace(ws)
	w.cluster("cpu", identity)
	return w
}

// upload does as a client does: it asks for a place, uploads and registers.
func (w *world) upload(name string, files map[string]string) (container string) {
	w.t.Helper()
	_, up := w.do("olga", "POST", ws+"/codes/"+name+"/versions/1/startPendingUpload", `{"pendingUploadType":"TemporaryBlobReference"}`, 200)
	uri, _ := dig(up, "blobReferenceForConsumption", "blobUri").(string)
	sas, _ := dig(up, "blobReferenceForConsumption", "credential", "sasUri").(string)
	if !strings.HasPrefix(uri, "https://acct1.blob.core.castellan.localhost/") || !strings.HasPrefix(sas, uri+"?") {
		w.t.Fatalf("startPendingUpload = %v", up)
	}
	container = uri[strings.LastIndexByte(uri, '/')+1:]
	for f, text := range files {
		w.blobs.put(account1, container, "code/"+f, text)
	}
	w.do("olga", "PUT", ws+"/codes/"+name+"/versions/1", `{"properties":{"codeUri":"`+uri+`/code","isAnonymous":true,"properties":{"hash_sha256":"abc","hash_version":202208}}}`, 201)
	return container
}

// The main path: code, inputs of all forms, outputs, the log, the variables.
func TestAJobRunsToItsEnd(t *testing.T) {
	w := ready(t, systemIdentity)
	w.upload("c1", map[string]string{"train.sh": "echo hello from $1; cat \"$2\"; mkdir -p outputs/model; echo weights > outputs/model/w.bin; echo out > \"$3/result.txt\"; echo notes > logs/n.txt", "lib/x.txt": "x"})
	_, ds := w.do("olga", "GET", ws+"/datastores/workspaceblobstore", "", 200)
	blobstore := dig(ds, "properties", "containerName").(string)
	w.blobs.put(account1, blobstore, "data/in.csv", "1,2,3\n")
	w.do("olga", "PUT", ws+"/data/d1/versions/1", `{"properties":{"dataType":"uri_folder","dataUri":"azureml://datastores/workspaceblobstore/paths/data/"}}`, 201)
	w.job("j1", `"displayName":"first","experimentName":"exp","codeId":"`+ws+`/codes/c1/versions/1","tags":{"k":"v"},
		"command":"sh train.sh ${{inputs.name}} ${{inputs.file}} ${{outputs.res}} && ls ${{inputs.folder}} && echo DONE $AZUREML_RUN_ID $MINE",
		"environmentVariables":{"MINE":"yes","AZUREML_RUN_ID":"forged"},
		"inputs":{"name":{"jobInputType":"literal","value":"it's $(whoami)"},"file":{"jobInputType":"uri_file","uri":"azureml://datastores/workspaceblobstore/paths/data/in.csv"},"folder":{"jobInputType":"uri_folder","uri":"azureml:d1:1"}},
		"outputs":{"res":{"jobOutputType":"uri_folder"}}`)
	if r := w.runs.get("j1"); r.Experiment != "exp" || r.DisplayName != "first" || r.User.Object != "olga" || r.Tags["k"] != "v" {
		t.Errorf("history knows %+v when the PUT is answered", r.Run)
	}
	w.ends("j1", "Completed")
	r := w.runs.get("j1")
	log := r.artifacts[stdLog]
	for _, want := range []string{"hello from it's $(whoami)", "1,2,3", "in.csv", "DONE j1 yes"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q: %s", want, log)
		}
	}
	if r.artifacts["outputs/model/w.bin"] != "weights\n" || r.artifacts["logs/n.txt"] != "notes\n" {
		t.Errorf("artifacts = %v", r.artifacts)
	}
	if got := string(w.blobs.made[strings.ToLower(account1)+"|"+blobstore]["azureml/j1/res/result.txt"]); got != "out\n" {
		t.Errorf("the output is %q", got)
	}
	want := "Preparing Running Finalizing Completed"
	var passed []string
	for _, s := range r.passed {
		passed = append(passed, string(s))
	}
	if got := strings.Join(passed, " "); got != want {
		t.Errorf("history saw %s, want %s", got, want)
	}
	if r.props["castellan.sandbox"] != "none" || r.props["castellan.exitCode"] != "0" {
		t.Errorf("the run's properties are %v", r.props)
	}
	if left := w.scratch(); len(left) != 0 {
		t.Errorf("scratch has %v", left)
	}
	w.variables(w.boxes.last())
	w.do("olga", "PUT", ws+"/jobs/j1", jobBody(`"command":"echo other"`), 409)
}

// variables are the environment of B06.
func (w *world) variables(t Task) {
	token := envOf(t, "AZUREML_RUN_TOKEN")
	for name, want := range map[string]string{
		"MLFLOW_TRACKING_TOKEN": token, "AZUREML_RUN_ID": "j1", "MLFLOW_RUN_ID": "j1", "AZUREML_ARM_SUBSCRIPTION": w.site.Subscription, "AZUREML_ARM_RESOURCEGROUP": "rg",
		"AZUREML_ARM_WORKSPACE_NAME": "ws1", "AZUREML_ARM_PROJECT_NAME": "exp", "AZUREML_SERVICE_ENDPOINT": "https://castellan.localhost",
		"AZUREML_DISCOVERY_SERVICE_ENDPOINT": "https://castellan.localhost/discovery", "AZUREML_RUN_HISTORY_SERVICE_ENDPOINT": "https://castellan.localhost",
		"AZUREML_EXPERIMENT_ID": "exp-exp", "AZUREML_EXPERIMENT_SCOPE": ws + "/experiments/exp", "AZUREML_WORKSPACE_SCOPE": ws,
		"MLFLOW_TRACKING_URI": "https://castellan.localhost/mlflow/v2.0" + ws, "MLFLOW_EXPERIMENT_ID": "exp-exp", "MLFLOW_EXPERIMENT_NAME": "exp",
	} {
		if got := envOf(t, name); got != want || got == "" {
			w.t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"AZUREML_RUN_TOKEN_EXPIRY", "AZUREML_WORKSPACE_ID", "MSI_ENDPOINT", "MSI_SECRET"} {
		if envOf(t, name) == "" {
			w.t.Errorf("%s is not set", name)
		}
	}
}

// Code that was changed in storage after it was registered is not run, whoever
// changed it and whenever (MID-10, JOB-10).
func TestTamperedCodeIsNotRun(t *testing.T) {
	w := ready(t, "")
	for name, tamper := range map[string]func(container string){
		"changed": func(c string) { w.blobs.put(account1, c, "code/run.sh", "echo EVIL") },
		"added":   func(c string) { w.blobs.put(account1, c, "code/sitecustomize.py", "EVIL") },
		"gone":    func(c string) { delete(w.blobs.made[strings.ToLower(account1)+"|"+c], "code/run.sh") },
		"longer":  func(c string) { w.blobs.put(account1, c, "code/run.sh", "echo GOOD\necho EVIL") },
	} {
		c := w.upload("code-"+name, map[string]string{"run.sh": "echo GOOD", "a.txt": "a"})
		tamper(c)
		w.job("j-"+name, `"command":"sh run.sh; echo RAN","codeId":"`+ws+`/codes/code-`+name+`/versions/1"`)
		w.ends("j-"+name, "Failed")
		r := w.runs.get("j-" + name)
		if !strings.Contains(r.failure, "is not run") || r.artifacts[stdLog] != "" {
			t.Errorf("%s: failed with %q, log %q", name, r.failure, r.artifacts[stdLog])
		}
	}
	if len(w.boxes.tasks) != 0 {
		t.Errorf("%d sandboxes were started", len(w.boxes.tasks))
	}
}

// Code comes from the workspace's own containers only: nobody has the workspace
// read for them what they may not read themselves (TEN-04).
func TestCodeComesFromNowhereElse(t *testing.T) {
	w := ready(t, "")
	w.blobs.put(account1, "somebody-elses", "x/run.sh", "secret")
	for uri, what := range map[string]string{
		"https://acct1.blob.core.castellan.localhost/somebody-elses/x":                                  "not one that code is uploaded to",
		"https://acct1.blob.core.castellan.localhost/azureml/x":                                         "not one that code is uploaded to",
		"https://acct2.blob.core.castellan.localhost/c/x":                                               "storage account",
		"https://169.254.169.254/c/x":                                                                   "not on this installation",
		"http://acct1.blob.core.castellan.localhost/c/x":                                                "not on this installation",
		"https://acct1.blob.core.castellan.localhost.evil.example/c/x":                                  "not on this installation",
		"https://u:p@acct1.blob.core.castellan.localhost/c/x":                                           "without a query",
		"https://acct1.blob.core.castellan.localhost/c/x?sig=SECRET":                                    "without a query",
		"azureml://datastores/workspaceartifactstore/paths/x":                                           "code lies in",
		"azureml://datastores/workspaceblobstore/paths/../x":                                            "segment",
		"azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/workspaceblobstore/paths/x": "another workspace",
	} {
		code, message := w.refused("olga", "PUT", ws+"/codes/c/versions/1", `{"properties":{"codeUri":"`+uri+`"}}`, 400)
		if code == "" || !strings.Contains(message, what) || strings.Contains(message, "SECRET") {
			t.Errorf("%s: %s %q, want %q", uri, code, message, what)
		}
	}
	w.upload("mine", map[string]string{"a": "b"})
	if code, _ := w.refused("olga", "PUT", ws+"/codes/mine/versions/1", `{"properties":{"codeUri":"https://acct1.blob.core.castellan.localhost/other"}}`, 409); code != "Conflict" {
		t.Errorf("a version's place changed: %s", code)
	}
	w.do("rita", "POST", ws+"/codes/x/versions/1/startPendingUpload", "", 403)
	_, list := w.do("rita", "GET", ws+"/codes/unknown/versions?hash=abc&hashVersion=202208", "", 200)
	if v := list["value"].([]any); len(v) != 0 {
		t.Errorf("unknown code = %v", v)
	}
	_, list = w.do("rita", "GET", ws+"/codes/mine/versions?hash=abc&hashVersion=202208", "", 200)
	if v := list["value"].([]any); len(v) != 1 {
		t.Errorf("code by its hash = %v", list)
	}
	_, list = w.do("rita", "GET", ws+"/codes/mine/versions?hash=abd&hashVersion=202208", "", 200)
	if v := list["value"].([]any); len(v) != 0 {
		t.Errorf("code by another hash = %v", list)
	}
}

// A run token opens what is published, for its run, while that runs; nothing
// else, and never again afterwards (B06-B08, MID-04, MID-05).
func TestARunTokenLivesAsLongAsItsRun(t *testing.T) {
	w := ready(t, "")
	w.workspace(ws2)
	w.job("j1", `"command":"echo started; sleep 60"`)
	w.until("the job runs", func() bool { return w.status("j1") == "Running" })
	token := envOf(w.boxes.last(), "AZUREML_RUN_TOKEN")
	who := func(raw string) (arm.Caller, bool, error) {
		r, _ := http.NewRequest("GET", "https://castellan.localhost/", nil)
		r.Header.Set("Authorization", "Bearer "+raw)
		return w.s.RunToken(r.WithContext(gate.From(r.Context(), w.inside)))
	}
	for _, elsewhere := range []string{"", "job-of-another", w.boxes.last().Name + "x"} {
		w.inside = elsewhere
		if c, ok, err := who(token); !ok || err == nil || !c.IsZero() {
			t.Errorf("the token, stolen and shown from %q, is %+v, %v", elsewhere, c, err)
		}
	}
	w.inside = w.boxes.last().Name
	c, ok, err := who(token)
	if !ok || err != nil || c.Lease == nil || c.Lease.Item != "j1" {
		t.Fatalf("RunToken = %+v, %v, %v", c, ok, err)
	}
	for _, a := range RunActions {
		if !c.Lease.Allows(a, arm.MustID(ws)) {
			t.Errorf("%s is published but not allowed", a.Name())
		}
		if c.Lease.Allows(a, arm.MustID(ws2)) || c.Lease.Allows(a, arm.MustID(group)) {
			t.Errorf("%s is allowed elsewhere", a.Name())
		}
	}
	for _, a := range []string{workspaceType + "/read", workspaceType + "/jobs/write", workspaceType + "/computes/write", workspaceType + "/listKeys/action", workspaceType + "/datastores/listsecrets/action", "Microsoft.Storage/storageAccounts/listkeys/action", "Microsoft.Authorization/roleAssignments/write"} {
		if c.Lease.Allows(arm.NewAction(a, ""), arm.MustID(ws)) {
			t.Errorf("%s is allowed", a)
		}
	}
	for name, raw := range map[string]string{"altered": token[:len(token)-8] + "AAAAAAAA", "unsigned": forge(token)} {
		if c, _, err := who(raw); err == nil && !c.IsZero() {
			t.Errorf("an %s token is %+v", name, c)
		}
	}
	w.do(token, "GET", ws, "", 401) // ARM knows no run tokens
	renew := "/mlservice/v1.0" + ws + "/runs/j1/token"
	_, fresh := w.do(token, "POST", renew, "", 200)
	if c, ok, err := who(fresh["token"].(string)); !ok || err != nil || c.Lease.Item != "j1" {
		t.Errorf("the renewed token is %+v, %v", c, err)
	}
	w.do("olga", "POST", renew, "", 403) // an owner is not the run
	w.do(token, "POST", "/mlservice/v1.0"+ws2+"/runs/j1/token", "", 403)
	w.do(token, "POST", "/mlservice/v1.0"+ws+"/runs/j2/token", "", 403)
	w.do("rita", "POST", ws+"/jobs/j1/cancel", "", 403)
	w.do("olga", "POST", ws+"/jobs/j1/cancel", "", 200)
	for name, raw := range map[string]string{"first": token, "renewed": fresh["token"].(string)} {
		if _, _, err := who(raw); err == nil { // at once, though the sandbox may not be gone yet
			t.Errorf("the %s token still lives after the cancel", name)
		}
	}
	w.ends("j1", "Canceled")
	if !strings.Contains(w.runs.get("j1").artifacts[stdLog], "started") {
		t.Error("the log of a canceled job is lost")
	}
	w.do(token, "POST", renew, "", 401)
	w.do("olga", "POST", ws+"/jobs/j1/cancel", "", 200) // once more is no harm
}

// forge makes a token's algorithm "none".
func forge(token string) string {
	parts := strings.Split(token, ".")
	return "eyJhbGciOiJub25lIn0." + parts[1] + "."
}

// A token is good for no longer than its job may run.
func TestARunTokenEndsWithTheTimeLimit(t *testing.T) {
	w := ready(t, "")
	w.job("j1", `"command":"sleep 60","limits":{"jobLimitsType":"Command","timeout":"PT1S"}`)
	w.until("a sandbox is there", func() bool { w.boxes.mu.Lock(); defer w.boxes.mu.Unlock(); return len(w.boxes.tasks) > 0 })
	c, err := w.s.signer.read(envOf(w.boxes.last(), "AZUREML_RUN_TOKEN"))
	if err != nil || c.Expiry.Time().After(time.Now().Add(10*time.Minute)) {
		t.Errorf("the token of a job of one second is good until %v, %v", c.Expiry.Time(), err)
	}
	w.ends("j1", "Failed")
	if got := w.runs.get("j1").failure; !strings.Contains(got, "time limit (PT1S)") {
		t.Errorf("failed with %q", got)
	}
}

// Exit codes and what else goes wrong are told.
func TestAFailedJobSaysWhy(t *testing.T) {
	w := ready(t, "")
	w.job("code", `"command":"echo before; exit 3"`)
	w.job("nodata", `"command":"echo","inputs":{"x":{"jobInputType":"uri_file","uri":"azureml://datastores/workspaceblobstore/paths/none"}}`)
	w.job("link", `"command":"ln -s /etc/passwd outputs/p; mkfifo outputs/f"`)
	w.ends("code", "Failed")
	w.ends("nodata", "Failed")
	w.ends("link", "Failed")
	for name, want := range map[string]string{"code": "exit code 3", "nodata": "inputs.x: there is nothing at none", "link": "not a regular file"} {
		if got := w.runs.get(name).failure; !strings.Contains(got, want) {
			t.Errorf("%s failed with %q, want %q", name, got, want)
		}
	}
	if a := w.runs.get("link").artifacts; a["outputs/p"] != "" {
		t.Error("a link was followed") // JOB-11
	}
}

// The cluster's identity reads what its roles let it read; the workspace's
// helps it nowhere (B27, B28).
func TestDataIsReadAsTheClustersIdentity(t *testing.T) {
	w := ready(t, systemIdentity)
	w.blobs.put(account2, "private", "d.txt", "for the cluster only\n")
	w.do("olga", "PUT", ws+"/datastores/secured", `{"properties":{"datastoreType":"AzureBlob","accountName":"acct2","containerName":"private","credentials":{"credentialsType":"None"}}}`, 201)
	const in = `"command":"cat ${{inputs.d}}","inputs":{"d":{"jobInputType":"uri_file","uri":"azureml://datastores/secured/paths/d.txt"}}`
	w.roles.add(principalOf(arm.MustID(ws)), roleBlobContributor, arm.MustID(account2))
	w.job("refused", in)
	w.ends("refused", "Failed")
	mi := principalOf(arm.MustID(ws + "/computes/cpu"))
	if got := w.runs.get("refused").failure; !strings.Contains(got, "has no role on acct2") {
		t.Errorf("failed with %q", got)
	}
	w.roles.take(principalOf(arm.MustID(ws)), roleBlobContributor, arm.MustID(account2))
	w.roles.add(mi, roleBlobContributor, arm.MustID(account2))
	w.job("read", in)
	w.ends("read", "Completed")
	if log := w.runs.get("read").artifacts[stdLog]; !strings.Contains(log, "for the cluster only") {
		t.Errorf("log = %q", log)
	}
	if got := w.roles.ids[strings.ToLower(ws+"/computes/cpu")]; got != "ws1/computes/cpu" {
		t.Errorf("the cluster's identity is named %q", got)
	}
}

// In the sandbox there is the cluster's identity and never the workspace's
// (B17), and only while the job runs.
func TestOnlyTheClustersIdentityIsInside(t *testing.T) {
	w := ready(t, systemIdentity)
	w.job("j1", `"command":"sleep 60"`)
	w.until("the job runs", func() bool { return w.status("j1") == "Running" })
	task := w.boxes.last()
	ask := func(query string) (int, string) {
		r := httptest.NewRequest("GET", "/msi/token?"+query, nil)
		r.Header.Set("secret", envOf(task, "MSI_SECRET"))
		rec := httptest.NewRecorder()
		task.Listeners["msi"].ServeHTTP(rec, r)
		return rec.Code, rec.Body.String()
	}
	const resource = "resource=https://storage.azure.com"
	mine := "token of " + principalOf(arm.MustID(ws+"/computes/cpu"))
	for query, want := range map[string]int{
		resource: 200, resource + "&clientid=": 200, resource + "&clientid=client:cpu": 200, resource + "&mi_res_id=" + ws + "/computes/cpu": 200,
		resource + "&mi_res_id=" + ws: 400, resource + "&object_id=" + principalOf(arm.MustID(ws)): 400, resource + "&clientid=client:ws1": 400,
		resource + "&mi_res_id=" + uai1: 400, "resource=https://graph": 400,
	} {
		code, body := ask(query)
		if code != want || code == 200 && !strings.HasPrefix(body, mine) || code != 200 && strings.Contains(body, "token of") {
			t.Errorf("%s = %d %q, want %d", query, code, body, want)
		}
	}
	w.do("olga", "POST", ws+"/jobs/j1/cancel", "", 200)
	if code, body := ask(resource); code != 400 {
		t.Errorf("after the cancel: %d %q", code, body)
	}
	w.ends("j1", "Canceled")
}

// A job has the identities that its cluster has now: one that was taken from the
// cluster, or deleted and made anew under its id, is the running job's no more.
func TestARunningJobLosesTheIdentityThatItsClusterLost(t *testing.T) {
	const mine = `"identity":{"type":"UserAssigned","userAssignedIdentities":{"` + uai1 + `":{}}},`
	for name, lose := range map[string]func(w *world){
		"unassigned":   func(w *world) { w.do("olga", "PATCH", ws+"/computes/cpu", `{"identity":{"type":"None"}}`, 200) },
		"made anew":    func(w *world) { w.roles.anew = "-2" },
		"cluster gone": func(w *world) { w.do("olga", "DELETE", ws+"/computes/cpu", "", 200) },
	} {
		w := ready(t, mine)
		w.job("j1", `"command":"sleep 60"`)
		w.until("the job runs", func() bool { return w.status("j1") == "Running" })
		task := w.boxes.last()
		ask := func(query string) (int, string) {
			r := httptest.NewRequest("GET", "/msi/token?resource=https://storage.azure.com"+query, nil)
			r.Header.Set("secret", envOf(task, "MSI_SECRET"))
			rec := httptest.NewRecorder()
			task.Listeners["msi"].ServeHTTP(rec, r)
			return rec.Code, rec.Body.String()
		}
		if code, body := ask(""); code != 200 {
			t.Fatalf("%s: before: %d %s", name, code, body)
		}
		lose(w)
		for _, q := range []string{"", "&mi_res_id=" + uai1, "&clientid=client:" + arm.MustID(uai1).Name(), "&clientid=client:" + arm.MustID(uai1).Name() + "-2"} {
			if code, body := ask(q); code != 400 || strings.Contains(body, "token of") {
				t.Errorf("%s: %q = %d %s", name, q, code, body)
			}
		}
		w.do("olga", "POST", ws+"/jobs/j1/cancel", "", 200)
		w.ends("j1", "Canceled")
	}
}

// A datastore's key opens its container, and no answer shows it.
func TestSecretsOfDatastoresAreNotShown(t *testing.T) {
	w := ready(t, "")
	w.blobs.put(account2, "c", "d.txt", "by key\n")
	put := func(key string, want int) string {
		_, d := w.do("olga", "PUT", ws+"/datastores/keyed?skipValidation=false", `{"properties":{"datastoreType":"AzureBlob","accountName":"acct2","containerName":"c","credentials":{"credentialsType":"AccountKey","secrets":{"secretsType":"AccountKey","key":"`+key+`"}}}}`, want)
		b := jsonText(d)
		return b
	}
	if got := put("d3Jvbmc=", 400); strings.Contains(got, "d3Jvbmc") {
		t.Errorf("a refusal shows the key: %s", got)
	}
	if got := put(accountKey, 201); strings.Contains(got, accountKey) {
		t.Errorf("the answer shows the key: %s", got)
	}
	if _, d := w.do("olga", "GET", ws+"/datastores/keyed", "", 200); strings.Contains(jsonText(d), accountKey) || dig(d, "properties", "credentials", "credentialsType") != "AccountKey" {
		t.Errorf("GET = %v", d)
	}
	w.do("rita", "POST", ws+"/datastores/keyed/listSecrets", "", 403)
	if _, d := w.do("olga", "POST", ws+"/datastores/keyed/listSecrets", "", 200); d["key"] != accountKey {
		t.Errorf("listSecrets = %v", d)
	}
	w.do("olga", "PATCH", ws+"/datastores/keyed", `{"properties":{"description":"kept"}}`, 200)
	w.job("j1", `"command":"cat ${{inputs.d}}","inputs":{"d":{"jobInputType":"uri_file","uri":"https://acct2.blob.core.castellan.localhost/c/d.txt"}}`)
	w.ends("j1", "Completed")
	if log := w.runs.get("j1").artifacts[stdLog]; log != "by key\n" {
		t.Errorf("log = %q", log)
	}
	// A key does not go along to another account.
	w.do("olga", "PATCH", ws+"/datastores/keyed", `{"properties":{"accountName":"acct1"}}`, 400)
	for body, code := range map[string]string{
		`"datastoreType":"AzureFile","accountName":"acct2","fileShareName":"s"`:                                                      "NotSupported",
		`"datastoreType":"AzureBlob","accountName":"none","containerName":"c"`:                                                       "BadRequest",
		`"datastoreType":"AzureBlob","accountName":"acct2"`:                                                                          "BadRequest",
		`"datastoreType":"AzureBlob","accountName":"acct2","containerName":"c","endpoint":"core.windows.net"`:                        "BadRequest",
		`"datastoreType":"AzureBlob","accountName":"acct2","containerName":"c","credentials":{"credentialsType":"ServicePrincipal"}`: "BadRequest",
	} {
		if got, m := w.refused("olga", "PUT", ws+"/datastores/bad", `{"properties":{`+body+`}}`, 400); got != code {
			t.Errorf("%s: %s (%s), want %s", body, got, m, code)
		}
	}
}

// A cluster runs no more jobs at once than it has nodes, in the order in which
// they came; one that waits is canceled at once.
func TestJobsWaitTheirTurn(t *testing.T) {
	w := ready(t, "")
	w.boxes.hang = make(chan struct{})
	for _, n := range []string{"a", "b", "c", "d"} {
		w.job(n, `"command":"echo `+n+`"`)
	}
	w.until("two are under way", func() bool { w.boxes.mu.Lock(); defer w.boxes.mu.Unlock(); return len(w.boxes.tasks) == 2 })
	if c, d := w.status("c"), w.status("d"); c != "Queued" || d != "Queued" {
		t.Errorf("c is %s, d is %s; want both Queued", c, d)
	}
	_, cl := w.do("rita", "GET", ws+"/computes/cpu", "", 200)
	if got := dig(cl, "properties", "properties", "nodeStateCounts", "runningNodeCount"); got != 2.0 {
		t.Errorf("running nodes = %v", got)
	}
	_, nodes := w.do("olga", "POST", ws+"/computes/cpu/listNodes", "", 200)
	if got := nodes["nodes"].([]any); len(got) != 2 {
		t.Errorf("nodes = %v", got)
	}
	w.do("olga", "POST", ws+"/jobs/d/cancel", "", 200)
	if got := w.status("d"); got != "Canceled" {
		t.Errorf("d is %s right after its cancel", got)
	}
	close(w.boxes.hang)
	for _, n := range []string{"a", "b", "c"} {
		w.ends(n, "Completed")
	}
	w.ends("d", "Canceled")
	if len(w.boxes.tasks) != 3 {
		t.Errorf("%d sandboxes, want 3", len(w.boxes.tasks))
	}
	w.until("no row is open", func() (none bool) {
		_ = w.db.View(t.Context(), func(tx *store.Tx) error {
			rows, err := tx.Scan(openJobs, "", "", 0)
			none = err == nil && len(rows) == 0
			return err
		})
		return none
	})
}

// After a restart a job that waited runs, one whose command ran has failed and
// says so, and one that was being canceled is canceled.
func TestARestartSettlesEveryJob(t *testing.T) {
	w := ready(t, "")
	w.job("ran", `"command":"echo started; sleep 60"`)
	w.until("it runs", func() bool { return w.status("ran") == "Running" })
	w.stop()
	if got := w.status("ran"); got != "Failed" {
		t.Errorf("a job that ran when the server stopped is %s", got)
	}
	set := func(name string, change func(in *jobInner)) {
		err := w.db.Do(t.Context(), func(tx *store.Tx) error {
			d, in, err := jobIn(tx, arm.MustID(ws+"/jobs/"+name))
			if err != nil {
				return err
			}
			change(&in)
			if err := setInner(d, in); err != nil {
				return err
			}
			return resource.Save(tx, d)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []string{"waited", "prepared", "launched", "dying"} {
		w.job(n, `"command":"echo ran"`)
	}
	set("prepared", func(in *jobInner) { in.Status = Preparing })
	set("launched", func(in *jobInner) { in.Status, in.Launched = Running, true })
	set("dying", func(in *jobInner) { in.Status, in.Launched, in.Cancel = CancelRequested, true, true })
	w.start()
	w.ends("waited", "Completed")
	w.ends("prepared", "Completed")
	w.ends("launched", "Failed")
	w.ends("dying", "Canceled")
	if got := w.runs.get("launched").failure; !strings.Contains(got, "server ended") {
		t.Errorf("launched failed with %q", got)
	}
	for _, task := range w.boxes.tasks[1:] {
		if id := envOf(task, "AZUREML_RUN_ID"); id == "launched" || id == "dying" {
			t.Errorf("%s ran again", id)
		}
	}
}

// A deleted job's command ends, and so do those of a deleted workspace.
func TestADeletedJobStops(t *testing.T) {
	w := ready(t, "")
	pid := t.TempDir() + "/pid"
	w.job("j1", `"command":"echo $$ > `+pid+`.tmp; mv `+pid+`.tmp `+pid+`; sleep 60"`)
	w.until("it runs", func() bool { _, err := os.Stat(pid); return err == nil })
	w.do("olga", "DELETE", ws, "", 200)
	w.until("nothing runs", func() bool { return w.s.engine.usedCPUs() == 0 })
	if left := w.scratch(); len(left) != 0 {
		t.Errorf("scratch has %v", left)
	}
}

// History learns that a job was deleted before its end.
func TestADeletedJobsRunIsCanceled(t *testing.T) {
	w := ready(t, "")
	w.boxes.hang = make(chan struct{})
	w.job("under-way", `"command":"echo"`)
	w.job("two", `"command":"echo"`)
	w.job("waits", `"command":"echo"`)
	w.until("two are under way", func() bool { w.boxes.mu.Lock(); defer w.boxes.mu.Unlock(); return len(w.boxes.tasks) == 2 })
	for _, n := range []string{"under-way", "waits"} {
		w.do("olga", "DELETE", ws+"/jobs/"+n, "", 200)
		if got := w.runs.get(n).status; got != Canceled {
			t.Errorf("the run of %s is %s", n, got)
		}
	}
	close(w.boxes.hang)
	w.ends("two", "Completed")
}

// A job that is wrong is refused by what is wrong, and never queued.
func TestBadJobsAreRefused(t *testing.T) {
	w := ready(t, "")
	w.workspace(ws2)
	for props, what := range map[string]string{
		`"command":""`:                                               "command",
		`"command":"a ${{inputs.x}}"`:                                "no such input",
		`"command":"a ${{search_space.x}}"`:                          "supported",
		`"command":"a ${{inputs.x"`:                                  "without",
		`"command":"a","codeId":"` + ws + `/codes/none/versions/1"`:  "does not exist",
		`"command":"a","codeId":"` + ws2 + `/codes/none/versions/1"`: "names no version",
		`"command":"a","environmentId":"azureml:none:1"`:             "does not exist",
		`"command":"a","environmentId":"azureml://registries/azureml/environments/sklearn-1.5/labels/latest"`: "names no version",
		`"command":"a","computeId":"` + ws + `/computes/none"`:                                                "does not exist",
		`"command":"a","computeId":"` + ws2 + `/computes/cpu"`:                                                "another workspace",
		`"command":"a","computeId":"` + vault1 + `"`:                                                          "which is no",
		`"command":"a","identity":{"identityType":"UserIdentity","clientId":"x"}`:                             "UserIdentity",
		`"command":"a","identity":{"identityType":"Nobody"}`:                                                  "UserIdentity",
		`"command":"a","identity":{"identityType":"Managed"}`:                                                 "no such managed identity",
		`"command":"a","resources":{"instanceCount":2}`:                                                       "one node",
		`"command":"a","distribution":{"distributionType":"PyTorch"}`:                                         "distribution",
		`"command":"a","limits":{"timeout":"5 minutes"}`:                                                      "ISO 8601",
		`"command":"a","environmentVariables":{"A=B":"c"}`:                                                    "environmentVariables",
		`"command":"a","inputs":{"x":{"jobInputType":"mltable","uri":"azureml:d:1"}}`:                         "jobInputType",
		`"command":"a","inputs":{"x":{"jobInputType":"uri_file","uri":"https://evil.example/x"}}`:             "not on this installation",
		`"command":"a","inputs":{"x":{"jobInputType":"uri_file","uri":"file:///etc/passwd"}}`:                 "not a place",
		`"command":"a","inputs":{"x":{"jobInputType":"uri_file","uri":"azureml://datastores/none/paths/x"}}`:  "does not exist",
		`"command":"a","inputs":{"x-y":{"jobInputType":"literal","value":"v"}}`:                               "name",
		`"command":"a","outputs":{"x":{"jobOutputType":"uri_folder","uri":"https://evil.example/x"}}`:         "not on this installation",
		`"command":"a","experimentName":"../x"`:                                                               "experimentName",
		`"command":"a","noSuchThing":1`:                                                                       "noSuchThing",
	} {
		body := `{"properties":{"jobType":"Command",` + props
		for field, v := range map[string]string{"environmentId": "azureml:host:1", "computeId": ws + "/computes/cpu"} {
			if !strings.Contains(props, field) {
				body += `,"` + field + `":"` + v + `"`
			}
		}
		if code, m := w.refused("olga", "PUT", ws+"/jobs/bad", body+"}}", 400); code == "" || !strings.Contains(m, what) {
			t.Errorf("%s: %s %q, want %q", props, code, m, what)
		}
	}
	for _, typ := range []string{"Pipeline", "AutoML", "Sweep", "Spark", "Labeling"} {
		if code, m := w.refused("olga", "PUT", ws+"/jobs/bad", `{"properties":{"jobType":"`+typ+`","jobs":{},"whatever":1}}`, 400); code != "NotSupported" || !strings.Contains(m, typ) {
			t.Errorf("%s: %s %q", typ, code, m)
		}
	}
	w.do("olga", "GET", ws+"/jobs/bad", "", 404)
	if len(w.runs.runs) != 0 {
		t.Errorf("history has %v", w.runs.runs)
	}
}

// A PUT again is the same job, with new words about it.
func TestAJobsWordsChangeAndNothingElse(t *testing.T) {
	w := ready(t, "")
	w.job("j1", `"command":"echo hi","tags":{"team":"a"}`)
	w.ends("j1", "Completed")
	w.do("olga", "PUT", ws+"/jobs/j1", jobBody(`"command":"echo hi","tags":{"team":"b"},"isArchived":true`), 200)
	if got := w.status("j1"); got != "Completed" {
		t.Errorf("status after a second PUT = %s", got)
	}
	if code, m := w.refused("olga", "PUT", ws+"/jobs/j1", jobBody(`"command":"echo hi","environmentVariables":{"A":"b"}`), 409); code != "Conflict" || !strings.Contains(m, "environmentVariables") {
		t.Errorf("%s %q", code, m)
	}
	w.job("j2", `"command":"echo hi"`)
	list := func(q string) int {
		_, l := w.do("rita", "GET", ws+"/jobs"+q, "", 200)
		return len(l["value"].([]any))
	}
	if list("?listViewType=ActiveOnly") != 1 || list("?listViewType=All") != 2 || list("?listViewType=All&tag=team=b") != 1 || list("?listViewType=All&tag=other") != 0 || list("?jobType=Pipeline") != 0 {
		t.Error("filters of the list of jobs")
	}
	w.do("rita", "GET", ws+"/jobs?listViewType=Some", "", 400)
	w.ends("j2", "Completed")
	w.do("olga", "DELETE", ws+"/jobs/j2", "", 200)
	w.do("olga", "DELETE", ws+"/jobs/j2", "", 204)
}

// A data scientist submits jobs but neither makes nor deletes clusters (RBAC-08).
func TestWhatADataScientistMayDo(t *testing.T) {
	w := ready(t, "")
	w.give("dan", roleDataScientist, ws)
	w.do("dan", "PUT", ws+"/computes/x", `{"properties":{"computeType":"AmlCompute","properties":{"vmSize":"Standard_DS1_v2","scaleSettings":{"maxNodeCount":1}}}}`, 403)
	w.do("dan", "DELETE", ws+"/computes/cpu", "", 403)
	w.do("dan", "DELETE", ws, "", 403)
	w.do("dan", "POST", ws+"/resyncKeys", "", 200) // as in Azure: the role has workspaces/*/action
	w.do("dan", "PUT", ws+"/jobs/j1", jobBody(`"command":"echo hi"`), 201)
	w.ends("j1", "Completed")
	w.do("rita", "PUT", ws+"/jobs/j2", jobBody(`"command":"echo hi"`), 403)
	w.do("sam", "GET", ws+"/jobs/j1", "", 403)
}

func TestClusters(t *testing.T) {
	w := newWorld(t)
	w.workspace(ws)
	for body, what := range map[string]string{
		`"identity":{"type":"SystemAssigned,UserAssigned","userAssignedIdentities":{"` + uai1 + `":{}}},"properties":{"computeType":"AmlCompute","properties":{"vmSize":"Standard_DS1_v2","scaleSettings":{"maxNodeCount":1}}}`: "never both",
		`"properties":{"computeType":"ComputeInstance","properties":{"applicationSharingPolicy":"Shared"}}`:                                                                                                                     "ComputeInstance",
		`"properties":{"computeType":"AmlCompute","properties":{"vmSize":"Standard_ND96","scaleSettings":{"maxNodeCount":1}}}`:                                                                                                  "can give",
		`"properties":{"computeType":"AmlCompute","properties":{"vmSize":"Standard_D64s_v3","scaleSettings":{"maxNodeCount":1}}}`:                                                                                               "can give",
		`"properties":{"computeType":"AmlCompute","properties":{"vmSize":"Standard_DS1_v2","scaleSettings":{"maxNodeCount":0}}}`:                                                                                                "maxNodeCount",
		`"properties":{"computeType":"AmlCompute","properties":{"vmSize":"Standard_DS1_v2","scaleSettings":{"maxNodeCount":1,"minNodeCount":2}}}`:                                                                               "minNodeCount",
		`"properties":{"computeType":"AmlCompute","properties":{"vmSize":"Standard_DS1_v2","vmPriority":"LowPriority","scaleSettings":{"maxNodeCount":1}}}`:                                                                     "vmPriority",
		`"properties":{"computeType":"AmlCompute","properties":{"vmSize":"Standard_DS1_v2","osType":"Windows","scaleSettings":{"maxNodeCount":1}}}`:                                                                             "osType",
		`"properties":{"computeType":"AmlCompute","disableLocalAuth":false,"properties":{"vmSize":"Standard_DS1_v2","scaleSettings":{"maxNodeCount":1}}}`:                                                                       "disableLocalAuth",
		`"properties":{"properties":{"vmSize":"Standard_DS1_v2","scaleSettings":{"maxNodeCount":1}}}`:                                                                                                                           "computeType",
	} {
		if code, m := w.refused("olga", "PUT", ws+"/computes/bad", `{"location":"local",`+body+`}`, 400); code == "" || !strings.Contains(m, what) {
			t.Errorf("%s: %s %q, want %q", body, code, m, what)
		}
	}
	w.do("olga", "PUT", ws+"/computes/cpu", `{"location":"local","properties":{"computeType":"AmlCompute","disableLocalAuth":true,"properties":{"vmSize":"STANDARD_DS3_v2","scaleSettings":{"maxNodeCount":2,"minNodeCount":0,"nodeIdleTimeBeforeScaleDown":"PT2M"},"remoteLoginPortPublicAccess":"NotSpecified","enableNodePublicIp":true,"osType":"Linux"}}}`, 201)
	w.until("the cluster is there", func() bool {
		_, d := w.do("olga", "GET", ws+"/computes/cpu", "", 200)
		return dig(d, "properties", "provisioningState") == "Succeeded"
	})
	w.do("olga", "PATCH", ws+"/computes/cpu", `{"properties":{"properties":{"scaleSettings":{"maxNodeCount":4,"minNodeCount":1,"nodeIdleTimeBeforeScaleDown":"PT5M"}}}}`, 200)
	_, d := w.do("olga", "GET", ws+"/computes/cpu", "", 200)
	if dig(d, "properties", "properties", "scaleSettings", "maxNodeCount") != 4.0 || dig(d, "properties", "properties", "vmSize") != "STANDARD_DS3_v2" {
		t.Errorf("after a PATCH: %v", d)
	}
	w.do("olga", "PATCH", ws+"/computes/cpu", `{"properties":{"properties":{"vmSize":"Standard_DS1_v2"}}}`, 400)
	_, sizes := w.do("olga", "GET", sub+"/providers/Microsoft.MachineLearningServices/locations/local/vmSizes", "", 200)
	if v := sizes["value"].([]any); len(v) == 0 || len(v) == len(allSizes()) {
		t.Errorf("%d sizes of %d fit a machine of 16 CPUs", len(v), len(allSizes()))
	}
	w.do("olga", "GET", sub+"/providers/Microsoft.MachineLearningServices/locations/local/usages", "", 200)
	w.do("olga", "GET", sub+"/providers/Microsoft.MachineLearningServices/locations/local/quotas", "", 200)
}

// Environments that could not be run as they say are refused, and it is said
// what can be run.
func TestOnlyTheMachinesImageIsAllowed(t *testing.T) {
	w := newWorld(t)
	w.workspace(ws)
	for _, p := range []string{`"image":"pytorch/pytorch:latest"`, `"image":"` + hostImage + `","condaFile":"channels: []"`, `"build":{"contextUri":"."}`, `"description":"nothing"`, `"image":"castellan.local/host:2"`} {
		if code, m := w.refused("olga", "PUT", ws+"/environments/e/versions/1", `{"properties":{`+p+`}}`, 400); code == "" || !strings.Contains(m, hostImage) {
			t.Errorf("%s: %s %q", p, code, m)
		}
	}
	w.do("olga", "GET", ws+"/environments/e", "", 404)
	w.do("olga", "PUT", ws+"/environments/e/versions/7", `{"properties":{"image":"`+hostImage+`","isAnonymous":true,"isArchived":false}}`, 201)
	_, d := w.do("olga", "GET", ws+"/environments/e", "", 200)
	if dig(d, "properties", "latestVersion") != "7" || dig(d, "properties", "nextVersion") != "8" {
		t.Errorf("the container is %v", d)
	}
	w.do("olga", "PUT", ws+"/environments/e/versions/x", `{"properties":{"image":"`+hostImage+`"}}`, 201)
	w.do("olga", "DELETE", ws+"/environments/e/versions/x", "", 200)
	if _, d := w.do("olga", "GET", ws+"/environments/e", "", 200); dig(d, "properties", "latestVersion") != "7" {
		t.Errorf("after its latest version was deleted: %v", d)
	}
	w.do("olga", "PUT", ws+"/data/d/versions/1", `{"properties":{"dataType":"mltable","dataUri":"azureml://datastores/workspaceblobstore/paths/x"}}`, 400)
	w.do("olga", "PUT", ws+"/data/d/versions/1", `{"properties":{"dataType":"uri_file","dataUri":"https://example.com/x"}}`, 400)
	w.do("olga", "PUT", ws+"/data/d/versions/1", `{"properties":{"dataType":"uri_file","dataUri":"azureml://subscriptions/`+w.site.Subscription+`/resourcegroups/rg/workspaces/ws1/datastores/workspaceblobstore/paths/x"}}`, 201)
	w.do("olga", "PUT", ws+"/data/d/versions/1", `{"properties":{"dataType":"uri_file","dataUri":"azureml://datastores/workspaceblobstore/paths/y"}}`, 409)
}

// filters are policies that make logs go through them, or forbid jobs.
type filters struct {
	logs  []LogFilter
	wrong error
}

func (f *filters) Job(*store.Tx, *resource.Doc) ([]LogFilter, error) { return f.logs, f.wrong }

// People see the lines that every filter lets through; the datastore has all.
func TestLogsAreFiltered(t *testing.T) {
	w := ready(t, systemIdentity)
	lines := func(text ...string) (out []*regexp.Regexp) {
		for _, s := range text {
			out = append(out, regexp.MustCompile(s))
		}
		return out
	}
	rules := &filters{logs: []LogFilter{{lines("^metric: ", "^bye$"), "workspaceblobstore"}, {lines("^[a-z]", "99"), "workspaceartifactstore"}}}
	w.s.Policies = rules
	w.job("quiet", `"command":"echo secret of a patient; echo 'metric: 1'; echo 'secret metric: 2'; printf 'met'; sleep 0.2; echo 'ric: 3'; printf bye"`)
	w.ends("quiet", "Completed")
	if got, want := w.runs.get("quiet").artifacts[stdLog], "metric: 1\nmetric: 3\nbye"; got != want {
		t.Errorf("people see %q, want %q", got, want)
	}
	for _, store := range []string{"workspaceblobstore", "workspaceartifactstore"} {
		_, d := w.do("olga", "GET", ws+"/datastores/"+store, "", 200)
		all := string(w.blobs.made[strings.ToLower(account1)+"|"+dig(d, "properties", "containerName").(string)]["azureml/quiet/"+stdLog])
		if want := "secret of a patient\nmetric: 1\nsecret metric: 2\nmetric: 3\nbye"; all != want {
			t.Errorf("%s has %q, want %q", store, all, want)
		}
	}
	// Without a filter that lets a line through nothing is seen, and where the
	// whole log can't be kept the job says so.
	rules.logs = []LogFilter{{nil, "gone"}}
	w.job("blind", `"command":"echo hello"`)
	w.ends("blind", "Failed")
	if r := w.runs.get("blind"); r.artifacts[stdLog] != "" || !strings.Contains(r.failure, "gone") {
		t.Errorf("people see %q, and the error is %q", r.artifacts[stdLog], r.failure)
	}
	if left := w.scratch(); len(left) != 0 {
		t.Errorf("scratch has %v", left)
	}
	// What policies forbid by now does not run.
	rules.wrong = arm.Errorf("RequestDisallowedByPolicy", "not any more")
	w.job("late", `"command":"echo never"`)
	w.ends("late", "Failed")
	if r := w.runs.get("late"); r.artifacts[stdLog] != "" || !strings.Contains(r.failure, "not any more") {
		t.Errorf("it printed %q, and the error is %q", r.artifacts[stdLog], r.failure)
	}
}
