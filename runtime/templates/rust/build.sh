#!/bin/sh
# Builds target/wasm32-wasip2/release/function.wasm. toolchain.sh finds or creates a compiler for this target.
set -eu
cd "$(dirname "$0")/.."
# Settings for other builds would replace those of this folder.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER
for setting in $(env | sed -n 's/^\(CARGO_PROFILE_[A-Z0-9_]*\)=.*/\1/p'); do unset "$setting"; done
eval "$(bash sdk/toolchain.sh)"
CARGO_TARGET_DIR=target exec cargo build --release --quiet --target wasm32-wasip2
