//! The input of the matcher: borrowed views of an event's attributes and data.

/// The number of attributes that a view holds without an allocation. A CloudEvent has about ten attributes of its own,
/// so there is room for some extensions.
const INLINE_MAX: usize = 16;

/// A borrowed view of an event. Patterns see each attribute as a top-level field with a string, and the data as the
/// field `data`.
#[derive(Clone, Debug)]
pub struct EventView<'a> {
    inline: [(&'a str, &'a str); INLINE_MAX],
    len: usize,
    more: Vec<(&'a str, &'a str)>,
    data: DataView<'a>,
}

impl<'a> EventView<'a> {
    /// Makes a view from attributes and data. An attribute is a pair of name and value: `id`, `source`, `type`,
    /// `subject`, `time` or an extension. If two attributes have the same name, the last one counts. For more than 16
    /// attributes the view allocates memory.
    pub fn new(attributes: impl IntoIterator<Item = (&'a str, &'a str)>, data: DataView<'a>) -> Self {
        let mut view = Self { inline: [("", ""); INLINE_MAX], len: 0, more: Vec::new(), data };
        for attribute in attributes {
            match view.inline.get_mut(view.len) {
                Some(slot) => {
                    *slot = attribute;
                    view.len += 1;
                }
                None => view.more.push(attribute),
            }
        }
        view
    }

    /// The attributes as pairs of name and value, in the order given to [`EventView::new`], with any duplicates.
    pub fn attributes(&self) -> impl Iterator<Item = (&'a str, &'a str)> + '_ {
        self.inline.iter().take(self.len).chain(&self.more).copied()
    }

    /// The data as given to [`EventView::new`].
    #[must_use]
    pub fn data(&self) -> DataView<'a> {
        self.data
    }

    /// The value of the attribute at an index of [`EventView::attributes`]; empty when out of range.
    pub(super) fn attribute(&self, index: u32) -> &'a str {
        let index = index as usize;
        let attribute = if index < self.len { self.inline.get(index) } else { self.more.get(index - self.len) };
        attribute.map_or("", |(_, value)| value)
    }
}

/// The data of an event, which patterns see as the field `data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataView<'a> {
    /// The event has no data, or data that is neither JSON nor text, such as binary data. For patterns, the field
    /// `data` is absent.
    None,
    /// The bytes of a JSON text; the field `data` has its value. If an object has two members with the same name, the
    /// last one counts, as in JavaScript, Python and serde_json. So a pattern is matched against the same values that a
    /// consumer gets when it parses the data.
    Json(&'a [u8]),
    /// Text that is not JSON; the field `data` is this string.
    Text(&'a str),
}

/// Converts an event. Patterns do not see binary data. The field `principal` is the verified sender of the event, and
/// an attribute with this name is ignored.
#[cfg(feature = "model")]
impl<'a> From<&'a evoke_model::event::Event> for EventView<'a> {
    fn from(event: &'a evoke_model::event::Event) -> Self {
        use evoke_model::event::{Data, PRINCIPAL};
        let data = match &event.data {
            Data::None | Data::Binary(_) => DataView::None,
            Data::Json(bytes) => DataView::Json(bytes),
            Data::Text(text) => DataView::Text(text),
        };
        // Events in older stores can have an attribute named `principal`.
        let attributes = event.attributes().filter(|(name, _)| *name != PRINCIPAL);
        Self::new(attributes.chain(event.principal.as_deref().map(|principal| (PRINCIPAL, principal))), data)
    }
}
