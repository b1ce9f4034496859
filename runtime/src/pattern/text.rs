//! What can be asked of a string.

use std::net::IpAddr;

/// A string to look for, as it is or in any case. With `ignore_case`, `text` is folded already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Literal {
    pub(super) text: Box<str>,
    pub(super) ignore_case: bool,
}

impl Literal {
    pub(super) fn new(text: &str, ignore_case: bool) -> Self {
        let text = if ignore_case { text.chars().map(fold).collect() } else { text.into() };
        Self { text, ignore_case }
    }

    pub(super) fn equals(&self, value: &str) -> bool {
        if self.ignore_case { value.chars().map(fold).eq(self.text.chars()) } else { *value == *self.text }
    }

    pub(super) fn is_prefix_of(&self, value: &str) -> bool {
        if !self.ignore_case {
            return value.starts_with(&*self.text);
        }
        let mut rest = value.chars().map(fold);
        self.text.chars().all(|c| rest.next() == Some(c))
    }

    pub(super) fn is_suffix_of(&self, value: &str) -> bool {
        if !self.ignore_case {
            return value.ends_with(&*self.text);
        }
        let mut rest = value.chars().rev().map(fold);
        self.text.chars().rev().all(|c| rest.next() == Some(c))
    }
}

/// A character without its case: its upper case's lower case, so that `ς` is `σ`. A character whose other case is
/// more than one character (`ß`) stands for itself: folding never changes how many there are.
pub(super) fn fold(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    let upper = single(c.to_uppercase()).unwrap_or(c);
    single(upper.to_lowercase()).unwrap_or(upper)
}

fn single(mut chars: impl Iterator<Item = char>) -> Option<char> {
    let first = chars.next();
    if chars.next().is_none() { first } else { None }
}

/// Text with `*` for any run of characters, cut at these: `a*b*c` is `["a", "b", "c"]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wildcard {
    parts: Box<[Box<str>]>,
}

impl Wildcard {
    /// `\*` is an asterisk and `\\` a backslash. The error says what is wrong, and what would be right.
    pub(super) fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        let (mut parts, mut part) = (Vec::new(), String::new());
        let (mut chars, mut after_star) = (text.chars(), false);
        while let Some(c) = chars.next() {
            match c {
                '*' if after_star => {
                    return Err(("`**` says no more than `*`", "write one `*`, or `\\*` for an asterisk itself"));
                }
                '*' => parts.push(std::mem::take(&mut part)),
                '\\' => match chars.next() {
                    Some(escaped @ ('*' | '\\')) => part.push(escaped),
                    _ => {
                        return Err((
                            "a backslash in a wildcard stands before `*` or another backslash",
                            "write `\\\\` for a backslash itself",
                        ));
                    }
                },
                c => part.push(c),
            }
            after_star = c == '*';
        }
        parts.push(part);
        Ok(Self { parts: parts.into_iter().map(String::into_boxed_str).collect() })
    }

    /// Time is linear in both lengths: leftmost finds of the parts between stars are enough, nothing is tried again.
    pub(super) fn matches(&self, value: &str) -> bool {
        let [first, middle @ .., last] = &*self.parts else {
            return self.parts.first().is_some_and(|only| **only == *value);
        };
        let Some(rest) = value.strip_prefix(&**first) else { return false };
        let Some(mut rest) = rest.strip_suffix(&**last) else { return false };
        for part in middle {
            match rest.find(&**part) {
                Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
                None => return false,
            }
        }
        true
    }

    /// The text before the first star and after the last; they are one when there is no star.
    pub(super) fn ends(&self) -> (&str, &str) {
        (self.parts.first().map_or("", |text| text), self.parts.last().map_or("", |text| text))
    }
}

/// A block of IP addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cidr {
    pub(super) network: IpAddr,
    /// How many bits of `network` count.
    pub(super) bits: u8,
}

impl Cidr {
    /// Bits of the address beyond the prefix length are ignored.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (address, bits) = text.split_once('/').ok_or("the `/` and the length of the network part are missing")?;
        let network: IpAddr = address.parse().map_err(|_| "what stands before the `/` is no IP address")?;
        let max = if network.is_ipv4() { 32 } else { 128 };
        let plain = (1..=3).contains(&bits.len()) && bits.bytes().all(|b| b.is_ascii_digit());
        match bits.parse::<u8>() {
            Ok(bits) if plain && bits <= max => Ok(Self { network, bits }),
            _ if max == 32 => Err("what stands after the `/` is no number from 0 to 32"),
            _ => Err("what stands after the `/` is no number from 0 to 128"),
        }
    }

    pub(super) fn contains(&self, value: &str) -> bool {
        // The longest text of an IPv6 address has 45 characters.
        let Some(address) = (value.len() <= 45).then(|| value.parse().ok()).flatten() else { return false };
        let shift = |width: u32| width - u32::from(self.bits).min(width);
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits()).checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits() ^ address.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}
