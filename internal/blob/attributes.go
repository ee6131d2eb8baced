package blob

import (
	"bytes"
	"context"
	"io"
	"net/http"

	"castellan/internal/arm"
	"castellan/internal/condition"
	"castellan/internal/store"
)

// The attributes that conditions of role assignments ask about blobs, and the
// operations of an action that they tell apart (Azure's suboperations).
const (
	attrContainer = "microsoft.storage/storageaccounts/blobservices/containers:name"
	attrPath      = "microsoft.storage/storageaccounts/blobservices/containers/blobs:path"
	attrPrefix    = "microsoft.storage/storageaccounts/blobservices/containers/blobs:prefix"
	attrTags      = "microsoft.storage/storageaccounts/blobservices/containers/blobs/tags"
	listOp        = "Blob.List"
	tagOp         = "Blob.Write.WithTagHeaders"
)

// attributes are those of a request about a container, or a blob in it; r is nil
// for the source of a copy.
func (s *Service) attributes(r *http.Request, container arm.ID, blob string) func() *condition.Attributes {
	return func() *condition.Attributes {
		a := &condition.Attributes{Resource: map[string]any{attrContainer: container.Name()}, Request: map[string]any{}}
		var q query
		if r != nil {
			var err error
			if q, err = parseQuery(r.URL.RawQuery); err != nil {
				return a
			}
		}
		if blob != "" {
			a.Resource[attrPath] = blob
			s.addTags(a.Resource, container, blob, moment{q["snapshot"], q["versionid"]})
			requestTags(a, r, q)
			return a
		}
		if q["comp"] == "list" {
			a.SubOperation = listOp
			a.Request[attrPrefix] = q["prefix"]
		}
		return a
	}
}

// addTags adds those that the blob has at this moment. If they can't be read no
// condition on them holds.
func (s *Service) addTags(to map[string]any, container arm.ID, blob string, m moment) {
	p := place{account: s.byID(container.Parent().Parent()), container: container.Name(), blob: blob}
	if p.account == nil {
		return
	}
	var b *row
	if err := s.DB.View(context.Background(), func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		if err == nil {
			b, err = findAt(tx, c, blob, m)
		}
		return err
	}); err != nil || b == nil {
		return
	}
	setTagAttributes(to, b.Tags)
}

func setTagAttributes(to map[string]any, tags map[string]string) {
	var keys []any
	for _, k := range sortedKeys(tags) {
		keys = append(keys, k)
		to[attrTags+":"+k+"<$key_case_sensitive$>"] = tags[k]
	}
	if keys != nil {
		to[attrTags+"&$keys$"] = keys
	}
}

// maxTagsXML is how many bytes a document with tags may have for conditions to see it.
const maxTagsXML = 32 << 10

// requestTags adds the tags that the request would give a blob.
func requestTags(a *condition.Attributes, r *http.Request, q query) {
	switch {
	case r == nil:
	case r.Header.Get("x-ms-tags") != "":
		a.SubOperation = tagOp
		if tags, err := headerTags(r); err == nil {
			setTagAttributes(a.Request, tags)
		}
	case r.Method == http.MethodPut && q["comp"] == "tags":
		data, err := io.ReadAll(io.LimitReader(r.Body, maxTagsXML))
		r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(data), r.Body))
		if err != nil {
			return
		}
		if n, err := parseXML(data); err == nil && n.name == "Tags" {
			if tags, err := tagList(n); err == nil {
				setTagAttributes(a.Request, tags)
			}
		}
	}
}
