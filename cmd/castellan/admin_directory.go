package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// row is a JSON object.
type row = map[string]any

// newPassword is the password in the file that --password-file names, or a random
// one, which is told once: none comes by the command line, where others see it.
func (a *admin) newPassword() (password string, told bool, err error) {
	file := a.flag("password-file")
	if file == "" {
		return rand.Text()[:13] + "-" + strings.ToLower(rand.Text()[:13]), true, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", false, fmt.Errorf("reading the password: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), false, nil
}

const passwordFile = "password-file=file with the password (default: a random one is made and shown once)"

func userCommand() *cobra.Command {
	cols := []string{"userPrincipalName", "displayName", "accountEnabled", "castellanBreakGlass", "id"}
	patch := func(body row) func(*admin, []string) (any, error) {
		return func(a *admin, args []string) (any, error) { return a.graph("PATCH", "users/"+seg(args[0]), body) }
	}
	return noun("user", "People of the directory",
		verb{use: "list", short: "List people", example: "user list", columns: cols, run: listOf("users")},
		verb{use: "show USER", short: "Show a person", example: "user show anna@castellan.localhost", columns: cols,
			run: func(a *admin, args []string) (any, error) { return a.graph("GET", "users/"+seg(args[0]), nil) }},
		verb{use: "create USER", short: "Add a person, whose password must be changed at the first sign-in", example: `user create anna@castellan.localhost --name "Anna Bell"`,
			columns: []string{"userPrincipalName", "id", "password"}, flags: []string{"name=display name", passwordFile}, needs: []string{"name"}, run: createUser},
		verb{use: "disable USER", short: "Let a person in no more", example: "user disable anna@castellan.localhost", run: patch(row{"accountEnabled": false})},
		verb{use: "enable USER", short: "Let a person in again", example: "user enable anna@castellan.localhost", run: patch(row{"accountEnabled": true})},
		verb{use: "reset-password USER", short: "Give a person another password, to be changed at the next sign-in", example: "user reset-password anna@castellan.localhost",
			columns: []string{"userPrincipalName", "password"}, flags: []string{passwordFile}, run: resetPassword},
		verb{use: "reset-mfa USER", short: "Forget a person's passkeys and one-time code apps", example: "user reset-mfa anna@castellan.localhost", columns: []string{"removed"}, run: resetMFA},
		verb{use: "revoke-sessions USER", short: "End all that a person was given", example: "user revoke-sessions anna@castellan.localhost",
			run: func(a *admin, args []string) (any, error) {
				_, err := a.graph("POST", "users/"+seg(args[0])+"/revokeSignInSessions", nil)
				return row{}, err
			}},
		verb{use: "delete USER", short: "Delete a person", example: "user delete anna@castellan.localhost",
			run: func(a *admin, args []string) (any, error) { return a.graph("DELETE", "users/"+seg(args[0]), nil) }},
		verb{use: "break-glass USER", short: "Make an account one for emergencies, which no Conditional Access policy holds", example: "user break-glass rescue@castellan.localhost",
			bools: []string{"clear=make it an ordinary account again"},
			run: func(a *admin, args []string) (any, error) {
				return a.graph("PATCH", "users/"+seg(args[0]), row{"castellanBreakGlass": !a.is("clear")})
			}},
	)
}

func createUser(a *admin, args []string) (any, error) {
	password, told, err := a.newPassword()
	if err != nil {
		return nil, err
	}
	nick, _, _ := strings.Cut(args[0], "@")
	out, err := a.graph("POST", "users", row{"accountEnabled": true, "displayName": a.flag("name"), "mailNickname": nick, "userPrincipalName": args[0],
		"passwordProfile": row{"password": password, "forceChangePasswordNextSignIn": true}})
	if err == nil && told {
		out["password"] = password
	}
	return out, err
}

func resetPassword(a *admin, args []string) (any, error) {
	password, told, err := a.newPassword()
	if err != nil {
		return nil, err
	}
	out := row{"userPrincipalName": args[0]}
	if told {
		out["password"] = password
	}
	_, err = a.graph("PATCH", "users/"+seg(args[0]), row{"passwordProfile": row{"password": password, "forceChangePasswordNextSignIn": true}})
	return out, err
}

