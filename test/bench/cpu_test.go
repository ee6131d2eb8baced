package bench

import (
	"syscall"
	"time"
)

// cpu is the processor time that this process took so far. Other programs on the
// machine change it far less than the time that a clock shows.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
