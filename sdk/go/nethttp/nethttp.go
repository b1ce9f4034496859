// Package nethttp connects Go's package net/http to the requests that the manifest grants under `allow: http`, for libraries
// that need an *http.Client. It makes the component some megabytes larger, and the start of an attempt slower; the package
// evoke/http does not.
//
//	client := sdk.New(sdk.WithHTTPClient(nethttp.Client))
package nethttp

import (
	"bytes"
	"io"
	"net/http"

	evoke "evoke/http"
)

// BodyBytesMax limits the body of a response, which is in memory.
const BodyBytesMax = 64 << 20

// Client sends its requests through Transport. Redirects are followed, to origins that are granted.
var Client = &http.Client{Transport: Transport{}}

// Transport is an http.RoundTripper. Requests that are not safe carry an `Idempotency-Key` that is the same on every
// attempt, unless they have one already.
type Transport struct{}

// RoundTrip sends the request, and returns when its response is complete.
func (Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	var body []byte
	if request.Body != nil {
		var err error
		body, err = io.ReadAll(request.Body)
		request.Body.Close()
		if err != nil {
			return nil, err
		}
	}
	if err := request.Context().Err(); err != nil {
		return nil, err
	}
	header := evoke.Header{}
	for name, values := range request.Header {
		header[name] = values
	}
	response, err := evoke.Do(&evoke.Request{
		Method: request.Method, URL: request.URL.String(), Header: header, Body: body, BodyBytesMax: BodyBytesMax,
	})
	if err != nil {
		return nil, err
	}
	received := http.Header{}
	for name, values := range response.Header {
		received[http.CanonicalHeaderKey(name)] = values
	}
	return &http.Response{
		Status: http.StatusText(response.Status), StatusCode: response.Status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: received, Body: io.NopCloser(bytes.NewReader(response.Body)), ContentLength: int64(len(response.Body)), Request: request,
	}, nil
}
