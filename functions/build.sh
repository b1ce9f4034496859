#!/bin/bash
# build.sh [NAME…]: builds the named functions, or all of them, into functions/target/components/NAME.wasm.
# NAME is a package of this workspace, built for wasm32-wasip2, or for wasm32-wasip1 if its name ends in -p1; or a
# folder with a main.c. Fast if nothing changed, and safe to run several times at once.
# toolchain.sh finds or creates the toolchains, and documents how to choose one.
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
  elif [ ! -f "$folder/Cargo.toml" ]; then say "no function named $name in $PWD"; exit 64
  elif [[ $name == *-p1 ]]; then p1+=("$folder")
  else p2+=("$folder"); fi
done

# Settings that a user or CI makes for the runtime's build would replace the link flags in .cargo/config.toml and the
# profile; without link-time optimisation, the SDK's stand-ins for C symbols are there twice.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER
for setting in ${!CARGO_PROFILE_@}; do unset "$setting"; done
export CARGO_TARGET_DIR=$PWD/target
# The lock file lacks a crate that is new. CI builds with it as it is.
locked=(); [ -z "${CI:-}" ] || locked=(--locked)
progress=(); [ -t 2 ] || progress=(-q)

# place NAME BUILT: copies a component to the output folder. The file is replaced by a rename, so no reader sees half a
# component. An unchanged file is only touched: then it is newer than its sources, and `evoke up` does not build again.
place() {
  if cmp -s "$2" "$out/$1.wasm"; then touch "$out/$1.wasm"; else cp "$2" "$out/.$1.$$" && mv "$out/.$1.$$" "$out/$1.wasm"; fi
}

# rust TARGET FOLDER…
rust() {
  local target=$1 folder name built settings packages=(); shift
  settings=$(./toolchain.sh "$target")
  for folder in "$@"; do packages+=(-p "${folder##*/}"); done
  (eval "$settings"; cargo build "${progress[@]}" --release "${locked[@]}" --target "$target" "${packages[@]}" >&2)
  for folder in "$@"; do
    name=${folder##*/}
    # The file of a program has the package's name; in the file name of a library, hyphens become underscores.
    built=target/$target/release/$name; [ -f "$built.wasm" ] || built=target/$target/release/${name//-/_}
    # The list of sources, for `evoke up`, which builds again if one of them is newer. cargo's list lacks the manifests
    # and the lock file, so they are added.
    sed "1s|\$| $PWD/Cargo.lock $PWD/Cargo.toml $PWD/$folder/Cargo.toml|" "$built.d" >"$out/$name.d"
    place "$name" "$built.wasm"
  done
}
[ ${#p2[@]} = 0 ] || rust wasm32-wasip2 "${p2[@]}"
[ ${#p1[@]} = 0 ] || rust wasm32-wasip1 "${p1[@]}"

[ ${#c[@]} = 0 ] || ./toolchain.sh c
for folder in "${c[@]}"; do
  name=${folder##*/}
  # On Debian, the compiler's runtime library is in a separate package; these programs do not need it.
  clang --target=wasm32-wasi -O2 -s -Wall -Werror -nodefaultlibs -o "target/$name.wasm" "$folder/main.c" -lc
  echo "$PWD/$out/$name.wasm: $PWD/$folder/main.c" >"$out/$name.d"
  place "$name" "target/$name.wasm"
done
[ ${#names[@]} = 1 ] && noun=function || noun=functions
say "${#names[@]} $noun in functions/$out"
