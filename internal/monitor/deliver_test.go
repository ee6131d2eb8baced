package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/resource"
	"castellan/internal/store"
)

const (
	account = sub + "/resourceGroups/rg1/providers/Microsoft.Storage/storageAccounts/acct"
	blobs   = account + "/blobServices/default"
	ws      = sub + "/resourceGroups/rg1/providers/Microsoft.MachineLearningServices/workspaces/ws"
	query   = "?api-version=2021-05-01-preview"
)

// keeper is a sink in memory. It complains of what is no record, and fails while
// it is down, after it kept the first half: as a network does.
type keeper struct {
	t    *testing.T
	mu   sync.Mutex
	down bool
	got  map[uint64]int // how often, by place in the log
	most int            // records in one delivery
}

func (k *keeper) Deliver(_ context.Context, list []Record) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.most = max(k.most, len(list))
	for i, r := range list {
		if k.down && i >= len(list)/2 {
			return errors.New("the sink is down")
		}
		var line map[string]any
		if err := json.Unmarshal(r.JSON, &line); err != nil || line["category"] != r.Category || strings.ContainsAny(string(r.JSON), "\r\n") {
			k.t.Errorf("a record is %s: %v", r.JSON, err)
		}
		k.got[r.Seq]++
	}
	return nil
}

