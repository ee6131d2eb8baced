// Package demo runs the main job and explains it as it goes: from sign-in to a
// trained model, and to what is refused on the way.
//
// It is a client like any other: everything happens over TLS through the
// platform's doors. Only the audit log's tail is read in the process itself.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"castellan/internal/app"
)

// Config is how the demo is run.
type Config struct {
	Data string    // data folder; a new temporary one if empty
	Out  io.Writer // where it explains itself
}

// demo is one run of the demo and what it has learnt so far.
type demo struct {
	out  io.Writer
	edge *app.Edge
	http *http.Client
	step int

	admin, scientist, reader, stranger session
	storage, vaultURL                  string
	workspace                          workspace
	job                                string
	code                               string
	turnedAway                         int
}

// Run runs the demo. It returns nil only if every step held.
func Run(ctx context.Context, cfg Config) (err error) {
	dir := cfg.Data
	if dir == "" {
		if dir, err = os.MkdirTemp("", "castellan-demo-"); err != nil {
			return err
		}
		dir = filepath.Join(dir, "data")
	}
	began := time.Now()
	d := &demo{out: cfg.Out}
	d.say("Castellan: a private Azure Machine Learning. This runs the main job, in the folder\n%s, for real.", dir)
	a, err := app.New(ctx, app.Config{Data: dir, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	if d.edge, err = app.Listen(a, "127.0.0.1:0", "127.0.0.1:0"); err != nil {
		return err
	}
	if _, err := d.edge.Ready(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	a.Run(ctx)
	served := make(chan error, 1)
	go func() { served <- d.edge.Serve(ctx) }()
	defer func() { cancel(); err = errors.Join(err, <-served) }()
	d.http = d.edge.Client()

	for _, s := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"The platform starts", d.start},
		{"Four people sign in", d.people},
		{"The administrator makes a workspace", d.makeWorkspace},
		{"The workspace has an identity of its own", d.showIdentity},
		{"Roles and a compute cluster", d.rolesAndCompute},
		{"The data scientist trains a model", d.train},
		{"What the run left behind", d.results},
		{"Six things are refused", d.refusals},
		{"The audit log", d.audit},
	} {
		d.step++
		fmt.Fprintf(d.out, "\n%d. %s\n", d.step, s.title)
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("step %d (%s): %w", d.step, strings.ToLower(s.title), err)
		}
	}
	fmt.Fprintf(d.out, `
All of it held, in %.1f s. The folder stays. To keep the platform running:

  castellan up --data %s        (from the source tree: go run ./cmd/castellan up --data %s)

  Resource Manager, sign-in, ML   %s
  the workspace's MLflow          %s
`, time.Since(began).Seconds(), dir, dir, a.Site.Base(), d.workspace.tracking(a.Site.Base()))
	return nil
}

// say prints a line or more, indented.
func (d *demo) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	fmt.Fprintln(d.out, "   "+strings.ReplaceAll(text, "\n", "\n   "))
}

func (d *demo) start(context.Context) error {
	s := d.edge.App.Site
	d.say("Tenant %s, subscription %s.", s.Tenant, s.Subscription)
	d.say("Everything in the folder is encrypted; the root key lies outside, in %s.root-key.", d.edge.App.Data)
	d.say("TLS on %s with certificates of its own authority; clients come through the proxy %s.", d.edge.Listen, d.edge.Proxy)
	return nil
}
