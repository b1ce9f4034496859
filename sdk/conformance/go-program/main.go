// A program in Go without the SDK: it reads the event from stdin, and prints the events to publish.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	var event struct {
		Subject string
		Data    struct{ How string }
	}
	if err := json.NewDecoder(os.Stdin).Decode(&event); err != nil {
		fail(65, err)
	}
	switch event.Data.How {
	case "publish":
		json.NewEncoder(os.Stdout).Encode(map[string]any{"type": "c.program", "data": os.Getenv("SET")})
	case "reject":
		fail(65, "not today: grün 😀")
	case "retry":
		fail(75, "later")
	case "panic":
		panic("no table")
	case "memory":
		// More than the first area of Go's heap, so that its pages and those of the host come close.
		var kept [][]byte
		for n := range 24 {
			block := make([]byte, 1<<20)
			for at := range block {
				block[at] = byte(n)
			}
			kept = append(kept, block)
			fmt.Fprintf(os.Stderr, "<6>block %d\n", n)
		}
		for n, block := range kept {
			for _, value := range block {
				if value != byte(n) {
					fail(65, fmt.Sprintf("block %d is damaged", n))
				}
			}
		}
		fail(65, "all blocks are whole")
	}
}

func fail(code int, message any) {
	fmt.Fprintln(os.Stderr, message)
	os.Exit(code)
}
