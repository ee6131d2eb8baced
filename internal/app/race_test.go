//go:build race

package app

// raced is that the race detector watches, which makes long walks ten times as long.
const raced = true
