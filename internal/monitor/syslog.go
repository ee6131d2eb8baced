package monitor

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// syslog is a sink that takes messages of RFC 5424 by TLS (RFC 5425), TCP (RFC
// 6587, octet counting) or UDP (RFC 5426).
type syslog struct {
	network, address string
	tls              *tls.Config
	host             string // HOSTNAME of the messages
}

// logAudit is syslog's facility for audits.
const logAudit = 13

// message is a record in the form of RFC 5424. JSON has no line break, so none of
// what callers chose can begin another.
func (s *syslog) message(r Record) []byte {
	severity := 6 // informational
	if r.Failed {
		severity = 4 // warning
	}
	head := fmt.Sprintf("<%d>1 %s %s castellan - %s - ", logAudit*8+severity, r.Time.UTC().Format("2006-01-02T15:04:05.000000Z"), s.host, r.Category)
	return append([]byte(head), r.JSON...)
}

// Deliver sends the records over one connection, and then waits until the other
// side ends it too: so it has read all of them. Syslog has no better receipt, and by
// UDP none at all.
func (s *syslog) Deliver(ctx context.Context, list []Record) error {
	conn, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if s.network == "udp" {
		for _, r := range list {
			if _, err := conn.Write(s.message(r)); err != nil {
				return err
			}
		}
		return nil
	}
	var frames bytes.Buffer
	for _, r := range list {
		m := s.message(r)
		fmt.Fprintf(&frames, "%d %s", len(m), m)
	}
	if _, err := frames.WriteTo(conn); err != nil {
		return err
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("waiting for %s to end the connection: %w", s.address, err)
	}
	return nil
}

func (s *syslog) dial(ctx context.Context) (net.Conn, error) {
	d := &net.Dialer{Timeout: 10 * time.Second}
	if s.network == "tls" {
		return (&tls.Dialer{NetDialer: d, Config: s.tls}).DialContext(ctx, "tcp", s.address)
	}
	return d.DialContext(ctx, s.network, s.address)
}
