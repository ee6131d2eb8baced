package tracking

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What a filter means.
func TestFilter(t *testing.T) {
	h := hit{
		run:     &run{ID: "r1", Name: "first", Status: "Completed", Start: 100, Experiment: "0", User: "ann", Params: map[string]string{"lr": "0.1", "a b": "x", "q": "it's"}, Tags: map[string]string{"mlflow.source.name": "train.py", "t": ""}, Datasets: []dataset{{Name: "iris", Digest: "d1"}, {Name: "wine", Digest: "d2"}}},
		metrics: map[string]point{"loss": {v: 0.5}, "nan": {v: math.NaN()}, "a/b c": {v: 1}},
	}
	for filter, want := range map[string]bool{
		"": true, "   ": true,
		"metrics.loss < 1": true, "metrics.loss >= 0.5 and metric.loss<=.5": true, "metrics.loss = 5e-1": true, "metrics.loss != 0.5": false, "metrics.none != 1": false, "metrics.none < 1": false,
		"metrics.nan > 0": false, "metrics.nan < 0": false, "metrics.nan = 0": false, "metrics.nan != 0": true, "metrics.`a/b c` = 1": true, `metrics."a/b c" = 1`: true,
		"params.lr = '0.1'": true, `param.lr = "0.1"`: true, "parameter.`a b` LIKE 'X'": false, "params.`a b` ilike 'X'": true, "params.q = 'it''s'": true, "params.none != 'x'": false,
		"tags.mlflow.source.name LIKE 'train%'": true, "tags.mlflow.source.name LIKE 'Train%'": false, "tags.mlflow.source.name ILIKE 'TRAIN.P_'": true, "tag.`mlflow.source.name` = 'train.py'": true,
		"tags.mlflow.runName = 'first'": true, "tags.t = ''": true, "tags.none IS NULL": true, "tags.t IS NOT NULL": true, "params.lr IS NULL": false,
		"status = 'FINISHED'": true, "attributes.status != 'FINISHED'": false, "run_id IN ('r0', 'r1')": true, "run_id NOT IN ('r1')": false, "attr.run_name = 'first'": true, "start_time > 99": true, "created = 100": true, "end_time > 0": false,
		"dataset.name = 'wine'": true, "datasets.digest IN ('d3')": false, "run.`run_id` = 'r1'": true, "user_id = 'ann' AND metrics.loss > 0 AND params.lr LIKE '%.%'": true,
	} {
		q, err := runGrammar.query(filter, nil)
		if err != nil {
			t.Errorf("%s: %v", filter, err)
		} else if got := q.matches(h); got != want {
			t.Errorf("%s = %v, want %v", filter, got, want)
		}
	}
	for _, filter := range []string{
		"metrics.loss", "metrics.loss <", "metrics.loss < 'x'", "metrics.loss LIKE 'x'", "metrics.loss < 1 OR 1=1", "metrics.loss < 1 AND", "AND metrics.loss < 1", "metrics.loss < 1 metrics.loss < 2", "metrics.loss < 1; DROP TABLE runs", "metrics.loss < 1 -- x",
		"params.lr = 1", "params.lr > '1'", "params.lr = 'x", "params.lr = x", "nope.x = 'y'", "nope = 'y'", "run_id IN ()", "run_id IN ('a',)", "run_id IN 'a'", "status IN ('a')", "tags.x IS", "metrics.x IS NULL", "start_time = '1'", "start_time IN ('1')",
		"metrics.loss == 1", "metrics.loss <> 1", "metrics. loss = 1", "dataset.source = 'x'", "'a' = 'a'", "1 = 1", "(metrics.loss < 1)", "metrics.loss < NaN", "metrics.loss < 1e999 AND", "status RLIKE 'x'", "tags.x NOT LIKE 'y'", strings.Repeat("a", maxFilter+1), strings.Repeat("start_time > 1 AND ", maxClauses) + "start_time > 1 AND start_time > 2",
	} {
		if _, err := runGrammar.query(filter, nil); err == nil {
			t.Errorf("%.80s is taken", filter)
		}
	}
	for _, by := range []string{"metrics.loss DESCENDING", "metrics.loss DESC NULLS LAST", "nope", "dataset.name", "start_time,run_id", "", "'start_time'", "start_time; x"} {
		if _, err := runGrammar.query("", []string{by}); err == nil {
			t.Errorf("the order %q is taken", by)
		}
	}
}

