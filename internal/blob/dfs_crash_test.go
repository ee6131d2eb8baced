package blob

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// moves is the seed of a child that renames a directory to and fro.
const moves = "moves"

// moved is how many paths lie below the directory.
const moved = 400

// moveDir renames a directory of lake1, as a contributor.
func (w *world) moveDir(from, to string) error {
	ctx := context.Background()
	id := ContainerID(arm.MustID(accounts+"lake1"), "fsy")
	src, err := w.gate.Admit(ctx, person(contrib), BlobMove, gate.Target{ID: id, Item: from})
	if err != nil {
		return err
	}
	g, err := w.gate.Admit(ctx, person(contrib), BlobWrite, gate.Target{ID: id, Item: to, Op: opRename})
	if err != nil {
		return err
	}
	p, err := w.s.pathTarget(g, false, BlobWrite)
	if err != nil {
		return err
	}
	in := renaming{from: p}
	in.from.blob = from
	_, err = w.s.rename(ctx, g, src, p, in, Conditions{})
	return g.Close(ctx, src.Close(ctx, err))
}

func moveChild(dir string) {
	w := &world{t: &childTB{}, dir: dir, now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	w.reopen()
	names := []string{"one", "two"}
	if len(w.below("two")) > 0 {
		slices.Reverse(names)
	}
	for {
		fmt.Println("try", names[1])
		if err := w.moveDir(names[0], names[1]); err != nil {
			fmt.Println("failed", err)
			os.Exit(3)
		}
		fmt.Println("did", names[1])
		slices.Reverse(names)
	}
}

// below are the paths that lie in a directory of lake1, and itself.
func (w *world) below(dir string) (out []string) {
	w.must(w.db.View(w.t.Context(), func(tx *store.Tx) error {
		c, err := findContainer(tx, place{account: w.s.byName("lake1"), container: "fsy"})
		if err != nil {
			return err
		}
		if b, err := findBlob(tx, c, dir); err != nil || b != nil {
			out = append(out, dir)
		}
		_, err = within(tx, c, dir, "", 0, func(name string, _ *row) error {
			out = append(out, name)
			return nil
		})
		return err
	}))
	return out
}

// Killed while it renames a directory, the service has all of it under the old
// path or all of it under the new, as it acknowledged.
func TestKilledWhileItRenames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := newWorldIn(t, dir)
	w.lake()
	for i := range moved - 10 {
		w.do("key1", "PUT", fmt.Sprintf("%sone/%d/%d?resource=file", lakeFS, i%10, i), nil, 201)
	}
	w.stop()
	rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	in := "one"
	for round := range 6 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashDir+"="+dir, crashSeed+"="+moves)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		w.must(err)
		w.must(cmd.Start())
		lines := bufio.NewScanner(out)
		limit, tried := 1+rnd.IntN(12), ""
		for n := 0; lines.Scan(); n++ {
			what, name, _ := strings.Cut(lines.Text(), " ")
			switch what {
			case "failed":
				t.Fatal(lines.Text())
			case "try":
				tried = name
			case "did":
				in, tried = name, ""
			}
			if n == limit {
				w.must(cmd.Process.Kill())
			}
		}
		_ = cmd.Wait() // it was killed
		w.setup()
		one, two := len(w.below("one")), len(w.below("two"))
		if max(one, two) != moved+1 || min(one, two) != 0 {
			t.Errorf("round %d: %d paths are in one and %d in two, of %d", round, one, two, moved+1)
		}
		is := map[bool]string{true: "one", false: "two"}[one > two]
		if is != in && is != tried {
			t.Errorf("round %d: the directory is %s; it was acknowledged as %s", round, is, in)
		}
		in = is
		if n, err := w.log.Verify(t.Context()); err != nil {
			t.Errorf("the audit log does not verify behind entry %d: %v", n, err)
		}
		w.must(w.log.Close())
		w.must(w.db.Close())
	}
}
