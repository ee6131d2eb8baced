package node

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// logPump carries a command's output to a writer. It never stands still: what
// is over the limit, or what the writer refuses, is read and dropped.
type logPump struct {
	in   *os.File
	done sync.WaitGroup

	bytes int64 // readable when done
	cut   bool
}

func newLogPump(in *os.File, out io.Writer, limit int64) *logPump {
	if limit == 0 {
		limit = DefaultLogLimit
	}
	if out == nil {
		out = io.Discard
	}
	p := &logPump{in: in}
	p.done.Go(func() { p.pump(out, limit) })
	return p
}

func (p *logPump) pump(out io.Writer, limit int64) {
	b := make([]byte, 32<<10)
	for {
		n, err := p.in.Read(b)
		keep := min(int64(n), max(limit-p.bytes, 0))
		p.bytes += int64(n)
		if keep > 0 && out != nil {
			if _, werr := out.Write(b[:keep]); werr != nil {
				out, p.cut = nil, true
			}
		}
		if keep < int64(n) && !p.cut {
			p.cut = true
			if out != nil {
				fmt.Fprintf(out, "\n[castellan: the log is cut here; it may have %d bytes]\n", limit)
			}
		}
		if err != nil {
			return
		}
	}
}

// finish waits for the last output of a sandbox that has ended.
func (p *logPump) finish() (bytes int64, cut bool) {
	p.in.SetReadDeadline(time.Now().Add(2 * time.Second)) // somebody else may hold the pipe
	p.done.Wait()
	return p.bytes, p.cut
}

func (p *logPump) close() {
	p.in.SetReadDeadline(time.Now())
	p.done.Wait()
	p.in.Close()
}
