#!/bin/sh
# Builds function.wasm, and lists the source files in function.d for `evoke up --watch`. The compiler is that of the WASI
# SDK in WASI_SDK_PATH, else clang with wasi-libc, as in Debian: apt install clang lld wasi-libc
set -eu
cd "$(dirname "$0")/.."
if [ -n "${WASI_SDK_PATH:-}" ]; then
  set -- "$WASI_SDK_PATH/bin/clang" --target=wasm32-wasip1
elif command -v clang >/dev/null && command -v wasm-ld >/dev/null && [ -f /usr/lib/wasm32-wasi/libc.a ]; then
  # Debian's clang comes without its library for this target; sdk/builtins.c has what wasi-libc needs of it.
  set -- clang --target=wasm32-wasi -nodefaultlibs
else
  echo "build: no C compiler for WebAssembly: install clang, lld and wasi-libc, or set WASI_SDK_PATH" >&2
  exit 1
fi
# The names of functions stay, for messages of traps.
"$@" -mexec-model=reactor -Os -Wl,--strip-debug -Wall -Wextra -o function.wasm ./*.c sdk/*.c -lc
sources=$(find . \( -name '*.c' -o -name '*.h' \) | sed 's/ /\\ /g' | tr '\n' ' ')
printf 'function.wasm: %s\n' "$sources" > function.d
