package monitor

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Sink keeps records. Deliver returns nil only when all of them are kept there;
// after an error all of them come again, so a sink may get a record twice.
type Sink interface {
	Deliver(ctx context.Context, list []Record) error
}

// Config is what diagnostics need.
type Config struct {
	DB   *store.DB
	Gate *gate.Gate
	Log  *audit.Log
	Site arm.Site
	Now  func() time.Time
	Warn *slog.Logger
	// Append adds to the end of an append blob of a storage account, which it makes,
	// with its container, if it is not there.
	Append func(ctx context.Context, account arm.ID, container, name string, data []byte) error
	Sinks  []Named // those of the server; none by default
	// Directory tells of an entry which of Entra's logs it is of, "" for none, and its
	// record there; nil: of none.
	Directory func(e audit.Entry) (category string, record map[string]any)
}

// Diagnostics sends what the audit log tells to where diagnostic settings say. The
// log is the queue: a sink has a cursor in it and nothing else, so it gets all that
// it should after any outage, and nothing of it waits in memory.
type Diagnostics struct {
	Config

	mu       sync.Mutex // guards what follows
	states   map[string]*state
	version  string // of the settings that follow
	settings []*setting
}

// state is how deliveries to one sink go.
type state struct {
	busy    bool
	cursor  cursorRow
	failed  int    // deliveries in a row
	err     string // why the last one failed
	errAt   time.Time
	notTill time.Time // the next try
}

// cursorRow is how far a sink got. It is kept.
type cursorRow struct {
	Seq    uint64    // the last entry that it has, or that it does not want
	At     time.Time // the last delivery
	Missed uint64    // entries that were pruned before they could be looked at, and records that the sink rejected
}

// NewDiagnostics makes the service; nothing is sent until Run.
func NewDiagnostics(c Config) *Diagnostics {
	return &Diagnostics{Config: c, states: map[string]*state{}}
}

const (
	table = "diagnostics" // "version", and "cursor|SINK" for each sink

	every    = 2 * time.Second // how often the log is looked at
	atOnce   = 200             // entries looked at in one go, which are all that a delivery holds in memory
	patience = 30 * time.Second
	backoff  = time.Second     // after the first failure; twice as long after each more
	longest  = 5 * time.Minute // between two tries
	idle     = 10_000          // entries that a cursor passes by before it is kept, where no delivery keeps it
)

// WorkerName is the name of the worker that writes to storage accounts for
// diagnostic settings. What it does is sent nowhere: it would never end.
const WorkerName = "diagnostics"

// changed notes, in the transaction of a change, that settings are others now.
func changed(tx *store.Tx) error { return store.PutJSON(tx, table, "version", arm.NewHex()) }

