//! Names of guest functions in messages. Names are untrusted: a mangled name of 300 bytes can stand for a name of
//! gigabytes (types that repeat earlier parts of the name), and a name that is not mangled can have any length.

use std::fmt::{self, Write};

/// Length limit of a name in a message, in bytes; longer names are cut.
const NAME_BYTES_MAX: usize = 200;
/// Length limit of a mangled name, in bytes. A longer one is not demangled.
const MANGLED_BYTES_MAX: usize = 4 * 1024;

/// Returns the name of a function for a message. Rust's names are demangled, without their hash. Names of other
/// languages stay as they are.
pub(super) fn readable(name: &str) -> String {
    if name.len() <= MANGLED_BYTES_MAX
        && let Ok(demangled) = rustc_demangle::try_demangle(name)
    {
        let mut text = CutText::default();
        // An error means that the text is full; demangling stops there.
        let _ = write!(text, "{demangled:#}");
        return text.finish();
    }
    let mut text = CutText::default();
    let _ = text.write_str(name);
    text.finish()
}

/// Text of at most [`NAME_BYTES_MAX`] bytes.
#[derive(Default)]
struct CutText {
    text: String,
    is_cut: bool,
}

impl CutText {
    fn finish(mut self) -> String {
        if self.is_cut {
            self.text.push('…');
        }
        self.text
    }
}

impl Write for CutText {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let end = piece.floor_char_boundary(NAME_BYTES_MAX.saturating_sub(self.text.len()));
        self.text.push_str(piece.get(..end).unwrap_or_default());
        self.is_cut |= end < piece.len();
        if self.is_cut { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rust_are_demangled_and_others_stay() {
        for (name, expected) in [
            ("_ZN5guest6charge17h05af221e174051e9E", "guest::charge"),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            ("charge_card", "charge_card"),
            ("_Z3fooIiEvT_", "_Z3fooIiEvT_"),
            ("", ""),
        ] {
            assert_eq!(readable(name), expected);
        }
    }

    /// Returns a symbol of the Itanium C++ ABI in which each part consists of two copies of the previous part.
    fn doubling(parts: u32) -> String {
        let mut name = "_Z1fSt4pairIiiE".to_owned();
        for part in 0..parts {
            let number = char::from_digit(part % 36, 36).unwrap_or('0').to_ascii_uppercase();
            name.push_str(&format!("S0_IS{number}_S{number}_E"));
        }
        name
    }

    #[test]
    fn long_names_are_cut_and_names_that_expand_are_not_expanded() {
        let nested = format!("_RNvC1a{}", "1b".repeat(2_000));
        for name in
            ["x".repeat(1_000_000), "ü".repeat(1_000_000), doubling(30), nested, format!("_ZN{}E", "1a".repeat(1_500))]
        {
            let text = readable(&name);
            assert!(text.len() <= NAME_BYTES_MAX + '…'.len_utf8(), "{}", text.len());
            assert!(name.len() <= NAME_BYTES_MAX || text.ends_with('…'), "{text}");
        }
    }

    /// Rust's v0 symbols have references to earlier parts too: `T … B0_ B0_ E` doubles a type with each level.
    #[test]
    fn a_rust_name_that_expands_to_gigabytes_is_cut() {
        // The name consists of tuples. Both parts of a tuple refer back to the previous tuple. A reference is an offset
        // in base 62, counted from the end of the prefix `_R`.
        let base62 = |mut n: usize| {
            const DIGITS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
            if n == 0 {
                return "_".to_owned();
            }
            n -= 1;
            let mut digits = Vec::new();
            loop {
                digits.insert(0, DIGITS[n % 62]);
                n /= 62;
                if n == 0 {
                    return String::from_utf8(digits).unwrap() + "_";
                }
            }
        };
        let mut name = "_RINvC1a1f".to_owned();
        let mut before = name.len() - 2;
        name.push_str("TmmE");
        for _ in 0..40 {
            let at = name.len() - 2;
            let back = format!("B{}", base62(before));
            name.push_str(&format!("T{back}{back}E"));
            before = at;
        }
        name.push('E');
        assert!(rustc_demangle::try_demangle(&name).is_ok(), "{name}");
        let text = readable(&name);
        assert!(text.starts_with("a::f::<(u32, u32), ((u32, u32), (u32, u32)), ") && text.ends_with('…'), "{text}");
    }
}
