package rbac

import (
	"math/bits"
	"slices"
	"strings"
)

// identity is all of a caller that decisions hang on, as the caller spelt it.
type identity struct {
	object  string
	groups  []string
	stripes []uint16 // of both; see Engine.stamps
}

// view is what reaches one caller, gathered over the caller and all groups.
type view struct {
	gen uint64
	who *identity // on its own, so that who remembers it does not keep the rest

	places  []place // by hash of scope; a power of two of them
	roles   []int32 // of the assignments, those of one place together: slots, or -1 for what gives the caller nothing at any time
	given   []*entry
	holders []*holder // asked instead of places when the caller has very many
	timed   []*entry  // all for which the clock counts
}

// place tells what begins at the scopes of one tag: seldom more than one, so
// whoever means to allow compares the scope. Tags that want one place lie one after
// the other; an empty place ends the search.
type place struct {
	tag      uint32 // the hash's upper half
	first, n uint16 // in roles and given
}

// is reports whether this is the caller. Every id is compared.
func (w *identity) is(object string, groups []string) bool {
	return w.object == object && slices.Equal(w.groups, groups)
}

// view is the caller's view, remembered or made; h is the hash of object. The
// caller of it holds mu.
func (e *Engine) view(h uint64, object string, groups []string) *view {
	s := e.views.set(h)
	for i := range ways {
		if s.tag[i].Load() != h {
			continue
		}
		if v := s.item[i].Load(); v != nil && v.who.is(object, groups) && e.still(v.gen, v.who) {
			return v
		}
	}
	v := e.makeView(object, groups)
	e.views.put(h, v)
	return v
}

func (e *Engine) makeView(object string, groups []string) *view {
	v := &view{gen: e.gen.Load(), who: &identity{object, slices.Clone(groups), make([]uint16, 0, len(groups)+1)}}
	total := 0
	v.holders = e.holdersOf(object, groups, func(id string) { v.who.stripes = append(v.who.stripes, e.stripe(id)) })
	for _, h := range v.holders {
		total += len(h.all)
		for i := range h.all {
			if y := &h.all[i]; y.odd && y.x.timed {
				v.timed = append(v.timed, y.x)
			}
		}
	}
	if total > viewLimit {
		return v
	}
	v.places = make([]place, 1<<bits.Len(uint(total+total/3)))
	v.roles, v.given = make([]int32, total), make([]*entry, total)
	for _, h := range v.holders {
		for i := range h.all {
			p := v.place(h.all[i].hash)
			p.tag = uint32(h.all[i].hash >> 32)
			p.n++
		}
	}
	end := uint16(0)
	for i := range v.places {
		end += v.places[i].n
		v.places[i].first = end
	}
	for _, h := range v.holders { // from the end of each place to its beginning
		for i := range h.all {
			y := &h.all[i]
			p := v.place(y.hash)
			p.first--
			v.given[p.first], v.roles[p.first] = y.x, y.role
			if y.odd {
				v.roles[p.first] = y.x.effective(v.who)
			}
		}
	}
	v.holders = nil
	return v
}

// holdersOf lists what was given to the object and to the groups, each once.
// Every id is told in lower case, also those to whom nothing was given.
func (e *Engine) holdersOf(object string, groups []string, tell func(id string)) []*holder {
	out := make([]*holder, 0, len(groups)+1)
	add := func(id string) {
		id = strings.ToLower(id)
		if tell != nil {
			tell(id)
		}
		if h := e.holders[id]; h != nil {
			out = append(out, h)
		}
	}
	add(object)
	for _, g := range groups {
		add(g)
	}
	return unique(out)
}

// unique drops what comes again. Few are compared in place, many by a map.
func unique(list []*holder) []*holder {
	if len(list) <= 32 {
		out := list[:0]
		for _, h := range list {
			if !slices.Contains(out, h) {
				out = append(out, h)
			}
		}
		return out
	}
	seen := make(map[*holder]bool, len(list))
	return slices.DeleteFunc(list, func(h *holder) bool {
		again := seen[h]
		seen[h] = true
		return again
	})
}

// place is the place of a hash, which is empty if nothing begins there. There
// are more places than tags, so that an empty one is always met.
func (v *view) place(h uint64) *place {
	mask := len(v.places) - 1
	for i := int(h) & mask; ; i = (i + 1) & mask {
		if p := &v.places[i]; p.n == 0 || p.tag == uint32(h>>32) {
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
