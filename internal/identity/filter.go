package identity

import (
	"castellan/internal/arm"
	"castellan/internal/odata"
)

// parseFilter makes the matcher of a $filter, with errors as Graph has them.
func parseFilter(text string) (odata.Matcher, error) {
	wrong := &arm.Error{Code: "Request_UnsupportedQuery", Message: "The $filter " + printable(text) + " is not supported. Supported are: " + odata.Supported + "."}
	m, err := odata.ParseFilter(text)
	if err != nil {
		return nil, wrong
	}
	return func(o map[string]any) (bool, error) {
		ok, err := m(o)
		if err != nil {
			return false, wrong
		}
		return ok, nil
	}, nil
}
