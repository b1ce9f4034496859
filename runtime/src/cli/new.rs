//! `new`: creates the folder of a function, ready to build and run. The command needs no checkout of Evoke: the
//! templates and the files of the SDKs are part of this program.

mod files;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use clap::{Args, ValueEnum};
use serde_json::json;

use self::files::{Template, template};
use super::text::{BOLD, DIM, print, print_json};
use super::{Common, Failure};
use evoke_manifest::Name;

#[derive(Debug, Args)]
pub(super) struct New {
    /// Name of the function, of its app and of the new folder, such as greeter
    name: String,
    /// Language of the function
    #[arg(long, value_enum)]
    lang: Language,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    /// Rust
    #[value(alias = "rs")]
    Rust,
    /// JavaScript
    #[value(alias = "javascript")]
    Js,
    /// TypeScript
    #[value(alias = "typescript")]
    Ts,
    /// Python
    #[value(alias = "py")]
    Python,
    /// Go
    #[value(alias = "golang")]
    Go,
    /// C
    C,
}

impl New {
    pub(super) fn run(&self, common: &Common) -> Result<(), Failure> {
        let name =
            Name::parse(&self.name).map_err(|wrong| Failure::Usage(format!("{}; {}", wrong.message, wrong.help)))?;
        let template = template(self.lang);
        let folder = Path::new(name.as_str());
        fs::create_dir(folder).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Failure::Failed(format!("{} already exists; use another name", name.as_str())),
            _ => Failure::Failed(format!("cannot create the folder {}: {error}", name.as_str())),
        })?;
        write_files(folder, name.as_str(), &template)
            .map_err(|error| Failure::Failed(format!("cannot write the files of {}: {error}", name.as_str())))?;
        if common.client_args.json {
            return print_json(&json!({ "folder": name.as_str(), "source": template.source }));
        }
        print(&next_steps(name.as_str(), &template))
    }
}

fn write_files(folder: &Path, name: &str, template: &Template) -> std::io::Result<()> {
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)
    };
    for (path, text) in &template.files {
        write(path, &template.fill(name, text))?;
    }
    for (path, text) in template.sdk.iter().flat_map(|files| files.iter()) {
        write(&format!("sdk/{path}"), text)?;
    }
    write("evoke.schema.json", &evoke_manifest::schema::render(&crate::control::registry()))
}

fn next_steps(name: &str, template: &Template) -> String {
    let Template { source, needs, .. } = template;
    let step = |command: &str, note: &str| format!("  {command:<56} {DIM}# {note}{DIM:#}\n");
    let mut text = format!("created {BOLD}{name}{BOLD:#}: edit {source}\n\n");
    text += &step(&format!("cd {name}"), &format!("needs {needs}"));
    text += &step("evoke test", "builds the function and runs the tests in evoke.test.yaml");
    text += &step("evoke up --watch", "starts Evoke with the function; builds it again after each change");
    text += &step("evoke emit --type guest.arrived --data '{\"name\":\"Ada\"}'", "in another terminal: sends an event");
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::manifests;

    #[test]
    fn each_language_has_a_manifest_without_errors() {
        for language in Language::value_variants() {
            let folder = tempfile::tempdir().unwrap();
            write_files(folder.path(), "greeter", &template(*language)).unwrap();
            let (checked, warnings) = manifests::load(&[folder.path().join("evoke.yaml")]).unwrap();
            assert!(warnings.is_empty(), "{language:?}: {}", warnings.plain());
            assert_eq!(checked[0].manifest.functions[0].name.as_str(), "greeter");
            let tests = evoke_manifest::TestFile::load(&folder.path().join("evoke.test.yaml")).unwrap();
            assert_eq!(tests.resolve(&checked[0]).unwrap().len(), 2);
            assert!(folder.path().join(template(*language).source).is_file());
        }
    }

    #[test]
    fn no_placeholder_is_left() {
        for language in Language::value_variants() {
            let template = template(*language);
            for (path, text) in &template.files {
                assert!(!template.fill("greeter", text).contains("{{"), "{language:?}: {path}");
            }
        }
    }
}
