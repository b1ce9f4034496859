//! Checks of the paths in a manifest. A path is used as written: neither `~` nor environment variables are expanded.

use super::diagnostics::{ValueError, excerpt};
use std::path::Path;

/// Checks the text of a path, which is relative to `folder`. A path that exists is always accepted.
///
/// # Errors
/// The path does not exist, and has a form that is probably a mistake: it is written for a shell or for Windows, is a
/// URL, or begins or ends with white space. The help text says what to write instead.
pub fn check_path(folder: &Path, text: &str) -> Result<(), ValueError> {
    let error = |reason: &str, help: String| {
        let message = format!("the path `{}` does not exist: {reason}", excerpt(text));
        Err(ValueError::new(message, help))
    };
    if std::fs::symlink_metadata(folder.join(text)).is_ok() {
        return Ok(());
    }
    if let Some((home, rest)) = text.strip_prefix('~').map(|rest| rest.split_once('/').unwrap_or((rest, ""))) {
        let user = if home.is_empty() { "NAME" } else { home };
        let help = format!(
            "write the absolute path, as in `/home/{user}/{}`; if a name really begins with `~`, write `./{}`",
            excerpt(rest),
            excerpt(text)
        );
        return error("`~` is not expanded", help);
    }
    if has_variable(text) {
        let help = "write the path itself, absolute or relative to the manifest".to_owned();
        return error("environment variables are not expanded", help);
    }
    if let Some((_, path)) = text.split_once("://") {
        return error("it is a URL", format!("write only the path: `{}`", excerpt(path)));
    }
    if text.contains('\\') {
        let written = text.split_once(":\\").map_or(text, |(_, path)| path).replace('\\', "/");
        return error("`\\` does not separate folders", format!("write `{}`", excerpt(&written)));
    }
    let trimmed = text.trim();
    if trimmed.len() < text.len() {
        return error("it begins or ends with white space", format!("write `{}`", excerpt(trimmed)));
    }
    Ok(())
}

/// Returns true if a shell would replace a part of the text, as in `$HOME/inbox`, `${DATA}` or `%TEMP%`.
pub fn has_variable(text: &str) -> bool {
    let is_name = |name: &str| {
        name.starts_with(|char: char| char.is_ascii_alphabetic() || char == '_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    text.split('/').any(|part| {
        part.contains("${")
            || part.strip_prefix('$').is_some_and(is_name)
            || part.strip_prefix('%').and_then(|part| part.strip_suffix('%')).is_some_and(is_name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_a_shell_would_change_is_a_mistake_unless_it_exists() {
        let folder = tempfile::tempdir().unwrap();
        for (text, reason, help) in [
            ("~", "`~` is not expanded", "/home/NAME/"),
            ("~/inbox", "`~` is not expanded", "`/home/NAME/inbox`"),
            ("~ada/inbox", "`~` is not expanded", "`/home/ada/inbox`"),
            ("~tmp", "`~` is not expanded", "`./~tmp`"),
            ("$HOME/inbox", "environment variables", "relative to the manifest"),
            ("data/${NAME}.d", "environment variables", "relative to the manifest"),
            ("%TEMP%/inbox", "environment variables", "relative to the manifest"),
            ("file:///srv/inbox", "it is a URL", "`/srv/inbox`"),
            ("data\\inbox", "`\\` does not separate folders", "`data/inbox`"),
            ("C:\\data\\inbox", "`\\` does not separate folders", "`data/inbox`"),
            ("inbox ", "begins or ends with white space", "`inbox`"),
        ] {
            let error = check_path(folder.path(), text).unwrap_err();
            assert!(error.message.contains(reason) && error.help.contains(help), "{error:?}");
        }
        for text in ["~", "$HOME", "a ", "b\\c"] {
            std::fs::create_dir(folder.path().join(text)).unwrap();
            assert_eq!(check_path(folder.path(), text), Ok(()));
        }
        for text in ["inbox", "./~x", "a$b", "100%", "/srv/inbox", "../in box", "a~"] {
            assert_eq!(check_path(folder.path(), text), Ok(()), "{text}");
        }
    }
}
