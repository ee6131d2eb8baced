package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
)

// as is a call of a management client by somebody.
type as func(who azcore.TokenCredential) error

// by is a call of the client that of makes for somebody.
func by[C any](of func(azcore.TokenCredential) (C, error), do func(C) error) as {
	return func(who azcore.TokenCredential) error {
		c, err := of(who)
		if err != nil {
			return err
		}
		return do(c)
	}
}

// subject is what calls are about; look says how it is now.
type subject struct {
	*run
	client string
	look   func() (string, error)
}

// about is a subject that the administrator's client looks at.
func about[C any](r *run, client string, of func(azcore.TokenCredential) (C, error), look func(C) (string, error)) subject {
	return subject{r, client, func() (string, error) {
		c, err := of(r.admin)
		if err != nil {
			return "", err
		}
		return look(c)
	}}
}

// reads is a call that only looks.
func (s subject) reads(name string, do as) { s.ok(s.client+"."+name, do(s.admin)) }

// changes is a call that changes what look says: the Reader of the group is refused it and
// nothing is other than before; then the administrator does it, and something is.
func (s subject) changes(name string, do as) {
	before, err := s.look()
	if err != nil {
		s.ok(s.client+"."+name, err)
		return
	}
	s.refused("a Reader's "+s.client+"."+name, do(s.reader), "AuthorizationFailed")
	now, err := s.look()
	if err == nil && now != before {
		err = fmt.Errorf("what was refused was done: %s became %s", before, now)
	}
	if err == nil {
		err = do(s.admin)
	}
	if err == nil {
		now, err = s.look()
	}
	if err == nil && now == before {
		err = fmt.Errorf("nothing came of it: %s", now)
	}
	s.ok(s.client+"."+name, err)
}

// said is whether a call was answered as one hopes, whatever the answer.
func said[T any](_ T, err error) error { return err }

// ended waits until a long operation is over. The runner's own limit is its end.
func ended[T any](p *runtime.Poller[T], err error) error {
	if err != nil {
		return err
	}
	return said(p.PollUntilDone(context.Background(), fast))
}

// all is every page of a list, as text.
func all[T any](pages *runtime.Pager[T]) (string, error) {
	var out strings.Builder
	for pages.More() {
		page, err := pages.NextPage(context.Background())
		if err != nil {
			return "", err
		}
		if err := json.NewEncoder(&out).Encode(page); err != nil {
			return "", err
		}
	}
	return out.String(), nil
}

// holds fails unless the list has all of wanted.
func holds[T any](pages *runtime.Pager[T], wanted ...string) error {
	list, err := all(pages)
	for _, w := range wanted {
		if err == nil && !strings.Contains(list, w) {
			err = fmt.Errorf("%s is not in %.300s", w, list)
		}
	}
	return err
}
