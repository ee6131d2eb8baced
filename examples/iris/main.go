// Command iris is a training job: it fits a softmax regression to R. A. Fisher's
// iris measurements (1936), logs what it does by the MLflow protocol and leaves
// the model as an artifact of its run and as a version in the model registry.
//
// It needs nothing but the environment that every job has: MLFLOW_TRACKING_URI,
// MLFLOW_TRACKING_TOKEN and MLFLOW_RUN_ID.
//
//	iris train --data iris.csv --epochs 400
//	iris try URL...     call the URLs with the run's token and print what they answer
package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "iris:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 1 && args[0] == "try" {
		return try(args[1:])
	}
	if len(args) == 0 || args[0] != "train" {
		return errors.New("usage: iris train [--data FILE] [--epochs N] [--rate R] | iris try URL [URL]")
	}
	fl := flag.NewFlagSet("train", flag.ContinueOnError)
	data := fl.String("data", "iris.csv", "measurements, one flower a line")
	epochs := fl.Int("epochs", 400, "passes over the training set")
	rate := fl.Float64("rate", 0.1, "learning rate")
	seed := fl.Uint64("seed", 1, "decides which flowers are held back for the test")
	out := fl.String("output", "outputs", "folder for the model")
	if err := fl.Parse(args[1:]); err != nil {
		return err
	}
	train, test, err := load(*data, *seed)
	if err != nil {
		return err
	}
	t, err := newTracker()
	if err != nil {
		return err
	}
	if err := t.params(map[string]string{"epochs": fmt.Sprint(*epochs), "rate": fmt.Sprint(*rate), "seed": fmt.Sprint(*seed), "train_rows": fmt.Sprint(len(train))}); err != nil {
		return err
	}
	m, err := fit(train, *epochs, *rate, t.metric)
	if err != nil {
		return err
	}
	acc := m.accuracy(test)
	if err := t.metric("test_accuracy", acc, *epochs); err != nil {
		return err
	}
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Printf("trained on %d flowers; right about %.1f %% of the %d held back\n", len(train), 100*acc, len(test))
	return m.save(*out, t)
}

// flower is one row: four measurements in standard units, and its species.
type flower struct {
	x       [4]float64
	species int
}

var species = []string{"setosa", "versicolor", "virginica"}

// load reads the measurements, brings them to mean 0 and deviation 1, and holds
// a fifth of them back.
func load(path string, seed uint64) (train, test []flower, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, nil, err
	}
	var all []flower
	for i, r := range rows[1:] {
		var fl flower
		for j := range fl.x {
			if fl.x[j], err = strconv.ParseFloat(r[j], 64); err != nil {
				return nil, nil, fmt.Errorf("row %d: %w", i+2, err)
			}
		}
		if fl.species = slices.Index(species, r[4]); fl.species < 0 {
			return nil, nil, fmt.Errorf("row %d: unknown species %q", i+2, r[4])
		}
		all = append(all, fl)
	}
	standardize(all)
	rng := rand.New(rand.NewPCG(seed, 7))
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	cut := len(all) * 4 / 5
	return all[:cut], all[cut:], nil
}

func standardize(all []flower) {
	for j := range 4 {
		var sum, sq float64
		for _, f := range all {
			sum += f.x[j]
			sq += f.x[j] * f.x[j]
		}
		mean := sum / float64(len(all))
		dev := math.Sqrt(sq/float64(len(all)) - mean*mean)
		for i := range all {
			all[i].x[j] = (all[i].x[j] - mean) / dev
		}
	}
}

// model is a weight for every species and measurement, and a bias at the end.
type model struct {
	Species []string      `json:"species"`
	Weights [3][5]float64 `json:"weights"`
}

func (m *model) probabilities(x [4]float64) (p [3]float64) {
	top, sum := math.Inf(-1), 0.0
	for k := range p {
		p[k] = m.Weights[k][4]
		for j, v := range x {
			p[k] += m.Weights[k][j] * v
		}
		top = max(top, p[k])
	}
	for k := range p {
		p[k] = math.Exp(p[k] - top)
		sum += p[k]
	}
	for k := range p {
		p[k] /= sum
	}
	return p
}

// fit goes down the gradient of the cross entropy, and tells how it goes at
// every twentieth pass.
func fit(train []flower, epochs int, rate float64, tell func(key string, value float64, step int) error) (*model, error) {
	m := &model{Species: species}
	for epoch := range epochs {
		var grad [3][5]float64
		loss := 0.0
		for _, f := range train {
			p := m.probabilities(f.x)
			loss -= math.Log(p[f.species])
			p[f.species]--
			for k := range p {
				for j, v := range f.x {
					grad[k][j] += p[k] * v
				}
				grad[k][4] += p[k]
			}
		}
		for k := range grad {
			for j := range grad[k] {
				m.Weights[k][j] -= rate * grad[k][j] / float64(len(train))
			}
		}
		if epoch%20 != 0 {
			continue
		}
		fmt.Printf("epoch %3d  loss %.4f\n", epoch, loss/float64(len(train)))
		if err := errors.Join(tell("loss", loss/float64(len(train)), epoch), tell("train_accuracy", m.accuracy(train), epoch)); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *model) accuracy(on []flower) float64 {
	right := 0
	for _, f := range on {
		p := m.probabilities(f.x)
		best := 0
		for k := range p {
			if p[k] > p[best] {
				best = k
			}
		}
		if best == f.species {
			right++
		}
	}
	return float64(right) / float64(len(on))
}

// save keeps the model in a folder, as an artifact of the run, and in the
// model registry.
func (m *model) save(dir string, t *tracker) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "model.json"), b, 0o644); err != nil {
		return err
	}
	if err := t.upload("model/model.json", b); err != nil {
		return err
	}
	version, err := t.register("iris", "model")
	if err != nil {
		return err
	}
	fmt.Printf("the model is version %s of iris in the registry\n", version)
	return nil
}
