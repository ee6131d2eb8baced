package resource

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	"castellan/internal/arm"
)

// groupName is what a resource group may be called, but for its last character.
var groupName = regexp.MustCompile(`^[A-Za-z0-9_().-]{1,90}$`)

// checkGroup holds a group against what Azure asks of one.
func checkGroup(c Change) error {
	if n := c.Doc.Name; c.Old == nil && (!groupName.MatchString(n) || strings.HasSuffix(n, ".")) {
		return arm.Errorf("InvalidResourceGroup", "The resource group name %q is not valid: it must be 1 to 90 letters, digits and characters of '-', '.', '_', '(' and ')', the last of which is no '.'.", n)
	}
	if c.Doc.Location == "" {
		return arm.Errorf("LocationRequired", "The location property is required for this definition.")
	}
	return nil
}

// filterGroups reads the $filter that lists of groups take: tagName and tagValue.
func filterGroups(q url.Values) (func(*Doc) bool, error) {
	f := q.Get("$filter")
	want, err := readFilter(f)
	if err != nil {
		return nil, err
	}
	for _, all := range want {
		if len(want) > 1 || slices.ContainsFunc(all, func(c clause) bool { return c.how != "eq" || c.field != "tagname" && c.field != "tagvalue" }) {
			return nil, arm.Errorf(arm.BadRequest, "the $filter %q is not supported for resource groups; supported: tagName eq 'NAME', perhaps with and tagValue eq 'VALUE'", f)
		}
	}
	return want.meets, nil
}
