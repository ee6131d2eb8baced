package app

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// pieceSize is what a trickle gives at once; no client holds so much back.
const pieceSize = 32 << 10

// trickle is a body that comes slowly and does not end by itself.
type trickle struct {
	pieces <-chan time.Time
	left   int
	begun  chan struct{}
}

func (b *trickle) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	<-b.pieces
	if b.begun != nil {
		close(b.begun)
		b.begun = nil
	}
	b.left--
	return copy(p, make([]byte, pieceSize)), nil
}

// cutWithin is how soon what is under way must end, with the slack that a busy
// machine needs.
const cutWithin = 5 * time.Second

// What is under way ends when its caller loses the right to it: a download and
// an upload of somebody who is disabled, whose sign-in is revoked by taking the
// credential away, or whose role is taken (OID-13, continuous access evaluation).
func TestWhatIsUnderWayIsCut(t *testing.T) {
	t.Parallel()
	s := spawn(t, t.TempDir()+"/data")
	l := newLab(t, s)
	l.must(t, nil, l.blob, http.MethodPut, l.blobURL+"con/large", make([]byte, 64<<20), "x-ms-version", storageVersion, "x-ms-blob-type", "BlockBlob")
	storage := l.group + "/providers/Microsoft.Storage/storageAccounts/" + l.account
	const contributor = "ba92f5b4-2d11-453d-a403-e96b0029c9fe" // Storage Blob Data Contributor
	for what, lose := range map[string]func(app, sp, key, assignment string){
		"disabled": func(_, sp, _, _ string) {
			l.must(t, nil, l.graph, http.MethodPatch, s.ready.Graph+"/v1.0/servicePrincipals/"+sp, map[string]any{"accountEnabled": false})
		},
		"credential": func(app, _, key, _ string) {
			l.must(t, nil, l.graph, http.MethodPost, s.ready.Graph+"/v1.0/applications/"+app+"/removePassword", map[string]any{"keyId": key})
		},
		"role":    func(_, _, _, assignment string) { l.must(t, nil, l.arm, http.MethodDelete, l.url(assignment), nil) },
		"nothing": func(_, _, _, _ string) {},
	} {
		var app, sp struct{ ID, AppID string }
		var secret struct{ KeyID, SecretText string }
		l.must(t, &app, l.graph, http.MethodPost, s.ready.Graph+"/v1.0/applications", map[string]any{"displayName": what})
		l.must(t, &sp, l.graph, http.MethodPost, s.ready.Graph+"/v1.0/servicePrincipals", map[string]any{"appId": app.AppID})
		l.must(t, &secret, l.graph, http.MethodPost, s.ready.Graph+"/v1.0/applications/"+app.ID+"/addPassword", map[string]any{"passwordCredential": map[string]any{}})
		var given struct{ ID string }
		l.must(t, &given, l.arm, http.MethodPut, l.url(storage+"/providers/Microsoft.Authorization/roleAssignments/"+sp.ID), assignmentOf(l.sub, contributor, sp.ID))
		token := s.token(t, ReadyAdmin{ClientID: app.AppID, ClientSecret: secret.SecretText}, "https://storage.azure.com")

		pieces := time.NewTicker(20 * time.Millisecond)
		defer pieces.Stop()
		get, err := http.NewRequest(http.MethodGet, l.blobURL+"con/large", nil)
		if err != nil {
			t.Fatal(err)
		}
		up := &trickle{pieces: pieces.C, left: int(cutWithin/(20*time.Millisecond)) * 4, begun: make(chan struct{})}
		begun := up.begun
		put, err := http.NewRequest(http.MethodPut, l.blobURL+"con/"+what, up)
		if err != nil {
			t.Fatal(err)
		}
		put.ContentLength = int64(up.left) * pieceSize
		for _, r := range []*http.Request{get, put} {
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set("x-ms-version", storageVersion)
			r.Header.Set("x-ms-blob-type", "BlockBlob")
		}
		res, err := l.http.Do(get)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: the download begins with %v, %v", what, res, err)
		}
		if what == "nothing" {
			if n, err := io.Copy(io.Discard, res.Body); err != nil || n != 64<<20 {
				t.Errorf("with nothing lost the download ends after %d bytes with %v", n, err)
			}
			_ = res.Body.Close()
			continue
		}
		sent := make(chan error, 1)
		go func() {
			r, err := l.http.Do(put)
			if err == nil {
				_ = r.Body.Close()
				if r.StatusCode/100 == 2 {
					sent <- nil
					return
				}
				err = errors.New(r.Status)
			}
			sent <- err
		}()
		<-begun
		lose(app.ID, sp.ID, secret.KeyID, given.ID)
		lost := time.Now()
		// The download is left alone for a second, and then taken as fast as it
		// comes: what was sent before the loss lies in the network's buffers.
		end := make(chan error, 1)
		go func() {
			for range 50 {
				<-pieces.C
			}
			_, err := io.Copy(io.Discard, res.Body)
			end <- err
		}()
		for range 2 {
			name, err := "upload", error(nil)
			select {
			case err = <-sent:
			case err = <-end:
				name = "download"
			case <-time.After(4 * cutWithin):
				t.Fatalf("%s: what is under way goes on", what)
			}
			if err == nil {
				t.Errorf("%s: the %s goes through: %v", what, name, err)
			}
			t.Logf("%s: the %s ended %s after the loss: %v", what, name, time.Since(lost).Round(10*time.Millisecond), err)
		}
		_ = res.Body.Close()
		if r, err := l.send(l.blob, http.MethodGet, l.blobURL+"con/"+what, nil, "x-ms-version", storageVersion); err != nil || r.status != http.StatusNotFound {
			t.Errorf("%s: half an upload is there: %d %s %v", what, r.status, strings.TrimSpace(string(r.body[:min(len(r.body), 200)])), err)
		}
	}
}
