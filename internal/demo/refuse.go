package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// refusals tries six things that must not work, and shows why they do not.
func (d *demo) refusals(ctx context.Context) error {
	base := d.edge.App.Site.Base()
	a, err := d.send(ctx, d.stranger.token, http.MethodGet, base+d.workspace.id+"?api-version=2024-04-01", nil)
	if err := d.refused("sam (no role) reads the workspace", a.status, a.failure(), err); err != nil {
		return err
	}
	a, err = d.send(ctx, d.reader.token, http.MethodPut, base+d.workspace.id+"/computes/ritas?api-version=2024-04-01", map[string]any{
		"location": d.edge.App.Site.Location, "properties": map[string]any{"computeType": "AmlCompute", "properties": map[string]any{"vmSize": "Standard_DS1_v2", "scaleSettings": map[string]any{"maxNodeCount": 1}}},
	})
	if err := d.refused("rita (Reader) makes a cluster", a.status, a.failure(), err); err != nil {
		return err
	}
	targets := []struct{ what, url string }{
		{"the run's token on another workspace", base + "/mlflow/v2.0" + d.workspace.group + apiML + "other-lab/api/2.0/mlflow/experiments/get-by-name?experiment_name=iris"},
		{"the run's token on Resource Manager", base + d.workspace.id + "?api-version=2024-04-01"},
		{"the run's token on storage", d.storage + "?comp=list"},
		{"the run's token on the key vault", d.vaultURL + "secrets?api-version=7.4"},
	}
	command := "./iris try"
	for _, t := range targets {
		command += " '" + t.url + "'"
	}
	log, err := d.submit(ctx, "probe-"+time.Now().UTC().Format("150405"), d.code, command)
	if err != nil {
		return err
	}
	for _, t := range targets {
		status, text, err := tried(log, t.url)
		if err := d.refused(t.what, status, text, err); err != nil {
			return err
		}
	}
	if d.turnedAway != 6 {
		return fmt.Errorf("%d things were refused; six must be", d.turnedAway)
	}
	return nil
}

// tried finds in a job's log what a URL answered to the run's token.
func tried(log, url string) (status int, text string, err error) {
	for _, l := range strings.Split(log, "\n") {
		rest, ok := strings.CutPrefix(l, "tried "+url+" ")
		if !ok {
			continue
		}
		if _, err := fmt.Sscanf(rest, "%d", &status); err != nil {
			return 0, "", err
		}
		_, text, _ = strings.Cut(rest, " ")
		return status, answer{body: []byte(text)}.failure(), nil
	}
	return 0, "", errors.New("the job did not try " + url)
}

// refused holds that something was refused, and shows the reason.
func (d *demo) refused(what string, status int, why string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if status != http.StatusUnauthorized && status != http.StatusForbidden && status != http.StatusNotFound {
		return fmt.Errorf("%s was not refused: %d %s", what, status, why)
	}
	d.turnedAway++
	d.say("%s: %d\n    %s", what, status, why)
	return nil
}

// audit shows the log's tail and verifies all of it.
func (d *demo) audit(ctx context.Context) error {
	log := d.edge.App.Audit
	if err := log.Sync(ctx); err != nil {
		return err
	}
	tail, err := log.Tail(ctx, 8)
	if err != nil {
		return err
	}
	for _, e := range tail {
		who := e.Name
		if who == "" {
			who = e.Caller
		}
		d.say("%5d  %-8s %-28.28s %-60.60s %s", e.Seq, e.Decision, who, e.Action, e.Outcome)
	}
	n, err := log.Verify(ctx)
	if err != nil {
		return err
	}
	d.say("verified: %d entries, unbroken.", n)
	return nil
}
