package ml

import (
	"encoding/json"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// link is a property that names another resource.
type link struct{ arm.ID }

// UnmarshalJSON parses the id; what is not one is refused as ARM does.
func (l *link) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return arm.Errorf("LinkedInvalidPropertyId", "a property that names a resource is %s; it must be a resource id", b)
	}
	if text == "" {
		*l = link{}
		return nil
	}
	id, err := arm.ParseID(text)
	if err != nil {
		return arm.Errorf("LinkedInvalidPropertyId", "property id '%s' is invalid: expected /subscriptions/ID/resourceGroups/NAME/providers/NAMESPACE/TYPE/NAME", text)
	}
	*l = link{id}
	return nil
}

// MarshalJSON writes the id as it was spelt, nothing as null.
func (l link) MarshalJSON() ([]byte, error) {
	if l.IsZero() {
		return []byte("null"), nil
	}
	return json.Marshal(l.String())
}

// is says whether the link names a resource of the type, field being its name
// for people.
func (l link) is(typ, field string) error {
	if l.IsZero() || strings.EqualFold(l.Type(), typ) {
		return nil
	}
	return arm.Errorf("LinkedInvalidPropertyId", "%s is '%s', which is no %s", field, l, typ)
}

// there loads what the link names, or says that it does not exist.
func (l link) there(tx *store.Tx, field string) (*resource.Doc, error) {
	d, err := resource.Load(tx, l.ID)
	if err == nil && d == nil {
		err = arm.Errorf(arm.BadRequest, "%s is '%s', which does not exist", field, l)
	}
	return d, err
}

// chosen reads into v, which reads only documents whose field has one of the
// values want; what other value there may be in Azure is refused by its name, not by
// the fields that come with it.
func chosen(data []byte, field, what string, v any, want ...string) error {
	tree, err := arm.ParseJSON(data)
	if err != nil {
		return err
	}
	doc, _ := tree.(map[string]any)
	for k, got := range doc {
		if !strings.EqualFold(k, field) || got == nil {
			continue
		}
		text, isText := got.(string)
		if !isText || spelt(text, want...) == "" {
			return arm.Errorf(arm.Unsupported, "%s is %q; supported %s: %s", field, text, what, strings.Join(want, ", "))
		}
	}
	return arm.DecodeTree(tree, v)
}

// spelt is the one of names that text is in another letter case, or "".
func spelt(text string, names ...string) string {
	for _, n := range names {
		if strings.EqualFold(n, text) {
			return n
		}
	}
	return ""
}

// props reads a resource's properties.
func props[T any](d *resource.Doc) (v T, err error) {
	err = json.Unmarshal(d.Properties, &v)
	return v, err
}

// inner reads what a kind keeps beside the properties.
func inner[T any](d *resource.Doc) (v T, err error) {
	if len(d.Inner) == 0 {
		return v, nil
	}
	err = json.Unmarshal(d.Inner, &v)
	return v, err
}

// setInner keeps v beside the properties.
func setInner(d *resource.Doc, v any) (err error) {
	d.Inner, err = json.Marshal(v)
	return err
}

// flag is a bool that templates may spell as a string.
type flag bool

// UnmarshalJSON takes true, false, "true" and "false".
func (f *flag) UnmarshalJSON(b []byte) error {
	switch strings.ToLower(strings.Trim(string(b), `"`)) {
	case "true":
		*f = true
	case "false":
		*f = false
	default:
		return arm.Errorf(arm.InvalidRequest, "a property is %s; it must be true or false", b)
	}
	return nil
}
