//! References to component files: a path and an optional SHA-256 digest.

use super::diagnostics::{ValueError, excerpt};
use evoke_model::hex_bytes;
use serde::{Serialize, Serializer};
use std::fmt;
use std::path::PathBuf;

/// Path of a component file, optionally pinned to a digest of its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComponentRef {
    /// Path of the file, resolved against the manifest's folder.
    pub path: PathBuf,
    /// Required SHA-256 digest of the file, if pinned.
    pub sha256: Option<[u8; 32]>,
}

impl ComponentRef {
    /// Parses the path of a `.wasm` or `.wat` file, optionally followed by `@sha256:` and 64 hexadecimal digits.
    /// Does not resolve the path.
    ///
    /// # Errors
    /// Any other text, including a URL.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        if let Some((scheme, _)) = text.split_once("://") {
            let message = format!("`{scheme}://` components are not supported in this version");
            return Err(ValueError::new(message, "write the path of a `.wasm` or `.wat` file"));
        }
        let (path, sha256) = match text.split_once('@') {
            None => (text, None),
            Some((path, digest)) => (path, Some(parse_digest(digest)?)),
        };
        let lower = path.to_ascii_lowercase();
        if !lower.ends_with(".wasm") && !lower.ends_with(".wat") {
            let message =
                format!("`{}` is not a component file: its name does not end in `.wasm` or `.wat`", excerpt(path));
            return Err(ValueError::new(
                message,
                "write the path of the built `.wasm` file; put the build command under `build`",
            ));
        }
        Ok(Self { path: path.into(), sha256 })
    }
}

fn parse_digest(text: &str) -> Result<[u8; 32], ValueError> {
    let error =
        |message: String| ValueError::new(message, "write `@sha256:` and the 64 digits printed by `sha256sum FILE`");
    let Some(digits) = text.strip_prefix("sha256:") else {
        return Err(error(format!("`@{}` is not a supported digest", excerpt(text))));
    };
    if digits.len() != 64 {
        return Err(error(format!(
            "a SHA-256 digest has 64 hexadecimal digits, but this text has {} characters",
            digits.chars().count()
        )));
    }
    hex_bytes(digits).ok_or_else(|| error(format!("`{}` is not hexadecimal", excerpt(digits))))
}

impl fmt::Display for ComponentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(digest) = &self.sha256 {
            write!(f, "@sha256:{}", evoke_model::hex(digest))?;
        }
        Ok(())
    }
}

impl Serialize for ComponentRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_can_be_pinned_to_a_digest() {
        let digest = "0a".repeat(32);
        let text = format!("target/a.wasm@sha256:{digest}");
        let component = ComponentRef::parse(&text).unwrap();
        assert_eq!(component.sha256, Some([10; 32]));
        assert_eq!(component.to_string(), text);
        for text in [
            "a",
            "a.rs",
            "oci://a/b.wasm",
            "a.wasm@",
            "a.wasm@sha256:+a",
            &format!("a.wasm@sha256:{}", "+a".repeat(32)),
        ] {
            assert!(ComponentRef::parse(text).is_err(), "{text}");
        }
    }
}
