package monitor

import (
	"context"
	"fmt"
	"strings"

	"castellan/internal/arm"
)

// Named is a sink that the server's administrator configured.
type Named struct {
	Name       string
	Sink       Sink
	Tenants    []string // whose settings may name it
	Everything bool     // it gets the whole audit log, without a setting
}

func (n Named) key() string { return strings.ToLower(sinkPrefix + n.Name) }

// named are the names of the sinks that settings of a tenant may name.
func (d *Diagnostics) named(tenant string) (out []string) {
	for _, n := range d.Sinks {
		for _, t := range n.Tenants {
			if t == tenant {
				out = append(out, n.Name)
			}
		}
	}
	return out
}

// everything reports whether the sink gets all.
func (d *Diagnostics) everything(key string) bool {
	for _, n := range d.Sinks {
		if n.key() == key {
			return n.Everything
		}
	}
	return false
}

// container is a storage account as a sink: append blobs where Azure has them, one
// for each resource, category and hour.
type container struct {
	account arm.ID
	append  func(ctx context.Context, account arm.ID, container, name string, data []byte) error
}

func (c container) Deliver(ctx context.Context, list []Record) error {
	type blob struct{ container, name string }
	var order []blob
	lines := map[blob][]byte{}
	for _, r := range list {
		b := blob{"insights-logs-" + strings.ToLower(r.Category), fmt.Sprintf("%s/y=%s/PT1H.json", folder(r.About), r.Time.Format("2006/m=01/d=02/h=15/m=00"))}
		if lines[b] == nil {
			order = append(order, b)
		}
		lines[b] = append(append(lines[b], r.JSON...), '\n')
	}
	for _, b := range order {
		if err := c.append(ctx, c.account, b.container, b.name, lines[b]); err != nil {
			return fmt.Errorf("writing %s/%s: %w", b.container, b.name, err)
		}
	}
	return nil
}

// folder is where an account keeps what a resource, or a tenant, has logs of.
func folder(about arm.ID) string {
	if isTenant(about) {
		return "tenantId=" + about.Name()
	}
	return "resourceId=" + strings.ToUpper(about.String())
}
