package app

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"castellan/internal/arm"
)

// fact is something that decisions hang on, and how it is changed.
type fact struct {
	name string
	by   []string // the actions that change it
	// turn makes the change that lets callers in, or the one that keeps them out, and
	// returns once it was answered.
	turn func(on bool) error
	asks []ask
}

// ask is a request whose answer hangs on a fact.
type ask struct {
	method, url string
	body        any
	token       func() string
	header      []string
	query       func() string // more of the URL; nil: no more
}

// deciding are the actions of doors that change what others may do.
var deciding = regexp.MustCompile(`^microsoft\.authorization/.*/(write|delete|action)$|^microsoft\.authorization/elevateaccess/action$` +
	`|^microsoft\.keyvault/vaults/(write|accesspolicies/write)$` +
	`|^microsoft\.storage/storageaccounts/(write|regeneratekey/action|revokeuserdelegationkeys/action|blobservices/containers/(write|setacl/action|blobs/modifypermissions/action)|fileservices/shares/setacl/action)$` +
	`|^microsoft\.management/managementgroups/.*(write|delete)$|^microsoft\.subscription/(cancel|enable)/action$` +
	`|^microsoft\.managedidentity/userassignedidentities/(.*/)?delete$` +
	`|^microsoft\.directory/(users|groups|serviceprincipals|applications|conditionalaccesspolicies|namedlocations|roleassignments|oauth2permissiongrants|authorizationpolicy|identityproviders|signingkeys)/.*(update|delete|alltasks|retire|revokesigninsessions)$`)

// elsewhere are those of them that no fact here is turned by, and why.
var elsewhere = map[string]string{
	"microsoft.authorization/elevateaccess/action":                                         "gives a role as roleAssignments/write does",
	"microsoft.authorization/policysetdefinitions/delete":                                  "only of what is not assigned",
	"microsoft.authorization/policydefinitions/delete":                                     "only of what is not assigned",
	"microsoft.authorization/roledefinitions/delete":                                       "only of what is not assigned",
	"microsoft.authorization/rolemanagementpolicies/write":                                 "binds the next request for a role: governance.TestEveryRuleIsHeld",
	"microsoft.authorization/roleassignmentapprovals/stages/write":                         "needs somebody's request each time: governance.TestApproval",
	"microsoft.authorization/roleassignmentschedulerequests/cancel/action":                 "ends what waits and gives nothing yet",
	"microsoft.authorization/roleeligibilityschedulerequests/cancel/action":                "ends what waits and gives nothing yet",
	"microsoft.storage/storageaccounts/revokeuserdelegationkeys/action":                    "can't be undone: blob.TestUserDelegation",
	"microsoft.storage/storageaccounts/fileservices/shares/setacl/action":                  "as of containers, in the same row",
	"microsoft.storage/storageaccounts/blobservices/containers/write":                      "makes containers, which nobody is let in to by that",
	"microsoft.management/managementgroups/write":                                          "moves groups as subscriptions are moved",
	"microsoft.management/managementgroups/delete":                                         "only of what is empty",
	"microsoft.management/managementgroups/settings/write":                                 "says where new subscriptions go",
	"microsoft.management/managementgroups/settings/delete":                                "says where new subscriptions go",
	"microsoft.managedidentity/userassignedidentities/delete":                              "can't be undone: app.TestSandboxesKeepTheirIdentities",
	"microsoft.managedidentity/userassignedidentities/federatedidentitycredentials/delete": "as of applications: identity.TestOutAtOnce",
	"microsoft.directory/users/delete":                                                     "can't be undone: identity.TestOutAtOnce",
	"microsoft.directory/users/revokesigninsessions":                                       "can't be undone: identity.TestOutAtOnce",
	"microsoft.directory/users/identities/update":                                          "binds the next sign-in elsewhere",
	"microsoft.directory/users/authenticationmethods/delete":                               "binds the next sign-in: identity.TestAdministratorsResetMethods",
	"microsoft.directory/groups/delete":                                                    "can't be undone: identity.TestOutAtOnce",
	"microsoft.directory/groups/basic/update":                                              "a group's name and text",
	"microsoft.directory/groups/owners/update":                                             "identity.TestOwners",
	"microsoft.directory/serviceprincipals/owners/update":                                  "identity.TestOwners",
	"microsoft.directory/applications/owners/update":                                       "identity.TestOwners",
	"microsoft.directory/serviceprincipals/delete":                                         "can't be undone: identity.TestOutAtOnce",
	"microsoft.directory/applications/delete":                                              "can't be undone: identity.TestOutAtOnce",
	"microsoft.directory/applications/basic/update":                                        "binds the next sign-in",
	"microsoft.directory/namedlocations/basic/update":                                      "is read with the policies that name it: identity.TestCallsAreJudgedAsTheSignInWas",
	"microsoft.directory/namedlocations/delete":                                            "only of what no policy names",
	"microsoft.directory/conditionalaccesspolicies/delete":                                 "as what disables the policy",
	"microsoft.directory/oauth2permissiongrants/allproperties/update":                      "identity.TestConsent",
	"microsoft.directory/authorizationpolicy/standard/update":                              "binds the next sign-in",
	"microsoft.directory/identityproviders/update":                                         "binds the next sign-in elsewhere",
	"microsoft.directory/identityproviders/delete":                                         "binds the next sign-in elsewhere",
	"microsoft.directory/signingkeys/retire":                                               "ends the tokens of all: identity.TestRotation",
}

