//go:build linux && (amd64 || arm64)

package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tiers are those that work for this user.
func tiers(t *testing.T) (out []Tier) {
	t.Helper()
	for _, x := range []Tier{Root, Userns, Landlock} {
		if x == Userns && os.Geteuid() == 0 {
			continue // the run as an ordinary user tries it
		}
		p, err := start(context.Background(), Plan{Name: "try", Tier: x, User: 65534, Argv: []string{"/nothing"}, Dir: "/"}, true)
		if err != nil {
			t.Logf("tier %s is not here: %v", x, err)
			continue
		}
		if p.Wait().Reason == Exited {
			out = append(out, x)
		}
	}
	if len(out) == 0 {
		t.Skip("no tier works here")
	}
	return out
}

// each runs fn in every tier.
func each(t *testing.T, fn func(t *testing.T, x Tier)) {
	for _, x := range tiers(t) {
		t.Run(x.String(), func(t *testing.T) { fn(t, x) })
	}
}

func plan(t *testing.T, x Tier, script string) (Plan, *bytes.Buffer) {
	t.Helper()
	dir, log := t.TempDir(), &bytes.Buffer{}
	guest := "/job"
	if x == Landlock {
		guest = dir
	}
	return Plan{Name: "test-" + x.String(), Tier: x, User: 2_000_000_123, Argv: []string{"/bin/sh", "-c", script}, Dir: guest,
		Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, Log: log, Timeout: 20 * time.Second, Grace: time.Second,
		Mounts: []Mount{{Host: dir, Guest: guest, Write: true, Private: true}}, Limits: Limits{Memory: 128 << 20, Pids: 64}}, log
}

func runPlan(t *testing.T, p Plan) Exit {
	t.Helper()
	pr, err := Start(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	return pr.Wait()
}

// Nothing of the host is seen, nothing of the system is written, no right is
// held: each line of the script that succeeds is an escape.
func TestNothingEscapes(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "canary")
	if err := os.WriteFile(secret, []byte("canary-91"), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	attacks := []string{
		"cat " + secret, "cat /etc/shadow", "cat /proc/1/environ", "ls /proc/1/fd/", "cat /proc/1/maps", "echo x >> /proc/1/exe",
		"mount -t tmpfs x /tmp", "unshare -U true", "unshare -n true", "nsenter -t 1 -m true", "chroot / true", "mknod d b 8 0", "mknod d c 1 1",
		"echo x > /etc/hosts", "echo x > /usr/x", "echo 1 > /proc/sys/kernel/sysrq", "echo x > /proc/sysrq-trigger",
		"echo h > /proc/sys/kernel/core_pattern", "ls /root/", "ls /home/", "ls /sys/kernel/", "grep -q . /proc/kcore", "grep -q . /proc/kmsg", "dmesg",
		"chown 0 .", "kill -9 1 && ! kill -0 1", "test -e /proc/self/fd/3", "hostname evil",
		"bash -c 'exec 3<>/dev/tcp/127.0.0.1/" + port + "'", "bash -c 'exec 3<>/dev/udp/8.8.8.8/53 && echo x >&3'",
		"ln -s /proc/self/exe e && echo x >> e", "cat /var/run/docker.sock", "cat /dev/vda", "cat /dev/mem", "echo x > /dev/console",
	}
	each(t, func(t *testing.T, x Tier) {
		script := "test \"$(cat /proc/self/fd/0)\" = '' || true\n"
		for _, a := range attacks {
			script += "if ( " + a + " ) >/dev/null 2>&1 </dev/null; then echo \"ESCAPED: " + strings.ReplaceAll(strings.ReplaceAll(a, "$", "\\$"), "\"", "'") + "\"; fi\n"
		}
		p, log := plan(t, x, script+"echo done")
		e := runPlan(t, p)
		if strings.Contains(log.String(), "ESCAPED") || !strings.Contains(log.String(), "done") {
			t.Errorf("%+v\n%s", e, log)
		}
		t.Logf("%d attacks were tried in tier %s", len(attacks), x)
	})
}

// No process of a namespaced sandbox holds a capability or may get one.
func TestNoRights(t *testing.T) {
	each(t, func(t *testing.T, x Tier) {
		p, log := plan(t, x, "cat /proc/self/status")
		if x == Landlock {
			t.Skip("/proc is not shown in this tier")
		}
		runPlan(t, p)
		for _, want := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%q is missing in\n%s", want, log)
			}
		}
	})
}

// Daemons that left their parents die with the sandbox, when it is stopped and
// when it ends, within five seconds.
func TestDaemonsDie(t *testing.T) {
	each(t, func(t *testing.T, x Tier) {
		p, log := plan(t, x, "trap '' TERM; (setsid sh -c 'trap \"\" TERM; sleep 987 & sleep 987' &) & echo up; sleep 987")
		pr, err := Start(context.Background(), p)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		pr.Stop()
		e := pr.Wait()
		if took := time.Since(began); took > 5*time.Second || e.Reason != Canceled {
			t.Errorf("it took %s and ended with %+v\n%s", took, e, log)
		}
		out, _ := exec.Command("pgrep", "-f", "sleep 987").Output()
		if len(out) > 0 {
			t.Errorf("processes are left: %s", out)
		}
	})
}

