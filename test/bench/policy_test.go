package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"castellan/internal/policy"
)

// madeRule is one rule in three languages: a test of the type, one to three
// conditions that must hold, and up to two of which one must.
type madeRule struct {
	typ, azure, cel, rego string
}

const property = "properties.p%d"

// madeRules are n rules over 60 types, one in seven of them on the type of resource().
func madeRules(n int) []madeRule {
	rnd := rand.New(rand.NewPCG(7, uint64(n)))
	out := make([]madeRule, n)
	for i := range out {
		typ := fmt.Sprintf("Vendor.Things/type%d", 1+rnd.IntN(59))
		if rnd.IntN(7) == 0 {
			typ = "Vendor.Things/type0"
		}
		var azure, c, r []string
		one := func() (string, string, string) {
			p := rnd.IntN(30)
			switch v := fmt.Sprintf("value%d", rnd.IntN(4)); rnd.IntN(4) {
			case 0:
				return fmt.Sprintf(`{"field":"%s","equals":"%s"}`, fmt.Sprintf(property, p), v), fmt.Sprintf(`r.properties.p%d == '%s'`, p, v), fmt.Sprintf(`input.properties.p%d == "%s"`, p, v)
			case 1:
				return fmt.Sprintf(`{"field":"%s","notEquals":"%s"}`, fmt.Sprintf(property, p), v), fmt.Sprintf(`r.properties.p%d != '%s'`, p, v), fmt.Sprintf(`input.properties.p%d != "%s"`, p, v)
			case 2:
				return fmt.Sprintf(`{"field":"%s","in":["%s","other","third"]}`, fmt.Sprintf(property, p), v), fmt.Sprintf(`r.properties.p%d in ['%s','other','third']`, p, v), fmt.Sprintf(`input.properties.p%d in {"%s","other","third"}`, p, v)
			}
			return fmt.Sprintf(`{"field":"%s","like":"val*"}`, fmt.Sprintf(property, p)), fmt.Sprintf(`r.properties.p%d.startsWith('val')`, p), fmt.Sprintf(`startswith(input.properties.p%d, "val")`, p)
		}
		for range 1 + rnd.IntN(3) {
			a, b, d := one()
			azure, c, r = append(azure, a), append(c, b), append(r, d)
		}
		out[i] = madeRule{
			typ:   typ,
			azure: fmt.Sprintf(`{"policyRule":{"if":{"allOf":[{"field":"type","equals":%q},%s]},"then":{"effect":"deny"}}}`, typ, strings.Join(azure, ",")),
			cel:   fmt.Sprintf("r.type == '%s' && %s", typ, strings.Join(c, " && ")),
			rego:  fmt.Sprintf("deny contains %d if {\n\tinput.type == %q\n\t%s\n}\n", i, typ, strings.Join(r, "\n\t")),
		}
	}
	return out
}

func resource() map[string]any {
	props := map[string]any{}
	for i := range 30 {
		props[fmt.Sprintf("p%d", i)] = fmt.Sprintf("value%d", i%4)
	}
	return map[string]any{"id": "/subscriptions/s/resourceGroups/g/providers/Vendor.Things/type0/x", "name": "x", "type": "Vendor.Things/type0", "location": "local", "properties": props}
}

// BenchmarkPolicy judges one resource by n rules: by ours, by CEL with the same
// index of types, by CEL without, and by OPA. Each judgement is divided by n.
func BenchmarkPolicy(b *testing.B) {
	for _, n := range []int{100, 1000, 3000} {
		made := madeRules(n)
		in := &policy.Input{Resource: resource(), Now: time.Now()}
		matches := map[string]int{}
		report := func(b *testing.B, began time.Duration, hits int, what string) {
			b.ReportMetric(float64((cpu()-began).Nanoseconds())/float64(b.N)/float64(n), "cpu-ns/rule")
			if was, ok := matches["all"]; ok && was != hits {
				b.Fatalf("%s finds %d rules, another engine %d", what, hits, was)
			}
			matches["all"] = hits
		}
		byType := map[string][]*policy.Rule{}
		for _, m := range made {
			d, err := policy.ParseRule([]byte(m.azure))
			if err != nil {
				b.Fatal(err)
			}
			r, err := d.Bind(nil)
			if err != nil {
				b.Fatal(err)
			}
			for _, t := range r.Types {
				byType[t] = append(byType[t], r)
			}
		}
		b.Run(fmt.Sprintf("castellan/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			hits, began := 0, cpu()
			for b.Loop() {
				hits = 0
				for _, r := range byType["vendor.things/type0"] {
					yes, err := r.Applies(in)
					if err != nil {
						b.Fatal(err)
					}
					if yes {
						hits++
					}
				}
			}
			report(b, began, hits, "ours")
		})
		env, err := cel.NewEnv(cel.Variable("r", cel.MapType(cel.StringType, cel.DynType)))
		if err != nil {
			b.Fatal(err)
		}
		programs, indexed := make([]cel.Program, n), map[string][]cel.Program{}
		for i, m := range made {
			tree, iss := env.Compile(m.cel)
			if iss.Err() != nil {
				b.Fatal(iss.Err())
			}
			if programs[i], err = env.Program(tree); err != nil {
				b.Fatal(err)
			}
			indexed[m.typ] = append(indexed[m.typ], programs[i])
		}
		vars := map[string]any{"r": resource()}
		run := func(list []cel.Program) func(b *testing.B) {
			return func(b *testing.B) {
				hits, began := 0, cpu()
				for b.Loop() {
					hits = 0
					for _, p := range list {
						v, _, err := p.Eval(vars)
						if err != nil {
							b.Fatal(err)
						}
						if v.Value() == true {
							hits++
						}
					}
				}
				report(b, began, hits, "CEL")
			}
		}
		b.Run(fmt.Sprintf("cel+index/%d", n), run(indexed["Vendor.Things/type0"]))
		b.Run(fmt.Sprintf("cel/%d", n), run(programs))
		var module strings.Builder
		module.WriteString("package rules\n\n")
		for _, m := range made {
			module.WriteString(m.rego)
		}
		query, err := rego.New(rego.Query("data.rules.deny"), rego.Module("rules.rego", module.String()), rego.SetRegoVersion(ast.RegoV1)).PrepareForEval(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		text, err := json.Marshal(resource())
		if err != nil {
			b.Fatal(err)
		}
		var doc any
		if err := json.Unmarshal(text, &doc); err != nil {
			b.Fatal(err)
		}
		value, err := ast.InterfaceToValue(doc)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("opa/%d", n), func(b *testing.B) {
			hits, began := 0, cpu()
			for b.Loop() {
				set, err := query.Eval(context.Background(), rego.EvalParsedInput(value))
				if err != nil {
					b.Fatal(err)
				}
				hits = len(set[0].Expressions[0].Value.([]any))
			}
			report(b, began, hits, "OPA")
		})
	}
}