// facts is the world of the law: a lab, connections that are open, and facts.
type facts struct {
	*lab
	t     *testing.T
	a     *App
	s     *served
	open  []door // connections of others, by both listeners
	all   []fact
	fresh atomic.Int64 // connections that were not open before they were used
}

// witnesses are clients with connections of their own, by turns to the TLS listener
// and through the CONNECT proxy.
func (w *facts) witnesses(n int) {
	pem, err := os.ReadFile(w.s.ready.CAFile)
	if err != nil {
		w.t.Fatal(err)
	}
	proxy, err := url.Parse(w.s.ready.Proxy)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range n {
		d := newDoor(w.s.ready.Listen, pem)
		if i%2 == 1 {
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(pem)
			d = door{&http.Client{Timeout: time.Minute, Transport: &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}}
		}
		w.t.Cleanup(d.http.CloseIdleConnections)
		w.open = append(w.open, d)
	}
}

// knock sends an ask by one of the open connections.
func (w *facts) knock(d door, k ask) (status int, answer []byte, err error) {
	in, _ := k.body.([]byte)
	if in == nil && k.body != nil {
		if in, err = json.Marshal(k.body); err != nil {
			return 0, nil, err
		}
	}
	u := k.url
	if k.query != nil {
		u += k.query()
	}
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) {
		if !c.Reused {
			w.fresh.Add(1)
		}
	}})
	r, err := http.NewRequestWithContext(ctx, k.method, versioned(u), bytes.NewReader(in))
	if err != nil {
		return 0, nil, err
	}
	if k.token != nil {
		r.Header.Set("Authorization", "Bearer "+k.token())
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(k.header); i += 2 {
		r.Header.Set(k.header[i], k.header[i+1])
	}
	res, err := d.http.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}

// answer is what an ask is answered. It is sent anew where the server ended an idle
// connection, as it does with one whose caller lost the right in the middle.
func (w *facts) answer(d door, k ask) (status int, answer []byte, err error) {
	for range 3 {
		if status, answer, err = w.knock(d, k); err == nil {
			break
		}
	}
	return status, answer, err
}

