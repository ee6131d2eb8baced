// Package server is the edge: TLS, one handler for the planes of all protocols, and the proxy that leads to it.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// Limits of one request and one connection.
const (
	headerTime = 10 * time.Second
	headerSize = 64 << 10
	idleTime   = 2 * time.Minute
)

// Handler tells the planes of an installation apart by host and path, and
// carries each request through the gate.
type Handler struct {
	site   arm.Site
	gate   *gate.Gate
	planes []*gate.Plane
	log    *slog.Logger

	patience time.Duration // with slow clients
}

// New is the handler of these planes; the first whose host fits and that knows
// the path gets the request. Where none does, the first says so that has doors
// whose paths begin alike, else the first whose host fits. New refuses routes that name neither a permission nor a reason, or both.
func New(site arm.Site, g *gate.Gate, planes []*gate.Plane, log *slog.Logger) (*Handler, error) {
	names := map[string]arm.Action{}
	for _, p := range planes {
		if p.Refuse == nil {
			return nil, fmt.Errorf("the plane %s has no way to refuse", p.Name)
		}
		for _, rt := range p.Routes {
			if !rt.Valid() {
				return nil, fmt.Errorf("the route %s %s of plane %s must name a permission or a reason, and not both", rt.Method, rt.Pattern, p.Name)
			}
			if rt.Action.IsZero() {
				continue
			}
			key := fmt.Sprint(rt.Action.Key(), rt.Action.Data())
			if old, twice := names[key]; twice && old.Name() != rt.Action.Name() {
				return nil, fmt.Errorf("one action has the names %s and %s", old.Name(), rt.Action.Name())
			}
			names[key] = rt.Action
		}
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Handler{site: site, gate: g, planes: planes, log: log, patience: patience}, nil
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := arm.NewUUID()
	w, r = h.pace(w, r)
	hd := w.Header()
	hd.Set("x-ms-request-id", id)
	hd.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	hd.Set("X-Content-Type-Options", "nosniff")
	hd.Set("Cache-Control", "no-store")
	if c := r.Header.Get("x-ms-client-request-id"); len(c) <= 128 {
		hd.Set("x-ms-client-request-id", c)
	}
	p, rt, v, err := h.route(r)
	if p != nil && p.Pass != nil { // Resource Manager
		hd.Set("x-ms-correlation-request-id", id)
		hd.Set("x-ms-routing-request-id", strings.ToUpper(h.site.Location)+":"+time.Now().UTC().Format("20060102T150405Z")+":"+id)
	}
	defer h.recovered(w, r, p, id)
	if err != nil {
		if p == nil {
			http.Error(w, "there is nothing here", http.StatusMisdirectedRequest)
			return
		}
		p.Refuse(w, r, err)
		return
	}
	h.gate.Serve(p, rt, v, w, r)
}

// recovered answers for a panic, which must not end the process nor tell the
// client anything.
func (h *Handler) recovered(w http.ResponseWriter, r *http.Request, p *gate.Plane, id string) {
	x := recover()
	if x == nil {
		return
	}
	if x == http.ErrAbortHandler {
		panic(x)
	}
	h.log.Error("a request panicked", "id", id, "method", r.Method, "host", r.Host, "panic", fmt.Sprint(x), "stack", string(debug.Stack()))
	p.Refuse(w, r, &arm.Error{Code: arm.Internal, Message: "The server met an unexpected condition."})
}

// route finds the plane and the door of a request. The plane is nil if no plane
// has the host.
func (h *Handler) route(r *http.Request) (*gate.Plane, gate.Route, gate.Vars, error) {
	host := strings.ToLower(r.Host)
	if n, _, err := net.SplitHostPort(host); err == nil {
		host = n
	}
	if host == h.site.Host() {
		unescapeScope(r)
	}
	seg, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	var first *gate.Plane
	other, near := false, false
	for _, p := range h.planes {
		if p.Host != nil && !p.Host(host) {
			continue
		}
		if first == nil {
			first = p
		}
		if !near && p.Begins(seg) {
			first, near = p, true
		}
		rt, v, found, err := p.Find(r)
		if err != nil {
			return p, gate.Route{}, nil, err
		}
		if rt.Method != "" {
			return p, rt, v, nil
		}
		if found && !other {
			first, other = p, true
		}
	}
	if first == nil {
		return nil, gate.Route{}, nil, errors.New("no plane")
	}
	if first.Fold && unslash(r) {
		return h.route(r)
	}
	return first, gate.Route{}, nil, h.nothing(first, r, other)
}

// unslash takes the slash from the end of what a GET asks for, where the Go SDK lists
// deployments, or one of the two that a path begins with where clients put an id with
// its own behind one: to Resource Manager they mean nothing. ok is false where none is.
func unslash(r *http.Request) (ok bool) {
	path := r.URL.EscapedPath()
	switch {
	case strings.HasPrefix(path, "//") && !strings.HasPrefix(path, "///"):
		path = path[1:]
	case r.Method == http.MethodGet && len(path) > 1 && strings.HasSuffix(path, "/") && !strings.HasSuffix(path, "//"):
		path = path[:len(path)-1]
	default:
		return false
	}
	plain, err := url.PathUnescape(path)
	r.URL.Path, r.URL.RawPath = plain, path
	return err == nil
}

// nothing is the error for a path that no door has. Nobody who is not signed in
// learns which paths there are.
func (h *Handler) nothing(p *gate.Plane, r *http.Request, other bool) error {
	if p.Who != nil {
		if _, err := p.Who(r); err != nil {
			return err
		}
	}
	if other {
		return arm.Errorf(arm.MethodNotAllowed, "The method %s is not allowed on this path.", r.Method)
	}
	return &arm.Error{Code: "InvalidResourceType", Status: http.StatusNotFound, Message: "There is nothing at this path, or this version of the program does not serve it."}
}

// Server is an http.Server with the limits that every edge of the platform has.
func (h *Handler) Server() *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTime, MaxHeaderBytes: headerSize, IdleTimeout: idleTime,
		ErrorLog:    slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return gate.FromPeer(ctx, c.RemoteAddr()) },
	}
}

// Dial is a dialer to the listener at addr, whatever the name that is asked for.
func Dial(addr string) func(ctx context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}
}
