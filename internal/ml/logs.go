package ml

import (
	"context"
	"sync"
	"time"
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

	mu  sync.Mutex // guards buf
	buf []byte
}

func newLogs(k *work) *logs {
	l := &logs{k: k, full: make(chan struct{}, 1), done: make(chan struct{}), gone: make(chan struct{})}
	go l.pump() // close waits for it
	return l
}

// Write takes what was printed. It waits when the keeper falls far behind, and
// so does the command then.
func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	l.buf = append(l.buf, b...)
	n := len(l.buf)
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

// close keeps the rest and waits until it is kept.
func (l *logs) close() {
	close(l.done)
	<-l.gone
}
