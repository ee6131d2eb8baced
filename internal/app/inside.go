package app

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/server"
	"castellan/internal/store"
)

// edge serves the platform on a listener that lies inside a sandbox, until the
// sandbox ends: by the same names, with the same doors. Requests that come by it
// are known to come out of that sandbox.
func (a *App) edge(sandbox string, l net.Listener) error {
	srv := a.Handler.Server()
	srv.BaseContext = func(net.Listener) context.Context { return gate.From(context.Background(), sandbox) }
	err := srv.Serve(tls.NewListener(l, a.CA.TLS()))
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// proxy serves a CONNECT proxy to the edge inside a sandbox that has no names of
// its own.
func (a *App) proxy(sandbox string, l net.Listener) error {
	inner := server.NewHanded(l.Addr())
	served := make(chan error, 1)
	go func() { served <- a.edge(sandbox, inner) }()
	err := (&server.Proxy{Site: a.Site, Edge: inner.Hand}).Serve(l)
	_ = inner.Close() // it only ends Accept
	return errors.Join(err, <-served)
}

// names are the host names that a tenant's jobs may know of: the platform's, and
// those of the tenant's own vaults and accounts.
func (a *App) names(tenant string) []string {
	out := []string{a.Site.Host(), a.Site.GraphHost()}
	for _, sub := range a.Site.Tenancy.Subscriptions(tenant) {
		out = append(out, a.namesIn(arm.MustID("/subscriptions/"+sub))...)
	}
	return out
}

func (a *App) namesIn(sub arm.ID) (out []string) {
	err := a.db.View(context.Background(), func(tx *store.Tx) error {
		for typ, hosts := range map[string]func(string) []string{
			"Microsoft.KeyVault/vaults": func(n string) []string { return []string{n + "." + a.Site.VaultSuffix()} },
			"Microsoft.Storage/storageAccounts": func(n string) []string {
				return []string{n + ".blob." + a.Site.StorageSuffix(), n + ".dfs." + a.Site.StorageSuffix(), n + ".file." + a.Site.StorageSuffix()}
			},
		} {
			docs, err := resource.List(tx, typ, sub, "", 0)
			if err != nil {
				return err
			}
			for _, d := range docs {
				out = append(out, hosts(d.Name)...)
			}
		}
		return nil
	})
	if err != nil {
		a.Log.Error("the host names for a sandbox were not read", "error", err)
	}
	return out
}
