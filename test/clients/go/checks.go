package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
)

// suite prints one line for every check and goes on after a failed one.
type suite struct {
	failed int
}

// ok reports whether a step held.
func (s *suite) ok(name string, err error) bool {
	if err != nil {
		s.failed++
		fmt.Printf("FAIL go: %s: %s\n", name, line(err))
		return false
	}
	fmt.Printf("ok go: %s\n", name)
	return true
}

// refused holds if err is a refusal that names one of wanted.
func (s *suite) refused(name string, err error, wanted ...string) {
	if err == nil {
		s.ok("refused: "+name, errors.New("it was allowed"))
		return
	}
	text := err.Error()
	if r, ok := errors.AsType[*azcore.ResponseError](err); ok {
		text += fmt.Sprint(" ", r.StatusCode, " ", r.ErrorCode)
	}
	for _, w := range wanted {
		if strings.Contains(text, w) {
			s.ok("refused: "+name, nil)
			return
		}
	}
	s.ok("refused: "+name, fmt.Errorf("wanted one of %v in: %w", wanted, err))
}

// equal is an error that says what came and what was wanted.
func equal[T comparable](got, want T) error {
	if got != want {
		return fmt.Errorf("got %v, want %v", got, want)
	}
	return nil
}

// line is an error as one short line.
func line(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	return text[:min(len(text), 600)]
}

// value is what a pointer of the SDK points at, or the zero value.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
