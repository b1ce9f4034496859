//go:build wasip1 && go1.27 && !go1.28

// This file uses internal parts of Go's runtime, so it is for the versions of Go that it was tested with. With other
// versions, each attempt starts the program.

package snapshot

import (
	"math"
	"os"
	"runtime/debug"
	"strings"
	"unsafe"
)

var warm []func()

// Warm adds a function that runs before the snapshot, for example to fill caches. It must not call the host.
func Warm(function func()) { warm = append(warm, function) }

// reserved is the size of the memory for the host's adapter of WASI 0.1, in bytes: a page for its state and one for its
// stack. The garbage collector must not know this memory.
const reserved = 2 * 64 << 10

// before runs after the start of the program and before the snapshot. It returns the address of the reserved memory, or 0 if
// there can be no snapshot.
//
//go:wasmexport evoke-before-snapshot
func before() uintptr {
	if !random.isInit {
		return 0
	}
	for _, function := range warm {
		function()
	}
	return uintptr(sbrk(reserved))
}

// after runs in each attempt before anything else of the program.
//
//go:wasmexport evoke-after-snapshot
func after() {
	random.isInit = false
	seedRandom()
	seedThread(&thread)
	readEnvironment()
	if len(environment) > 0 {
		applyEnvironment()
	}
}

// applyEnvironment passes the variables on to the package syscall, which has copied the empty environment, and applies GOGC and
// GOMEMLIMIT, which the runtime reads only when it starts. What an init function has set has precedence, as in a start.
func applyEnvironment() {
	for _, variable := range environment {
		name, value, _ := strings.Cut(variable, "=")
		os.Setenv(name, value)
		switch name {
		case "GOGC":
			if set := debug.SetGCPercent(int(readGOGC())); set != 100 {
				debug.SetGCPercent(set)
			}
		case "GOMEMLIMIT":
			if debug.SetMemoryLimit(-1) == math.MaxInt64 {
				debug.SetMemoryLimit(readGOMEMLIMIT())
			}
		}
	}
}

// Of runtime/rand.go. The fields before isInit are a lock, a seed of 32 bytes and the state of internal/chacha8rand.
//
//go:linkname random runtime.globalRand
var random struct {
	lock  uintptr
	seed  [32]byte
	state struct {
		words  [32 + 4]uint64
		counts [3]uint32
	}
	isInit bool
}

//go:linkname seedRandom runtime.randinit
func seedRandom()

// The only thread of a program in WebAssembly.
//
//go:linkname thread runtime.m0
var thread byte

//go:linkname seedThread runtime.mrandinit
func seedThread(*byte)

//go:linkname environment runtime.envs
var environment []string

//go:linkname readEnvironment runtime.goenvs
func readEnvironment()

//go:linkname sbrk runtime.sbrk
func sbrk(uintptr) unsafe.Pointer

//go:linkname readGOGC runtime.readGOGC
func readGOGC() int32

//go:linkname readGOMEMLIMIT runtime.readGOMEMLIMIT
func readGOMEMLIMIT() int64
