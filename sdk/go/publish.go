package evoke

import (
	"encoding/json"
	"time"

	bus "evoke/internal/bindings/imports/evoke_function_bus"
	types "evoke/internal/bindings/imports/evoke_function_types"
	wit "evoke/internal/wit/types"
)

// Option sets an attribute of an event to publish.
type Option func(*types.Draft)

// Subject sets what the event is about. An empty one sets none.
func Subject(subject string) Option {
	return func(draft *types.Draft) { draft.Subject = optional(subject) }
}

// ID sets the id. Without it, the id is derived from the delivery, so it is the same on every attempt.
func ID(id string) Option {
	return func(draft *types.Draft) { draft.Id = optional(id) }
}

// ContentType sets the media type of the data.
func ContentType(mediaType string) Option {
	return func(draft *types.Draft) { draft.Datacontenttype = optional(mediaType) }
}

// Schema sets the URI of the schema of the data.
func Schema(uri string) Option {
	return func(draft *types.Draft) { draft.Dataschema = optional(uri) }
}

// Attribute sets an extension attribute.
func Attribute(name, value string) Option {
	return func(draft *types.Draft) {
		draft.Extensions = append(draft.Extensions, wit.Tuple2[string, string]{F0: name, F1: value})
	}
}

// NotBefore lets Evoke deliver the event at this time and not earlier. The time may be at most 366 days ahead; one in the
// past means now.
func NotBefore(at time.Time) Option {
	// Rounded up, so that the event is never early.
	return Attribute("notbefore", at.Add(time.Millisecond-1).UTC().Format("2006-01-02T15:04:05.000Z"))
}

// Publish publishes an event when the attempt succeeds. Data of type []byte is the payload; with another media type than
// JSON, so is a string. Other data is converted to JSON, and nil is no data.
//
// The manifest grants the type with `allow: { publish: [TYPE] }`. The error is a reject: the event may not be published,
// or its data cannot be converted.
func Publish(eventType string, data any, options ...Option) error {
	_, err := PublishID(eventType, data, options...)
	return err
}

// PublishID is Publish, and returns the id that the event will have.
func PublishID(eventType string, data any, options ...Option) (string, error) {
	draft := types.Draft{
		Type: eventType, Subject: wit.None[string](), Datacontenttype: wit.None[string](), Dataschema: wit.None[string](),
		Id: wit.None[string](),
	}
	for _, option := range options {
		option(&draft)
	}
	mediaType := draft.Datacontenttype.SomeOr("")
	text, isText := data.(string)
	switch data := data.(type) {
	case nil:
	case []byte:
		draft.Data = data
	default:
		if isText && !isJSON(mediaType) {
			draft.Data = []byte(text)
			break
		}
		encoded, err := json.Marshal(data)
		if err != nil {
			return "", Reject("the data of %s cannot be converted to JSON: %v", eventType, err)
		}
		draft.Data = encoded
		if mediaType == "" {
			draft.Datacontenttype = wit.Some("application/json")
		}
	}
	published := bus.Publish(draft)
	if published.IsErr() {
		return "", Reject("publish refused: %s", published.Err())
	}
	return published.Ok(), nil
}

func optional(text string) wit.Option[string] {
	if text == "" {
		return wit.None[string]()
	}
	return wit.Some(text)
}