// hold turns a fact and asks everywhere what came of it. While the change is under
// way others keep asking, so that whoever remembers an old answer does so then.
func (w *facts) hold(f fact, on bool) error {
	done := make(chan struct{})
	var under sync.WaitGroup
	for i, d := range w.open[:2] {
		under.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					_, _, _ = w.knock(d, f.asks[i%len(f.asks)]) // either answer is right now
				}
			}
		})
	}
	err := f.turn(on)
	close(done)
	wrong := make(chan error, len(w.open)*len(f.asks)+1)
	var after sync.WaitGroup
	if err == nil {
		for _, d := range w.open {
			after.Go(func() {
				for _, k := range f.asks {
					status, answer, err := w.answer(d, k)
					in, out := status/100 == 2, slices.Contains([]int{400, 401, 403, 409}, status)
					if err != nil || in != on || out == on {
						wrong <- fmt.Errorf("%s: after the change to %v the next %s %s is %d %s %v", f.name, on, k.method, k.url, status, answer, err)
					}
				}
			})
		}
	}
	after.Wait()
	under.Wait()
	if err != nil {
		return fmt.Errorf("%s is not changed: %w", f.name, err)
	}
	select {
	case err := <-wrong:
		return fmt.Errorf("%w (and %d more)", err, len(wrong))
	default:
		return nil
	}
}

