// Package evoke is for writing functions for Evoke in Go. A function is a program for GOOS=wasip1 GOARCH=wasm:
//
//	func main() { evoke.Handle(handle) }
//
//	func handle(event evoke.Event) error {
//		var order struct{ Customer string; Total float64 }
//		if err := event.JSON(&order); err != nil {
//			return err
//		}
//		if order.Total <= 0 {
//			return evoke.Reject("the total must be more than 0")
//		}
//		evoke.Info("%s pays %g", order.Customer, order.Total)
//		return evoke.Publish("payment.taken", order, evoke.Subject(order.Customer))
//	}
//
// The attempt succeeds when handle returns nil. Only then do the events that it published take effect, all of them or
// none. Reject and Retry choose how it fails; any other error is a retry by the function's policy, and so is a panic,
// whose stack is in the logs.
//
// A program has configuration, secrets, logs and events. State and HTTP requests need a component that imports their
// interfaces, which the Go toolchain does not build by itself.
package evoke

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"
)

// Exit codes of sysexits.h: Evoke rejects the event for exit code 65 and tries again for any other one.
const (
	exitReject = 65
	exitPanic  = 70
	exitRetry  = 75
)

// Failure is an error that decides what becomes of the event.
type Failure struct {
	message string
	reject  bool
}

func (failure *Failure) Error() string { return failure.message }

// Reject returns an error for an event that the function can never handle: the event becomes a dead letter.
func Reject(format string, args ...any) error {
	return &Failure{fmt.Sprintf(format, args...), true}
}

// Retry returns an error after which the function's policy tries again. Every error that is no Failure does the same.
func Retry(format string, args ...any) error {
	return &Failure{fmt.Sprintf(format, args...), false}
}

// Config returns a setting of `allow: { config: … }`, and whether the manifest has it.
func Config(name string) (string, bool) { return os.LookupEnv(name) }

// Secret returns a secret of `allow: { secrets: … }`, and whether the manifest has it.
func Secret(name string) (string, bool) { return os.LookupEnv(name) }

// published has the events until the function returns.
var published = bufio.NewWriterSize(os.Stdout, 64<<10)

// Handle calls the function with the event of this attempt, and exits.
func Handle(handle func(Event) error) {
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		exit(exitRetry, "cannot read the event: "+err.Error())
	}
	event, err := parse(input)
	if err != nil {
		exit(exitReject, "the event is not valid: "+err.Error())
	}
	if err := call(handle, event); err != nil {
		code := exitRetry
		var failure *Failure
		if errors.As(err, &failure) && failure.reject {
			code = exitReject
		}
		exit(code, err.Error())
	}
	if err := published.Flush(); err != nil {
		exit(exitRetry, "cannot publish: "+err.Error())
	}
	os.Exit(0)
}

// call runs the function. A panic ends the program: the stack is logged, and the message names the line.
func call(handle func(Event) error, event Event) error {
	defer func() {
		cause := recover()
		if cause == nil {
			return
		}
		message := fmt.Sprintf("panic: %v", cause)
		for index, frame := range ownFrames() {
			place := fmt.Sprintf("%s:%d in %s", path.Base(frame.File), frame.Line, frame.Function)
			if index == 0 {
				Error("%s", message)
				message += ", at " + place
			}
			Error("  at %s", place)
		}
		exit(exitPanic, message)
	}()
	return handle(event)
}

// ownFrames returns the frames of the function, without those of Go and of this package.
func ownFrames() []runtime.Frame {
	callers := make([]uintptr, 64)
	frames := runtime.CallersFrames(callers[:runtime.Callers(2, callers)])
	var own []runtime.Frame
	for {
		frame, more := frames.Next()
		if frame.Function != "" && !strings.HasPrefix(frame.Function, "runtime.") && !strings.HasPrefix(frame.Function, "evoke.") && frame.Function != "main.main" {
			own = append(own, frame)
		}
		if !more {
			return own
		}
	}
}

// exit ends the program. The last line on stderr is the message of the outcome.
func exit(code int, message string) {
	Warn("%s", strings.Join(strings.Fields(message), " "))
	os.Exit(code)
}
