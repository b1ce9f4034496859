// The guest of the suite in Go: `how` in the data says what to do.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"io"
	math "math/rand/v2"
	"sort"
	"strings"
	"sync"
	"time"

	"evoke"
	"evoke/http"
	"evoke/nethttp"
	"evoke/state"
)

func lookUp(table map[string][]string) string { return table["missing"][3] }

func main() { evoke.Handle(handle) }

type request struct {
	How, Path string
	Paths     []string
}

func handle(event evoke.Event, delivery evoke.Delivery) error {
	var asked request
	if how, found := event.Extensions["how"]; found {
		asked.How = how
	} else if err := event.JSON(&asked); err != nil {
		return err
	}
	switch asked.How {
	case "echo":
		options := []evoke.Option{evoke.Subject(event.Subject)}
		for name, value := range event.Extensions {
			options = append(options, evoke.Attribute(name, value))
		}
		return evoke.Publish("c.echo", event.Data, options...)
	case "bytes":
		return evoke.Publish("c.bytes", event.Data, evoke.ContentType("application/octet-stream"))
	case "order":
		for n := range 5 {
			if err := evoke.Publish("c.order", n); err != nil {
				return err
			}
		}
	case "reject":
		return evoke.Reject("not today: grün 😀")
	case "retry":
		return evoke.RetryAfter(1500*time.Millisecond, "later")
	case "throw":
		lookUp(nil)
	case "deadlock":
		<-make(chan int)
	case "undo":
		if err := evoke.Publish("c.undo", 1); err != nil {
			return err
		}
		if err := state.Set("undo", 1); err != nil {
			return err
		}
		return evoke.Retry("undone")
	case "refused":
		return evoke.Publish("other.type", 1)
	case "spin":
		for {
		}
	case "state":
		return onState()
	case "shared":
		seen, err := state.Shared.Increment("seen", 1)
		if err != nil {
			return err
		}
		return evoke.Publish("c.shared", seen)
	case "config":
		values := map[string]any{}
		for _, name := range []string{"SET", "UNSET", "SECRET"} {
			value, found := evoke.Config(name)
			if values[strings.ToLower(name)] = value; !found {
				values[strings.ToLower(name)] = nil
			}
		}
		return evoke.Publish("c.config", values)
	case "http":
		return onHTTP()
	case "http status":
		response, err := http.Get(url(asked.Path))
		if err != nil {
			return err
		}
		_, err = response.OK()
		return err
	case "outside":
		uuid := make([]byte, 16)
		rand.Read(uuid)
		random := []any{math.Float64(), hex.EncodeToString(uuid)}
		return evoke.Publish("c.outside", map[string]any{"wall": time.Now().UnixMilli(), "random": random})
	case "race":
		return race(asked.Paths)
	case "http origin":
		_, err := http.Get("http://elsewhere.example/")
		return err
	case "net/http":
		response := must(nethttp.Client.Post(url("/echo"), "application/json", strings.NewReader("[1]")))
		body := must(io.ReadAll(response.Body))
		return evoke.Publish("c.net", []any{response.StatusCode, response.Header.Get("Retry-After"), json.RawMessage(body)})
	case "together":
		return together()
	case "big":
		return evoke.Publish("c.big", strings.Repeat("ü", 300_000))
	case "memory":
		return onMemory()
	case "log":
		evoke.Info("grün 😀")
		evoke.Warn("careful")
		evoke.Error("wrong")
	case "delivery":
		return evoke.Publish("c.delivery", map[string]any{
			"id": delivery.ID, "attempt": delivery.Attempt, "replay": delivery.Replay, "trigger": delivery.Trigger,
		})
	}
	return nil
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func onState() error {
	var text string
	var before any
	if err := state.Set("text", "grün 😀"); err != nil {
		return err
	}
	if err := state.SetBytes("raw", []byte{0, 255}); err != nil {
		return err
	}
	count := must(state.Increment("count", 3))
	must(state.Update("list", func(list []int) []int { return append(list, 1) }))
	if err := state.Delete("gone"); err != nil {
		return err
	}
	keys := must(state.Keys())
	sort.Strings(keys)
	must(state.Get("text", &text))
	must(state.Get("before", &before))
	raw, _, err := state.GetBytes("raw")
	if err != nil {
		return err
	}
	return evoke.Publish("c.state", map[string]any{
		"count": count, "text": text, "has": must(state.Exists("gone")), "keys": keys, "before": before,
		"raw": []int{int(raw[0]), int(raw[1])},
	})
}

func url(path string) string {
	url, _ := evoke.Config("URL")
	return url + path
}

func onHTTP() error {
	var sent json.RawMessage
	var second struct {
		Size int
		Key  string
	}
	if err := must(http.Post(url("/echo?n=1"), map[string]string{"text": "grün 😀"})).JSON(&sent); err != nil {
		return err
	}
	put := http.Request{Method: "PUT", URL: url("/echo"), Body: []byte(strings.Repeat("x", 10_000))}
	if err := must(http.Do(&put)).JSON(&second); err != nil {
		return err
	}
	missing := must(http.Get(url("/missing"))).Status
	return evoke.Publish("c.http", []any{sent, second.Size, second.Key, missing})
}

// together sends two requests, each of which the server holds until it has both.
func together() error {
	var group sync.WaitGroup
	var statuses [2]int
	for index := range statuses {
		group.Go(func() { statuses[index] = must(http.Get(url("/together"))).Status })
	}
	group.Wait()
	return evoke.Publish("c.together", statuses)
}

// race sends requests at the same time, and publishes the order in which they end.
func race(paths []string) error {
	var group sync.WaitGroup
	var order [][]any
	for _, path := range paths {
		group.Go(func() {
			response := must(http.Get(url(path)))
			order = append(order, []any{path, len(response.Body)})
		})
	}
	group.Wait()
	return evoke.Publish("c.race", order)
}

// onMemory fills more than the first area of Go's heap, so that the garbage collector runs while the host passes data.
func onMemory() error {
	var kept [][]byte
	for n := range 24 {
		block := make([]byte, 1<<20)
		for at := range block {
			block[at] = byte(n)
		}
		kept = append(kept, block)
		if err := state.SetBytes("block", block[:1<<15]); err != nil {
			return err
		}
		for range 20 {
			stored, _, err := state.GetBytes("block")
			if err != nil || len(stored) != 1<<15 || stored[n] != byte(n) {
				return evoke.Reject("the stored block %d is damaged: %v", n, err)
			}
		}
	}
	for n, block := range kept {
		for _, value := range block {
			if value != byte(n) {
				return evoke.Reject("block %d is damaged", n)
			}
		}
	}
	return evoke.Reject("all blocks are whole")
}
