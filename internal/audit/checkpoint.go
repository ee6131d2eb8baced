package audit

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/store"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint says what the log was when it had N entries (c2sp.org/tlog-checkpoint).
type Checkpoint struct {
	Origin string // the log's name
	N      int64
	Hash   tlog.Hash
}

func (c Checkpoint) text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.N, c.Hash)
}

// ParseCheckpoint reads a signed checkpoint, which must be signed with the key
// whose public half is key (c2sp.org/signed-note). Other signatures, such as
// those of witnesses, may be there too.
func ParseCheckpoint(signed []byte, key string) (c Checkpoint, err error) {
	v, err := note.NewVerifier(key)
	if err != nil {
		return c, fmt.Errorf("audit: %q is no public key of a log: %w", key, err)
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		return c, fmt.Errorf("audit: this is no checkpoint signed by %s: %w", key, err)
	}
	lines := strings.SplitN(n.Text, "\n", 4)
	if len(lines) < 4 || lines[0] != v.Name() {
		return c, fmt.Errorf("audit: the checkpoint is not one of the log %s", v.Name())
	}
	c.Origin = lines[0]
	if c.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil || c.N < 0 || strconv.FormatInt(c.N, 10) != lines[1] {
		return c, fmt.Errorf("audit: the checkpoint's number of entries is %q", lines[1])
	}
	if c.Hash, err = tlog.ParseHash(lines[2]); err != nil {
		return c, fmt.Errorf("audit: the checkpoint's hash: %w", err)
	}
	return c, nil
}

// signing is the log's Ed25519 key, in the forms of c2sp.org/signed-note.
type signing struct {
	Signer   string // the store seals it
	Verifier string // the public half
}

// keyOnce makes the log's key at the first start.
func keyOnce(tx *store.Tx) error {
	_, ok, err := store.GetJSON[signing](tx, heads, "key")
	if err != nil || ok {
		return err
	}
	var s signing
	if s.Signer, s.Verifier, err = note.GenerateKey(rand.Reader, "castellan/audit/"+arm.NewUUID()); err != nil {
		return err
	}
	return store.PutJSON(tx, heads, "key", s)
}

// sign is the signed checkpoint of the log that tx sees.
func sign(tx *store.Tx) ([]byte, error) {
	_, t, err := headOf(tx)
	if err != nil {
		return nil, err
	}
	return signed(tx, func(name string) string { return Checkpoint{name, t.n, t.root()}.text() })
}

// signed is a text that may have the log's name in it, signed with the log's key.
func signed(tx *store.Tx, text func(name string) string) ([]byte, error) {
	s, _, err := store.GetJSON[signing](tx, heads, "key")
	if err != nil {
		return nil, err
	}
	signer, err := note.NewSigner(s.Signer)
	if err != nil {
		return nil, fmt.Errorf("audit: the log's key was altered: %w", err)
	}
	return note.Sign(&note.Note{Text: text(signer.Name())}, signer)
}

// statement is the first line of all that the log's key signs beside checkpoints,
// whose first line is the log's name: neither passes for the other.
const statement = "Castellan statement"

// Sign signs lines about something that happened, with the log's key.
func Sign(tx *store.Tx, lines string) ([]byte, error) {
	return signed(tx, func(string) string { return statement + "\n" + lines })
}

// ParseStatement is what Sign signed, if it is signed with the key.
func ParseStatement(signed []byte, key string) (lines string, err error) {
	v, err := note.NewVerifier(key)
	if err != nil {
		return "", fmt.Errorf("audit: %q is no public key of a log: %w", key, err)
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		return "", fmt.Errorf("audit: this is no statement signed by %s: %w", key, err)
	}
	lines, ok := strings.CutPrefix(n.Text, statement+"\n")
	if !ok {
		return "", fmt.Errorf("audit: what %s signed is no statement", v.Name())
	}
	return lines, nil
}

// Key is the public half of the key that checkpoints are signed with.
func (l *Log) Key(ctx context.Context) (key string, err error) {
	err = l.db.View(ctx, func(tx *store.Tx) error { key, err = keyOf(tx); return err })
	return key, err
}

func keyOf(tx *store.Tx) (string, error) {
	s, _, err := store.GetJSON[signing](tx, heads, "key")
	return s.Verifier, err
}

// Checkpoint is a signed checkpoint of the log as it is now.
func (l *Log) Checkpoint(ctx context.Context) (signed []byte, err error) {
	err = l.db.View(ctx, func(tx *store.Tx) error { signed, err = sign(tx); return err })
	return signed, err
}

