//go:build !wasip1 || !go1.27 || go1.28

package snapshot

// Warm does nothing, because there is no snapshot with this version of Go, or on this system.
func Warm(func()) {}
