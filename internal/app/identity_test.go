package app

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
)

const (
	roleBlobReader    = "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1"
	roleScientist     = "f6c7c914-8db3-469d-8ca1-694a8f32e121"
	storageAudience   = "https://storage.azure.com"
	secondsForTheGate = 5 * time.Second
)

// web is how a job without any program but the shell speaks HTTP: the answer to
// web HOST PORT PATH HOSTHEADER [HEADER...] is in $answer.
const web = `web() { local h=$1 p=$2 path=$3 host=$4 x line; shift 4; answer=
  { exec 3<>"/dev/tcp/$h/$p"; } 2>/dev/null || return 1
  { printf 'GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n' "$path" "$host"; for x in "$@"; do printf '%s\r\n' "$x"; done; printf '\r\n'; } >&3
  while IFS= read -r line <&3 || [ -n "$line" ]; do answer="$answer${line%$'\r'} "; done; exec 3<&-; }
imds() { web 169.254.169.254 80 "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fstorage.azure.com$1" 169.254.169.254 'Metadata: true'; }
`

// veil is how a job prints a secret of its own, which its log would hide: with other
// letters, which unveil takes back.
const (
	veil = ` | tr a-zA-Z n-za-mN-ZA-M`
	say  = `say() { echo "$1 $(echo "$2"` + veil + `)"; }
`
)

func unveil(text string) string {
	return strings.Map(func(r rune) rune {
		switch low := r | 0x20; {
		case low >= 'a' && low <= 'm':
			return r + 13
		case low >= 'n' && low <= 'z':
			return r - 13
		}
		return r
	}, text)
}

// ownNetwork skips where sandboxes have no network of their own.
func ownNetwork(t *testing.T, a *App) {
	t.Helper()
	if tier := a.compute.Standing().Tier; !tier.Namespaced() {
		t.Skipf("sandboxes of tier %s share the machine's network", tier)
	}
}

// clusterOf makes a cluster with an identity of its own, and tells its principal.
func (l *lab) clusterOf(t *testing.T, name string) (principal string) {
	t.Helper()
	id := l.workspace + "/computes/" + name
	l.put(t, id, map[string]any{"location": l.location, "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{
		"computeType": "AmlCompute", "properties": map[string]any{"vmSize": "Standard_DS1_v2", "scaleSettings": map[string]any{"maxNodeCount": 2}},
	}})
	return l.principalOf(t, id)
}

func (l *lab) principalOf(t *testing.T, id string) string {
	t.Helper()
	var got struct {
		Identity struct {
			Principal string `json:"principalId"`
		} `json:"identity"`
	}
	l.must(t, &got, l.arm, http.MethodGet, l.url(id), nil)
	return got.Identity.Principal
}

// submit puts a job as the bearer of token.
func (l *lab) submit(t *testing.T, token, name, cluster, command string, more map[string]any) {
	t.Helper()
	l.put(t, l.workspace+"/environments/host/versions/1", map[string]any{"properties": map[string]any{"image": "castellan.local/host:1"}})
	p := map[string]any{"jobType": "Command", "command": command, "environmentId": l.workspace + "/environments/host/versions/1", "computeId": l.workspace + "/computes/" + cluster}
	for k, v := range more {
		p[k] = v
	}
	l.must(t, nil, token, http.MethodPut, l.url(l.workspace+"/jobs/"+name), map[string]any{"properties": p})
}

// says waits until a job's log has a line that begins with what is told, and
// gives the rest of the line.
func (l *lab) says(t *testing.T, job, begin string) (rest string) {
	t.Helper()
	l.until(t, time.Minute, job+" to say "+begin, func() bool {
		log := l.log(job)
		for line := range strings.Lines(log) {
			if after, ok := strings.CutPrefix(line, begin); ok && strings.HasSuffix(after, "\n") {
				rest = strings.TrimSpace(after)
				return true
			}
		}
		if st := l.status(job); st == "Failed" || st == "Canceled" || st == "Completed" {
			t.Fatalf("the job is %s, and never said %q: %s", st, begin, log)
		}
		return false
	})
	return rest
}

