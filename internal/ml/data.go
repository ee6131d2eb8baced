package ml

import (
	"strings"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// dataProps are the properties of a version of data.
type dataProps struct {
	assetProps
	Type    string         `json:"dataType" arm:"only=uri_file|uri_folder"`
	URI     string         `json:"dataUri"`
	AutoDel any            `json:"autoDeleteSetting,omitempty" arm:"only={},since=2023-04-01-preview previews"`
	IP      any            `json:"intellectualProperty,omitempty" arm:"only={},since=2023-04-01-preview previews"`
	Stage   string         `json:"stage,omitempty" arm:"since=2023-04-01-preview previews"`
	Extra   map[string]any `json:"referencedUris,omitempty" arm:"readonly"`
}

func (s *Service) dataVersionKind() *resource.Kind {
	return &resource.Kind{
		Type: workspaceType + "/data/versions", Doc: "a version of data", Parent: s.kinds.data,
		Props:  func() any { return &dataProps{Type: "uri_folder"} },
		Save:   s.saveData,
		Remove: versionRemoved,
		Filter: byView,
	}
}

// saveData wants the data to lie in a datastore of the workspace, and to stay
// where it is.
func (s *Service) saveData(tx *store.Tx, c resource.Change) error {
	p, err := props[dataProps](c.Doc)
	if err != nil {
		return err
	}
	if c.Old != nil {
		was, err := props[dataProps](c.Old)
		if err != nil {
			return err
		}
		if was.URI != p.URI || !strings.EqualFold(was.Type, p.Type) {
			return arm.Errorf(arm.Conflict, "version %s of %s is %s, a %s; a version can't be changed, make another", c.Doc.Name, c.Doc.ID.Parent().Name(), was.URI, was.Type)
		}
	} else {
		w, err := s.workspaceIn(tx, c.Doc.ID.Parent().Parent())
		if err != nil {
			return err
		}
		if _, err := s.locate(tx, w, p.URI); err != nil {
			return err
		}
	}
	return s.versionAdded(tx, s.kinds.data, c, p.Type)
}
