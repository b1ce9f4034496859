#!/bin/bash
# toolchain.sh [TARGET]: finds or creates a rustc for TARGET (default: wasm32-wasip2), and prints the variables to set:
#   eval "$(functions/toolchain.sh)" && cargo build --release --target wasm32-wasip2
# toolchain.sh c: finds or installs a C compiler for wasm32-wasi.
#
# Ways, in this order:
# 1. the current rustc already has the target
# 2. rustup adds it                                       (WASM_TOOLCHAIN_RUSTUP=0 skips this)
# 3. Debian's rustc with Debian's prebuilt std            (libstd-rust-dev-wasm32)
# 4. Debian's rustc, std built once from Debian's source  (rustc-web rust-web-src, Debian 12)
# WASM_TOOLCHAIN_FORCE=1..4 tries only that way. As root, ways 3 and 4 install missing packages.
# Toolchains are created in ${WASM_TOOLCHAIN_DIR:-~/.cache/evoke/toolchain}; remove the folder to create them again.
set -euo pipefail

TARGET=${1:-wasm32-wasip2}
SYSTEM=/usr/bin/rustc
MINOR_MIN=88                       # rust-version of functions/Cargo.toml: 1.88
COMPONENT_LD=0.5.31               # version of the crate wasm-component-ld, if no toolchain includes the program
CACHE=${WASM_TOOLCHAIN_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/evoke/toolchain}
FORCE=${WASM_TOOLCHAIN_FORCE:-}

