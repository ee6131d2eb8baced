package identity

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"castellan/internal/access"
	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/gate"
)

var readSignIns = arm.NewAction("microsoft.directory/signInReports/allProperties/read", "see who signed in, who failed to, and why")

// signInDetail is what the audit log keeps of a sign-in beyond its entry.
type signInDetail struct {
	Policies []access.Result `json:"policies"`
}

// mostScanned is how many entries of the audit log one answer looks at; the
// next page goes on behind them.
const mostScanned = 20_000

func (s *Service) signInDoors() []gate.Route {
	return []gate.Route{
		s.door(readSignIns, "GET auditlogs/signins", (*visit).listSignIns),
		s.door(readAudits, "GET auditlogs/directoryaudits", (*visit).listAudits),
		s.door(readAudits, "GET auditlogs/directoryaudits/{id}", (*visit).getAudit),
	}
}

func (v *visit) listSignIns() (answer, error) {
	return v.listEntries("signIns", func(e audit.Entry) map[string]any {
		if e.Action != signInAction {
			return nil
		}
		return v.s.showSignIn(e)
	})
}

// listEntries is the tenant's part of the audit log, the newest first, as far as show
// makes something of it.
func (v *visit) listEntries(set string, show func(audit.Entry) map[string]any) (answer, error) {
	q, match, size := v.q.raw, v.q.match, v.q.size
	for _, o := range []string{"$count", "$expand", "$orderby", "$search"} {
		if q.Has(o) {
			return answer{}, unsupported("%s is not supported here: auditLogs are listed from the latest on.", o)
		}
	}
	var err error
	before := uint64(0)
	if t := q.Get("$skiptoken"); t != "" {
		if before, err = strconv.ParseUint(t, 10, 64); err != nil || before == 0 {
			return answer{}, errSkipToken
		}
	}
	if err := v.s.Log.Sync(v.r.Context()); err != nil {
		return answer{}, err
	}
	rows, more := []map[string]any{}, false
	for scanned := 0; len(rows) < size; {
		list, err := v.s.Log.Before(v.r.Context(), before, 1000)
		if err != nil {
			return answer{}, err
		}
		for _, e := range list {
			if before = e.Seq; e.Tenant != v.tenant {
				continue
			}
			m := show(e)
			if m == nil {
				continue
			}
			ok, err := match(m)
			if err != nil {
				return answer{}, err
			}
			if ok {
				initiator(m)
				rows = append(rows, pick(m, v.q.fields))
			}
			if len(rows) == size {
				break
			}
		}
		more = len(list) > 0 && before > 1
		if scanned += len(list); !more || scanned >= mostScanned {
			break
		}
	}
	out := map[string]any{"@odata.context": v.context("auditLogs/" + set), "value": rows}
	if more {
		q.Set("$skiptoken", strconv.FormatUint(before, 10))
		out["@odata.nextLink"] = "https://" + v.r.Host + v.r.URL.EscapedPath() + "?" + q.Encode()
	}
	return answer{http.StatusOK, out}, nil
}

func (s *Service) showSignIn(e audit.Entry) map[string]any {
	status := map[string]any{"errorCode": 0, "failureReason": nil, "additionalDetails": nil}
	if e.Outcome != "ok" {
		status["errorCode"], status["failureReason"] = aadsts(e.Reason), e.Reason
	} else {
		status["additionalDetails"] = e.Reason
	}
	var d signInDetail
	_ = json.Unmarshal([]byte(e.Detail), &d) // entries of old have none
	overall, applied := "notApplied", []map[string]any{}
	for _, p := range d.Policies {
		switch {
		case p.Outcome == access.Failure:
			overall = "failure"
		case p.Outcome == access.Success && overall != "failure":
			overall = "success"
		}
		applied = append(applied, map[string]any{"id": p.ID, "displayName": p.Name, "result": p.Outcome, "enforcedGrantControls": controlsOf(p)})
	}
	app := ""
	if a := s.index.client(e.App); a != nil {
		app = a.Name
	} else if a := s.known[fold(e.App)]; a != nil {
		app = a.Name
	}
	return map[string]any{
		"id": strconv.FormatUint(e.Seq, 10), "createdDateTime": stamp(e.Time), "userId": nullable(e.Caller), "userPrincipalName": nullable(e.Name), "userDisplayName": nullable(e.Name),
		"appId": nullable(e.App), "appDisplayName": nullable(app), "clientCredentialType": nullable(e.Credential), "authenticationProtocol": nullable(e.Item),
		"correlationId": nullable(e.Correlation), "ipAddress": nullable(e.Address), "isInteractive": interactive(e),
		"status": status, "conditionalAccessStatus": overall, "appliedConditionalAccessPolicies": applied,
	}
}

// interactive reports whether a person showed something at a page.
func interactive(e audit.Entry) bool {
	return e.Item == "sign-in page" || e.Item == "authorize" || e.Item == "device code"
}

// Told is which of Entra's logs an entry is of, "" for none, and its record there: that
// which Graph shows.
func (s *Service) Told(e audit.Entry) (category string, record map[string]any) {
	if e.Action != signInAction {
		if record = s.showAudit(e); record == nil {
			return "", nil
		}
		initiator(record)
		return "AuditLogs", record
	}
	switch {
	case e.Item == "synchronisation":
		return "", nil // of a directory, by nobody
	case e.Item == "managed identity":
		category = "ManagedIdentitySignInLogs"
	case e.Item == "client_credentials":
		category = "ServicePrincipalSignInLogs"
	case interactive(e):
		category = "SignInLogs"
	default:
		category = "NonInteractiveUserSignInLogs"
	}
	return category, s.showSignIn(e)
}

func controlsOf(r access.Result) []string {
	out := []string{}
	if r.Blocks {
		out = append(out, "block")
	}
	for _, c := range r.Controls {
		out = append(out, string(c))
	}
	return out
}

// aadsts is the number that a reason begins with; 1 where it has none.
func aadsts(reason string) int {
	_, rest, ok := strings.Cut(reason, "AADSTS")
	if !ok {
		return 1
	}
	digits, _, _ := strings.Cut(rest, ":")
	n, err := strconv.Atoi(strings.TrimSpace(digits))
	if err != nil {
		return 1
	}
	return n
}
