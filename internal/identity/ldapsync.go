package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/ldap"
	"castellan/internal/store"
)

// A synchronisation holds what came of an LDAP directory against what it says
// now: people who are gone or disabled there are disabled, groups have the members that they have
// there. What can't be read to its end changes nothing.

const syncTable = "identity_ldap_syncs" // tenant|directory: how the last one went

// synced is how a synchronisation went.
type synced struct {
	At                                time.Time
	People, Groups, Disabled, Changed int
	Error                             string // what it was refused for, for administrators
}

// Beyond so many people at once, and more than half of all, a synchronisation
// does not disable: more likely somebody moved the directory's base.
const manyGone = 10

// syncDue runs the synchronisations that are due.
func (s *Service) syncDue(ctx context.Context) {
	for _, d := range s.due(ctx) {
		_, _ = s.synchronise(ctx, d, false) // it recorded how it went
	}
}

// due are the directories whose last synchronisation is long enough ago.
func (s *Service) due(ctx context.Context) (out []*LDAP) {
	for _, d := range find(s.index, func(x *index) (all []*LDAP) {
		for _, d := range x.ldaps {
			all = append(all, d)
		}
		return all
	}) {
		last, err := s.lastSync(ctx, d)
		if err == nil && !d.Disabled && d.Every > 0 && s.Now().Sub(last.At) >= time.Duration(d.Every)*time.Minute {
			out = append(out, d)
		}
	}
	return out
}

func (s *Service) lastSync(ctx context.Context, d *LDAP) (out synced, err error) {
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		out, _, err = store.GetJSON[synced](tx, syncTable, d.Tenant+"|"+d.ID)
		return err
	})
	return out, err
}

// errGone is why a synchronisation that would disable too many is not done.
var errGone = errors.New("more than half of the people are missing from the directory; ask for force if that is so")

// synchronise does one synchronisation and records how it went, also when it failed.
func (s *Service) synchronise(ctx context.Context, d *LDAP, force bool) (out synced, err error) {
	out, err = s.compareAll(ctx, d, force)
	if err == nil {
		return out, nil
	}
	out = synced{At: s.Now().UTC(), Error: reasonOf(err)}
	e := signIn{tenant: d.Tenant, name: d.Name, how: "ldap", grant: "synchronisation"}
	_ = s.note(ctx, e, problemf(80002, "temporarily_unavailable", "The directory was not synchronised: %s.", out.Error)) // the error is returned anyway
	keep := s.DB.Do(context.WithoutCancel(ctx), func(tx *store.Tx) error { return store.PutJSON(tx, syncTable, d.Tenant+"|"+d.ID, out) })
	return out, errors.Join(&arm.Error{Code: "DirectorySynchronizationFailed", Status: 502, Message: "The directory was not synchronised, and nothing was changed: " + out.Error + ".", Err: err}, keep)
}

// reasonOf tells an administrator of the tenant why, without what a library or
// a host said.
func reasonOf(err error) string {
	if errors.Is(err, errGone) {
		return errGone.Error()
	}
	what, _, _ := strings.Cut(err.Error(), ":")
	return printable(what)
}

func (s *Service) compareAll(ctx context.Context, d *LDAP, force bool) (out synced, err error) {
	c, err := s.ldapClient(d)
	if err != nil {
		return out, err
	}
	people, groups, err := c.Everybody(ctx)
	if err != nil {
		return out, err
	}
	err = s.DB.Do(ctx, func(tx *store.Tx) error {
		out = synced{At: s.Now().UTC(), People: len(people), Groups: len(groups)}
		ids, err := s.comparePeople(tx, d, people, force, &out)
		if err != nil {
			return err
		}
		if err := s.compareGroups(tx, d, groups, ids); err != nil {
			return err
		}
		return store.PutJSON(tx, syncTable, d.Tenant+"|"+d.ID, out)
	})
	return out, err
}