// publishEvery is how often strangers are told how far the log is, at most: from
// each entry they could tell who is at work.
const publishEvery = time.Minute

// Published is the last checkpoint that was made for everybody.
func (l *Log) Published(ctx context.Context) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.now(); l.published == nil || now.Sub(l.at) >= publishEvery || now.Before(l.at) {
		signed, err := l.Checkpoint(ctx)
		if err != nil {
			return nil, err
		}
		l.published, l.at = signed, now
	}
	return l.published, nil
}

// Inclusion proves that the published checkpoint has the leaf at index, which
// counts from 0 (c2sp.org/tlog-proof).
func (l *Log) Inclusion(ctx context.Context, index int64) ([]byte, error) {
	return l.prove(ctx, fmt.Sprintf("c2sp.org/tlog-proof@v1\nindex %d\n", index), func(n int64, r tlog.HashReader) ([]tlog.Hash, error) {
		if index < 0 || index >= n {
			return nil, arm.Errorf(arm.BadRequest, "index is %d; the published checkpoint has %d entries, from index 0 on", index, n)
		}
		return tlog.ProveRecord(n, index, r)
	})
}

// Growth proves that the published checkpoint only adds to the log's first old
// entries, as one tells it to a witness (c2sp.org/tlog-witness, add-checkpoint).
func (l *Log) Growth(ctx context.Context, old int64) ([]byte, error) {
	return l.prove(ctx, fmt.Sprintf("old %d\n", old), func(n int64, r tlog.HashReader) ([]tlog.Hash, error) {
		if old < 0 || old > n {
			return nil, arm.Errorf(arm.BadRequest, "old is %d; the published checkpoint has %d entries", old, n)
		}
		if old == 0 || old == n { // nothing is to be shown
			return nil, nil
		}
		return tlog.ProveTree(n, old, r)
	})
}

// prove is a text of first, a proof of the published checkpoint, and that.
func (l *Log) prove(ctx context.Context, first string, proof func(n int64, r tlog.HashReader) ([]tlog.Hash, error)) (text []byte, err error) {
	signed, err := l.Published(ctx)
	if err != nil {
		return nil, err
	}
	err = l.db.View(ctx, func(tx *store.Tx) error {
		key, err := keyOf(tx)
		if err != nil {
			return err
		}
		c, err := ParseCheckpoint(signed, key)
		if err != nil {
			return err
		}
		hashes, err := proof(c.N, reader(tx))
		text = fmt.Appendf(nil, "%s%s\n%s", first, lines(hashes), signed)
		return err
	})
	return text, err
}

func lines(hashes []tlog.Hash) string {
	var b strings.Builder
	for _, h := range hashes {
		b.WriteString(h.String() + "\n")
	}
	return b.String()
}

// CheckGrowth reads what Growth wrote about the kept checkpoint, and is the new
// one if it only adds to it.
func CheckGrowth(kept Checkpoint, proof []byte, key string) (c Checkpoint, err error) {
	head, signed, ok := strings.Cut(string(proof), "\n\n")
	list := strings.Split(head, "\n")
	if !ok || list[0] != fmt.Sprintf("old %d", kept.N) {
		return c, fmt.Errorf("audit: this is no proof about the checkpoint of %d entries", kept.N)
	}
	if c, err = ParseCheckpoint([]byte(signed), key); err != nil {
		return c, err
	}
	if c.N < kept.N {
		return c, fmt.Errorf("audit: the log has %d entries; the checkpoint that was kept has %d: the log was cut off or rolled back", c.N, kept.N)
	}
	var hashes tlog.TreeProof
	for _, line := range list[1:] {
		b, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(b) != tlog.HashSize {
			return c, fmt.Errorf("audit: %q in the proof is no hash", line)
		}
		hashes = append(hashes, tlog.Hash(b))
	}
	switch {
	case kept.N == 0 || kept.N == c.N && kept.Hash == c.Hash && len(hashes) == 0:
		return c, nil
	case kept.N == c.N:
		return c, fmt.Errorf("audit: the log's %d entries are not those of the checkpoint that was kept", c.N)
	}
	if err := tlog.CheckTree(hashes, c.N, c.Hash, kept.N, kept.Hash); err != nil {
		return c, fmt.Errorf("audit: the log does not hold the %d entries of the checkpoint that was kept: %w", kept.N, err)
	}
	return c, nil
}
