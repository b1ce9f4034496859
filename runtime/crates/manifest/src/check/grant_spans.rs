//! Finds the span of each grant of a function, for checks that run after the manifest is loaded.

use crate::model::GrantSpans;
use crate::parser::{Entry, Node, Value};
use crate::source_text::Span;
use evoke_model::GrantKind::{Config, Http, Publish, Secret, SharedState, State};
use evoke_model::destination::Destination;

/// Returns the spans of the entries of `allow`, and of the secrets of `deliver`. Entries with mistakes are left out.
pub(super) fn grant_spans(allow: Option<&Node>, deliver: Option<&Node>) -> GrantSpans {
    let mut spans = GrantSpans::new();
    let list = |node: Option<&Node>| match node.map(|node| &node.value) {
        Some(Value::List(items)) => items.clone(),
        _ => Vec::new(),
    };
    for item in list(value(allow, "publish")) {
        spans.extend(text(&item).map(|text| (Publish.key(text), item.span)));
    }
    for item in list(value(allow, "http")) {
        let url = text(&item).or_else(|| text(value(Some(&item), "url")?));
        let origin = url.and_then(|url| Destination::parse(url).ok());
        spans.extend(origin.map(|origin| (Http.key(origin.origin()), item.span)));
    }
    spans.extend(entry(allow, "state").map(|entry| (State.key(""), entry.key_span)));
    spans.extend(entry(value(allow, "state"), "shared").map(|entry| (SharedState.key(""), entry.key_span)));
    let keys = |node: Option<&Node>| -> Vec<(String, Span)> {
        entries(node).iter().map(|entry| (entry.key.clone(), entry.key_span)).collect()
    };
    spans.extend(keys(value(allow, "config")).into_iter().map(|(name, span)| (Config.key(name), span)));
    let secrets = [value(allow, "secrets"), value(deliver, "secrets")];
    spans.extend(secrets.into_iter().flat_map(keys).map(|(name, span)| (Secret.key(name), span)));
    spans
}

fn entries(node: Option<&Node>) -> &[Entry] {
    match node.map(|node| &node.value) {
        Some(Value::Map(entries)) => entries,
        _ => &[],
    }
}

fn entry<'a>(node: Option<&'a Node>, key: &str) -> Option<&'a Entry> {
    entries(node).iter().find(|entry| entry.key == key)
}

fn value<'a>(node: Option<&'a Node>, key: &str) -> Option<&'a Node> {
    entry(node, key).map(|entry| &*entry.node)
}

fn text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar(scalar) => Some(&scalar.text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::Registry;

    #[test]
    fn each_grant_has_the_span_of_its_entry() {
        let text = r#"
evoke: 1
app: a
functions:
  f:
    deliver: { url: "https://a.example/", headers: { x: "{secret.D}{secret.S}" }, secrets: { D: { env: D } } }
    on: [{ events: { type: [t] } }]
    allow: { secrets: { S: { env: S } } }
  g:
    component: g.wasm
    build: "true"
    on: [{ events: { type: [t] } }]
    allow:
      publish: ["payment.*", done]
      state: { shared: true }
      http: ["https://b.example:443", { url: "http://*.c.example" }]
      config: { K: 1 }
"#;
        let registry: Registry = Registry::default();
        let checked = crate::load_str(text, Path::new("a.yaml"), &registry).unwrap();
        let shown = |name: &str| -> Vec<(String, &str)> {
            let spans = &checked.manifest.function(name).unwrap().grant_spans;
            let of = |span: &crate::Span| checked.source.text.get(span.start..span.end).unwrap();
            spans.iter().map(|(key, span)| (key.to_string(), of(span))).collect()
        };
        assert_eq!(shown("f"), [("secret D".to_owned(), "D"), ("secret S".to_owned(), "S")]);
        let expected = [
            ("publish done", "done"),
            ("publish payment.*", "\"payment.*\""),
            ("state", "state"),
            ("state shared", "shared"),
            ("http http://*.c.example", "{ url: \"http://*.c.example\" }"),
            ("http https://b.example", "\"https://b.example:443\""),
            ("config K", "K"),
        ];
        assert_eq!(shown("g"), expected.map(|(key, text)| (key.to_owned(), text)));
    }
}
