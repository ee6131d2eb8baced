package app

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/governance"
	"castellan/internal/store"
)

// crashRounds is how often the platform is killed, unless CASTELLAN_CRASH_ROUNDS
// says otherwise; CASTELLAN_CRASH_SEED repeats a run's choices.
const crashRounds = 20

// The server is killed this long after the load began, at a moment as likely as
// any other between.
const (
	killAfter  = 20 * time.Millisecond
	killBefore = 700 * time.Millisecond
)

// states are what may be under a name: any of these, or nothing.
type states struct {
	any  map[string]bool
	none bool
}

// ledger is what clients were told. One client alone writes a name.
type ledger struct {
	mu    sync.Mutex // guards all below
	names map[string]states
	acks  map[string]int // acknowledged writes by action
	runs  map[string]*batches
	told  told     // what the audit log says
	past  *ledger  // of earlier rounds, whose names nobody writes to any more
	wrong []string // answers of a living server that no client should get
}

// told is what the audit log was found to say, as far as it was read.
type told struct {
	seq   uint64
	kept  []audit.Checkpoint
	acts  map[string]int  // changes by action
	given map[string]bool // assignments, by id and by scope and principal
}

// read follows the log to its end. What was read before is not read again.
func (r *told) read(t *testing.T, log *audit.Log) {
	t.Helper()
	last, err := log.Tail(t.Context(), 1)
	if err != nil || len(last) == 0 || last[0].Seq < r.seq {
		t.Fatalf("the audit log ends with %v behind entry %d: %v", last, r.seq, err)
	}
	more, err := log.Tail(t.Context(), int(last[0].Seq-r.seq))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range more {
		if r.seq++; e.Seq != r.seq {
			t.Fatalf("entry %d of the audit log is %d", r.seq, e.Seq)
		}
		if e.Outcome != "ok" || e.Decision != "allowed" {
			continue
		}
		r.acts[e.Action]++
		if e.Action == governance.WriteAssignment.Name() {
			r.given[strings.ToLower(e.Target)] = true
			r.given[strings.ToLower(e.Target+"|"+e.Item)] = true
		}
	}
	r.keep(t, log)
}

// keep keeps a checkpoint; the log must hold at last what all of them tell of.
func (r *told) keep(t *testing.T, log *audit.Log) {
	t.Helper()
	signed, err := log.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key, err := log.Key(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := audit.ParseCheckpoint(signed, key)
	if err != nil {
		t.Fatal(err)
	}
	r.kept = append(r.kept, c)
}

// batches are how many batches a run was sent, and how many were acknowledged.
type batches struct{ tried, acked int }

func newLedger() *ledger {
	past := &ledger{names: map[string]states{}, runs: map[string]*batches{}}
	return &ledger{names: map[string]states{}, acks: map[string]int{}, runs: map[string]*batches{}, told: told{acts: map[string]int{}, given: map[string]bool{}}, past: past}
}

// try notes that a name may have a state from now on; "" is to be gone.
func (l *ledger) try(name, state string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.names[name]
	if !ok {
		s = states{map[string]bool{}, true}
	}
	if state == "" {
		s.none = true
	} else {
		s.any[state] = true
	}
	l.names[name] = s
}

// ack notes that a name has a state for certain.
func (l *ledger) ack(action, name, state string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks[action]++
	if state == "" {
		l.names[name] = states{map[string]bool{}, true}
		return
	}
	l.names[name] = states{map[string]bool{state: true}, false}
}

func (l *ledger) complain(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
}

func (l *ledger) total() (n int) {
	for _, k := range l.acks {
		n += k
	}
	return n
}

// Killed at any moment of a load of writes, the platform has every write that
// it acknowledged, whole; nothing half-done; and an audit log that verifies and
// tells of every change there is (REL-01).
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	endings(t, t.TempDir()+"/data", crashRounds, func(s *served) { s.kill(t) })
}

