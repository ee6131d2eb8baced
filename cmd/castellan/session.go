package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// mostAnswer is how many bytes of an answer are read.
const mostAnswer = 32 << 20

// session is a signed-in administrator's way to a running server, kept between
// commands in a file that its owner alone can read. A person's has a refresh
// token; an application's has access tokens alone, for its secret is never kept.
type session struct {
	ARM          string           `json:"armEndpoint"`
	Graph        string           `json:"graphEndpoint"`
	Proxy        string           `json:"proxy,omitempty"`
	Tenant       string           `json:"tenantId"`
	Subscription string           `json:"subscriptionId,omitempty"`
	CA           string           `json:"ca,omitempty"` // PEM; the system's roots without
	Client       string           `json:"clientId"`
	Refresh      string           `json:"refreshToken,omitempty"`
	Tokens       map[string]token `json:"tokens"` // by the base of what they are for
	// Claims is what the last answer asked a sign-in for that no token could be had
	// with (OpenID Connect Core 5.5); the next castellan login asks for it.
	Claims string `json:"claims,omitempty"`
}

// token is an access token and when it ends.
type token struct {
	Text  string    `json:"accessToken"`
	Until time.Time `json:"until"`
}

// sessionFile is where the session lies.
func sessionFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("finding the folder for settings: %w", err)
	}
	return filepath.Join(dir, "castellan", "login.json"), nil
}

// loadSession is the session of the last castellan login.
func loadSession() (*session, error) {
	file, err := sessionFile()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("nobody is signed in; run castellan login first")
	}
	if err != nil {
		return nil, err
	}
	s := &session{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%s can't be read (%w); run castellan login again", file, err)
	}
	return s, nil
}

// save puts the session in the place of what was there, whole or not at all.
func (s *session) save() error {
	file, err := sessionFile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), "login-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("keeping the sign-in: %w", err)
	}
	return nil
}

