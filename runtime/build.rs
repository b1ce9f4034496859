//! Builds nothing: a package has build dependencies only if it has a build script. See `Cargo.toml`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
