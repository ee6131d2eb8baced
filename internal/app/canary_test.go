package app

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/node"
)

// planter puts canaries where people put what is theirs.
type planter struct {
	*lab
	s   *served
	t   *testing.T
	all []canary

	plain bool // jobs' folders are not encrypted by the file system, as it offers nothing
}

func (p *planter) new(kind string) string {
	c := canary{kind: kind, text: newCanary(), named: strings.HasSuffix(kind, "name")}
	p.all = append(p.all, c)
	return c.text
}

func (p *planter) got(kind, text string) string {
	p.all = append(p.all, canary{kind: kind, text: text})
	return text
}

// secrets: names, values, content types and tags.
func (p *planter) secrets() {
	for range 12 {
		p.must(p.t, nil, p.vault, http.MethodPut, p.vaultURL+"secrets/"+p.new("secret's name")+"?api-version=7.4", map[string]any{
			"value": p.new("secret's value"), "contentType": p.new("secret's content type"), "tags": map[string]any{"t": p.new("secret's tag")},
		})
	}
}

// blobs: names, metadata, and bytes of blobs small and large, also in blocks.
func (p *planter) blobs() {
	head := []string{"x-ms-blob-type", "BlockBlob", "x-ms-version", storageVersion}
	for i := range 12 {
		data := []byte(p.new("blob's bytes"))
		if i%2 == 1 { // a file, with the canary in the midst of a chunk and across two
			data = bytes.Join([][]byte{bytesOf("a", 64<<10-7), data, bytesOf("b", 90<<10), data}, nil)
		}
		u := p.blobURL + "con/" + p.new("blob's name")
		p.must(p.t, nil, p.blob, http.MethodPut, u, data, append(head, "x-ms-meta-note", p.new("blob's metadata"))...)
		if got := p.must(p.t, nil, p.blob, http.MethodGet, u, nil, head...); !bytes.Equal(got.body, data) {
			p.t.Errorf("a blob is not what was put")
		}
	}
	u := p.blobURL + "con/" + p.new("blob's name") + "?comp=block&blockid=" + url.QueryEscape(base64.StdEncoding.EncodeToString([]byte("0001")))
	p.must(p.t, nil, p.blob, http.MethodPut, u, []byte(p.new("block's bytes")), "x-ms-version", storageVersion)
}

// history: names and values of metrics, parameters and tags of runs.
func (p *planter) history() {
	c := &client{lab: p.lab, led: newLedger()}
	run, ok := c.newRun()
	if !ok {
		p.t.Fatal(c.led.wrong)
	}
	var metrics, params, tags []any
	for range 8 {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		v := float64(1e15+binary.LittleEndian.Uint64(b[:])%1e15) / 1e6
		text := strconv.FormatFloat(v, 'f', -1, 64)
		p.all = append(p.all, canary{kind: "metric's value", text: text, raw: binary.BigEndian.AppendUint64(nil, math.Float64bits(v))},
			canary{kind: "metric's value, the other way round", text: text, raw: binary.LittleEndian.AppendUint64(nil, math.Float64bits(v))})
		metrics = append(metrics, map[string]any{"key": p.new("metric's key"), "value": v, "timestamp": 1, "step": 0})
		params = append(params, map[string]any{"key": p.new("parameter's key"), "value": p.new("parameter's value")})
		tags = append(tags, map[string]any{"key": p.new("tag's key"), "value": p.new("tag's value")})
	}
	p.must(p.t, nil, p.arm, http.MethodPost, p.mlflow+"runs/log-batch", map[string]any{"run_id": run, "metrics": metrics, "params": params, "tags": tags})
}

