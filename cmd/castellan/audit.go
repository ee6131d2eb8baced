package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"castellan/internal/app"
	"castellan/internal/audit"

	"github.com/spf13/cobra"
)

// auditCommand is castellan audit: what an auditor does with the log.
func auditCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "audit", Short: "Verify and export the audit log",
		Long: `The audit log is a transparency log: a Merkle tree of all entries, with
checkpoints that the installation signs. Whoever keeps a checkpoint elsewhere can
tell from then on that no entry before it was changed, that the log's end was not
cut off, and that the data folder was not put back to an older state.

  castellan audit checkpoint URL|FOLDER > kept     keep it elsewhere, with the key it names
  castellan audit verify FOLDER --checkpoint kept
  castellan audit export log.jsonl --data FOLDER
  castellan audit verify log.jsonl --checkpoint kept
  castellan audit verify URL --checkpoint kept`,
	}
	c.AddCommand(verifyAudit(), checkpointAudit(), exportAudit())
	return c
}

// logFlags say how to reach a log.
type logFlags struct {
	cfg       app.Config
	ca, proxy string
}

func (f *logFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.cfg.RootKey, "root-key", "", rootKeyHelp)
	fl.StringVar(&f.cfg.PassphraseFile, "passphrase-file", "", "file with the passphrase that the root key is made of")
	fl.StringVar(&f.ca, "ca", "", "file of the server's certificate authority, for a URL")
	fl.StringVar(&f.proxy, "proxy", "", "the server's proxy, such as http://host:8444, for a URL (default: HTTPS_PROXY)")
}

// get reads one of the doors of the log at base.
func (f *logFlags) get(ctx context.Context, base, path string) ([]byte, error) {
	s := session{Proxy: f.proxy}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, err
		}
		s.CA = string(pem)
	}
	h, err := s.client()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := h.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the server can't be reached (is castellan up running?): %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	if err == nil && resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answered %s: %s", resp.Status, b)
	}
	return b, err
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme == "https" && u.Host != ""
}

// expect is what is known of a log beforehand.
type expect struct {
	key  string
	kept []byte
}

func (e expect) pinned(key string) error {
	if e.key != "" && e.key != key {
		return fmt.Errorf("the log's key is %s; it must be %s", key, e.key)
	}
	return nil
}

