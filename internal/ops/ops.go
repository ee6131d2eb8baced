// Package ops makes the world follow a resource, again until it does.
//
// A PUT of a kind that has Apply keeps an operation in its own transaction and
// is answered. The Runner then applies what is kept: it reads the wish, lets
// the kind take its steps, and records the end. What was under way when the
// process died is applied again at the next start, so every Apply is safe to
// repeat.
package ops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Limits of one operation.
const (
	maxTries  = 8
	firstWait = 250 * time.Millisecond // doubled at every try
	atOnce    = 4                      // operations applied at the same time
	oneApply  = 30 * time.Minute       // the longest that one Apply may take
)

// Runner applies operations. The zero value of every field but Server is fine.
type Runner struct {
	Server *resource.Server
	Log    *slog.Logger // for operators; nothing is logged if nil

	once  sync.Once
	wake  chan struct{}
	mu    sync.Mutex // guards busy
	busy  map[string]bool
	slots chan struct{}
}

func (r *Runner) init() {
	r.once.Do(func() {
		r.wake = make(chan struct{}, 1)
		r.busy = map[string]bool{}
		r.slots = make(chan struct{}, atOnce)
		if r.Log == nil {
			r.Log = slog.New(slog.DiscardHandler)
		}
	})
}

// Wake says that there may be something to do. It never waits.
func (r *Runner) Wake() {
	r.init()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run applies operations until ctx is done, and returns when none is under way.
func (r *Runner) Run(ctx context.Context) error {
	r.init()
	var wg sync.WaitGroup
	defer wg.Wait()
	r.Wake()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		}
		open, err := r.open(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("reading the operations: %w", err)
		}
		for _, op := range open {
			if !r.take(op) {
				continue
			}
			wg.Add(1)
			go func() {
				defer wg.Done()
				defer r.leave(op)
				if k := r.Server.Kind(op.Resource.Type()); k != nil && k.Waits {
					r.apply(ctx, op)
					return
				}
				select {
				case r.slots <- struct{}{}:
					defer func() { <-r.slots }()
					r.apply(ctx, op)
				case <-ctx.Done():
				}
			}()
		}
	}
}

func (r *Runner) open(ctx context.Context) (out []resource.Operation, err error) {
	err = r.Server.DB.View(ctx, func(tx *store.Tx) (err error) {
		out, err = resource.Open(tx)
		return err
	})
	return out, err
}

// take claims the operation's resource, so that one resource is applied by one
// operation at a time.
func (r *Runner) take(op resource.Operation) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[op.Resource.Key()] {
		return false
	}
	r.busy[op.Resource.Key()] = true
	return true
}

func (r *Runner) leave(op resource.Operation) {
	r.mu.Lock()
	delete(r.busy, op.Resource.Key())
	r.mu.Unlock()
	r.Wake() // another operation may have waited for the resource
}

// apply tries until the operation ends or ctx does.
func (r *Runner) apply(ctx context.Context, op resource.Operation) {
	wait := firstWait
	for n := 1; ; n++ {
		err := r.try(ctx, op)
		if ctx.Err() != nil {
			return // the next start resumes it
		}
		var final *arm.Error
		switch {
		case err == nil:
			r.end(ctx, op, resource.Succeeded, "", "")
			return
		case errors.As(err, &final) && final.Code != arm.Internal:
			r.end(ctx, op, resource.Failed, final.Code, final.Message)
			return
		case n == maxTries:
			r.Log.Error("an operation failed", "operation", op.ID, "resource", op.Resource.String(), "error", err)
			r.end(ctx, op, resource.Failed, arm.Internal, "The operation could not be carried out.")
			return
		}
		select {
		case <-time.After(wait):
			wait *= 2
		case <-ctx.Done():
			return
		}
	}
}

// try lets the kind apply its resource as it is now.
func (r *Runner) try(ctx context.Context, op resource.Operation) (err error) {
	ctx, cancel := context.WithTimeout(ctx, oneApply)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("applying %s panicked: %v", op.Resource, p)
		}
	}()
	var d *resource.Doc
	if err := r.Server.DB.View(ctx, func(tx *store.Tx) (err error) {
		d, err = resource.Load(tx, op.Resource)
		return err
	}); err != nil {
		return err
	}
	if d == nil || d.Instance != op.Instance {
		return arm.Errorf("ResourceDeleted", "the resource was deleted before the operation ended")
	}
	k := r.Server.Kind(d.Type)
	if k == nil || k.Apply == nil {
		return arm.Errorf(arm.Unsupported, "this version of the program can't apply resources of type %s", d.Type)
	}
	return k.Apply(ctx, d)
}

func (r *Runner) end(ctx context.Context, op resource.Operation, status string, code arm.Code, message string) {
	if err := r.Server.DB.Do(ctx, func(tx *store.Tx) error {
		return r.Server.End(tx, op, status, code, message)
	}); err != nil && ctx.Err() == nil {
		r.Log.Error("an operation's end was not recorded; it will be applied again at the next start", "operation", op.ID, "error", err)
	}
}
