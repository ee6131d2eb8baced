//go:build !unix

package app

import "errors"

// lockFolder refuses: without a lock, two processes could share a data folder.
func lockFolder(string) (func() error, error) {
	return nil, errors.New("castellan runs on Linux and other Unix systems only")
}
