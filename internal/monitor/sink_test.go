package monitor

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"
)

// nasty is text that would break a log whose records are lines.
const nasty = "a\r\n<110>1 - - forged\x00\x1b[31m\u2028\"}\n{"

func records(t *testing.T, n int) (list []Record) {
	t.Helper()
	for i := range n {
		e := audit.Entry{Seq: uint64(i + 1), Time: time.Date(2030, 5, 6, 7, 8, 9, 10_000, time.UTC), Caller: "ada", Name: nasty, Item: nasty, Action: "Microsoft.KeyVault/vaults/secrets/getSecret/action", Target: kv, Decision: "refused", Outcome: "AuthorizationFailed"}
		r, err := record(&e, arm.MustID(kv), "AuditEvent", "local")
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

// open is a sink that a file of sinks with this text in it names.
func open(text string) (Sink, error) {
	dir, err := os.MkdirTemp("", "sinks")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "sinks.json")
	if err := os.WriteFile(path, []byte(`{"sinks":[{"name":"s",`+text+`}]}`), 0o600); err != nil {
		return nil, err
	}
	list, err := OpenSinks(path, "t", "host.test")
	if err != nil {
		return nil, err
	}
	return list[0].Sink, nil
}

func caFile(t *testing.T, s *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var header = regexp.MustCompile(`^<(108|110)>1 2030-05-06T07:08:09\.000010Z host\.test castellan - AuditEvent - \{`)

// listen takes messages as RFC 6587 frames them; cut closes a connection after
// so many, unread.
func listen(t *testing.T, l net.Listener, cut int) <-chan string {
	out := make(chan string, 1000)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			in := bufio.NewReader(c)
			for i := 0; cut == 0 || i < cut; i++ {
				size := 0
				if _, err := fmt.Fscanf(in, "%d ", &size); err != nil {
					break
				}
				b := make([]byte, size)
				if _, err := io.ReadFull(in, b); err != nil {
					t.Error(err)
				}
				out <- string(b)
			}
			if tc, ok := c.(*net.TCPConn); ok && cut > 0 {
				_ = tc.SetLinger(0) // what is not read is lost, and the other side told
			}
			c.Close()
		}
	}()
	return out
}

// By TLS and TCP each record is one message of RFC 5424, whatever callers wrote,
// and a delivery ends well only when the other side has read all.
func TestSyslog(t *testing.T) {
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	for _, network := range []string{"tcp", "tls"} {
		for cut, want := range map[int]bool{0: true, 2: false} {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			on, more := l, ""
			if network == "tls" {
				on, more = tls.NewListener(l, &tls.Config{Certificates: web.TLS.Certificates}), `,"caFile":"`+caFile(t, web)+`"`
				if !want {
					continue // a TLS connection that is reset is a TCP one
				}
			}
			got := listen(t, on, cut)
			s, err := open(`"syslog":"` + network + `://` + l.Addr().String() + `"` + more)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Deliver(t.Context(), records(t, 100)); (err == nil) != want {
				t.Errorf("%s, cut after %d: the delivery ended with %v", network, cut, err)
			}
			for i := 0; want && i < 100; i++ {
				if m := <-got; !header.MatchString(m) || strings.ContainsAny(m, "\r\n\x00\x1b") {
					t.Fatalf("the message is %q", m)
				}
			}
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	listen(t, tls.NewListener(l, &tls.Config{Certificates: web.TLS.Certificates}), 0)
	s, err := open(`"syslog":"tls://` + l.Addr().String() + `"`)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Deliver(t.Context(), records(t, 1)); err == nil {
		t.Error("a certificate that nobody vouches for was believed")
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if s, err = open(`"syslog":"tcp://` + silent.Addr().String() + `"`); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Deliver(short, records(t, 1)); err == nil {
		t.Error("a delivery that nobody read ended well")
	}
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if s, err = open(`"syslog":"udp://` + u.LocalAddr().String() + `"`); err != nil {
		t.Fatal(err)
	}
	if err := s.Deliver(t.Context(), records(t, 1)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 65536)
	if n, _, err := u.ReadFrom(b); err != nil || !header.Match(b[:n]) {
		t.Errorf("the datagram is %q, %v", b[:n], err)
	}
}

// OTLP's requests are read by OpenTelemetry's own types; what is not taken is an
// error, what is rejected for good is told apart, and headers go nowhere else.
func TestOTLP(t *testing.T) {
	var got collector.ExportLogsServiceRequest
	status, reply := http.StatusOK, &collector.ExportLogsServiceResponse{}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err == nil {
			err = proto.Unmarshal(b, &got)
		}
		if err != nil || r.Header.Get("Authorization") != "Bearer sesame" || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("a request with %v: %v", r.Header, err)
		}
		out, _ := proto.Marshal(reply)
		w.Header().Set("Location", elsewhere.URL)
		w.WriteHeader(status)
		_, _ = w.Write(out)
	}))
	defer web.Close()
	s, err := open(`"otlp":"` + web.URL + `/v1/logs","headers":{"Authorization":"Bearer sesame"},"caFile":"` + caFile(t, web) + `"`)
	if err != nil {
		t.Fatal(err)
	}
	list := records(t, 3)
	if err := s.Deliver(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	logs := got.ResourceLogs[0].ScopeLogs[0].LogRecords
	if len(logs) != 3 || logs[0].Body.GetStringValue() != string(list[0].JSON) || logs[0].SeverityText != "WARN" || logs[0].TimeUnixNano != uint64(list[0].Time.UnixNano()) {
		t.Errorf("the collector got %v", &got)
	}
	for _, code := range []int{http.StatusAccepted, http.StatusFound, http.StatusTemporaryRedirect, http.StatusBadRequest, http.StatusUnauthorized, http.StatusServiceUnavailable} {
		status = code
		if err := s.Deliver(t.Context(), list); err == nil || strings.Contains(err.Error(), "sesame") {
			t.Errorf("with %d the delivery ended with %v", code, err)
		}
	}
	status, reply.PartialSuccess = http.StatusOK, &collector.ExportLogsPartialSuccess{RejectedLogRecords: 2, ErrorMessage: "too old"}
	if r, ok := s.Deliver(t.Context(), list).(rejected); !ok || r.n != 2 {
		t.Errorf("a partial success is %v", r)
	}
}

// A file of sinks that says what can't be is no start.
func TestSinkFiles(t *testing.T) {
	for _, bad := range []string{
		``, `"syslog":"tls://h:1","otlp":"https://h"`, `"syslog":"http://h:1"`, `"syslog":"tcp://h"`, `"syslog":"tcp://h:1/x"`, `"otlp":"ftp://h"`, `"otlp":"https://u:p@h"`, `"otlp":"https://h?key=x"`,
		`"otlp":"http://h","headers":{"a":"b"}`, `"syslog":"tcp://h:1","caFile":"x"`, `"syslog":"tls://h:1","headers":{"a":"b"}`, `"syslog":"tls://h:1","certFile":"x"`, `"syslog":"tls://h:1","caFile":"/none"`, `"syslog":"udp://h:1","color":"red"`,
	} {
		if _, err := open(strings.TrimPrefix(bad+`,"everything":false`, ",")); err == nil {
			t.Errorf("the sink %s was taken", bad)
		}
	}
}
