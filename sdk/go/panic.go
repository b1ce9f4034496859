package evoke

import (
	"fmt"
	"path"
	"runtime"
	"strings"
)

// reportPanic logs the stack, and returns the error of the attempt, which names the line.
func reportPanic(cause any) error {
	message := fmt.Sprintf("panic: %v", cause)
	log, at := message, ""
	for index, frame := range ownFrames() {
		place := fmt.Sprintf("%s:%d in %s", path.Base(frame.File), frame.Line, frame.Function)
		if index == 0 {
			at = ", at " + place
		}
		log += "\n  at " + place
	}
	Error("%s", log)
	return Retry("%s", message+at)
}

// ownFrames returns the frames of the function, without those of Go's runtime, of this package and of exports.
func ownFrames() []runtime.Frame {
	callers := make([]uintptr, 64)
	frames := runtime.CallersFrames(callers[:runtime.Callers(2, callers)])
	var own []runtime.Frame
	for {
		frame, more := frames.Next()
		isOther := false
		for _, prefix := range []string{"runtime.", "evoke.", "evoke/internal/", "evoke:"} {
			isOther = isOther || strings.HasPrefix(frame.Function, prefix)
		}
		if frame.Function != "" && !isOther {
			own = append(own, frame)
		}
		if !more {
			return own
		}
	}
}
