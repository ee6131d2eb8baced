package ml

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// A job with UserIdentity acts as the person who submitted it: its data is read
// and written as them, and its code gets their tokens. What runs is what they
// submitted: command and code cannot be changed since, and the code is held
// against its digest before anything of theirs is lent.

// asUser reports whether the job runs with its submitter's identity.
func (p jobProps) asUser() bool {
	return p.Identity != nil && strings.EqualFold(p.Identity.Type, "UserIdentity")
}

// lends is the sign-in by which a caller may lend their identity to a job. Only a
// person with a sign-in of their own may: not an application, and not a job
// that was itself lent somebody's.
func lends(c arm.Caller) (arm.SignIn, error) {
	switch {
	case c.Kind != arm.User:
		return arm.SignIn{}, arm.Errorf(arm.BadRequest, "identity.identityType is UserIdentity, but %s is no person: an application's job uses Managed, the cluster's identity", c.Name)
	case c.Lease != nil || c.SignIn.Family == "":
		return arm.SignIn{}, arm.Errorf(arm.BadRequest, "identity.identityType is UserIdentity, but the job is not submitted by a sign-in of %s's own: by a job, a deployment or a key nobody's identity is lent on", c.Name)
	}
	return c.SignIn, nil
}

// lender is the person who lent the job their identity. They must still be able
// to sign in, and still have the right to submit the job.
func (k *work) lender(ctx context.Context) (arm.Caller, error) {
	c, err := k.s.People.Lender(*k.lent)
	if err != nil {
		return arm.Caller{}, err
	}
	g, err := k.s.Gate.Admit(ctx, c, writeJob, gate.Target{ID: k.open.ID, Item: "lending an identity to " + k.run})
	if err != nil {
		return arm.Caller{}, err
	}
	return c, g.Close(ctx, nil)
}

// mintLent is what minting a token of a job's submitter asks for.
var mintLent = arm.NewDataAction("Castellan.Identity/users/lend/action", "get a token of a person who lent a job their identity")

// onBehalf mints for the job's code, while the job runs.
func (k *work) onBehalf(ctx context.Context, audience string) (token arm.Secret, client string, expires time.Time, err error) {
	if _, alive := k.s.live.find(k.w.Doc.ID, k.run); !alive {
		return token, "", expires, arm.Errorf(arm.BadRequest, "the job is over")
	}
	if _, err := k.lender(ctx); err != nil {
		return token, "", expires, err
	}
	as := k.s.system("giving the job "+k.run+" a token of who submitted it", k.open.ID, mintLent)
	as.Lease.Item = k.lent.ID
	token, client, expires, err = k.s.People.Token(ctx, as, k.open.ID, k.lent.ID, audience)
	k.hide.hide(string(token.Reveal()))
	return token, client, expires, err
}

// watch is how often a running job's lender is looked at.
const watch = time.Second

// whileLent runs a task, and ends it when the person who lent it their identity
// is no longer there to answer for it.
func (k *work) whileLent(ctx context.Context, run func(context.Context) (Ended, error)) (Ended, error) {
	if k.lent == nil {
		return run(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		tick := time.NewTicker(watch)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if _, err := k.s.People.Lender(*k.lent); err != nil {
				cancel(withdrawn{err})
			}
		}
	})
	end, err := run(ctx)
	cause := context.Cause(ctx)
	cancel(nil)
	watcher.Wait()
	if w, ok := errors.AsType[withdrawn](cause); ok {
		return end, arm.Errorf(arm.Forbidden, "The job was ended, for it ran with the identity of who submitted it: %s.", message(w.error))
	}
	return end, err
}

// withdrawn is why a job's identity was taken from it.
type withdrawn struct{ error }

// message is what an error says to people.
func message(err error) string {
	_, m := gate.PublicError(err)
	return m
}
