// Package openid signs people in at somebody else's OpenID provider: our side of OpenID Connect, as a relying party.
package openid

import (
	"context"
	"crypto/subtle"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	jose "github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"

	"castellan/internal/arm"
)

// Config says which provider it is and who we are there.
type Config struct {
	Issuer   string // exactly as its tokens say it; an https URL
	ClientID string
	Secret   arm.Secret       // the client secret, unless Key is there
	Key      *jose.JSONWebKey // a private key that signs client assertions (private_key_jwt)
	Scopes   []string         // besides openid
	Roots    *x509.CertPool   // whom to trust for its TLS; nil: whom the system trusts
	Now      func() time.Time
}

const (
	patience = 10 * time.Second // for one answer of the provider
	fresh    = time.Hour        // how long what the provider says of itself is believed
	tooOld   = 10 * time.Minute // age of an ID token at which it was not made for this sign-in
	skew     = time.Minute      // by which clocks differ
)

// algorithms are those that ID tokens may be signed with. Neither none nor a
// shared secret is among them.
var algorithms = []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA}

// Provider is one provider that was not necessarily reached yet.
type Provider struct {
	Config
	client *http.Client

	mu    sync.Mutex // guards found and when
	found *found
	when  time.Time
}

// found is what a provider says of itself.
type found struct {
	*oidc.Provider
	endpoint oauth2.Endpoint
	saysIss  bool // its answers name it (RFC 9207)
}

// New makes a Provider. Nothing is fetched yet.
func New(cfg Config) (*Provider, error) {
	if err := CheckURL(cfg.Issuer); err != nil {
		return nil, fmt.Errorf("the issuer %w", err)
	}
	return &Provider{Config: cfg, client: client(cfg.Roots)}, nil
}

// CheckURL says whether s may be an issuer: https, a host, and nothing but a path.
func CheckURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" || len(s) > 512 {
		return errors.New("must be an https URL without user, query and fragment")
	}
	return nil
}

// discover reads what the provider says of itself, unless that is known.
func (p *Provider) discover(ctx context.Context) (*found, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.Now()
	if p.found != nil && now.Sub(p.when) < fresh {
		return p.found, nil
	}
	o, err := oidc.NewProvider(oidc.ClientContext(ctx, p.client), p.Issuer)
	if err != nil {
		return nil, fmt.Errorf("reading the provider's configuration: %w", err)
	}
	var said struct {
		Iss     bool     `json:"authorization_response_iss_parameter_supported"`
		Methods []string `json:"token_endpoint_auth_methods_supported"`
		Keys    string   `json:"jwks_uri"`
	}
	if err := o.Claims(&said); err != nil {
		return nil, fmt.Errorf("reading the provider's configuration: %w", err)
	}
	f := &found{Provider: o, endpoint: o.Endpoint(), saysIss: said.Iss}
	for _, u := range []string{f.endpoint.AuthURL, f.endpoint.TokenURL, said.Keys} {
		if v, err := url.Parse(u); err != nil || v.Scheme != "https" || v.Host == "" || v.User != nil {
			return nil, errors.New("the provider's configuration names an endpoint that is no https URL")
		}
	}
	if f.endpoint.AuthStyle = oauth2.AuthStyleInHeader; p.Key != nil || len(said.Methods) > 0 && !slices.Contains(said.Methods, "client_secret_basic") {
		f.endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	p.found, p.when = f, now
	return f, nil
}

// Ask is what one sign-in asks of the provider. State, Nonce and Verifier are
// random, and kept with the browser.
type Ask struct {
	Redirect               string // where the answer comes to
	State, Nonce, Verifier string
	Hint                   string // the user name, if it is known
	Prompt                 string
	Since                  time.Time // when the person must have signed in at the earliest; zero: whenever
}

func (p *Provider) oauth(f *found, redirect string) *oauth2.Config {
	c := &oauth2.Config{ClientID: p.ClientID, Endpoint: f.endpoint, RedirectURL: redirect, Scopes: append([]string{oidc.ScopeOpenID}, p.Scopes...)}
	if p.Key == nil {
		c.ClientSecret = string(p.Secret.Reveal())
	}
	return c
}

// Begin is the URL to which the browser goes.
func (p *Provider) Begin(ctx context.Context, a Ask) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	f, err := p.discover(ctx)
	if err != nil {
		return "", err
	}
	opts := []oauth2.AuthCodeOption{oidc.Nonce(a.Nonce), oauth2.S256ChallengeOption(a.Verifier)}
	age := ""
	if !a.Since.IsZero() { // auth_time is told for certain only if it is asked for so (Core section 3.1.2.1)
		age = strconv.Itoa(max(0, int(p.Now().Sub(a.Since)/time.Second)))
	}
	for name, v := range map[string]string{"login_hint": a.Hint, "prompt": a.Prompt, "max_age": age} {
		if v != "" {
			opts = append(opts, oauth2.SetAuthURLParam(name, v))
		}
	}
	return p.oauth(f, a.Redirect).AuthCodeURL(a.State, opts...), nil
}

// Declined is the provider's own refusal.
type Declined struct{ Code string }

func (d Declined) Error() string { return "the identity provider refused: " + d.Code }

