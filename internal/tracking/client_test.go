package tracking

import (
	"os"
	"os/exec"
	"testing"
)

// The stock client of MLflow works: set MLFLOW_PYTHON to a Python that has it.
func TestMLflowClient(t *testing.T) {
	python := os.Getenv("MLFLOW_PYTHON")
	if python == "" {
		t.Skip("MLFLOW_PYTHON names no Python that has mlflow or mlflow-skinny")
	}
	w := newWorld(t)
	cmd := exec.Command(python, "testdata/client.py")
	cmd.Env = append(os.Environ(), "MLFLOW_TRACKING_URI="+w.url+"/mlflow/v2.0"+ws1.String(), "MLFLOW_TRACKING_TOKEN=ann", "RUN_WORKSPACE=ws1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES=0")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