// people: passwords, client secrets, and the tokens that these get.
func (p *planter) people() {
	graph := p.s.ready.Graph + "/v1.0/"
	for i := range 8 {
		p.must(p.t, nil, p.graph, http.MethodPost, graph+"users", map[string]any{
			"accountEnabled": true, "displayName": "u", "mailNickname": fmt.Sprint("u", i), "userPrincipalName": fmt.Sprintf("u%d@%s", i, strings.TrimPrefix(p.base, "https://")),
			"passwordProfile": map[string]any{"password": "Aa1-" + p.new("password"), "forceChangePasswordNextSignIn": true},
		})
		var app, sp struct{ ID, AppID string }
		var key struct{ SecretText string }
		p.must(p.t, &app, p.graph, http.MethodPost, graph+"applications", map[string]any{"displayName": "a"})
		p.must(p.t, &sp, p.graph, http.MethodPost, graph+"servicePrincipals", map[string]any{"appId": app.AppID})
		p.must(p.t, &key, p.graph, http.MethodPost, graph+"applications/"+app.ID+"/addPassword", map[string]any{"passwordCredential": map[string]any{"displayName": "k"}})
		who := ReadyAdmin{ClientID: app.AppID, ClientSecret: p.got("client secret", key.SecretText)}
		token := p.got("access token", p.s.token(p.t, who, p.base))
		p.got("access token's signature", token[strings.LastIndexByte(token, '.')+1:])
		a, err := p.send(token, http.MethodGet, p.url(p.workspace), nil) // it is used, and refused
		if err != nil || a.status != http.StatusForbidden {
			p.t.Errorf("a stranger's read = %d, %v", a.status, err)
		}
	}
}

// resources: tags and descriptions, account keys, and a signature that is given out.
func (p *planter) resources() {
	for i := range 6 {
		id := fmt.Sprintf("/subscriptions/%s/resourceGroups/tagged%d", p.sub, i)
		p.must(p.t, nil, p.arm, http.MethodPut, p.url(id), map[string]any{"location": p.location, "tags": map[string]any{"k": p.new("resource's tag")}})
		as := assignmentOf(p.sub, roles[0], p.nobody)
		as["properties"].(map[string]any)["description"] = p.new("assignment's description")
		p.must(p.t, nil, p.arm, http.MethodPut, p.url(id+"/providers/Microsoft.Authorization/roleAssignments/"+arm.NewUUID()), as)
	}
	var list struct{ Keys []struct{ Value string } }
	p.must(p.t, &list, p.arm, http.MethodPost, p.url(p.group+"/providers/Microsoft.Storage/storageAccounts/"+p.account+"/listKeys"), nil)
	for _, k := range list.Keys {
		raw, err := base64.StdEncoding.DecodeString(k.Value)
		if err != nil {
			p.t.Fatal(err)
		}
		p.all = append(p.all, canary{kind: "account key", text: k.Value, raw: raw})
	}
	var up struct {
		Reference struct {
			Credential struct{ SASURI string } `json:"credential"`
		} `json:"blobReferenceForConsumption"`
	}
	p.must(p.t, &up, p.arm, http.MethodPost, p.url(p.workspace+"/codes/c/versions/1/startPendingUpload"), map[string]any{"pendingUploadType": "TemporaryBlobReference"})
	u, err := url.Parse(up.Reference.Credential.SASURI)
	if err != nil || u.Query().Get("sig") == "" {
		p.t.Fatalf("no signature: %v", err)
	}
	p.got("signature of a URL", u.Query().Get("sig"))
	u.Path += "/x"
	p.must(p.t, nil, "", http.MethodPut, u.String(), []byte("x"), "x-ms-blob-type", "BlockBlob", "x-ms-version", storageVersion)
}

