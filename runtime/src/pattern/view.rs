//! What a matcher looks at: an event, borrowed.

/// Attributes that are held without allocating: the eight of CloudEvents 1.0, and as many extensions.
const INLINE: usize = 16;

/// An event's attributes and data, borrowed, as a pattern sees them: attributes are strings at the top, data is the
/// member `data`.
#[derive(Clone, Debug)]
pub struct EventView<'a> {
    inline: [(&'a str, &'a str); INLINE],
    inline_len: usize,
    more: Vec<(&'a str, &'a str)>,
    data: DataView<'a>,
}

/// An event's data, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataView<'a> {
    /// There is none that a pattern can look at.
    None,
    /// JSON text; it is checked when it is matched.
    Json(&'a [u8]),
    /// Text, which a pattern sees as a string.
    Text(&'a str),
}

impl<'a> EventView<'a> {
    /// An event with these attributes, by name: `id`, `source`, `type`, extensions and so on. Of two with one name
    /// the last counts.
    pub fn new(attributes: impl IntoIterator<Item = (&'a str, &'a str)>, data: DataView<'a>) -> Self {
        let mut view = Self { inline: [("", ""); INLINE], inline_len: 0, more: Vec::new(), data };
        for attribute in attributes {
            match view.inline.get_mut(view.inline_len) {
                Some(place) => {
                    *place = attribute;
                    view.inline_len += 1;
                }
                None => view.more.push(attribute),
            }
        }
        view
    }

    /// The attributes in the order they were given.
    pub fn attributes(&self) -> impl Iterator<Item = (&'a str, &'a str)> + '_ {
        self.inline.iter().take(self.inline_len).chain(&self.more).copied()
    }

    /// The data.
    pub fn data(&self) -> DataView<'a> {
        self.data
    }
}

/// Why a text is not an event's JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {position}")]
pub struct MalformedEvent {
    /// Where in the text, in bytes from 0.
    pub position: usize,
    /// What is wrong there.
    pub reason: &'static str,
}
