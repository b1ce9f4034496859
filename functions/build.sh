#!/bin/bash
# build.sh [NAME…]: builds functions (all of them without a name), functions/target/components/NAME.wasm.
# NAME is a package of this workspace, built for wasm32-wasip2, or wasm32-wasip1 when it ends in -p1; or a folder with
# a main.c. Cheap when nothing changed, and safe when several run at once.
# The toolchains are found or made by toolchain.sh, which also says how to choose them.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "$(readlink -f "$0")")"

say() { echo "build: $*" >&2; }
out=target/components
mkdir -p $out
exec 8>target/.build.lock
flock -n 8 || { say "waiting for another build"; flock 8; }

if [ $# -gt 0 ]; then names=("$@"); else
  names=(); for source in {,fixtures/}*/{Cargo.toml,main.c}; do names+=("$(basename "$(dirname "$source")")"); done
fi
say "${names[*]}"
p2=() p1=() c=()
for name in "${names[@]}"; do
  folder=$name; [ -d "$folder" ] || folder=fixtures/$name
  if [ -f "$folder/main.c" ]; then c+=("$folder")
  elif [ ! -f "$folder/Cargo.toml" ]; then say "there is no function $name in $PWD"; exit 64
  elif [[ $name == *-p1 ]]; then p1+=("$folder")
  else p2+=("$folder"); fi
done

# What a user or a CI sets for the runtime's build would replace our link flags (.cargo/config.toml).
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER
export CARGO_TARGET_DIR=$PWD/target
progress=(); [ -t 2 ] || progress=(-q)

# place NAME BUILT: puts it where it belongs. Replaced whole, so that nobody reads half a component; only touched when
# it is the same, so that it is newer than its sources and the next `evoke up` need not build.
place() {
  if cmp -s "$2" "$out/$1.wasm"; then touch "$out/$1.wasm"; else cp "$2" "$out/.$1.$$" && mv "$out/.$1.$$" "$out/$1.wasm"; fi
}

# rust TARGET FOLDER…
rust() {
  local target=$1 folder name built settings packages=(); shift
  settings=$(./toolchain.sh "$target")
  for folder in "$@"; do packages+=(-p "${folder##*/}"); done
  (eval "$settings"; cargo build "${progress[@]}" --release --locked --target "$target" "${packages[@]}" >&2)
  for folder in "$@"; do
    name=${folder##*/}
    # A program keeps the name of its package, a library has no hyphens.
    built=target/$target/release/$name; [ -f "$built.wasm" ] || built=target/$target/release/${name//-/_}
    # What it was made from, for `evoke up`: it builds again when one of these is newer. cargo knows the sources, and
    # leaves out its own files.
    sed "1s|\$| $PWD/Cargo.lock $PWD/Cargo.toml $PWD/$folder/Cargo.toml|" "$built.d" >"$out/$name.d"
    place "$name" "$built.wasm"
  done
}
[ ${#p2[@]} = 0 ] || rust wasm32-wasip2 "${p2[@]}"
[ ${#p1[@]} = 0 ] || rust wasm32-wasip1 "${p1[@]}"

[ ${#c[@]} = 0 ] || ./toolchain.sh c
for folder in "${c[@]}"; do
  name=${folder##*/}
  # Debian packs the compiler's own library apart; programs of ours do without.
  clang --target=wasm32-wasi -O2 -s -Wall -Werror -nodefaultlibs -o "target/$name.wasm" "$folder/main.c" -lc
  echo "$PWD/$out/$name.wasm: $PWD/$folder/main.c" >"$out/$name.d"
  place "$name" "target/$name.wasm"
done
say "${#names[@]} in functions/$out"
