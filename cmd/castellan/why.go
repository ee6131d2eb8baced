package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

const ownVersion = "2026-01-01" // of what Azure does not have

// whyCommand is castellan why: a refusal explained.
func whyCommand() *cobra.Command {
	return verb{use: "why ID", short: "Explain a refusal by its correlation id", example: "why 5f0c7a3e9d1b4c6f8a2e4d6c8b0a1f3e", columns: []string{"what", "is"}, lines: reasons,
		run: func(a *admin, args []string) (any, error) {
			out, err := a.arm("GET", "/providers/Castellan.Authorization/decisions/"+seg(args[0]), ownVersion, nil)
			return out["properties"], err
		}}.command()
}

// reasons are the lines of an explanation for people.
func reasons(out any) (rows []any) {
	say := func(what, is string) {
		if is != "" {
			rows = append(rows, row{"what": what, "is": is})
		}
	}
	for _, x := range [][2]string{
		{"decision", "decision"}, {"action", "action"}, {"scope", "scope"}, {"item", "item"}, {"time", "time"}, {"caller", "callerId"}, {"name", "callerName"},
		{"reason", "reason"}, {"now", "now.decision"}, {"reason now", "now.reason"}, {"missing", "missingAction"}, {"smallest role", "smallestRole.roleName"},
	} {
		say(x[0], cell(out, x[1]))
	}
	m, _ := out.(map[string]any)
	considered, _ := m["assignmentsConsidered"].([]any)
	for _, x := range considered {
		text := fmt.Sprintf("%s at %s: %s", cell(x, "roleName"), cell(x, "scope"), cell(x, "explanation"))
		if group := cell(x, "throughGroup"); group != "" {
			text += " (by the group " + group + ")"
		}
		say("assignment", text)
	}
	eligible, _ := m["eligible"].([]any)
	for _, x := range eligible {
		say("could activate", cell(x, "roleName")+" at "+cell(x, "scope"))
	}
	say("note", cell(out, "note"))
	return rows
}

// whoCanCommand is castellan who-can.
func whoCanCommand() *cobra.Command {
	return verb{use: "who-can ACTION SCOPE", short: "List who may do an action at a scope, and by which chain", example: "who-can Microsoft.KeyVault/vaults/read /subscriptions/ID",
		columns: []string{"name", "principalId", "state", "roleName", "scope", "throughGroups", "endDateTime"}, bools: []string{"data=the action is a data action, where the platform does not know it"}, run: whoCan}.command()
}

func whoCan(a *admin, args []string) (any, error) {
	scope := strings.TrimRight(args[1], "/")
	if !strings.HasPrefix(scope, "/") || strings.ContainsAny(scope, "?#") {
		return nil, fmt.Errorf("the scope is %q; it must be a resource's id, such as /subscriptions/ID/resourceGroups/NAME", args[1])
	}
	query := url.Values{"action": {args[0]}}
	if a.is("data") {
		query.Set("isDataAction", "true")
	}
	rows, err := a.armList((&url.URL{Path: scope}).EscapedPath()+"/providers/Castellan.Authorization/whoCan?"+query.Encode(), ownVersion)
	if err != nil {
		return nil, err
	}
	return a.withNames(rows.([]any)), nil
}

// withNames adds to rows the names of their principals, as far as the caller may
// see them: they are the directory's, and not the roles'.
func (a *admin) withNames(rows []any) []any {
	names := map[string]string{}
	for _, x := range rows {
		id := cell(x, "principalId")
		name, known := names[id]
		if !known {
			o, err := a.graph("GET", "directoryObjects/"+seg(id), nil)
			if name = cell(o, "userPrincipalName"); err == nil && name == "" {
				name = cell(o, "displayName")
			}
			names[id] = name
		}
		if m, ok := x.(map[string]any); ok {
			m["name"] = name
		}
	}
	return rows
}
