package compute

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/node"
)

// The endpoint answers its own sandbox for its own identity, and whoever asks
// in any other way gets no token.
func TestMSIRefuses(t *testing.T) {
	mint := func(_ context.Context, resource, client, object, res string) (arm.Secret, string, time.Time, error) {
		if resource != "https://storage.azure.com/" || client != "" && client != "mine" || object != "" || res != "" {
			return arm.Secret{}, "", time.Time{}, arm.Errorf(arm.BadRequest, "Identity not found")
		}
		return arm.NewSecret([]byte("TOKEN")), "mine", time.Now().Add(time.Hour), nil
	}
	lend := func(_ context.Context, resource string) (arm.Secret, string, time.Time, error) {
		return mint(context.Background(), resource, "", "", "")
	}
	facts := map[string]any{"compute": map[string]any{"vmSize": "S1"}, "network": map[string]any{}}
	imdsOf, localOf := IMDS(mint, facts, time.Now), MSI(arm.NewSecret([]byte("s3cret")), mint, time.Now)
	bare, lent := IMDS(nil, facts, time.Now), OBO(lend, time.Now)
	at := func(h http.Handler) func(string) http.Handler { return func(string) http.Handler { return h } }
	either := func(u string) http.Handler {
		if strings.Contains(u, MSIPath) {
			return localOf
		}
		return imdsOf
	}
	const res = "resource=https%3A%2F%2Fstorage.azure.com%2F"
	imds, local, obo := "http://169.254.169.254"+IMDSPath+"?", "http://127.0.0.1:46800"+MSIPath+"?", "http://127.0.0.1:46801"+OBOPath+"?"
	instance := "http://169.254.169.254" + instancePath
	for _, c := range []struct {
		name, url string
		header    [2]string
		also      [2]string
		want      int
		handler   func(string) http.Handler // either, if nil
	}{
		{"IMDS", imds + "api-version=2018-02-01&" + res, [2]string{"Metadata", "true"}, [2]string{}, 200, nil},
		{"Azure ML", local + "api-version=2017-09-01&clientid=&" + res, [2]string{"secret", "s3cret"}, [2]string{}, 200, nil},
		{"App Service", local + "api-version=2019-08-01&client_id=mine&" + res, [2]string{"X-IDENTITY-HEADER", "s3cret"}, [2]string{}, 200, nil},
		{"no Metadata", imds + "api-version=2018-02-01&" + res, [2]string{}, [2]string{}, 400, nil},
		{"forwarded", imds + "api-version=2018-02-01&" + res, [2]string{"Metadata", "true"}, [2]string{"X-Forwarded-For", "1.2.3.4"}, 400, nil},
		{"another Host", "http://evil.test" + IMDSPath + "?api-version=2018-02-01&" + res, [2]string{"Metadata", "true"}, [2]string{}, 400, nil},
		{"no version", imds + res, [2]string{"Metadata", "true"}, [2]string{}, 400, nil},
		{"two resources", imds + "api-version=2018-02-01&" + res + "&" + res, [2]string{"Metadata", "true"}, [2]string{}, 400, nil},
		{"another identity", imds + "api-version=2018-02-01&client_id=workspace&" + res, [2]string{"Metadata", "true"}, [2]string{}, 400, nil},
		{"another identity's resource", imds + "api-version=2018-02-01&msi_res_id=/x&" + res, [2]string{"Metadata", "true"}, [2]string{}, 400, nil},
		{"two selectors", imds + "api-version=2018-02-01&client_id=mine&object_id=x&" + res, [2]string{"Metadata", "true"}, [2]string{}, 400, nil},
		{"no secret", local + "api-version=2017-09-01&" + res, [2]string{}, [2]string{}, 401, nil},
		{"wrong secret", local + "api-version=2019-08-01&" + res, [2]string{"X-IDENTITY-HEADER", "other"}, [2]string{}, 401, nil},
		{"another path", imds[:len(imds)-1] + "x?" + res, [2]string{"Metadata", "true"}, [2]string{}, 404, nil},
		{"a parameter in two cases", imds + "api-version=2018-02-01&" + res + "&Resource=https%3A%2F%2Fvault.azure.net", [2]string{"Metadata", "true"}, [2]string{}, 400, nil},
		{"a version that is none", imds + "api-version=9999&" + res, [2]string{"Metadata", "true"}, [2]string{}, 400, nil},
		{"IMDS on another port", "http://169.254.169.254:8080" + IMDSPath + "?api-version=2018-02-01&" + res, [2]string{"Metadata", "true"}, [2]string{}, 400, nil},
		{"IMDS's address by another spelling", "http://0xA9FEA9FE" + IMDSPath + "?api-version=2018-02-01&" + res, [2]string{"Metadata", "true"}, [2]string{}, 400, nil},
		{"IMDS where a secret is asked for", imds + "api-version=2018-02-01&" + res, [2]string{"Metadata", "true"}, [2]string{}, 404, at(localOf)},
		{"the secret's path at IMDS", local + "api-version=2017-09-01&" + res, [2]string{"secret", "s3cret"}, [2]string{"Metadata", "true"}, 400, at(imdsOf)},
		{"a sandbox without identities", imds + "api-version=2018-02-01&" + res, [2]string{"Metadata", "true"}, [2]string{}, 400, at(bare)},
		{"on behalf of", obo + res, [2]string{}, [2]string{}, 200, at(lent)},
		{"on behalf of, forwarded", obo + res, [2]string{"X-Forwarded-For", "1.2.3.4"}, [2]string{}, 400, at(lent)},
		{"on behalf of, by a page's name", "http://evil.test:46801" + OBOPath + "?" + res, [2]string{}, [2]string{}, 400, at(lent)},
		{"on behalf of, for nothing", obo, [2]string{}, [2]string{}, 400, at(lent)},
		{"on behalf of, for two", obo + res + "&" + res, [2]string{}, [2]string{}, 400, at(lent)},
		{"facts without the header", instance + "?api-version=2021-02-01", [2]string{}, [2]string{}, 400, nil},
		{"facts that are none", instance + "/secrets?api-version=2021-02-01", [2]string{"Metadata", "true"}, [2]string{}, 404, nil},
	} {
		h := either(c.url)
		if c.handler != nil {
			h = c.handler(c.url)
		}
		r := httptest.NewRequest(http.MethodGet, c.url, nil)
		for _, x := range [][2]string{c.header, c.also} {
			if x[0] != "" {
				r.Header.Set(x[0], x[1])
			}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.want || (c.want == 200) != strings.Contains(w.Body.String(), "TOKEN") {
			t.Errorf("%s: got %d %s, want %d", c.name, w.Code, w.Body, c.want)
		}
	}
}

// The facts about a node are there for whoever asks as the service wants it.
func TestInstanceTellsFacts(t *testing.T) {
	h := IMDS(nil, map[string]any{"compute": map[string]any{"vmSize": "S1"}}, time.Now)
	for path, want := range map[string]string{"/metadata/instance": `{"compute":{"vmSize":"S1"}}`, "/metadata/instance/compute": `{"vmSize":"S1"}`} {
		r := httptest.NewRequest(http.MethodGet, "http://169.254.169.254"+path+"?api-version=2021-02-01&format=json", nil)
		r.Header.Set("Metadata", "true")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got := strings.TrimSpace(w.Body.String()); w.Code != http.StatusOK || got != want {
			t.Errorf("%s = %d %s, want %s", path, w.Code, got, want)
		}
	}
}

// Where a sandbox shares the machine's loopback there is no endpoint that asks
// for no secret: the metadata service is left out, a person's identity refused.
func TestSecretlessEndpointsWantANetworkOfTheirOwn(t *testing.T) {
	task := Task{Name: "t", Dir: "/s/t", Work: "/s/t/w", Command: []string{"/bin/true"}, Listeners: map[string]http.Handler{"msi": http.NotFoundHandler(), IMDSListener: http.NotFoundHandler()}}
	shared := Place{Dir: "/s", Tier: node.Landlock}
	p, err := Plan(task, shared)
	if err != nil || len(p.Listen) != 1 || p.Listen[0].Name != "msi" {
		t.Errorf("tier landlock: %v, %v; want the listener msi alone", p.Listen, err)
	}
	if p, err = Plan(task, Place{Dir: "/s", Tier: node.Userns}); err != nil || len(p.Listen) != 2 {
		t.Errorf("tier userns: %v, %v; want both", p.Listen, err)
	}
	task.Listeners[OBOListener] = http.NotFoundHandler()
	if p, err = Plan(task, shared); arm.CodeOf(err) != arm.Unsupported {
		t.Errorf("a person's identity in tier landlock: %v, %v", p.Listen, err)
	}
}
