package http

import (
	"runtime"
	"strconv"
	"strings"

	"evoke"
	monotonic "evoke/internal/bindings/imports/wasi_clocks_monotonic_clock"
	outgoing "evoke/internal/bindings/imports/wasi_http_outgoing_handler"
	types "evoke/internal/bindings/imports/wasi_http_types"
	"evoke/internal/bindings/imports/wasi_io_poll"
	streams "evoke/internal/bindings/imports/wasi_io_streams"
	wit "evoke/internal/wit/types"
)

// The most that one write to a body takes, and that one read of a body returns, in bytes.
const (
	writeBytesMax = 4096
	readBytesMax  = 64 << 10
)

// A resource must be dropped before the one that it came from, so none of them is left to the garbage collector.

// exchange sends the request, and reads the response to its end.
func exchange(request *Request, method string, header Header) (*Response, error) {
	head, err := toOutgoing(request.URL, method, header)
	if err != nil {
		return nil, err
	}
	// The host sends a request whose body was not taken without one.
	var body *types.OutgoingBody
	if len(request.Body) > 0 {
		if taken := head.Body(); taken.IsOk() {
			body = taken.Ok()
		}
	}
	sent := outgoing.Handle(head, options(request))
	if sent.IsErr() {
		if body != nil {
			body.Drop()
		}
		return nil, toError(sent.Err())
	}
	future := sent.Ok()
	defer future.Drop()
	// The peer may respond before it has read the body, so a failed write is no error: the response has the reason.
	if body != nil {
		write(body, request.Body)
	}
	wait(future.Subscribe())
	received := future.Get().Some()
	if received.IsErr() {
		return nil, &Error{"internal-error", "the response was already taken"}
	}
	if received.Ok().IsErr() {
		return nil, toError(received.Ok().Err())
	}
	response := received.Ok().Ok()
	defer response.Drop()
	limit := request.BodyBytesMax
	if limit == 0 {
		limit = BodyBytesMax
	}
	return read(response, limit)
}

