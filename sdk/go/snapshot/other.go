//go:build !go1.27 || go1.28

package snapshot

// Warm does nothing, because there is no snapshot with this version of Go.
func Warm(func()) {}
