//! Checks and compiles the globs of a files source. A glob that can never match is an error. A glob that is easily
//! misunderstood gets a warning.

use std::path::Path;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use evoke_manifest::parser::{ValueError, excerpt};
use evoke_manifest::paths::has_variable;

/// Maximum length of a glob. Paths are rarely longer, and the cost of compiling a glob grows with its length.
const GLOB_BYTES_MAX: usize = 512;

/// Maximum number of alternatives to which the braces of a glob are expanded. Each alternative is checked. If there are
/// more alternatives, only the glob itself is checked.
const ALTERNATIVES_MAX: usize = 64;

/// Maximum number of pairs of an include glob and an exclude glob for the check [`excluded`]. If there are more, the
/// slow check is skipped. Few manifests have more than ten pairs.
const PAIRS_MAX: usize = 256;

/// The list in the manifest that contains a glob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Include,
    Exclude,
}

fn compile(glob: &str) -> Result<Glob, globset::Error> {
    // An alternative in braces may be empty, as in shells: `*.csv{,.gz}` also matches `a.csv`.
    GlobBuilder::new(glob).literal_separator(true).empty_alternates(true).build()
}

/// Compiles a list of globs.
pub(super) fn set(globs: &[String]) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        set.add(compile(glob)?);
    }
    set.build()
}

/// Returns true if `exclude` matches a path, or a folder that contains the path.
pub(super) fn excludes(exclude: &GlobSet, relative: &Path) -> bool {
    relative.ancestors().filter(|part| !part.as_os_str().is_empty()).any(|part| exclude.is_match(part))
}

/// Returns the glob if it can match the path of a file. With braces, each alternative must be able to match a path.
pub(super) fn parse(text: &str, list: List) -> Result<String, ValueError> {
    if text.len() > GLOB_BYTES_MAX {
        let message = format!("the glob `{}` is longer than {GLOB_BYTES_MAX} bytes", excerpt(text));
        return Err(ValueError::new(message, "write several globs"));
    }
    check(text, list)?;
    for alternative in alternatives(text).iter().filter(|alternative| *alternative != text) {
        check(alternative, list).map_err(|ValueError { message, help }| {
            let message = format!("{message} (this glob is one of the alternatives of `{}`)", excerpt(text));
            ValueError { message, help }
        })?;
    }
    match compile(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => {
            let message = format!("`{}` is not a valid glob: {}", excerpt(text), error.kind());
            Err(ValueError::new(
                message,
                "`*` matches any characters, `**` any folders, `?` one character, `[ab]` one of `a` and `b`, `{a,b}` either text",
            ))
        }
    }
}

/// Expands the braces of a glob, and returns the resulting globs. Returns an empty list if the braces are not closed,
/// or if there are more than [`ALTERNATIVES_MAX`] globs.
fn alternatives(glob: &str) -> Vec<String> {
    expand(&mut glob.chars(), false).unwrap_or_default()
}

/// Expands the rest of a glob. If `within` is true, the rest starts inside braces, and the function stops after their
/// `}`.
fn expand(chars: &mut std::str::Chars<'_>, within: bool) -> Option<Vec<String>> {
    let (mut all, mut current) = (Vec::new(), vec![String::new()]);
    while let Some(char) = chars.next() {
        let ends = match char {
            '{' => expand(chars, true)?,
            ',' | '}' if within => {
                all.append(&mut current);
                if char == '}' {
                    return Some(all);
                }
                current.push(String::new());
                continue;
            }
            '[' => vec![format!("[{}", class(chars))],
            '\\' => vec![char.to_string() + &chars.next().map(String::from).unwrap_or_default()],
            _ => vec![char.to_string()],
        };
        if all.len() + current.len() * ends.len() > ALTERNATIVES_MAX {
            return None;
        }
        current = current.iter().flat_map(|start| ends.iter().map(move |end| format!("{start}{end}"))).collect();
    }
    (!within).then_some(current)
}

/// Reads the rest of a character class, up to its `]`. Braces and commas in it are ordinary characters.
fn class(chars: &mut std::str::Chars<'_>) -> String {
    let mut text = String::new();
    for char in chars.by_ref() {
        text.push(char);
        // A `]` at the start is a character of the class, not its end.
        if char == ']' && !matches!(text.as_str(), "]" | "!]" | "^]") {
            break;
        }
    }
    text
}

