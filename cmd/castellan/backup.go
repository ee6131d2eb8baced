package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"castellan/internal/app"
	"castellan/internal/backup"

	"github.com/spf13/cobra"
)

// rootKeyHelp says what --root-key may be.
const rootKeyHelp = "file of the root key, or URI of the token's key that wraps it (default: the data folder's path with .root-key added)"

// rootFlags name the data folder and what its root key is made of.
func rootFlags(c *cobra.Command, cfg *app.Config) {
	fl := c.Flags()
	fl.StringVar(&cfg.Data, "data", "", "data folder (default $XDG_DATA_HOME/castellan)")
	fl.StringVar(&cfg.Suffix, "suffix", "", "base of all host names, if castellan up has one")
	fl.StringVar(&cfg.RootKey, "root-key", "", rootKeyHelp)
	fl.StringVar(&cfg.PassphraseFile, "passphrase-file", "", "file with the passphrase that the root key is made of")
}

func fromFlag(c *cobra.Command, from *string) {
	c.Flags().StringVar(from, "from", "", "backup folder")
	_ = c.MarkFlagRequired("from") // it was just made
}

// backupCommand is castellan backup.
func backupCommand() *cobra.Command {
	var cfg app.Config
	var to string
	var keep int
	c := &cobra.Command{
		Use:   "backup",
		Short: "Copy the whole data folder as it is at one moment; a server may run on it",
		Long: `Add a point to a backup folder: the store and every blob as they are at one moment.
Only what the folder does not have yet is copied. All of it stays sealed; the root
key is not among it, and without the root key (or its passphrase) no backup opens:
keep a copy of it elsewhere.

  castellan backup --data DIR --to FOLDER
  castellan backup --data DIR --to FOLDER --keep 30
  castellan backup list --data DIR --from FOLDER
  castellan backup check --data DIR --from FOLDER`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := app.BackupFolder(c.Context(), cfg, to)
			if err != nil {
				return err
			}
			data, err := app.DataFolder(cfg.Data)
			if err != nil {
				return err
			}
			f.Progress = progress(c.ErrOrStderr(), "copied")
			p, err := f.Make(c.Context(), data)
			if err != nil {
				return err
			}
			gone, err := f.Keep(keep)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "backup %s: %d files, %d bytes; %d older ones removed\n", p.Name, p.Files, p.Bytes, gone)
			return err
		},
	}
	rootFlags(c, &cfg)
	c.Flags().StringVar(&to, "to", "", "backup folder, made if it is not there")
	c.Flags().IntVar(&keep, "keep", 0, "remove all backups but so many, the newest; 0 keeps all")
	_ = c.MarkFlagRequired("to") // it was just made
	c.AddCommand(backupList(), backupCheck())
	return c
}

// progress tells how far it is, now and then.
func progress(w io.Writer, did string) func(done, all int) {
	last := time.Now()
	return func(done, all int) {
		if time.Since(last) > 2*time.Second {
			last = time.Now()
			fmt.Fprintf(w, "%s %d of %d files\n", did, done, all)
		}
	}
}

func backupList() *cobra.Command {
	var cfg app.Config
	var from string
	c := &cobra.Command{
		Use: "list", Short: "List the backups in a folder", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := app.RestoreFolder(c.Context(), cfg, from)
			if err != nil {
				return err
			}
			all, err := f.Points()
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "TIME\tFILES\tBYTES")
			for _, p := range all {
				fmt.Fprintf(w, "%s\t%d\t%d\n", p.At.Format(time.RFC3339Nano), p.Files, p.Bytes)
			}
			return w.Flush()
		},
	}
	rootFlags(c, &cfg)
	fromFlag(c, &from)
	return c
}

func backupCheck() *cobra.Command {
	var cfg app.Config
	var from, at string
	c := &cobra.Command{
		Use: "check", Short: "Read a backup whole, and say whether it is as it was made", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, p, err := point(c.Context(), cfg, from, at)
			if err != nil {
				return err
			}
			f.Progress = progress(c.ErrOrStderr(), "checked")
			if err := f.Check(c.Context(), p); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "backup %s is whole: %d files, %d bytes\n", p.Name, p.Files, p.Bytes)
			return err
		},
	}
	rootFlags(c, &cfg)
	fromFlag(c, &from)
	c.Flags().StringVar(&at, "at", "", "the last backup before this time, such as 2026-11-27T09:00:00Z (default: the newest)")
	return c
}

// point is the backup that was made last before a time.
func point(ctx context.Context, cfg app.Config, from, at string) (*backup.Folder, backup.Point, error) {
	var t time.Time
	if at != "" {
		var err error
		if t, err = time.Parse(time.RFC3339, at); err != nil {
			return nil, backup.Point{}, fmt.Errorf("--at is %q; it must be a time such as 2026-11-27T09:00:00Z", at)
		}
	}
	f, err := app.RestoreFolder(ctx, cfg, from)
	if err != nil {
		return nil, backup.Point{}, err
	}
	p, err := f.At(t)
	return f, p, err
}

// restoreCommand is castellan restore.
func restoreCommand() *cobra.Command {
	var cfg app.Config
	var from, at string
	c := &cobra.Command{
		Use:   "restore",
		Short: "Make a data folder of a backup",
		Long: `Make a new data folder of a backup, checking every byte, and open it once. The root
key must be there, as for castellan up.

What was taken away since the backup is back: role assignments, passwords, account
keys, sign-ins that were revoked. A witness of the audit log, and a sink that had
more of it, show that time was turned back; the restored log says so too.

  castellan restore --from FOLDER --data NEW-DIR --root-key FILE
  castellan restore --from FOLDER --at 2026-11-27T09:00:00Z --data NEW-DIR --root-key FILE`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, p, err := point(c.Context(), cfg, from, at)
			if err != nil {
				return err
			}
			f.Progress = progress(c.ErrOrStderr(), "restored")
			if err := app.Restore(c.Context(), cfg, f, p); err != nil {
				return err
			}
			data, err := app.DataFolder(cfg.Data)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s is as it was at %s\n", filepath.Clean(data), p.At.Format(time.RFC3339Nano))
			return err
		},
	}
	rootFlags(c, &cfg)
	fromFlag(c, &from)
	c.Flags().StringVar(&at, "at", "", "the last backup before this time, such as 2026-11-27T09:00:00Z (default: the newest)")
	return c
}
