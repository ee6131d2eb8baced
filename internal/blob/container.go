package blob

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// ContainerProperties are those of a container that a client may set.
type ContainerProperties struct {
	Public   string            `json:"publicAccess" arm:"only=None"`
	Meta     map[string]string `json:"metadata,omitempty"`
	Scope    string            `json:"defaultEncryptionScope,omitempty" arm:"only=$account-encryption-key,since=2019-06-01"`
	Deny     bool              `json:"denyEncryptionScopeOverride,omitempty" arm:"only=false,since=2019-06-01"`
	Modified any               `json:"lastModifiedTime,omitempty" arm:"readonly"`
	Lease    any               `json:"leaseStatus,omitempty" arm:"readonly"`
	LeaseAt  any               `json:"leaseState,omitempty" arm:"readonly"`
	LeaseFor any               `json:"leaseDuration,omitempty" arm:"readonly"`
	Hold     any               `json:"hasLegalHold,omitempty" arm:"readonly"`
	Policy   any               `json:"hasImmutabilityPolicy,omitempty" arm:"readonly"`
	Holds    any               `json:"legalHold,omitempty" arm:"readonly"`
	Guard    any               `json:"immutabilityPolicy,omitempty" arm:"readonly"`
	Deleted  any               `json:"deleted,omitempty" arm:"readonly,since=2019-06-01"`
	Days     any               `json:"remainingRetentionDays,omitempty" arm:"readonly,since=2019-06-01"`
	Root     any               `json:"enableNfsV3RootSquash,omitempty" arm:"readonly,since=2021-06-01"`
	All      any               `json:"enableNfsV3AllSquash,omitempty" arm:"readonly,since=2021-06-01"`
	Version  any               `json:"immutableStorageWithVersioning,omitempty" arm:"readonly,since=2021-04-01"`
}

var containerName = regexp.MustCompile(`^[a-z0-9](-?[a-z0-9])*$`)

// CheckContainerName says whether a container can have the name.
func CheckContainerName(name string) error {
	if code := arm.Code(arm.InvalidResourceName); len(name) < 3 || len(name) > 63 || !containerName.MatchString(name) {
		if len(name) < 3 || len(name) > 63 {
			code = "OutOfRangeInput"
		}
		return fail(http.StatusBadRequest, code, "The container name %q is invalid; it must be 3 to 63 lower-case letters, digits and single hyphens, and begin and end with a letter or digit.", name)
	}
	return nil
}

// containers is the kind of blob containers.
func (s *Service) containers(parent *resource.Kind) *resource.Kind {
	return &resource.Kind{
		Type: "Microsoft.Storage/storageAccounts/blobServices/containers", SystemData: "2025-08-01", Etag: true, Doc: "a blob container", Parent: parent, Global: true,
		Props: func() any { return &ContainerProperties{} },
		Check: func(c resource.Change) error {
			if c.Old == nil {
				if err := CheckContainerName(c.Doc.Name); err != nil {
					return err
				}
			}
			var p ContainerProperties
			if err := json.Unmarshal(c.Doc.Properties, &p); err != nil {
				return err
			}
			p.Public = "None"
			if err := checkMeta(p.Meta); err != nil {
				return err
			}
			var err error
			c.Doc.Properties, err = json.Marshal(p)
			return err
		},
		Save:   s.saveContainer,
		Remove: s.removeContainer,
		Posts: []resource.Post{
			{Name: "setLegalHold", Action: HoldSet, Do: s.holds(HoldSet, addHolds)},
			{Name: "clearLegalHold", Action: HoldClear, Do: s.holds(HoldClear, dropHolds)},
		},
		Show: func(d *resource.Doc, props map[string]any) {
			s.showInner(d, props)
			props["deleted"] = false
			props["defaultEncryptionScope"], props["denyEncryptionScopeOverride"] = "$account-encryption-key", false
			if d.System != nil {
				props["lastModifiedTime"] = d.System.ModifiedAt
			}
		},
	}
}

