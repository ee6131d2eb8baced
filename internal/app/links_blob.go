package app

import (
	"bytes"
	"context"
	"io"
	"time"

	"castellan/internal/arm"
	"castellan/internal/blob"
	"castellan/internal/gate"
	"castellan/internal/ml"
	"castellan/internal/monitor"
	"castellan/internal/tracking"
)

// mlBlobs is the blob data plane for ml, as whoever it says.
type mlBlobs struct{ *App }

// caller is who does one action with a container or a blob in it.
func (l mlBlobs) caller(ctx context.Context, by ml.Access, in arm.ID, account arm.ID, name string, act arm.Action) (arm.Caller, error) {
	switch {
	case !by.SAS.IsZero():
		return l.blob.SASCaller(ctx, in, name, act, by.SAS)
	case !by.Key.IsZero():
		return l.blob.KeyCaller(account, by.Key)
	}
	return l.whole(by.As)
}

func mlDo[T any](ctx context.Context, l mlBlobs, by ml.Access, account arm.ID, in, name string, act arm.Action, do func(gate.Grant) (T, error)) (out T, err error) {
	id, err := container(account, in)
	if err != nil {
		return out, err
	}
	if by.Files {
		id, act = blob.ShareID(account, in), onFiles[act.Name()]
	}
	as, err := l.caller(ctx, by, id, account, name, act)
	if err != nil {
		return out, err
	}
	if err := l.blob.Trusts(as, account); err != nil {
		return out, err
	}
	if by.Files {
		name = blob.FoldPath(name)
	}
	return admit(ctx, l.gate, as, act, gate.Target{ID: id, Item: name}, do)
}

// onFiles are the actions on files that stand for those on blobs.
var onFiles = map[string]arm.Action{blob.BlobRead.Name(): blob.FileRead, blob.BlobWrite.Name(): blob.FileWrite, blob.ContainerWrite.Name(): blob.ShareWrite}

func (l mlBlobs) Ensure(ctx context.Context, by ml.Access, account arm.ID, in string) error {
	_, err := mlDo(ctx, l, by, account, in, "", blob.ContainerWrite, func(g gate.Grant) (struct{}, error) {
		if by.Files {
			return struct{}{}, l.blob.EnsureShare(ctx, g)
		}
		return struct{}{}, l.blob.EnsureContainer(ctx, g)
	})
	return err
}

func (l mlBlobs) List(ctx context.Context, by ml.Access, account arm.ID, in, prefix string, limit int) ([]ml.Blob, error) {
	return mlDo(ctx, l, by, account, in, "", blob.BlobRead, func(g gate.Grant) (out []ml.Blob, err error) {
		if by.Files {
			files, err := l.blob.Files(ctx, g, prefix, limit+1)
			for _, f := range files {
				out = append(out, ml.Blob{Name: f.Name, Size: f.Size})
			}
			if len(out) > limit {
				err = tooMany(limit, prefix)
			}
			return out, err
		}
		for marker := ""; ; {
			page, err := l.blob.List(ctx, g, prefix, "", marker, 1000)
			if err != nil {
				return nil, err
			}
			for _, b := range page.Items {
				out = append(out, ml.Blob{Name: b.Name, Size: b.Size})
			}
			if len(out) > limit {
				return nil, tooMany(limit, prefix)
			}
			if marker = page.Next; marker == "" {
				return out, nil
			}
		}
	})
}

func tooMany(limit int, prefix string) error {
	return arm.Errorf(arm.BadRequest, "there are more than %d blobs below %s", limit, prefix)
}

func (l mlBlobs) Open(ctx context.Context, by ml.Access, account arm.ID, in, name string) (io.ReadCloser, error) {
	return mlDo(ctx, l, by, account, in, name, blob.BlobRead, func(g gate.Grant) (io.ReadCloser, error) {
		body, _, err := l.blob.Read(ctx, g, 0, -1)
		return body, err
	})
}

func (l mlBlobs) Write(ctx context.Context, by ml.Access, account arm.ID, in, name string, content io.Reader, size int64) error {
	_, err := mlDo(ctx, l, by, account, in, name, blob.BlobWrite, func(g gate.Grant) (blob.Info, error) {
		if by.Files {
			return l.blob.WriteFile(ctx, g, name, content, size)
		}
		return l.blob.Write(ctx, g, content, size, "application/octet-stream", nil)
	})
	return err
}

// mlAccounts gives out what opens storage accounts.
type mlAccounts struct{ *App }

func (l mlAccounts) Key(ctx context.Context, as arm.Caller, account arm.ID) (arm.Secret, error) {
	as, err := l.whole(as)
	if err != nil {
		return arm.Secret{}, err
	}
	return admit(ctx, l.gate, as, blob.KeyList, gate.Target{ID: account}, func(g gate.Grant) (arm.Secret, error) {
		key, _, err := l.blob.Keys(ctx, g)
		return key, err
	})
}

func (l mlAccounts) Sign(ctx context.Context, as arm.Caller, account arm.ID, in, permissions string, until time.Time) (arm.Secret, error) {
	sig, err := sign(ctx, l.App, as, account, in, "", permissions, until)
	return sig.Query, err
}

