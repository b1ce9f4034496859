//! Take-overs: a renamed function gets the data that is stored under one of its earlier names.

use crate::Json;

/// The earlier and the present name of a function. Both are full names, `app/function`, in the same app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeOver {
    /// The earlier name.
    pub from: String,
    /// The present name.
    pub to: String,
}

impl TakeOver {
    /// If a text begins with the URI of a private source of the function, such as `/shop/charge/timer-1`, returns the
    /// text with the present name in place of the earlier one. Returns `None` for any other text.
    pub fn renamed_uri(&self, text: &str) -> Option<String> {
        let rest = text.strip_prefix('/')?.strip_prefix(&*self.from)?;
        rest.starts_with('/').then(|| format!("/{}{rest}", self.to))
    }

    /// Returns `key`, the key of a mark, with the earlier name replaced by the present name. Returns `None` if the key
    /// does not contain the earlier name. The mark must be in the scope of `names`.
    pub fn renamed_key(&self, names: &MarkNames, key: &str) -> Option<String> {
        let rest = key.strip_prefix(names.prefix)?.strip_prefix(&*self.from)?;
        let is_name = rest.is_empty() || rest.starts_with('/');
        is_name.then(|| format!("{}{}{rest}", names.prefix, self.to))
    }

    /// Returns true if the key of a mark is for the earlier name of the function itself, not for one of its sources.
    pub fn is_name(&self, names: &MarkNames, key: &str) -> bool {
        key.strip_prefix(names.prefix) == Some(&*self.from)
    }

    /// Returns `filter`, the JSON filter of a replay, with the present name in its field `function`. Returns `None` if
    /// this field does not have the earlier name.
    pub fn renamed_filter(&self, filter: &str) -> Option<String> {
        let Json(mut filter) = serde_json::from_str(filter).ok()?;
        let function = filter.get_mut("function").filter(|function| **function == *self.from)?;
        *function = self.to.clone().into();
        Some(filter.to_string())
    }
}

/// A group of marks whose keys contain the name of a function. Each key is `prefix` and the full name of the function.
/// In the key for a source of the function, `/` and more text follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkNames {
    /// The scope of the marks.
    pub scope: &'static str,
    /// The part of the keys before the name of the function.
    pub prefix: &'static str,
}

/// The numbers of deliveries and keys that a function has taken over from an earlier name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenOver {
    /// The earlier name of the function.
    pub from: String,
    /// The present name of the function.
    pub to: String,
    /// The number of pending deliveries: ready, retrying and blocked ones.
    pub pending: u64,
    /// The number of dead letters.
    pub dead: u64,
    /// The number of keys of state.
    pub keys: u64,
}

/// A function that cannot take over state, because state is stored under more than one of its names. Nothing was
/// changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateConflict {
    /// The present name of the function.
    pub to: String,
    /// The names that have state, each with its number of keys; the present name first, if it is among them.
    pub names: Vec<(String, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_as_a_whole_only() {
        let take_over = TakeOver { from: "shop/charge".into(), to: "shop/pay".into() };
        let uri = |text| take_over.renamed_uri(text);
        assert_eq!(uri("/shop/charge/timer-1").as_deref(), Some("/shop/pay/timer-1"));
        assert_eq!(uri("/shop/charge/monitor-1#readings").as_deref(), Some("/shop/pay/monitor-1#readings"));
        assert_eq!(
            [uri("/shop/charge"), uri("/shop/charged/timer-1"), uri("/other/shop/charge/x")],
            [None, None, None]
        );
        let key = |prefix, key| take_over.renamed_key(&MarkNames { scope: "s", prefix }, key);
        assert_eq!(key("", "shop/charge").as_deref(), Some("shop/pay"));
        assert_eq!(key("source ", "source shop/charge/files-1").as_deref(), Some("source shop/pay/files-1"));
        assert_eq!(
            [key("", "shop"), key("", "shop/charge-card"), key("function ", "circuit shop/charge")],
            [const { None }; 3]
        );
        let filter = |text| take_over.renamed_filter(text);
        assert_eq!(filter(r#"{"function":"shop/charge"}"#).as_deref(), Some(r#"{"function":"shop/pay"}"#));
        assert_eq!([filter(r#"{"type":"shop/charge"}"#), filter("{"), filter("[]")], [const { None }; 3]);
    }
}
