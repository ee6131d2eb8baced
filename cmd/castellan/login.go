package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// commandLine is the application that people sign in to here: Azure's own
// command line, whose rights every tenant knows.
const commandLine = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"

// loginFlags say which server, and who.
type loginFlags struct {
	data, server, proxy, ca, tenant string
	application                     bool
}

func loginCommand() *cobra.Command {
	var f loginFlags
	c := &cobra.Command{
		Use:   "login",
		Short: "Sign in to a running server, to administer it",
		Long: `Sign in to a running server. A person confirms a code in a browser; an
application proves itself by AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, which are
not kept. The tokens lie in a file of the user's configuration folder that its
owner alone can read; castellan logout deletes it.

  castellan login
  AZURE_CLIENT_ID=... AZURE_CLIENT_SECRET=... castellan login --service-principal
  castellan login --server https://castellan.example --ca ca.pem --tenant contoso.example`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fl := c.Flags()
	fl.StringVar(&f.data, "data", "", "data folder of the server, if it is on this machine (default $XDG_DATA_HOME/castellan)")
	fl.StringVar(&f.server, "server", "", "the server's address, such as https://castellan.example, instead of --data; its proxy is taken from --proxy or HTTPS_PROXY")
	fl.StringVar(&f.proxy, "proxy", "", "the server's proxy, such as http://host:8444, with --server")
	fl.StringVar(&f.ca, "ca", "", "file of the server's certificate authority, with --server")
	fl.StringVar(&f.tenant, "tenant", "", "id or domain of the tenant (default AZURE_TENANT_ID, or the server's first)")
	fl.BoolVar(&f.application, "service-principal", false, "sign in as an application, by AZURE_CLIENT_ID and AZURE_CLIENT_SECRET")
	return c
}

func logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "Forget the sign-in of castellan login", Example: "  castellan logout", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			file, err := sessionFile()
			if err != nil {
				return err
			}
			if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		},
	}
}

func (f loginFlags) run(c *cobra.Command) error {
	s, err := f.find()
	if err != nil {
		return err
	}
	h, err := s.client()
	if err != nil {
		return err
	}
	ctx := c.Context()
	if f.server != "" {
		if err := s.learn(ctx, h); err != nil {
			return err
		}
	}
	if f.application {
		err = s.loginApplication(ctx, h)
	} else {
		if old, err := loadSession(); err == nil && old.ARM == s.ARM && old.Tenant == s.Tenant {
			s.Claims = old.Claims
		}
		err = s.loginPerson(ctx, h, func(text string) { fmt.Fprintln(c.ErrOrStderr(), plain(text)) })
	}
	if err != nil {
		return err
	}
	if err := s.save(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "Signed in to %s, tenant %s.\n", s.ARM, s.Tenant)
	return err
}

// find is a session that nobody is signed in to yet.
func (f loginFlags) find() (*session, error) {
	s := &session{Tenant: f.tenant}
	if s.Tenant == "" {
		s.Tenant = os.Getenv("AZURE_TENANT_ID")
	}
	ca := f.ca
	if f.server == "" {
		r, err := readReady(f.data)
		if err != nil {
			return nil, fmt.Errorf("%w; or name a server with --server", err)
		}
		s.ARM, s.Graph, s.Proxy, s.Subscription = r.ARM, r.Graph, r.Proxy, r.SubscriptionID
		if s.Tenant == "" {
			s.Tenant = r.TenantID
		}
		ca = r.CAFile
	} else {
		u, err := url.Parse(strings.TrimRight(f.server, "/"))
		if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil {
			return nil, fmt.Errorf("--server is %q; it must be https:// and a host", f.server)
		}
		if s.Tenant == "" {
			return nil, errors.New("--server needs a tenant: --tenant, or AZURE_TENANT_ID")
		}
		s.ARM, s.Proxy = u.String(), f.proxy
	}
	if ca != "" {
		b, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("reading the server's certificate authority: %w", err)
		}
		s.CA = string(b)
	}
	return s, nil
}

// learn asks the server where its Graph is.
func (s *session) learn(ctx context.Context, h *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, "GET", s.ARM+"/metadata/endpoints?api-version=2015-01-01", nil)
	if err != nil {
		return err
	}
	resp, err := h.Do(req)
	if err != nil {
		return fmt.Errorf("%s can't be reached (does it need --proxy and --ca?): %w", s.ARM, err)
	}
	defer resp.Body.Close()
	var m struct {
		Graph string `json:"graphEndpoint"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 1<<20)).Decode(&m); err != nil || !strings.HasPrefix(m.Graph, "https://") {
		return fmt.Errorf("%s is no Castellan: it does not say where its Graph is", s.ARM)
	}
	s.Graph = strings.TrimRight(m.Graph, "/")
	return nil
}

func (s *session) loginApplication(ctx context.Context, h *http.Client) error {
	id, secret := os.Getenv("AZURE_CLIENT_ID"), os.Getenv("AZURE_CLIENT_SECRET")
	if id == "" || secret == "" {
		return errors.New("--service-principal needs AZURE_CLIENT_ID and AZURE_CLIENT_SECRET in the environment")
	}
	s.Client = id
	for _, base := range []string{s.Graph, s.ARM} {
		if err := s.ask(ctx, h, base, url.Values{"grant_type": {"client_credentials"}, "client_secret": {secret}}); err != nil {
			return err
		}
	}
	return nil
}

// loginPerson begins a sign-in by a code, tells it, and waits for it.
func (s *session) loginPerson(ctx context.Context, h *http.Client, tell func(string)) error {
	s.Client = commandLine
	var d struct {
		Code     string `json:"device_code"`
		Message  string `json:"message"`
		Interval int    `json:"interval"`
	}
	if err := s.postForm(ctx, h, "/oauth2/v2.0/devicecode", url.Values{"client_id": {s.Client}, "scope": {s.Graph + "/.default offline_access"}, "claims": {able(s.Claims)}}, &d); err != nil {
		return err
	}
	tell(d.Message)
	every := time.NewTicker(time.Duration(max(d.Interval, 1)) * time.Second)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-every.C:
		}
		err := s.ask(ctx, h, s.Graph, url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {d.Code}})
		if p, ok := errors.AsType[problem](err); ok && (p.code == "authorization_pending" || p.code == "slow_down") {
			continue
		}
		s.Claims = ""
		return err
	}
}
