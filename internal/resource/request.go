package resource

import (
	"net/http"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// Version wants exactly one api-version, of the form that ARM's have: what
// every door of Resource Manager asks for, also one that serves no Kind.
func Version(r *http.Request) error { return version(r) }

// ReadBody is the request's body, which must not be larger than ARM takes.
func ReadBody(w http.ResponseWriter, r *http.Request) ([]byte, error) { return readBody(w, r) }

// InGroup is the target of a door below one resource of a type that lies in a
// group: its path names {sub}, {group} and {name}, and perhaps {op} for the item.
func InGroup(r *http.Request, v gate.Vars, typ string) (gate.Target, error) {
	if err := version(r); err != nil {
		return gate.Target{}, err
	}
	for _, name := range []string{"sub", "group", "name"} {
		if err := arm.CheckSegment(v[name]); err != nil { // decoded, it may have become several
			return gate.Target{}, err
		}
	}
	group, err := arm.ParseID("/subscriptions/" + v["sub"] + "/resourceGroups/" + v["group"])
	if err != nil {
		return gate.Target{}, err
	}
	return gate.Target{ID: group.Child(typ, v["name"]), Item: v["op"]}, nil
}
