package rbac

import "strings"

// pattern is an action pattern of a role, compiled once. A star stands for any
// run of characters, slashes as well; a whole segment that is a star may also
// be missing, so a/*/write covers a/write. Letter case says nothing.
type pattern struct {
	pieces []piece
	open   bool // the pattern ends in a star
}

// piece is the text between two stars. A lap piece follows a star that was a
// whole segment: it may take the slash that the piece before it ended with.
type piece struct {
	text string
	lap  bool
}

// compile reads a pattern; an empty one covers nothing.
func compile(text string) pattern {
	parts := strings.Split(strings.ToLower(strings.TrimSpace(text)), "*")
	p := pattern{pieces: make([]piece, len(parts))}
	for i, t := range parts {
		lap := i > 0 && strings.HasSuffix(parts[i-1], "/") && strings.HasPrefix(t, "/")
		p.pieces[i] = piece{t, lap}
	}
	if last := len(parts) - 1; last > 0 && parts[last] == "" {
		p.pieces, p.open = p.pieces[:last], true
	}
	return p
}

// covers reports whether the action of this key, in lower case, is meant.
func (p pattern) covers(key string) bool {
	first, rest := p.pieces[0].text, p.pieces[1:]
	if len(rest) == 0 && !p.open {
		return key != "" && key == first
	}
	if key == "" || !strings.HasPrefix(key, first) {
		return false
	}
	at := len(first)
	for i, x := range rest {
		from := x.start(at)
		if i == len(rest)-1 && !p.open {
			return len(key)-len(x.text) >= from && strings.HasSuffix(key, x.text)
		}
		// The leftmost place leaves most for the pieces to come.
		n := strings.Index(key[from:], x.text)
		if n < 0 {
			return false
		}
		at = from + n + len(x.text)
	}
	return true
}

// start is where x may begin when everything before at is used up.
func (x piece) start(at int) int {
	if x.lap {
		return at - 1
	}
	return at
}

// anyCovers reports whether one of ps covers key.
func anyCovers(ps []pattern, key string) bool {
	for _, p := range ps {
		if p.covers(key) {
			return true
		}
	}
	return false
}
