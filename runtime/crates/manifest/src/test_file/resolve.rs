//! Finds the function of each test in the manifest, and checks that the manifest grants the settings, secrets and state
//! that the test contains.

use std::collections::BTreeMap;

use super::{Spanned, Test, TestFile};
use crate::Checked;
use crate::diagnostics::{Diagnostic, Diagnostics, excerpt};
use crate::model::Function;
use crate::parser::{join_with_and, join_with_or, nearest};

const ONLY_COMPONENTS: &str = "only functions with a component can be tested";

impl TestFile {
    /// Returns the function of each test, in the order of the tests.
    ///
    /// # Errors
    /// A test names a function, a setting, a secret or state that the manifest does not have.
    pub fn resolve<'m>(&self, checked: &'m Checked) -> Result<Vec<&'m Function>, Diagnostics> {
        let mut found = Vec::new();
        let functions = self.tests.iter().filter_map(|test| {
            let function = self.function(test, checked).map_err(|error| found.push(*error)).ok()?;
            found.extend(self.ungranted(test, function));
            Some(function)
        });
        let functions = functions.collect();
        let diagnostics: Diagnostics = found.into_iter().collect();
        if diagnostics.has_errors() { Err(diagnostics) } else { Ok(functions) }
    }

    fn function<'m>(&self, test: &Test, checked: &'m Checked) -> Result<&'m Function, Box<Diagnostic>> {
        let all = &checked.manifest.functions;
        let names = || all.iter().map(|function| function.name.as_str());
        let error = |span, message: String, help: String| Box::new(self.error_at(span, message, help));
        let (function, span) = match &test.function {
            Some(Spanned { value, span }) => {
                let app = format!("{}/", checked.manifest.app.as_str());
                let name = value.strip_prefix(&app).unwrap_or(value);
                let function = all.iter().find(|function| function.name.as_str() == name);
                let function = function.ok_or_else(|| {
                    let help = match nearest(name, names()) {
                        Some(similar) => format!("write `{similar}`"),
                        None => format!("the manifest has {}", join_with_and(names())),
                    };
                    error(*span, format!("the manifest has no function `{}`", excerpt(value)), help)
                })?;
                (function, *span)
            }
            None => {
                let components: Vec<_> = all.iter().filter(|function| function.component.is_some()).collect();
                match components[..] {
                    [function] => (function, test.name.span),
                    [] => {
                        let message = "the manifest has no function with a component".to_owned();
                        return Err(error(test.name.span, message, ONLY_COMPONENTS.to_owned()));
                    }
                    _ => {
                        let names = join_with_or(components.iter().map(|function| function.name.as_str()));
                        let help = format!("write `function: NAME` in the test or above `tests:`; NAME can be {names}");
                        let message = "the test does not name a function, and the manifest has several functions";
                        return Err(error(test.name.span, message.to_owned(), help));
                    }
                }
            }
        };
        if function.component.is_none() {
            let message = format!("`{}` has no component: it sends events to an endpoint", function.name.as_str());
            return Err(error(span, message, ONLY_COMPONENTS.to_owned()));
        }
        Ok(function)
    }

    /// Returns an error for each setting, secret or state of the test that the manifest does not grant to the function.
    fn ungranted(&self, test: &Test, function: &Function) -> Vec<Diagnostic> {
        let name = function.name.as_str();
        let allow = &function.allow;
        let unknown = |given: &BTreeMap<String, Spanned<String>>, granted: Vec<&str>, section: &str| {
            let ungranted = given.iter().filter(|(key, _)| !granted.contains(&key.as_str()));
            let error = |(key, Spanned { span, .. }): (&String, &Spanned<String>)| {
                let help = match nearest(key, granted.iter().copied()) {
                    Some(similar) => format!("did you mean `{similar}`?"),
                    None => "add it to the manifest, or remove it here".to_owned(),
                };
                self.error_at(*span, format!("`{}` is not in `allow.{section}` of `{name}`", excerpt(key)), help)
            };
            ungranted.map(error).collect::<Vec<_>>()
        };
        let mut found = unknown(&test.config, allow.config.keys().map(String::as_str).collect(), "config");
        found.extend(unknown(&test.secrets, allow.secrets.keys().map(String::as_str).collect(), "secrets"));
        if let (Some(state), None) = (&test.state, allow.state) {
            let help = "add `state: true` to `allow` of this function, or remove `state` from the test";
            found.push(self.error_at(state.span, format!("function `{name}` has no state"), help));
        }
        let reads = &test.recorded.reads;
        if test.state.is_none() && !reads.state.is_empty() && allow.state.is_none() {
            let help = "add `state: true` to `allow` of this function, or remove `recorded.state` from the test";
            found.push(self.error_at(test.name.span, format!("function `{name}` has no state"), help));
        }
        if let Some(state) = &test.shared_state
            && !allow.state.is_some_and(|state| state.shared)
        {
            let help =
                "add `state: { shared: true }` to `allow` of this function, or remove `shared_state` from the test";
            found.push(self.error_at(state.span, format!("function `{name}` cannot use the state of the app"), help));
        }
        found
    }
}
