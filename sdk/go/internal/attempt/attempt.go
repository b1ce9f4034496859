// Package attempt has what the packages of the SDK know of the attempt that runs.
package attempt

// Delivery is the id of the delivery.
var Delivery string