// Run delivers until ctx is done.
func (d *Diagnostics) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := d.round(ctx, &work); err != nil && ctx.Err() == nil {
			d.Warn.Error("the diagnostic settings can't be read", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Flush makes one round of deliveries and returns when it is over.
func (d *Diagnostics) Flush(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	return d.round(ctx, &work)
}

// round begins a delivery to each sink that waits for none.
func (d *Diagnostics) round(ctx context.Context, work *sync.WaitGroup) error {
	wanted, err := d.wanted(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.states, func(key string, s *state) bool { return !s.busy && !slices.Contains(wanted, key) })
	for _, key := range wanted {
		s := d.states[key]
		if s == nil {
			s = &state{}
			d.states[key] = s
		}
		if s.busy || d.Now().Before(s.notTill) {
			continue
		}
		s.busy = true
		work.Go(func() { d.drain(ctx, key, s) })
	}
	return nil
}

// wanted are the sinks that anything is to be sent to.
func (d *Diagnostics) wanted(ctx context.Context) (out []string, err error) {
	err = d.DB.View(ctx, func(tx *store.Tx) error {
		list, err := d.load(tx)
		for _, s := range list {
			out = append(out, s.props.sinks()...)
		}
		return err
	})
	for _, n := range d.Sinks {
		if n.Everything {
			out = append(out, n.key())
		}
	}
	slices.Sort(out)
	return slices.Compact(out), err
}

// load is all settings as tx has them.
func (d *Diagnostics) load(tx *store.Tx) ([]*setting, error) {
	version, ok, err := store.GetJSON[string](tx, table, "version")
	if err != nil || !ok {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.version == version {
		return d.settings, nil
	}
	docs, err := resource.List(tx, settingType, arm.Root, "", 0)
	if err != nil {
		return nil, err
	}
	tenants, err := resource.List(tx, tenantSettingType, arm.Root, "", 0)
	if err != nil {
		return nil, err
	}
	docs = append(docs, tenants...)
	list := make([]*setting, len(docs))
	for i, doc := range docs {
		if list[i], err = readSetting(doc); err != nil {
			return nil, err
		}
	}
	d.version, d.settings = version, list
	return list, nil
}

// drain delivers to one sink until it has all, or fails.
func (d *Diagnostics) drain(ctx context.Context, key string, s *state) {
	err := d.deliver(ctx, key, s)
	d.mu.Lock()
	defer d.mu.Unlock()
	s.busy = false
	if err == nil || ctx.Err() != nil {
		s.failed, s.notTill = 0, time.Time{}
		if err == nil {
			s.err = ""
		}
		return
	}
	wait := min(backoff<<min(s.failed, 20), longest)
	s.failed++
	s.err, s.errAt, s.notTill = told(err), d.Now().UTC(), d.Now().Add(wait)
	d.Warn.Warn("a delivery of logs failed", "sink", key, "times", s.failed, "nextIn", wait, "error", err)
}

// told is what of an error those may see who may see the settings: not where in
// the network the sinks of the server are.
func told(err error) string {
	if e, ok := errors.AsType[*arm.Error](err); ok && gate.Status(err) < http.StatusInternalServerError {
		return string(e.Code) + ": " + e.Message
	}
	return "the sink does not take the logs; the server's own log says why"
}

func (d *Diagnostics) deliver(ctx context.Context, key string, s *state) error {
	if err := d.Log.Sync(ctx); err != nil {
		return err
	}
	sink, err := d.sink(key)
	if err != nil {
		return err
	}
	for {
		p, err := d.next(ctx, key, s)
		if err != nil {
			return err
		}
		if p.gone {
			return d.forget(ctx, key)
		}
		if err := p.refusal; err != nil {
			return err
		}
		if len(p.records) > 0 {
			within, cancel := context.WithTimeout(ctx, patience)
			err = sink.Deliver(within, p.records)
			cancel()
			if r, ok := errors.AsType[rejected](err); ok {
				d.Warn.Error("a sink rejected logs", "sink", key, "records", r.n, "said", r.said)
				p.cursor.Missed += uint64(r.n)
			} else if err != nil {
				return err
			}
			p.cursor.At = d.Now().UTC()
		}
		if err := d.reach(ctx, key, s, p); err != nil || p.cursor.Seq >= p.end {
			return err
		}
	}
}

// part is the next part of the log, for one sink.
type part struct {
	records []Record
	cursor  cursorRow // behind it
	kept    uint64    // the cursor that is kept
	end     uint64    // of the log
	gone    bool      // nothing is to be sent there any more
	refusal error     // why nothing may be sent there
}

// next looks at the entries behind the sink's cursor, in one snapshot with the
// settings: a setting is there for all entries that come after its own.
func (d *Diagnostics) next(ctx context.Context, key string, s *state) (p part, err error) {
	err = d.DB.View(ctx, func(tx *store.Tx) error {
		settings, err := d.load(tx)
		if err != nil {
			return err
		}
		settings = slices.DeleteFunc(slices.Clone(settings), func(x *setting) bool { return !slices.Contains(x.props.sinks(), key) })
		all := d.everything(key)
		if p.gone = len(settings) == 0 && !all; p.gone {
			return nil
		}
		if settings, err = trusted(tx, key, settings); err != nil || len(settings) == 0 && !all {
			p.refusal = arm.Errorf(arm.NotFound, "the storage account %s is gone, or is another of the same name; delete the settings that name it, or write them anew", key)
			return err
		}
		var ok bool
		if p.cursor, ok, err = store.GetJSON[cursorRow](tx, table, "cursor|"+key); err != nil {
			return err
		}
		p.kept = p.cursor.Seq
		if !ok && !all {
			p.cursor.Seq = beginning(settings)
		}
		p.cursor.Seq = max(p.cursor.Seq, s.cursor.Seq)
		if p.end, err = audit.End(tx); err != nil {
			return err
		}
		list, err := audit.After(tx, p.cursor.Seq, atOnce)
		if err != nil {
			return err
		}
		till := min(p.cursor.Seq+atOnce, p.end)
		p.cursor.Missed += till - p.cursor.Seq - uint64(len(list))
		p.cursor.Seq = till
		for i := range list {
			if err := d.choose(&p, settings, all, &list[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return p, err
}

// beginning is the last entry that none of the settings sends.
func beginning(settings []*setting) uint64 {
	first := ^uint64(0)
	for _, s := range settings {
		for _, since := range s.inner.Since {
			first = min(first, since)
		}
	}
	if first == ^uint64(0) {
		return 0
	}
	return first
}

// choose adds the entry to the part as often as it is to be sent.
func (d *Diagnostics) choose(p *part, settings []*setting, all bool, e *audit.Entry) error {
	if e.Caller == "system:"+WorkerName {
		return nil
	}
	add := func(about arm.ID, category string) error {
		r, err := record(e, about, category, d.Site.Location)
		p.records = append(p.records, r)
		return err
	}
	id, err := arm.ParseID(e.Target)
	if all {
		if err != nil {
			id = arm.Root
		}
		return add(id, "Audit")
	}
	if err := d.chooseDirectory(p, settings, e); err != nil {
		return err
	}
	if err != nil {
		return nil // what is about no resource is of no setting
	}
	for _, s := range settings {
		src, ok := sourceOf(s.about)
		if !ok || !id.Within(s.about) && !(isBlobService(s.about) && id.Key() == s.about.Parent().Key()) {
			continue
		}
		for _, c := range src.of(e) {
			if since, ok := s.inner.Since[c]; ok && e.Seq > since {
				if err := add(s.about, c); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// trusted leaves out settings whose storage account is not the one any more that
// somebody had the right to send to.
func trusted(tx *store.Tx, key string, settings []*setting) (out []*setting, err error) {
	for _, s := range settings {
		if s.props.Storage.Key() == key {
			d, err := resource.Load(tx, s.props.Storage)
			if err != nil {
				return nil, err
			}
			if d == nil || d.Instance != s.inner.Account {
				continue
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// reach notes that the sink has all up to the part's cursor.
func (d *Diagnostics) reach(ctx context.Context, key string, s *state, p part) error {
	if len(p.records) > 0 || p.cursor.Seq >= p.kept+idle {
		if err := d.DB.Do(ctx, func(tx *store.Tx) error { return store.PutJSON(tx, table, "cursor|"+key, p.cursor) }); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.cursor = p.cursor
	return nil
}

// forget drops the cursor of a sink that nothing is sent to any more.
func (d *Diagnostics) forget(ctx context.Context, key string) error {
	return d.DB.Do(ctx, func(tx *store.Tx) error { return tx.Delete(table, "cursor|"+key) })
}

// sink is where a key leads.
func (d *Diagnostics) sink(key string) (Sink, error) {
	for _, n := range d.Sinks {
		if n.key() == key {
			return n.Sink, nil
		}
	}
	if strings.HasPrefix(key, strings.ToLower(sinkPrefix)) {
		return nil, arm.Errorf(arm.NotFound, "the server's administrator has taken the sink away")
	}
	account, err := arm.ParseID(key)
	if err != nil {
		return nil, err
	}
	return container{account: account, append: d.Append}, nil
}

// deliveries tells how the deliveries of a resource's settings go.
func (d *Diagnostics) deliveries(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	about, err := g.On(readSettings)
	if err != nil {
		return err
	}
	list := []any{}
	err = d.DB.View(r.Context(), func(tx *store.Tx) error {
		if _, err := existing(tx, about); err != nil {
			return err
		}
		settings, err := settingsAt(tx, settingType, about)
		if err != nil {
			return err
		}
		end, err := audit.End(tx)
		for _, s := range settings {
			for _, key := range s.props.sinks() {
				list = append(list, map[string]any{"name": s.id.Name(), "diagnosticSettingId": s.id, "sink": key, "properties": d.stateOf(key, end)})
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": list})
	return nil
}

func (d *Diagnostics) stateOf(key string, end uint64) map[string]any {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.states[key]
	if s == nil {
		return map[string]any{"status": "Waiting"}
	}
	out := map[string]any{"status": "Delivering", "behind": end - min(end, s.cursor.Seq), "missed": s.cursor.Missed}
	if !s.cursor.At.IsZero() {
		out["lastDelivery"] = s.cursor.At
	}
	if s.failed > 0 {
		out["status"], out["error"], out["errorTime"], out["failedTimes"], out["nextTry"] = "Failing", s.err, s.errAt, s.failed, s.notTill.UTC()
	}
	return out
}