// showInner shows a container's lease and guard as Resource Manager does.
func (s *Service) showInner(d *resource.Doc, props map[string]any) {
	in, err := innerOf(d)
	if err != nil {
		return // what can't be read is shown nowhere
	}
	if in.Guard == nil {
		in.Guard = &guard{}
	}
	props["hasLegalHold"], props["hasImmutabilityPolicy"] = len(in.Guard.Holds) > 0, in.Guard.Days > 0
	if in.Guard.Days > 0 {
		props["immutabilityPolicy"] = map[string]any{"etag": in.Guard.Etag, "properties": in.Guard.properties()}
	}
	if len(in.Guard.Holds) > 0 {
		props["legalHold"] = map[string]any{"hasLegalHold": true, "tags": in.Guard.Holds}
	}
	now := s.Now()
	state := in.Lease.state(now)
	props["leaseStatus"], props["leaseState"] = capital(in.Lease.status(now)), capital(state)
	if state == leased {
		props["leaseDuration"] = capital(in.Lease.duration())
	}
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// placeOf is the container, or the share, that d is the resource of.
func (s *Service) placeOf(d *resource.Doc) (place, error) {
	id := d.ID.Parent().Parent()
	a := s.byID(id)
	if a == nil {
		return place{}, noAccount(id.Name())
	}
	if strings.EqualFold(d.ID.Type(), shareType) {
		a = a.forFiles()
	}
	return place{account: a, container: strings.ToLower(d.Name)}, nil
}

// newContainer gives a new container its own id, and its root its owner where names
// are paths.
func newContainer(tx *store.Tx, p place, owner string) error {
	r := containerRow{UID: arm.NewHex()}
	if p.hns {
		r.Root = rootAccess(owner)
	}
	return p.putContainer(tx, r)
}

func (p place) putContainer(tx *store.Tx, r containerRow) error {
	return store.PutJSON(tx, p.containers(), p.UID+"/"+p.container, r)
}

// removeContainer makes what the container holds unreachable, at once. Run
// removes it then, or once it was kept for as long as the account says.
func (s *Service) removeContainer(tx *store.Tx, d *resource.Doc) error {
	p, err := s.placeOf(d)
	if err != nil {
		return err
	}
	key := p.UID + "/" + p.container
	c, ok, err := store.GetJSON[containerRow](tx, p.containers(), key)
	if err != nil || !ok {
		return err
	}
	if err := c.mayGo(tx, d.Name); err != nil {
		return err
	}
	if p.rules.keepContainers > 0 {
		err = s.lose(tx, key, c, d, p.rules.keepContainers)
	} else {
		err = tx.Put(trashTable, c.UID, nil)
		tx.After(s.stir)
	}
	if err != nil {
		return err
	}
	return tx.Delete(p.containers(), key)
}

// ContainerInfo is what one sees of a container.
type ContainerInfo struct {
	Name     string
	ETag     string
	Modified time.Time
	Meta     map[string]string
	lease    *lease
	guard    *guard
	share    ShareProperties // of a share
	// Of one that is deleted: under which version it is brought back, and until when.
	version        string
	deleted, until time.Time
}

func containerInfo(d *resource.Doc) (ContainerInfo, error) {
	var p ContainerProperties
	if err := json.Unmarshal(d.Properties, &p); err != nil {
		return ContainerInfo{}, fmt.Errorf("reading the properties of %s: %w", d.ID, err)
	}
	in, err := innerOf(d)
	if err != nil {
		return ContainerInfo{}, err
	}
	out := ContainerInfo{Name: d.Name, ETag: d.Etag, Meta: p.Meta, lease: in.Lease, guard: in.Guard}
	if strings.EqualFold(d.ID.Type(), shareType) {
		if out.share, err = sharePropsOf(d); err != nil {
			return out, err
		}
	}
	if d.System != nil {
		out.Modified = d.System.ModifiedAt
	}
	return out, nil
}

// saveContainer makes the row of a container or share that is new.
func (s *Service) saveContainer(tx *store.Tx, c resource.Change) error {
	if c.Old != nil {
		return nil
	}
	p, err := s.placeOf(c.Doc)
	if err != nil {
		return err
	}
	return newContainer(tx, p, superuser)
}

// EnsureContainer makes the container that the Grant, for ContainerWrite, is
// about, if it is not there.
func (s *Service) EnsureContainer(ctx context.Context, g gate.Grant) error {
	_, err := s.CreateContainer(ctx, g, nil)
	if arm.CodeOf(err) == "ContainerAlreadyExists" {
		return nil
	}
	return err
}

// CreateContainer makes the container that the Grant, for ContainerWrite, is about.
func (s *Service) CreateContainer(ctx context.Context, g gate.Grant, meta map[string]string) (info ContainerInfo, err error) {
	p, err := s.target(g, ContainerWrite)
	if err != nil {
		return info, err
	}
	return s.createIn(ctx, g, p, meta, ContainerProperties{Public: "None", Meta: meta})
}

// createIn makes a container or a share with those properties.
func (s *Service) createIn(ctx context.Context, g gate.Grant, p place, meta map[string]string, with any) (info ContainerInfo, err error) {
	if err := CheckContainerName(p.container); err != nil {
		return info, err
	}
	if err := checkMeta(meta); err != nil {
		return info, err
	}
	props, err := json.Marshal(with)
	if err != nil {
		return info, err
	}
	d := s.newContainerDoc(g, p)
	d.Properties = props
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		if _, err := findContainer(tx, p); err == nil {
			return containerExists()
		} else if arm.CodeOf(err) != "ContainerNotFound" {
			return err
		}
		if r, _, err := store.GetJSON[accountRow](tx, accountTable, nameKey(p.ID.Name())); err != nil || r.UID != p.UID || r.ID.Key() != p.ID.Key() {
			return orElse(err, noAccount(p.ID.Name()))
		}
		if err := newContainer(tx, p, ownerOf(g)); err != nil {
			return err
		}
		return resource.Save(tx, d)
	})
	if err != nil {
		return info, err
	}
	return containerInfo(d)
}

