// Package export_evoke_function_handler has what the generated exports call.
package export_evoke_function_handler

import (
	types "evoke/internal/bindings/imports/evoke_function_types"
	wit "evoke/internal/wit/types"
)

// Function is the function. The package evoke sets it.
var Function func(types.Event, types.Delivery) wit.Result[wit.Unit, types.Failure]

// Handle calls the function.
func Handle(event types.Event, delivery types.Delivery) wit.Result[wit.Unit, types.Failure] {
	return Function(event, delivery)
}
