package demo

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
)

// session is somebody who signed in.
type session struct {
	name, object, token, refresh string
}

// az is the client id of the Azure CLI, which every tenant knows: a public
// client whose redirect is a port of the person's own machine.
const (
	az       = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
	redirect = "http://localhost:8400"
)

// people makes three users through Microsoft Graph and signs all four in by the
// sign-in page.
func (d *demo) people(ctx context.Context) error {
	first := d.edge.App.Admin
	if first == nil {
		return errors.New("the folder is not new: its administrator's one-time password was told before")
	}
	s := d.edge.App.Site
	var err error
	if d.admin, err = d.signIn(ctx, first.UserName, string(first.Password.Reveal()), newPassword(), s.Base()+"/.default"); err != nil {
		return fmt.Errorf("the administrator: %w", err)
	}
	d.say("%s signs in with the one-time password and must change it at once.", first.UserName)
	graph, err := d.signInAgain(ctx, d.admin, "https://"+s.GraphHost()+"/.default")
	if err != nil {
		return fmt.Errorf("the administrator, for Graph: %w", err)
	}
	for _, p := range []struct {
		who         *session
		name, title string
	}{{&d.scientist, "dana", "data scientist"}, {&d.reader, "rita", "reader"}, {&d.stranger, "sam", "stranger"}} {
		password := newPassword()
		upn := p.name + "@" + s.Suffix
		var made struct {
			ID string `json:"id"`
		}
		a, err := d.send(ctx, graph.token, http.MethodPost, "https://"+s.GraphHost()+"/v1.0/users", map[string]any{
			"accountEnabled": true, "displayName": p.name, "mailNickname": p.name, "userPrincipalName": upn,
			"passwordProfile": map[string]any{"password": password, "forceChangePasswordNextSignIn": true},
		})
		if err != nil {
			return err
		}
		if err := read(a, "POST", "/v1.0/users", &made); err != nil {
			return err
		}
		if *p.who, err = d.signIn(ctx, upn, password, newPassword(), s.Base()+"/.default"); err != nil {
			return fmt.Errorf("%s: %w", upn, err)
		}
		p.who.object = made.ID
		d.say("%s is the %s; signed in by authorization code with PKCE.", upn, p.title)
	}
	return nil
}

func newPassword() string {
	var b [18]byte
	_, _ = rand.Read(b[:]) // never fails
	return "Aa1-" + base64.RawURLEncoding.EncodeToString(b[:])
}

// browser is what a person signs in with: it keeps cookies, and stops where the
// client's own address begins.
type browser struct {
	http *http.Client
	page string
	at   *url.URL
}

var errArrived = errors.New("arrived")

func (d *demo) browser() (*browser, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	b := &browser{}
	b.http = &http.Client{Transport: d.http.Transport, Jar: jar, Timeout: d.http.Timeout, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), redirect) {
			return errArrived
		}
		return nil
	}}
	return b, nil
}

// signIn goes through the sign-in page as a person does, changes the password
// where the page asks for it, and trades the code for a token.
func (d *demo) signIn(ctx context.Context, user, password, next, scope string) (session, error) {
	b, err := d.browser()
	if err != nil {
		return session{}, err
	}
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	verifier := base64.RawURLEncoding.EncodeToString(random[:])
	sum := sha256.Sum256([]byte(verifier))
	base := d.edge.App.Site.Base() + "/" + d.edge.App.Site.Tenant + "/oauth2/v2.0"
	code, err := b.open(ctx, base+"/authorize?"+url.Values{
		"client_id": {az}, "response_type": {"code"}, "redirect_uri": {redirect}, "scope": {scope + " openid offline_access profile"},
		"state": {"demo"}, "code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}.Encode())
	used := map[string]bool{}
	for range 4 {
		if err != nil || code != "" {
			break
		}
		code, err = b.submit(ctx, user, password, next, used)
	}
	if err != nil {
		return session{}, err
	}
	if code == "" {
		return session{}, errors.New("the sign-in page did not let the person through")
	}
	return d.redeem(ctx, user, url.Values{"grant_type": {"authorization_code"}, "client_id": {az}, "code": {code}, "redirect_uri": {redirect}, "code_verifier": {verifier}, "scope": {scope + " openid offline_access profile"}})
}

// redeem asks the token endpoint.
func (d *demo) redeem(ctx context.Context, user string, form url.Values) (session, error) {
	a, err := d.send(ctx, "", http.MethodPost, d.edge.App.Site.Base()+"/"+d.edge.App.Site.Tenant+"/oauth2/v2.0/token", form)
	if err != nil {
		return session{}, err
	}
	var t struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
		ID      string `json:"id_token"`
		Text    string `json:"error_description"`
	}
	if err := json.Unmarshal(a.body, &t); err != nil || t.Access == "" {
		return session{}, fmt.Errorf("no token: %d %s", a.status, t.Text)
	}
	s := session{name: user, token: t.Access, refresh: t.Refresh}
	s.object = claim(t.Access, "oid")
	return s, nil
}

// signInAgain trades the refresh token for a token of another audience.
func (d *demo) signInAgain(ctx context.Context, s session, scope string) (session, error) {
	return d.redeem(ctx, s.name, url.Values{"grant_type": {"refresh_token"}, "client_id": {az}, "refresh_token": {s.refresh}, "scope": {scope + " openid offline_access profile"}})
}

// claim reads a claim of a token as clients do: without verifying it.
func claim(token, name string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var c map[string]any
	if json.Unmarshal(b, &c) != nil {
		return ""
	}
	v, _ := c[name].(string)
	return v
}

// open loads a page; code is set once the browser is sent to the client.
func (b *browser) open(ctx context.Context, u string) (code string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return "", err
	}
	return b.do(req)
}

