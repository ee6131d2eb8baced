package ml

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"sync"
	"time"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// stdLog is the artifact that has what a job's command printed.
const stdLog = "user_logs/std_log.txt"

const (
	logEvery = 500 * time.Millisecond // at most so long a line waits
	logBatch = 256 << 10              // bytes that are kept at once
)

// logs keeps what a command prints, while it prints, in steps.
type logs struct {
	k    *work
	full chan struct{}
	done chan struct{}
	gone chan struct{}

	mu   sync.Mutex // guards what follows
	buf  []byte     // what people will see and was not kept yet
	line []byte     // where filters look at lines: what has come of one
	all  *os.File   // the whole log, where filters keep a part of it from people
	size int64      // bytes of all
	err  error      // why all is not whole
}

func newLogs(k *work) (*logs, error) {
	l := &logs{k: k, full: make(chan struct{}, 1), done: make(chan struct{}), gone: make(chan struct{})}
	if len(k.logs) > 0 {
		var err error
		if l.all, err = os.CreateTemp(k.dir.root, "log-"); err != nil {
			return nil, fmt.Errorf("making the file of a whole log: %w", err)
		}
		if err := os.Remove(l.all.Name()); err != nil { // it has no name, so nothing outlives the job
			return nil, errors.Join(fmt.Errorf("hiding the file of a whole log: %w", err), l.all.Close())
		}
	}
	go l.pump() // close waits for it
	return l, nil
}

// maxLine is how long a line is that filters look at; what is longer is looked
// at in parts.
const maxLine = 64 << 10

// take puts what was printed where it belongs. l.mu is held.
func (l *logs) take(b []byte) int {
	if l.all == nil {
		l.buf = append(l.buf, b...)
		return len(l.buf)
	}
	if l.size += int64(len(b)); l.size > maxOutputBytes {
		l.err = arm.Errorf(arm.TooLarge, "the job printed more than %d bytes, which is more than a log that policies have kept whole may have", int64(maxOutputBytes))
	} else if _, err := l.all.Write(b); err != nil {
		l.err = fmt.Errorf("writing a whole log: %w", err)
	}
	l.line = append(l.line, b...)
	for {
		i := bytes.IndexByte(l.line, '\n')
		switch {
		case i >= 0 && i < maxLine:
			i++
		case len(l.line) >= maxLine:
			i = maxLine
		default:
			return len(l.buf)
		}
		l.show(l.line[:i])
		l.line = l.line[i:]
	}
}

// show lets people see a line that every filter lets through.
func (l *logs) show(line []byte) {
	text := bytes.TrimRight(line, "\r\n")
	for _, f := range l.k.logs {
		if !slices.ContainsFunc(f.Lines, func(re *regexp.Regexp) bool { return re.Match(text) }) {
			return
		}
	}
	l.buf = append(l.buf, line...)
}

// Write takes what was printed. It waits when the keeper falls far behind, and
// so does the command then.
func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	n := l.take(l.k.hide.next(b))
	l.mu.Unlock()
	if n >= logBatch {
		select {
		case l.full <- struct{}{}:
		default:
		}
	}
	for n > 16*logBatch {
		select {
		case <-l.gone:
			return len(b), nil
		case <-time.After(logEvery / 10):
		}
		l.mu.Lock()
		n = len(l.buf)
		l.mu.Unlock()
	}
	return len(b), nil
}

func (l *logs) pump() {
	defer close(l.gone)
	tick := time.NewTicker(logEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-l.full:
		case <-l.done:
			l.flush()
			return
		}
		l.flush()
	}
}

// flush keeps what has come so far.
func (l *logs) flush() {
	l.mu.Lock()
	b := l.buf
	l.buf = nil
	l.mu.Unlock()
	if len(b) == 0 {
		return
	}
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	ws := l.k.w.Doc.ID
	if err := l.k.s.Runs.Append(ctx, l.k.s.history(ws, l.k.run), ws, l.k.run, stdLog, b); err != nil {
		l.k.s.Log.Error("a part of a job's log was lost", "job", l.k.open.ID.String(), "bytes", len(b), "error", err)
	}
}

// close keeps the rest and waits until it is kept: the whole log in the
// datastores that the filters name, too, reached as the workspace.
func (l *logs) close() error {
	l.mu.Lock()
	l.take(l.k.hide.last())
	if len(l.line) > 0 {
		l.show(l.line)
		l.line = nil
	}
	l.mu.Unlock()
	close(l.done)
	<-l.gone
	if l.all == nil {
		return nil
	}
	defer l.all.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Minute)
	defer stop()
	for _, f := range l.k.logs {
		if err := l.keep(ctx, f.Datastore); err != nil {
			return at("the whole log", err)
		}
	}
	return nil
}

func (l *logs) keep(ctx context.Context, datastore string) error {
	k := l.k
	var to location
	if err := k.s.DB.View(ctx, func(tx *store.Tx) (err error) {
		to, err = k.s.locate(tx, k.w, "azureml://datastores/"+datastore+"/paths/azureml/"+k.run+"/"+stdLog)
		return err
	}); err != nil {
		return err
	}
	by, _, err := k.s.access(ctx, k.w, to, k.w.self())
	if err != nil {
		return err
	}
	if _, err := l.all.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("reading a whole log again: %w", err)
	}
	return k.s.Blobs.Write(ctx, by, to.account, to.container, to.path, l.all, l.size)
}