func verifyAudit() *cobra.Command {
	var f logFlags
	var e expect
	var file string
	c := &cobra.Command{
		Use:   "verify FOLDER|FILE|URL",
		Short: `Verify the log of a data folder, an export ("-" for standard input) or a running server`,
		Long: `Verify an audit log. Of a data folder or an export every entry is looked at; of a
running server it is proved that it still holds all that the checkpoint tells of.
Without a checkpoint that was kept elsewhere a log that was cut off, rolled back or
made anew as a whole does not show.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if file != "" {
				if e.kept, err = os.ReadFile(file); err != nil {
					return err
				}
			}
			out := c.OutOrStdout()
			if isURL(args[0]) {
				return f.verifyURL(c.Context(), out, args[0], e)
			}
			if st, err := os.Stat(args[0]); err == nil && st.IsDir() {
				f.cfg.Data = args[0]
				return f.verifyFolder(c.Context(), out, e)
			}
			return verifyFile(c.InOrStdin(), out, args[0], e)
		},
	}
	f.add(c)
	c.Flags().StringVar(&file, "checkpoint", "", "file of a checkpoint that was kept elsewhere")
	c.Flags().StringVar(&e.key, "key", "", "the log's public key, as castellan audit checkpoint told it (default: the one that the log itself tells)")
	return c
}

func (f *logFlags) verifyFolder(ctx context.Context, out io.Writer, e expect) error {
	return app.ReadAudit(ctx, f.cfg, func(l *audit.Log) error {
		key, err := l.Key(ctx)
		if err != nil {
			return err
		}
		if err := e.pinned(key); err != nil {
			return err
		}
		var kept []audit.Checkpoint
		if e.kept != nil {
			c, err := audit.ParseCheckpoint(e.kept, key)
			if err != nil {
				return err
			}
			kept = append(kept, c)
		}
		n, err := l.Verify(ctx, kept...)
		if err != nil {
			return err
		}
		return e.tell(out, int64(n), key)
	})
}

func verifyFile(in io.Reader, out io.Writer, name string, e expect) error {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	var kept [][]byte
	if e.kept != nil {
		kept = append(kept, e.kept)
	}
	c, key, err := audit.VerifyExport(in, e.key, kept...)
	if err != nil {
		return err
	}
	return e.tell(out, c.N, key)
}

func (f *logFlags) verifyURL(ctx context.Context, out io.Writer, base string, e expect) error {
	if e.kept == nil {
		return errors.New("a running server is held against a checkpoint that was kept: name its file with --checkpoint")
	}
	told, err := f.get(ctx, base, "/audit/key")
	if err != nil {
		return err
	}
	key := strings.TrimSpace(string(told))
	if err := e.pinned(key); err != nil {
		return err
	}
	kept, err := audit.ParseCheckpoint(e.kept, key)
	if err != nil {
		return err
	}
	proof, err := f.get(ctx, base, fmt.Sprintf("/audit/growth?old=%d", kept.N))
	if err != nil {
		return fmt.Errorf("the log does not prove that it holds the checkpoint's %d entries: %w", kept.N, err)
	}
	now, err := audit.CheckGrowth(kept, proof, key)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%d entries, which begin with the checkpoint's %d; signed by %s\n", now.N, kept.N, key)
	return err
}

func (e expect) tell(out io.Writer, n int64, key string) error {
	against := "; no checkpoint was given, so a log that was cut off or rolled back does not show"
	if e.kept != nil {
		against = ", with all that the checkpoint tells of"
	}
	_, err := fmt.Fprintf(out, "%d entries, unbroken%s; the key is %s\n", n, against, key)
	return err
}

func checkpointAudit() *cobra.Command {
	var f logFlags
	c := &cobra.Command{
		Use:   "checkpoint FOLDER|URL",
		Short: "Print a signed checkpoint, to be kept elsewhere, and the key to pin",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			var signed, key []byte
			if isURL(args[0]) {
				if signed, err = f.get(c.Context(), args[0], "/audit/checkpoint"); err == nil {
					key, err = f.get(c.Context(), args[0], "/audit/key")
				}
			} else {
				f.cfg.Data = args[0]
				err = app.ReadAudit(c.Context(), f.cfg, func(l *audit.Log) error {
					k, err := l.Key(c.Context())
					if err != nil {
						return err
					}
					key = []byte(k)
					signed, err = l.Checkpoint(c.Context())
					return err
				})
			}
			if err != nil {
				return err
			}
			name := strings.TrimSpace(string(key))
			if _, err := audit.ParseCheckpoint(signed, name); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "signed by %s (pin it with --key)\n", name)
			_, err = c.OutOrStdout().Write(signed)
			return err
		},
	}
	f.add(c)
	return c
}

func exportAudit() *cobra.Command {
	var f logFlags
	c := &cobra.Command{
		Use:   "export FILE",
		Short: "Write the log of a data folder to a new file, one JSON object a line, with a signed checkpoint",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			return app.ReadAudit(c.Context(), f.cfg, func(l *audit.Log) (err error) {
				out, err := os.OpenFile(args[0], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
				if err != nil {
					return err
				}
				defer func() {
					if err = errors.Join(err, out.Close()); err != nil {
						_ = os.Remove(args[0]) // half an export is none
					}
				}()
				return l.Export(c.Context(), out)
			})
		},
	}
	f.add(c)
	c.Flags().StringVar(&f.cfg.Data, "data", "", "data folder (default $XDG_DATA_HOME/castellan)")
	return c
}
