package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// tracker speaks the MLflow REST protocol (2.0) for one run.
type tracker struct {
	base, token, run string
	artifacts        string // the run's artifact root, below the artifact service
	batch            []map[string]any
}

func newTracker() (*tracker, error) {
	t := &tracker{base: os.Getenv("MLFLOW_TRACKING_URI"), token: os.Getenv("MLFLOW_TRACKING_TOKEN"), run: os.Getenv("MLFLOW_RUN_ID")}
	if t.base == "" || t.token == "" || t.run == "" {
		return nil, fmt.Errorf("MLFLOW_TRACKING_URI, MLFLOW_TRACKING_TOKEN and MLFLOW_RUN_ID must be set")
	}
	var out struct {
		Run struct {
			Info struct {
				ArtifactURI string `json:"artifact_uri"`
			} `json:"info"`
		} `json:"run"`
	}
	if err := t.call(http.MethodGet, "/api/2.0/mlflow/runs/get?run_id="+t.run, nil, &out); err != nil {
		return nil, err
	}
	rest, ok := strings.CutPrefix(out.Run.Info.ArtifactURI, "mlflow-artifacts:/")
	if !ok {
		return nil, fmt.Errorf("the run's artifacts are at %s; this program speaks mlflow-artifacts only", out.Run.Info.ArtifactURI)
	}
	t.artifacts = strings.Trim(rest, "/")
	return t, nil
}

func (t *tracker) params(p map[string]string) error {
	var list []map[string]string
	for k, v := range p {
		list = append(list, map[string]string{"key": k, "value": v})
	}
	return t.call(http.MethodPost, "/api/2.0/mlflow/runs/log-batch", map[string]any{"run_id": t.run, "params": list}, nil)
}

// metric gathers values, which go out ten at a time.
func (t *tracker) metric(key string, value float64, step int) error {
	t.batch = append(t.batch, map[string]any{"key": key, "value": value, "timestamp": time.Now().UnixMilli(), "step": step})
	if len(t.batch) < 10 {
		return nil
	}
	return t.flush()
}

func (t *tracker) flush() error {
	if len(t.batch) == 0 {
		return nil
	}
	err := t.call(http.MethodPost, "/api/2.0/mlflow/runs/log-batch", map[string]any{"run_id": t.run, "metrics": t.batch}, nil)
	t.batch = nil
	return err
}

func (t *tracker) upload(path string, data []byte) error {
	return t.send(http.MethodPut, "/api/2.0/mlflow-artifacts/artifacts/"+t.artifacts+"/"+path, "application/octet-stream", data, nil)
}

// register makes a version of the model name out of an artifact folder of the
// run, and the model if it is new.
func (t *tracker) register(name, path string) (version string, err error) {
	err = t.call(http.MethodPost, "/api/2.0/mlflow/registered-models/create", map[string]any{"name": name}, nil)
	if err != nil && !strings.Contains(err.Error(), "RESOURCE_ALREADY_EXISTS") {
		return "", err
	}
	var out struct {
		Version struct {
			Version string `json:"version"`
		} `json:"model_version"`
	}
	err = t.call(http.MethodPost, "/api/2.0/mlflow/model-versions/create", map[string]any{
		"name": name, "run_id": t.run, "source": "mlflow-artifacts:/" + t.artifacts + "/" + path,
	}, &out)
	return out.Version.Version, err
}

func (t *tracker) call(method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	return t.send(method, path, "application/json", body, out)
}

func (t *tracker) send(method, path, contentType string, body []byte, out any) error {
	req, err := http.NewRequest(method, t.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+t.token)
	req.Header.Set("Content-Type", contentType)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, strings.SplitN(path, "?", 2)[0], res.Status, b)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// try calls each URL with the run's token and prints "tried URL STATUS REASON",
// a line for each.
func try(urls []string) error {
	for _, u := range urls {
		req, err := http.NewRequest(http.MethodGet, u, nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+os.Getenv("MLFLOW_TRACKING_TOKEN"))
		req.Header.Set("x-ms-version", "2023-11-03")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(io.LimitReader(res.Body, 4096))
		res.Body.Close()
		if err != nil {
			return err
		}
		fmt.Printf("tried %s %d %s\n", u, res.StatusCode, strings.Join(strings.Fields(string(b)), " "))
	}
	return nil
}