// A change counts for the next request, whoever sends it, by whatever connection,
// listener and plane: read your writes. Each fact that decisions hang on is changed
// back and forth, all of them side by side, while others ask by connections that
// were open before. The list of what must be there comes from the doors.
func TestAChangeCountsForTheNextRequest(t *testing.T) {
	t.Parallel()
	a, s := serveHere(t)
	w := &facts{lab: newLab(t, s), t: t, a: a, s: s}
	w.rolesAndPeople()
	w.directory()
	w.governed()
	w.vaults()
	w.accounts()
	w.complete()
	w.witnesses(4)
	rounds := 2
	if raced {
		rounds = 1
	}
	for _, f := range w.all { // opens the connections, and shows that each ask has two answers
		for _, on := range []bool{true, false} {
			if err := w.hold(f, on); err != nil {
				t.Error(err)
			}
		}
	}
	if t.Failed() {
		return
	}
	w.fresh.Store(0)
	begun := time.Now()
	asked := 0
	var side sync.WaitGroup
	for _, f := range w.all {
		asked += 2 * rounds * len(w.open) * len(f.asks)
		side.Go(func() {
			for range rounds {
				for _, on := range []bool{true, false} {
					if err := w.hold(f, on); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	side.Wait()
	t.Logf("%d facts, %d answers in %s, with %d connections that were not open before", len(w.all), asked, time.Since(begun).Round(time.Millisecond), w.fresh.Load())
	if int(w.fresh.Load()) > asked/4 {
		t.Error("too few came by connections that were open before")
	}
}

// complete holds the facts against the program's doors.
func (w *facts) complete() {
	turned := map[string]bool{}
	for _, f := range w.all {
		for _, a := range f.by {
			turned[strings.ToLower(a)] = true
		}
	}
	seen := map[string]bool{}
	for _, p := range w.a.Planes {
		for _, rt := range p.Routes {
			k := rt.Action.Key()
			if !deciding.MatchString(k) || rt.Method == http.MethodGet || seen[k] {
				continue
			}
			seen[k] = true
			if turned[k] == (elsewhere[k] != "") {
				w.t.Errorf("%s changes what others may do: it must be among the facts or among those elsewhere, and not both", k)
			}
		}
	}
	for k := range elsewhere {
		if !seen[k] {
			w.t.Errorf("no door does %s", k)
		}
	}
	for k := range turned {
		if !seen[k] {
			w.t.Errorf("no door that decides does %s", k)
		}
	}
}

// do is a change by an administrator, which must be done when it is answered.
func (w *facts) do(token, method, u string, body any, header ...string) error {
	r, err := w.send(token, method, u, body, header...)
	if err == nil && (r.status/100 != 2 || r.status == http.StatusAccepted) {
		err = fmt.Errorf("%s %s = %d %s", method, u, r.status, r.body)
	}
	return err
}

// rm is do for Resource Manager.
func (w *facts) rm(method, id string, body any) error {
	return w.do(w.arm, method, w.url(id), body)
}

// putOrDelete turns what is on while it is there.
func (w *facts) putOrDelete(id string, body any) func(bool) error {
	return func(on bool) error {
		if on {
			return w.rm(http.MethodPut, id, body)
		}
		return w.rm(http.MethodDelete, id, nil)
	}
}

// not turns the other way round.
func not(turn func(bool) error) func(bool) error { return func(on bool) error { return turn(!on) } }

// caller is somebody with tokens for all planes.
type caller struct {
	object string
	person person
	again  func() // signs in anew
	tokens atomic.Pointer[map[string]string]
}

func (c *caller) at(plane string) func() string {
	return func() string { return (*c.tokens.Load())[plane] }
}

// newCaller is an application, signed in.
func (w *facts) newCaller(name string) *caller {
	p := w.a.newPerson(w.t, name)
	c := &caller{object: p.object, person: p}
	c.again = func() {
		tokens := map[string]string{}
		for plane, audience := range w.a.audiences() {
			tokens[plane] = tokenFor(w.t, w.a, c.person.id, c.person.secret, audience)
		}
		c.tokens.Store(&tokens)
	}
	c.again()
	return c
}

// signed is a person who signs in at the page.
func (w *facts) signed(name string) *caller {
	id, who := w.newHuman(w.t, w.s, name)
	c := &caller{object: id}
	planes := []string{"arm", "ml", "graph", "vault", "blob"}
	var audiences []string
	for _, p := range planes {
		audiences = append(audiences, w.a.audiences()[p])
	}
	c.again = func() {
		tokens := map[string]string{}
		for i, token := range w.signedIn(w.t, w.s, who, audiences...) {
			tokens[planes[i]] = token
		}
		c.tokens.Store(&tokens)
	}
	c.again()
	return c
}

// everywhere are requests to the lab at every plane that asks for roles.
func (w *facts) everywhere(c *caller) []ask {
	return append(w.storage(c), []ask{
		{method: http.MethodGet, url: w.url(w.workspace), token: c.at("arm")},
		{method: http.MethodGet, url: w.vaultURL + "secrets?api-version=7.4", token: c.at("vault")},
		{method: http.MethodGet, url: w.mlflow + "experiments/get?experiment_id=" + w.experiment, token: c.at("ml")},
	}...)
}

// storage are requests to the lab's account, at both of its protocols.
func (w *facts) storage(c *caller) []ask { return w.storageOf(w.account, c.at("blob")) }

func (w *facts) storageOf(account string, token func() string) []ask {
	list := "https://" + account + ".blob." + w.s.ready.Suffixes["storage"] + "/con?restype=container&comp=list"
	files := "https://" + account + ".dfs." + w.s.ready.Suffixes["storage"] + "/con?resource=filesystem&recursive=false"
	version := []string{"x-ms-version", storageVersion}
	return []ask{{method: http.MethodGet, url: list, token: token, header: version}, {method: http.MethodGet, url: files, token: token, header: version}}
}

// mac signs text with a storage account's key.
func mac(t *testing.T, key, text string) string {
	t.Helper()
	k, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	h := hmac.New(sha256.New, k)
	h.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// signature is a service signature for a container, by a policy that is kept at it
// or for reading and listing until tomorrow.
func signature(t *testing.T, account, key, policy string) string {
	t.Helper()
	q := url.Values{"sv": {storageVersion}, "sr": {"c"}}
	if policy == "" {
		q.Set("sp", "rl")
		q.Set("se", time.Now().UTC().Add(24*time.Hour).Format("2006-01-02T15:04:05Z"))
	} else {
		q.Set("si", policy)
	}
	lines := []string{q.Get("sp"), "", q.Get("se"), "/blob/" + account + "/con", policy, "", "", storageVersion, "c", "", "", "", "", "", "", ""}
	q.Set("sig", mac(t, key, strings.Join(lines, "\n")))
	return q.Encode()
}

func (w *facts) fact(name string, by []string, turn func(bool) error, asks ...ask) {
	w.all = append(w.all, fact{name, by, turn, asks})
}

const atScope = "/providers/Microsoft.Authorization/"

// given is an id for a new assignment of the kind at the scope.
func given(scope, kind string) string { return scope + atScope + kind + "/" + arm.NewUUID() }
