package governance

import (
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// approvalID is the id of the approval that a request waits for, or waited. It
// has one stage, of the same name.
func approvalID(q *request) arm.ID { return itemID(arm.Root, approvalType, key(q.ID.Name())) }

// showStage is the one stage of an approval.
func (s *Service) showStage(q *request, mine bool) map[string]any {
	status, result := "InProgress", "NotReviewed"
	switch q.status(s.Now()) {
	case pending:
	case timedOut:
		status = "Expired"
	default:
		status = "Completed"
	}
	if q.Review.Result != "" {
		result = q.Review.Result
	}
	props := map[string]any{"displayName": "Approval", "status": status, "assignedToMe": mine, "reviewResult": result, "reviewedBy": nil, "reviewedDateTime": timeOrNull(q.Review.On), "justification": nullable(q.Review.Why)}
	if q.Review.By != "" {
		props["reviewedBy"] = map[string]any{"principalId": q.Review.By, "principalType": "user", "principalName": q.Review.Name, "userPrincipalName": q.Review.Name}
	}
	id := approvalID(q)
	return map[string]any{"id": id.Child("stages", id.Name()), "name": id.Name(), "type": approvalType + "/stages", "properties": props}
}

func (s *Service) showApproval(q *request) map[string]any {
	id := approvalID(q)
	return map[string]any{"id": id, "name": id.Name(), "type": approvalType, "properties": map[string]any{"stages": []any{s.showStage(q, true)}}}
}

// listApprovals lists what waits for the caller's decision.
func (s *Service) listApprovals(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	if _, err := g.On(readApproval); err != nil {
		return err
	}
	if _, err := parseFilter(r.URL.Query().Get("$filter"), "asApprover()"); err != nil {
		return err
	}
	var waiting []*listed
	err := s.DB.View(r.Context(), func(tx *store.Tx) (err error) {
		waiting, err = s.requestRows(tx, assignmentRequestType)
		return err
	})
	if err != nil {
		return err
	}
	list := []any{}
	for _, x := range waiting {
		if x.status == pending && g.Sees(readApproval, approvalID(x.request)) {
			list = append(list, s.showApproval(x.request))
		}
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": list})
	return nil
}

// approval is the request that the grant's approval or stage is of.
func approval(tx *store.Tx, id arm.ID) (*request, error) {
	name := id.Name()
	if strings.EqualFold(id.Type(), approvalType+"/stages") {
		if name = id.Parent().Name(); key(name) != key(id.Name()) {
			return nil, notFound("The approval has no stage '%s'.", id.Name())
		}
	}
	q, err := requestNamed(tx, name)
	if err == nil && (q == nil || q.Until.IsZero()) {
		return nil, notFound("The approval '%s' was not found.", name)
	}
	return q, err
}

// showing is the verb that answers with what show makes of an approval.
func (s *Service) showing(show func(q *request) map[string]any) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		id, err := g.On(readApproval)
		if err != nil {
			return err
		}
		return s.DB.View(r.Context(), func(tx *store.Tx) error {
			q, err := approval(tx, id)
			if err != nil {
				return err
			}
			gate.WriteJSON(w, http.StatusOK, show(q))
			return nil
		})
	}
}

func (s *Service) getApproval(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	return s.showing(s.showApproval)(w, r, g)
}

func (s *Service) listStages(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	return s.showing(func(q *request) map[string]any { return map[string]any{"value": []any{s.showStage(q, true)}} })(w, r, g)
}

func (s *Service) getStage(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	return s.showing(func(q *request) map[string]any { return s.showStage(q, true) })(w, r, g)
}

// stageDecision is what an approver sends; clients in use send it bare and
// inside properties.
type stageDecision struct {
	Name   string `json:"displayName"`
	Result string `json:"reviewResult"`
	Why    string `json:"justification"`
}

func (s *Service) decideStage(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(writeApproval)
	if err != nil {
		return err
	}
	data, err := resource.ReadBody(w, r)
	if err != nil {
		return err
	}
	var b struct {
		stageDecision
		Properties *stageDecision `json:"properties"`
	}
	if err := arm.Decode(data, &b); err != nil {
		return err
	}
	d := b.stageDecision
	if b.Properties != nil {
		if d != (stageDecision{}) {
			return arm.Errorf(arm.InvalidRequest, "the body has a decision of its own and one in properties; it must have one")
		}
		d = *b.Properties
	}
	results := []string{"Approve", "Deny"}
	n := slices.IndexFunc(results, func(x string) bool { return strings.EqualFold(x, d.Result) })
	if n < 0 || len(d.Why) > maxText {
		return arm.Errorf(arm.InvalidRequest, "reviewResult is %q; it must be Approve or Deny, with a justification of at most %d bytes", d.Result, maxText)
	}
	var q *request
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) (err error) {
		if q, err = approval(tx, id); err != nil {
			return err
		}
		return s.decideRequest(tx, q, g.Caller(), review{Result: results[n], Why: d.Why})
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, s.showStage(q, true))
	return nil
}

// listEligibleChildren lists the subscriptions or groups inside the scope where
// the caller is eligible for something.
func (s *Service) listEligibleChildren(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	scope, err := g.On(readEligibleChildResources)
	if err != nil {
		return err
	}
	clauses, err := parseFilter(r.URL.Query().Get("$filter"), "resourceType eq")
	if err != nil {
		return err
	}
	var docs []*resource.Doc
	err = s.DB.View(r.Context(), func(tx *store.Tx) error {
		if docs, err = resource.List(tx, resource.Group.Type, scope, "", 0); err != nil || scope.Subscription() != "" {
			return err
		}
		subs, err := resource.List(tx, resource.Subscription.Type, arm.Root, "", 0)
		docs = append(subs, docs...)
		return err
	})
	if err != nil {
		return err
	}
	list := []any{}
	for _, d := range docs {
		typ := map[bool]string{true: "subscription", false: "resourcegroup"}[isSubscription(d.ID)]
		wanted := !slices.ContainsFunc(clauses, func(c clause) bool { return !strings.EqualFold(c.value, typ) })
		if wanted && s.mine(g.Caller(), readEligibleChildResources, d.ID) != "" {
			list = append(list, map[string]any{"id": d.ID, "name": d.Name, "type": typ})
		}
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": list})
	return nil
}