// endings serves a data folder in rounds, each of which end puts an end to at a
// moment as likely as any other, and holds the folder against the ledger.
func endings(t *testing.T, dir string, rounds int, end func(*served)) {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if testing.Short() {
		rounds = 3
	}
	for name, set := range map[string]func(uint64){
		"CASTELLAN_CRASH_ROUNDS": func(n uint64) { rounds = int(n) }, "CASTELLAN_CRASH_SEED": func(n uint64) { seed = n },
	} {
		if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
			set(n)
		}
	}
	t.Logf("seed %d", seed)
	rnd, led := rand.New(rand.NewPCG(seed, 1)), newLedger()
	s := spawn(t, dir)
	l := newLab(t, s)
	for round := range rounds {
		after := killAfter + time.Duration(rnd.Int64N(int64(killBefore-killAfter)))
		load(l, led, round, seed, func() {
			<-time.After(after)
			end(s)
		})
		last := round == rounds-1
		if round%50 == 49 {
			t.Logf("%d rounds, %d acknowledged writes", round+1, led.total())
		}
		check(t, l, led, last)
		if t.Failed() {
			t.Fatalf("in round %d of seed %d, ended after %s", round, seed, after)
		}
		if round < rounds-1 {
			s = spawn(t, s.dir)
			l.door = s.door
		}
	}
	t.Logf("%d rounds, %d acknowledged writes (%v), %d names, %d runs", rounds, led.total(), led.acks, len(led.past.names), len(led.past.runs))
}

// load has clients write until the server is gone, which end sees to.
func load(l *lab, led *ledger, round int, seed uint64, end func()) {
	var wg sync.WaitGroup
	var dead atomic.Bool
	for i, work := range []func(*client){(*client).groups, (*client).groups, (*client).secrets, (*client).blobs, (*client).blobs, (*client).metrics, (*client).metrics} {
		c := &client{lab: l, led: led, dead: &dead, round: round, name: fmt.Sprintf("c%d", i), rnd: rand.New(rand.NewPCG(seed, uint64(round*100+i+2)))}
		wg.Go(func() { work(c) })
	}
	end()
	dead.Store(true)
	wg.Wait()
}

// client writes to names of its own, and keeps the ledger.
type client struct {
	*lab
	led   *ledger
	dead  *atomic.Bool
	round int
	name  string
	rnd   *rand.Rand
}

// write makes one change: it goes on until an answer is missing.
func (c *client) write(action, name, state, token, method, u string, body any, header ...string) (ok bool) {
	c.led.try(name, state)
	if !c.did(token, method, u, body, header...) {
		return false
	}
	c.led.ack(action, name, state)
	return true
}

func (c *client) did(token, method, u string, body any, header ...string) bool {
	a, err := c.send(token, method, u, body, header...)
	if err != nil {
		return false // the server is gone, or was just then
	}
	if a.status/100 != 2 {
		c.led.complain("%s %s = %d %s", method, u, a.status, a.body)
		return false
	}
	return true
}

// groups makes resource groups with assignments in them, changes their tags,
// and removes some of them again.
func (c *client) groups() {
	for i := 0; ; i++ {
		id := fmt.Sprintf("/subscriptions/%s/resourceGroups/%s-r%d-%d", c.sub, c.name, c.round, i)
		tags := func(v int) map[string]any {
			return map[string]any{"location": c.location, "tags": map[string]any{"v": fmt.Sprint(v)}}
		}
		group := "group " + id
		if !c.write("Microsoft.Resources/subscriptions/resourceGroups/write", group, "0", c.arm, http.MethodPut, c.url(id), tags(0)) {
			return
		}
		var given []string
		for range 1 + c.rnd.IntN(2) {
			a := id + "/providers/Microsoft.Authorization/roleAssignments/" + arm.NewUUID()
			if !c.write(governance.WriteAssignment.Name(), "assignment "+a, "it", c.arm, http.MethodPut, c.url(a), assignmentOf(c.sub, roles[len(given)], c.nobody)) {
				return
			}
			given = append(given, a)
		}
		for v := range c.rnd.IntN(3) {
			if !c.write("Microsoft.Resources/subscriptions/resourceGroups/write", group, fmt.Sprint(v+1), c.arm, http.MethodPatch, c.url(id), map[string]any{"tags": tags(v + 1)["tags"]}) {
				return
			}
		}
		if c.rnd.IntN(3) > 0 {
			continue
		}
		for _, a := range given {
			c.led.try("assignment "+a, "")
		}
		if !c.write("Microsoft.Resources/subscriptions/resourceGroups/delete", group, "", c.arm, http.MethodDelete, c.url(id), nil) {
			return
		}
		for _, a := range given {
			c.led.mu.Lock()
			c.led.names["assignment "+a] = states{map[string]bool{}, true}
			c.led.mu.Unlock()
		}
	}
}