func (l *lab) give(t *testing.T, role, scope, principal, kind string) (assignment string) {
	t.Helper()
	body := assignmentOf(l.sub, role, principal)
	body["properties"].(map[string]any)["principalType"] = kind
	assignment = scope + "/providers/Microsoft.Authorization/roleAssignments/" + arm.NewUUID()
	l.put(t, assignment, body)
	return assignment
}

var tokenText = regexp.MustCompile(`eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+`)

// A job reaches its own cluster's identity and no other's: not by asking for
// them, not by looking for their endpoints, not by what other processes or the
// logs show; the host reaches none. An identity that is taken away is gone at once
// (B17, B27, MID-01, MID-02, MID-07).
func TestSandboxesKeepTheirIdentities(t *testing.T) {
	t.Parallel()
	needsSandbox(t)
	a, s := serveHere(t)
	ownNetwork(t, a)
	l := newLab(t, s)
	mine, theirs, workspaces := l.clusterOf(t, "mine"), l.clusterOf(t, "theirs"), l.principalOf(t, l.workspace)
	l.submit(t, l.arm, "victim", "theirs", web+say+`imds ""; say own "$answer"; say secret "$MSI_SECRET"; while :; do sleep 1; done`, nil)
	victims := tokenText.FindString(unveil(l.says(t, "victim", "own ")))
	if claimOf(victims, "oid") != theirs {
		t.Fatalf("the victim's token is of %s, want %s", claimOf(victims, "oid"), theirs)
	}
	secret := unveil(l.says(t, "victim", "secret "))
	var others []string
	for _, p := range []string{theirs, workspaces} {
		var sp struct{ AppID string }
		l.must(t, &sp, l.graph, http.MethodGet, s.ready.Graph+"/v1.0/servicePrincipals/"+p, nil)
		others = append(others, "&client_id="+sp.AppID, "&object_id="+p, "&principal_id="+p, "&clientid="+sp.AppID)
	}
	for _, id := range []string{l.workspace, l.workspace + "/computes/theirs"} {
		others = append(others, "&mi_res_id="+id, "&msi_res_id="+id, "&msi_res_id="+strings.ToUpper(id))
	}
	l.submit(t, l.arm, "thief", "mine", web+say+`imds ""; say own "$answer"
tries=0
for q in `+"'"+strings.Join(others, "' '")+"'"+`; do
  imds "$q"; say try "$answer"
  web ${MSI_ENDPOINT:7:9} ${MSI_ENDPOINT:17:5} "/msi/token?api-version=2017-09-01&resource=https%3A%2F%2Fstorage.azure.com$q" 127.0.0.1 "secret: $MSI_SECRET"; say try "$answer"
  tries=$((tries+2))
done
for h in 'X-Forwarded-For: 10.0.0.1' 'Forwarded: for=10.0.0.1' 'Metadata: false'; do
  web 169.254.169.254 80 '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fstorage.azure.com' 169.254.169.254 "Metadata: true" "$h"; say odd "$answer"
done
web 169.254.169.254 80 '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fstorage.azure.com' metadata.evil.test 'Metadata: true'; say odd "$answer"
web 169.254.169.254 80 '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fstorage.azure.com' 169.254.169.254; say odd "$answer"
web ${MSI_ENDPOINT:7:9} ${MSI_ENDPOINT:17:5} "/msi/token?api-version=2017-09-01&resource=https%3A%2F%2Fstorage.azure.com" 127.0.0.1 "secret: `+secret+`"; say odd "$answer"
for h in 127.0.0.1 169.254.169.254 10.0.0.1; do
  last=65535; [ $h = 10.0.0.1 ] && last=64
  for ((p = 1; p <= last; p++)); do tries=$((tries+1)); if { : <>/dev/tcp/$h/$p; } 2>/dev/null && { : <>/dev/tcp/$h/$p; } 2>/dev/null; then echo "open $h:$p"; fi; done # twice, for a socket may meet itself
done
echo "seen $(cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep '^MSI_SECRET=' | grep -vc "=$MSI_SECRET\$") processes $(ls -d /proc/[0-9]* | wc -l)"
echo "tries $tries"
while :; do imds ""; case $answer in *access_token*) ;; *) echo "lost $answer"; break;; esac; sleep 0.2; done
while :; do sleep 1; done`, nil)
	own := tokenText.FindString(unveil(l.says(t, "thief", "own ")))
	if claimOf(own, "oid") != mine || claimOf(own, "aud") != storageAudience {
		t.Fatalf("the job's own token is of %q for %q, want %q", claimOf(own, "oid"), claimOf(own, "aud"), mine)
	}
	tries := l.says(t, "thief", "tries ")
	log := l.log("thief")
	for _, token := range tokenText.FindAllString(unveil(log), -1) {
		if oid := claimOf(token, "oid"); oid != mine {
			t.Errorf("the job got a token of %s", oid)
		}
	}
	for line := range strings.Lines(log) {
		switch word, rest, _ := strings.Cut(line, " "); word {
		case "try", "odd":
			if rest = unveil(rest); !strings.Contains(rest, " 400 ") && !strings.Contains(rest, " 401 ") || strings.Contains(rest, "access_token") {
				t.Errorf("a job that asked for what is not its own got %s", rest)
			}
		case "open":
			if p := strings.TrimSpace(rest); p != "127.0.0.1:443" && p != "127.0.0.1:3128" && p != "127.0.0.1:46800" && p != "169.254.169.254:80" {
				t.Errorf("the job reaches %s", p)
			}
		case "seen":
			if !strings.HasPrefix(rest, "0 ") {
				t.Errorf("the job sees another's secret: %s", line)
			}
		}
	}
	if n := strings.Count(log, "\nopen "); n != 4 {
		t.Errorf("the job found %d open ports, want its own four", n)
	}
	fromTheHost(t)
	blob := doorway{"blob", http.MethodGet, l.blobURL + "?comp=list", nil}
	if r := l.knockAt(t, blob, own); r.status == http.StatusUnauthorized {
		t.Errorf("the job's own token is refused before the identity is gone: %s", r.body)
	}
	l.must(t, nil, l.arm, http.MethodPatch, l.url(l.workspace+"/computes/mine"), map[string]any{"identity": map[string]any{"type": "None"}})
	if lost := l.says(t, "thief", "lost "); !strings.Contains(lost, " 400 ") {
		t.Errorf("the identity is gone, and the next token is %s", lost)
	}
	l.until(t, secondsForTheGate, "the old token's end", func() bool { return l.knockAt(t, blob, own).status == http.StatusUnauthorized })
	t.Logf("%s tries", tries)
}

