package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"castellan/internal/app"
	"castellan/internal/server"

	"github.com/spf13/cobra"
)

// upFlags are the flags of castellan up.
type upFlags struct {
	cfg           app.Config
	listen, proxy string
	cert, key     string // of the brought certificate
	acme, acmeCA  string // where other certificates come from
	json          bool
}

func up() *cobra.Command {
	var f upFlags
	c := &cobra.Command{
		Use:   "up",
		Short: "Serve the platform from a data folder",
		Long: `Serve the platform from a data folder, which is made at the first start
together with a directory, a subscription, a certificate authority, the root key
and one administrator, whose sign-in is printed once.

The root key encrypts all that the data folder holds. It lies in a file beside
the folder unless --root-key or --passphrase-file says otherwise: keep it apart
from the folder's backups, and keep it, for without it the folder is noise.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.Context(), c.OutOrStdout()) },
	}
	fl := c.Flags()
	fl.StringVar(&f.cfg.Data, "data", "", "data folder (default $XDG_DATA_HOME/castellan)")
	fl.StringVar(&f.listen, "listen", "127.0.0.1:8443", "address to serve TLS on")
	fl.StringVar(&f.proxy, "proxy", "", "address of the CONNECT proxy for clients (default: the host of --listen, port 8444, or a free port if --listen has port 0)")
	fl.StringVar(&f.cert, "tls-cert", "", "PEM file of a certificate of your own authority, with those that lead to it, for the names that it has; read again when it changes (default: the installation's own authority for all names)")
	fl.StringVar(&f.key, "tls-key", "", "PEM file of the key of --tls-cert, which only its owner may read")
	fl.StringVar(&f.acme, "acme-directory", "", "https URL of the directory of an authority that speaks ACME, for certificates of all names in place of the installation's own; it must reach --listen as port 443 of these names (tls-alpn-01), and its terms are agreed to")
	fl.StringVar(&f.acmeCA, "acme-ca", "", "PEM file of the roots by which --acme-directory is known (default: those of the system)")
	fl.StringVar(&f.cfg.Suffix, "suffix", "castellan.localhost", "base of all host names; fixed at the first start")
	fl.StringVar(&f.cfg.Location, "location", "local", "name of the one region; fixed at the first start")
	fl.StringVar(&f.cfg.RootKey, "root-key", "", "file of the root key, made if it is not there (default: the data folder's path with .root-key added); or 'pkcs11:token=T;object=KEY?module-path=/LIBRARY.so&pin-source=file:/PIN', a key in a PKCS #11 token that wraps it: AES of 256 bits or RSA, not extractable")
	fl.StringVar(&f.cfg.PassphraseFile, "passphrase-file", "", "file with a passphrase that the root key is made of, instead of --root-key")
	fl.StringVar(&f.cfg.Witness, "witness", "", "file outside of the data folder, best on another disk, that keeps the audit log's last checkpoint: a folder that was put back to an older state does not start against it")
	fl.IntVar(&f.cfg.AuditDays, "audit-days", 0, "prune what audit entries older than so many days say; their hashes stay (default: keep all)")
	fl.IntVar(&f.cfg.Throttle, "throttle", 100, "how many times Azure's limits a caller of Resource Manager has: those are 250 reads, 200 writes and 200 deletes at once and 25, 10 and 10 a second, for each caller and subscription")
	fl.IntVar(&f.cfg.VaultThrottle, "vault-throttle", 10, "how many times Azure's limits a key vault has: those are, in ten seconds, 20 keys that are made, 300 secrets that are set and 4000 other requests")
	fl.StringVar(&f.cfg.Scratch, "scratch", "", "folder of what jobs work on, wiped at each start (default: scratch in the data folder); on ext4 with the feature encrypt, or f2fs, each job's part of it has a key of its own, and on tmpfs it is on no disk")
	fl.BoolVar(&f.cfg.SealedScratch, "sealed-scratch", false, "do not start with a scratch folder that leaves on a disk what jobs had in it")
	fl.StringVar(&f.cfg.Issuers, "issuers", "", "file of settings about the issuers that federated credentials trust: a JSON object with caFile, loopback and keys (JWKS by issuer)")
	fl.StringVar(&f.cfg.OutsideVaults, "outside-vaults", "", "file of the key vaults outside of the installation whose keys may guard data: a JSON object with caFile and vaults, each with host, authority, tenants, and perhaps proxy, addresses (default: none)")
	fl.StringVar(&f.cfg.Sinks, "sinks", "", "file of the sinks that diagnostic settings may send logs to: a JSON object with sinks, each with name and syslog (tls://, tcp:// or udp://HOST:PORT) or otlp (a URL), and perhaps headers, caFile, certFile, keyFile, tenants, everything")
	fl.BoolVar(&f.json, "json", false, "print one JSON object a line; the first, when ready, says how to reach the server")
	return c
}

func (f upFlags) run(ctx context.Context, out io.Writer) (err error) {
	f.cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	if f.json {
		f.cfg.Log = slog.New(slog.NewJSONHandler(os.Stderr, nil))
	}
	if f.proxy, err = f.proxyAddress(); err != nil {
		return err
	}
	if f.acmeCA != "" && f.acme == "" || f.acme != "" && (f.cert != "" || f.key != "") {
		return errors.New("--acme-ca goes with --acme-directory, and that not with --tls-cert: one authority signs for all names")
	}
	var brought *server.Brought
	if f.cert != "" || f.key != "" {
		if brought, err = server.Bring(f.cert, f.key, f.cfg.Log); err != nil {
			return err
		}
	}
	a, err := app.New(ctx, f.cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	e, err := app.Listen(a, f.listen, f.proxy)
	if err != nil {
		return err
	}
	if brought != nil {
		e.Show(brought)
	}
	if f.acme != "" {
		certs, err := a.ACME(f.acme, f.acmeCA)
		if err != nil {
			return err
		}
		e.Show(certs)
	}
	a.Run(ctx)
	ready, err := e.Ready()
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- e.Serve(ctx) }()
	if err := f.tell(out, ready); err != nil {
		return err
	}
	return <-done
}

func (f upFlags) proxyAddress() (string, error) {
	if f.proxy != "" {
		return f.proxy, nil
	}
	host, port, err := net.SplitHostPort(f.listen)
	if err != nil {
		return "", fmt.Errorf("--listen is %q; it must be HOST:PORT, such as 127.0.0.1:8443", f.listen)
	}
	if port == "0" {
		return net.JoinHostPort(host, "0"), nil
	}
	return net.JoinHostPort(host, "8444"), nil
}

func (f upFlags) tell(out io.Writer, r app.Ready) error {
	if f.json {
		return json.NewEncoder(out).Encode(r)
	}
	fmt.Fprintf(out, `Castellan is ready.

  Resource Manager, sign-in, ML   %s
  Microsoft Graph                 %s
  tenant                          %s
  subscription                    %s
  certificate authority           %s

Clients reach it through its proxy, with no DNS and no root:

  export HTTPS_PROXY=%s

What each client needs besides: castellan setup clients --data %s
`, r.ARM, r.Graph, r.TenantID, r.SubscriptionID, r.CAFile, r.Proxy, filepath.Dir(r.CAFile))
	if r.Admin != nil {
		fmt.Fprintf(out, `
This is told once. Keep it now:

  administrator        %s
  one-time password    %s    (to be changed at the first sign-in, such as az login --use-device-code --tenant %s)
  for scripts          client id %s
                       client secret %s
`, r.Admin.UserName, r.Admin.Password, r.TenantID, r.Admin.ClientID, r.Admin.ClientSecret)
	}
	_, err := fmt.Fprintln(out, "\nStop with Ctrl-C.")
	return err
}
