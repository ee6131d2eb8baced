package rbac

import "sync/atomic"

// ways is how many entries share a place in a table.
const ways = 4

// table remembers values by a 64-bit hash. It never grows; a new value drives
// out an old one of the same place. Two keys may share a hash, so whoever finds
// a value must compare the whole key. Readers take no lock.
type table[T any] struct {
	sets []set[T]
	mask uint64
}

type set[T any] struct {
	tag  [ways]atomic.Uint64
	item [ways]atomic.Pointer[T]
}

// newTable has room for n values; n is a power of two, at least ways.
func newTable[T any](n int) *table[T] {
	return &table[T]{sets: make([]set[T], n/ways), mask: uint64(n/ways - 1)}
}

func (t *table[T]) set(h uint64) *set[T] { return &t.sets[h&t.mask] }

// put remembers v under h, in an empty place, or in that of an equal hash, or
// else in one that the hash picks. Tag and item are written one after the other:
// a reader between the two meets a value whose key differs, which is a miss.
func (t *table[T]) put(h uint64, v *T) {
	s := t.set(h)
	at := int(h>>60) % ways
	for i := range ways {
		if s.tag[i].Load() == h || s.item[i].Load() == nil {
			at = i
			break
		}
	}
	s.tag[at].Store(h)
	s.item[at].Store(v)
}
