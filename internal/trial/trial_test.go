package trial_test

import (
	"errors"
	"strings"
	"testing"

	"castellan/internal/trial"
)

const rules = `
policy:
  name: set
  policyDefinitions:
    - {policyDefinitionId: /d/tag, policyDefinitionReferenceId: first, parameters: {value: {value: "[parameters('env')]"}}}
    - {policyDefinitionId: /d/tag, policyDefinitionReferenceId: second, parameters: {value: {value: prod}}}
    - {policyDefinitionId: /d/late}
    - {policyDefinitionId: /d/lock}
  parameters: {env: {type: String, defaultValue: prod}}
definitions:
  - name: tag
    parameters: {value: {type: String}}
    policyRule:
      if: {allOf: [{field: type, equals: a/b}, {field: tags.env, exists: false}]}
      then: {effect: modify, details: {roleDefinitionIds: [r], operations: [{operation: addOrReplace, field: tags.env, value: "[parameters('value')]"}]}}
  - name: late
    policyRule: {if: {allOf: [{field: type, equals: a/b}, {value: "[utcNow()]", greater: "2030"}, {field: tags.env, equals: prod}]}, then: {effect: deny}}
  - name: lock
    policyRule:
      if: {field: type, equals: a/c}
      then: {effect: auditIfNotExists, details: {type: a/lock, name: "[field('name')]", existenceCondition: {field: kind, equals: hard}}}
cases:
  - resource: {type: a/b, name: x}
    now: "2026-01-01T00:00:00Z"
    expect: [modify, modify]
    becomes: {tags: {env: prod}, type: a/b}
  - resource: {type: a/b, name: x}
    now: "2031-01-01T00:00:00Z"
    expect: deny
  - resource: {type: a/b, name: x}
    parameters: {env: dev}
    expect: deny
    message: want different values
  - resource: {type: a/b, name: x, tags: {env: dev}}
    expect: none
  - resource: {type: a/c, name: x}
    expect: auditIfNotExists
    message: lock
  - resource: {type: a/c, name: x}
    related: [{type: a/lock, name: x, kind: soft}, {type: a/lock, name: y, kind: hard}]
    expect: auditIfNotExists
  - resource: {type: a/c, name: x}
    related: [{type: a/lock, name: x, kind: hard}]
    expect: none
`

func suite(text string) (*trial.Suite, error) {
	f, err := trial.Read("set.yaml", []byte(text))
	if err != nil {
		return nil, err
	}
	nothing := func(string) (*trial.File, bool) { return nil, false }
	return trial.ReadSuite(f, func(string) (*trial.File, error) { return nil, errors.New("no file") }, nothing)
}

// An initiative is judged as a server does: changes first, of which those that
// want different values for one field are refused, then the outcome; and what
// must exist is looked for among what is there.
func TestJudging(t *testing.T) {
	s, err := suite(rules)
	if err != nil {
		t.Fatal(err)
	}
	r := s.Run()
	for _, x := range r.Results {
		if !x.Passed {
			t.Errorf("%s: %q, found %+v", x.At, x.Why, x.Findings)
		}
	}
	if len(r.Results) != 7 {
		t.Errorf("%d tests ran", len(r.Results))
	}
	// Each expectation says something: without it another outcome fails.
	for _, from := range []string{"expect: none", "expect: deny", "expect: auditIfNotExists", "expect: [modify, modify]"} {
		s, err := suite(strings.ReplaceAll(rules, from, "expect: audit"))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := s.Run().Failed, strings.Count(rules, from); got != want {
			t.Errorf("%d tests fail without %q, want %d", got, from, want)
		}
	}
	s, err = suite(strings.Replace(rules, "becomes: {tags: {env: prod}", "becomes: {tags: {env: dev}", 1))
	if err != nil || s.Run().Failed != 1 {
		t.Errorf("a resource that becomes another passes, %v", err)
	}
}
