// Package scim reads what SCIM 2.0 says of people and groups (RFC 7643, RFC 7644): resources by their schemas, filters and changes.
package scim

import (
	"slices"
	"strings"

	"castellan/internal/arm"
)

// The URNs of messages.
const (
	ListURN  = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
	PatchURN = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
	ErrorURN = "urn:ietf:params:scim:api:messages:2.0:Error"
)

// The words by which a refusal says what was wrong (RFC 7644, table 9).
const (
	InvalidFilter arm.Code = "invalidFilter"
	InvalidSyntax arm.Code = "invalidSyntax"
	InvalidPath   arm.Code = "invalidPath"
	InvalidValue  arm.Code = "invalidValue"
	NoTarget      arm.Code = "noTarget"
	Mutability    arm.Code = "mutability"
	Uniqueness    arm.Code = "uniqueness"
	TooMany       arm.Code = "tooMany"
)

// Attribute is what a schema says of one (RFC 7643, section 7).
type Attribute struct {
	Name        string      `json:"name"`
	Type        string      `json:"type"`
	Sub         []Attribute `json:"subAttributes,omitempty"`
	Multi       bool        `json:"multiValued"`
	Description string      `json:"description"`
	Required    bool        `json:"required"`
	Canonical   []string    `json:"canonicalValues,omitempty"` // what is usual; other values are taken too
	Exact       bool        `json:"caseExact"`
	Mutability  string      `json:"mutability"`
	Returned    string      `json:"returned"`
	Uniqueness  string      `json:"uniqueness"`
	Refs        []string    `json:"referenceTypes,omitempty"`
}

// Schema is a set of attributes under a URN.
type Schema struct {
	ID, Name, Description string
	Attributes            []Attribute
}

// Type is a kind of resources.
type Type struct {
	Name, Endpoint, Description string
	Core                        *Schema
	Extensions                  []*Schema

	all []Attribute // of the resource's object; an extension is one, complex
}

func text(name, about string) Attribute {
	return Attribute{Name: name, Type: "string", Description: about, Mutability: "readWrite", Returned: "default", Uniqueness: "none"}
}

func (a Attribute) as(kind string) Attribute      { a.Type = kind; return a }
func (a Attribute) mutable(word string) Attribute { a.Mutability = word; return a }
func (a Attribute) exact() Attribute              { a.Exact = true; return a }
func (a Attribute) required() Attribute           { a.Required = true; return a }
func (a Attribute) refers(to ...string) Attribute {
	a.Type, a.Exact, a.Refs = "reference", true, to
	return a
}
func (a Attribute) of(sub ...Attribute) Attribute   { a.Type, a.Sub = "complex", sub; return a }
func (a Attribute) many(sub ...Attribute) Attribute { a.Multi = true; return a.of(sub...) }

// plural is what lists of values of one kind have in common.
func plural(name, about string, types ...string) Attribute {
	kind := text("type", "what it is for")
	kind.Canonical = types
	return text(name, about).many(text("value", "the value"), text("display", "for people to read"), kind, text("primary", "whether it is the preferred one").as("boolean"))
}

// EnterpriseURN is the URN of the extension for people who work somewhere.
const EnterpriseURN = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"

var common = []Attribute{
	text("schemas", "the URNs of the schemas that the resource has attributes of").exact(),
	{Name: "id", Type: "string", Description: "given by the platform", Exact: true, Mutability: "readOnly", Returned: "always", Uniqueness: "server"},
	text("externalId", "given by the client").exact(),
	text("meta", "about the resource").of(
		text("resourceType", "its type").exact().mutable("readOnly"), text("created", "when it was made").as("dateTime").mutable("readOnly"),
		text("lastModified", "when it was last changed by SCIM").as("dateTime").mutable("readOnly"), text("location", "its URL").refers("uri").mutable("readOnly"),
		text("version", "its ETag").exact().mutable("readOnly"),
	).mutable("readOnly"),
}