func containerExists() error {
	return fail(http.StatusConflict, "ContainerAlreadyExists", "The specified container already exists.")
}

// newContainerDoc is the resource of a container that the Grant's holder makes.
func (s *Service) newContainerDoc(g gate.Grant, p place) *resource.Doc {
	now := s.Now().UTC()
	who, by := g.Caller().App, "Application"
	if g.Caller().Kind == arm.User {
		who, by = g.Caller().Name, "User"
	}
	typ := "Microsoft.Storage/storageAccounts/blobServices/containers"
	if p.files {
		typ = "Microsoft.Storage/storageAccounts/fileServices/shares"
	}
	return &resource.Doc{
		ID: p.containerID(p.container), Name: p.container, Type: typ, Etag: newETag(), Instance: arm.NewHex(),
		System: &resource.System{CreatedBy: who, CreatedByType: by, CreatedAt: now, ModifiedBy: who, ModifiedByType: by, ModifiedAt: now},
	}
}

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// loadContainer is the container's resource, after conditions.
func (s *Service) loadContainer(tx *store.Tx, p place, when Conditions, read bool) (*resource.Doc, error) {
	if _, err := findContainer(tx, p); err != nil {
		return nil, err
	}
	d, err := resource.Load(tx, p.containerID(p.container))
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, noContainer(p.container)
	}
	info, err := containerInfo(d)
	if err != nil {
		return nil, err
	}
	if err := when.check(true, info.ETag, info.Modified, read); err != nil {
		return nil, err
	}
	return d, info.lease.admits(when.Lease, "Container", false, s.Now())
}

// Container shows the container that the Grant, for ContainerRead, is about.
func (s *Service) Container(ctx context.Context, g gate.Grant) (ContainerInfo, error) {
	return s.showContainer(ctx, g, Conditions{})
}

func (s *Service) showContainer(ctx context.Context, g gate.Grant, when Conditions) (info ContainerInfo, err error) {
	p, err := s.target(g, ContainerRead, ShareRead)
	if err != nil {
		return info, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		d, err := s.loadContainer(tx, p, when, true)
		if err != nil {
			return err
		}
		info, err = containerInfo(d)
		return err
	})
	return info, err
}

// SetContainerMeta replaces the container's metadata.
func (s *Service) SetContainerMeta(ctx context.Context, g gate.Grant, meta map[string]string, when Conditions) (info ContainerInfo, err error) {
	if err := checkMeta(meta); err != nil {
		return info, err
	}
	return s.changeProps(ctx, g, when, func(props map[string]any) {
		if props["metadata"] = meta; len(meta) == 0 {
			delete(props, "metadata")
		}
	})
}