func resetMFA(a *admin, args []string) (any, error) {
	n := 0
	for _, kind := range []string{"fido2Methods", "softwareOathMethods"} {
		at := "users/" + seg(args[0]) + "/authentication/" + kind
		rows, err := a.graphList(at)
		if err != nil {
			return nil, err
		}
		for _, m := range rows {
			if _, err := a.graph("DELETE", at+"/"+seg(cell(m, "id")), nil); err != nil {
				return nil, fmt.Errorf("after %d were removed: %w", n, err)
			}
			n++
		}
	}
	return row{"removed": n}, nil
}

func groupCommand() *cobra.Command {
	cols := []string{"displayName", "description", "isAssignableToRole", "id"}
	// on runs with the id of the group that the first argument names.
	on := func(run func(a *admin, group string, args []string) (any, error)) func(*admin, []string) (any, error) {
		return func(a *admin, args []string) (any, error) {
			id, err := a.named("groups", args[0])
			if err != nil {
				return nil, err
			}
			return run(a, id, args)
		}
	}
	return noun("group", "Groups of the directory",
		verb{use: "list", short: "List groups", example: "group list", columns: cols, run: listOf("groups")},
		verb{use: "create NAME", short: "Add a group", example: "group create scientists", columns: cols, bools: []string{"assignable=directory roles can be given to it"},
			run: func(a *admin, args []string) (any, error) {
				body := row{"displayName": args[0], "mailNickname": strings.ToLower(rand.Text()[:10]), "mailEnabled": false, "securityEnabled": true}
				if a.is("assignable") {
					body["isAssignableToRole"] = true
				}
				return a.graph("POST", "groups", body)
			}},
		verb{use: "delete GROUP", short: "Delete a group", example: "group delete scientists",
			run: on(func(a *admin, id string, _ []string) (any, error) { return a.graph("DELETE", "groups/"+seg(id), nil) })},
		verb{use: "members GROUP", short: "List a group's members", example: "group members scientists", columns: []string{"userPrincipalName", "displayName", "id"},
			run: on(func(a *admin, id string, _ []string) (any, error) {
				return a.graphList("groups/" + seg(id) + "/members")
			})},
		verb{use: "add-member GROUP MEMBER", short: "Add a member to a group", example: "group add-member scientists anna@castellan.localhost",
			run: on(func(a *admin, id string, args []string) (any, error) {
				member, _, err := a.principal(args[1])
				if err != nil {
					return nil, err
				}
				return a.graph("POST", "groups/"+seg(id)+"/members/$ref", row{"@odata.id": a.s.Graph + "/v1.0/directoryObjects/" + member})
			})},
		verb{use: "remove-member GROUP MEMBER", short: "Take a member out of a group", example: "group remove-member scientists anna@castellan.localhost",
			run: on(func(a *admin, id string, args []string) (any, error) {
				member, _, err := a.principal(args[1])
				if err != nil {
					return nil, err
				}
				return a.graph("DELETE", "groups/"+seg(id)+"/members/"+seg(member)+"/$ref", nil)
			})},
	)
}

// application is the id of the application that goes by a client id, an object's
// id or a name.
func (a *admin) application(name string) (string, error) {
	if !guid(name) {
		return a.named("applications", name)
	}
	rows, err := a.graphList("applications" + where("appId eq '%s'", name))
	if err != nil || len(rows) == 0 {
		return name, err
	}
	return cell(rows[0], "id"), nil
}