// fromTheHost asks every address at which a sandbox has its endpoints, from outside.
func fromTheHost(t *testing.T) {
	t.Helper()
	for _, at := range []string{"169.254.169.254:80", "127.0.0.1:46800", "127.0.0.1:46801", "127.0.0.1:46802"} {
		c, err := net.DialTimeout("tcp", at, 300*time.Millisecond)
		if err != nil {
			continue
		}
		_ = c.SetDeadline(time.Now().Add(time.Second))
		fmt.Fprintf(c, "GET /metadata/instance?api-version=2021-02-01 HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\nConnection: close\r\n\r\n")
		b := make([]byte, 4096)
		n, _ := c.Read(b) // whoever it is may say nothing
		_ = c.Close()
		if bytes.Contains(b[:n], []byte("Microsoft.MachineLearningServices")) {
			t.Errorf("the host reaches a sandbox's endpoint at %s: %s", at, b[:n])
		}
	}
}

// newHuman makes a person without any role who can sign in.
func (l *lab) newHuman(t *testing.T, s *served, name string) (id string, who ReadyAdmin) {
	t.Helper()
	who = ReadyAdmin{UserName: name + "@" + s.ready.UserDomain(), Password: "Aa1-" + newCanary()}
	var u struct{ ID string }
	l.must(t, &u, l.graph, http.MethodPost, s.ready.Graph+"/v1.0/users", map[string]any{
		"accountEnabled": true, "displayName": name, "mailNickname": name, "userPrincipalName": who.UserName,
		"passwordProfile": map[string]any{"password": who.Password, "forceChangePasswordNextSignIn": false},
	})
	return u.ID, who
}

