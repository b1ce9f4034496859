package evoke

import (
	"encoding/json"
	"strings"
	"time"

	types "evoke/internal/bindings/imports/evoke_function_types"
)

// Event is a CloudEvents 1.0 event. Attributes that the event does not have are empty.
type Event struct {
	ID string
	// Source is `/APP/SOURCE`, or `/APP/FUNCTION` if a function published the event.
	Source string
	Type   string
	// Subject is what the event is about.
	Subject string
	// Time is in RFC 3339.
	Time            string
	DataContentType string
	DataSchema      string
	// Extensions has all other attributes by name.
	Extensions map[string]string
	// Data is the payload: JSON text, or other bytes.
	Data []byte
}

// JSON parses the data into value. The error is a reject.
func (event Event) JSON(value any) error {
	if len(event.Data) == 0 {
		return Reject("the event has no data; the function expects JSON")
	}
	if err := json.Unmarshal(event.Data, value); err != nil {
		return Reject("the data of the event is not the JSON that the function expects: %v", err)
	}
	return nil
}

// Delivery is the reason why the function runs: one event owed to it, and the number of the attempt.
type Delivery struct {
	// ID is the same on every attempt, so it can be an idempotency key for external systems.
	ID string
	// Attempt is counted from 1.
	Attempt int
	// TimeLimit of this attempt, from its start. The attempt is stopped then.
	TimeLimit time.Duration
	// Replay is true if this is a stored event that is replayed.
	Replay bool
	// Trigger (an entry of the function's `on:`) that matched.
	Trigger string
}

func toEvent(event types.Event) Event {
	extensions := make(map[string]string, len(event.Extensions))
	for _, extension := range event.Extensions {
		extensions[extension.F0] = extension.F1
	}
	return Event{
		ID: event.Id, Source: event.Source, Type: event.Type, Subject: event.Subject.SomeOr(""), Time: event.Time.SomeOr(""),
		DataContentType: event.Datacontenttype.SomeOr(""), DataSchema: event.Dataschema.SomeOr(""),
		Extensions: extensions, Data: event.Data,
	}
}

func toDelivery(delivery types.Delivery) Delivery {
	return Delivery{
		ID: delivery.Id, Attempt: int(delivery.Attempt), TimeLimit: time.Duration(delivery.DeadlineMs) * time.Millisecond,
		Replay: delivery.Replay, Trigger: delivery.Trigger,
	}
}

// isJSON returns true for media types of JSON, and without a media type.
func isJSON(mediaType string) bool {
	essence, _, _ := strings.Cut(mediaType, ";")
	essence = strings.ToLower(strings.TrimSpace(essence))
	return essence == "" || strings.HasSuffix(essence, "/json") || strings.HasSuffix(essence, "+json")
}
