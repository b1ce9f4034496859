package evoke

import (
	"fmt"
	"os"
	"strings"
)

// The level of a line on stderr, as in sd-daemon(3).
const (
	levelError = "<3>"
	levelWarn  = "<4>"
	levelInfo  = "<6>"
	levelDebug = "<7>"
)

// Debug logs a line for developers.
func Debug(format string, args ...any) { log(levelDebug, format, args) }

// Info logs a line.
func Info(format string, args ...any) { log(levelInfo, format, args) }

// Warn logs a warning.
func Warn(format string, args ...any) { log(levelWarn, format, args) }

// Error logs an error. It does not end the attempt.
func Error(format string, args ...any) { log(levelError, format, args) }

func log(level, format string, args []any) {
	text := fmt.Sprintf(format, args...)
	var lines strings.Builder
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		lines.WriteString(level)
		lines.WriteString(line)
		lines.WriteByte('\n')
	}
	os.Stderr.WriteString(lines.String())
}
