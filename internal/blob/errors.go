package blob

import (
	"errors"
	"fmt"
	"net/http"
	"syscall"

	"castellan/internal/arm"
)

// fail is an error with Azure's code and status for it.
func fail(status int, code arm.Code, format string, args ...any) error {
	return &arm.Error{Code: code, Status: status, Message: fmt.Sprintf(format, args...)}
}

func badHeader(name, value, want string) error {
	return fail(http.StatusBadRequest, "InvalidHeaderValue", "The header %s is %q; it must be %s.", name, value, want)
}

func badQuery(name, value, want string) error {
	return fail(http.StatusBadRequest, "InvalidQueryParameterValue", "The query parameter %s is %q; it must be %s.", name, value, want)
}

func unsupportedHeader(name string) error {
	return fail(http.StatusBadRequest, "UnsupportedHeader", "The header %s asks for something that this installation does not do.", name)
}

func noAccount(name string) error {
	return fail(http.StatusNotFound, "ResourceNotFound", "There is no storage account %q.", name)
}

func noContainer(name string) error {
	return fail(http.StatusNotFound, "ContainerNotFound", "The specified container %q does not exist.", name)
}

func noBlob() error {
	return fail(http.StatusNotFound, "BlobNotFound", "The specified blob does not exist.")
}

func unmet() error {
	return fail(http.StatusPreconditionFailed, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met.")
}

func unauthentic(why string) error {
	return fail(http.StatusForbidden, "AuthenticationFailed", "Server failed to authenticate the request: %s.", why)
}

// onDisk is what became of a write to a file: a full disk is told as that.
func onDisk(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &arm.Error{Code: "InsufficientStorage", Status: http.StatusInsufficientStorage, Message: "The disk that keeps the blobs is full.", Err: err}
	}
	return err
}

func notModified() error {
	return fail(http.StatusNotModified, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met.")
}
