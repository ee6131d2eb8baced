package governance

import (
	"net/http"
	"slices"
	"strings"

	"castellan/internal/access"
	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// The kinds of rules, as clients tell them apart.
const (
	enablementRule = "RoleManagementPolicyEnablementRule"
	expirationRule = "RoleManagementPolicyExpirationRule"
	approvalRuleOf = "RoleManagementPolicyApprovalRule"
	contextRule    = "RoleManagementPolicyAuthenticationContextRule"
	notifyRule     = "RoleManagementPolicyNotificationRule"
)

// ruleBody is a rule of any kind, as it is sent.
type ruleBody struct {
	ID     string `json:"id"`
	Kind   string `json:"ruleType"`
	Target any    `json:"target" arm:"readonly"` // follows from the id

	Enabled  []string `json:"enabledRules"`
	Required *bool    `json:"isExpirationRequired"`
	Max      string   `json:"maximumDuration"`
	Setting  *struct {
		Required  bool   `json:"isApprovalRequired"`
		Extension bool   `json:"isApprovalRequiredForExtension" arm:"only=false"`
		Reason    any    `json:"isRequestorJustificationRequired" arm:"readonly"` // the rule of enablement says it
		Mode      string `json:"approvalMode" arm:"only=SingleStage|NoApproval"`
		Stages    []struct {
			Days       int   `json:"approvalStageTimeOutInDays"`
			Reason     *bool `json:"isApproverJustificationRequired"`
			Minutes    any   `json:"escalationTimeInMinutes" arm:"readonly"`
			Escalation bool  `json:"isEscalationEnabled" arm:"only=false"`
			Others     []any `json:"escalationApprovers" arm:"readonly"`
			Approvers  []struct {
				ID          string `json:"id"`
				Kind        string `json:"userType"`
				Description string `json:"description"`
				Backup      bool   `json:"isBackup" arm:"only=false"`
			} `json:"primaryApprovers"`
		} `json:"approvalStages"`
	} `json:"setting"`
	On    bool   `json:"isEnabled"`
	Claim string `json:"claimValue"`

	N1 any `json:"notificationType"`
	N2 any `json:"notificationLevel"`
	N3 any `json:"recipientType"`
	N4 any `json:"notificationRecipients"`
	N5 any `json:"isDefaultRecipientsEnabled"`
}

type policyBody struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Properties struct {
		Rules []ruleBody `json:"rules"`

		Scope     any `json:"scope" arm:"readonly"`
		Display   any `json:"displayName" arm:"readonly"`
		Text      any `json:"description" arm:"readonly"`
		Default   any `json:"isOrganizationDefault" arm:"readonly"`
		By        any `json:"lastModifiedBy" arm:"readonly"`
		On        any `json:"lastModifiedDateTime" arm:"readonly"`
		Effective any `json:"effectiveRules" arm:"readonly"`
		More      any `json:"policyProperties" arm:"readonly"`
	} `json:"properties"`
}

// change takes the rules over.
func (p *policy) change(rules []ruleBody) error {
	for _, r := range rules {
		if err := p.changeRule(r); err != nil {
			return err
		}
	}
	return nil
}

func (p *policy) changeRule(r ruleBody) error {
	name, target, _ := strings.Cut(r.ID, "_")
	n := slices.IndexFunc(ruleTargets, func(t string) bool { return strings.EqualFold(t, target) })
	switch {
	case strings.EqualFold(r.Kind, notifyRule):
		return arm.Errorf(arm.Unsupported, "the rule %q sends mail, and none is sent here", r.ID)
	case n < 0:
		return badRule(r)
	case strings.EqualFold(r.Kind, enablementRule) && strings.EqualFold(name, "Enablement"):
		return p.changeEnablement(ruleTargets[n], r)
	case strings.EqualFold(r.Kind, expirationRule) && strings.EqualFold(name, "Expiration"):
		return p.changeExpiration(ruleTargets[n], r)
	case strings.EqualFold(r.Kind, approvalRuleOf) && strings.EqualFold(r.ID, "Approval_"+userAssignment):
		return p.changeApproval(r)
	case strings.EqualFold(r.Kind, contextRule) && strings.EqualFold(r.ID, "AuthenticationContext_"+userAssignment):
		return p.changeContext(r)
	}
	return badRule(r)
}

// changeContext takes over which authentication context activating wants. That
// the tenant has it is not asked: in one that there is not nobody can sign in.
func (p *policy) changeContext(r ruleBody) error {
	if p.Context = ""; !r.On {
		return nil
	}
	if !access.IsContext(r.Claim) {
		return arm.Errorf(arm.InvalidRequest, "claimValue of %s is %q; it must be an authentication context, c1 to c99", r.ID, r.Claim)
	}
	p.Context = r.Claim
	return nil
}

func badRule(r ruleBody) error {
	return arm.Errorf(arm.InvalidRequest, "the rule %q of ruleType %q is none of this policy; the rules are Enablement_T and Expiration_T, where T is %s, and Approval_%s", r.ID, r.Kind, strings.Join(ruleTargets, ", "), userAssignment)
}

