//go:build linux && (amd64 || arm64)

package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Encrypt gives an empty folder a fresh key of its own, under which the kernel keeps
// all that will lie in it, names too (fscrypt, policy version 2: AES-256-XTS and
// AES-256-CTS). The key is nowhere but in the kernel's memory: once forget was called
// nothing opens what is left on the disk. It takes no rights beyond the folder, but
// a file system that has the feature (ext4 with -O encrypt, f2fs); others are ErrPlain.
func Encrypt(dir string) (forget func() error, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("opening a folder to encrypt: %w", err)
	}
	defer f.Close()
	key := struct {
		unix.FscryptAddKeyArg
		raw [unix.FSCRYPT_MAX_KEY_SIZE]byte
	}{}
	defer clear(key.raw[:])
	_, _ = rand.Read(key.raw[:]) // never fails
	key.Raw_size = uint32(len(key.raw))
	key.Key_spec.Type = unix.FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER
	if err := ioctl(f, unix.FS_IOC_ADD_ENCRYPTION_KEY, unsafe.Pointer(&key)); err != nil {
		if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
			return nil, fmt.Errorf("%w: %w", ErrPlain, err)
		}
		return nil, fmt.Errorf("giving a key to the file system: %w", err)
	}
	policy := unix.FscryptPolicyV2{
		Version: unix.FSCRYPT_POLICY_V2, Contents_encryption_mode: unix.FSCRYPT_MODE_AES_256_XTS,
		Filenames_encryption_mode: unix.FSCRYPT_MODE_AES_256_CTS, Flags: unix.FSCRYPT_POLICY_FLAGS_PAD_32,
	}
	copy(policy.Master_key_identifier[:], key.Key_spec.U[:])
	if err := ioctl(f, unix.FS_IOC_SET_ENCRYPTION_POLICY, unsafe.Pointer(&policy)); err != nil {
		return nil, errors.Join(fmt.Errorf("setting a folder's encryption: %w", err), forgetKey(dir, policy.Master_key_identifier))
	}
	return func() error { return forgetKey(dir, policy.Master_key_identifier) }, nil
}

// ForgetKey forgets the key of a folder that Encrypt of another process was given, and
// does nothing for any other folder.
func ForgetKey(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return nil //nolint:nilerr // what can't be opened has no key that is known
	}
	var got unix.FscryptGetPolicyExArg
	policy := (*unix.FscryptPolicyV2)(unsafe.Pointer(&got.Policy))
	got.Size = uint64(unsafe.Sizeof(*policy))
	err = ioctl(f, unix.FS_IOC_GET_ENCRYPTION_POLICY_EX, unsafe.Pointer(&got))
	_ = f.Close() // it was read
	if err != nil || policy.Version != unix.FSCRYPT_POLICY_V2 {
		return nil //nolint:nilerr // it is not encrypted
	}
	err = forgetKey(dir, policy.Master_key_identifier)
	if errors.Is(err, unix.ENOKEY) {
		return nil
	}
	return err
}

// patience is how long the kernel may take to let go of a sandbox that has ended: its
// mounts are undone a little later than its last process.
const patience = 10 * time.Second

// forgetKey takes a key from the file system that dir lies in. While something is
// still open under it the kernel keeps a part of it, so it is asked again, and what
// stays open is an error.
func forgetKey(dir string, identifier [16]byte) error {
	f, err := os.Open(filepath.Dir(filepath.Clean(dir))) // which is in the same file system, and not kept busy by being open
	if err != nil {
		return fmt.Errorf("opening a folder to forget its key: %w", err)
	}
	defer f.Close()
	var arg unix.FscryptRemoveKeyArg
	arg.Key_spec.Type = unix.FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER
	copy(arg.Key_spec.U[:], identifier[:])
	until := time.Now().Add(patience)
	for again := false; ; again = true {
		err := ioctl(f, unix.FS_IOC_REMOVE_ENCRYPTION_KEY, unsafe.Pointer(&arg))
		if again && errors.Is(err, unix.ENOKEY) {
			return nil // the last file was closed meanwhile, and the rest of the key went with it
		}
		if err != nil {
			return fmt.Errorf("forgetting the key of a folder: %w", err)
		}
		if arg.Removal_status_flags == 0 {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("the key of a folder is still in use (flags %#x)", arg.Removal_status_flags)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func ioctl(f *os.File, request uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// InMemory reports whether a folder lies in memory, not on a disk.
func InMemory(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && (st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC)
}
