package condition

// MayHold reports whether the condition could hold if the attributes that a does
// not have were there: what is to be refused under a condition is refused then.
// No condition always holds.
func (c *Condition) MayHold(a *Attributes) bool {
	if c == nil {
		return true
	}
	yes, _ := could(c.root, a)
	return yes
}

// could says whether x could hold, and whether it could not.
func could(x expr, a *Attributes) (yes, no bool) {
	switch x := x.(type) {
	case both:
		y1, n1 := could(x.a, a)
		y2, n2 := could(x.b, a)
		return y1 && y2, n1 || n2
	case either:
		y1, n1 := could(x.a, a)
		y2, n2 := could(x.b, a)
		return y1 || y2, n1 && n2
	case negated:
		yes, no = could(x.of, a)
		return no, yes
	case truth:
		if _, ok := x.of.value(a); !ok {
			return true, true
		}
	case compare:
		_, left := x.left.value(a)
		if _, right := x.right.value(a); !left || !right {
			return true, true
		}
	}
	holds := x.holds(a)
	return holds, !holds
}