func (c *client) secrets() {
	for i := 0; ; i++ {
		name := fmt.Sprintf("s%d", c.rnd.IntN(6))
		value := fmt.Sprintf("%s of round %d, number %d", name, c.round, i)
		if !c.write("Microsoft.KeyVault/vaults/secrets/setSecret/action", "secret "+name, value, c.vault, http.MethodPut, c.vaultURL+"secrets/"+name+"?api-version=7.4", map[string]any{"value": value}) {
			return
		}
	}
}

// bytesOf is the content that a name says: other bytes, and another size, each time.
func bytesOf(what string, n int) []byte {
	seed := sha256.Sum256([]byte(what))
	out := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(out) // never fails
	return out
}

func hashOf(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }

func (c *client) blobs() {
	const action = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/"
	for i := 0; ; i++ {
		b := fmt.Sprintf("%s-%d", c.name, c.rnd.IntN(6))
		u := c.blobURL + "con/" + b
		if c.rnd.IntN(5) == 0 {
			a, err := c.send(c.blob, http.MethodDelete, u, nil, "x-ms-version", storageVersion)
			c.led.try("blob "+b, "")
			if err != nil {
				return
			}
			if a.status == http.StatusAccepted {
				c.led.ack(action+"delete", "blob "+b, "")
			}
			continue
		}
		data := bytesOf(fmt.Sprint(b, c.round, i), []int{10, 4 << 10, 70 << 10, 300 << 10}[c.rnd.IntN(4)])
		if !c.write(action+"write", "blob "+b, hashOf(data), c.blob, http.MethodPut, u, data, "x-ms-blob-type", "BlockBlob", "x-ms-version", storageVersion) {
			return
		}
	}
}

// batchSize is how many metrics a batch has; all of them or none are there.
const batchSize = 5

// metrics logs batches of metrics, a parameter and a tag to a run of its own.
func (c *client) metrics() {
	run, ok := c.newRun()
	if !ok {
		return
	}
	b := &batches{}
	c.led.mu.Lock()
	c.led.runs[run] = b
	c.led.mu.Unlock()
	for i := 0; ; i++ {
		var ms []map[string]any
		for m := range batchSize {
			ms = append(ms, map[string]any{"key": fmt.Sprintf("m%d", m), "value": float64(i * (m + 1)), "timestamp": 1000 + i, "step": i})
		}
		b.tried++
		if !c.did(c.arm, http.MethodPost, c.mlflow+"runs/log-batch", map[string]any{
			"run_id": run, "metrics": ms, "params": []any{map[string]any{"key": fmt.Sprintf("p%d", i), "value": fmt.Sprint(i)}},
			"tags": []any{map[string]any{"key": "last", "value": fmt.Sprint(i)}},
		}) {
			return
		}
		b.acked++
		c.led.mu.Lock()
		c.led.acks["log-batch"]++
		c.led.mu.Unlock()
	}
}

func (c *client) newRun() (string, bool) {
	a, err := c.send(c.arm, http.MethodPost, c.mlflow+"runs/create", map[string]any{"experiment_id": c.experiment})
	var out struct {
		Run struct {
			Info struct {
				ID string `json:"run_id"`
			} `json:"info"`
		} `json:"run"`
	}
	if err != nil {
		return "", false
	}
	if json.Unmarshal(a.body, &out) != nil || out.Run.Info.ID == "" {
		c.led.complain("making a run = %d %s", a.status, a.body)
		return "", false
	}
	return out.Run.Info.ID, true
}

