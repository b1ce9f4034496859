package evoke

import (
	"fmt"

	host "evoke/internal/bindings/imports/wasi_logging_logging"
)

// Debug logs a line for developers.
func Debug(format string, args ...any) { log(host.Level_Debug, format, args) }

// Info logs a line. What the function prints to stdout is logged, too.
func Info(format string, args ...any) { log(host.Level_Info, format, args) }

// Warn logs a warning.
func Warn(format string, args ...any) { log(host.Level_Warn, format, args) }

// Error logs an error. It does not end the attempt.
func Error(format string, args ...any) { log(host.Level_Error, format, args) }

func log(level host.Level, format string, args []any) {
	host.Log(level, "", fmt.Sprintf(format, args...))
}
