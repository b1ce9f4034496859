//! The templates, and the files of the SDKs that they need.

use super::Language;

/// A path in the new folder, and the content of the file.
type File = (&'static str, &'static str);

/// The files of a function in one language.
pub(super) struct Template {
    /// Files of the new folder, with the placeholders that [`Template::fill`] replaces.
    pub(super) files: Vec<File>,
    /// Files for the folder `sdk`.
    pub(super) sdk: Vec<&'static [File]>,
    /// The file that the user edits.
    pub(super) source: &'static str,
    /// The programs that the build needs.
    pub(super) needs: &'static str,
    // The values of the placeholders with the same names.
    component: &'static str,
    build: &'static str,
    memory: &'static str,
}

impl Template {
    /// Returns the text with values in place of the placeholders, such as `{{name}}`.
    pub(super) fn fill(&self, name: &str, text: &str) -> String {
        [
            ("{{name}}", name),
            ("{{component}}", self.component),
            ("{{build}}", self.build),
            ("{{memory}}", self.memory),
            ("{{dependencies}}", &sdk_dependencies()),
        ]
        .iter()
        .fold(text.to_owned(), |text, (placeholder, value)| text.replace(placeholder, value))
    }
}

/// Returns the paths and contents of files below a folder of the repository, as a list of [`File`].
macro_rules! files {
    ($folder:literal: $($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../../", $folder, "/", $path)))),*]
    };
}

/// Returns the content of a file below `runtime/templates`.
macro_rules! template_file {
    ($path:literal) => {
        include_str!(concat!("../../../templates/", $path))
    };
}

const WIT: &[File] = files!("sdk":
    "wit/function.wit",
    "wit/deps/wasi-clocks/package.wit",
    "wit/deps/wasi-config/package.wit",
    "wit/deps/wasi-http/package.wit",
    "wit/deps/wasi-io/package.wit",
    "wit/deps/wasi-keyvalue/package.wit",
    "wit/deps/wasi-logging/package.wit",
    "wit/deps/wasi-random/package.wit",
);

const JS: &[File] = files!("sdk/js":
    "build.mjs",
    "index.d.ts",
    "package.json",
    "src/config.js",
    "src/crypto.js",
    "src/event.js",
    "src/failure.js",
    "src/globals.js",
    "src/handler.js",
    "src/http.js",
    "src/index.js",
    "src/jobs.js",
    "src/log.js",
    "src/poll.js",
    "src/promise.js",
    "src/publish.js",
    "src/stack.js",
    "src/state.js",
    "src/timers.js",
    "src/url.js",
    "src/utf8.js",
);

const PYTHON: &[File] = files!("sdk/python":
    "build.py",
    "evoke/__init__.py",
    "evoke/_event.py",
    "evoke/_failure.py",
    "evoke/_handler.py",
    "evoke/_publish.py",
    "evoke/config.py",
    "evoke/http.py",
    "evoke/log.py",
    "evoke/state.py",
);

const GO: &[File] = files!("sdk/go":
    "config.go",
    "empty.s",
    "event.go",
    "evoke.go",
    "failure.go",
    "go.mod",
    "http/exchange.go",
    "http/http.go",
    "internal/attempt/attempt.go",
    "internal/bindings/exports/export_evoke_function_handler/handler.go",
    "internal/bindings/exports/wit_exports/wit_exports.go",
    "internal/bindings/imports/evoke_function_bus/empty.s",
    "internal/bindings/imports/evoke_function_bus/wit_bindings.go",
    "internal/bindings/imports/evoke_function_handler/empty.s",
    "internal/bindings/imports/evoke_function_handler/wit_bindings.go",
    "internal/bindings/imports/evoke_function_types/empty.s",
    "internal/bindings/imports/evoke_function_types/wit_bindings.go",
    "internal/bindings/imports/wasi_clocks_monotonic_clock/empty.s",
    "internal/bindings/imports/wasi_clocks_monotonic_clock/wit_bindings.go",
    "internal/bindings/imports/wasi_config_store/empty.s",
    "internal/bindings/imports/wasi_config_store/wit_bindings.go",
    "internal/bindings/imports/wasi_http_outgoing_handler/empty.s",
    "internal/bindings/imports/wasi_http_outgoing_handler/wit_bindings.go",
    "internal/bindings/imports/wasi_http_types/empty.s",
    "internal/bindings/imports/wasi_http_types/wit_bindings.go",
    "internal/bindings/imports/wasi_io_error/empty.s",
    "internal/bindings/imports/wasi_io_error/wit_bindings.go",
    "internal/bindings/imports/wasi_io_poll/empty.s",
    "internal/bindings/imports/wasi_io_poll/wit_bindings.go",
    "internal/bindings/imports/wasi_io_streams/empty.s",
    "internal/bindings/imports/wasi_io_streams/wit_bindings.go",
    "internal/bindings/imports/wasi_keyvalue_atomics/empty.s",
    "internal/bindings/imports/wasi_keyvalue_atomics/wit_bindings.go",
    "internal/bindings/imports/wasi_keyvalue_store/empty.s",
    "internal/bindings/imports/wasi_keyvalue_store/wit_bindings.go",
    "internal/bindings/imports/wasi_logging_logging/empty.s",
    "internal/bindings/imports/wasi_logging_logging/wit_bindings.go",
    "internal/wit/LICENSE",
    "internal/wit/runtime/empty.s",
    "internal/wit/runtime/realloc.go",
    "internal/wit/runtime/runtime.go",
    "internal/wit/types/option.go",
    "internal/wit/types/result.go",
    "internal/wit/types/tuple.go",
    "internal/wit/types/unit.go",
    "log.go",
    "nethttp/nethttp.go",
    "panic.go",
    "publish.go",
    "snapshot/doc.go",
    "snapshot/empty.s",
    "snapshot/other.go",
    "snapshot/snapshot.go",
    "state/state.go",
);

const GO_TOOLS: &[File] = &[("build.sh", template_file!("go/build.sh"))];

const C: &[File] = files!("sdk/c":
    "builtins.c",
    "evoke.c",
    "evoke.h",
    "guest.c",
    "guest.h",
    "http.c",
    "internal.h",
    "json.c",
    "state.c",
    "stdio.c",
);

const C_TOOLS: &[File] = &[("build.sh", template_file!("c/build.sh"))];

const RUST: &[File] = files!("sdk":
    "rust/Cargo.toml",
    "rust/macros/Cargo.toml",
    "rust/macros/src/expand.rs",
    "rust/macros/src/lib.rs",
    "rust/src/argument.rs",
    "rust/src/bindings.rs",
    "rust/src/bus.rs",
    "rust/src/change.rs",
    "rust/src/config.rs",
    "rust/src/event.rs",
    "rust/src/failure.rs",
    "rust/src/http.rs",
    "rust/src/http/exchange.rs",
    "rust/src/http/response.rs",
    "rust/src/lib.rs",
    "rust/src/log.rs",
    "rust/src/source.rs",
    "rust/src/state.rs",
    "rust/src/stdio.rs",
);

/// The crate `threshold` of the runtime, which the Rust SDK uses.
const THRESHOLD: &[File] = files!("runtime/crates":
    "threshold/Cargo.toml",
    "threshold/src/baseline.rs",
    "threshold/src/counter.rs",
    "threshold/src/flap.rs",
    "threshold/src/level.rs",
    "threshold/src/lib.rs",
    "threshold/src/machine.rs",
    "threshold/src/machine/tests.rs",
);

const RUST_TOOLS: &[File] = &[
    ("build.sh", include_str!("../../../templates/rust/build.sh")),
    ("toolchain.sh", include_str!("../../../../functions/toolchain.sh")),
];

pub(super) fn template(language: Language) -> Template {
    let common: [File; 2] = [
        ("evoke.yaml", template_file!("common/evoke.yaml")),
        ("evoke.test.yaml", template_file!("common/evoke.test.yaml")),
    ];
    let with = |files: &[File]| [&common, files].concat();
    match language {
        Language::Js => Template {
            files: with(&[
                ("function.js", template_file!("js/function.js")),
                ("package.json", template_file!("js/package.json")),
                ("tsconfig.json", template_file!("js/tsconfig.json")),
                (".gitignore", template_file!("js/gitignore")),
            ]),
            sdk: vec![WIT, JS],
            source: "function.js",
            needs: "Node.js and npm; the first build downloads two packages",
            component: "./function.wasm",
            build: "node sdk/build.mjs function.js",
            memory: "32MiB",
        },
        Language::Ts => {
            let js = template(Language::Js);
            let is_source = |file: &File| file.0 == js.source;
            let others = js.files.iter().copied().filter(|file| !is_source(file));
            Template {
                files: others.chain([("function.ts", template_file!("ts/function.ts"))]).collect(),
                source: "function.ts",
                build: "node sdk/build.mjs function.ts",
                ..js
            }
        }
        Language::Python => Template {
            files: with(&[
                ("function.py", template_file!("python/function.py")),
                ("requirements.txt", template_file!("python/requirements.txt")),
                ("pyrightconfig.json", template_file!("python/pyrightconfig.json")),
                (".gitignore", template_file!("python/gitignore")),
            ]),
            sdk: vec![WIT, PYTHON],
            source: "function.py",
            needs: "Python 3.9 or later with pip; the first build downloads componentize-py",
            component: "./function.wasm",
            build: "python3 sdk/build.py function.py",
            memory: "64MiB",
        },
        Language::Go => Template {
            files: with(&[
                ("main.go", template_file!("go/main.go")),
                ("go.mod", template_file!("go/go.mod")),
                (".gitignore", template_file!("go/gitignore")),
            ]),
            sdk: vec![GO, GO_TOOLS],
            source: "main.go",
            needs: "Go 1.27 or later",
            component: "./function.wasm",
            build: "sh sdk/build.sh",
            memory: "64MiB",
        },
        Language::C => Template {
            files: with(&[
                ("function.c", template_file!("c/function.c")),
                (".gitignore", template_file!("c/gitignore")),
            ]),
            sdk: vec![C, C_TOOLS],
            source: "function.c",
            needs: "the Debian packages clang, lld and wasi-libc, or the WASI SDK in WASI_SDK_PATH",
            component: "./function.wasm",
            build: "sh sdk/build.sh",
            memory: "16MiB",
        },
        Language::Rust => Template {
            files: with(&[
                ("src/lib.rs", template_file!("rust/src/lib.rs")),
                ("Cargo.toml", template_file!("rust/Cargo.toml")),
                (".cargo/config.toml", include_str!("../../../../functions/.cargo/config.toml")),
                (".gitignore", template_file!("rust/gitignore")),
            ]),
            sdk: vec![WIT, RUST, THRESHOLD, RUST_TOOLS],
            source: "src/lib.rs",
            needs: "cargo with rustup, or Debian's rustc; the first build downloads crates and the target wasm32-wasip2",
            component: "./target/wasm32-wasip2/release/function.wasm",
            build: "sh sdk/build.sh",
            memory: "16MiB",
        },
    }
}

/// Returns the dependencies that the crates of the Rust SDK inherit from the workspace, as lines of
/// `[workspace.dependencies]`. The lines are copied from the Cargo.toml of this repository. Paths to crates of the
/// runtime are replaced by paths into the folder `sdk`.
fn sdk_dependencies() -> String {
    let manifests = RUST.iter().filter(|(path, _)| path.ends_with("Cargo.toml")).map(|(_, text)| *text);
    let names: Vec<&str> = manifests
        .flat_map(str::lines)
        .filter_map(|line| line.strip_suffix(".workspace = true"))
        .filter(|name| !["version", "edition", "license", "publish"].contains(name))
        .collect();
    let workspace = include_str!("../../../../Cargo.toml").split("[workspace.dependencies]").nth(1).unwrap_or_default();
    let lines = workspace.lines().filter(|line| names.iter().any(|name| line.starts_with(&format!("{name} = "))));
    lines.collect::<Vec<_>>().join("\n").replace("\"runtime/crates/", "\"sdk/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Returns the files in `folder`/`below`, as paths relative to `folder`. Skips folders that builds create.
    fn on_disk(folder: &Path, below: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder.join(below)).unwrap().map(|entry| entry.unwrap());
        let entries = entries.filter(|entry| {
            !["__pycache__", "node_modules", "target"].contains(&&*entry.file_name().to_string_lossy())
        });
        let nested = entries.flat_map(|entry| {
            let path = below.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => on_disk(folder, &path),
                false => vec![path.display().to_string()],
            }
        });
        let mut found: Vec<String> = nested.collect();
        found.sort();
        found
    }

    #[test]
    fn all_files_of_the_sdks_are_listed() {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        for (folder, below, listed) in [
            ("sdk", "wit", WIT),
            ("sdk/js", "", JS),
            ("sdk/python", "", PYTHON),
            ("sdk", "rust", RUST),
            ("runtime/crates", "threshold", THRESHOLD),
            ("sdk/go", "", GO),
            ("sdk/c", "", C),
        ] {
            let mut listed: Vec<String> = listed.iter().map(|(path, _)| (*path).to_owned()).collect();
            listed.sort();
            assert_eq!(listed, on_disk(&root.join(folder), Path::new(below)), "{folder}/{below}");
        }
    }

    #[test]
    fn the_rust_template_has_each_dependency_of_the_sdk() {
        let lines = sdk_dependencies();
        for name in ["wit-bindgen", "serde", "serde_json", "base64", "wasip2", "syn", "quote", "proc-macro2"] {
            assert!(lines.lines().any(|line| line.starts_with(&format!("{name} = "))), "{name}: {lines}");
        }
        let sdk = template(Language::Rust).sdk.concat();
        let folders: Vec<_> = lines.split("path = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(!folders.is_empty(), "{lines}");
        for folder in folders {
            let manifest = format!("{folder}/Cargo.toml");
            assert!(sdk.iter().any(|(path, _)| format!("sdk/{path}") == manifest), "{manifest}");
        }
    }
}
