package evoke

import (
	"fmt"
	"time"
)

// Failure is an error that decides what becomes of the event.
type Failure struct {
	message  string
	isReject bool
	after    time.Duration
}

func (failure *Failure) Error() string { return failure.message }

// Reject returns an error for an event that the function can never handle: the event becomes a dead letter.
func Reject(format string, args ...any) error {
	return &Failure{message: fmt.Sprintf(format, args...), isReject: true}
}

// Retry returns an error after which the function's policy tries again. Every error that is no Failure does the same.
func Retry(format string, args ...any) error {
	return &Failure{message: fmt.Sprintf(format, args...)}
}

// RetryAfter is Retry, and sets the shortest delay before the next attempt.
func RetryAfter(delay time.Duration, format string, args ...any) error {
	return &Failure{message: fmt.Sprintf(format, args...), after: delay}
}