// mistakes: what people send to the wrong place, or malformed.
func (p *planter) mistakes() {
	tokenURL := p.base + "/" + p.s.ready.TenantID + "/oauth2/v2.0/token"
	for _, m := range []struct {
		kind, token, method, url string
		body                     any
	}{
		{"garbage for a token", p.new("garbage for a token"), http.MethodGet, p.url(p.workspace), nil},
		{"wrong client secret", "", http.MethodPost, tokenURL, url.Values{"grant_type": {"client_credentials"}, "client_id": {p.nobodyID}, "client_secret": {p.new("wrong client secret")}, "scope": {p.base + "/.default"}}},
		{"wrong password", "", http.MethodPost, tokenURL, url.Values{"grant_type": {"password"}, "client_id": {p.nobodyID}, "username": {"admin"}, "password": {p.new("wrong password")}, "scope": {p.base + "/.default"}}},
		{"unknown refresh token", "", http.MethodPost, tokenURL, url.Values{"grant_type": {"refresh_token"}, "client_id": {p.nobodyID}, "refresh_token": {p.new("unknown refresh token")}}},
		{"wrong signature", "", http.MethodGet, p.blobURL + "con/x?sv=2023-11-03&sr=c&sp=r&se=2099-01-01T00:00:00Z&sig=" + p.new("wrong signature"), nil},
		{"token in a URL", "", http.MethodGet, p.url(p.workspace) + "&access_token=" + p.new("token in a URL"), nil},
		{"secret in cut JSON", p.vault, http.MethodPut, p.vaultURL + "secrets/s?api-version=7.4", []byte(`{"value":"` + p.new("secret in cut JSON"))},
		{"secret of a wrong type", p.vault, http.MethodPut, p.vaultURL + "secrets/s?api-version=7.4", map[string]any{"value": []string{p.new("secret of a wrong type")}}},
	} {
		a, err := p.send(m.token, m.method, m.url, m.body, "x-ms-version", storageVersion)
		if err != nil || a.status/100 != 4 {
			p.t.Errorf("%s: %d %s, %v", m.kind, a.status, a.body, err)
		}
		if c := p.all[len(p.all)-1]; len(newScanner([]canary{c}).scan(a.body)) > 0 {
			p.t.Errorf("%s: the answer repeats it: %s", m.kind, a.body)
		}
	}
}

// job runs a job that prints canaries, has some in its environment, and leaves
// one in a file.
func (p *planter) job() {
	p.put(p.t, p.workspace+"/computes/cpu", map[string]any{"location": p.location, "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{
		"computeType": "AmlCompute", "properties": map[string]any{"vmSize": "Standard_DS1_v2", "scaleSettings": map[string]any{"maxNodeCount": 1}},
	}})
	env, command := map[string]any{}, ""
	for i := range 8 {
		env[fmt.Sprint("V", i)] = p.new("environment variable")
		command += fmt.Sprintf("echo $V%d; echo %s\n", i, p.new("line of a job's log"))
	}
	command += "mkdir -p outputs; echo " + p.new("artifact's bytes") + " > outputs/" + p.new("artifact's name") + "; echo $AZUREML_RUN_TOKEN" + veil + "; echo $MSI_SECRET" + veil
	p.start("canaries", command, env)
	var status string
	p.until(p.t, time.Minute, "the job", func() bool {
		status = p.status("canaries")
		return status == "Completed" || status == "Failed" || status == "Canceled"
	})
	details := p.must(p.t, nil, p.arm, http.MethodGet, p.base+"/history/v1.0"+p.workspace+"/runs/canaries/details", nil)
	if !bytes.Contains(details.body, []byte(`"castellan.scratch":`)) {
		p.t.Errorf("the run does not say where its folder lay: %s", details.body)
	}
	p.plain = bytes.Contains(details.body, []byte(`"castellan.scratch":"plain"`))
	lines := strings.Split(strings.TrimSpace(p.log("canaries")), "\n")
	if status != "Completed" || len(lines) < 18 {
		p.t.Fatalf("the job is %s; its log: %s", status, strings.Join(lines, "\n"))
	}
	for i, kind := range []string{"run token", "managed identity secret"} {
		p.got(kind, unveil(lines[len(lines)-2+i]))
	}
}

func (l *lab) start(name, command string, env map[string]any) {
	_, _ = l.send(l.arm, http.MethodPut, l.url(l.workspace+"/jobs/"+name), map[string]any{"properties": map[string]any{
		"jobType": "Command", "experimentName": "lab", "command": command, "environmentVariables": env,
		"environmentId": l.workspace + "/environments/host/versions/1", "computeId": l.workspace + "/computes/cpu",
	}}) // status tells what became of it
}

func (l *lab) status(job string) string {
	var got struct{ Properties struct{ Status string } }
	a, err := l.send(l.arm, http.MethodGet, l.url(l.workspace+"/jobs/"+job), nil)
	if err != nil || json.Unmarshal(a.body, &got) != nil || a.status != http.StatusOK {
		return "Failed"
	}
	return got.Properties.Status
}

