package ml

// Status is where a job is, as Azure spells it.
type Status string

// The statuses of a job, in the order in which it passes them.
const (
	NotStarted      Status = "NotStarted"
	Queued          Status = "Queued"
	Preparing       Status = "Preparing"
	Running         Status = "Running"
	Finalizing      Status = "Finalizing"
	CancelRequested Status = "CancelRequested"
	Completed       Status = "Completed"
	Failed          Status = "Failed"
	Canceled        Status = "Canceled"
)

// Over reports whether a job with this status will never have another.
func (s Status) Over() bool { return s == Completed || s == Failed || s == Canceled }
