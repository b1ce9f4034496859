// Package http is a small HTTP client. The function reaches only the origins that its manifest grants under `allow: http`;
// the host adds the headers of the grant, such as credentials.
//
//	response, err := http.Get("https://rates.example/today")
//	if err != nil {
//		return err
//	}
//	var rates struct{ Euro float64 }
//	if err := response.JSON(&rates); err != nil {
//		return err
//	}
//
// An attempt can run again after its request was received, so requests that are not safe carry the header
// `Idempotency-Key`. Redirects are not followed. Requests of several goroutines wait at the same time.
//
// The package nethttp connects this client to the package net/http of Go.
package http

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"evoke"
	"evoke/internal/attempt"
)

// BodyBytesMax is the limit on the body of a response, unless the request sets another one.
const BodyBytesMax = 8 << 20

// The start of a body in an error, in bytes.
const excerptBytesMax = 512

// NoKey as the IdempotencyKey of a request sends no key.
const NoKey = "-"

// Header has values by the name in lower case.
type Header map[string][]string

// Get returns the first value of a header, or "".
func (header Header) Get(name string) string {
	if values := header[strings.ToLower(name)]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// Set replaces the values of a header.
func (header Header) Set(name, value string) { header[strings.ToLower(name)] = []string{value} }

// Request is a request to send.
type Request struct {
	// Method is GET if it is empty.
	Method string
	// URL has a scheme (http or https), a host, and perhaps a port, a path and a query.
	URL    string
	Header Header
	Body   []byte
	// Timeout limits the waits for the connection, for the head of the response, and for each further part. The limits of
	// the host hold, too.
	Timeout time.Duration
	// IdempotencyKey is the value of the header `Idempotency-Key`. If it is empty, a request whose method is not safe (any
	// but GET, HEAD, OPTIONS and TRACE) has a key that is the same on every attempt: the id of the delivery for the first
	// request that needs a key, and `ID-2`, `ID-3` … for the following ones. So a function must send its requests in the
	// same order on each attempt, or set the keys itself.
	IdempotencyKey string
	// BodyBytesMax limits the body of the response. Zero is the limit of the package.
	BodyBytesMax int
}

// Response has the whole body of the response.
type Response struct {
	Status int
	Header Header
	Body   []byte
}

// Error is the reason why there is no response. The function's policy tries again, except if the request is not valid.
type Error struct {
	// Code is the name of the error in wasi:http, such as `connection-refused`.
	Code    string
	message string
}

func (err *Error) Error() string { return "HTTP: " + err.message }

// Get sends a GET request.
func Get(url string) (*Response, error) { return Do(&Request{URL: url}) }

// Delete sends a DELETE request.
func Delete(url string) (*Response, error) { return Do(&Request{Method: "DELETE", URL: url}) }

// Post sends a POST request with value as JSON.
func Post(url string, value any) (*Response, error) { return sendJSON("POST", url, value) }

// Put sends a PUT request with value as JSON.
func Put(url string, value any) (*Response, error) { return sendJSON("PUT", url, value) }

// Patch sends a PATCH request with value as JSON.
func Patch(url string, value any) (*Response, error) { return sendJSON("PATCH", url, value) }

func sendJSON(method, url string, value any) (*Response, error) {
	body, err := json.Marshal(value)
	if err != nil {
		return nil, evoke.Reject("the body of the request cannot be converted to JSON: %v", err)
	}
	return Do(&Request{Method: method, URL: url, Header: Header{"content-type": {"application/json"}}, Body: body})
}

// Do sends a request and reads the whole response. A response of any status is no error: see Response.OK.
func Do(request *Request) (*Response, error) {
	method := strings.ToUpper(request.Method)
	if method == "" {
		method = "GET"
	}
	header := Header{}
	for name, values := range request.Header {
		key := strings.ToLower(name)
		header[key] = append(header[key], values...)
	}
	if key := request.IdempotencyKey; key != "" && key != NoKey {
		header.Set("idempotency-key", key)
	} else if key == "" && !isSafe(method) && header.Get("idempotency-key") == "" {
		header.Set("idempotency-key", nextKey())
	}
	hasBody := len(request.Body) > 0 || method != "GET" && method != "HEAD"
	if hasBody && header.Get("content-length") == "" {
		header.Set("content-length", strconv.Itoa(len(request.Body)))
	}
	return exchange(request, method, header)
}

func isSafe(method string) bool {
	return method == "GET" || method == "HEAD" || method == "OPTIONS" || method == "TRACE"
}

var keys int

// nextKey returns the next key of this attempt.
func nextKey() string {
	if keys++; keys == 1 {
		return attempt.Delivery
	}
	return attempt.Delivery + "-" + strconv.Itoa(keys)
}

// OK returns the response if its status is 2xx. Else the error is a reject for a status from 300 to 499 that a repetition
// does not change, and a retry for all others, after the time that the response asks for.
func (response *Response) OK() (*Response, error) {
	status := response.Status
	if status >= 200 && status < 300 {
		return response, nil
	}
	message := "HTTP: the response has status " + strconv.Itoa(status)
	if start := response.Body[:min(len(response.Body), excerptBytesMax)]; len(start) > 0 {
		message += ": " + strings.ToValidUTF8(string(start), "\uFFFD")
	}
	if status != 408 && status != 425 && status != 429 && status < 500 {
		return nil, evoke.Reject("%s", message)
	}
	seconds, _ := strconv.Atoi(strings.TrimSpace(response.Header.Get("retry-after")))
	return nil, evoke.RetryAfter(time.Duration(seconds)*time.Second, "%s", message)
}

// JSON parses the body of a response whose status is 2xx into value. Else the error is that of OK; for a body of other
// JSON it is a retry.
func (response *Response) JSON(value any) error {
	if _, err := response.OK(); err != nil {
		return err
	}
	if err := json.Unmarshal(response.Body, value); err != nil {
		return evoke.Retry("the body of the response: %v", err)
	}
	return nil
}