say() { echo "toolchain: $*" >&2; }
wanted() { [ -z "$FORCE" ] || [ "$FORCE" = "$1" ]; }
has_std() { local dir; dir=$("$1" --print target-libdir --target $TARGET 2>/dev/null) && compgen -G "$dir/libcore-*.rlib" >/dev/null; }
new_enough() { local minor; minor=$("$1" -V | sed -E 's/^rustc 1\.([0-9]+).*/\1/'); [ "$minor" -ge $MINOR_MIN ]; }
installed() { dpkg-query -W -f '${Status}\n' "$@" 2>/dev/null | grep -c '^install ok installed' | grep -qx $#; }

# need PACKAGE…: installs missing packages as root; otherwise prints the command to install them.
need() { command -v apt-get >/dev/null && { installed "$@" || newest "$@"; }; }

# newest PACKAGE…: same, but also upgrades installed packages. Updates the package lists first, because an old list names
# old versions. If the update fails, the old lists are used.
newest() {
  command -v apt-get >/dev/null || return 1
  [ "$(id -u)" = 0 ] || { say "missing packages; run: sudo apt-get install --no-install-recommends $*"; return 1; }
  [ -n "${lists_are_new:-}" ] || apt-get update -q >&2 || say "cannot update the package lists"
  lists_are_new=1
  [ -n "$(apt-cache madison "$1" 2>/dev/null)" ] || return 1
  say "installing $*"
  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-remove --no-install-recommends "$@" >&2
}

# Links the linkers for components into folder $1. Prefers rustup's, because Debian 12's lld is from 2022.
linkers() {
  local bin="" root host; host=$($SYSTEM -vV | sed -n 's/^host: //p')
  if command -v rustup >/dev/null && root=$(env -u RUSTC -u RUSTUP_TOOLCHAIN rustup run stable rustc --print sysroot 2>/dev/null || env -u RUSTC rustc --print sysroot); then
    bin=$root/lib/rustlib/$host/bin
  fi
  if [ -x "$bin/rust-lld" ] && [ -x "$bin/gcc-ld/wasm-ld" ]; then
    ln -sfn "$bin/rust-lld" "$1/rust-lld"; ln -sfn "$bin/gcc-ld/wasm-ld" "$1/wasm-ld"
  else
    command -v wasm-ld >/dev/null || need lld || { say "wasm-ld is missing: install lld"; return 1; }
    ln -sfn "$(command -v wasm-ld)" "$1/rust-lld"; ln -sfn "$(command -v wasm-ld)" "$1/wasm-ld"
  fi
  if [ -x "$bin/wasm-component-ld" ]; then
    ln -sfn "$bin/wasm-component-ld" "$1/wasm-component-ld"
  else
    local own=$CACHE/wasm-component-ld-$COMPONENT_LD
    if [ ! -x "$own/bin/wasm-component-ld" ]; then
      say "building wasm-component-ld $COMPONENT_LD, once, a few minutes"
      RUSTC=$SYSTEM cargo install -q --locked --root "$own" "wasm-component-ld@$COMPONENT_LD" >&2
    fi
    ln -sfn "$own/bin/wasm-component-ld" "$1/wasm-component-ld"
  fi
}

# Succeeds if rustc $1 can build and link a component, or a module for WASI 0.1: then the toolchain is complete.
works() {
  local dir ok=1 version=0d000100; dir=$(mktemp -d)
  [ $TARGET != wasm32-wasip1 ] || version=01000000
  echo 'pub fn f() -> String { String::from("x") }' >"$dir/probe.rs"
  (cd "$dir" && "$1" --edition 2024 --crate-type cdylib --target $TARGET -o probe.wasm probe.rs >&2) &&
    [ "$(head -c 8 "$dir/probe.wasm" | od -An -tx1 | tr -d ' \n')" = 0061736d$version ] && ok=0
  rm -rf "$dir"; return $ok
}

# Creates a sysroot at $1 for the system's rustc: the rustc's host libraries, the linkers from above, and the target's
# std from folder $2, or built here if $2 is empty. Created under a temporary name and renamed, so it is never partial.
sysroot() {
  local made=$1.$$ host lib libc
  host=$($SYSTEM -vV | sed -n 's/^host: //p'); lib=$made/lib/rustlib
  rm -rf "$made"; mkdir -p "$made/bin" "$lib/$host/bin" "$lib/$TARGET"
  ln -sfn "$($SYSTEM --print target-libdir)" "$lib/$host/lib"
  linkers "$lib/$host/bin" || return 1
  if [ -n "$2" ]; then
    ln -sfn "$2" "$lib/$TARGET/lib"
  else
    build_std "$lib/$TARGET/lib" || return 1
    for libc in ${WASI_LIBC:-} /usr/lib/$TARGET /usr/lib/wasm32-wasi; do
      [ -f "$libc/libc.a" ] && cp "$libc"/{libc.a,crt1-command.o,crt1-reactor.o} "$lib/$TARGET/lib/self-contained/" && break
    done
  fi
  wrapper "$made" "$made"; works "$made/bin/rustc" || { rm -rf "$made"; say "the toolchain created from $SYSTEM cannot link"; return 1; }
  wrapper "$made" "$1"; rm -rf "$1"; mv "$made" "$1"
}
wrapper() { printf '#!/bin/sh\nexec %s --sysroot "%s" "$@"\n' $SYSTEM "$2" >"$1/bin/rustc"; chmod +x "$1/bin/rustc"; }

build_std() { # into folder $1
  local dir; dir=$(mktemp -d); mkdir -p "$dir/src" "$1/self-contained"; : >"$dir/src/lib.rs"
  printf '[package]\nname="seed"\nversion="0.0.0"\nedition="2021"\n[workspace]\n' >"$dir/Cargo.toml"
  say "building std for $TARGET with $($SYSTEM -V | cut -d' ' -f1,2), once, a minute or two"
  (cd "$dir" && env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u RUSTC_WRAPPER RUSTC_BOOTSTRAP=1 RUSTC=$SYSTEM \
    RUSTFLAGS=-Cembed-bitcode=yes CARGO_TARGET_DIR="$dir/target" \
    cargo build -q --release -Zbuild-std=std,panic_abort --target $TARGET >&2)
  find "$dir/target/$TARGET/release" -name 'lib*.rlib' ! -name 'libseed*' -exec cp -n {} "$1/" \;
  rm -rf "$dir"
}

# Prints the folder of the sysroot for way $1. Each rustc version has its own folder.
made() { echo "$CACHE/$1-${TARGET#wasm32-wasip2}$($SYSTEM -V | tr -c 'a-zA-Z0-9.\n' - | cut -c1-40)"; }
ready() { [ -x $SYSTEM ] && [ -x "$(made "$1")/bin/rustc" ]; }
use() { echo "export RUSTC='$(made "$1")/bin/rustc'"; exit 0; }

# Only one process at a time creates a toolchain; the others wait and use it.
if [ "$TARGET" = c ]; then
  { command -v clang && command -v wasm-ld && [ -f /usr/lib/wasm32-wasi/libc.a ]; } >/dev/null && exit 0
  need clang lld wasi-libc && exit 0
  say "no C compiler for wasm32-wasi: install clang, lld and wasi-libc"; exit 1
fi
mkdir -p "$CACHE"; exec 9>"$CACHE/lock"
flock -n 9 || { say "waiting for another process that builds the toolchain"; flock 9; }

# A distribution's rustc may have the target but no linker for it; rustup's rustc has both.
complete() { [ "$(command -v rustc)" != $SYSTEM ] || works rustc; }
if wanted 1 && command -v rustc >/dev/null && new_enough rustc && has_std rustc && complete; then exit 0; fi
for way in 3 4; do if wanted $way && ready $way; then use $way; fi; done

if wanted 2 && [ "${WASM_TOOLCHAIN_RUSTUP:-1}" = 1 ] && command -v rustup >/dev/null; then
  say "rustup target add $TARGET"
  if timeout 300 rustup target add $TARGET >&2 && has_std rustc; then exit 0; fi
  say "rustup cannot add $TARGET here"
fi
if wanted 3; then
  if [ -n "$(apt-cache madison libstd-rust-dev-wasm32 2>/dev/null)" ] && [ ! -x $SYSTEM ]; then
    need rustc libstd-rust-dev-wasm32 lld wasi-libc || true
  fi
  if [ -x $SYSTEM ] && new_enough $SYSTEM && has_std $SYSTEM &&
     sysroot "$(made 3)" "$($SYSTEM --print target-libdir --target $TARGET)"; then use 3; fi
fi
if wanted 4; then
  # Compiler and source must have the same version, so they are installed together.
  if { [ -x $SYSTEM ] && new_enough $SYSTEM; } || newest rustc-web rust-web-src; then
    source=$($SYSTEM --print sysroot)/lib/rustlib/src/rust/library
    [ -f "$source/Cargo.lock" ] || need rust-web-src || need rust-src || true
    [ -f /usr/lib/wasm32-wasi/libc.a ] || [ -f /usr/lib/$TARGET/libc.a ] || [ -n "${WASI_LIBC:-}" ] || need wasi-libc || true
    if [ -f "$source/Cargo.lock" ] && new_enough $SYSTEM; then sysroot "$(made 4)" "" && use 4; fi
  fi
fi
say "no Rust for $TARGET. With rustup: rustup target add $TARGET"
say "On Debian 12: sudo apt-get install --no-install-recommends rustc-web rust-web-src lld wasi-libc"
exit 1
