// With a prefix, so that every name of a function is valid: Go reserves some, such as `go`.
module function/{{name}}

go 1.27

require evoke v0.0.0

replace evoke => ./sdk