// put makes what settings can be about.
func (w *world) put(ids ...string) {
	w.Helper()
	err := w.db.Do(w.Context(), func(tx *store.Tx) error {
		for _, x := range ids {
			id := arm.MustID(x)
			if err := resource.Save(tx, &resource.Doc{ID: id, Name: id.Name(), Type: id.Type(), Instance: arm.NewHex(), Properties: json.RawMessage(`{}`)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) flush() {
	w.Helper()
	if err := w.diag.Flush(w.Context()); err != nil {
		w.Fatal(err)
	}
}

// use records n uses of the vault.
func (w *world) use(n int) {
	w.Helper()
	for range n {
		if err := w.log.Record(w.Context(), audit.Entry{Tenant: "t", Caller: "ada", Action: "Microsoft.KeyVault/vaults/secrets/getSecret/action", Data: true, Plane: "vault", Target: kv, Item: "a\r\n\u2028\x1b[31m\"}\n{", Decision: "allowed", Outcome: "ok"}); err != nil {
			w.Fatal(err)
		}
	}
	if err := w.log.Sync(w.Context()); err != nil {
		w.Fatal(err)
	}
}

func settingAt(about, name string) string {
	return "https://test" + about + "/providers/Microsoft.Insights/diagnosticSettings/" + name + query
}

func toSink(name, categories string) string {
	var logs []string
	for _, c := range strings.Fields(categories) {
		logs = append(logs, fmt.Sprintf(`{"category":%q,"enabled":true,"retentionPolicy":{"enabled":false,"days":0}}`, c))
	}
	return fmt.Sprintf(`{"properties":{"marketplacePartnerId":%q,"logs":[%s]}}`, sinkPrefix+name, strings.Join(logs, ","))
}

// A sink gets every record from its setting on: while it is down nothing waits in
// memory, and when it is up again, also after a restart, it gets what it has
// missed, some of it twice. Another sink does not wait for it.
func TestNoGaps(t *testing.T) {
	w := newWorld(t)
	w.put(sub, kv)
	bad, good := &keeper{t: t, got: map[uint64]int{}}, &keeper{t: t, got: map[uint64]int{}}
	sinks := []Named{{Name: "bad", Sink: bad, Tenants: []string{"t"}}, {Name: "good", Sink: good, Tenants: []string{"t"}}}
	w.restart(sinks...)
	w.plane.Routes = w.diag.Routes()
	w.use(3) // before there is a setting
	for _, name := range []string{"bad", "good"} {
		if rec, _ := w.send("ada", http.MethodPut, settingAt(kv, name), toSink(name, "auditevent")); rec.Code != http.StatusOK {
			t.Fatalf("PUT = %d %s", rec.Code, rec.Body)
		}
	}
	w.use(10)
	w.flush()
	bad.down = true
	for range 3 {
		w.use(2*atOnce + 7)
		w.flush()
	}
	_, out := w.do("ada", http.MethodGet, "https://test"+kv+"/providers/Castellan.Insights/deliveries?api-version=2026-01-01")
	if text := fmt.Sprint(out); !strings.Contains(text, "Failing") || !strings.Contains(text, "does not take the logs") || !strings.Contains(text, "Delivering") {
		t.Errorf("the deliveries are told as %s", text)
	}
	want := 10 + 3*(2*atOnce+7)
	if len(good.got) != want || good.most > atOnce {
		t.Errorf("the good sink has %d records, at most %d at once; want %d and at most %d", len(good.got), good.most, want, atOnce)
	}
	bad.down = false
	w.restart(sinks...)
	w.flush()
	twice := 0
	for _, n := range bad.got {
		if n > 1 {
			twice++
		}
	}
	if len(bad.got) != want || twice == 0 || twice > atOnce {
		t.Errorf("the sink that was down has %d records, %d more than once; want %d, and those of one delivery twice", len(bad.got), twice, want)
	}
	for seq, n := range good.got {
		if n != 1 {
			t.Errorf("the good sink has entry %d %d times", seq, n)
		}
	}
	// What is written anew goes on; what is new begins with its own entry.
	bad.down = true
	w.use(5)
	w.flush()
	if rec, _ := w.send("ada", http.MethodPut, settingAt(kv, "bad"), toSink("bad", "AuditEvent")); rec.Code != http.StatusOK {
		t.Fatalf("PUT = %d %s", rec.Code, rec.Body)
	}
	bad.down = false
	w.restart(sinks...)
	w.flush()
	if len(bad.got) != want+5 {
		t.Errorf("a setting that was written anew lost %d records", want+5-len(bad.got))
	}
	// Without a setting nothing is sent, and nothing remembered.
	w.do("ada", http.MethodDelete, settingAt(kv, "bad"))
	w.use(5)
	w.flush()
	if len(bad.got) != want+5 || len(good.got) != want+10 {
		t.Errorf("after the deletion there are %d and %d records, want %d and %d", len(bad.got), len(good.got), want+5, want+10)
	}
}

// What the log lost to pruning before a sink was up is told, never passed over.
func TestMissed(t *testing.T) {
	w := newWorld(t)
	w.put(kv)
	k := &keeper{t: t, got: map[uint64]int{}, down: true}
	w.restart(Named{Name: "k", Sink: k, Tenants: []string{"t"}})
	w.plane.Routes = w.diag.Routes()
	w.send("ada", http.MethodPut, settingAt(kv, "s"), toSink("k", "AuditEvent"))
	w.use(9)
	w.flush()
	if _, err := w.log.Prune(w.Context(), w.now.AddDate(1, 0, 0), audit.Entry{Tenant: "t", Caller: "system:audit", Target: "/", Decision: "allowed", Outcome: "ok"}); err != nil {
		t.Fatal(err)
	}
	k.down, k.got = false, map[uint64]int{}
	w.restart(Named{Name: "k", Sink: k, Tenants: []string{"t"}})
	w.plane.Routes = w.diag.Routes()
	w.use(1)
	w.flush()
	_, out := w.do("ada", http.MethodGet, "https://test"+kv+"/providers/Castellan.Insights/deliveries?api-version=2026-01-01")
	props := out["value"].([]any)[0].(map[string]any)["properties"].(map[string]any)
	if missed, _ := props["missed"].(float64); missed < 9 || len(k.got) != 1 {
		t.Errorf("the sink has %d records and is told %v", len(k.got), props)
	}
}

// A sink of everything gets the whole log without a setting.
func TestEverything(t *testing.T) {
	w := newWorld(t)
	k := &keeper{t: t, got: map[uint64]int{}}
	w.do("ada", http.MethodPut, "https://test"+kv)
	w.do("cyd", http.MethodPut, "https://test"+kv)
	w.use(3)
	w.restart(Named{Name: "siem", Sink: k, Everything: true})
	w.flush()
	for seq := range uint64(5) {
		if k.got[seq+1] != 1 {
			t.Errorf("entry %d came %d times", seq+1, k.got[seq+1])
		}
	}
}

// What a setting can't promise is refused, changes nothing and says what is allowed.
func TestSettingsAreChecked(t *testing.T) {
	w := newWorld(t)
	w.put(sub, kv, account, ws)
	w.restart(Named{Name: "siem", Sink: &keeper{t: t}, Tenants: []string{"t"}}, Named{Name: "other", Sink: &keeper{t: t}, Tenants: []string{"u"}})
	w.plane.Routes = append(w.diag.Routes(), w.plane.Routes...)
	put := func(about, name, body string) (int, string) {
		rec, _ := w.send("ada", http.MethodPut, settingAt(about, name), body)
		return rec.Code, rec.Body.String()
	}
	props := func(text string) string { return `{"properties":{` + text + `}}` }
	const siem = `"marketplacePartnerId":"` + sinkPrefix + `siem"`
	for _, c := range []struct{ about, body, says string }{
		{kv, props(`"logs":[{"category":"AuditEvent","enabled":true}]`), "At least one data sink"},
		{kv, props(siem + `,"logs":[{"category":"Secrets","enabled":true}]`), "supported categories are: 'AuditEvent'"},
		{blobs, props(siem + `,"logs":[{"category":"AuditEvent","enabled":false}]`), "'StorageRead', 'StorageWrite', 'StorageDelete'"},
		{sub, props(siem + `,"logs":[{"category":"Security","enabled":true}]`), "'Administrative', 'Policy'"},
		{ws, props(siem + `,"logs":[{"categoryGroup":"some","enabled":true}]`), "'allLogs', 'audit'"},
		{sub, props(siem + `,"logs":[{"categoryGroup":"audit","enabled":true}]`), "'allLogs'"},
		{kv, props(siem + `,"logs":[{"enabled":true}]`), "one of category and categoryGroup"},
		{kv, props(siem + `,"logs":[{"category":"AuditEvent","enabled":true},{"categoryGroup":"allLogs","enabled":true}]`), "the one or the other"},
		{kv, props(siem + `,"logs":[{"category":"AuditEvent","enabled":true},{"category":"auditevent","enabled":true}]`), "twice"},
		{kv, props(siem + `,"logs":[{"category":"AuditEvent","enabled":true,"retentionPolicy":{"enabled":true,"days":30}}]`), "retentionPolicy"},
		{kv, props(siem + `,"metrics":[{"category":"AllMetrics","enabled":true}]`), "metrics"},
		{kv, props(`"workspaceId":"` + ws + `"`), "Log Analytics"},
		{kv, props(`"eventHubName":"x"`), "event hubs"},
		{kv, props(siem + `,"logAnalyticsDestinationType":"Dedicated"`), "logAnalyticsDestinationType"},
		{kv, props(`"marketplacePartnerId":"` + sinkPrefix + `other"`), sinkPrefix + "siem"},
		{kv, props(`"storageAccountId":"` + kv + `"`), accountType},
		{blobs, props(`"storageAccountId":"` + account + `","logs":[{"category":"StorageRead","enabled":true}]`), "its own logs"},
		{kv, props(`"storageAccountId":"` + account + `x"`), "does not exist"},
		{account, props(siem), "does not support diagnostic settings"},
		{kv, props(siem + `,"color":"red"`), "color"},
		{kv, `{"name":"other",` + props(siem)[1:], "the body's name"},
	} {
		if code, text := put(c.about, "s", c.body); code/100 != 4 || !strings.Contains(text, c.says) {
			t.Errorf("PUT %s %s = %d %s, want %q", c.about, c.body, code, text, c.says)
		}
		_, out := w.do("ada", http.MethodGet, "https://test"+c.about+"/providers/Microsoft.Insights/diagnosticSettings"+query)
		if list, _ := out["value"].([]any); len(list) != 0 {
			t.Fatalf("after %s there are %v", c.body, list)
		}
	}
	if code, text := put(kv+"x", "s", toSink("siem", "AuditEvent")); code != http.StatusNotFound {
		t.Errorf("a setting of what is not there = %d %s", code, text)
	}
	if code, text := put(ws, "a", toSink("siem", "RunEvent ModelsReadEvent")); code != http.StatusOK {
		t.Errorf("PUT = %d %s", code, text)
	}
	if code, text := put(ws, "b", toSink("siem", "runevent")); code != http.StatusConflict || !strings.Contains(text, "diagnostic setting 'a'") {
		t.Errorf("one category to one sink by two settings = %d %s", code, text)
	}
	for i, c := range sources["microsoft.machinelearningservices/workspaces"].categories[4:8] {
		if code, text := put(ws, fmt.Sprint(i), toSink("siem", c)); code != http.StatusOK && c != "ModelsReadEvent" {
			t.Errorf("PUT of %s = %d %s", c, code, text)
		}
	}
	for _, name := range []string{"fifth", "sixth"} {
		code, text := put(ws, name, toSink("siem", "DataSetReadEvent"))
		if full := name == "sixth"; full != (code == http.StatusBadRequest && strings.Contains(text, "no more")) {
			t.Errorf("the %s setting = %d %s", name, code, text)
		}
	}
	rec, out := w.do("ada", http.MethodGet, "https://test"+blobs+"/providers/Microsoft.Insights/diagnosticSettingsCategories"+query)
	if rec.Code != http.StatusOK || len(out["value"].([]any)) != 3 {
		t.Errorf("the categories = %d %s", rec.Code, rec.Body)
	}
}

// What is written, read or deleted on a data plane, and by whose door, says of
// which category it is.
func TestCategories(t *testing.T) {
	for _, c := range []struct{ about, plane, action, outcome, want string }{
		{kv, "vault", "Microsoft.KeyVault/vaults/secrets/getSecret/action", "ok", "AuditEvent"},
		{kv, "arm", "Microsoft.KeyVault/vaults/write", "ok", "AuditEvent"},
		{kv, "arm", "Microsoft.Authorization/roleAssignments/write", "ok", ""},
		{blobs, "blob", "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read", "ok", "StorageRead"},
		{blobs, "", "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/add/action", "ok", "StorageWrite"},
		{blobs, "blob", "Microsoft.Storage/storageAccounts/blobServices/containers/delete", "x", "StorageDelete"},
		{blobs, "blob", "Microsoft.Storage/storageAccounts/blobServices/containers/getAcl/action", "ok", "StorageRead"},
		{blobs, "arm", "Microsoft.Storage/storageAccounts/blobServices/containers/write", "ok", ""},
		{ws, "arm", "Microsoft.MachineLearningServices/workspaces/jobs/write", "ok", "AmlComputeJobEvent"},
		{ws, "arm", "Microsoft.MachineLearningServices/workspaces/jobs/read", "ok", ""},
		{ws, "ml", "Microsoft.MachineLearningServices/workspaces/experiments/runs/read", "ok", "RunReadEvent"},
		{ws, "ml", "Microsoft.MachineLearningServices/workspaces/metrics/resource/write", "ok", "RunEvent"},
		{ws, "arm", "Microsoft.MachineLearningServices/workspaces/datastores/listsecrets/action", "ok", "DataStoreReadEvent"},
		{ws, "arm", "Microsoft.MachineLearningServices/workspaces/data/versions/write", "ok", "DataSetChangeEvent"},
		{ws, "arm", "Microsoft.MachineLearningServices/workspaces/write", "ok", ""},
		{sub, "arm", "Microsoft.MachineLearningServices/workspaces/write", "ok", "Administrative"},
		{sub, "arm", "Microsoft.MachineLearningServices/workspaces/write", disallowed, "Administrative Policy"},
		{sub, "arm", "Microsoft.MachineLearningServices/workspaces/read", "ok", ""},
		{sub, "vault", "Microsoft.KeyVault/vaults/secrets/setSecret/action", "ok", ""},
	} {
		src, ok := sourceOf(arm.MustID(c.about))
		got := src.of(&audit.Entry{Plane: c.plane, Action: c.action, Outcome: c.outcome, Target: ws})
		if !ok || !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%s %s at %s is of %q, want %q", c.plane, c.action, c.about, got, c.want)
		}
	}
}