// changeProps changes the properties of the container, or the share, that the Grant,
// for ContainerWrite or ShareWrite, is about.
func (s *Service) changeProps(ctx context.Context, g gate.Grant, when Conditions, fn func(props map[string]any)) (info ContainerInfo, err error) {
	p, err := s.target(g, ContainerWrite, ShareWrite)
	if err != nil {
		return info, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		d, err := s.loadContainer(tx, p, when, false)
		if err != nil {
			return err
		}
		props := map[string]any{}
		if err := json.Unmarshal(d.Properties, &props); err != nil {
			return err
		}
		fn(props)
		if d.Properties, err = json.Marshal(props); err != nil {
			return err
		}
		s.touch(d)
		if info, err = containerInfo(d); err != nil {
			return err
		}
		return resource.Save(tx, d)
	})
	return info, err
}

func (s *Service) touch(d *resource.Doc) {
	d.Etag = newETag()
	if d.System != nil {
		sys := *d.System
		sys.ModifiedAt = s.Now().UTC()
		d.System = &sys
	}
}

// DeleteContainer deletes the container that the Grant, for ContainerDelete, is
// about, with all it holds.
func (s *Service) DeleteContainer(ctx context.Context, g gate.Grant, when Conditions) error {
	p, err := s.target(g, ContainerDelete, ShareDelete)
	if err != nil {
		return err
	}
	return g.Change(ctx, s.DB, func(tx *store.Tx) error {
		d, err := s.loadContainer(tx, p, when, false)
		if err != nil {
			return err
		}
		in, err := innerOf(d)
		if err != nil {
			return err
		}
		if err := in.Lease.admits(when.Lease, "Container", true, s.Now()); err != nil {
			return err
		}
		if err := s.removeContainer(tx, d); err != nil {
			return err
		}
		if s.OnRemove != nil {
			if err := s.OnRemove(tx, d); err != nil {
				return err
			}
		}
		return resource.Remove(tx, d)
	})
}

// Containers lists up to limit of the account's containers whose names begin
// with prefix and come after the name after, for a Grant for ContainerRead on
// the account's blob service. next is where to go on, or "".
func (s *Service) Containers(ctx context.Context, g gate.Grant, prefix, after string, limit int) (out []ContainerInfo, next string, err error) {
	return s.listContainersOf(ctx, g, prefix, after, limit, false)
}

// listContainersOf is Containers, if lost with deleted ones that are kept.
func (s *Service) listContainersOf(ctx context.Context, g gate.Grant, prefix, after string, limit int, lost bool) (out []ContainerInfo, next string, err error) {
	p, err := s.target(g, ContainerRead, ShareRead)
	if err != nil {
		return nil, "", err
	}
	base := p.UID + "/"
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		m := merge{{tx: tx, table: p.containers(), base: base, prefix: prefix, after: after, batch: limit + 1}}
		if lost {
			m = append(m, &cursor{tx: tx, table: lostTable, base: base, prefix: prefix, after: after, batch: limit + 1})
		}
		for {
			cur, key, value, err := m.least()
			if err != nil || cur == nil {
				return err
			}
			if len(out) == limit {
				next = after
				return nil
			}
			info, err := listedContainer(tx, p, cur.table, key, value)
			if err != nil {
				return err
			}
			out = append(out, info)
			after = key
			cur.pass(key)
		}
	})
	return out, next, err
}

// listedContainer is what a list shows of a row.
func listedContainer(tx *store.Tx, p place, table, key string, value []byte) (info ContainerInfo, err error) {
	if table == lostTable {
		var r lostRow
		if err := json.Unmarshal(value, &r); err != nil {
			return info, fmt.Errorf("reading a deleted container: %w", err)
		}
		name, version, _ := strings.Cut(key, "\x01")
		info, err = containerInfo(&resource.Doc{Name: name, Properties: r.Properties, System: r.System})
		info.version, info.deleted, info.until = version, r.Deleted, r.Until
		return info, err
	}
	d, err := resource.Load(tx, p.containerID(key))
	if err != nil || d == nil {
		return info, orElse(err, fmt.Errorf("blob: the container %s has no resource", key))
	}
	return containerInfo(d)
}
