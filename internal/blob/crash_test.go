package blob

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/seal"
)

// crashDir names the folder that a child writes in, and crashSeed its run.
const (
	crashDir  = "CASTELLAN_BLOB_CRASH_DIR"
	crashSeed = "CASTELLAN_BLOB_CRASH_SEED"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		if seed := os.Getenv(crashSeed); seed == moves {
			moveChild(dir)
		} else {
			crashChild(dir, seed)
		}
		return
	}
	os.Exit(m.Run())
}

// content of version v of blob b: other bytes, and another size, each time.
func crashContent(b string, v int) []byte {
	n := []int{100, 5000, smallSize + 1, 100000, 400000}[(v+len(b))%5]
	head := fmt.Sprintf("%s %d ", b, v)
	if isFile(b) {
		return append([]byte(head), noise(crashFile+v)...)[:crashFile]
	}
	return append([]byte(head), noise(n+v)...)
}

// crashFile is the size of the files in a share, which are made and then written in one range.
const crashFile = 100000

func isFile(b string) bool { return strings.HasPrefix(b, "file") }

// crashChild writes, replaces, appends and deletes blobs until it is killed, and
// says what it is about to do and what is done.
func crashChild(dir, seed string) {
	t := &childTB{}
	w := &world{t: t, dir: dir, now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	w.reopen()
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", args...) // os.Stdout is not buffered
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), uint64(len(seed))<<32|uint64(seed[len(seed)-1])))
			for v := 1; ; v++ {
				b := fmt.Sprintf("%d-%s-%d", i, seed, rnd.IntN(4))
				op := []string{"put", "put", "blocks", "delete", "range"}[rnd.IntN(5)]
				if op == "range" {
					b = "file" + b
				}
				say("try %s %s %d", op, b, v)
				if err := w.crashStep(op, b, v); err != nil && arm.CodeOf(err) != "BlobNotFound" {
					say("failed %s %s %d: %v", op, b, v, err)
					os.Exit(3)
				}
				say("did %s %s %d", op, b, v)
			}
		})
	}
	wg.Wait()
}

// childTB is a testing.TB for a process that is no test.
type childTB struct{ testing.TB }

func (*childTB) Helper() {}
func (*childTB) Fatal(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	os.Exit(2)
}
func (*childTB) Context() context.Context { return context.Background() }

func (w *world) crashStep(op, b string, v int) error {
	ctx := context.Background()
	if op == "range" {
		return w.crashRange(b, crashContent(b, v))
	}
	act := map[string]arm.Action{"put": BlobWrite, "blocks": BlobWrite, "delete": BlobDelete}[op]
	do := func(fn func(g gate.Grant) error) error {
		g, err := w.gate.Admit(ctx, person(contrib), act, gate.Target{ID: ContainerID(arm.MustID(accounts+"acct1"), "con1"), Item: b})
		if err != nil {
			return err
		}
		return g.Close(ctx, fn(g))
	}
	data := crashContent(b, v)
	switch op {
	case "delete":
		return do(func(g gate.Grant) error { return w.s.Delete(ctx, g) })
	case "blocks":
		half := len(data) / 2
		for i, part := range [][]byte{data[:half], data[half:]} {
			if err := do(func(g gate.Grant) error {
				_, err := w.s.putBlock(ctx, g, blockID(i), content{body: strings.NewReader(string(part)), size: int64(len(part))}, Conditions{})
				return err
			}); err != nil {
				return err
			}
		}
		return do(func(g gate.Grant) error {
			_, err := w.s.commit(ctx, g, []listed{{latest, blockID(0)}, {latest, blockID(1)}}, draft{})
			return err
		})
	}
	return do(func(g gate.Grant) error {
		_, err := w.s.Write(ctx, g, strings.NewReader(string(data)), int64(len(data)), "", nil)
		return err
	})
}

// fileGrant is a Grant for a file of the share shr, for who has the account's key.
func (w *world) fileGrant(a arm.Action, name string) (gate.Grant, error) {
	return w.gate.Admit(context.Background(), w.s.keyCaller(w.s.byName("acct1"), 1), a, gate.Target{ID: ShareID(arm.MustID(accounts+"acct1"), "shr"), Item: name})
}

