//! The files of the web console. The binary contains the files of `runtime/console/`; the first request compresses
//! them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::LazyLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use evoke_model::hex;

#[derive(Debug)]
pub(crate) struct Asset {
    pub(crate) media_type: &'static str,
    /// The content, not compressed.
    pub(crate) plain: Bytes,
    /// The content, compressed with gzip.
    pub(crate) gzip: Bytes,
    /// A quoted entity tag: part of the SHA-256 of the content.
    pub(crate) etag: String,
}

/// Returns pairs of the name and the content of files below `runtime/console/`.
macro_rules! files {
    ($($name:literal,)*) => {
        &[$(($name, include_bytes!(concat!("../console/", $name)))),*]
    };
}

/// The files by path below `/console/`.
const FILES: &[(&str, &[u8])] = files![
    "index.html",
    "console.css",
    "icon.svg",
    "app.js",
    "api.js",
    "live.js",
    "route.js",
    "format.js",
    "json.js",
    "parts.js",
    "acts.js",
    "keys.js",
    "views/events.js",
    "views/event.js",
    "views/trace.js",
    "views/functions.js",
    "views/dead.js",
    "views/pending.js",
    "views/flow.js",
    "views/patterns.js",
    "views/sources.js",
    "views/more.js",
    "vendor/preact.js",
    "vendor/hooks.js",
    "vendor/signals.js",
    "vendor/signals-core.js",
    "vendor/htm.js",
    "vendor/dagre.js",
];

static ASSETS: LazyLock<BTreeMap<&'static str, Asset>> =
    LazyLock::new(|| FILES.iter().map(|(name, content)| (*name, asset(name, content))).collect());

/// Returns a file by its path below `/console/`, such as `app.js`.
pub(crate) fn find(name: &str) -> Option<&'static Asset> {
    ASSETS.get(name)
}

fn asset(name: &str, content: &'static [u8]) -> Asset {
    let media_type = match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/javascript; charset=utf-8",
    };
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory does not fail. If the compressed content were empty, the plain content would be sent.
    let gzip = encoder.write_all(content).and_then(|()| encoder.finish()).unwrap_or_default();
    let digest: String = hex(&Sha256::digest(content)).chars().take(32).collect();
    Asset { media_type, plain: Bytes::from_static(content), gzip: gzip.into(), etag: format!("\"{digest}\"") }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    /// Maximum size of all files together, in bytes.
    const TOTAL_BYTES_MAX: usize = 500_000;
    /// Maximum compressed size of the files that the browser loads before it paints, in bytes.
    const FIRST_PAINT_BYTES_MAX: usize = 60_000;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("console")
    }

    fn index() -> String {
        String::from_utf8(find("index.html").unwrap().plain.to_vec()).unwrap()
    }

    /// Returns the files that a page loads, as paths below `/console/`.
    fn named_in(page: &str) -> Vec<String> {
        page.split("\"/console/").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn every_file_of_the_folder_is_served_and_all_of_them_are_small() {
        let mut folders = vec![folder()];
        let mut found = 0;
        while let Some(next) = folders.pop() {
            for entry in std::fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = path.strip_prefix(folder()).unwrap().to_str().unwrap().to_owned();
                if name.starts_with("vendor/LICENSE") || name.ends_with("README.md") {
                    continue;
                }
                assert!(find(&name).is_some(), "{name} is not in FILES");
                found += 1;
            }
        }
        assert_eq!(found, FILES.len());
        let total: usize = FILES.iter().map(|(_, content)| content.len()).sum();
        assert!(total <= TOTAL_BYTES_MAX, "{total} bytes");
    }

    #[test]
    fn the_first_paint_needs_few_bytes() {
        let page = index();
        let mut before_paint = vec!["index.html".to_owned()];
        before_paint.extend(named_in(&page));
        let bytes: usize =
            before_paint.iter().map(|name| find(name).unwrap_or_else(|| panic!("{name}")).gzip.len()).sum();
        assert!(before_paint.len() > 8 && bytes <= FIRST_PAINT_BYTES_MAX, "{bytes} bytes: {before_paint:?}");
        // The page must preload each imported module. Otherwise, the sum above would not include the module.
        for name in before_paint.iter().filter(|name| name.ends_with(".js")) {
            let text = String::from_utf8(find(name).unwrap().plain.to_vec()).unwrap();
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            for quoted in text.split("from").skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"')) {
                let path = quoted.split('"').next().unwrap();
                let Some(imported) = path.strip_prefix("./") else { continue };
                let imported = if folder.is_empty() { imported.to_owned() } else { format!("{folder}/{imported}") };
                assert!(before_paint.contains(&imported), "{name} imports {imported}, which the page does not preload");
            }
        }
    }

    #[test]
    fn the_page_has_no_inline_script_and_no_inline_style() {
        let page = index();
        for tag in page.split('<').filter(|tag| tag.starts_with("script")) {
            assert!(tag.contains("src=\"/console/") && tag.trim_end().ends_with('>'), "{tag}");
        }
        for forbidden in ["<style", " style=", " onload=", " onclick=", "javascript:", "http://", "https://"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        for (name, content) in FILES.iter().filter(|(name, _)| name.ends_with(".js") && !name.starts_with("vendor/")) {
            let text = std::str::from_utf8(content).unwrap();
            for forbidden in ["innerHTML", "eval(", "new Function", "document.write", "https://"] {
                assert!(!text.contains(forbidden), "{name} has {forbidden}");
            }
        }
    }

    #[test]
    fn the_vendored_files_are_those_of_the_list() {
        let list = std::fs::read_to_string(folder().join("vendor/README.md")).unwrap();
        let rows: Vec<Vec<&str>> =
            list.lines().filter(|line| line.starts_with("| `")).map(|row| row.split('`').collect()).collect();
        let vendored: Vec<_> =
            FILES.iter().filter_map(|(name, content)| Some((name.strip_prefix("vendor/")?, content))).collect();
        assert_eq!(rows.len(), vendored.len());
        for (name, content) in vendored {
            let row = rows.iter().find(|row| row[1] == name).unwrap_or_else(|| panic!("{name} is not in the list"));
            assert_eq!(row[row.len() - 2], hex(&Sha256::digest(content)), "{name}");
            assert!(folder().join("vendor").join(row[5]).exists(), "{name} has no licence");
        }
    }

    #[test]
    fn the_compressed_form_has_the_same_content() {
        use std::io::Read as _;
        for (name, content) in FILES {
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(&find(name).unwrap().gzip[..]).read_to_end(&mut text).unwrap();
            assert_eq!(text, *content, "{name}");
        }
        assert!(find("../Cargo.toml").is_none());
    }
}
