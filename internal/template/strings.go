package template

import (
	"crypto/sha1" //nolint:gosec // RFC 9562 version 5 ids are made with it
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"
)

var stringFunctions = map[string]function{
	"tolower":        of1(func(s string) (any, error) { return strings.ToLower(s), nil }),
	"toupper":        of1(func(s string) (any, error) { return strings.ToUpper(s), nil }),
	"trim":           of1(func(s string) (any, error) { return strings.TrimSpace(s), nil }),
	"base64":         of1(func(s string) (any, error) { return base64.StdEncoding.EncodeToString([]byte(s)), nil }),
	"base64tostring": of1(fromBase64),
	"base64tojson":   of1(func(s string) (any, error) { return chain(fromBase64, fromJSON)(s) }),
	"datauri": of1(func(s string) (any, error) {
		return "data:text/plain;charset=utf8;base64," + base64.StdEncoding.EncodeToString([]byte(s)), nil
	}),
	"datauritostring": of1(func(s string) (any, error) {
		head, body, ok := strings.Cut(s, ",")
		if !ok || !strings.HasPrefix(head, "data:") {
			return nil, invalid("the text is no data URI")
		}
		if strings.HasSuffix(head, ";base64") {
			return fromBase64(body)
		}
		text, err := url.PathUnescape(body)
		if err != nil {
			return nil, invalid("the data URI is not well formed")
		}
		return text, nil
	}),
	"uricomponent":         of1(func(s string) (any, error) { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20"), nil }),
	"uricomponenttostring": of1(fromComponent),
	"json":                 of1(fromJSON),
	"startswith":           of2(func(s, t string) (any, error) { return strings.HasPrefix(strings.ToLower(s), strings.ToLower(t)), nil }),
	"endswith":             of2(func(s, t string) (any, error) { return strings.HasSuffix(strings.ToLower(s), strings.ToLower(t)), nil }),
	"indexof": of2(func(s, t string) (any, error) {
		return place(s, strings.Index(strings.ToLower(s), strings.ToLower(t))), nil
	}),
	"lastindexof": of2(func(s, t string) (any, error) {
		return place(s, strings.LastIndex(strings.ToLower(s), strings.ToLower(t))), nil
	}),
	"uri":          of2(joinURI),
	"format":       {1, -1, format},
	"guid":         {1, -1, guid},
	"uniquestring": {1, -1, uniqueString},
	"newguid":      {0, 0, newGUID},
	"utcnow":       {0, 1, utcNow},
	"padleft":      {2, 3, padLeft},
	"replace":      {3, 3, replace},
	"split":        {2, 2, split},
	"string":       {1, 1, toString},
	"substring":    {2, 3, substring},
}

func chain(f, g func(string) (any, error)) func(string) (any, error) {
	return func(s string) (any, error) {
		v, err := f(s)
		if err != nil {
			return nil, err
		}
		return g(v.(string))
	}
}

func fromBase64(s string) (any, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || !utf8.Valid(b) {
		return nil, invalid("the argument is not text in base64")
	}
	return string(b), nil
}

func fromComponent(s string) (any, error) {
	t, err := url.PathUnescape(s)
	if err != nil {
		return nil, invalid("the argument has a malformed percent escape")
	}
	return t, nil
}

func fromJSON(s string) (any, error) {
	v, err := Read([]byte(s))
	if err != nil {
		return nil, invalid("the argument is not JSON")
	}
	return Whole(v), nil
}

// Whole makes the whole numbers in v, as Read gave it, what expressions count
// with.
func Whole(v any) any {
	switch x := v.(type) {
	case json.Number:
		if n, err := x.Int64(); err == nil {
			return n
		}
	case []any:
		for i := range x {
			x[i] = Whole(x[i])
		}
	case map[string]any:
		for k := range x {
			x[k] = Whole(x[k])
		}
	}
	return v
}

// place counts an index in characters.
func place(s string, at int) int64 {
	if at < 0 || at > len(s) {
		return int64(at)
	}
	return int64(utf8.RuneCountInString(s[:at]))
}

// joinURI puts a relative URI behind a base, as Azure documents: at its last
// slash, or after it if it ends in one.
func joinURI(base, relative string) (any, error) {
	b, err := url.Parse(base)
	if err != nil || b.Scheme == "" || b.Host == "" {
		return nil, invalid("argument 1 is not an absolute URI")
	}
	r, err := url.Parse(relative)
	if err != nil {
		return nil, invalid("argument 2 is not a URI")
	}
	return b.ResolveReference(r).String(), nil
}

// format fills {0}, {1} and so on; {{ and }} are braces.
func format(_ env, a []any) (any, error) {
	f, err := need[string](a, 0)
	if err != nil {
		return nil, err
	}
	args, err := texts(a[1:])
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for i := 0; i < len(f); i++ {
		c := f[i]
		switch {
		case (c == '{' || c == '}') && i+1 < len(f) && f[i+1] == c:
			b.WriteByte(c)
			i++
		case c == '{':
			end := strings.IndexByte(f[i:], '}')
			if end < 0 {
				return nil, invalid("the format has a { without }")
			}
			s, err := formatOne(f[i+1:i+end], args)
			if err != nil {
				return nil, err
			}
			b.WriteString(s)
			i += end
		case c == '}':
			return nil, invalid("the format has a } without {")
		default:
			b.WriteByte(c)
		}
		if b.Len() > maxText {
			return nil, invalid("the result has more than %d characters", maxText)
		}
	}
	return b.String(), nil
}

// formatOne is what stands for N or N:D4 or N:0000 in braces.
func formatOne(spec string, args []string) (string, error) {
	index, form, _ := strings.Cut(spec, ":")
	n, err := strconv.Atoi(strings.TrimSpace(index))
	if err != nil || n < 0 || n >= len(args) {
		return "", invalid("the format asks for {%s}, and there are %d values", index, len(args))
	}
	digits := 0
	switch {
	case form == "":
		return args[n], nil
	case strings.Trim(form, "0") == "":
		digits = len(form)
	case form[0] == 'D' || form[0] == 'd':
		digits, err = strconv.Atoi(form[1:])
	default:
		err = strconv.ErrSyntax
	}
	v, bad := strconv.ParseInt(args[n], 10, 64)
	if err != nil || bad != nil || digits > 64 {
		return "", invalid("the number format %q is not supported; supported: D and a count of digits, for whole numbers", form)
	}
	return fmt.Sprintf("%0*d", digits, v), nil
}

// guidSpace is the name space of the ids that guid makes, the one that Azure uses.
var guidSpace = [16]byte{0x11, 0xfb, 0x06, 0xfb, 0x71, 0x2d, 0x4d, 0xdd, 0x98, 0xc7, 0xe7, 0x1b, 0xbd, 0x58, 0x88, 0x30}

// guid is an id of version 5 (RFC 9562) of its arguments.
func guid(_ env, a []any) (any, error) {
	parts, err := texts(a)
	if err != nil {
		return nil, err
	}
	return nameID(strings.Join(parts, "-")), nil
}

func nameID(name string) string {
	sum := sha1.Sum(append(guidSpace[:], name...))
	b := sum[:16]
	b[6], b[8] = b[6]&0x0f|0x50, b[8]&0x3f|0x80
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// uniqueString is 13 characters that depend on the arguments alone. Azure keeps
// its hash to itself, so the same arguments give another string there.
func uniqueString(_ env, a []any) (any, error) {
	parts, err := texts(a)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte("castellan uniqueString\x00" + strings.Join(parts, "-")))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:13], nil
}

// newGUID is an id that no other place of this deployment gets, and the same
// one whenever this deployment is worked out again.
func newGUID(e env, _ []any) (any, error) {
	if !e.d.defaults {
		return nil, invalid("it can be used in the default value of a parameter alone")
	}
	e.d.guids++
	return nameID(fmt.Sprintf("%s/%s/%d", e.d.scope.Seed, e.d.defaulting, e.d.guids)), nil
}

// timeForms maps the .NET formats that templates use to Go's.
var timeForms = map[string]string{
	"": "20060102T150405Z", "o": "2006-01-02T15:04:05.0000000Z", "d": "01/02/2006", "yyyy-MM-dd": "2006-01-02", "yyyyMMdd": "20060102",
	"yyyy-MM-ddTHH:mm:ssZ": "2006-01-02T15:04:05Z", "yyyyMMddTHHmmssZ": "20060102T150405Z", "yyyyMMddHHmmss": "20060102150405", "u": "2006-01-02 15:04:05Z", "yyyy": "2006",
}

func utcNow(e env, a []any) (any, error) {
	if !e.d.defaults {
		return nil, invalid("it can be used in the default value of a parameter alone")
	}
	form := ""
	if len(a) == 1 {
		var err error
		if form, err = need[string](a, 0); err != nil {
			return nil, err
		}
	}
	layout, ok := timeForms[form]
	if !ok {
		return nil, invalid("the time format %q is not supported", form)
	}
	return e.d.scope.Now.UTC().Format(layout), nil
}

func padLeft(_ env, a []any) (any, error) {
	s, err := textOf(a[0])
	if err != nil {
		return nil, err
	}
	n, err := need[int64](a, 1)
	if err != nil {
		return nil, err
	}
	pad := " "
	if len(a) == 3 {
		if pad, err = need[string](a, 2); err != nil {
			return nil, err
		}
	}
	if utf8.RuneCountInString(pad) != 1 || n > maxText {
		return nil, invalid("the padding must be one character, and the width at most %d", maxText)
	}
	if short := int(n) - utf8.RuneCountInString(s); short > 0 {
		s = strings.Repeat(pad, short) + s
	}
	return s, nil
}

func replace(_ env, a []any) (any, error) {
	var t [3]string
	for i := range t {
		var err error
		if t[i], err = need[string](a, i); err != nil {
			return nil, err
		}
	}
	if t[1] == "" {
		return nil, invalid("argument 2 is empty")
	}
	if n := strings.Count(t[0], t[1]); len(t[0])+n*len(t[2]) > maxText {
		return nil, invalid("the result has more than %d characters", maxText)
	}
	return strings.ReplaceAll(t[0], t[1], t[2]), nil
}

// split cuts at one delimiter, or at any of an array of them.
func split(_ env, a []any) (any, error) {
	s, err := need[string](a, 0)
	if err != nil {
		return nil, err
	}
	var at []string
	switch d := a[1].(type) {
	case string:
		at = []string{d}
	case []any:
		for i := range d {
			x, err := need[string](d, i)
			if err != nil {
				return nil, err
			}
			at = append(at, x)
		}
	default:
		return nil, invalid("argument 2 is %s; it must be a string or an array of strings", kind(a[1]))
	}
	out := []any{}
	for {
		first, size := -1, 0
		for _, d := range at {
			if n := strings.Index(s, d); d != "" && n >= 0 && (first < 0 || n < first) {
				first, size = n, len(d)
			}
		}
		if first < 0 {
			return append(out, s), nil
		}
		out = append(out, s[:first])
		s = s[first+size:]
		if len(out) > maxItems {
			return out, nil // weighed and refused by the caller
		}
	}
}

func toString(e env, a []any) (any, error) {
	switch a[0].(type) {
	case []any, map[string]any:
		if err := e.size(a[0]); err != nil {
			return nil, err
		}
		b, err := json.Marshal(a[0])
		if err != nil {
			return nil, invalid("the argument can't be written as JSON")
		}
		return string(b), nil
	case nil:
		return "", nil
	}
	return textOf(a[0])
}

func substring(_ env, a []any) (any, error) {
	s, err := need[string](a, 0)
	if err != nil {
		return nil, err
	}
	r := []rune(s)
	from, err := need[int64](a, 1)
	if err != nil {
		return nil, err
	}
	n := int64(len(r)) - from
	if len(a) == 3 {
		if n, err = need[int64](a, 2); err != nil {
			return nil, err
		}
	}
	if from < 0 || n < 0 || from > int64(len(r)) || n > int64(len(r))-from {
		return nil, invalid("the part asked for does not lie within the string")
	}
	return string(r[from : from+n]), nil
}
