package app

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// socket is one that a process has open and that takes connections, or datagrams.
type socket struct {
	family, kind int
	at           netip.AddrPort // of AF_INET and AF_INET6
	inside       bool           // it lies in a network namespace of its own
}

// sockets are those of a process, as the kernel has them: a copy of each of its
// files is asked, so nothing that the process says of itself counts.
func sockets(t *testing.T, pid int) (out []socket) {
	t.Helper()
	own, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(own)
	here, err := unix.GetsockoptUint64(own, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		t.Skip("this kernel does not tell namespaces of sockets: ", err)
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(process)
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		n, err := strconv.Atoi(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, n)) // it may be closed by now
		if !strings.HasPrefix(to, "socket:") {
			continue
		}
		fd, err := unix.PidfdGetfd(process, n, 0)
		if errors.Is(err, unix.EBADF) {
			continue
		}
		if err != nil {
			t.Skip("this machine lets nobody look at a child's sockets: ", err)
		}
		if s, ok := whatIs(t, fd, here); ok {
			out = append(out, s)
		}
		_ = unix.Close(fd)
	}
	return out
}

// whatIs tells what a socket is; ok is false for one end of a connection.
func whatIs(t *testing.T, fd int, here uint64) (s socket, ok bool) {
	t.Helper()
	get := func(name int) int {
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, name)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	s.family, s.kind = get(unix.SO_DOMAIN), get(unix.SO_TYPE)
	if where, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err == nil {
		s.inside = where != here
	}
	if s.kind == unix.SOCK_STREAM && get(unix.SO_ACCEPTCONN) == 0 {
		return s, false
	}
	if _, err := unix.Getpeername(fd); err == nil {
		return s, false // datagrams of one peer alone
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		s.at = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		s.at = netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return s, true
}

// The platform, while a job runs, listens at two addresses and at those inside the
// job's own network, and at no other: no datagrams, no socket in the file system.
// What answers there in the clear is what docs/decisions/hosts.md names: the proxy,
// which leads to TLS alone, and inside a sandbox its metadata addresses.
func TestNothingAnswersInTheClear(t *testing.T) {
	t.Parallel()
	needsSandbox(t)
	s := spawn(t, t.TempDir()+"/data")
	l := newLab(t, s)
	l.clusterOf(t, "mine")
	l.submit(t, l.arm, "listens", "mine", `exec 3<>/dev/tcp/127.0.0.1/443; printf 'GET / HTTP/1.0\r\n\r\n' >&3; read -r answer <&3; echo "edge $answer"
while read -r _ at _ state _; do [ "$state" != 0A ] || ports="$ports $((16#${at#*:}))"; done </proc/net/tcp; echo "ports$ports"; while :; do sleep 1; done`, nil)
	if got := l.says(t, "listens", "edge "); got != "HTTP/1.0 400 Bad Request" {
		t.Errorf("the edge inside a sandbox answers %q in the clear", got)
	}
	inner := strings.Fields(l.says(t, "listens", "ports"))

	known := map[string]bool{s.ready.Listen: true, strings.TrimPrefix(s.ready.Proxy, "http://"): true}
	var inside int
	for _, k := range sockets(t, s.cmd.Process.Pid) {
		switch {
		case k.inside:
			inside++
			if !k.at.Addr().IsLoopback() && k.at.String() != "169.254.169.254:80" || k.kind != unix.SOCK_STREAM {
				t.Errorf("a sandbox has a listener at %s", k.at)
			}
		case known[k.at.String()] && k.kind == unix.SOCK_STREAM:
			delete(known, k.at.String())
		case k.family == unix.AF_NETLINK: // the kernel's
		default:
			t.Errorf("the platform listens at %+v, which nobody knows of", k)
		}
	}
	if len(known) > 0 {
		t.Errorf("the platform does not listen at %v", known)
	}
	if inside != len(inner) || inside < 2 {
		t.Errorf("the platform holds %d listeners of the sandbox, which has %v", inside, inner)
	}

	clear := speak(t, s.ready.Listen, "GET / HTTP/1.1\r\nHost: castellan.localhost\r\n\r\n")
	if want := "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"; clear != want {
		t.Errorf("the TLS listener answers %q in the clear", clear)
	}
	handshakes(t, s, func() (net.Conn, error) { return net.Dial("tcp", s.ready.Listen) })

	proxy := strings.TrimPrefix(s.ready.Proxy, "http://")
	for request, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: castellan.localhost\r\nConnection: close\r\n\r\n":                                                             "HTTP/1.1 405 ",
		"GET http://castellan.localhost/healthz HTTP/1.1\r\nHost: castellan.localhost\r\nConnection: close\r\n\r\n":                            "HTTP/1.1 405 ",
		"CONNECT castellan.localhost:80 HTTP/1.1\r\nHost: castellan.localhost:80\r\n\r\n":                                                      "HTTP/1.1 403 ",
		"CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: 127.0.0.1:443\r\n\r\n":                                                                        "HTTP/1.1 403 ",
		"CONNECT castellan.localhost:443 HTTP/1.1\r\nHost: castellan.localhost:443\r\n\r\nGET / HTTP/1.1\r\nHost: castellan.localhost\r\n\r\n": "HTTP/1.1 200 Connection Established\r\n\r\nHTTP/1.0 400 Bad Request",
	} {
		if got := speak(t, proxy, request); !strings.HasPrefix(got, want) {
			t.Errorf("the proxy answers %q to %q, want %s", got, request, want)
		}
	}
	handshakes(t, s, func() (net.Conn, error) {
		c, err := net.Dial("tcp", proxy)
		if err == nil {
			_, err = fmt.Fprint(c, "CONNECT castellan.localhost:443 HTTP/1.1\r\nHost: castellan.localhost:443\r\n\r\n")
		}
		if err == nil {
			_, err = http.ReadResponse(bufio.NewReaderSize(c, 16), &http.Request{Method: http.MethodConnect})
		}
		return c, err
	})
}

// speak sends text and gives what comes until the other side ends it.
func speak(t *testing.T, address, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if c, ok := c.(*net.TCPConn); ok {
		_ = c.CloseWrite()
	}
	var out strings.Builder
	_, _ = bufio.NewReader(c).WriteTo(&out) // what came before it was cut
	return out.String()
}

// handshakes wants TLS 1.3 with a hybrid key exchange of who offers it, 1.2 of who has no
// better, and no less.
func handshakes(t *testing.T, s *served, dial func() (net.Conn, error)) {
	t.Helper()
	pem, err := os.ReadFile(s.ready.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	for max, want := range map[uint16]uint16{0: tls.VersionTLS13, tls.VersionTLS12: tls.VersionTLS12, tls.VersionTLS11: 0, tls.VersionTLS10: 0} {
		c, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		conn := tls.Client(c, &tls.Config{RootCAs: roots, ServerName: "castellan.localhost", MinVersion: tls.VersionTLS10, MaxVersion: max})
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if err = conn.Handshake(); err != nil && want != 0 || err == nil && conn.ConnectionState().Version != want {
			t.Errorf("a client of %s gets %s, %v", tls.VersionName(max), tls.VersionName(conn.ConnectionState().Version), err)
		}
		if curve := conn.ConnectionState().CurveID; want == tls.VersionTLS13 && curve != tls.X25519MLKEM768 {
			t.Errorf("keys are exchanged by %s", curve)
		}
		_ = c.Close()
	}
}