// comparePeople brings those up to date who signed in once, disables those who
// are gone, and tells who is who by DN.
func (s *Service) comparePeople(tx *store.Tx, d *LDAP, people []ldap.Person, force bool, out *synced) (map[string]string, error) {
	byID := map[string]ldap.Person{}
	for _, p := range people {
		if !p.Disabled {
			byID[p.ID] = p
		}
	}
	links, err := boundTo(tx, d.Tenant, d.issuer())
	if err != nil {
		return nil, err
	}
	ids := map[string]string{}
	var gone []string
	for _, l := range links {
		p, here := byID[l.Subject]
		if !here {
			gone = append(gone, l.User)
			continue
		}
		ids[ldap.Key(p.DN)] = l.User
		u, ok, err := fetch[*User](tx, d.Tenant, "user", l.User)
		if err != nil {
			return nil, err
		}
		if ok {
			if err := s.refresh(tx, d.host(), u, d.outsider(p)); err != nil {
				return nil, err
			}
		}
	}
	if len(gone) > manyGone && 2*len(gone) > len(links) && !force {
		return nil, errGone
	}
	for _, id := range gone {
		if err := s.depose(tx, d, id, out); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// depose disables a person whom the directory no longer has, and takes them out
// of its groups. The last administrator stays: nobody could make another.
func (s *Service) depose(tx *store.Tx, d *LDAP, id string, out *synced) error {
	if err := s.leaveOthers(tx, d, id, nil); err != nil {
		return err
	}
	u, ok, err := fetch[*User](tx, d.Tenant, "user", id)
	if err != nil || !ok || u.Disabled || u.Origin != d.host().origin() {
		return err
	}
	if err := s.lastAdmin(tx, d.Tenant, id); err != nil {
		if arm.CodeOf(err) != arm.BadRequest {
			return err
		}
		return s.tell(tx, d.host(), readProvider, id, "missing from "+d.Name+", but the last administrator")
	}
	u.Disabled, u.DisabledBy, u.Epoch = true, d.host().origin(), u.Epoch+1
	out.Disabled++
	if err := s.put(tx, u); err != nil {
		return err
	}
	return s.tell(tx, d.host(), updateUser, id, "disabled: missing from "+d.Name)
}

// compareGroups makes the mirrored groups what the directory says. One that it
// no longer has stays, empty, with the rights that it was given here.
func (s *Service) compareGroups(tx *store.Tx, d *LDAP, groups []ldap.Group, ids map[string]string) error {
	if d.GroupBase == "" {
		return nil
	}
	want := map[string]map[string]bool{} // by our group: its members
	for _, g := range groups {
		id, err := s.mirror(tx, d, g)
		if err != nil {
			return err
		}
		ids[ldap.Key(g.DN)], want[id] = id, map[string]bool{}
	}
	for _, g := range groups {
		id := ids[ldap.Key(g.DN)]
		for _, m := range g.Members {
			if member := ids[m]; member != "" && member != id {
				want[id][member] = true
			}
		}
	}
	all, err := store.ScanJSON[*Group](tx, objectTable, d.Tenant+"|group|", "", 0)
	if err != nil {
		return err
	}
	for _, g := range all {
		if g.Origin != d.host().origin() {
			continue
		}
		if err := s.haveMembers(tx, d, g.ID, want[g.ID]); err != nil {
			return fmt.Errorf("the members of %s: %w", g.ID, err)
		}
	}
	return nil
}

func (s *Service) haveMembers(tx *store.Tx, d *LDAP, group string, want map[string]bool) error {
	rows, err := tx.Scan(memberTable, d.Tenant+"|"+group+"|", "", 0)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if m := r.Key[strings.LastIndexByte(r.Key, '|')+1:]; !want[m] {
			if err := s.setMember(tx, d.host(), group, m, false); err != nil {
				return err
			}
		}
	}
	for m := range want {
		if err := s.setMember(tx, d.host(), group, m, true); err != nil {
			return err
		}
	}
	return nil
}