func appCommand() *cobra.Command {
	cols := []string{"displayName", "appId", "id"}
	return noun("app", "Applications of the directory",
		verb{use: "list", short: "List applications", example: "app list", columns: cols, run: listOf("applications")},
		verb{use: "create NAME", short: "Add an application that can be given roles", example: "app create pipeline", columns: cols,
			run: func(a *admin, args []string) (any, error) {
				out, err := a.graph("POST", "applications", row{"displayName": args[0]})
				if err == nil {
					_, err = a.graph("POST", "servicePrincipals", row{"appId": out["appId"]})
				}
				return out, err
			}},
		verb{use: "add-secret APP", short: "Give an application a secret, which is shown once", example: "app add-secret pipeline --name nightly", columns: []string{"keyId", "secretText", "endDateTime"},
			flags: []string{"name=what the secret is for"},
			run: func(a *admin, args []string) (any, error) {
				id, err := a.application(args[0])
				if err != nil {
					return nil, err
				}
				return a.graph("POST", "applications/"+seg(id)+"/addPassword", row{"passwordCredential": row{"displayName": a.flag("name")}})
			}},
		verb{use: "remove-secret APP KEYID", short: "Take a secret away from an application", example: "app remove-secret pipeline 1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed",
			run: func(a *admin, args []string) (any, error) {
				id, err := a.application(args[0])
				if err != nil {
					return nil, err
				}
				return a.graph("POST", "applications/"+seg(id)+"/removePassword", row{"keyId": args[1]})
			}},
		verb{use: "delete APP", short: "Delete an application", example: "app delete pipeline",
			run: func(a *admin, args []string) (any, error) {
				id, err := a.application(args[0])
				if err != nil {
					return nil, err
				}
				return a.graph("DELETE", "applications/"+seg(id), nil)
			}},
	)
}

func tenantCommand() *cobra.Command {
	return noun("tenant", "Tenants of the installation",
		verb{use: "list", short: "List tenants", example: "tenant list", columns: []string{"displayName", "defaultDomainName", "id", "subscriptionIds", "home"}, run: listOf("castellan/tenants")},
		verb{use: "create DOMAIN", short: "Make a tenant; its administrator's secrets are shown once", example: "tenant create contoso.example --name Contoso", flags: []string{"name=display name"}, needs: []string{"name"},
			columns: []string{"id", "administrator.userPrincipalName", "administrator.password", "application.appId", "application.secretText"},
			run: func(a *admin, args []string) (any, error) {
				return a.graph("POST", "castellan/tenants", row{"displayName": a.flag("name"), "defaultDomainName": args[0]})
			}},
	)
}

func scimCommand() *cobra.Command {
	cols := []string{"displayName", "id", "hint", "endDateTime"}
	return noun("scim", "Tokens by which outside systems provision people and groups",
		verb{use: "list-tokens", short: "List the tokens", example: "scim list-tokens", columns: cols, run: listOf("identity/scimTokens")},
		verb{use: "create-token NAME", short: "Make a token, which is shown once", example: "scim create-token Okta --end 2027-01-31T00:00:00Z", columns: []string{"id", "endDateTime", "baseUrl", "secretText"},
			flags: []string{"end=when it ends, at most 365 days from now (default: in 180 days)"},
			run: func(a *admin, args []string) (any, error) {
				body := row{"displayName": args[0]}
				if end := a.flag("end"); end != "" {
					body["endDateTime"] = end
				}
				return a.graph("POST", "identity/scimTokens", body)
			}},
		verb{use: "revoke-token ID", short: "End a token at once", example: "scim revoke-token 3f0c9a1e-0000-0000-0000-000000000000",
			run: func(a *admin, args []string) (any, error) {
				return a.graph("DELETE", "identity/scimTokens/"+seg(args[0]), nil)
			}},
	)
}

func accessCommand() *cobra.Command {
	return noun("access", "Conditional Access", verb{use: "list", short: "List the policies", example: "access list", columns: []string{"displayName", "state", "id"}, run: listOf("identity/conditionalAccess/policies")})
}

func signInsCommand() *cobra.Command {
	return verb{use: "signins", short: "Show the newest sign-ins", example: "signins --user anna@castellan.localhost", flags: []string{"user=user name of one person"},
		columns: []string{"createdDateTime", "userPrincipalName", "appDisplayName", "authenticationProtocol", "status.errorCode", "conditionalAccessStatus"},
		run: func(a *admin, _ []string) (any, error) {
			q := "?$top=50"
			if u := a.flag("user"); u != "" {
				q = where("userPrincipalName eq '%s'", u) + "&$top=50"
			}
			out, err := a.graph("GET", "auditLogs/signIns"+q, nil)
			return out["value"], err
		}}.command()
}
