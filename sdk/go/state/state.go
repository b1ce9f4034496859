// Package state is the stored state of a function, as JSON values by key. The manifest grants it with
// `allow: { state: true }`.
//
// An attempt reads its own writes; they are committed if it succeeds and discarded if it fails. If another attempt changed
// a value that this attempt read, this attempt runs again. So counting needs no lock:
//
//	seen, err := state.Increment("seen", 1)
//
// Shared is the bucket of the functions of the app. Each of them needs the grant `allow: { state: { shared: true } }`.
package state

import (
	"encoding/json"

	"evoke"
	atomics "evoke/internal/bindings/imports/wasi_keyvalue_atomics"
	store "evoke/internal/bindings/imports/wasi_keyvalue_store"
	wit "evoke/internal/wit/types"
)

// Bucket has values by key.
type Bucket struct {
	name   string
	opened *store.Bucket
}

var own Bucket

// Shared is the bucket shared by the functions of the app.
var Shared = &Bucket{name: "app"}

// open opens the bucket on first use.
func (bucket *Bucket) open() (*store.Bucket, error) {
	if bucket.opened == nil {
		opened, err := check(store.Open(bucket.name))
		if err != nil {
			return nil, err
		}
		bucket.opened = opened
	}
	return bucket.opened, nil
}

// check returns the value, or an error: a reject if the bucket is not granted. Other errors, such as a quota that is
// reached, are retries.
func check[T any](result wit.Result[T, store.Error]) (value T, err error) {
	switch {
	case result.IsOk():
		return result.Ok(), nil
	case result.Err().Tag() == store.Error_Other:
		return value, evoke.Retry("state: %s", result.Err().Other())
	}
	return value, evoke.Reject(
		"this state is not granted (allow: { state: true }, or { state: { shared: true } } for state.Shared)")
}

// Get parses the value at key into value, a pointer, and returns whether there is one. If it is other JSON, the error is a
// reject.
func (bucket *Bucket) Get(key string, value any) (bool, error) {
	data, found, err := bucket.GetBytes(key)
	if err != nil || !found {
		return false, err
	}
	if err := json.Unmarshal(data, value); err != nil {
		return false, evoke.Reject("the value at %s: %v", key, err)
	}
	return true, nil
}

// Set creates or replaces the value at key.
func (bucket *Bucket) Set(key string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return evoke.Reject("the value for %s: %v", key, err)
	}
	return bucket.SetBytes(key, data)
}

// GetBytes returns the bytes at key, which need not be JSON, and whether there are any.
func (bucket *Bucket) GetBytes(key string) ([]byte, bool, error) {
	opened, err := bucket.open()
	if err != nil {
		return nil, false, err
	}
	value, err := check(opened.Get(key))
	return value.SomeOr(nil), err == nil && value.IsSome(), err
}

// SetBytes stores bytes that need not be JSON.
func (bucket *Bucket) SetBytes(key string, data []byte) error {
	opened, err := bucket.open()
	if err == nil {
		_, err = check(opened.Set(key, data))
	}
	return err
}

// Delete removes key. A missing key is not an error.
func (bucket *Bucket) Delete(key string) error {
	opened, err := bucket.open()
	if err == nil {
		_, err = check(opened.Delete(key))
	}
	return err
}

// Exists returns true if key exists.
func (bucket *Bucket) Exists(key string) (bool, error) {
	opened, err := bucket.open()
	if err != nil {
		return false, err
	}
	return check(opened.Exists(key))
}

// Increment adds delta to the number at key (0 if there is none), and returns the sum.
func (bucket *Bucket) Increment(key string, delta uint64) (uint64, error) {
	opened, err := bucket.open()
	if err != nil {
		return 0, err
	}
	return check(atomics.Increment(opened, key, delta))
}

// Keys returns all keys. If another attempt adds or removes any key meanwhile, this attempt runs again, so list only
// buckets with few keys that rarely change.
func (bucket *Bucket) Keys() ([]string, error) {
	opened, err := bucket.open()
	if err != nil {
		return nil, err
	}
	var keys []string
	cursor := wit.None[uint64]()
	for {
		page, err := check(opened.ListKeys(cursor))
		if err != nil {
			return nil, err
		}
		keys = append(keys, page.Keys...)
		if cursor = page.Cursor; cursor.IsNone() {
			return keys, nil
		}
	}
}

// UpdateIn replaces the value at key of a bucket by the result of change, which receives the zero value of T if there is
// no value. It returns the new value.
func UpdateIn[T any](bucket *Bucket, key string, change func(T) T) (T, error) {
	var value T
	if _, err := bucket.Get(key, &value); err != nil {
		return value, err
	}
	value = change(value)
	return value, bucket.Set(key, value)
}

// Update is UpdateIn in the function's own bucket.
func Update[T any](key string, change func(T) T) (T, error) { return UpdateIn(&own, key, change) }

// The following functions use the function's own bucket.

// Get is Bucket.Get.
func Get(key string, value any) (bool, error) { return own.Get(key, value) }

// Set is Bucket.Set.
func Set(key string, value any) error { return own.Set(key, value) }

// GetBytes is Bucket.GetBytes.
func GetBytes(key string) ([]byte, bool, error) { return own.GetBytes(key) }

// SetBytes is Bucket.SetBytes.
func SetBytes(key string, data []byte) error { return own.SetBytes(key, data) }

// Delete is Bucket.Delete.
func Delete(key string) error { return own.Delete(key) }

// Exists is Bucket.Exists.
func Exists(key string) (bool, error) { return own.Exists(key) }

// Increment is Bucket.Increment.
func Increment(key string, delta uint64) (uint64, error) { return own.Increment(key, delta) }

// Keys is Bucket.Keys.
func Keys() ([]string, error) { return own.Keys() }
