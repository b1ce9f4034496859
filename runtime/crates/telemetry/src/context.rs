//! W3C Trace Context, level 2: the header that continues a trace in another process.

use std::fmt;

use evoke_model::hex_bytes;

/// A valid `traceparent` (section 3.2): the trace, the parent span, and whether the trace is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent {
    /// The trace id; never all zero.
    pub trace_id: [u8; 16],
    /// The id of the parent span; never all zero.
    pub span_id: [u8; 8],
    /// Bit 0: sampled; bit 1: the trace id is random. Undefined bits are cleared.
    pub flags: u8,
}

/// The flags that the specification defines (section 3.2.2.5).
const FLAGS_KNOWN: u8 = 0b11;

impl Traceparent {
    /// Parses the value of a `traceparent` header. Returns `None` when the value is invalid; the trace then restarts
    /// (section 4.3). If the header has a later version than 00, only the fields of version 00 are read.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        let (known, more) = text.split_at_checked(55)?;
        let [version] = lower_hex_bytes::<1>(known.get(..2)?)?;
        let dashes = [2, 35, 52].into_iter().all(|at| known.get(at) == Some(&b'-'));
        let whole = match (version, more) {
            (0xff, _) => false,
            (_, []) => true,
            (0, _) => false,
            (_, [next, ..]) => *next == b'-',
        };
        let trace_id = lower_hex_bytes(known.get(3..35)?)?;
        let span_id = lower_hex_bytes(known.get(36..52)?)?;
        let [flags] = lower_hex_bytes::<1>(known.get(53..)?)?;
        let valid = dashes && whole && trace_id != [0; 16] && span_id != [0; 8];
        valid.then_some(Self { trace_id, span_id, flags: flags & FLAGS_KNOWN })
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace_id, span_id) = (u128::from_be_bytes(self.trace_id), u64::from_be_bytes(self.span_id));
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{:02x}", self.flags)
    }
}

/// Parses exactly `N` bytes of lower-case hexadecimal.
fn lower_hex_bytes<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let text = str::from_utf8(text).ok().filter(|text| !text.bytes().any(|digit| digit.is_ascii_uppercase()))?;
    hex_bytes(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_valid_traceparent_is_written_as_it_was_read() {
        for flags in ["00", "01", "02", "03"] {
            let text = format!("00-{TRACE}-{SPAN}-{flags}");
            assert_eq!(Traceparent::parse(&text).unwrap().to_string(), text);
        }
        let read = Traceparent::parse(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        assert_eq!((read.trace_id[..2].to_vec(), read.span_id[7], read.flags), (vec![0x4b, 0xf9], 0xb7, 1));
    }

    #[test]
    fn undefined_flags_are_cleared() {
        let read = Traceparent::parse(&format!("00-{TRACE}-{SPAN}-fd")).unwrap();
        assert_eq!(read.to_string(), format!("00-{TRACE}-{SPAN}-01"));
    }

    #[test]
    fn a_later_version_may_have_more_fields() {
        for text in [format!("01-{TRACE}-{SPAN}-01"), format!("cc-{TRACE}-{SPAN}-01-what-the-future-brings")] {
            assert_eq!(Traceparent::parse(&text).unwrap().to_string(), format!("00-{TRACE}-{SPAN}-01"));
        }
        assert_eq!(Traceparent::parse(&format!("cc-{TRACE}-{SPAN}-01.more")), None);
    }

    #[test]
    fn an_invalid_traceparent_is_none() {
        let zeros = "0".repeat(32);
        for text in [
            String::new(),
            "00".into(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{SPAN}-0G"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00-{TRACE}_{SPAN}-01"),
            format!("00-{}-{SPAN}0-01", &TRACE[1..]),
            format!(" 00-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-é"),
            "é".repeat(40),
        ] {
            assert_eq!(Traceparent::parse(&text), None, "{text}");
        }
    }
}