/// Returns an error for a glob that can never match the path of a file.
fn check(text: &str, list: List) -> Result<(), ValueError> {
    if let Some(glob) = text.strip_prefix('!') {
        let message = format!("the glob `{}` is not negated: it matches names that begin with `!`", excerpt(text));
        let help = match list {
            List::Include => format!("to leave these files out, write `exclude: [\"{}\"]`", excerpt(glob)),
            List::Exclude => "`exclude` has no exceptions: write `include` with the files to watch".to_owned(),
        };
        return Err(ValueError::new(message, format!("{help}; to match a name that begins with `!`, write `\\!`")));
    }
    let never = |reason: &str, help: String| {
        Err(ValueError::new(format!("the glob `{}` can never match: {reason}", excerpt(text)), help))
    };
    if text.is_empty() {
        return never("it is empty", "remove it, or write `*` for all names".to_owned());
    }
    if text.contains("[/]") {
        return never(
            "a class in brackets never matches `/`",
            format!("write `{}`", excerpt(&text.replace("[/]", "/"))),
        );
    }
    if text.starts_with("~/") || has_variable(text) {
        let help = "remove the folder from the glob, and write it as `path`".to_owned();
        return never("globs are relative to the folder in `path`, and neither `~` nor variables are expanded", help);
    }
    if text.split('/').any(|part| part == "..") {
        return never("`..` is outside the folder", "set `path` to the parent folder".to_owned());
    }
    if let Some((before, after)) = ordinary_escape(text) {
        let message = format!("the glob `{}` has `\\` before an ordinary character", excerpt(text));
        return Err(ValueError::new(
            message,
            format!("between folders, write `/`: `{}`", excerpt(&format!("{before}/{after}"))),
        ));
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let mut plain = parts.join("/");
    if text.ends_with('/') {
        plain = match (parts.last(), list) {
            (Some(&"**"), List::Include) => format!("{plain}/*"),
            (Some(&"**") | None, List::Exclude) => {
                return never(
                    "a path does not end with `/`",
                    "write the name of the folder, as in `**/tmp/**`".to_owned(),
                );
            }
            (None, List::Include) => "**/*".to_owned(),
            _ => format!("{plain}/**"),
        };
    }
    if plain != text {
        let reason = if text.starts_with(['/', '.']) && !text.starts_with("..") {
            "globs are relative to the folder in `path`"
        } else if text.ends_with('/') {
            "a path does not end with `/`"
        } else {
            "in a path, there is always a name between two `/`"
        };
        return never(reason, format!("write `{}`", excerpt(&plain)));
    }
    Ok(())
}

/// Returns the texts before and after the first `\` in front of a character that needs no escape.
fn ordinary_escape(text: &str) -> Option<(&str, &str)> {
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        let is_ordinary = |char: char| char.is_alphanumeric() || matches!(char, '.' | '_' | '-' | ' ' | '~');
        if char == '\\' && chars.next().is_some_and(|(_, escaped)| is_ordinary(escaped)) {
            return Some((text.get(..at)?, text.get(at + 1..)?));
        }
    }
    None
}

/// Returns the message and the help text of a warning if the glob is valid but easily misunderstood.
pub(super) fn advice(text: &str) -> Option<(String, String)> {
    let trimmed = text.trim();
    if trimmed.len() < text.len() {
        let message = format!("the glob `{}` only matches names that begin or end with white space", excerpt(text));
        return Some((message, format!("write `{}`", excerpt(trimmed))));
    }
    if text.contains(['{', '[']) {
        return None;
    }
    let separate: Vec<&str> = text.split([',', ';', '|', ' ']).map(str::trim).filter(|part| !part.is_empty()).collect();
    if separate.len() > 1 && separate.iter().all(|part| part.contains('*')) {
        let message = format!("`{}` is one glob, not {}", excerpt(text), separate.len());
        let list: Vec<_> = separate.iter().map(|part| format!("\"{part}\"")).collect();
        return Some((message, format!("write `[{}]`", excerpt(&list.join(", ")))));
    }
    if let Some(at) = text.find("\\*").filter(|at| *at > 0) {
        let (before, after) = (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default());
        let message = format!("`\\*` in the glob `{}` only matches the character `*`", excerpt(text));
        return Some((message, format!("between folders, write `/`: `{}`", excerpt(&format!("{before}/{after}")))));
    }
    let within = text.split('/').find(|part| part.contains("**") && *part != "**")?;
    let message =
        format!("`**` in `{}` does not match `/`, because there are other characters next to it", excerpt(within));
    let help = match within.strip_prefix("**").filter(|rest| !rest.contains("**")) {
        Some(rest) => format!("for the files of all folders, write `**/*{}`", excerpt(rest)),
        None => "write `**` alone between two `/`, as in `**/*.csv`".to_owned(),
    };
    Some((message, help))
}

