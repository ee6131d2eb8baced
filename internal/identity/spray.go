package identity

import (
	"net/http"
	"net/netip"
	"sync"
	"time"
)

const (
	sprayFor  = 15 * time.Minute
	sprayMost = 100    // wrong guesses from one network in sprayFor
	mostNets  = 10_000 // networks that are counted at once; the rest share one count
)

// spray counts wrong guesses by where they come from, whatever the name: one
// password tried on many names counts little for each of them. A restart
// forgets it.
type spray struct {
	mu   sync.Mutex // guards nets
	nets map[netip.Prefix]guesses
}

type guesses struct {
	since time.Time
	n     int
}

// networkOf is what one attacker is taken to have: an address, or with IPv6 the
// part of it that one customer gets. It is zero where nothing is known.
func networkOf(r *http.Request) netip.Prefix {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	addr := a.Addr().Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// shut reports whether too many guesses came from a network.
func (s *spray) shut(from netip.Prefix, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.nets[s.place(from, now)]
	return g.n >= sprayMost && now.Sub(g.since) < sprayFor
}

// wrong counts a wrong guess.
func (s *spray) wrong(from netip.Prefix, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.place(from, now)
	g := s.nets[at]
	if now.Sub(g.since) >= sprayFor {
		g = guesses{since: now}
	}
	g.n++
	s.nets[at] = g
}

// place is where a network is counted: by itself, or with all that no longer
// had room. The caller holds mu.
func (s *spray) place(from netip.Prefix, now time.Time) netip.Prefix {
	if _, ok := s.nets[from]; ok || len(s.nets) < mostNets {
		return from
	}
	for k, g := range s.nets {
		if now.Sub(g.since) >= sprayFor {
			delete(s.nets, k)
		}
	}
	if len(s.nets) < mostNets {
		return from
	}
	return netip.Prefix{}
}
