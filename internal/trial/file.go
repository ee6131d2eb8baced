package trial

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/policy"
	"castellan/internal/template"

	"go.yaml.in/yaml/v3"
)

// File is a document that was read, and knows the lines of its parts.
type File struct {
	Name string
	Tree any
	node *yaml.Node // nil if no line is known
}

// Read reads JSON, with the freedoms of template files, or YAML if name ends in
// .yaml or .yml. What could be read in two ways is refused: a name twice, an alias.
func Read(name string, data []byte) (*File, error) {
	f := &File{Name: name}
	var top yaml.Node
	switch strings.ToLower(filepath.Ext(name)) {
	case ".yaml", ".yml":
		if err := yaml.Unmarshal(data, &top); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if len(top.Content) == 0 {
			return nil, fmt.Errorf("%s is empty", name)
		}
		f.node = top.Content[0]
		tree, err := f.value(f.node)
		if err != nil {
			return nil, err
		}
		f.Tree = tree
	default:
		tree, err := template.Read(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		// JSON is YAML but for its tabs and comments; without those it has lines.
		if err := yaml.Unmarshal([]byte(strings.ReplaceAll(string(data), "\t", " ")), &top); err == nil && len(top.Content) > 0 {
			f.node = top.Content[0]
		}
		f.Tree = tree
	}
	f.Tree = policy.Plain(f.Tree)
	return f, nil
}

// maxNesting bounds how deep a document nests, as arm.ParseJSON does.
const maxNesting = 64

func (f *File) value(n *yaml.Node) (any, error) { return f.within(n, 0) }

func (f *File) within(n *yaml.Node, depth int) (any, error) {
	bad := func(format string, args ...any) (any, error) {
		return nil, fmt.Errorf("%s:%d: %s", f.Name, n.Line, fmt.Sprintf(format, args...))
	}
	if depth > maxNesting {
		return bad("the document nests deeper than %d", maxNesting)
	}
	switch n.Kind {
	case yaml.MappingNode:
		out, seen := map[string]any{}, map[string]bool{}
		for i := 0; i < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind != yaml.ScalarNode || k.Tag == "!!merge" {
				return bad("a name is not plain text")
			}
			if seen[strings.ToLower(k.Value)] {
				return nil, fmt.Errorf("%s:%d: %q is there twice", f.Name, k.Line, k.Value)
			}
			seen[strings.ToLower(k.Value)] = true
			v, err := f.within(n.Content[i+1], depth+1)
			if err != nil {
				return nil, err
			}
			out[k.Value] = v
		}
		return out, nil
	case yaml.SequenceNode:
		out := make([]any, len(n.Content))
		for i, c := range n.Content {
			var err error
			if out[i], err = f.within(c, depth+1); err != nil {
				return nil, err
			}
		}
		return out, nil
	case yaml.ScalarNode:
		switch n.ShortTag() {
		case "!!str", "!!timestamp":
			return n.Value, nil
		case "!!null", "!!bool", "!!int", "!!float":
			var v any
			if err := n.Decode(&v); err != nil {
				return bad("%v", err)
			}
			if u, is := v.(uint64); is {
				return float64(u), nil
			}
			return v, nil
		}
	}
	return bad("%s can't stand here; write the value itself", n.ShortTag())
}

// At is the file's name with the line where a part of it stands, as far as it is
// known: part is such as properties.policyRule.if.allOf[0].
func (f *File) At(part string) string {
	n, line := f.node, 0
	if n == nil {
		return f.Name
	}
	line = n.Line
	for _, name := range strings.FieldsFunc(part, func(r rune) bool { return strings.ContainsRune(".[]", r) }) {
		next := child(n, name)
		if next == nil {
			break
		}
		n = next
		line = n.Line
	}
	return f.Name + ":" + strconv.Itoa(line)
}

func child(n *yaml.Node, name string) *yaml.Node {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			if strings.EqualFold(n.Content[i].Value, name) {
				return n.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i]
		}
	}
	return nil
}

// wrong says where in the file an error of a policy lies.
func (f *File) wrong(err error) error {
	part := ""
	if e, ok := err.(*arm.Error); ok {
		part = e.Target
	}
	if m, ok := f.Tree.(map[string]any); ok && member(m, "properties") != nil {
		part = "properties." + part
	}
	return fmt.Errorf("%s: %w", f.At(part), err)
}

// member is a property by its name, in whatever case, or nil.
func member(m map[string]any, name string) any {
	for k, v := range m {
		if strings.EqualFold(k, name) {
			return v
		}
	}
	return nil
}

func text(m map[string]any, name string) string {
	s, _ := member(m, name).(string)
	return s
}
