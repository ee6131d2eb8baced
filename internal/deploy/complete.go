package deploy

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// deletesOff is the api-version from which on mode Complete deletes what a
// condition leaves out of a template, too.
const deletesOff = "2019-05-10"

// complete reports whether the deployment is to delete what its template lacks.
func (p properties) complete() bool { return strings.EqualFold(p.Mode, "Complete") }

func (in inner) mode() string {
	if in.Complete {
		return "Complete"
	}
	return "Incremental"
}

func nestedComplete(id arm.ID) error {
	return arm.Errorf("InvalidTemplate", "Specified deployment mode 'Complete' is not supported for nested deployment '%s'; it must be Incremental.", id.Name())
}

// absent are the resources directly in a group that the template lacks, with the
// templates within it. Deployments are records and stay, and so do extensions and
// what lies in a resource that stays.
func (s *Service) absent(ctx context.Context, group arm.ID, keepOff bool, f *findings) (out []arm.ID, err error) {
	keep := map[string]bool{}
	for _, n := range f.named {
		keep[n.Key()] = true
	}
	if keepOff {
		for _, n := range f.off {
			keep[n.Key()] = true
		}
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		docs, err := resource.Below(tx, group)
		for _, d := range docs {
			direct := d.ID.Parent().Key() == group.Key() && strings.Count(d.Type, "/") == 1
			if direct && !strings.EqualFold(d.Type, deploymentType) && !keep[d.ID.Key()] {
				out = append(out, d.ID)
			}
		}
		return err
	})
	return out, err
}

// judgeAbsent asks, before anything is made, whether the caller may delete what
// the template lacks, and whether locks and policies let it go.
func (s *Service) judgeAbsent(ctx context.Context, as arm.Caller, id arm.ID, in inner, f *findings) error {
	gone, err := s.absent(ctx, id.Group(), in.KeepOff, f)
	if err != nil {
		return err
	}
	for _, x := range gone {
		if _, readable, _ := s.Doors.May(as, http.MethodGet, x); !readable {
			return &arm.Error{Code: "InvalidTemplateDeployment", Status: http.StatusForbidden, Message: fmt.Sprintf("Nothing was deployed: mode Complete would delete resources in %s that the client with object id '%s' may not read.", id.Group(), as.Object)}
		}
		known, allowed, action := s.Doors.May(as, http.MethodDelete, x)
		if !known {
			return arm.Errorf("DeploymentFailedCleanUp", "Nothing was deployed: mode Complete would delete %s, which can't be deleted on its own.", x)
		}
		if !allowed {
			f.forbid(as, x, action)
		}
	}
	if err := f.err(); err != nil {
		return err
	}
	for _, x := range gone {
		if err := s.Doors.Spared(ctx, as, x); err != nil {
			return err
		}
	}
	return nil
}

// purge deletes what the template lacks, once all of it is deployed. What
// another resource holds in use is tried again when others are gone.
func (r *run) purge(ctx context.Context, next int) error {
	ops, err := r.deletions(ctx)
	if err != nil {
		return err
	}
	f := findings{reference: func(id, version string, full bool) (any, error) { return r.reference(ctx, id, version, full) }}
	if err := r.s.judge(ctx, r.as, r.d, &f, 0); err != nil {
		return err
	}
	gone, err := r.s.absent(ctx, r.doc.ID.Group(), r.in.KeepOff, &f)
	if err != nil {
		return err
	}
	for _, id := range gone {
		if !slices.ContainsFunc(ops, func(op operation) bool { return op.Target.Key() == id.Key() }) {
			ops = append(ops, operation{Index: next + len(ops), Target: id, Type: id.Type(), Does: "Delete", State: "Running", Began: r.s.Now().UTC()})
		}
	}
	for {
		var left []operation
		for _, op := range ops {
			if op.State == "Succeeded" {
				continue
			}
			if err := r.delete(ctx, &op); err != nil {
				return err
			}
			if op.State != "Succeeded" {
				left = append(left, op)
			}
		}
		if len(left) == 0 {
			return nil
		}
		if len(left) == len(ops) {
			return &failure{*left[0].Error, left[0].Target}
		}
		ops = left
	}
}

// deletions are the deletions that the run has begun, before it was cut off.
func (r *run) deletions(ctx context.Context) (ops []operation, err error) {
	err = r.s.DB.View(ctx, func(tx *store.Tx) error {
		ops, err = store.ScanJSON[operation](tx, operationTable, r.in.Seed+"/", "", 0)
		return err
	})
	return slices.DeleteFunc(ops, func(op operation) bool { return op.Does != "Delete" }), err
}

// delete deletes one resource through its door.
func (r *run) delete(ctx context.Context, op *operation) error {
	op.State, op.Error = "Running", nil
	if err := r.record(ctx, op); err != nil {
		return err
	}
	a, err := r.s.Doors.Do(ctx, r.as, http.MethodDelete, op.Target, resource.VersionFor(op.Target.String()), nil)
	if err != nil {
		return err
	}
	if a.Status >= 500 || a.Status == http.StatusTooManyRequests {
		return fmt.Errorf("deleting %s: the answer is %d", op.Target, a.Status)
	}
	op.Status, op.State = a.Status, "Succeeded"
	if a.Status/100 != 2 && a.Status != http.StatusNotFound {
		op.State, op.Error = "Failed", r.problemOf(a)
	}
	return r.record(ctx, op)
}
