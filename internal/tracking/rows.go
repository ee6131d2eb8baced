package tracking

import (
	"math"
	"strconv"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// What is kept, by table. Every key begins with the workspace's GUID and "|", by
// which the key that guards the row is found; metrics lie under the run's number
// there, which is given once and never again.
//
//	experiments   ws|id                    an experiment
//	names         ws|name                  the id of the experiment
//	runs          ws|run                   a run: what it is, parameters, tags
//	order         ws|experiment|start|run  nothing: the runs of an experiment, the latest first
//	latest        ws|number                the last value of every metric of a run
//	tail          ws|number                the points that came last, of all metrics
//	points        ws|number|metric|first|seq a block of the metric's points, in order
//	logged        ws|id                    a logged model (MLflow 3)
//	numbers       "run"                    the last number given to a run
const (
	experiments = "tracking_experiments"
	names       = "tracking_names"
	runs        = "tracking_runs"
	order       = "tracking_order"
	latest      = "tracking_latest"
	tail        = "tracking_tail"
	points      = "tracking_points"
	logged      = "tracking_logged"
	numbers     = "tracking_numbers"
)

type pair struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// experiment is one as it is kept.
type experiment struct {
	ID      string            `json:"id"`
	Name    string            `json:"name"`
	Deleted bool              `json:"deleted,omitempty"`
	Created int64             `json:"created"` // milliseconds since 1970, as all times here
	Updated int64             `json:"updated"`
	Tags    map[string]string `json:"tags,omitempty"`
}

// run is one as it is kept.
type run struct {
	ID         string            `json:"id"`
	Number     uint64            `json:"number"`
	Place      string            `json:"place,omitempty"` // what its metrics lie under; "" for the number alone, as of old
	Name       string            `json:"name"`
	Experiment string            `json:"experiment"`
	User       string            `json:"user,omitempty"`   // as MLflow's user_id
	Object     string            `json:"object,omitempty"` // object id of who began it
	Tenant     string            `json:"tenant,omitempty"`
	Status     string            `json:"status"` // as Azure spells it
	Created    int64             `json:"created"`
	Start      int64             `json:"start"`
	End        int64             `json:"end,omitempty"`
	Modified   int64             `json:"modified"`
	Deleted    bool              `json:"deleted,omitempty"`
	Hidden     bool              `json:"hidden,omitempty"` // archived
	Job        bool              `json:"job,omitempty"`    // the run of a job, whose status only the platform sets
	Text       string            `json:"description,omitempty"`
	Error      string            `json:"error,omitempty"`
	Params     map[string]string `json:"params,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	Properties map[string]string `json:"properties,omitempty"`
	Outputs    map[string]Output `json:"outputs,omitempty"`
	Datasets   []dataset         `json:"datasets,omitempty"`
	ModelsIn   []string          `json:"modelsIn,omitempty"`
	ModelsOut  []modelOut        `json:"modelsOut,omitempty"`
}

type dataset struct {
	Name       string `json:"name"`
	Digest     string `json:"digest"`
	SourceType string `json:"source_type"`
	Source     string `json:"source"`
	Schema     string `json:"schema,omitempty"`
	Profile    string `json:"profile,omitempty"`
	Tags       []pair `json:"tags,omitempty"`
}

type modelOut struct {
	ID   string `json:"id"`
	Step int64  `json:"step"`
}

// maxRun is the most bytes that a run's parameters, tags and properties take.
const maxRun = 1 << 20

func key(parts ...string) string { return strings.Join(parts, "|") }

func runKey(ws, id string) string { return key(ws, strings.ToLower(id)) }

func orderKey(ws string, r *run) string {
	return key(ws, r.Experiment, hex64(^sortable(r.Start)), strings.ToLower(r.ID))
}

// sortable is n so that the order of the results is that of the numbers.
func sortable(n int64) uint64 { return uint64(n) ^ 1<<63 }

func unsortable(u uint64) int64 { return int64(u ^ 1<<63) }

// sortableFloat orders doubles; NaN comes last.
func sortableFloat(f float64) uint64 {
	u := math.Float64bits(f)
	if math.IsNaN(f) {
		return math.MaxUint64
	}
	if u>>63 == 1 {
		return ^u
	}
	return u | 1<<63
}

func unsortableFloat(u uint64) float64 {
	if u == math.MaxUint64 {
		return math.NaN()
	}
	if u>>63 == 1 {
		return math.Float64frombits(u &^ (1 << 63))
	}
	return math.Float64frombits(^u)
}

func hex64(u uint64) string {
	const digits = "0123456789abcdef"
	var b [16]byte
	for i := range b {
		b[i] = digits[u>>(60-4*i)&15]
	}
	return string(b[:])
}

func numberKey(n uint64) string { return strconv.FormatUint(n, 36) }

// at is what the run's metrics lie under.
func (r *run) at() string {
	if r.Place != "" {
		return r.Place
	}
	return numberKey(r.Number)
}

// number gives a new run its number.
func (r *run) number(tx *store.Tx, ws string) (err error) {
	r.Number, err = nextNumber(tx)
	r.Place = key(ws, numberKey(r.Number))
	return err
}

// Tables are those whose keys begin with the workspace's GUID and "|".
func Tables() []string {
	return []string{experiments, names, runs, order, latest, tail, points, logged}
}

// nextNumber gives out a run's number.
func nextNumber(tx *store.Tx) (uint64, error) {
	n, _, err := store.GetJSON[uint64](tx, numbers, "run")
	if err != nil {
		return 0, err
	}
	return n + 1, store.PutJSON(tx, numbers, "run", n+1)
}

func loadExperiment(tx *store.Tx, ws, id string) (experiment, error) {
	if id == "" || len(id) > 64 || strings.Contains(id, "|") {
		return experiment{}, noExperiment(id)
	}
	e, ok, err := store.GetJSON[experiment](tx, experiments, key(ws, id))
	if err == nil && !ok {
		if id == defaultExperiment.ID {
			return defaultExperiment, nil
		}
		err = noExperiment(id)
	}
	return e, err
}

func noExperiment(id string) error {
	return arm.Errorf(notThere, "No Experiment with id=%s exists", clip(id))
}

func saveExperiment(tx *store.Tx, ws string, e experiment) error {
	if err := tx.Put(names, key(ws, e.Name), []byte(e.ID)); err != nil {
		return err
	}
	return store.PutJSON(tx, experiments, key(ws, e.ID), e)
}

// experimentNamed is the experiment with a name; ok is false if there is none.
func experimentNamed(tx *store.Tx, ws, name string) (e experiment, ok bool, err error) {
	id, err := tx.Get(names, key(ws, name))
	if err != nil {
		return e, false, err
	}
	if id == nil && name == defaultExperiment.Name {
		return defaultExperiment, true, nil
	}
	if id == nil {
		return e, false, nil
	}
	e, err = loadExperiment(tx, ws, string(id))
	return e, err == nil, err
}

func loadRun(tx *store.Tx, ws, id string) (*run, error) {
	if checkRunID(id) != nil {
		return nil, noRun(id)
	}
	r, ok, err := store.GetJSON[run](tx, runs, runKey(ws, id))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, noRun(id)
	}
	return &r, nil
}

func noRun(id string) error { return arm.Errorf(notThere, "Run with id=%s not found", clip(id)) }

// activeRun is a run that one may write to.
func activeRun(tx *store.Tx, ws, id string) (*run, error) {
	r, err := loadRun(tx, ws, id)
	if err != nil {
		return nil, err
	}
	if r.Deleted {
		return nil, bad("The run %s must be in the 'active' state. Current state is deleted.", r.ID)
	}
	return r, nil
}

// saveRun keeps r; old is what it was, nil if it is new.
func saveRun(tx *store.Tx, ws string, r, old *run) error {
	size := 0
	for _, m := range []map[string]string{r.Params, r.Tags, r.Properties} {
		for k, v := range m {
			size += len(k) + len(v)
		}
	}
	if size > maxRun {
		return arm.Errorf(limited, "The parameters, tags and properties of run %s take %d bytes; at most %d are allowed.", r.ID, size, maxRun)
	}
	if old == nil || orderKey(ws, old) != orderKey(ws, r) {
		if old != nil {
			if err := tx.Delete(order, orderKey(ws, old)); err != nil {
				return err
			}
		}
		if err := tx.Put(order, orderKey(ws, r), nil); err != nil {
			return err
		}
	}
	return store.PutJSON(tx, runs, runKey(ws, r.ID), r)
}

// checkRunID says whether id can be a run's: a job's name or what MLflow makes.
func checkRunID(id string) error {
	if len(id) == 0 || len(id) > 255 || strings.Trim(id, ".") == "" {
		return bad("Invalid run ID: '%s'. It must have 1 to 255 characters and not be dots alone.", clip(id))
	}
	for i := range len(id) {
		c := id[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return bad("Invalid run ID: '%s'. It may have letters, digits, '-', '_' and '.' only.", clip(id))
		}
	}
	return nil
}
