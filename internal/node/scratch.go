package node

import "errors"

// ErrPlain says that a file system encrypts no folder.
var ErrPlain = errors.New("the file system has no encryption of folders")
