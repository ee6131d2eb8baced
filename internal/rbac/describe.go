package rbac

import (
	"fmt"
	"slices"
	"strings"
)

// describe says in a sentence or two what permissions amount to. It counts; the
// lists themselves say what they mean.
func describe(ps []Permission) string {
	var give, take, data, less []string
	conditions := 0
	for _, p := range ps {
		give = append(give, p.Actions...)
		take = append(take, p.NotActions...)
		data = append(data, p.DataActions...)
		less = append(less, p.NotDataActions...)
		if p.Condition != "" {
			conditions++
		}
	}
	var parts []string
	if len(give) > 0 {
		parts = append(parts, clause("action", give, take))
	}
	if len(data) > 0 {
		parts = append(parts, clause("data action", data, less))
	}
	if len(parts) == 0 {
		return "Allows nothing."
	}
	out := "Allows " + strings.Join(parts, ", and ") + "."
	if conditions > 0 {
		out += fmt.Sprintf(" %s under a condition, which is not evaluated: that part allows nothing.", count(conditions, "permission is", "permissions are"))
	}
	return out
}

func clause(noun string, give, take []string) string {
	out := ""
	switch {
	case slices.Contains(give, "*"):
		out = "every " + noun
	case slices.Equal(give, []string{"*/read"}):
		out = "every " + noun + " that reads"
	default:
		out = count(len(give), noun+" pattern", noun+" patterns") + " in " + namespaces(give)
	}
	if len(take) > 0 {
		out += fmt.Sprintf(", less %d", len(take))
	}
	return out
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// namespaces names the providers that patterns speak of, those with most first.
func namespaces(patterns []string) string {
	const named = 3
	counts, names := map[string]int{}, []string{}
	for _, p := range patterns {
		ns, _, _ := strings.Cut(p, "/")
		if ns == "*" {
			ns = "all providers"
		}
		if counts[ns]++; counts[ns] == 1 {
			names = append(names, ns)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return counts[b] - counts[a] })
	if len(names) > named {
		more := count(len(names)-named, "more provider", "more providers")
		return strings.Join(names[:named], ", ") + " and " + more
	}
	return strings.Join(names, ", ")
}
