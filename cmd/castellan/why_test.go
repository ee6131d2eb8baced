package main

import (
	"regexp"
	"strings"
	"testing"
)

// A refusal is explained by the id that it carries, and who could have done it
// is listed.
func TestWhyAndWhoCan(t *testing.T) {
	r, dir := running(t)
	login(t, r, "--data", dir)
	client := cell(must(t, "app", "create", "robot"), "appId")
	secret := cell(must(t, "app", "add-secret", client), "secretText")
	scope := "/subscriptions/" + r.SubscriptionID
	must(t, "role", "assign", "Storage Blob Data Reader", "--assignee", client, "--scope", scope)

	other, robot := r, *r.Admin
	robot.ClientID, robot.ClientSecret = client, secret
	other.Admin = &robot
	login(t, other, "--data", dir)
	_, err := tell(t, "who-can", "Microsoft.Authorization/roleAssignments/write", scope)
	id := regexp.MustCompile(`Correlation id: ([0-9a-f]+)`).FindStringSubmatch(errText(err))
	if id == nil {
		t.Fatalf("the refusal says %v", err)
	}
	login(t, r, "--data", dir)
	why := must(t, "why", id[1])
	if cell(why, "missingAction") != "Microsoft.Authorization/roleAssignments/read" || cell(why, "changed") != "false" {
		t.Errorf("the explanation is %v", why)
	}
	text, err := tell(t, "why", id[1])
	for _, want := range []string{"Storage Blob Data Reader at " + scope, "Its role does not have the action.", "smallest role"} {
		if !strings.Contains(text, want) {
			t.Errorf("the explanation does not say %q, %v:\n%s", want, err, text)
		}
	}
	text, err = tell(t, "who-can", "Microsoft.Authorization/roleAssignments/write", scope)
	if err != nil || !strings.Contains(text, "Owner") || !strings.Contains(text, r.Admin.UserName) || strings.Contains(text, "Reader") {
		t.Errorf("who can give roles, %v:\n%s", err, text)
	}
	if _, err := tell(t, "why", strings.Repeat("0", 32)); err == nil || !strings.Contains(err.Error(), "There is no decision") {
		t.Errorf("an id of nothing: %v", err)
	}
	if _, err := tell(t, "who-can", "Microsoft.KeyVault/vaults/read", "vault"); err == nil || !strings.Contains(err.Error(), "resource's id") {
		t.Errorf("a scope that is none: %v", err)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