func (p *policy) changeEnablement(target string, r ruleBody) error {
	all := []string{askMFA, askReason, askTicket}
	enabled := []string{}
	for _, x := range r.Enabled {
		n := slices.IndexFunc(all, func(y string) bool { return strings.EqualFold(x, y) })
		if n < 0 {
			return arm.Errorf(arm.InvalidRequest, "enabledRules of %s has %q; allowed: %s", r.ID, x, strings.Join(all, ", "))
		}
		if !slices.Contains(enabled, all[n]) {
			enabled = append(enabled, all[n])
		}
	}
	p.Enable[target] = enabled
	return nil
}

func (p *policy) changeExpiration(target string, r ruleBody) error {
	next := p.Expire[target]
	if r.Required != nil {
		next.Required = *r.Required
	}
	if r.Max != "" {
		next.Max = r.Max
	}
	longest, err := period(next.Max)
	if err != nil {
		return err
	}
	if target == userAssignment && (!next.Required || longest.Hours() > 24) {
		return arm.Errorf(arm.InvalidRequest, "%s is %s; an activation must end, after PT24H at most", r.ID, next.Max)
	}
	p.Expire[target] = next
	return nil
}

func (p *policy) changeApproval(r ruleBody) error {
	if r.Setting == nil {
		return arm.Errorf(arm.InvalidRequest, "the rule %s needs a setting", r.ID)
	}
	next := approvalRule{Required: r.Setting.Required, Days: 1, Reason: true}
	if len(r.Setting.Stages) > 1 {
		return arm.Errorf(arm.Unsupported, "the rule %s has %d approvalStages; one is supported", r.ID, len(r.Setting.Stages))
	}
	for _, stage := range r.Setting.Stages {
		if stage.Days < 0 || stage.Days > 30 {
			return arm.Errorf(arm.InvalidRequest, "approvalStageTimeOutInDays is %d; it must be from 1 to 30", stage.Days)
		}
		next.Days = max(stage.Days, 1)
		next.Reason = stage.Reason == nil || *stage.Reason
		for _, a := range stage.Approvers {
			next.Approvers = append(next.Approvers, approver{ID: key(a.ID), Kind: arm.Kind(a.Kind), Description: a.Description})
		}
	}
	if next.Required && len(next.Approvers) == 0 {
		return arm.Errorf(arm.InvalidRequest, "the rule %s wants approval and names no approver: nobody could ever activate the role", r.ID)
	}
	p.Approval = next
	return nil
}

// approversExist fills in what kind approvers are, who must be there.
func (s *Service) approversExist(tx *store.Tx, tenant string, p *policy) error {
	for i, a := range p.Approval.Approvers {
		kind, ok, err := s.Directory.Principal(tx, tenant, a.ID)
		if err != nil {
			return err
		}
		if !ok || kind == arm.ServicePrincipal {
			return arm.Errorf("PrincipalNotFound", "The approver %q is no person and no group of the directory.", a.ID)
		}
		p.Approval.Approvers[i].Kind = kind
	}
	return nil
}

func (s *Service) patchPolicy(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(writePolicy)
	if err != nil {
		return err
	}
	if id.Parent() == arm.Root {
		return arm.Errorf(arm.InvalidRequest, "policies are changed at a management group, a subscription or below, not at '/'")
	}
	data, err := resource.ReadBody(w, r)
	if err != nil {
		return err
	}
	var b policyBody
	if err := arm.Decode(data, &b); err != nil {
		return err
	}
	if err := agrees(b.ID, b.Name, b.Type, id, policyType); err != nil {
		return err
	}
	var p *policy
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		if p, err = s.onePolicy(tx, id); err != nil {
			return err
		}
		if err := p.change(b.Properties.Rules); err != nil {
			return err
		}
		if err := s.approversExist(tx, g.Caller().Tenant, p); err != nil {
			return err
		}
		p.ModifiedOn, p.ModifiedBy = s.Now().UTC(), g.Caller().Object
		return store.PutJSON(tx, policies, p.id().Key(), p)
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, p.show())
	return nil
}

// onePolicy is the policy of this id.
func (s *Service) onePolicy(tx *store.Tx, id arm.ID) (*policy, error) {
	scope, err := s.scope(tx, id.Parent())
	if err != nil {
		return nil, err
	}
	p, err := s.policyNamed(tx, scope, id.Name())
	if err == nil && p == nil {
		return nil, notFound("The role management policy '%s' was not found at this scope.", id.Name())
	}
	return p, err
}

func (s *Service) getPolicy(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(readPolicy)
	if err != nil {
		return err
	}
	return s.DB.View(r.Context(), func(tx *store.Tx) error {
		p, err := s.onePolicy(tx, id)
		if err != nil {
			return err
		}
		gate.WriteJSON(w, http.StatusOK, p.show())
		return nil
	})
}

