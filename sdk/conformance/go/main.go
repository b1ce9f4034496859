// The guest of the suite in Go: `how` in the data says what to do.
package main

import (
	"strings"

	"evoke"
)

func lookUp(table map[string][]string) string { return table["missing"][3] }

func main() { evoke.Handle(handle) }

func handle(event evoke.Event) error {
	how, found := event.Extensions["how"]
	if !found {
		var request struct{ How string }
		if err := event.JSON(&request); err != nil {
			return err
		}
		how = request.How
	}
	switch how {
	case "echo":
		options := []evoke.Option{evoke.Subject(event.Subject)}
		for name, value := range event.Extensions {
			options = append(options, evoke.Attribute(name, value))
		}
		return evoke.Publish("c.echo", event.Data, options...)
	case "bytes":
		return evoke.Publish("c.bytes", event.Data, evoke.ContentType("application/octet-stream"))
	case "order":
		for n := 0; n < 5; n++ {
			if err := evoke.Publish("c.order", n); err != nil {
				return err
			}
		}
	case "reject":
		return evoke.Reject("not today: grün 😀")
	case "retry":
		return evoke.Retry("later")
	case "throw":
		lookUp(nil)
	case "undo":
		if err := evoke.Publish("c.undo", 1); err != nil {
			return err
		}
		return evoke.Retry("undone")
	case "refused":
		return evoke.Publish("other.type", 1)
	case "spin":
		for {
		}
	case "config":
		values := map[string]any{}
		for _, name := range []string{"SET", "UNSET", "SECRET"} {
			value, found := evoke.Config(name)
			if values[strings.ToLower(name)] = value; !found {
				values[strings.ToLower(name)] = nil
			}
		}
		return evoke.Publish("c.config", values)
	case "big":
		return evoke.Publish("c.big", strings.Repeat("ü", 300_000))
	case "memory":
		// More than the first area of Go's heap, so that its pages and those of the host come close.
		var kept [][]byte
		for n := 0; n < 24; n++ {
			block := make([]byte, 1<<20)
			for at := range block {
				block[at] = byte(n)
			}
			kept = append(kept, block)
			evoke.Info("block %d", n)
		}
		for n, block := range kept {
			for _, value := range block {
				if value != byte(n) {
					return evoke.Reject("block %d is damaged", n)
				}
			}
		}
		return evoke.Reject("all blocks are whole")
	case "log":
		evoke.Info("grün 😀")
		evoke.Warn("careful")
		evoke.Error("wrong")
	}
	return nil
}