func (b *browser) do(req *http.Request) (code string, err error) {
	res, err := b.http.Do(req)
	if err != nil && !errors.Is(err, errArrived) {
		return "", err
	}
	defer res.Body.Close()
	if to, e := res.Location(); e == nil && strings.HasPrefix(to.String(), redirect) {
		q := to.Query()
		if q.Get("code") == "" {
			return "", fmt.Errorf("sign-in ended with %s: %s", q.Get("error"), q.Get("error_description"))
		}
		return q.Get("code"), nil
	}
	page := make([]byte, 0, 1<<14)
	buf := make([]byte, 4096)
	for len(page) < 1<<20 {
		n, e := res.Body.Read(buf)
		page = append(page, buf[:n]...)
		if e != nil {
			break
		}
	}
	b.page, b.at = string(page), res.Request.URL
	return "", nil
}

var (
	formTag  = regexp.MustCompile(`(?is)<form[^>]*>`)
	inputTag = regexp.MustCompile(`(?is)<(?:input|button)[^>]*>`)
	attrs    = regexp.MustCompile(`(?is)([a-z-]+)="([^"]*)"`)
)

func attributes(tag string) map[string]string {
	out := map[string]string{}
	for _, m := range attrs.FindAllStringSubmatch(tag, -1) {
		out[strings.ToLower(m[1])] = html.UnescapeString(m[2])
	}
	return out
}

// submit fills the page's form in by what its fields are called, and sends it.
func (b *browser) submit(ctx context.Context, user, password, next string, used map[string]bool) (string, error) {
	form := formTag.FindString(b.page)
	if form == "" {
		return "", errors.New("the page has no form: " + strings.Join(strings.Fields(regexp.MustCompile(`(?s)<[^>]*>`).ReplaceAllString(b.page, " ")), " "))
	}
	values, change := url.Values{}, strings.Count(b.page, `type="password"`) > 1
	for _, tag := range inputTag.FindAllString(b.page, -1) {
		at := attributes(tag)
		switch name := at["name"]; {
		case name == "":
		case at["type"] == "password" && change && !strings.Contains(strings.ToLower(name), "old") && !strings.Contains(strings.ToLower(name), "current"):
			values.Set(name, next)
		case at["type"] == "password":
			values.Set(name, password)
		case at["type"] == "hidden":
			values.Set(name, at["value"])
		case at["type"] == "text", at["type"] == "email", at["type"] == "":
			values.Set(name, user)
		}
	}
	to, err := b.at.Parse(attributes(form)["action"])
	if err != nil {
		return "", err
	}
	if used[to.Path+fmt.Sprint(change)] {
		return "", errors.New("the sign-in page refused: " + strings.Join(strings.Fields(regexp.MustCompile(`(?s)<[^>]*>`).ReplaceAllString(b.page, " ")), " "))
	}
	used[to.Path+fmt.Sprint(change)] = true
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), strings.NewReader(values.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", b.at.Scheme+"://"+b.at.Host)
	return b.do(req)
}