// toOutgoing makes the head of the request. Its errors are rejects.
func toOutgoing(url, method string, header Header) (*types.OutgoingRequest, error) {
	scheme, rest, hasScheme := strings.Cut(url, "://")
	// A fragment is never sent.
	rest, _, _ = strings.Cut(rest, "#")
	authority, path := rest, ""
	if at := strings.IndexAny(rest, "/?"); at >= 0 {
		authority, path = rest[:at], rest[at:]
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	if !hasScheme || scheme != "http" && scheme != "https" || authority == "" {
		return nil, evoke.Reject("HTTP: the URL %q is not http://HOST… or https://HOST…", url)
	}
	var entries []wit.Tuple2[string, []uint8]
	for name, values := range header {
		for _, value := range values {
			entries = append(entries, wit.Tuple2[string, []uint8]{F0: name, F1: []byte(value)})
		}
	}
	fields := types.FieldsFromList(entries)
	if fields.IsErr() {
		return nil, evoke.Reject("HTTP: the name or the value of a header is not valid")
	}
	head := types.MakeOutgoingRequest(fields.Ok())
	schemes := map[string]types.Scheme{"http": types.MakeSchemeHttp(), "https": types.MakeSchemeHttps()}
	for _, set := range []struct {
		what   string
		result wit.Result[wit.Unit, wit.Unit]
	}{
		{"method", head.SetMethod(toMethod(method))},
		{"scheme", head.SetScheme(wit.Some(schemes[scheme]))},
		{"host", head.SetAuthority(wit.Some(authority))},
		{"path", head.SetPathWithQuery(wit.Some(path))},
	} {
		if set.result.IsErr() {
			head.Drop()
			return nil, evoke.Reject("HTTP: the %s of %s %s is not valid", set.what, method, url)
		}
	}
	return head, nil
}

func toMethod(name string) types.Method {
	switch name {
	case "GET":
		return types.MakeMethodGet()
	case "HEAD":
		return types.MakeMethodHead()
	case "POST":
		return types.MakeMethodPost()
	case "PUT":
		return types.MakeMethodPut()
	case "DELETE":
		return types.MakeMethodDelete()
	case "OPTIONS":
		return types.MakeMethodOptions()
	case "PATCH":
		return types.MakeMethodPatch()
	}
	return types.MakeMethodOther(name)
}

func options(request *Request) wit.Option[*types.RequestOptions] {
	if request.Timeout <= 0 {
		return wit.None[*types.RequestOptions]()
	}
	options, limit := types.MakeRequestOptions(), wit.Some(monotonic.Duration(request.Timeout))
	options.SetConnectTimeout(limit)
	options.SetFirstByteTimeout(limit)
	options.SetBetweenBytesTimeout(limit)
	return wit.Some(options)
}

func write(body *types.OutgoingBody, data []byte) {
	taken := body.Write()
	if taken.IsErr() {
		body.Drop()
		return
	}
	stream := taken.Ok()
	for len(data) > 0 {
		part := data[:min(len(data), writeBytesMax)]
		if stream.BlockingWriteAndFlush(part).IsErr() {
			stream.Drop()
			body.Drop()
			return
		}
		data = data[len(part):]
	}
	stream.Drop()
	types.OutgoingBodyFinish(body, wit.None[*types.Fields]())
}

func read(response *types.IncomingResponse, limit int) (*Response, error) {
	fields := response.Headers()
	header := Header{}
	for _, entry := range fields.Entries() {
		name := strings.ToLower(entry.F0)
		header[name] = append(header[name], string(entry.F1))
	}
	fields.Drop()
	consumed := response.Consume()
	if consumed.IsErr() {
		return nil, &Error{"internal-error", "the body was already taken"}
	}
	incoming := consumed.Ok()
	defer incoming.Drop()
	taken := incoming.Stream()
	if taken.IsErr() {
		return nil, &Error{"internal-error", "the body was already taken"}
	}
	stream := taken.Ok()
	defer stream.Drop()
	var body []byte
	for {
		wait(stream.Subscribe())
		part := stream.Read(readBytesMax)
		if part.IsErr() {
			if part.Err().Tag() == streams.StreamError_Closed {
				return &Response{int(response.Status()), header, body}, nil
			}
			cause := part.Err().LastOperationFailed()
			defer cause.Drop()
			if code := types.HttpErrorCode(cause); code.IsSome() {
				return nil, toError(code.Some())
			}
			return nil, &Error{"internal-error", cause.ToDebugString()}
		}
		if len(body)+len(part.Ok()) > limit {
			return nil, &Error{"body-too-large", "the response has more than " + strconv.Itoa(limit) + " bytes"}
		}
		body = append(body, part.Ok()...)
	}
}

// waiting has what goroutines wait for.
var waiting []*wasi_io_poll.Pollable

// wait returns when the pollable is ready, and drops it. Others run until they wait, too: then the program waits for any of
// them.
func wait(pollable *wasi_io_poll.Pollable) {
	waiting = append(waiting, pollable)
	for runtime.Gosched(); !pollable.Ready(); runtime.Gosched() {
		wasi_io_poll.Poll(waiting)
	}
	for index, other := range waiting {
		if other == pollable {
			waiting = append(waiting[:index], waiting[index+1:]...)
			break
		}
	}
	pollable.Drop()
}

func toError(code types.ErrorCode) error {
	switch code.Tag() {
	case types.ErrorCode_HttpRequestDenied:
		return &Error{"HTTP-request-denied", "the request is not allowed"}
	case types.ErrorCode_DestinationIpProhibited:
		return &Error{"destination-IP-prohibited", "the request is not allowed"}
	case types.ErrorCode_HttpRequestUriInvalid:
		return evoke.Reject("HTTP: the URL is not valid")
	case types.ErrorCode_HttpRequestMethodInvalid:
		return evoke.Reject("HTTP: the method is not valid")
	case types.ErrorCode_DnsTimeout:
		return &Error{"DNS-timeout", "the name was not resolved in time"}
	case types.ErrorCode_DnsError:
		return &Error{"DNS-error", "the name has no address"}
	case types.ErrorCode_ConnectionRefused:
		return &Error{"connection-refused", "the connection was refused"}
	case types.ErrorCode_ConnectionTimeout:
		return &Error{"connection-timeout", "the connection was not made in time"}
	case types.ErrorCode_ConnectionReadTimeout:
		return &Error{"connection-read-timeout", "the response paused for too long"}
	case types.ErrorCode_HttpResponseTimeout:
		return &Error{"HTTP-response-timeout", "the response did not arrive in time"}
	case types.ErrorCode_HttpResponseIncomplete:
		return &Error{"HTTP-response-incomplete", "the connection ended before the response"}
	case types.ErrorCode_TlsCertificateError:
		return &Error{"TLS-certificate-error", "the certificate of the server is not trusted"}
	case types.ErrorCode_InternalError:
		return &Error{"internal-error", code.InternalError().SomeOr("the request failed")}
	}
	return &Error{"error-" + strconv.Itoa(int(code.Tag())), "the request failed with error " + strconv.Itoa(int(code.Tag())) + " of wasi:http"}
}
