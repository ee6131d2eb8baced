package pkcs11

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

const (
	// Program is the helper that loads the token's library: a library is C, which
	// the server is free of.
	Program = "castellan-pkcs11"
	// patience is how long a token may take to answer.
	patience = 30 * time.Second
	// mostAnswer is the longest answer of the helper, in bytes.
	mostAnswer = 64 << 10
)

// Wrapped is a key as a token's key wrapped it. It is no secret.
type Wrapped struct {
	Algorithm string `json:"algorithm"`    // one of AESGCM, OAEP256 and OAEP1
	IV        []byte `json:"iv,omitempty"` // of AESGCM
	Data      []byte `json:"data"`
}

// How tokens' keys wrap.
const (
	AESGCM  = "AES-GCM"            // CKM_AES_GCM by an AES key of 256 bits, with Label
	OAEP256 = "RSA-OAEP-SHA-256"   // CKM_RSA_PKCS_OAEP
	OAEP1   = "RSA-OAEP-SHA-1"     // the same, for tokens that know no other
	Label   = "castellan root key" // what is wrapped, as additional data
)

// Request is what the helper reads, as JSON, from its standard input: a key to wrap,
// or one to unwrap.
type Request struct {
	URI     string   `json:"uri"`
	Plain   []byte   `json:"plain,omitempty"`
	Wrapped *Wrapped `json:"wrapped,omitempty"`
}

// Answer is what the helper writes to its standard output.
type Answer struct {
	Plain   []byte   `json:"plain,omitempty"`
	Wrapped *Wrapped `json:"wrapped,omitempty"`
	Error   string   `json:"error,omitempty"`
}

// Wrap has the token's key that uri names wrap plain, and unwrap it again.
func Wrap(ctx context.Context, uri string, plain []byte) (Wrapped, error) {
	a, err := ask(ctx, Request{URI: uri, Plain: plain})
	if err != nil {
		return Wrapped{}, err
	}
	if a.Wrapped == nil {
		return Wrapped{}, errors.New("pkcs11: the helper wrapped nothing")
	}
	// A key that wraps and does not unwrap would lose everything.
	back, err := Unwrap(ctx, uri, *a.Wrapped)
	if err == nil && !bytes.Equal(back, plain) {
		err = errors.New("pkcs11: the token does not give back what it wrapped")
	}
	return *a.Wrapped, err
}

// Unwrap has the token's key that uri names unwrap w.
func Unwrap(ctx context.Context, uri string, w Wrapped) ([]byte, error) {
	a, err := ask(ctx, Request{URI: uri, Wrapped: &w})
	return a.Plain, err
}

// ask runs the helper once. What crosses is in pipes alone.
func ask(ctx context.Context, r Request) (a Answer, err error) {
	if _, err := Parse(r.URI); err != nil {
		return a, err
	}
	program, err := helper()
	if err != nil {
		return a, err
	}
	in, err := json.Marshal(r)
	if err != nil {
		return a, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c := exec.CommandContext(ctx, program)
	c.Stdin = bytes.NewReader(in)
	out := &limited{end: cancel}
	c.Stdout = out // a library may write what it likes to standard error: that goes nowhere
	c.WaitDelay = time.Second
	ran := c.Run()
	if ctx.Err() != nil {
		return a, fmt.Errorf("the token does not answer: %w", context.Cause(ctx))
	}
	if err := json.Unmarshal(out.kept, &a); err != nil {
		return a, fmt.Errorf("%s said nothing that can be read: %w", program, errors.Join(ran, err))
	}
	if a.Error != "" || ran != nil {
		return Answer{}, errors.Join(errors.New(a.Error), ran)
	}
	return a, nil
}

// limited keeps what is written, and ends who writes too much.
type limited struct {
	kept []byte
	end  func()
}

func (l *limited) Write(b []byte) (int, error) {
	if len(l.kept)+len(b) > mostAnswer {
		l.end()
		return 0, errors.New("too long")
	}
	l.kept = append(l.kept, b...)
	return len(b), nil
}

// helper is the program beside this one, or that of the path.
func helper() (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), Program)
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath(Program)
	if err != nil {
		return "", fmt.Errorf("a root key in a token needs the program %s, beside castellan or in PATH (go build ./cmd/%s, with a C compiler): %w", Program, Program, err)
	}
	return path, nil
}
