package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
	"github.com/ncruces/go-sqlite3/vfs/adiantum"
)

// ErrReading means that a reader still needs what is to be shredded.
var ErrReading = errors.New("store: something still reads what was deleted; try again")

// Shred overwrites on disk what was deleted before: freed places in pages are
// zeroed as they are freed (secure_delete), all pages go from the log to their
// places, and the log is overwritten and cut. It is ErrReading while an old
// snapshot is read. What a file system or a disk keeps of overwritten blocks is
// theirs.
func (db *DB) Shred(ctx context.Context) error {
	c, err := db.write.Conn(ctx)
	if err != nil {
		return fmt.Errorf("shredding: %w", err)
	}
	defer c.Close()
	// Readers are not waited for: all writes would wait too.
	if _, err := c.ExecContext(ctx, "PRAGMA busy_timeout=0"); err != nil {
		return fmt.Errorf("shredding: %w", err)
	}
	var busy, log, done int
	err = c.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &done)
	_, back := c.ExecContext(context.WithoutCancel(ctx), "PRAGMA busy_timeout=10000")
	if err = errors.Join(err, back); err != nil {
		return fmt.Errorf("shredding: %w", err)
	}
	if busy != 0 {
		return ErrReading
	}
	return nil
}

// vfsName is how the store's files are read and written: page by page sealed, and
// overwritten before they are given back.
const vfsName = "castellan"

func init() { vfs.Register(vfsName, adiantum.Wrap(shredding{vfs.Find("")}, nil)) }

// shredding overwrites the log before it is cut or removed.
type shredding struct{ vfs.VFS }

func (s shredding) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, out, err := vfsutil.WrapOpenFilename(s.VFS, name, flags)
	if err == nil && flags&vfs.OPEN_WAL != 0 {
		f = overwritten{f}
	}
	return f, out, err
}

func (s shredding) Delete(name string, syncDir bool) error {
	if strings.HasSuffix(name, "-wal") {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err == nil {
			var st os.FileInfo
			if st, err = f.Stat(); err == nil {
				err = zero(f, 0, st.Size())
			}
			err = errors.Join(err, f.Sync(), f.Close())
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return s.VFS.Delete(name, syncDir)
}

type overwritten struct{ vfs.File }

func (f overwritten) Truncate(size int64) error {
	end, err := f.Size()
	if err != nil {
		return err
	}
	if end > size {
		if err := errors.Join(zero(f, size, end), f.Sync(vfs.SYNC_FULL)); err != nil {
			return err
		}
	}
	return f.File.Truncate(size)
}

// zero writes zeros from a place to another.
func zero(w interface {
	WriteAt(p []byte, off int64) (int, error)
}, from, to int64) error {
	zeros := make([]byte, 64<<10)
	for from < to {
		n := min(int64(len(zeros)), to-from)
		if _, err := w.WriteAt(zeros[:n], from); err != nil {
			return err
		}
		from += n
	}
	return nil
}
