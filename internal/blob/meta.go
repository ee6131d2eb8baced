package blob

import (
	"net/http"
	"strings"
)

// maxMeta is how many bytes the metadata of a blob or container may have in all.
const maxMeta = 8 << 10

const metaPrefix = "x-ms-meta-"

// metaOf is the metadata in a request's headers. Its names are lower case: HTTP
// does not carry their case.
func metaOf(h http.Header) (map[string]string, error) {
	var out map[string]string
	for k, vs := range h {
		name, ok := strings.CutPrefix(strings.ToLower(k), metaPrefix)
		if !ok {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = strings.TrimSpace(strings.Join(vs, ","))
	}
	return out, checkMeta(out)
}

func checkMeta(m map[string]string) error {
	total := 0
	for k, v := range m {
		if !identifier(k) {
			return fail(http.StatusBadRequest, "InvalidMetadata", "The metadata name %q is invalid; it must be letters, digits and underscores, and begin with no digit.", k)
		}
		for _, c := range []byte(v) {
			if c < ' ' || c > '~' {
				return fail(http.StatusBadRequest, "InvalidMetadata", "The value of the metadata %q has characters that are not printable ASCII.", k)
			}
		}
		total += len(k) + len(v)
	}
	if total > maxMeta {
		return fail(http.StatusBadRequest, "MetadataTooLarge", "The metadata has %d bytes; at most %d are allowed.", total, maxMeta)
	}
	return nil
}

func identifier(s string) bool {
	for i, c := range []byte(s) {
		switch {
		case c == '_', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		case '0' <= c && c <= '9' && i > 0:
		default:
			return false
		}
	}
	return s != ""
}