// log is what a job has printed so far.
func (l *lab) log(job string) string {
	var details struct {
		Files map[string]string `json:"logFiles"`
	}
	a, err := l.send(l.arm, http.MethodGet, l.base+"/history/v1.0"+l.workspace+"/runs/"+job+"/details", nil)
	if err != nil || json.Unmarshal(a.body, &details) != nil {
		return ""
	}
	a, err = l.send("", http.MethodGet, details.Files["user_logs/std_log.txt"], nil)
	if err != nil || a.status != http.StatusOK {
		return ""
	}
	return string(a.body)
}

// needsSandbox skips where the machine holds none.
func needsSandbox(t testing.TB) {
	t.Helper()
	if s := node.Probe(t.Context()); s.Tier == node.None {
		t.Skipf("this machine holds no sandbox: %s", s.Refusal())
	}
}

// Nothing that people keep here, and nothing by which they prove who they are,
// lies in the data folder or in any log in the clear, in hex or in base64: not
// while the platform runs, not when it was killed, not when it was stopped. Nor
// does the audit log tell of it, but for names (KV-07, AUD-02).
func TestNothingIsInTheClear(t *testing.T) {
	t.Parallel()
	needsSandbox(t)
	dir, disk := t.TempDir(), newImage(t)
	if disk != nil {
		dir = disk.at
	}
	s := spawn(t, dir+"/data")
	p := &planter{lab: newLab(t, s), s: s, t: t}
	p.got("administrator's client secret", s.ready.Admin.ClientSecret)
	p.got("administrator's password", s.ready.Admin.Password)
	p.secrets()
	p.blobs()
	p.history()
	p.people()
	p.resources()
	p.mistakes()
	p.containers()
	p.kinds()
	p.lake()
	p.vaulted()
	p.directory()
	p.factors()
	p.governed()
	p.datastores()
	p.job()
	if len(p.all) < 1000 {
		t.Fatalf("%d canaries; there must be 1,000", len(p.all))
	}
	scan := newScanner(p.all)
	control(t, scan, p.all)
	clear := func(when string) {
		files, hits := scan.folder(t, s.dir)
		t.Logf("%s: %d canaries, %d files", when, len(p.all), files)
		for _, h := range hits {
			t.Errorf("%s: %s", when, h)
		}
	}
	clear("running")
	s.kill(t)
	clear("killed")
	again := spawn(t, s.dir)
	again.stop(t)
	cfg := Config{Data: s.dir}
	cfg.RootKey = cfg.keyFile()
	backups, err := BackupFolder(t.Context(), cfg, s.dir+"/backups")
	if err == nil {
		_, err = backups.Make(t.Context(), s.dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	clear("stopped and backed up")
	for _, said := range [][]byte{s.said.Bytes(), again.said.Bytes()} {
		if !bytes.Contains(said, []byte(firstLine)) {
			t.Error("the log was not caught")
		}
		for _, f := range scan.scan(said) {
			t.Errorf("the server printed a %s as %q", f.canary.kind, f.form)
		}
	}
	t.Logf("the server printed %d bytes", len(s.said.Bytes()))
	auditIsClear(t, s.dir, p.all)
	if disk != nil {
		disk.isClear(t, scan, p)
	}
}

// auditIsClear reads the audit log as an auditor exports it.
func auditIsClear(t *testing.T, dir string, all []canary) {
	t.Helper()
	a, err := New(t.Context(), Config{Data: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	var export bytes.Buffer
	if err := a.Audit.Export(t.Context(), &export); err != nil {
		t.Fatal(err)
	}
	entries, names := 0, 0
	scan := newScanner(all)
	for line := range bytes.Lines(export.Bytes()) {
		entries++
		for _, f := range scan.scan(line) {
			if names++; !f.canary.named {
				t.Errorf("line %d of the exported audit log tells a %s", entries, f.canary.kind)
			}
		}
	}
	if names == 0 {
		t.Error("the audit log names no secret and no blob: the scan can't be right")
	}
	t.Logf("%d audit entries, %d mentions of names", entries, names)
}
