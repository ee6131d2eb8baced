package tracking

import (
	"context"
	"slices"
	"strconv"

	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

func (s *Service) showModel(tx *store.Tx, m model) (map[string]any, error) {
	last, err := lastVersions(tx, m.ID)
	if err != nil {
		return nil, err
	}
	versions := make([]map[string]any, 0, len(last))
	for _, v := range last {
		x, err := showVersion(tx, v)
		if err != nil {
			return nil, err
		}
		versions = append(versions, x)
	}
	aliases := []map[string]any{}
	for _, p := range pairs(m.inner.Aliases) {
		aliases = append(aliases, map[string]any{"alias": p.Key, "version": p.Value})
	}
	return map[string]any{
		"name": m.Name, "creation_timestamp": millis(created(m.Doc)), "last_updated_timestamp": millis(changed(m.Doc)), "user_id": m.inner.User,
		"description": m.props.Description, "latest_versions": versions, "tags": pairs(m.props.Tags), "aliases": aliases,
	}, nil
}

func showVersion(tx *store.Tx, v version) (map[string]any, error) {
	parent, err := resource.Load(tx, v.ID.Parent())
	if err != nil {
		return nil, err
	}
	in, err := innerOf[modelInner](parent)
	if err != nil {
		return nil, err
	}
	aliases := []string{}
	for a, to := range in.Aliases {
		if to == v.Name {
			aliases = append(aliases, a)
		}
	}
	slices.Sort(aliases)
	out := map[string]any{
		"name": v.ID.Parent().Name(), "version": v.Name, "creation_timestamp": millis(created(v.Doc)), "last_updated_timestamp": millis(changed(v.Doc)),
		"user_id": v.inner.User, "current_stage": v.props.stage(), "description": v.props.Description, "source": versionSource(v), "run_id": v.props.Job,
		"status": "READY", "tags": pairs(v.props.Tags), "run_link": v.inner.Link, "aliases": aliases,
	}
	if v.inner.Model != "" {
		out["model_id"] = v.inner.Model
	}
	return out, nil
}

// versionSource is where a version's files are, as its client said it.
func versionSource(v version) string {
	if v.inner.Source != "" {
		return v.inner.Source
	}
	return v.props.URI
}

var modelGrammar = grammar{
	kinds:      map[string]string{"attribute": "attribute", "attributes": "attribute", "attr": "attribute", "tag": "tag", "tags": "tag"},
	attributes: map[string]field{"name": {}, "timestamp": {numeric: true, as: "last_updated_timestamp"}, "last_updated_timestamp": {numeric: true}, "creation_timestamp": {numeric: true}},
	tail:       []term{{"attribute", "name", false}},
}

var versionGrammar = grammar{
	kinds: modelGrammar.kinds,
	attributes: map[string]field{
		"name": {list: true}, "version_number": {numeric: true}, "version": {numeric: true, as: "version_number"}, "run_id": {list: true}, "source_path": {}, "source": {as: "source_path"},
		"creation_timestamp": {numeric: true}, "last_updated_timestamp": {numeric: true}, "current_stage": {}, "stage": {as: "current_stage"},
	},
	tail: []term{{"attribute", "last_updated_timestamp", true}, {"attribute", "name", false}, {"attribute", "version_number", true}},
}

// listedModel and listedVersion are what searches look at.
type (
	listedModel   struct{ model }
	listedVersion struct{ version }
)

// promptTag is set on models that are prompts. Clients ask for those without it
// as if it were there.
const promptTag = "mlflow.prompt.is_prompt"

func tagValues(tags map[string]string, key string) []value {
	v, ok := tags[key]
	if key == promptTag && !ok {
		v, ok = "false", true
	}
	return oneText(v, ok)
}

func (m listedModel) values(kind, key string) []value {
	if kind == "tag" {
		return tagValues(m.props.Tags, key)
	}
	switch key {
	case "name":
		return []value{textValue(m.Name)}
	case "creation_timestamp":
		return []value{intValue(millis(created(m.Doc)))}
	}
	return []value{intValue(millis(changed(m.Doc)))}
}

func (v listedVersion) values(kind, key string) []value {
	if kind == "tag" {
		return tagValues(v.props.Tags, key)
	}
	switch key {
	case "name":
		return []value{textValue(v.ID.Parent().Name())}
	case "version_number":
		n, err := strconv.ParseInt(v.Name, 10, 64)
		if err != nil {
			return nil
		}
		return []value{intValue(n)}
	case "run_id":
		return []value{textValue(v.props.Job)}
	case "source_path":
		return []value{textValue(versionSource(v.version))}
	case "current_stage":
		return []value{textValue(v.props.stage())}
	case "creation_timestamp":
		return []value{intValue(millis(created(v.Doc)))}
	}
	return []value{intValue(millis(changed(v.Doc)))}
}

func (s *Service) searchModels(ctx context.Context, g gate.Grant, in *input) (any, error) {
	where, by := in.text("filter"), in.texts("order_by")
	size, from := limit(in, 100, 1000), offset(in)
	if err := in.done(); err != nil {
		return nil, err
	}
	q, err := modelGrammar.query(where, by)
	if err != nil {
		return nil, err
	}
	out := map[string]any{}
	err = s.view(ctx, g, modelsRead, func(tx *store.Tx, w Workspace) error {
		all, err := resource.List(tx, modelType, w.ID, "", 0)
		if err != nil {
			return err
		}
		var hits []listedModel
		for _, d := range all {
			m, err := entryOf[modelProps, modelInner](d)
			if err != nil {
				return err
			}
			if x := (listedModel{m}); q.matches(x) {
				hits = append(hits, x)
			}
		}
		sortBy(q, hits)
		hits, next := part(hits, from, size)
		list := make([]map[string]any, 0, len(hits))
		for _, m := range hits {
			x, err := s.showModel(tx, m.model)
			if err != nil {
				return err
			}
			list = append(list, x)
		}
		if out["registered_models"] = list; next != "" {
			out["next_page_token"] = next
		}
		return nil
	})
	return out, err
}

func (s *Service) searchVersions(ctx context.Context, g gate.Grant, in *input) (any, error) {
	where, by := in.text("filter"), in.texts("order_by")
	size, from := limit(in, 10_000, 200_000), offset(in)
	if err := in.done(); err != nil {
		return nil, err
	}
	q, err := versionGrammar.query(where, by)
	if err != nil {
		return nil, err
	}
	out := map[string]any{}
	err = s.view(ctx, g, versionsRead, func(tx *store.Tx, w Workspace) error {
		scope := w.ID
		for _, c := range q.clauses {
			if c.kind == "attribute" && c.key == "name" && c.op == "=" && modelName.MatchString(c.want.text) {
				scope = w.ID.Child("models", c.want.text)
			}
		}
		all, err := resource.List(tx, versionType, scope, "", 0)
		if err != nil {
			return err
		}
		var hits []listedVersion
		for _, d := range all {
			v, err := entryOf[versionProps, versionInner](d)
			if err != nil {
				return err
			}
			if x := (listedVersion{v}); q.matches(x) {
				hits = append(hits, x)
			}
		}
		sortBy(q, hits)
		hits, next := part(hits, from, size)
		list := make([]map[string]any, 0, len(hits))
		for _, v := range hits {
			x, err := showVersion(tx, v.version)
			if err != nil {
				return err
			}
			list = append(list, x)
		}
		if out["model_versions"] = list; next != "" {
			out["next_page_token"] = next
		}
		return nil
	})
	return out, err
}