// sign is a signature of a caller for a container, or for one blob in it.
func sign(ctx context.Context, a *App, as arm.Caller, account arm.ID, in, name, permissions string, until time.Time) (blob.Signature, error) {
	as, err := a.whole(as)
	if err != nil {
		return blob.Signature{}, err
	}
	id, err := container(account, in)
	if err != nil {
		return blob.Signature{}, err
	}
	return admit(ctx, a.gate, as, blob.DelegationKey, gate.Target{ID: id, Item: name}, func(g gate.Grant) (blob.Signature, error) {
		return a.blob.SASFor(ctx, g, permissions, until)
	})
}

// trackingBlobs is the blob data plane for tracking, as the workspace's identity.
type trackingBlobs struct{ *App }

func trackingDo[T any](ctx context.Context, l trackingBlobs, w tracking.Workspace, name string, act arm.Action, do func(gate.Grant) (T, error)) (out T, err error) {
	id, err := container(w.Account, w.Container)
	if err != nil {
		return out, err
	}
	as, err := l.identity.Known(l.Site.TenantOf(w.Account), w.Identity)
	if err != nil {
		return out, err
	}
	if err := l.blob.Trusts(as, w.Account); err != nil {
		return out, err
	}
	return admit(ctx, l.gate, as, act, gate.Target{ID: id, Item: name}, do)
}

func (l trackingBlobs) Put(ctx context.Context, w tracking.Workspace, name, contentType string, content io.Reader, size int64) error {
	_, err := trackingDo(ctx, l, w, name, blob.BlobWrite, func(g gate.Grant) (blob.Info, error) {
		return l.blob.Write(ctx, g, content, size, contentType, nil)
	})
	return err
}

func (l trackingBlobs) Append(ctx context.Context, w tracking.Workspace, name string, data []byte) error {
	_, err := trackingDo(ctx, l, w, name, blob.BlobAdd, func(g gate.Grant) (blob.Info, error) {
		return l.blob.Append(ctx, g, bytes.NewReader(data), int64(len(data)), true)
	})
	return err
}

func (l trackingBlobs) Open(ctx context.Context, w tracking.Workspace, name string, offset int64) (tracking.Content, error) {
	return trackingDo(ctx, l, w, name, blob.BlobRead, func(g gate.Grant) (tracking.Content, error) {
		body, info, err := l.blob.Read(ctx, g, offset, -1)
		return tracking.Content{ReadCloser: body, Size: info.Size, Type: info.ContentType}, err
	})
}

func (l trackingBlobs) List(ctx context.Context, w tracking.Workspace, prefix string, flat bool, mark string, limit int) (blobs []tracking.Blob, next string, err error) {
	delimiter := "/"
	if flat {
		delimiter = ""
	}
	page, err := trackingDo(ctx, l, w, "", blob.BlobRead, func(g gate.Grant) (blob.Page, error) {
		return l.blob.List(ctx, g, prefix, delimiter, mark, limit)
	})
	for _, b := range page.Items {
		blobs = append(blobs, tracking.Blob{Name: b.Name, Folder: b.Prefix, Size: b.Size, Modified: b.Modified})
	}
	return blobs, page.Next, err
}

func (l trackingBlobs) Delete(ctx context.Context, w tracking.Workspace, name string) error {
	_, err := trackingDo(ctx, l, w, name, blob.BlobDelete, func(g gate.Grant) (struct{}, error) {
		return struct{}{}, l.blob.Delete(ctx, g)
	})
	return err
}

func (l trackingBlobs) Sign(ctx context.Context, w tracking.Workspace, name, permissions string, until time.Time) (arm.Secret, error) {
	sig, err := sign(ctx, l.App, arm.Caller{Tenant: l.Site.TenantOf(w.Account), Object: w.Identity}, w.Account, w.Container, name, permissions, until)
	return sig.URL, err
}

// diagnosticBlobs is the blob data plane for diagnostic settings, as a worker that
// can add to blobs of one account and make containers there.
type diagnosticBlobs struct{ *App }

func (l diagnosticBlobs) Append(ctx context.Context, account arm.ID, in, name string, data []byte) error {
	id, err := container(account, in)
	if err != nil {
		return err
	}
	as := l.system(l.Site.TenantOf(account), monitor.WorkerName, &arm.Lease{Scope: account, Actions: []arm.Action{blob.BlobAdd, blob.ContainerWrite}, Why: "diagnostic settings"})
	if err := l.blob.Trusts(as, account); err != nil {
		return err
	}
	add := func() error {
		_, err := admit(ctx, l.gate, as, blob.BlobAdd, gate.Target{ID: id, Item: name}, func(g gate.Grant) (blob.Info, error) {
			return l.blob.Append(ctx, g, bytes.NewReader(data), int64(len(data)), true)
		})
		return err
	}
	if err = add(); arm.CodeOf(err) != "ContainerNotFound" {
		return err
	}
	if _, err := admit(ctx, l.gate, as, blob.ContainerWrite, gate.Target{ID: id}, func(g gate.Grant) (struct{}, error) {
		return struct{}{}, l.blob.EnsureContainer(ctx, g)
	}); err != nil {
		return err
	}
	return add()
}
