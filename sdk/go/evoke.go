// Package evoke is for writing functions for Evoke in Go.
//
//	func main() { evoke.Handle(handle) }
//
//	func handle(event evoke.Event) error {
//		var order struct{ Customer string; Total float64 }
//		if err := event.JSON(&order); err != nil {
//			return err
//		}
//		if order.Total <= 0 {
//			return evoke.Reject("the total must be more than 0")
//		}
//		evoke.Info("%s pays %g", order.Customer, order.Total)
//		return evoke.Publish("payment.taken", order, evoke.Subject(order.Customer))
//	}
//
// The attempt succeeds when handle returns nil. Only then do the events that it published and its state writes take effect,
// all of them or none. Reject and Retry choose how it fails; any other error is a retry by the function's policy, and so is
// a panic, whose stack is in the logs.
//
// The package state is the stored state, and the package http sends requests. Import them only if the function uses them:
// the component then needs the grants of `allow: { state: true }` and `allow: { http: [ORIGIN] }`.
//
// Evoke starts the runtime and the packages of the program when it compiles the function, and each attempt continues from
// there; see the package snapshot.
//
// A function is built as a library of GOOS=wasip1 GOARCH=wasm, with
//
//	go build -buildmode=c-shared -ldflags=-checklinkname=0 -o function.wasm .
package evoke

import (
	"encoding/json"
	"errors"
	"fmt"
	_ "unsafe" // for go:linkname

	"evoke/internal/attempt"
	handler "evoke/internal/bindings/exports/export_evoke_function_handler"
	_ "evoke/internal/bindings/exports/wit_exports"
	types "evoke/internal/bindings/imports/evoke_function_types"
	wit "evoke/internal/wit/types"
	"evoke/snapshot"
)

// handle is the function.
var handle func(Event, Delivery) error

// Handle sets the function that is called with the event of this attempt. Call it in main, which runs at the start of
// each attempt.
func Handle[F func(Event) error | func(Event, Delivery) error](function F) {
	switch function := any(function).(type) {
	case func(Event) error:
		handle = func(event Event, _ Delivery) error { return function(event) }
	case func(Event, Delivery) error:
		handle = function
	}
}

// A library does not run main by itself.
//
//go:linkname programMain main.main
func programMain()

func init() {
	handler.Function = run
	snapshot.Warm(warm)
}

// warm fills the caches that the first use of encoding/json and fmt fills.
func warm() {
	var value struct {
		Text  string
		Other map[string]any
	}
	err := json.Unmarshal([]byte(`{"text":"a","other":{"b":[1,true,null]}}`), &value)
	_, _ = json.Marshal(map[string]string{"text": fmt.Sprintf("%v %s %d", err, value.Text, len(value.Other))})
}

type result = wit.Result[wit.Unit, types.Failure]

// run calls the function, and converts its result.
func run(event types.Event, delivery types.Delivery) result {
	attempt.Delivery = delivery.Id
	err := call(toEvent(event), toDelivery(delivery))
	if err == nil {
		return wit.Ok[wit.Unit, types.Failure](wit.Unit{})
	}
	var failure *Failure
	if errors.As(err, &failure) && failure.isReject {
		return wit.Err[wit.Unit](types.MakeFailureReject(err.Error()))
	}
	retry := types.Retry{Message: err.Error(), AfterMs: wit.None[uint64]()}
	if failure != nil && failure.after > 0 {
		retry.AfterMs = wit.Some(uint64(failure.after.Milliseconds()))
	}
	return wit.Err[wit.Unit](types.MakeFailureRetry(retry))
}

// call runs main and the function. A panic is an error.
func call(event Event, delivery Delivery) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = reportPanic(cause)
		}
	}()
	programMain()
	if handle == nil {
		return Reject("the function's main does not call evoke.Handle")
	}
	return handle(event, delivery)
}
