#!/bin/sh
# Builds function.wasm with the Go toolchain alone, and lists the source files in function.d for `evoke up --watch`.
set -eu
cd "$(dirname "$0")/.."
command -v go > /dev/null || { echo "build: go is missing; install Go 1.27 or later" >&2; exit 1; }
GOOS=wasip1 GOARCH=wasm GOFLAGS= CGO_ENABLED=0 go build -buildmode=c-shared -trimpath \
  -ldflags='-s -w -checklinkname=0' -o function.wasm .
sources=$(find . -name '*.go' -o -name go.mod | sed 's/ /\\ /g' | tr '\n' ' ')
printf 'function.wasm: %s\n' "$sources" > function.d