/// Returns the indexes of the globs in `include` that can never select a file, because `exclude` excludes all of their
/// files.
pub(super) fn excluded(include: &[String], exclude: &[String]) -> Vec<usize> {
    if exclude.is_empty() || include.len().saturating_mul(exclude.len()) > PAIRS_MAX {
        return Vec::new();
    }
    let Ok(exclude) = set(exclude) else { return Vec::new() };
    let is_excluded = |glob: &String| {
        let alternatives = alternatives(glob);
        let is_excluded = |glob: &String| {
            let mut samples = samples(glob).peekable();
            samples.peek().is_some() && samples.all(|path| excludes(&exclude, Path::new(&path)))
        };
        !alternatives.is_empty() && alternatives.iter().all(is_excluded)
    };
    include.iter().enumerate().filter(|(_, glob)| is_excluded(glob)).map(|(index, _)| index).collect()
}

/// Returns sample paths that a glob without braces matches. The samples differ very much: if another glob matches all
/// samples, it matches all paths of this glob. Returns no samples for a glob with classes or escapes.
fn samples(glob: &str) -> impl Iterator<Item = String> {
    let is_simple = !glob.contains(['[', '\\']);
    let first = (b'a'..=b'z').chain(b'A'..=b'Z').chain(b'0'..=b'9').chain(*b"._-~").map(char::from);
    let names = first.flat_map(|char| [char.to_string(), format!("{char}q7zkx")]);
    let names: Vec<String> = if is_simple { names.filter(|name| name != ".").collect() } else { Vec::new() };
    names.into_iter().flat_map(move |name| {
        let any = name.chars().next().map(String::from).unwrap_or_default();
        let folders = [String::new(), format!("{name}/"), format!("{name}/{name}/")];
        let parts: Vec<&str> = glob.split('/').collect();
        let path = |folders: &String| {
            let (mut path, mut is_last_folder) = (String::new(), false);
            for (index, part) in parts.iter().enumerate() {
                is_last_folder = *part == "**";
                if is_last_folder {
                    path.push_str(folders);
                } else {
                    path.push_str(&part.replace('*', &name).replace('?', &any));
                    path.push_str(if index + 1 < parts.len() { "/" } else { "" });
                }
            }
            if is_last_folder {
                path.push_str(&name);
            }
            path
        };
        folders.iter().map(path).collect::<Vec<String>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(globs: &[&str]) -> Vec<String> {
        globs.iter().map(|glob| (*glob).to_owned()).collect()
    }

    #[test]
    fn a_glob_that_can_never_match_is_an_error_that_says_what_would_be_right() {
        for (glob, message, help) in [
            ("tmp/", "a path does not end with `/`", "write `tmp/**`"),
            ("**/tmp/", "a path does not end with `/`", "write `**/tmp/**`"),
            ("**/", "a path does not end with `/`", "write `**/*`"),
            ("a//b", "a name between two `/`", "write `a/b`"),
            ("a/./b", "a name between two `/`", "write `a/b`"),
            ("a/.", "a name between two `/`", "write `a`"),
            ("./x", "relative to the folder", "write `x`"),
            ("./tmp/", "relative to the folder", "write `tmp/**`"),
            (".//x", "relative to the folder", "write `x`"),
            ("/abs/*.csv", "relative to the folder", "write `abs/*.csv`"),
            ("/", "relative to the folder", "write `**/*`"),
            ("../x", "outside the folder", "parent folder"),
            ("a/../x", "outside the folder", "parent folder"),
            ("~/inbox/*.csv", "relative to the folder", "as `path`"),
            ("$HOME/*.csv", "relative to the folder", "as `path`"),
            ("${HOME}/*.csv", "relative to the folder", "as `path`"),
            ("!*.tmp", "is not negated", "write `exclude: [\"*.tmp\"]`"),
            ("dir\\file.csv", "before an ordinary character", "`dir/file.csv`"),
            ("a[/]b", "never matches `/`", "write `a/b`"),
            // Each alternative in braces is checked.
            ("{tmp/,cache/}", "the glob `tmp/` can never match: a path does not end with `/` (this glob", "`tmp/**`"),
            ("data/{a,../b}/*.csv", "the glob `data/../b/*.csv`", "parent folder"),
            ("{*.csv,/abs/*.csv}", "the glob `/abs/*.csv`", "write `abs/*.csv`"),
            ("{a,{b/,c}}/x", "the glob `b//x`", "write `b/x`"),
            ("{a,~/b}", "the glob `~/b`", "as `path`"),
            ("{!a,b}", "the glob `!a` is not negated", "`exclude: [\"a\"]`"),
            ("{}", "it is empty", "write `*`"),
            ("{,a}", "it is empty", "write `*`"),
            ("", "it is empty", "write `*`"),
        ] {
            let error = parse(glob, List::Include).unwrap_err();
            assert!(error.message.contains(message) && error.help.contains(help), "{glob}: {error:?}");
        }
        for (glob, help) in [("tmp/", "write `tmp/**`"), ("**/", "`**/tmp/**`"), ("!*.csv", "write `include`")] {
            let error = parse(glob, List::Exclude).unwrap_err();
            assert!(error.help.contains(help), "{glob}: {error:?}");
        }
    }

    #[test]
    fn a_glob_that_can_match_is_accepted_and_matches() {
        for (glob, path) in [
            ("*.csv", "a.csv"),
            ("**/*.csv", "a/b/c.csv"),
            ("tmp/**", "tmp/a/b"),
            ("**", "a/b"),
            (".*", ".hidden"),
            ("...", "..."),
            ("a.", "a."),
            ("{a,b}/*.{csv,tsv}", "b/x.tsv"),
            ("[ab]?", "b7"),
            ("\\!important", "!important"),
            ("\\[1\\]", "[1]"),
            ("a b", "a b"),
            ("50$", "50$"),
            ("*.csv{,.gz}", "a.csv"),
            ("*.csv{,.gz}", "a.csv.gz"),
            ("{a,b{c,d}}/[{,}]?", "bd/,y"),
            ("[]{]{a,b}", "{b"),
            ("\\{a,b\\}", "{a,b}"),
        ] {
            assert_eq!(parse(glob, List::Include).as_deref(), Ok(glob));
            assert!(set(&list(&[glob])).unwrap().is_match(path), "{glob}");
            assert_eq!(advice(glob), None, "{glob}");
        }
    }

    #[test]
    fn a_glob_that_seems_to_mean_something_else_gets_a_warning() {
        for (glob, message, help) in [
            ("*.csv ", "white space", "write `*.csv`"),
            (" *.csv", "white space", "write `*.csv`"),
            ("*.csv,*.tsv", "one glob, not 2", "write `[\"*.csv\", \"*.tsv\"]`"),
            ("*.csv; *.tsv | *.txt", "one glob, not 3", "\"*.txt\"]`"),
            ("dir\\*.csv", "only matches the character `*`", "`dir/*.csv`"),
            ("**.csv", "does not match `/`", "write `**/*.csv`"),
            ("data/x**", "does not match `/`", "alone between two `/`"),
        ] {
            parse(glob, List::Include).unwrap();
            let (found, suggested) = advice(glob).unwrap();
            assert!(found.contains(message) && suggested.contains(help), "{glob}: {found}; {suggested}");
        }
    }

    #[test]
    fn an_include_glob_is_excluded_only_if_all_its_files_are() {
        for (include, exclude) in [
            ("*.csv", "*.csv"),
            ("*.csv", "*"),
            ("**/*.csv", "**"),
            ("**/*.csv", "*"),
            ("**/*", "**/*"),
            ("data/*.csv", "data"),
            ("data/*.csv", "data/**"),
            ("data/*.csv", "data/*.c*"),
            ("data/a.csv", "**/*.csv"),
            ("data/**", "data/*"),
            ("a?.csv", "a*"),
            ("*.{csv,tsv}", "*.?sv"),
            ("{a,b}/*", "[ab]"),
        ] {
            assert_eq!(excluded(&list(&[include]), &list(&[exclude])), [0], "{include} {exclude}");
        }
        for (include, exclude) in [
            ("*.csv", "*.tmp"),
            ("**/*.csv", "*.csv"),
            ("**/*", "*.csv"),
            ("**/*", "**/.*"),
            ("**/*", "tmp/**"),
            ("**/*", "[a-z]*"),
            ("**/*", "?"),
            ("**/*", "*/**"),
            ("data/*.csv", "data/a*"),
            ("[ab].csv", "*"),
            ("*.{csv,txt}", "*.?sv"),
            ("*.csv", ""),
        ] {
            assert_eq!(excluded(&list(&[include]), &list(&[exclude])), [0; 0], "{include} {exclude}");
        }
        assert_eq!(excluded(&list(&["*.csv", "**/*.txt", "*.tsv"]), &list(&["*.?sv"])), [0, 2]);
        assert_eq!(excluded(&list(&["**/*"]), &[]), [0; 0]);
    }
}
