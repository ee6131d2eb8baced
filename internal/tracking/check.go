package tracking

import (
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"castellan/internal/arm"
)

// What MLflow's own server takes at most, and how much of it one run may have.
const (
	maxKey        = 250  // characters of a metric's, parameter's or tag's name
	maxParam      = 6000 // characters of a parameter's value
	maxTag        = 8000 // characters of a tag's value
	maxName       = 500  // characters of an experiment's or a run's name
	maxBatch      = 1000 // metrics, parameters and tags in one batch together
	maxBatchOther = 100  // parameters, and tags, in one batch
	maxParams     = 2000 // parameters of one run
	maxTags       = 1000 // tags of one run or experiment
	maxMetrics    = 2000 // metrics, by name, of one run
	maxPoints     = 10_000_000
)

// checkKey says whether name can be that of a metric, a parameter or a tag.
func checkKey(what, name string) error {
	if name == "" {
		return bad("Missing value for required parameter '%s.key'.", what)
	}
	if n := utf8.RuneCountInString(name); n > maxKey {
		return bad("The %s name '%s' has %d characters; at most %d are allowed.", what, clip(name), n, maxKey)
	}
	for _, r := range name {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_-./ :", r) {
			return bad("Invalid %s name: '%s'. Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colons (:), and slashes (/).", what, clip(name))
		}
	}
	if path.Clean(name) != name || name == "." || name == ".." || strings.HasPrefix(name, "/") || strings.HasPrefix(name, "../") {
		return bad("Invalid %s name: '%s'. Names may be treated as files in certain cases, and must not resolve to other names when treated as such.", what, clip(name))
	}
	return nil
}

func checkParam(p pair) error {
	if n := utf8.RuneCountInString(p.Value); n > maxParam {
		return bad("The value of parameter '%s' has %d characters; at most %d are allowed.", clip(p.Key), n, maxParam)
	}
	return checkKey("param", p.Key)
}

func checkTag(p pair) error {
	if n := utf8.RuneCountInString(p.Value); n > maxTag {
		return bad("The value of tag '%s' has %d characters; at most %d are allowed.", clip(p.Key), n, maxTag)
	}
	return checkKey("tag", p.Key)
}

// checkName says whether name can be that of an experiment or a run.
func checkName(what, name string) error {
	if n := utf8.RuneCountInString(name); n == 0 || n > maxName {
		return bad("The %s name has %d characters; it must have 1 to %d.", what, n, maxName)
	}
	for _, r := range name {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return bad("The %s name has a control character.", what)
		}
	}
	return nil
}

// setTags puts tags into m, which may be nil, and gives it back.
func setTags(m map[string]string, tags []pair, of string) (map[string]string, error) {
	for _, t := range tags {
		if err := checkTag(t); err != nil {
			return nil, err
		}
		if m == nil {
			m = map[string]string{}
		}
		m[t.Key] = t.Value
	}
	if len(m) > maxTags {
		return nil, arm.Errorf(limited, "%s would have %d tags; at most %d are allowed.", of, len(m), maxTags)
	}
	return m, nil
}
