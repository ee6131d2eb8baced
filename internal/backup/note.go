package backup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// notes is the file in a data folder that tells which backups were made of it, a
// line each: whoever destroys something there must know where it may be still.
const notes = "backups.jsonl"

// Note is one backup that was made of a data folder.
type Note struct {
	At     time.Time `json:"at"`
	Folder string    `json:"folder"`
	Point  string    `json:"point"`
}

// note has the data folder know of a point. Which folder it is is told by its
// absolute path.
func (f *Folder) note(data string, p Point) (err error) {
	n := Note{At: p.At, Point: p.Name}
	if n.Folder, err = filepath.Abs(f.dir); err != nil {
		return err
	}
	line, err := json.Marshal(n)
	if err != nil {
		return err
	}
	w, err := os.OpenFile(filepath.Join(data, notes), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("noting the backup in the data folder: %w", err)
	}
	_, err = w.Write(append(line, '\n'))
	return errors.Join(err, w.Sync(), w.Close())
}

// Notes are the backups that were made of a data folder and may be there still: one
// is left out if its folder is in reach and has it no more.
func Notes(data string) (out []Note, err error) {
	b, err := os.ReadFile(filepath.Join(data, notes))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(b) {
		var n Note
		if err := json.Unmarshal(line, &n); err != nil {
			return nil, fmt.Errorf("reading %s: %w", notes, err)
		}
		if _, err := os.Stat(filepath.Join(n.Folder, points)); err == nil {
			if _, err := os.Stat(filepath.Join(n.Folder, points, n.Point)); errors.Is(err, fs.ErrNotExist) {
				continue
			}
		}
		out = append(out, n)
	}
	return out, nil
}
