// Package snapshot lets Evoke start the Go runtime and the packages of a program once, when it compiles the program, and
// not in each attempt. The package evoke imports it. A program without that package, for example a component that exports
// `wasi:http/incoming-handler`, gets the same by
//
//	import _ "evoke/snapshot"
//
// and -ldflags=-checklinkname=0. Other hosts start such a program as usual.
//
// After the snapshot, each attempt gets new random numbers and the environment of its own. Package-level variables and init
// functions see an empty environment, and what they compute is the same in each attempt. GODEBUG and GOTRACEBACK have no
// effect on the runtime.
//
// There is no snapshot, and each attempt starts the program, if the program calls the host while it starts, for example
// because a package reads the time, a configuration value or crypto/rand, or because a garbage collection ends (it reads the
// time). `evoke inspect` says why. Evoke cannot notice a package-level variable that is set from math/rand or hash/maphash:
// its value is the same in each attempt.
package snapshot