// Finish takes the answer that the browser brought back and is the person that
// the provider vouches for.
func (p *Provider) Finish(ctx context.Context, a Ask, answer url.Values) (Person, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	f, err := p.discover(ctx)
	if err != nil {
		return Person{}, err
	}
	if err := p.holds(f, a, answer); err != nil {
		return Person{}, err
	}
	opts := []oauth2.AuthCodeOption{oauth2.VerifierOption(a.Verifier)}
	if p.Key != nil {
		signed, err := p.assertion(f.endpoint.TokenURL)
		if err != nil {
			return Person{}, err
		}
		opts = append(opts, oauth2.SetAuthURLParam("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"), oauth2.SetAuthURLParam("client_assertion", signed))
	}
	ctx = oidc.ClientContext(ctx, p.client)
	token, err := p.oauth(f, a.Redirect).Exchange(ctx, answer.Get("code"), opts...)
	if err != nil {
		return Person{}, fmt.Errorf("trading the code: %w", quiet(err))
	}
	raw, _ := token.Extra("id_token").(string)
	if raw == "" {
		return Person{}, errors.New("the provider gave no ID token")
	}
	claims, err := p.verify(ctx, f, raw, a.Nonce)
	if err != nil {
		return Person{}, err
	}
	who, err := p.complete(ctx, f, token, claims)
	if err == nil && !a.Since.IsZero() && who.At.Before(a.Since.Add(-skew)) {
		return Person{}, ErrStale
	}
	return who, err
}

// ErrStale means that a person should have signed in anew and did not, or that
// the provider does not say when they did.
var ErrStale = errors.New("the person did not sign in anew: see the ID token's auth_time")

// holds checks that the answer belongs to the question: the state, and with
// providers that name themselves, the name (mix-up, RFC 9207).
func (p *Provider) holds(f *found, a Ask, answer url.Values) error {
	for name, v := range answer {
		if len(v) > 1 {
			return fmt.Errorf("the answer has %q more than once", name)
		}
	}
	if a.State == "" || subtle.ConstantTimeCompare([]byte(answer.Get("state")), []byte(a.State)) != 1 {
		return errors.New("the answer is for another sign-in")
	}
	if iss := answer.Get("iss"); (f.saysIss || answer.Has("iss")) && iss != p.Issuer {
		return errors.New("the answer is of another provider")
	}
	if e := answer.Get("error"); e != "" {
		return Declined{printable(e)}
	}
	if answer.Get("code") == "" {
		return errors.New("the answer has no code")
	}
	return nil
}

// verify holds an ID token against everything that OpenID Connect Core wants
// (section 3.1.3.7).
func (p *Provider) verify(ctx context.Context, f *found, raw, nonce string) (map[string]any, error) {
	id, err := f.VerifierContext(ctx, &oidc.Config{ClientID: p.ClientID, SupportedSigningAlgs: algorithms, Now: p.Now}).Verify(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("checking the ID token: %w", err)
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return nil, fmt.Errorf("reading the ID token: %w", err)
	}
	azp, has := claims["azp"].(string)
	now := p.Now()
	switch {
	case nonce == "" || subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(nonce)) != 1:
		return nil, errors.New("the ID token is for another sign-in: its nonce is another")
	case has && azp != p.ClientID || len(id.Audience) > 1 && !has:
		return nil, errors.New("the ID token was given to another client: see its azp")
	case id.Subject == "" || len(id.Subject) > 255:
		return nil, errors.New("the ID token has no subject, or a longer one than 255 bytes")
	case id.IssuedAt.After(now.Add(skew)) || id.IssuedAt.Before(now.Add(-tooOld)):
		return nil, errors.New("the ID token was not made just now: see its iat")
	}
	return claims, nil
}

// complete adds what the provider says of the person elsewhere. What the ID
// token says stands; how the person signed in is believed there alone.
func (p *Provider) complete(ctx context.Context, f *found, token *oauth2.Token, claims map[string]any) (Person, error) {
	out := Person{Issuer: p.Issuer, Subject: claims["sub"].(string), Methods: texts(claims["amr"]), Claims: claims}
	out.Class, _ = claims["acr"].(string)
	if t, ok := claims["auth_time"].(float64); ok && t > 0 {
		out.At = time.Unix(int64(t), 0)
	}
	if f.UserInfoEndpoint() == "" {
		return out, nil
	}
	info, err := f.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return Person{}, fmt.Errorf("asking for the person's claims: %w", quiet(err))
	}
	if info.Subject != out.Subject {
		return Person{}, errors.New("the provider's claims are another person's")
	}
	more := map[string]any{}
	if err := info.Claims(&more); err != nil {
		return Person{}, fmt.Errorf("reading the person's claims: %w", err)
	}
	for name, v := range more {
		if _, said := claims[name]; !said {
			claims[name] = v
		}
	}
	return out, nil
}

// assertion is who we are, signed for the token endpoint alone (RFC 7523).
func (p *Provider) assertion(audience string) (string, error) {
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(p.Key.Algorithm), Key: p.Key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("signing a client assertion: %w", err)
	}
	now := p.Now()
	b, err := json.Marshal(map[string]any{"iss": p.ClientID, "sub": p.ClientID, "aud": audience, "jti": arm.NewUUID(), "iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix()})
	if err != nil {
		return "", err
	}
	j, err := s.Sign(b)
	if err != nil {
		return "", fmt.Errorf("signing a client assertion: %w", err)
	}
	return j.CompactSerialize()
}

// quiet is err without the provider's answer, which may say anything.
func quiet(err error) error {
	var r *oauth2.RetrieveError
	if errors.As(err, &r) {
		return Declined{printable(r.ErrorCode)}
	}
	return err
}

// printable is an error code as far as RFC 6749 lets it be one.
func printable(s string) string {
	ok := s != "" && len(s) <= 100 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == ""
	if !ok {
		return "an error without a name"
	}
	return s
}