func (s *Service) getPolicyAssignment(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(readPolicyAssignment)
	if err != nil {
		return err
	}
	name, role, _ := strings.Cut(id.Name(), "_")
	return s.DB.View(r.Context(), func(tx *store.Tx) error {
		p, err := s.onePolicy(tx, itemID(id.Parent(), policyType, name))
		if err != nil {
			return err
		}
		if p.Role != key(role) {
			return notFound("The role management policy assignment '%s' was not found.", id.Name())
		}
		gate.WriteJSON(w, http.StatusOK, p.showAssignment())
		return nil
	})
}

func (s *Service) listPolicies(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	return s.policyList(w, r, g, readPolicy, (*policy).show)
}

func (s *Service) listPolicyAssignments(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	return s.policyList(w, r, g, readPolicyAssignment, (*policy).showAssignment)
}

// policyList lists the policies of all roles that can be assigned at the scope.
func (s *Service) policyList(w http.ResponseWriter, r *http.Request, g gate.Grant, act arm.Action, show func(*policy) map[string]any) error {
	scope, err := g.On(act)
	if err != nil {
		return err
	}
	clauses, err := parseFilter(r.URL.Query().Get("$filter"), "roleDefinitionId eq", "atScope()")
	if err != nil {
		return err
	}
	list := []any{}
	err = s.DB.View(r.Context(), func(tx *store.Tx) error {
		if scope, err = s.scope(tx, scope); err != nil {
			return err
		}
		all, err := s.allDefinitions(tx)
		if err != nil {
			return err
		}
		for _, d := range all {
			other := func(c clause) bool {
				return key(c.name) == "roledefinitionid eq" && roleGUID(c.value) != key(d.Role.ID)
			}
			if !s.assignable(d.Role, scope) || slices.ContainsFunc(clauses, other) {
				continue
			}
			p, err := policyAt(tx, scope, key(d.Role.ID))
			if err != nil {
				return err
			}
			list = append(list, show(p))
		}
		return nil
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": list})
	return nil
}

func (p *policy) show() map[string]any {
	return map[string]any{"id": p.id(), "name": p.id().Name(), "type": policyType, "properties": map[string]any{
		"scope": p.Scope, "displayName": nil, "description": nil, "isOrganizationDefault": p.ModifiedOn.IsZero(),
		"lastModifiedDateTime": timeOrNull(p.ModifiedOn), "lastModifiedBy": map[string]any{"id": nullable(p.ModifiedBy), "displayName": nil, "type": nil, "email": nil},
		"rules": p.rules(), "effectiveRules": p.rules(),
		"policyProperties": map[string]any{"scope": map[string]any{"id": p.Scope, "displayName": p.Scope.Name(), "type": nil}},
	}}
}

func (p *policy) showAssignment() map[string]any {
	name := p.id().Name() + "_" + p.Role
	role := definitionID(p.Scope, p.Role)
	return map[string]any{"id": itemID(p.Scope, policyAssignmentType, name), "name": name, "type": policyAssignmentType, "properties": map[string]any{
		"scope": p.Scope, "roleDefinitionId": role, "policyId": p.id(), "effectiveRules": p.rules(),
		"policyAssignmentProperties": map[string]any{
			"scope": map[string]any{"id": p.Scope, "displayName": p.Scope.Name(), "type": nil}, "roleDefinition": map[string]any{"id": role},
			"policy": map[string]any{"id": p.id(), "lastModifiedDateTime": timeOrNull(p.ModifiedOn)},
		},
	}}
}

// rules are all rules of p that there are here, as answers have them.
func (p *policy) rules() []any {
	out := []any{}
	add := func(name, target, kind string, more map[string]any) {
		caller, level, _ := strings.Cut(target, "_")
		more["id"], more["ruleType"] = name+"_"+target, kind
		more["target"] = map[string]any{"caller": caller, "operations": []string{"All"}, "level": level, "targetObjects": nil, "inheritableSettings": nil, "enforcedSettings": nil}
		out = append(out, more)
	}
	for _, t := range ruleTargets {
		add("Enablement", t, enablementRule, map[string]any{"enabledRules": some(p.Enable[t])})
		add("Expiration", t, expirationRule, map[string]any{"isExpirationRequired": p.Expire[t].Required, "maximumDuration": p.Expire[t].Max})
	}
	approvers := []any{}
	for _, a := range p.Approval.Approvers {
		approvers = append(approvers, map[string]any{"id": a.ID, "userType": a.Kind, "description": nullable(a.Description), "isBackup": false})
	}
	add("Approval", userAssignment, approvalRuleOf, map[string]any{"setting": map[string]any{
		"isApprovalRequired": p.Approval.Required, "isApprovalRequiredForExtension": false, "isRequestorJustificationRequired": slices.Contains(p.Enable[userAssignment], askReason), "approvalMode": "SingleStage",
		"approvalStages": []any{map[string]any{"approvalStageTimeOutInDays": max(p.Approval.Days, 1), "isApproverJustificationRequired": p.Approval.Reason, "escalationTimeInMinutes": 0, "isEscalationEnabled": false,
			"primaryApprovers": approvers, "escalationApprovers": nil}},
	}})
	add("AuthenticationContext", userAssignment, contextRule, map[string]any{"isEnabled": p.Context != "", "claimValue": p.Context})
	return out
}