// A pattern of any length against a text of any length ends soon.
func TestLikeEnds(t *testing.T) {
	s, p := []rune(strings.Repeat("a", 8000)), []rune(strings.Repeat("%a", 3000)+"b")
	if like(s, p) {
		t.Error("it matches")
	}
}

// render writes a clause as a filter would.
func (c clause) render() string {
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	out := c.kind + ".`" + strings.ReplaceAll(c.key, "`", "``") + "` " + c.op
	switch {
	case strings.HasPrefix(c.op, "IS"):
	case c.list != nil:
		all := make([]string, len(c.list))
		for i, x := range c.list {
			all[i] = quote(x)
		}
		out += " (" + strings.Join(all, ", ") + ")"
	case c.want.isInt:
		out += " " + strconv.FormatInt(c.want.integer, 10)
	case c.want.isNum:
		out += " " + strconv.FormatFloat(c.want.num, 'e', -1, 64)
	default:
		out += " " + quote(c.want.text)
	}
	return out
}

// MLF-08: no filter breaks the parser, and one that is taken means the same
// when it is written again from what was understood.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{"metrics.loss < 0.1 AND params.`a b` LIKE '%x_'", "run_id NOT IN ('a', \"b\")", "tags.\"x\" IS NOT NULL", "a.b.c = 'd''e'", "`", "''''", "start_time >= -1e5", "tag.`` = ''", "datasets.name ilike 'ß'", "attribute.status='x'and status != 'y'"} {
		f.Add(s)
	}
	h := hit{run: &run{ID: "r", Name: "n", Params: map[string]string{"a": "b"}, Tags: map[string]string{}}, metrics: map[string]point{"m": {v: 1}}}
	f.Fuzz(func(t *testing.T, s string) {
		for _, gr := range []grammar{runGrammar, experimentGrammar, modelGrammar, versionGrammar, loggedGrammar} {
			clauses, err := gr.parse(s)
			if err != nil {
				continue
			}
			parts := make([]string, len(clauses))
			for i, c := range clauses {
				parts[i] = c.render()
			}
			again, err := gr.parse(strings.Join(parts, " AND "))
			if err != nil || !reflect.DeepEqual(clauses, again) && len(clauses) > 0 {
				t.Fatalf("%q is %+v, and written again %q is %+v, %v", s, clauses, strings.Join(parts, " AND "), again, err)
			}
			query{clauses: clauses}.matches(h)
		}
		_, _ = runGrammar.term(s)
	})
}

// Filters and orders mean what they mean to MLflow's own code: set
// MLFLOW_PYTHON to a Python that has it, and the two are compared at random.
func TestFilterAgainstReference(t *testing.T) {
	python := os.Getenv("MLFLOW_PYTHON")
	if python == "" {
		t.Skip("MLFLOW_PYTHON names no Python that has mlflow or mlflow-skinny")
	}
	out, err := exec.Command(python, "testdata/filters.py", "4000").Output()
	if err != nil {
		t.Fatal(err)
	}
	var in struct {
		Runs []struct {
			ID      string
			Name    string
			Status  string
			Start   int64
			Metrics map[string]float64
			Params  map[string]string
			Tags    map[string]string
		}
		Cases []struct {
			Filter string
			Order  []string
			Want   []string
			Error  string
		}
	}
	if err := json.Unmarshal(out, &in); err != nil {
		t.Fatal(err)
	}
	var hits []hit
	for _, r := range in.Runs {
		h := hit{run: &run{ID: r.ID, Name: r.Name, Status: fromMLflow[r.Status], Start: r.Start, Params: r.Params, Tags: r.Tags}, metrics: map[string]point{}}
		for k, v := range r.Metrics {
			h.metrics[k] = point{v: v}
		}
		hits = append(hits, h)
	}
	wrong, refused := 0, 0
	for _, c := range in.Cases {
		q, err := runGrammar.query(c.Filter, c.Order)
		var got []string
		if err == nil {
			var found []hit
			for _, h := range hits {
				if q.matches(h) {
					found = append(found, h)
				}
			}
			sortBy(q, found)
			for _, h := range found {
				got = append(got, h.ID)
			}
		} else {
			refused++
		}
		if (err != nil) != (c.Error != "") || err == nil && !slices.Equal(got, c.Want) {
			if wrong++; wrong <= 20 {
				t.Errorf("%s order %v:\n got %v %v\nwant %v %s", c.Filter, c.Order, got, err, c.Want, c.Error)
			}
		}
	}
	t.Logf("%d cases, %d refused by both, %d mismatches", len(in.Cases), refused, wrong)
}
