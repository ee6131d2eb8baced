package rbac

import (
	"math/bits"
	"slices"
	"strings"
)

// identity is all of a caller that decisions hang on, as the caller spelt it.
type identity struct {
	object string
	groups []string
}

// view is what reaches one caller, gathered over the caller and all groups. It
// holds for one gen.
type view struct {
	gen uint64
	who *identity // on its own, so that who remembers it does not keep the rest

	places  []place // where chains in links begin, by scope; a power of two of them
	links   []link
	holders []*holder // asked instead of places when the caller has very many
	timed   []*entry  // all for which the clock counts
}

// place is where the chain of one scope begins. Scopes whose hashes want one
// place lie one after the other; an empty place ends the search.
type place struct {
	tag   uint32 // the hash's upper half
	first int32  // the chain's first link, counted from 1; 0 when empty
}

// link is one assignment in a chain; next is -1 at the end.
type link struct {
	x    *entry
	role int32 // the role's slot, or -1 when the assignment gives the caller nothing at any time
	next int32
}

// is reports whether this is the caller. Every id is compared.
func (w *identity) is(object string, groups []string) bool {
	return w.object == object && slices.Equal(w.groups, groups)
}

// view is the caller's view for gen, remembered or made. The caller of it holds mu.
func (e *Engine) view(gen uint64, object string, groups []string) *view {
	h := e.hash(object)
	s := e.views.set(h)
	for i := range ways {
		if s.tag[i].Load() != h {
			continue
		}
		if v := s.item[i].Load(); v != nil && v.gen == gen && v.who.is(object, groups) {
			return v
		}
	}
	v := e.makeView(gen, object, groups)
	e.views.put(h, v, func(old *view) bool { return old.gen != gen })
	return v
}

func (e *Engine) makeView(gen uint64, object string, groups []string) *view {
	v := &view{gen: gen, who: &identity{object, slices.Clone(groups)}}
	total := 0
	for _, h := range e.holdersOf(object, groups) {
		v.holders = append(v.holders, h)
		total += len(h.all)
		for _, x := range h.all {
			if x.timed {
				v.timed = append(v.timed, x)
			}
		}
	}
	if total > viewLimit {
		return v
	}
	v.places = make([]place, 1<<bits.Len(uint(total*2)))
	v.links = make([]link, 0, total)
	for _, h := range v.holders {
		for _, x := range h.all {
			v.add(x)
		}
	}
	v.holders = nil
	return v
}

// holdersOf lists what was given to the object and to the groups, each once.
func (e *Engine) holdersOf(object string, groups []string) []*holder {
	out := make([]*holder, 0, len(groups)+1)
	seen := make(map[*holder]bool, len(groups)+1)
	add := func(id string) {
		h := e.holders[strings.ToLower(id)]
		if h == nil || seen[h] {
			return
		}
		seen[h] = true
		out = append(out, h)
	}
	add(object)
	for _, g := range groups {
		add(g)
	}
	return out
}

func (v *view) add(x *entry) {
	p := v.place(x.hash, x.Scope.Key())
	v.links = append(v.links, link{x, x.effective(v.who), p.first - 1})
	*p = place{uint32(x.hash >> 32), int32(len(v.links))}
}

// place is the place of a scope, which is empty if nothing begins there. There
// are more places than scopes, so that an empty one is always met.
func (v *view) place(h uint64, scope string) *place {
	mask := len(v.places) - 1
	for i := int(h) & mask; ; i = (i + 1) & mask {
		p := &v.places[i]
		if p.first == 0 || p.tag == uint32(h>>32) && v.links[p.first-1].x.Scope.Key() == scope {
			return p
		}
	}
}

// effective is the slot of the role that x gives to w, whatever the time, or -1
// when x gives nothing.
func (x *entry) effective(w *identity) int32 {
	if x.Via != "" && !w.in(x.Via) {
		return -1
	}
	return int32(x.slot.index)
}

// in reports whether the caller is in the group.
func (w *identity) in(group string) bool {
	return slices.ContainsFunc(w.groups, func(g string) bool { return strings.EqualFold(g, group) })
}
