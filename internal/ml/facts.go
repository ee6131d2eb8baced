package ml

import (
	"strings"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Facts is what other services must know of a workspace.
type Facts struct {
	ID        arm.ID
	UID       string // its GUID (properties.workspaceId)
	Account   arm.ID // its storage account
	Container string // the container of the account that artifacts lie in
	Identity  string // object id of the workspace's identity
}

// Facts are those of the workspace id; ok is false if there is none. They need
// no grant, for they open nothing.
func (s *Service) Facts(tx *store.Tx, id arm.ID) (f Facts, ok bool, err error) {
	d, err := resource.Load(tx, id)
	if err != nil || d == nil || !strings.EqualFold(d.Type, workspaceType) {
		return Facts{}, false, err
	}
	w, err := s.readWorkspace(d)
	return Facts{ID: d.ID, UID: w.workspaceInner.ID, Account: w.StorageAccount.ID, Container: artifactContainer, Identity: w.principal()}, err == nil, err
}
