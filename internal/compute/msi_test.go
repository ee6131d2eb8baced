package compute

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
)

// The endpoint answers its own sandbox for its own identity, and whoever asks
// in any other way gets no token.
func TestMSIRefuses(t *testing.T) {
	h := MSI(MSIConfig{Secret: arm.NewSecret([]byte("s3cret")), Now: time.Now,
		Token: func(_ context.Context, resource, client, object, res string) (arm.Secret, string, time.Time, error) {
			if resource != "https://storage.azure.com/" || client != "" && client != "mine" || object != "" || res != "" {
				return arm.Secret{}, "", time.Time{}, arm.Errorf(arm.BadRequest, "Identity not found")
			}
			return arm.NewSecret([]byte("TOKEN")), "mine", time.Now().Add(time.Hour), nil
		}})
	const res = "resource=https%3A%2F%2Fstorage.azure.com%2F"
	imds, local := "http://169.254.169.254"+IMDSPath+"?", "http://127.0.0.1:46800"+MSIPath+"?"
	for _, c := range []struct {
		name, url string
		header    [2]string
		also      [2]string
		want      int
	}{
		{"IMDS", imds + "api-version=2018-02-01&" + res, [2]string{"Metadata", "true"}, [2]string{}, 200},
		{"Azure ML", local + "api-version=2017-09-01&clientid=&" + res, [2]string{"secret", "s3cret"}, [2]string{}, 200},
		{"App Service", local + "api-version=2019-08-01&client_id=mine&" + res, [2]string{"X-IDENTITY-HEADER", "s3cret"}, [2]string{}, 200},
		{"no Metadata", imds + "api-version=2018-02-01&" + res, [2]string{}, [2]string{}, 400},
		{"forwarded", imds + "api-version=2018-02-01&" + res, [2]string{"Metadata", "true"}, [2]string{"X-Forwarded-For", "1.2.3.4"}, 400},
		{"another Host", "http://evil.test" + IMDSPath + "?api-version=2018-02-01&" + res, [2]string{"Metadata", "true"}, [2]string{}, 400},
		{"no version", imds + res, [2]string{"Metadata", "true"}, [2]string{}, 400},
		{"two resources", imds + "api-version=2018-02-01&" + res + "&" + res, [2]string{"Metadata", "true"}, [2]string{}, 400},
		{"another identity", imds + "api-version=2018-02-01&client_id=workspace&" + res, [2]string{"Metadata", "true"}, [2]string{}, 400},
		{"another identity's resource", imds + "api-version=2018-02-01&msi_res_id=/x&" + res, [2]string{"Metadata", "true"}, [2]string{}, 400},
		{"two selectors", imds + "api-version=2018-02-01&client_id=mine&object_id=x&" + res, [2]string{"Metadata", "true"}, [2]string{}, 400},
		{"no secret", local + "api-version=2017-09-01&" + res, [2]string{}, [2]string{}, 401},
		{"wrong secret", local + "api-version=2019-08-01&" + res, [2]string{"X-IDENTITY-HEADER", "other"}, [2]string{}, 401},
		{"another path", imds[:len(imds)-1] + "x?" + res, [2]string{"Metadata", "true"}, [2]string{}, 404},
	} {
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