// client is an HTTP client that reaches the server and trusts its authority. It
// follows no redirect, so that a token goes where it was meant to go alone.
func (s *session) client() (*http.Client, error) {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	if s.Proxy != "" {
		u, err := url.Parse(s.Proxy)
		if err != nil {
			return nil, fmt.Errorf("the proxy is %q; it must be a URL: %w", s.Proxy, err)
		}
		t.Proxy = http.ProxyURL(u)
	}
	if s.CA != "" {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(s.CA)) {
			return nil, errors.New("the certificate authority's file has no certificate in PEM form")
		}
		t.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{Timeout: time.Minute, Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// tokenAnswer is what the token endpoint says.
type tokenAnswer struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Seconds int    `json:"expires_in"`
	Error   string `json:"error"`
	Why     string `json:"error_description"`
}

// problem is a refusal of the sign-in endpoints.
type problem struct{ code, why string }

func (p problem) Error() string {
	line, _, _ := strings.Cut(p.why, "\n")
	return line
}

// postForm sends a form to a sign-in endpoint and reads the answer into out.
func (s *session) postForm(ctx context.Context, h *http.Client, path string, form url.Values, out any) error {
	req, err := http.NewRequestWithContext(ctx, "POST", s.ARM+"/"+url.PathEscape(s.Tenant)+path, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := h.Do(req)
	if err != nil {
		return fmt.Errorf("the server can't be reached (is castellan up running?): %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	if err != nil {
		return err
	}
	var refusal tokenAnswer
	if err := json.Unmarshal(b, &refusal); err != nil {
		return fmt.Errorf("the server answered %s with something that is not JSON", resp.Status)
	}
	if resp.StatusCode != http.StatusOK {
		return problem{refusal.Error, refusal.Why}
	}
	return json.Unmarshal(b, out)
}

// able is what a server asked for, and that this program answers such questions.
func able(claims string) string {
	var m map[string]map[string]any
	if err := json.Unmarshal([]byte(claims), &m); err != nil || m["access_token"] == nil {
		m = map[string]map[string]any{"access_token": {}}
	}
	m["access_token"]["xms_cc"] = map[string]any{"values": []string{"cp1"}}
	b, err := json.Marshal(m)
	if err != nil {
		return "" // what came as JSON goes as JSON
	}
	return string(b)
}

// ask gets a token for what has this base, by the grant in form, and keeps it.
func (s *session) ask(ctx context.Context, h *http.Client, base string, form url.Values) error {
	form.Set("client_id", s.Client)
	form.Set("claims", able(form.Get("claims")))
	form.Set("scope", base+"/.default")
	if form.Get("grant_type") != "client_credentials" {
		form.Set("scope", base+"/.default offline_access")
	}
	var a tokenAnswer
	if err := s.postForm(ctx, h, "/oauth2/v2.0/token", form, &a); err != nil {
		return err
	}
	if s.Tokens == nil {
		s.Tokens = map[string]token{}
	}
	s.Tokens[base] = token{a.Access, time.Now().Add(time.Duration(a.Seconds) * time.Second)}
	if a.Refresh != "" {
		s.Refresh = a.Refresh
	}
	return nil
}

// bearer is a token for what has this base that lasts a minute at least; with
// claims a new one that has them.
func (s *session) bearer(ctx context.Context, h *http.Client, base, claims string) (string, error) {
	if t := s.Tokens[base]; claims == "" && time.Until(t.Until) > time.Minute {
		return t.Text, nil
	}
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {s.Refresh}}
	if s.Refresh == "" {
		secret := os.Getenv("AZURE_CLIENT_SECRET")
		if secret == "" || !strings.EqualFold(os.Getenv("AZURE_CLIENT_ID"), s.Client) {
			return "", errors.New("the application's sign-in is over; run castellan login --service-principal again")
		}
		form = url.Values{"grant_type": {"client_credentials"}, "client_secret": {secret}}
	}
	form.Set("claims", claims)
	if err := s.ask(ctx, h, base, form); err != nil {
		return "", fmt.Errorf("%w; run castellan login again", err)
	}
	return s.Tokens[base].Text, s.save()
}

// call sends a request to Graph or Resource Manager, and is the answer's JSON. A
// claims challenge is answered once; what only a person can show for it is kept
// for their next sign-in.
func (s *session) call(ctx context.Context, h *http.Client, method, base, path string, body any) (map[string]any, error) {
	out, claims, err := s.send(ctx, h, method, base, path, body)
	if claims == "" {
		return out, err
	}
	if _, err := s.bearer(ctx, h, base, claims); err != nil {
		s.Claims = claims
		return nil, errors.Join(fmt.Errorf("more proof is needed, such as a second factor: %w", err), s.save())
	}
	out, _, err = s.send(ctx, h, method, base, path, body)
	return out, err
}

// challenge is what an answer asks for in another token, as JSON, or "".
func challenge(resp *http.Response) string {
	header := resp.Header.Get("WWW-Authenticate")
	_, rest, ok := strings.Cut(header, `claims="`)
	if !ok || !strings.Contains(header, `error="insufficient_claims"`) {
		return ""
	}
	text, _, _ := strings.Cut(rest, `"`)
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return ""
	}
	return string(b)
}

// send sends one request; claims is the challenge that it met.
func (s *session) send(ctx context.Context, h *http.Client, method, base, path string, body any) (out map[string]any, claims string, err error) {
	bearer, err := s.bearer(ctx, h, base, "")
	if err != nil {
		return nil, "", err
	}
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, "", err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, base+path, in)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	req.Header.Set("Content-Type", "application/json")
	resp, err := h.Do(req)
	if err != nil {
		return nil, "", fmt.Errorf("the server can't be reached (is castellan up running?): %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	if err != nil {
		return nil, "", err
	}
	out = map[string]any{}
	if err := json.Unmarshal(b, &out); len(b) > 0 && err != nil {
		return nil, "", fmt.Errorf("the server answered %s with something that is not a JSON object", resp.Status)
	}
	if resp.StatusCode >= 300 {
		return nil, challenge(resp), refused(resp, out)
	}
	return out, "", nil
}

// refused is the server's refusal, with what can be done about it.
func refused(resp *http.Response, out map[string]any) error {
	e, _ := out["error"].(map[string]any)
	text := fmt.Sprintf("%v (%v)", e["message"], e["code"])
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		text += "\nSign in again: castellan login."
	case resp.StatusCode == http.StatusForbidden:
		text += "\nWhoever is signed in lacks a role for this; an administrator can give it: castellan role assign."
	}
	return errors.New(text)
}

// list are all pages of a list.
func (s *session) list(ctx context.Context, h *http.Client, base, path string) ([]any, error) {
	rows := []any{}
	for {
		out, err := s.call(ctx, h, "GET", base, path, nil)
		if err != nil {
			return nil, err
		}
		page, _ := out["value"].([]any)
		rows = append(rows, page...)
		next, _ := out["@odata.nextLink"].(string)
		if next == "" {
			next, _ = out["nextLink"].(string)
		}
		if next == "" {
			return rows, nil
		}
		rest, ok := strings.CutPrefix(next, base+"/")
		if !ok {
			return nil, errors.New("the list goes on at another host, which is not asked")
		}
		path = "/" + rest
	}
}
