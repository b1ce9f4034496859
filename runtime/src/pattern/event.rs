//! An event as the matcher takes it.

/// Attributes that are held without allocating: the ten or so of CloudEvents and as many extensions.
const INLINE: usize = 16;

/// An event as patterns see it: its attributes, each a top-level field with a string, and its data. Borrowed.
#[derive(Clone, Debug)]
pub struct EventView<'a> {
    inline: [(&'a str, &'a str); INLINE],
    len: usize,
    more: Vec<(&'a str, &'a str)>,
    data: DataView<'a>,
}

impl<'a> EventView<'a> {
    /// An event with these attributes, by name: `id`, `source`, `type`, `subject`, `time`, … and extensions. Of two of
    /// the same name the last one counts. More than 16 allocate.
    pub fn new(attributes: impl IntoIterator<Item = (&'a str, &'a str)>, data: DataView<'a>) -> Self {
        let mut view = Self { inline: [("", ""); INLINE], len: 0, more: Vec::new(), data };
        for attribute in attributes {
            match view.inline.get_mut(view.len) {
                Some(place) => {
                    *place = attribute;
                    view.len += 1;
                }
                None => view.more.push(attribute),
            }
        }
        view
    }

    /// The attributes, as they were given.
    pub fn attributes(&self) -> impl Iterator<Item = (&'a str, &'a str)> + '_ {
        self.inline.iter().take(self.len).chain(&self.more).copied()
    }

    /// The data.
    #[must_use]
    pub fn data(&self) -> DataView<'a> {
        self.data
    }

    /// The value of the attribute at an index.
    pub(super) fn attribute(&self, index: u32) -> &'a str {
        let index = index as usize;
        let place = if index < self.len { self.inline.get(index) } else { self.more.get(index - self.len) };
        place.map_or("", |(_, value)| value)
    }
}

/// The data of an event, the field `data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataView<'a> {
    /// There is none that a pattern can look at.
    None,
    /// The bytes of a JSON text: `data` is its value. Of two members of the same name in one object the last one
    /// counts, as in JavaScript, Python and serde_json, so that a function sees what its pattern saw.
    Json(&'a [u8]),
    /// `data` is this string.
    Text(&'a str),
}
