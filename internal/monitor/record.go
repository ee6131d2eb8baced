package monitor

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/gate"
)

// Record is an entry of the audit log on its way to a sink.
type Record struct {
	Seq      uint64 // of the entry
	Time     time.Time
	Category string
	About    arm.ID // whose log it is
	Failed   bool
	JSON     []byte // one line of Azure's schema for resource logs

	Operation, Correlation, Resource string
}

// azureTime is the form of times in Azure's logs.
const azureTime = "2006-01-02T15:04:05.0000000Z"

// record is the entry as Azure's schema of resource logs has it. What the schema
// has no place for, such as why it was decided so, is among the properties.
func record(e *audit.Entry, about arm.ID, category, location string) (Record, error) {
	failed := e.Outcome != "ok"
	code, result, level := http.StatusOK, "Success", "Informational"
	if failed {
		code, result, level = gate.Status(&arm.Error{Code: arm.Code(e.Outcome)}), "Failed", "Error"
	}
	if e.Event == audit.Begun {
		code, result = http.StatusAccepted, "Start"
	}
	resource := e.Target
	if src, ok := sourceOf(about); ok && src.audit != nil {
		resource = about.String()
	}
	line := map[string]any{
		"time": e.Time.UTC().Format(azureTime), "resourceId": strings.ToUpper(resource), "operationName": e.Action, "category": category,
		"resultType": result, "resultSignature": strconv.Itoa(code), "resultDescription": e.Outcome, "level": level, "location": location,
		"correlationId": e.Correlation, "tenantId": e.Tenant,
		"identity": map[string]any{"authorization": map[string]any{"action": e.Action, "scope": e.Target}, "claims": claims(*e)},
		"properties": map[string]any{
			"decision": e.Decision, "reason": e.Reason, "credential": e.Credential, "object": e.Item, "dataAction": e.Data, "protocol": e.Plane,
			"sequence": e.Seq, // of the entry: whoever got a record twice sees it
		},
	}
	if e.Address != "" {
		line["callerIpAddress"] = e.Address
	}
	b, err := json.Marshal(line)
	return Record{Seq: e.Seq, Time: e.Time.UTC(), Category: category, About: about, Failed: failed, JSON: b, Operation: e.Action, Correlation: e.Correlation, Resource: resource}, err
}