// crashRange makes a file anew and writes all of it.
func (w *world) crashRange(name string, data []byte) error {
	ctx := context.Background()
	for _, do := range []func(g gate.Grant) error{
		func(g gate.Grant) error {
			_, err := w.s.put(ctx, g, draft{typ: fileType, size: crashFile, file: newborn{name: name, smb: usualSMB(false)}, content: content{body: strings.NewReader("")}})
			return err
		},
		func(g gate.Grant) error {
			_, _, err := w.s.writePages(ctx, g, paged{at: stretch{0, crashFile}, content: content{body: strings.NewReader(string(data)), size: crashFile}})
			return err
		},
	} {
		g, err := w.fileGrant(FileWrite, name)
		if err != nil {
			return err
		}
		if err := g.Close(ctx, do(g)); err != nil {
			return err
		}
	}
	return nil
}

// reopen starts a world on a folder that has one already, or makes it.
func (w *world) reopen() {
	key, err := seal.FromFile(filepath.Join(w.dir, "root-key"), true)
	w.must(err)
	w.root = key
	w.setup()
}

// kept is what may be under a name: any of these contents, or nothing.
type kept struct {
	any  map[string]bool
	none bool
}

// Killed at any moment, the service has every write that was acknowledged, whole,
// nothing that was not asked for, an audit log that verifies, and no file too
// many once it swept (REL-01).
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	dir := t.TempDir()
	w := newWorldIn(t, dir)
	w.share()
	w.stop()
	rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	ledger := map[string]kept{}
	acked := 0
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashDir+"="+dir, fmt.Sprintf("%s=r%d", crashSeed, round))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		w.must(err)
		w.must(cmd.Start())
		lines := bufio.NewScanner(out)
		limit := 5 + rnd.IntN(250) // lines until the kill
		for n := 0; lines.Scan(); n++ {
			if strings.HasPrefix(lines.Text(), "failed") {
				t.Fatal(lines.Text())
			}
			acked += note(ledger, lines.Text())
			if n == limit {
				w.must(cmd.Process.Kill())
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}
		w.check(ledger)
	}
	t.Logf("%d rounds, %d acknowledged writes, %d names", rounds, acked, len(ledger))
}

// note follows the child's lines: what is tried may be there or not, what is
// done must be.
func note(ledger map[string]kept, line string) (acked int) {
	var what, op, b string
	var v int
	if _, err := fmt.Sscanf(line, "%s %s %s %d", &what, &op, &b, &v); err != nil {
		return 0 // a line that the kill cut
	}
	k, ok := ledger[b]
	if !ok {
		k = kept{map[string]bool{}, true}
	}
	sum := sumOf(crashContent(b, v))
	if what == "try" {
		if op == "delete" {
			k.none = true
		} else {
			k.any[sum] = true
		}
		if isFile(b) {
			k.any[sumOf(make([]byte, crashFile))] = true // it is made first
		}
		ledger[b] = k
		return 0
	}
	if op == "delete" {
		ledger[b] = kept{map[string]bool{}, true}
		return 1
	}
	ledger[b] = kept{map[string]bool{sum: true}, false}
	return 1
}

func sumOf(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }

func (w *world) check(ledger map[string]kept) {
	w.t.Helper()
	w.setup()
	defer func() { w.must(w.log.Close()); w.must(w.db.Close()) }()
	w.must(w.s.sweep(w.t.Context()))
	if n, err := w.log.Verify(w.t.Context()); err != nil {
		w.t.Errorf("the audit log does not verify behind entry %d: %v", n, err)
	}
	if files, rows := len(w.filesOnDisk()), w.rows(fileTable); files != rows {
		w.t.Errorf("there are %d files for %d rows", files, rows)
	}
	for b, k := range ledger {
		var g gate.Grant
		if isFile(b) {
			var err error
			g, err = w.fileGrant(FileRead, b)
			w.must(err)
		} else {
			g = w.admit(person(reads), BlobRead, "con1", b)
		}
		body, _, err := w.s.Read(w.t.Context(), g, 0, -1)
		var data []byte
		if err == nil {
			data, err = io.ReadAll(body)
			body.Close()
		}
		_ = g.Close(w.t.Context(), nil)
		var e *arm.Error
		switch {
		case errors.As(err, &e) && e.Code == "BlobNotFound":
			if !k.none {
				w.t.Errorf("%s was acknowledged and is gone", b)
			}
		case err != nil:
			w.t.Errorf("reading %s: %v", b, err)
		case !k.any[sumOf(data)]:
			w.t.Errorf("%s has %d bytes that nobody wrote last: %.40q", b, len(data), data)
		}
	}
}