// check opens the data folder that the killed server left, and holds it against
// the ledger; at last also against that of all rounds before. The audit log is
// followed from where it was left, and verified from its beginning at last.
func check(t *testing.T, l *lab, led *ledger, last bool) {
	t.Helper()
	for _, w := range led.wrong {
		t.Errorf("the living server answered: %s", w)
	}
	a, err := New(t.Context(), Config{Data: l.dir})
	if err != nil {
		t.Fatalf("the folder does not open: %v", err)
	}
	defer func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}()
	led.told.read(t, a.Audit)
	compare(t, a, l, led)
	whole(t, a, led)
	led.turn()
	if last {
		n, err := a.Audit.Verify(t.Context(), led.told.kept...)
		if err != nil || n < led.told.seq {
			t.Errorf("the audit log does not verify behind entry %d: %v", n, err)
		}
		compare(t, a, l, led.past)
	}
}

// turn lays aside what nobody writes to in later rounds: groups, their
// assignments, and runs. The rest is noted there too, as it is now.
func (l *ledger) turn() {
	for name, s := range l.names {
		l.past.names[name] = s
		if strings.HasPrefix(name, "group ") || strings.HasPrefix(name, "assignment ") {
			delete(l.names, name)
		}
	}
	for run, b := range l.runs {
		l.past.runs[run] = b
		delete(l.runs, run)
	}
}

// compare holds the platform against a ledger.
func compare(t *testing.T, a *App, l *lab, led *ledger) {
	t.Helper()
	for name, may := range led.names {
		got, there := look(t, a, l, name)
		switch {
		case !there && !may.none:
			t.Errorf("%s was acknowledged and is gone", name)
		case there && !may.any[got]:
			t.Errorf("%s is %q, which nobody wrote last", name, got)
		}
	}
	for run, b := range led.runs {
		lookRun(t, a, l, run, *b)
	}
}

// look is what is under a name, as a client sees it.
func look(t *testing.T, a *App, l *lab, name string) (state string, there bool) {
	t.Helper()
	kind, id, _ := strings.Cut(name, " ")
	token, u, header := l.arm, l.url(id), []string(nil)
	switch kind {
	case "secret":
		token, u = l.vault, l.vaultURL+"secrets/"+id+"?api-version=7.4"
	case "blob":
		token, u, header = l.blob, l.blobURL+"con/"+id, []string{"x-ms-version", storageVersion}
	}
	w := call(a, token, http.MethodGet, u, nil, header...)
	if w.Code == http.StatusNotFound {
		return "", false
	}
	if w.Code != http.StatusOK {
		t.Errorf("reading %s = %d %s", name, w.Code, w.Body)
		return "", true
	}
	if kind == "blob" {
		return hashOf(w.Body.Bytes()), true
	}
	var got struct {
		Value string
		Tags  struct{ V string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Errorf("reading %s: %v", name, err)
	}
	return map[string]string{"secret": got.Value, "group": got.Tags.V, "assignment": "it"}[kind], true
}

// lookRun holds that a run has a whole number of batches, in order, with no
// fewer than were acknowledged and no more than were tried.
func lookRun(t *testing.T, a *App, l *lab, run string, b batches) {
	t.Helper()
	n := -1
	for m := range batchSize {
		count := 0
		for page := ""; ; {
			var got struct {
				Metrics []struct {
					Step  int
					Value float64
				}
				Next string `json:"next_page_token"`
			}
			w := call(a, l.arm, http.MethodGet, fmt.Sprintf("%smetrics/get-history?run_id=%s&metric_key=m%d&max_results=20000&page_token=%s", l.mlflow, run, m, page), nil)
			if w.Code == http.StatusNotFound && b.acked == 0 {
				break
			}
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
				t.Errorf("the history of run %s = %d %s", run, w.Code, w.Body)
				return
			}
			for _, p := range got.Metrics {
				if p.Step != count || p.Value != float64(count*(m+1)) {
					t.Errorf("run %s: point %d of m%d is %v", run, count, m, p)
					return
				}
				count++
			}
			if page = got.Next; page == "" {
				break
			}
		}
		if count < b.acked || count > b.tried || n >= 0 && count != n {
			t.Errorf("run %s has %d points of m%d; %d batches were acknowledged, %d tried, m0 has %d", run, count, m, b.acked, b.tried, n)
		}
		n = count
	}
}

