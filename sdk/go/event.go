package evoke

import (
	"encoding/base64"
	"encoding/json"
	"strings"
)

// Event is a CloudEvents 1.0 event. Attributes that the event does not have are empty.
type Event struct {
	ID     string
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

func parse(input []byte) (Event, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(input, &members); err != nil {
		return Event{}, err
	}
	event := Event{Extensions: map[string]string{}}
	attributes := map[string]*string{
		"id": &event.ID, "source": &event.Source, "type": &event.Type, "subject": &event.Subject, "time": &event.Time,
		"datacontenttype": &event.DataContentType, "dataschema": &event.DataSchema,
	}
	for name, member := range members {
		if name == "data" || name == "data_base64" || name == "specversion" {
			continue
		}
		var value string
		if err := json.Unmarshal(member, &value); err != nil {
			value = string(member)
		}
		if attribute := attributes[name]; attribute != nil {
			*attribute = value
		} else {
			event.Extensions[name] = value
		}
	}
	if data, ok := members["data_base64"]; ok {
		var encoded string
		if err := json.Unmarshal(data, &encoded); err != nil {
			return Event{}, err
		}
		decoded, err := base64.StdEncoding.DecodeString(encoded)
		event.Data = decoded
		return event, err
	}
	data := members["data"]
	var text string
	if !isJSON(event.DataContentType) && json.Unmarshal(data, &text) == nil {
		event.Data = []byte(text)
	} else {
		event.Data = data
	}
	return event, nil
}

// isJSON returns true for media types of JSON, and without a media type.
func isJSON(mediaType string) bool {
	essence, _, _ := strings.Cut(mediaType, ";")
	essence = strings.ToLower(strings.TrimSpace(essence))
	return essence == "" || strings.HasSuffix(essence, "/json") || strings.HasSuffix(essence, "+json")
}

// Option sets an attribute of an event to publish.
type Option func(map[string]any)

// Subject sets what the event is about.
func Subject(subject string) Option { return Attribute("subject", subject) }

// ID sets the id. Without it, the id is derived from the delivery, so it is the same on every attempt.
func ID(id string) Option { return Attribute("id", id) }

// ContentType sets the media type of the data.
func ContentType(mediaType string) Option { return Attribute("datacontenttype", mediaType) }

// Attribute sets another attribute of the event, such as an extension.
func Attribute(name, value string) Option {
	return func(event map[string]any) { event[name] = value }
}

// Publish publishes an event when the attempt succeeds. Data of type []byte is the payload; with another media type than
// JSON, so is a string. Other data is converted to JSON, and nil is no data. The error is a reject.
//
// The manifest grants the type with `allow: { publish: [TYPE] }`. An attempt that publishes another one ends as denied.
func Publish(eventType string, data any, options ...Option) error {
	event := map[string]any{"specversion": "1.0", "type": eventType}
	for _, option := range options {
		option(event)
	}
	mediaType, _ := event["datacontenttype"].(string)
	switch data := data.(type) {
	case nil:
	case []byte:
		if isJSON(mediaType) && json.Valid(data) {
			event["data"] = json.RawMessage(data)
			break
		}
		if mediaType == "" {
			event["datacontenttype"] = "application/octet-stream"
		}
		event["data_base64"] = base64.StdEncoding.EncodeToString(data)
	default:
		if mediaType == "" {
			event["datacontenttype"] = "application/json"
		}
		event["data"] = data
	}
	var line strings.Builder
	encoder := json.NewEncoder(&line)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(event); err != nil {
		return Reject("the data of %s cannot be converted to JSON: %v", eventType, err)
	}
	_, err := published.WriteString(line.String())
	return err
}
