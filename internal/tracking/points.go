package tracking

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// A point that comes is put into the run's tail, one row for all its metrics,
// so that a batch writes two rows however many metrics it has. When the tail is
// long, its points are sorted into blocks, each of one metric, from which a
// history is read in order. Blocks may overlap, for time may run backwards.

const (
	tailPoints = 512 // that a tail has at most, or
	tailEach   = 8   // so many for every metric, if that is more
	markSize   = 48  // bytes of a point in a key
)

var errBlock = errors.New("tracking: a row of points is malformed")

// packed is a point, and of which metric, by its place among the names.
type packed struct {
	name int
	point
}

// ledger is what a run keeps of its metrics beside the blocks.
type ledger struct {
	names []string
	last  []point
	seq   uint64 // how many times the tail was sorted into blocks
	tail  []packed
}

func (p point) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, sortable(p.t))
	b = binary.BigEndian.AppendUint64(b, sortable(p.step))
	return binary.BigEndian.AppendUint64(b, sortableFloat(p.v))
}

func readPoint(b []byte) point {
	return point{t: unsortable(binary.BigEndian.Uint64(b)), step: unsortable(binary.BigEndian.Uint64(b[8:])), v: unsortableFloat(binary.BigEndian.Uint64(b[16:]))}
}

// order is that of a history: by time, then step, then value.
func (p point) order(q point) int {
	return cmp.Or(cmp.Compare(p.t, q.t), cmp.Compare(p.step, q.step), cmp.Compare(sortableFloat(p.v), sortableFloat(q.v)))
}

func (p point) mark() string {
	return hex64(sortable(p.t)) + hex64(sortable(p.step)) + hex64(sortableFloat(p.v))
}

func loadLedger(tx *store.Tx, at string) (l ledger, err error) {
	b, err := tx.Get(latest, at)
	if err != nil {
		return l, err
	}
	if err := l.readLatest(b); err != nil {
		return l, err
	}
	if b, err = tx.Get(tail, at); err != nil {
		return l, err
	}
	return l, l.readTail(b)
}

func (l *ledger) readLatest(b []byte) error {
	r := bytes.NewReader(b)
	for r.Len() > 0 {
		n, err := binary.ReadUvarint(r)
		if err != nil || n+32 > uint64(r.Len()) {
			return errBlock
		}
		name, raw := make([]byte, n), make([]byte, 32)
		_, _ = r.Read(name) // there is enough, as was just seen
		_, _ = r.Read(raw)
		p := readPoint(raw)
		p.n = int64(binary.BigEndian.Uint64(raw[24:]))
		l.names, l.last = append(l.names, string(name)), append(l.last, p)
	}
	return nil
}

func (l *ledger) readTail(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	seq, n := binary.Uvarint(b)
	if n <= 0 {
		return errBlock
	}
	l.seq, b = seq, b[n:]
	for len(b) > 0 {
		i, n := binary.Uvarint(b)
		if n <= 0 || len(b) < n+24 || i >= uint64(len(l.names)) {
			return errBlock
		}
		l.tail = append(l.tail, packed{int(i), readPoint(b[n:])})
		b = b[n+24:]
	}
	return nil
}

// save keeps the ledger, and sorts a tail that is long into blocks.
func (l *ledger) save(tx *store.Tx, at string) error {
	if len(l.tail) > max(tailPoints, tailEach*len(l.names)) {
		if err := l.settle(tx, at); err != nil {
			return err
		}
	}
	var b []byte
	for i, name := range l.names {
		b = append(binary.AppendUvarint(b, uint64(len(name))), name...)
		b = binary.BigEndian.AppendUint64(l.last[i].append(b), uint64(l.last[i].n))
	}
	if err := tx.Put(latest, at, b); err != nil {
		return err
	}
	b = binary.AppendUvarint(nil, l.seq)
	for _, p := range l.tail {
		b = p.append(binary.AppendUvarint(b, uint64(p.name)))
	}
	return tx.Put(tail, at, b)
}

// settle makes one block of every metric in the tail.
func (l *ledger) settle(tx *store.Tx, at string) error {
	slices.SortStableFunc(l.tail, func(a, b packed) int { return cmp.Or(cmp.Compare(a.name, b.name), a.order(b.point)) })
	l.seq++
	for i := 0; i < len(l.tail); {
		j, b := i, []byte(nil)
		for ; j < len(l.tail) && l.tail[j].name == l.tail[i].name; j++ {
			b = l.tail[j].append(b)
		}
		block := blockPrefix(at, l.names[l.tail[i].name]) + l.tail[i].mark() + "|" + hex64(l.seq)
		if err := tx.Put(points, block, b); err != nil {
			return err
		}
		i = j
	}
	l.tail = nil
	return nil
}

func blockPrefix(at, name string) string { return key(at, name, "") }

// loadLatest is the last value of every metric of a run.
func loadLatest(tx *store.Tx, r *run) (map[string]point, error) {
	b, err := tx.Get(latest, r.at())
	if err != nil || len(b) == 0 {
		return nil, err
	}
	var l ledger
	if err := l.readLatest(b); err != nil {
		return nil, err
	}
	out := make(map[string]point, len(l.names))
	for i, name := range l.names {
		out[name] = l.last[i]
	}
	return out, nil
}