// keys are the keys of all rows of a table, with their values.
func keys(t *testing.T, tx *store.Tx, table string) map[string][]byte {
	t.Helper()
	rows, err := tx.Scan(table, "", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, r := range rows {
		out[r.Key] = r.Value
	}
	return out
}

// whole holds what must be so of any data folder: no resource without its
// index, no assignment without index, scope or audit entry, no acknowledged
// change that the audit log does not tell of.
func whole(t *testing.T, a *App, led *ledger) {
	t.Helper()
	for action, n := range led.acks {
		if strings.HasPrefix(action, "Microsoft.") && led.told.acts[action] < n {
			t.Errorf("%d changes by %s were acknowledged; the audit log tells of %d", n, action, led.told.acts[action])
		}
	}
	if err := a.db.View(t.Context(), func(tx *store.Tx) error {
		docs, typed := keys(t, tx, "resources"), keys(t, tx, "resources_by_type")
		for k := range typed {
			_, id, _ := strings.Cut(k, "|")
			if docs[id] == nil {
				t.Errorf("the index names the resource %s, which is not there", id)
			}
		}
		if len(docs) != len(typed) {
			t.Errorf("%d resources, but %d of them in the index", len(docs), len(typed))
		}
		given, index := keys(t, tx, "role_assignments"), keys(t, tx, "role_index")
		for k, v := range given {
			var r struct{ Scope, Principal string }
			if err := json.Unmarshal(v, &r); err != nil {
				t.Fatal(err)
			}
			if !led.told.given[k] && !led.told.given[strings.ToLower(r.Scope+"|"+r.Principal)] {
				t.Errorf("the audit log does not tell of the assignment %s", k)
			}
			if docs[strings.ToLower(r.Scope)] == nil && !strings.Contains(r.Scope, "/blobServices/") {
				t.Errorf("the assignment %s is at %s, which is not there", k, r.Scope)
			}
		}
		counts := map[string]int{}
		for k, v := range index {
			kind, _, _ := strings.Cut(k, "|")
			if kind == "called" {
				continue
			}
			counts[kind]++
			if given[string(v)] == nil {
				t.Errorf("the index %s names the assignment %s, which is not there", k, v)
			}
		}
		for _, kind := range []string{"name", "held", "role"} {
			if counts[kind] != len(given) {
				t.Errorf("%d assignments, but %d of them in the index %q", len(given), counts[kind], kind)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// A kill while the first start makes the installation leaves a folder whose
// next start is a first start again, or one that is over: never a platform that
// nobody can sign in to without having been told how.
func TestKilledWhileItIsMade(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it starts a platform some times")
	}
	rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2))
	for i := range 4 {
		dir := fmt.Sprintf("%s/data%d", t.TempDir(), i)
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+rnd.IntN(150))*time.Millisecond)
		cmd, out := serving(dir), &bytes.Buffer{}
		cmd.Stdout = out
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		cancel()
		_ = cmd.Process.Kill() // it may be over
		_ = cmd.Wait()
		_ = in.Close()
		var first Ready
		was := json.Unmarshal(out.Bytes(), &first) == nil
		s := spawn(t, dir)
		switch admin := s.ready.Admin; {
		case was && (admin != nil || first.TenantID != s.ready.TenantID):
			t.Errorf("round %d: an installation that was told of was made anew", i)
		case !was && admin != nil:
			s.token(t, *admin, s.ready.ARM)
		}
		s.kill(t)
	}
}