// Users are people.
var Users = newType("User", "/Users", "a person", &Schema{ID: "urn:ietf:params:scim:schemas:core:2.0:User", Name: "User", Description: "a person", Attributes: []Attribute{
	{Name: "userName", Type: "string", Description: "the name by which the person signs in; NAME, or NAME@ a domain of the tenant", Required: true, Mutability: "readWrite", Returned: "default", Uniqueness: "server"},
	text("name", "the parts of the person's name").of(
		text("formatted", "the whole name"), text("familyName", "the family name"), text("givenName", "the given name"), text("middleName", "the middle name"),
		text("honorificPrefix", "such as Dr."), text("honorificSuffix", "such as III")),
	text("displayName", "the name that is shown"), text("nickName", "what friends say"), text("profileUrl", "a page about the person").refers("external"),
	text("title", "such as Vice President"), text("userType", "such as Employee; it gives no rights"), text("preferredLanguage", "such as en-US"),
	text("locale", "such as en-US"), text("timezone", "such as Europe/Berlin"), text("active", "whether the person may sign in").as("boolean"),
	plural("emails", "mail addresses", "work", "home", "other"), plural("phoneNumbers", "telephone numbers", "work", "home", "mobile", "fax", "pager", "other"),
	text("addresses", "postal addresses").many(
		text("formatted", "the whole address"), text("streetAddress", "street and number"), text("locality", "the city"), text("region", "the state"),
		text("postalCode", "the postal code"), text("country", "the country's code"), text("type", "what it is for"), text("primary", "whether it is the preferred one").as("boolean")),
	text("groups", "the groups that the person is in").many(
		text("value", "the group's id").exact().mutable("readOnly"), text("$ref", "the group's URL").refers("Group").mutable("readOnly"),
		text("display", "the group's name").mutable("readOnly"), text("type", "direct or indirect").mutable("readOnly")).mutable("readOnly"),
}}, &Schema{ID: EnterpriseURN, Name: "EnterpriseUser", Description: "a person who works somewhere", Attributes: []Attribute{
	text("employeeNumber", "the number of the employee"), text("costCenter", "the cost center"), text("organization", "the organization"),
	text("division", "the division"), text("department", "the department"),
	text("manager", "whom the person reports to").of(text("value", "the id of the manager").exact(), text("$ref", "the manager's URL").refers("User"), text("displayName", "the manager's name").mutable("readOnly")),
}})

// Groups are sets of people and groups.
var Groups = newType("Group", "/Groups", "a group", &Schema{ID: "urn:ietf:params:scim:schemas:core:2.0:Group", Name: "Group", Description: "a group", Attributes: []Attribute{
	text("displayName", "the group's name").required(),
	text("members", "who is in the group, of what SCIM made").many(
		text("value", "the member's id").exact().mutable("immutable"), text("$ref", "the member's URL").refers("User", "Group").mutable("immutable"),
		kinds(text("type", "User or Group").mutable("immutable")), text("display", "taken, and not shown").mutable("readOnly")),
}})

func kinds(a Attribute) Attribute { a.Canonical = []string{"User", "Group"}; return a }

// Types are all kinds of resources.
var Types = []*Type{Users, Groups}

func newType(name, endpoint, about string, core *Schema, more ...*Schema) *Type {
	t := &Type{Name: name, Endpoint: endpoint, Description: about, Core: core, Extensions: more, all: slices.Concat(common, core.Attributes)}
	for _, x := range more {
		t.all = append(t.all, text(x.ID, x.Description).of(x.Attributes...))
	}
	return t
}

// Fold is the form in which names of attributes and URNs are compared: ASCII
// letters alone are lowered.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// lookup is the attribute of this name, or nil.
func lookup(in []Attribute, name string) *Attribute {
	for i := range in {
		if fold(in[i].Name) == fold(name) {
			return &in[i]
		}
	}
	return nil
}

// chain are the attributes that a path leads through, outermost first.
func (t *Type) chain(urn, name, sub string) ([]*Attribute, error) {
	in := t.all
	var out []*Attribute
	if urn != "" && fold(urn) != fold(t.Core.ID) {
		x := lookup(t.all, urn)
		if x == nil || !strings.Contains(urn, ":") {
			return nil, arm.Errorf(InvalidPath, "A %s has no attributes of the schema %q.", t.Name, clip(urn))
		}
		in, out = x.Sub, append(out, x)
	}
	for _, n := range []string{name, sub} {
		if n == "" {
			continue
		}
		a := lookup(in, n)
		if a == nil {
			return nil, arm.Errorf(InvalidPath, "A %s has no attribute %q here; there are %s.", t.Name, clip(n), names(in))
		}
		in, out = a.Sub, append(out, a)
	}
	return out, nil
}

func names(in []Attribute) string {
	var out []string
	for _, a := range in {
		out = append(out, a.Name)
	}
	return strings.Join(out, ", ")
}

// clip is what a client sent, short enough for a message.
func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), 100)], "") }

// Show is the schema as /Schemas shows it.
func (s *Schema) Show(base string) map[string]any {
	return map[string]any{
		"schemas": []string{"urn:ietf:params:scim:schemas:core:2.0:Schema"}, "id": s.ID, "name": s.Name, "description": s.Description, "attributes": s.Attributes,
		"meta": map[string]any{"resourceType": "Schema", "location": base + "/Schemas/" + s.ID},
	}
}

// Show is the type as /ResourceTypes shows it.
func (t *Type) Show(base string) map[string]any {
	more := []any{}
	for _, x := range t.Extensions {
		more = append(more, map[string]any{"schema": x.ID, "required": false})
	}
	return map[string]any{
		"schemas": []string{"urn:ietf:params:scim:schemas:core:2.0:ResourceType"}, "id": t.Name, "name": t.Name, "description": t.Description, "endpoint": t.Endpoint,
		"schema": t.Core.ID, "schemaExtensions": more, "meta": map[string]any{"resourceType": "ResourceType", "location": base + "/ResourceTypes/" + t.Name},
	}
}