// addMetrics keeps points of a run.
func addMetrics(tx *store.Tx, ws string, r *run, metrics []metric) error {
	if len(metrics) == 0 {
		return nil
	}
	if err := measure(tx, ws, r, metrics); err != nil {
		return err
	}
	l, err := loadLedger(tx, r.at())
	if err != nil {
		return err
	}
	at := make(map[string]int, len(l.names))
	for i, name := range l.names {
		at[name] = i
	}
	for _, x := range metrics {
		i, ok := at[x.key]
		if !ok {
			i = len(l.names)
			at[x.key] = i
			l.names, l.last = append(l.names, x.key), append(l.last, x.point)
		}
		n := l.last[i].n + 1
		if x.point.after(l.last[i]) {
			l.last[i] = x.point
		}
		if l.last[i].n = n; n > maxPoints {
			return arm.Errorf(limited, "Metric '%s' of run %s would have more than %d values.", x.key, r.ID, maxPoints)
		}
		l.tail = append(l.tail, packed{i, x.point})
	}
	if len(l.names) > maxMetrics {
		return arm.Errorf(limited, "Run %s would have %d metrics; at most %d are allowed.", r.ID, len(l.names), maxMetrics)
	}
	return l.save(tx, r.at())
}

// A page's mark is the last point that was shown, and where the first block
// begins that has more.
func isMark(s string) bool {
	if len(s) != 2*markSize {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}

func markPoint(s string) point {
	var u [3]uint64
	for i := range u {
		u[i], _ = strconv.ParseUint(s[16*i:16*i+16], 16, 64) // isMark has seen that it can
	}
	return point{t: unsortable(u[0]), step: unsortable(u[1]), v: unsortableFloat(u[2])}
}

// history is up to limit values of a metric in order, after a mark. The same
// point logged twice is shown once.
func history(tx *store.Tx, r *run, name, mark string, limit int) (out []metric, next string, err error) {
	h := pager{limit: limit}
	prefix, from := blockPrefix(r.at(), name), ""
	if mark != "" {
		p := markPoint(mark)
		h.mark, from = &p, prefix+mark[markSize:]
	}
	l, err := loadLedger(tx, r.at())
	if err != nil {
		return nil, "", err
	}
	if i := slices.Index(l.names, name); i >= 0 {
		for _, p := range l.tail {
			if p.name == i {
				h.add(p.point)
			}
		}
	}
	if err := h.blocks(tx, prefix, from); err != nil {
		return nil, "", err
	}
	h.trim()
	for _, p := range h.best {
		out = append(out, metric{key: name, point: p})
	}
	if h.more && len(out) > 0 {
		next = out[len(out)-1].mark() + h.first(out[len(out)-1].point)
	}
	return out, next, nil
}

// pager gathers the points of one page: the first ones after the mark.
type pager struct {
	limit  int
	mark   *point
	best   []point // at most a few pages of them
	more   bool    // some were left out
	starts []struct {
		at   string // where a block begins
		last point  // and its last point
	}
}

func (h *pager) add(p point) {
	if h.mark != nil && p.order(*h.mark) <= 0 {
		return
	}
	if h.best = append(h.best, p); len(h.best) > 2*h.limit+4096 {
		h.trim()
	}
}

// trim keeps one page of the points, in order.
func (h *pager) trim() {
	slices.SortFunc(h.best, point.order)
	h.best = slices.CompactFunc(h.best, func(a, b point) bool { return a.order(b) == 0 })
	if len(h.best) > h.limit {
		h.best, h.more = h.best[:h.limit], true
	}
}

// blocks walks the metric's blocks, beginning at from, until none can have a
// point for the page.
func (h *pager) blocks(tx *store.Tx, prefix, from string) error {
	const part = 64
	after := from
	for {
		rows, err := tx.Scan(points, prefix, after, part)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if after = row.Key; len(row.Value) == 0 || len(row.Value)%24 != 0 {
				return errBlock
			}
			if h.full(readPoint(row.Value)) {
				h.more = true
				return nil
			}
			h.starts = append(h.starts, struct {
				at   string
				last point
			}{row.Key[len(prefix) : len(prefix)+markSize], readPoint(row.Value[len(row.Value)-24:])})
			for b := row.Value; len(b) > 0; b = b[24:] {
				h.add(readPoint(b))
			}
		}
		if len(rows) < part {
			return nil
		}
	}
}

// full reports whether there is a page of points that all come before p.
func (h *pager) full(p point) bool {
	if len(h.best) < h.limit {
		return false
	}
	h.trim()
	return len(h.best) == h.limit && h.best[h.limit-1].order(p) < 0
}

// first is where the first block begins that has points after p.
func (h *pager) first(p point) string {
	for _, s := range h.starts {
		if s.last.order(p) > 0 {
			return s.at
		}
	}
	return p.mark() // what is left lies in blocks that begin behind p, and in the tail
}
