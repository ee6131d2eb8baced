package deploy

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
	"castellan/internal/template"
)

// strict makes JSON of what the Azure CLI sends.
func strict(data []byte) ([]byte, error) {
	v, err := template.Read(data)
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

// check is what can be said about a deployment at a glance; its template is
// worked out in needs, which holds nobody up.
func (s *Service) check(c resource.Change) error {
	if c.Caller.Lease != nil {
		return arm.Errorf(arm.Forbidden, "a deployment acts as its caller, and %s can't be acted as", c.Caller.Lease.Why)
	}
	if c.Old != nil && !over(resource.StateOf(c.Old)) {
		return &arm.Error{Code: "DeploymentActive", Status: http.StatusConflict, Message: fmt.Sprintf("The deployment '%s' is still running; wait until it is over, or use another name.", c.Doc.Name)}
	}
	if n := len(c.Doc.Name); n > maxName {
		return arm.Errorf("InvalidDeploymentName", "the deployment's name has %d characters; at most %d are allowed", n, maxName)
	}
	var p properties
	if err := json.Unmarshal(c.Doc.Properties, &p); err != nil {
		return fmt.Errorf("reading the properties of %s: %w", c.Doc.ID, err)
	}
	return p.at(c.Doc.ID, c.Doc.Location)
}

// at is check, with what the place asks of a deployment.
func (p properties) at(id arm.ID, location string) error {
	if err := p.check(); err != nil || !id.Group().IsZero() {
		return err
	}
	switch {
	case location == "":
		return arm.Errorf("LocationRequired", "The deployment has no location, which says where its record lies; deployments to anything but a resource group need one.")
	case p.complete():
		return arm.Errorf("InvalidDeployment", "properties.mode is Complete; at %s it must be Incremental: only resource groups know Complete", resource.Shown(id).Parent())
	}
	return nil
}

// maxName is how many characters a deployment's name has at most.
const maxName = 64

func (p properties) check() error {
	switch {
	case p.TemplateLink != nil || p.ParametersLink != nil:
		return arm.Errorf(arm.Unsupported, "properties has a templateLink or parametersLink; nothing is fetched from elsewhere, so send template and parameters themselves")
	case p.OnError != nil:
		return arm.Errorf(arm.Unsupported, "properties.onErrorDeployment is not supported; leave it out")
	case len(p.Template) == 0:
		return arm.Errorf("InvalidDeployment", "properties.template is missing")
	case p.Mode == "":
		return arm.Errorf("InvalidDeployment", "properties.mode is missing; it must be Incremental or Complete")
	}
	return nil
}

// prepared is a deployment worked out, and found possible for its caller.
type prepared struct {
	shown properties
	run   inner
	found findings
}

func (s *Service) needs(ctx context.Context, c resource.Change) (any, error) {
	var p properties
	if err := json.Unmarshal(c.Doc.Properties, &p); err != nil {
		return nil, fmt.Errorf("reading the properties of %s: %w", c.Doc.ID, err)
	}
	return s.prepare(ctx, c.Caller, c.Doc.ID, p, c.Doc.Location, c.Version)
}

// prepare works out the template for the caller: whatever can be known to be
// wrong or forbidden is said before anything is made.
func (s *Service) prepare(ctx context.Context, as arm.Caller, id arm.ID, p properties, location, version string) (*prepared, error) {
	in := inner{Template: p.Template, Parameters: p.Parameters, Tenant: as.Tenant, Object: as.Object, Seed: arm.NewHex(), Began: s.Now().UTC()}
	in.Complete, in.Location = p.complete(), location
	in.KeepOff = in.Complete && version < deletesOff
	d, err := s.load(ctx, id, in)
	if err != nil {
		return nil, err
	}
	plan, err := d.Plan()
	if err != nil {
		return nil, err
	}
	var f findings
	if err := s.judge(ctx, as, d, &f, 0); err != nil {
		return nil, err
	}
	if in.Complete && len(f.unknown) == 0 {
		if err := s.judgeAbsent(ctx, as, id, in, &f); err != nil {
			return nil, err
		}
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	shown, err := json.Marshal(d.Parameters())
	if err != nil {
		return nil, fmt.Errorf("writing the parameters of %s: %w", id, err)
	}
	out := &prepared{run: in, found: f, shown: properties{Mode: in.mode(), Parameters: shown, Hash: hash(p.Template), Correlation: correlation(in.Seed), Timestamp: &in.Began, Debug: p.Debug}}
	for _, r := range plan {
		out.shown.Validated = append(out.shown.Validated, reference{r.ID})
	}
	return out, nil
}

// load is the deployment's template with its parameters, at its place.
func (s *Service) load(ctx context.Context, id arm.ID, in inner) (*template.Deployment, error) {
	tree, err := template.Read(in.Template)
	if err != nil {
		return nil, err
	}
	params := map[string]any{}
	if len(in.Parameters) > 0 {
		v, err := template.Read(in.Parameters)
		if err != nil {
			return nil, err
		}
		m, ok := v.(map[string]any)
		if !ok && v != nil {
			return nil, arm.Errorf("InvalidDeployment", `properties.parameters must be an object of {"value": ...}`)
		}
		params = m
	}
	scope, err := s.scope(ctx, id)
	if err != nil {
		return nil, err
	}
	scope.Location = in.Location
	scope.Now, scope.Seed, scope.Mode = in.Began, in.Seed, in.mode()
	return template.New(tree, params, scope)
}

// scope is what expressions see of the place of a deployment.
func (s *Service) scope(ctx context.Context, id arm.ID) (template.Scope, error) {
	out := template.Scope{
		Tenant: s.Site.TenantOf(id), Subscription: id.Subscription(), SubscriptionName: id.Subscription(),
		Deployment: id.Name(), Environment: environment(s.Site),
	}
	at := resource.Shown(id).Parent()
	if id.Group().IsZero() {
		if id.Subscription() == "" && at != arm.Root {
			out.ManagementGroup = at.Name()
		}
		return out, nil
	}
	out.Group, out.GroupLocation = at.Name(), s.Site.Location
	err := s.DB.View(ctx, func(tx *store.Tx) error {
		g, err := resource.Load(tx, id.Group())
		if err != nil || g == nil {
			return err
		}
		out.Group, out.GroupLocation, out.GroupTags = g.Name, g.Location, g.Tags
		return nil
	})
	return out, err
}

// environment is what environment() tells of this cloud.
func environment(s arm.Site) map[string]any {
	return map[string]any{
		"name": "Castellan", "resourceManager": s.Base() + "/", "portal": "https://portal." + s.Suffix, "graph": "https://" + s.GraphHost() + "/", "graphAudience": "https://" + s.GraphHost() + "/",
		"authentication": map[string]any{"loginEndpoint": s.Base() + "/", "audiences": []any{s.Base() + "/"}, "tenant": "common", "identityProvider": "AAD"},
		"suffixes":       map[string]any{"storage": s.StorageSuffix(), "keyvaultDns": "." + s.VaultSuffix(), "acrLoginServer": "." + s.RegistrySuffix()},
	}
}

// findings are what stands against a deployment.
type findings struct {
	unknown   []string // types that there are none of
	forbidden []problem
	named     []arm.ID // all resources that the template has
	off       []arm.ID // and those that conditions leave out
	planned   []planned
	secrets   []string // values of secure parameters
	// reference is how nested templates see resources once they are deployed; nil before.
	reference func(id, apiVersion string, full bool) (any, error)
}

// planned is a resource that is to be deployed, with what is to be put, which is
// nil as long as that is not known.
type planned struct {
	*template.Resource
	body map[string]any
}

// maxDeep is how deep deployments may nest; Azure allows no more either.
const maxDeep = 5

// judge asks, for every resource of the plan, whether there is such a thing and
// whether the caller may write it, also within nested templates as far as they
// are known already.
func (s *Service) judge(ctx context.Context, as arm.Caller, d *template.Deployment, f *findings, deep int) error {
	if deep > maxDeep {
		return arm.Errorf(template.InvalidTemplate, "the template nests deployments deeper than %d", maxDeep)
	}
	plan, err := d.Plan()
	if err != nil {
		return err
	}
	off, existing := d.Spoken()
	f.off, f.named, f.secrets = append(f.off, off...), append(f.named, existing...), append(f.secrets, d.Secrets()...)
	for _, r := range plan {
		f.named = append(f.named, r.ID)
		known, allowed, action := s.Doors.May(as, http.MethodPut, r.ID)
		switch {
		case !known:
			f.miss(r.Type)
			continue
		case !allowed && !r.Maybe:
			f.forbid(as, r.ID, action)
		}
		if err := resource.Supports(r.Type, r.APIVersion); err != nil {
			return err
		}
		body, err := r.Body()
		f.planned = append(f.planned, planned{r, body})
		if template.Later(err) && !r.Maybe && r.IsDeployment() {
			for _, typ := range r.Types() {
				if !s.exists(as, typ, r.ID) {
					f.miss(typ)
				}
			}
		}
		if template.Later(err) || r.Maybe && err != nil {
			continue
		}
		if err != nil {
			return err
		}
		if r.IsDeployment() {
			if err := s.judgeNested(ctx, as, resource.Kept(r.ID, as.Tenant), body, f, deep); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) judgeNested(ctx context.Context, as arm.Caller, id arm.ID, body map[string]any, f *findings, deep int) error {
	b, err := json.Marshal(body["properties"])
	if err != nil {
		return fmt.Errorf("writing the nested deployment %s: %w", id, err)
	}
	var p properties
	if err := arm.Decode(b, &p); err != nil {
		return err
	}
	if p.complete() {
		return nestedComplete(id)
	}
	location, _ := body["location"].(string)
	if err := p.at(id, location); err != nil {
		return err
	}
	d, err := s.load(ctx, id, inner{Template: p.Template, Parameters: p.Parameters, Location: location, Seed: "judged", Began: s.Now().UTC()})
	if err != nil {
		return err
	}
	if f.reference != nil {
		d.At(f.reference)
	}
	return s.judge(ctx, as, d, f, deep+1)
}

// exists reports whether there are resources of the type, at whatever scope of
// those that the deployment could go to.
func (s *Service) exists(as arm.Caller, typ string, near arm.ID) bool {
	ns, names, ok := strings.Cut(typ, "/")
	if !ok || strings.EqualFold(ns, "Microsoft.Resources") {
		return true // groups and deployments; what has no form is refused when it is known
	}
	sub := "/subscriptions/" + cmp.Or(near.Subscription(), "x")
	for _, scope := range []string{sub + "/resourceGroups/x", sub, ""} {
		id, err := arm.ParseID(scope + "/providers/" + ns + "/" + strings.ReplaceAll(names, "/", "/x/") + "/x")
		if known, _, _ := s.Doors.May(as, http.MethodPut, id); err == nil && known {
			return true
		}
	}
	return false
}

func (f *findings) miss(typ string) {
	if !slices.ContainsFunc(f.unknown, func(x string) bool { return strings.EqualFold(x, typ) }) {
		f.unknown = append(f.unknown, typ)
	}
}

func (f *findings) forbid(as arm.Caller, id arm.ID, action string) {
	f.forbidden = append(f.forbidden, problem{Code: arm.Forbidden, Target: id.String(), Message: fmt.Sprintf(
		"Authorization failed for template resource '%s' of type '%s'. The client with object id '%s' does not have permission to perform action '%s' at scope '%s'.", id.Name(), id.Type(), as.Object, action, id)})
}

func (f *findings) err() error {
	if len(f.unknown) > 0 {
		slices.Sort(f.unknown)
		return arm.Errorf("InvalidResourceType", "Nothing was deployed: the template has resources of types that this installation does not have: %s.", strings.Join(f.unknown, ", "))
	}
	if len(f.forbidden) == 0 {
		return nil
	}
	texts := make([]string, len(f.forbidden))
	for i, p := range f.forbidden {
		texts[i] = p.Message
	}
	return &arm.Error{Code: "InvalidTemplateDeployment", Status: http.StatusForbidden, Message: "Nothing was deployed: " + strings.Join(texts, " ")}
}

// hash tells templates apart, as a number, which is what Azure's is.
func hash(t []byte) string {
	sum := sha256.Sum256(t)
	return fmt.Sprint(binary.BigEndian.Uint64(sum[:8]))
}

// correlation is an id in the form that clients want.
func correlation(seed string) string {
	return seed[:8] + "-" + seed[8:12] + "-" + seed[12:16] + "-" + seed[16:20] + "-" + seed[20:]
}

// save keeps what was prepared and forgets what the run before did.
func (s *Service) save(tx *store.Tx, c resource.Change) error {
	p, ok := c.Seen.(*prepared)
	if !ok {
		return errors.New("deploy: a deployment is to be kept that was not prepared")
	}
	if id := c.Correlation(); id != "" {
		p.shown.Correlation = correlation(id)
	}
	if c.Old != nil {
		if err := forgetOperations(tx, c.Old); err != nil {
			return err
		}
	}
	p.shown.Validated = nil
	var err error
	if c.Doc.Properties, err = json.Marshal(p.shown); err != nil {
		return err
	}
	c.Doc.Inner, err = json.Marshal(p.run)
	return err
}

func (s *Service) remove(tx *store.Tx, d *resource.Doc) error { return forgetOperations(tx, d) }

func innerOf(d *resource.Doc) (in inner, err error) {
	if err = json.Unmarshal(d.Inner, &in); err != nil {
		err = fmt.Errorf("reading the run of %s: %w", d.ID, err)
	}
	return in, err
}
