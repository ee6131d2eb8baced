package identity

import (
	"context"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/store"
)

// Recovery says who is to administer a directory that has lost its administrators.
type Recovery struct {
	UserName   string // a person of the home tenant, made if they are not there
	ResetMFA   bool   // forget their other ways to prove themselves
	BreakGlass bool   // make it an account for emergencies, which no Conditional Access policy holds
}

// IsBreakGlass reports whether the person's account is for emergencies, as tx sees it.
func (s *Service) IsBreakGlass(tx *store.Tx, tenant, id string) (bool, error) {
	u, ok, err := fetch[*User](tx, tenant, "user", fold(id))
	return err == nil && ok && u.BreakGlass, err
}

// Recover makes a person Global Administrator, enabled, with a password that is
// told here alone and must be changed; also is done in the same transaction. It
// asks for no grant: whoever calls it opened the store with the root key, and
// nobody is served meanwhile.
func (s *Service) Recover(ctx context.Context, r Recovery, also func(tx *store.Tx, object string) error) (password arm.Secret, err error) {
	t := s.index.tenantOf(s.Home())
	if t == nil {
		return password, arm.Errorf(arm.NotFound, "the installation has no directory yet")
	}
	if err := checkUPN(r.UserName, t.Domain); err != nil {
		return password, err
	}
	text, now := letters(20), s.Now().UTC()
	hash, err := s.hasher.hash(ctx, text)
	if err != nil {
		return password, err
	}
	err = s.DB.Do(ctx, func(tx *store.Tx) error {
		u, ok, err := named[*User](tx, "upn|"+fold(r.UserName))
		if err != nil {
			return err
		}
		if !ok {
			u = &User{ID: arm.NewUUID(), Tenant: t.ID, UPN: r.UserName, Name: "Recovered administrator", Created: now}
		}
		u.BreakGlass = u.BreakGlass || r.BreakGlass
		u.Password, u.MustChange, u.Disabled, u.Epoch = hash, true, false, u.Epoch+1
		if err := s.put(tx, u); err != nil {
			return err
		}
		if err := s.locks.passIn(tx, u.UPN); err != nil {
			return err
		}
		if r.ResetMFA {
			if err := forgetMethods(tx, u.ID); err != nil {
				return err
			}
		}
		if err := s.empower(tx, RoleAssignment{Tenant: t.ID, Principal: u.ID, Role: globalAdministrator, Created: now}); err != nil {
			return err
		}
		if err := also(tx, u.ID); err != nil {
			return err
		}
		reason := "recovered with the root key"
		if r.ResetMFA {
			reason += "; the other ways to prove themselves were forgotten"
		}
		if r.BreakGlass {
			reason += "; an account for emergencies from now on"
		}
		return s.Log.Append(tx, audit.Entry{Tenant: t.ID, Caller: "system:recover", Credential: "system", Action: "microsoft.directory/users/recover", Target: tenantID(t.ID).String(),
			Item: u.ID, Decision: "allowed", Reason: reason, Outcome: "ok"})
	})
	return arm.NewSecret([]byte(text)), err
}
