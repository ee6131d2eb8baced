package gate

import (
	"math"
	"sync"
	"time"
)

// MaxBuckets is how many buckets are remembered.
const MaxBuckets = 10_000

// Rate is how many requests may come at once, and how many more in a second.
type Rate struct{ Size, Second float64 }

// Times is so many times the rate.
func (r Rate) Times(n int) Rate { return Rate{r.Size * float64(n), r.Second * float64(n)} }

// Buckets hold requests to rates, each key to its own: a bucket has a token for each
// request that may come. It is safe for concurrent use.
type Buckets struct {
	now func() time.Time

	mu  sync.Mutex // guards all
	all map[string]*bucket
}

type bucket struct {
	Rate
	left float64
	at   time.Time
}

// fill adds what has come back since the last look.
func (b *bucket) fill(now time.Time) {
	b.left = min(b.Size, b.left+b.Second*max(0, now.Sub(b.at).Seconds()))
	b.at = now
}

// NewBuckets are full ones.
func NewBuckets(now func() time.Time) *Buckets {
	return &Buckets{now: now, all: map[string]*bucket{}}
}

// Take takes a token from the key's bucket and says how many are left, or after how
// many seconds, at least one, there is one again; 0 is now.
func (b *Buckets) Take(key string, r Rate) (left, wait int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.bucket(key, r)
	if x.left < 1 {
		return 0, int(max(1, math.Ceil((1-x.left)/x.Second)))
	}
	x.left--
	return int(x.left), 0
}

// bucket is the bucket of a key, filled up to now. Where there are too many,
// those go that are full, and if that is not enough, others: who had them begins anew.
func (b *Buckets) bucket(key string, r Rate) *bucket {
	now := b.now()
	x := b.all[key]
	if x == nil {
		if len(b.all) >= MaxBuckets {
			b.trim(now)
		}
		x = &bucket{r, r.Size, now}
		b.all[key] = x
	}
	x.fill(now)
	return x
}

func (b *Buckets) trim(now time.Time) {
	for k, old := range b.all {
		if old.fill(now); old.left == old.Size {
			delete(b.all, k)
		}
	}
	for k := range b.all {
		if len(b.all) <= MaxBuckets*3/4 {
			break
		}
		delete(b.all, k)
	}
}

// Len is how many buckets are remembered.
func (b *Buckets) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.all)
}
