package runtime

import "unsafe"

// This replaces the generator's function, during which the garbage collector can start. The collector reads clocks, but a
// component may not call the host while the host allocates memory in it: the attempt would trap.

//go:linkname sbrk runtime.sbrk
func sbrk(n uintptr) unsafe.Pointer

// While the thread is pinned, no collection starts, and no goroutine helps a collection that runs.
//
//go:linkname procPin runtime.procPin
func procPin() int

//go:linkname procUnpin runtime.procUnpin
func procUnpin()

// The allocator may measure how long it waits for the scavenger; the adapter then returns the time of the last call.
//
//go:wasmimport wasi_snapshot_preview1 adapter_monotonic_clock_set_paused
func pauseClock(paused bool)

// isStarted is true when Go's allocator can be used. The adapter needs memory before that.
var isStarted = false

func init() { isStarted = true }

// cabiRealloc allocates memory for what the host passes.
//
//go:wasmexport cabi_realloc
func cabiRealloc(old unsafe.Pointer, oldSize, align, size uintptr) unsafe.Pointer {
	if old != nil || oldSize != 0 {
		panic("the host enlarges memory")
	}
	if !isStarted {
		start := uintptr(sbrk(size + align - 1))
		return unsafe.Pointer((start + align - 1) &^ (align - 1))
	}
	procPin()
	pauseClock(true)
	pointer := Allocate(&pinner, size, align)
	pauseClock(false)
	procUnpin()
	return pointer
}
