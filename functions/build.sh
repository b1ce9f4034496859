#!/bin/bash
# build.sh [NAME…]: builds functions (all of them without a name) to components, functions/target/components/NAME.wasm.
# NAME is a package of this workspace. Cheap when nothing changed, and safe when several run at once.
# The Rust toolchain is found or made by toolchain.sh, which also says how to choose it.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "$(readlink -f "$0")")"

say() { echo "build: $*" >&2; }
out=target/components
mkdir -p $out
exec 8>target/.build.lock
flock -n 8 || { say "waiting for another build"; flock 8; }

if [ $# -gt 0 ]; then names=("$@"); else
  names=(); for manifest in */Cargo.toml fixtures/*/Cargo.toml; do names+=("$(basename "$(dirname "$manifest")")"); done
fi
packages=()
for name in "${names[@]}"; do
  [ -f "$name/Cargo.toml" ] || [ -f "fixtures/$name/Cargo.toml" ] || { say "there is no function $name in $PWD"; exit 64; }
  packages+=(-p "$name")
done

settings=$(./toolchain.sh)
eval "$settings"
# What a user or a CI sets for the runtime's build would replace our link flags (.cargo/config.toml).
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER
export CARGO_TARGET_DIR=$PWD/target
progress=(); [ -t 2 ] || progress=(-q)
say "${names[*]}"
cargo build "${progress[@]}" --release --locked --target wasm32-wasip2 "${packages[@]}" >&2

for name in "${names[@]}"; do
  built=target/wasm32-wasip2/release/${name//-/_}.wasm
  # What it was made from, for `evoke up`: it builds again when one of these is newer. cargo knows the sources, and
  # leaves out its own files.
  crate=$name; [ -d "$crate" ] || crate=fixtures/$name
  sed "1s|\$| $PWD/Cargo.lock $PWD/Cargo.toml $PWD/$crate/Cargo.toml|" "${built%.wasm}.d" >"$out/$name.d"
  # Replaced whole, so that nobody reads half a component; only touched when it is the same, so that it is newer
  # than its sources and the next `evoke up` need not build.
  if cmp -s "$built" "$out/$name.wasm"; then touch "$out/$name.wasm"; else
    cp "$built" "$out/.$name.$$" && mv "$out/.$name.$$" "$out/$name.wasm"
  fi
done
say "${#names[@]} in functions/$out"