// A command that takes too long, too much memory or too much disk is ended, and
// the reason is told; processes over the limit do not start.
func TestLimits(t *testing.T) {
	for _, c := range []struct {
		name, script string
		change       func(*Plan)
		want         Reason
	}{
		{"time", "sleep 30", func(p *Plan) { p.Timeout = 300 * time.Millisecond }, TimedOut},
		{"memory", "x=$(head -c 400000000 /dev/zero | tr '\\0' x); echo ${#x}", func(p *Plan) {}, OutOfMem},
		{"disk", "for i in 1 2 3 4 5 6 7 8 9; do head -c 4000000 /dev/zero > f$i; done; sleep 20", func(p *Plan) { p.Limits.Disk = 8 << 20 }, OutOfDisk},
		{"files", "i=0; while [ $i -lt 400 ]; do : > f$i; i=$((i+1)); done; sleep 20", func(p *Plan) { p.Limits.Files = 100 }, OutOfFiles},
	} {
		t.Run(c.name, func(t *testing.T) {
			each(t, func(t *testing.T, x Tier) {
				p, log := plan(t, x, c.script)
				c.change(&p)
				e := runPlan(t, p)
				if e.Reason != c.want && !(c.name == "memory" && e.Code != 0) {
					t.Errorf("got %+v, want %s\n%s", e, c.want, log)
				}
			})
		})
	}
}

// A fork bomb meets the limit and dies with the sandbox.
func TestForkBomb(t *testing.T) {
	each(t, func(t *testing.T, x Tier) {
		if x == Landlock {
			t.Skip("processes are not limited in this tier")
		}
		p, log := plan(t, x, "b() { b | b & }; b; sleep 1; echo alive")
		p.Timeout = 3 * time.Second
		e := runPlan(t, p)
		if e.Reason == Broken {
			t.Errorf("%+v\n%.300s", e, log)
		}
	})
}

// A listener inside is served from outside; nothing else is reached.
func TestListeners(t *testing.T) {
	each(t, func(t *testing.T, x Tier) {
		p, log := plan(t, x, `bash -c 'h=${AT%:*}; exec 3<>/dev/tcp/$h/${AT#*:}; cat <&3'`)
		p.Env = append(p.Env, "AT="+Place("imds"))
		p.Listen = []Listen{{"imds", "169.254.169.254:80"}}
		pr, err := Start(context.Background(), p)
		if err != nil {
			t.Fatal(err)
		}
		c, err := pr.Listeners()["imds"].Accept()
		if err != nil {
			t.Fatal(err, pr.Wait(), log)
		}
		io.WriteString(c, "from outside")
		c.Close()
		if e := pr.Wait(); log.String() != "from outside" {
			t.Errorf("%+v %q", e, log)
		}
	})
}

// Outputs that are no regular files are refused by name, and never opened.
func TestOutputsNameTheOffender(t *testing.T) {
	for name, make := range map[string]func(string) error{
		"a link": func(p string) error { return os.Symlink("/etc/passwd", p) },
		"a pipe": func(p string) error { return syscall.Mkfifo(p, 0o600) },
	} {
		dir := t.TempDir()
		if err := make(filepath.Join(dir, "bad")); err != nil {
			t.Fatal(err)
		}
		f, err := OpenFolder(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		err = f.Walk(Bounds{10, 1000}, func(string, int64, io.Reader) error { return errors.New("it was opened") })
		var r *Refused
		if !errors.As(err, &r) || r.Name != "bad" {
			t.Errorf("%s: got %v, want a refusal of bad", name, err)
		}
	}
}

// What is staged stays in its folder.
func TestStagingStays(t *testing.T) {
	dir := t.TempDir()
	f, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Symlink("/tmp", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"../x", "/etc/x", "a/../../x", "", ".", "a\nb", "out/x", "a\\b"} {
		if _, err := f.Write(n, strings.NewReader("x"), 10); err == nil {
			t.Errorf("%q was written", n)
		}
	}
	if _, err := f.Write("big", strings.NewReader("12345678901"), 10); err == nil {
		t.Error("a file over the limit was written")
	}
}

// BenchmarkStart is a sandbox from start to end beside a bare fork and exec.
func BenchmarkStart(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		for b.Loop() {
			if err := exec.Command("/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sandbox", func(b *testing.B) {
		s := Probe(context.Background())
		if s.Tier == None {
			b.Skip(s.Refusal())
		}
		for b.Loop() {
			p, err := Start(context.Background(), Plan{Name: "bench", Tier: s.Tier, User: 2_000_000_124, Argv: []string{"/bin/true"}, Dir: "/"})
			if err != nil {
				b.Fatal(err)
			}
			p.Wait()
		}
	})
}