// UserDomain is what follows the @ in names of the first tenant.
func (r Ready) UserDomain() string {
	_, domain, _ := strings.Cut(r.Admin.UserName, "@")
	return domain
}

// signedIn is a person's tokens by audience, all of one sign-in.
func (l *lab) signedIn(t *testing.T, s *served, who ReadyAdmin, audiences ...string) (out []string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar, Transport: l.http.Transport, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), back) {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	code := l.through(t, c, l.base+"/"+s.ready.TenantID+"/oauth2/v2.0/authorize?"+url.Values{
		"client_id": {cli}, "response_type": {"code"}, "redirect_uri": {back}, "scope": {audiences[0] + "/.default openid offline_access profile"}, "state": {"s"},
		"code_challenge": {s256(verifier)}, "code_challenge_method": {"S256"},
	}.Encode(), who)
	form := url.Values{"grant_type": {"authorization_code"}, "client_id": {cli}, "code": {code}, "redirect_uri": {back}, "code_verifier": {verifier}}
	for i := range audiences {
		var got struct {
			Token   string `json:"access_token"`
			Refresh string `json:"refresh_token"`
		}
		l.must(t, &got, "", http.MethodPost, l.base+"/"+s.ready.TenantID+"/oauth2/v2.0/token", form)
		out = append(out, got.Token)
		if i+1 < len(audiences) {
			form = url.Values{"grant_type": {"refresh_token"}, "client_id": {cli}, "refresh_token": {got.Refresh}, "scope": {audiences[i+1] + "/.default"}}
		}
	}
	return out
}

