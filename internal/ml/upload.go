package ml

import (
	"bytes"
	"context"
	"net/http"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// startUpload gives who may write a version a fresh container to upload to, and
// a signature for it that is good for an hour. Asked again by the same caller,
// it gives the same container.
func (s *Service) startUpload(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(writeCodeVersion)
	if err != nil {
		return err
	}
	body, err := resource.ReadBody(w, r)
	if err != nil {
		return err
	}
	var ask struct {
		ID   string `json:"pendingUploadId"`
		Type string `json:"pendingUploadType" arm:"only=|None|TemporaryBlobReference"`
	}
	if len(bytes.TrimSpace(body)) > 0 {
		if err := arm.Decode(body, &ask); err != nil {
			return err
		}
	}
	ws, err := s.load(r.Context(), id.Parent().Parent())
	if err != nil {
		return err
	}
	container, err := s.uploadContainer(r.Context(), g, ws, id)
	if err != nil {
		return err
	}
	if err := s.Blobs.Ensure(r.Context(), Access{As: ws.self()}, ws.StorageAccount.ID, container); err != nil {
		return err
	}
	sas, err := s.Accounts.Sign(r.Context(), ws.self(), ws.StorageAccount.ID, container, "racwl", s.Now().Add(time.Hour))
	if err != nil {
		return err
	}
	uri := s.Site.BlobURL(ws.StorageAccount.Name()) + container
	gate.WriteJSON(w, http.StatusOK, map[string]any{
		"pendingUploadId": container, "pendingUploadType": "TemporaryBlobReference",
		"blobReferenceForConsumption": map[string]any{
			"blobUri": uri, "storageAccountArmId": ws.StorageAccount.String(),
			"credential": map[string]any{"credentialType": "SAS", "sasUri": uri + "?" + string(sas.Reveal())},
		},
	})
	return nil
}

// uploadContainer is the container that the caller uploads this version to.
func (s *Service) uploadContainer(ctx context.Context, g gate.Grant, w workspace, version arm.ID) (container string, err error) {
	if err := checkName(version.Parent().Name()); err != nil {
		return "", err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		d, err := resource.Load(tx, version)
		if err != nil {
			return err
		}
		if d != nil {
			return arm.Errorf(arm.Conflict, "version %s is there already and can't be changed; make another", version.Name())
		}
		key := "version|" + version.Key() + "|" + g.Caller().Object
		b, err := tx.Get(uploads, key)
		if err != nil {
			return err
		}
		if container = string(b); container != "" {
			return nil
		}
		container = "upload-" + arm.NewUUID()
		if err := tx.Put(uploads, key, []byte(container)); err != nil {
			return err
		}
		return tx.Put(uploads, "container|"+w.StorageAccount.Key()+"|"+container, []byte(w.workspaceInner.ID))
	})
	return container, err
}
