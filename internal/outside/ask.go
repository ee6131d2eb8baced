package outside

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/cmk"
)

// mostAnswer is the longest answer that is read, in bytes.
const mostAnswer = 64 << 10

// do asks the vault as the Ref's identity. A refusal of the vault, or of its
// authority, is an arm.Error; anything else means that it can't be had.
func (v *Vaults) do(ctx context.Context, r cmk.Ref, method, path string, in, out any) error {
	h, err := v.host(r)
	if err != nil {
		return err
	}
	for again := range 2 {
		t, err := v.token(ctx, h, r, again > 0)
		if err != nil {
			return err
		}
		status, body, _, err := h.send(ctx, method, "https://"+h.Host+path+"?api-version="+apiVersion, "application/json", in, t)
		switch {
		case err != nil:
			return err
		case status == http.StatusUnauthorized && again == 0:
			continue // the token died before its time
		case status/100 != 2:
			return refusal("the vault "+h.Host, status, body)
		}
		return json.Unmarshal(body, out)
	}
	return arm.Errorf(arm.Forbidden, "the vault %s does not take its authority's tokens", h.Host)
}

// token is one by which the Ref's identity may ask the vault.
func (v *Vaults) token(ctx context.Context, h *host, r cmk.Ref, fresh bool) (arm.Secret, error) {
	of := r.Tenant + "|" + r.Principal + "|" + r.Client
	h.mu.Lock()
	t := h.tokens[of]
	h.mu.Unlock()
	if !fresh && v.now().Before(t.until) {
		return t.text, nil
	}
	scope, err := h.challenge(ctx)
	if err != nil {
		return arm.Secret{}, err
	}
	proof, err := v.assert(ctx, r.Tenant, r.Principal)
	if err != nil {
		return arm.Secret{}, err
	}
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {r.Client}, "scope": {scope + "/.default"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {string(proof.Reveal())},
	}
	status, body, _, err := h.send(ctx, http.MethodPost, h.Authority+"/oauth2/v2.0/token", "application/x-www-form-urlencoded", form, arm.Secret{})
	if err != nil {
		return arm.Secret{}, err
	}
	if status != http.StatusOK {
		return arm.Secret{}, refusal("the authority "+h.Authority, status, body)
	}
	var got struct {
		Token string `json:"access_token"`
		Life  int64  `json:"expires_in"` // seconds
	}
	if err := json.Unmarshal(body, &got); err != nil || got.Token == "" {
		return arm.Secret{}, fmt.Errorf("the authority %s gave no token", h.Authority)
	}
	t = token{arm.NewSecret([]byte(got.Token)), v.now().Add(time.Duration(got.Life)*time.Second - forget)}
	h.mu.Lock()
	h.tokens[of] = t
	h.mu.Unlock()
	return t.text, nil
}

var challenged = regexp.MustCompile(`(?i)\b(authorization|resource)="([^"]*)"`)

// challenge is what tokens for the vault are for, as it says itself. Whoever answers
// in its place can ask for tokens of no other authority and for no other service.
func (h *host) challenge(ctx context.Context) (string, error) {
	h.mu.Lock()
	known := h.resource
	h.mu.Unlock()
	if known != "" {
		return known, nil
	}
	status, _, head, err := h.send(ctx, http.MethodGet, "https://"+h.Host+"/keys?api-version="+apiVersion, "", nil, arm.Secret{})
	if err != nil {
		return "", err
	}
	said := map[string]string{}
	for _, m := range challenged.FindAllStringSubmatch(head.Get("WWW-Authenticate"), -1) {
		said[strings.ToLower(m[1])] = m[2]
	}
	if status != http.StatusUnauthorized || said["resource"] == "" {
		return "", fmt.Errorf("the vault %s answers %d to who has no token, and says not for whom one must be", h.Host, status)
	}
	if !strings.EqualFold(strings.TrimSuffix(said["authorization"], "/"), strings.TrimSuffix(h.Authority, "/")) {
		return "", arm.Errorf(arm.Forbidden, "the vault %s takes tokens of %.200q, and not of the authority that is listed for it", h.Host, said["authorization"])
	}
	u, err := url.Parse(said["resource"])
	if err != nil || u.Scheme != "https" || !strings.HasSuffix(h.Host, "."+strings.ToLower(u.Host)) || u.Host == "" {
		return "", arm.Errorf(arm.Forbidden, "the vault %s asks for a token for %.200q, which is not the service that it belongs to", h.Host, said["resource"])
	}
	scope := "https://" + strings.ToLower(u.Host)
	h.mu.Lock()
	h.resource = scope
	h.mu.Unlock()
	return scope, nil
}

// send makes one request; in is a form or becomes JSON.
func (h *host) send(ctx context.Context, method, to, typ string, in any, t arm.Secret) (status int, body []byte, head http.Header, err error) {
	var text []byte
	switch x := in.(type) {
	case nil:
	case url.Values:
		text = []byte(x.Encode())
	default:
		if text, err = json.Marshal(x); err != nil {
			return 0, nil, nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, to, bytes.NewReader(text))
	if err != nil {
		return 0, nil, nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", typ)
	}
	req.Header.Set("Accept", "application/json")
	if !t.IsZero() {
		req.Header.Set("Authorization", "Bearer "+string(t.Reveal()))
	}
	res, err := h.client.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(io.LimitReader(res.Body, mostAnswer+1))
	if err == nil && len(body) > mostAnswer {
		err = errors.New("the answer is too long")
	}
	return res.StatusCode, body, res.Header, err
}

// refusal is what a vault or an authority said. Its words are not repeated, only
// its codes.
func refusal(who string, status int, body []byte) error {
	var says struct {
		Error json.RawMessage `json:"error"`
	}
	var e struct {
		Code  string `json:"code"`
		Inner struct {
			Code string `json:"code"`
		} `json:"innererror"`
	}
	var code string
	if json.Unmarshal(body, &says) == nil && json.Unmarshal(says.Error, &e) != nil {
		_ = json.Unmarshal(says.Error, &code) // the form of OAuth; else it says nothing
	}
	if e.Code != "" {
		code = strings.Trim(e.Code+"/"+e.Inner.Code, "/")
	}
	err := fmt.Errorf("%s answers %d %.100q", who, status, code)
	switch {
	case status == http.StatusTooManyRequests || status >= 500 || status == http.StatusRequestTimeout:
		return err
	case e.Code == "VaultNotFound":
		return &arm.Error{Code: "VaultNotFound", Status: http.StatusNotFound, Message: who + " is not there", Err: err}
	case status == http.StatusNotFound || strings.HasPrefix(e.Inner.Code, "Key"):
		return &arm.Error{Code: arm.NotFound, Status: http.StatusNotFound, Message: who + " has no such key that can be used", Err: err}
	case status == http.StatusUnauthorized || status == http.StatusForbidden || strings.HasPrefix(who, "the authority"):
		return &arm.Error{Code: arm.Forbidden, Status: http.StatusForbidden, Message: who + " refuses the identity", Err: err}
	}
	return &arm.Error{Code: arm.InvalidRequest, Status: http.StatusBadRequest, Message: who + " does not do this with the key", Err: err}
}