// A job acts as who submitted it or as its cluster's identity, as it says, and
// each gets only what they may: the cluster reaches what the person can't, and
// the person what the cluster can't (B27, B28). The person's token is theirs in
// the job alone, and they are lent no longer than the run lives and they may sign in.
func TestAJobActsAsAPersonOrAsItsCluster(t *testing.T) {
	t.Parallel()
	needsSandbox(t)
	a, s := serveHere(t)
	ownNetwork(t, a)
	l := newLab(t, s)
	cluster := l.clusterOf(t, "cpu")
	storage := l.group + "/providers/Microsoft.Storage/storageAccounts/" + l.account
	container := storage + "/blobServices/default/containers/con"
	l.must(t, nil, l.blob, http.MethodPut, l.blobURL+"con/secret.txt", []byte("for those who may\n"), "x-ms-version", storageVersion, "x-ms-blob-type", "BlockBlob")
	l.put(t, l.workspace+"/datastores/secured", map[string]any{"properties": map[string]any{"datastoreType": "AzureBlob", "accountName": l.account, "containerName": "con", "credentials": map[string]any{"credentialsType": "None"}}})
	id, who := l.newHuman(t, s, "petra")
	l.give(t, roleScientist, l.workspace, id, "User")
	tokens := l.signedIn(t, s, who, l.base, storageAudience)
	read := doorway{"blob", http.MethodGet, l.blobURL + "con/secret.txt", nil}
	input := map[string]any{"d": map[string]any{"jobInputType": "uri_file", "uri": "azureml://datastores/secured/paths/secret.txt"}}
	as := func(kind string) map[string]any {
		return map[string]any{"identity": map[string]any{"identityType": kind}, "inputs": input}
	}
	ends := func(job, want string) {
		t.Helper()
		var got string
		l.until(t, time.Minute, "the end of "+job, func() bool {
			got = l.status(job)
			return got == "Failed" || got == "Completed" || got == "Canceled"
		})
		if got != want || want == "Completed" && !strings.Contains(l.log(job), "for those who may") {
			t.Errorf("%s is %s, want %s: %s", job, got, want, l.log(job))
		}
	}

	given := l.give(t, roleBlobReader, container, cluster, "ServicePrincipal")
	if r := l.knockAt(t, read, tokens[1]); r.status != http.StatusForbidden {
		t.Errorf("a person without a role reads the blob: %d %s", r.status, r.body)
	}
	l.submit(t, tokens[0], "c-may", "cpu", "cat ${{inputs.d}}", as("Managed"))
	l.submit(t, tokens[0], "p-may-not", "cpu", "cat ${{inputs.d}}", as("UserIdentity"))
	ends("c-may", "Completed")
	ends("p-may-not", "Failed")
	l.must(t, nil, l.arm, http.MethodDelete, l.url(given), nil)
	l.give(t, roleBlobReader, container, id, "User")
	l.submit(t, tokens[0], "c-may-not", "cpu", "cat ${{inputs.d}}", as("Managed"))
	ends("c-may-not", "Failed")

	script := web + say + `cat ${{inputs.d}}; web ${OBO_ENDPOINT:7:9} ${OBO_ENDPOINT:17:5} '/obo/token?resource=https%3A%2F%2Fstorage.azure.com' 127.0.0.1; say lent "$answer"
web ${OBO_ENDPOINT:7:9} ${OBO_ENDPOINT:17:5} '/obo/token?resource=https%3A%2F%2Fgraph.microsoft.com' 127.0.0.1; echo "graph $answer"
echo "box $(cat /proc/sys/kernel/hostname)"; while :; do sleep 1; done`
	l.submit(t, tokens[0], "own", "cpu", script, as("UserIdentity"))
	token, box := tokenText.FindString(unveil(l.says(t, "own", "lent "))), l.says(t, "own", "box ")
	if claimOf(token, "oid") != id || claimOf(token, "aud") != storageAudience {
		t.Fatalf("the lent token is of %q for %q", claimOf(token, "oid"), claimOf(token, "aud"))
	}
	if said := l.says(t, "own", "graph "); !strings.Contains(said, " 400 ") {
		t.Errorf("a token for the directory: %s", said)
	}
	inside := *l
	inside.door = a.insideOf(box)
	if r := inside.knockAt(t, read, token); r.status != http.StatusOK {
		t.Errorf("the lent token in its sandbox: %d %s", r.status, r.body)
	}
	theft(t, a, l, token, map[string]door{"the host": l.door, "another sandbox": a.insideOf("job-another")})
	l.must(t, nil, l.arm, http.MethodPost, l.url(l.workspace+"/jobs/own/cancel"), nil)
	if r := inside.knockAt(t, read, token); r.status != http.StatusUnauthorized {
		t.Errorf("the lent token after its run was canceled: %d %s", r.status, r.body)
	}
	l.until(t, time.Minute, "the job's end", func() bool { return l.status("own") == "Canceled" })

	if r, err := l.send(l.arm, http.MethodPut, l.url(l.workspace+"/jobs/app"), map[string]any{"properties": map[string]any{
		"jobType": "Command", "command": "true", "environmentId": l.workspace + "/environments/host/versions/1", "computeId": l.workspace + "/computes/cpu", "identity": map[string]any{"identityType": "UserIdentity"},
	}}); err != nil || r.status != http.StatusBadRequest || !bytes.Contains(r.body, []byte("no person")) {
		t.Errorf("an application lends its identity: %d %s, %v", r.status, r.body, err)
	}
	l.submit(t, tokens[0], "left", "cpu", script, as("UserIdentity"))
	l.says(t, "left", "box ")
	l.must(t, nil, l.graph, http.MethodPatch, s.ready.Graph+"/v1.0/users/"+id, map[string]any{"accountEnabled": false})
	l.until(t, secondsForTheGate, "the end of a disabled person's job", func() bool { return l.status("left") == "Failed" })
	var run struct {
		Error struct{ Error struct{ Message string } }
	}
	l.until(t, secondsForTheGate, "what the run says of its end", func() bool {
		l.must(t, &run, l.arm, http.MethodGet, l.base+"/history/v1.0"+l.workspace+"/runs/left/details", nil)
		return strings.Contains(run.Error.Error.Message, "disabled")
	})
}
