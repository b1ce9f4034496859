//! Reads the names and the validity of an X.509 certificate (RFC 5280). Signatures and trust are not checked here.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The names and the validity of a certificate.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Fields {
    /// The subject's common name.
    pub common_name: Option<String>,
    /// Subject alternative names: host names.
    pub dns: Vec<String>,
    /// Subject alternative names: email addresses.
    pub emails: Vec<String>,
    /// Subject alternative names: URIs.
    pub uris: Vec<String>,
    /// Subject alternative names: IP addresses.
    pub ips: Vec<String>,
    /// The end of the validity, in seconds since the Unix epoch.
    pub not_after: i64,
}

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// The tags `[0]` and `[3]` in a certificate: its version and its extensions.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// The object identifiers 2.5.4.3 and 2.5.29.17.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// Reads the values of a sequence in DER, one after another.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Returns the tag and the content of the next value.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
            if bytes.len() > 4 {
                return None;
            }
            rest = after;
            bytes.iter().fold(0_usize, |length, byte| (length << 8) | usize::from(*byte))
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// Returns the content of the next value, which must have this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    /// Returns the content of the next value if the value has this tag, and consumes nothing otherwise.
    fn optional(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.0.first() == Some(&tag) { self.expect(tag) } else { None }
    }

    /// Returns the identifier at the start of the next sequence, and the rest of the sequence. The sequence is an
    /// attribute of a name, or an extension. The identifier is `None` if the sequence starts with another value.
    fn identified(&mut self) -> Option<(Option<&'a [u8]>, Self)> {
        let mut sequence = Reader(self.optional(SEQUENCE)?);
        Some((sequence.expect(OID), sequence))
    }
}

/// Returns the fields of a certificate; `None` if the bytes are not a certificate.
pub fn fields(certificate: &[u8]) -> Option<Fields> {
    let certificate = Reader(certificate).expect(SEQUENCE)?;
    let mut body = Reader(Reader(certificate).expect(SEQUENCE)?);
    let mut fields = Fields::default();
    body.optional(VERSION);
    body.expect(INTEGER)?; // the serial number
    body.expect(SEQUENCE)?; // the algorithm
    body.expect(SEQUENCE)?; // the issuer
    let mut validity = Reader(body.expect(SEQUENCE)?);
    validity.next()?;
    let (tag, not_after) = validity.next()?;
    fields.not_after = time(tag, not_after)?;
    fields.common_name = common_name(body.expect(SEQUENCE)?);
    while let Some((tag, content)) = body.next() {
        if tag == EXTENSIONS {
            extensions(content, &mut fields);
        }
    }
    Some(fields)
}

/// Returns the last common name of a subject: the most specific one.
fn common_name(subject: &[u8]) -> Option<String> {
    let mut names = Reader(subject);
    let mut found = None;
    while let Some(set) = names.optional(SET) {
        let mut set = Reader(set);
        while let Some((id, mut attribute)) = set.identified() {
            if id == Some(COMMON_NAME)
                && let Some((UTF8_STRING | PRINTABLE_STRING | IA5_STRING, value)) = attribute.next()
            {
                found = text(value);
            }
        }
    }
    found
}

fn extensions(content: &[u8], fields: &mut Fields) {
    let mut all = Reader(Reader(content).expect(SEQUENCE).unwrap_or_default());
    while let Some((id, mut extension)) = all.identified() {
        if id != Some(SUBJECT_ALTERNATIVE_NAME) {
            continue;
        }
        // A Boolean may come first: whether the extension is critical.
        while let Some((tag, value)) = extension.next() {
            if tag == OCTET_STRING {
                alternative_names(value, fields);
            }
        }
    }
}

fn alternative_names(value: &[u8], fields: &mut Fields) {
    let mut names = Reader(Reader(value).expect(SEQUENCE).unwrap_or_default());
    while let Some((tag, value)) = names.next() {
        match tag {
            0x81 => fields.emails.extend(text(value)),
            0x82 => fields.dns.extend(text(value)),
            0x86 => fields.uris.extend(text(value)),
            0x87 => fields.ips.extend(address(value)),
            _ => {}
        }
    }
}

/// Returns a name as text; `None` if it is empty, not UTF-8, or has control characters.
fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

fn address(bytes: &[u8]) -> Option<String> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string()),
        _ => None,
    }
}

/// Parses a time of RFC 5280, section 4.1.2.5: always in UTC, and with seconds. Returns seconds since the Unix epoch.
fn time(tag: u8, value: &[u8]) -> Option<i64> {
    let digits = value.strip_suffix(b"Z")?;
    let number = |from: usize, length: usize| -> Option<i64> {
        let digits = digits.get(from..from + length)?;
        digits.iter().try_fold(0, |number, byte| Some(number * 10 + i64::from(char::from(*byte).to_digit(10)?)))
    };
    let (year, at) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year = number(0, 2)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, 2)
        }
        (GENERALIZED_TIME, 14) => (number(0, 4)?, 4),
        _ => return None,
    };
    let (month, day) = (number(at, 2)?, number(at + 2, 2)?);
    let (hour, minute, second) = (number(at + 4, 2)?, number(at + 6, 2)?, number(at + 8, 2)?);
    if !(1..=12).contains(&month) {
        return None;
    }
    Some(days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Counts the days of the Gregorian calendar from 1970-01-01; in this calculation, a year begins in March, so that the
/// leap day is its last day.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn names_and_validity_are_those_that_the_certificate_was_made_with() {
        let mut params = CertificateParams::new(vec!["a.example".to_owned(), "*.b.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "Zoë");
        let text = |text: &str| rcgen::string::Ia5String::try_from(text).unwrap();
        params.subject_alt_names.extend([
            SanType::Rfc822Name(text("ada@example.com")),
            SanType::URI(text("spiffe://example/ns/a")),
            SanType::IpAddress("192.0.2.7".parse().unwrap()),
            SanType::IpAddress("2001:db8::7".parse().unwrap()),
        ]);
        params.not_after = rcgen::date_time_ymd(2049, 12, 31);
        let key = KeyPair::generate().unwrap();
        let found = fields(params.self_signed(&key).unwrap().der()).unwrap();
        let expected = Fields {
            common_name: Some("Zoë".into()),
            dns: vec!["a.example".into(), "*.b.example".into()],
            emails: vec!["ada@example.com".into()],
            uris: vec!["spiffe://example/ns/a".into()],
            ips: vec!["192.0.2.7".into(), "2001:db8::7".into()],
            not_after: 2_524_521_600,
        };
        assert_eq!(found, expected);
        // From 2050 on, certificates have another format of times.
        params.not_after = rcgen::date_time_ymd(2052, 2, 29);
        assert_eq!(fields(params.self_signed(&key).unwrap().der()).unwrap().not_after, 2_592_777_600);
    }

    #[test]
    fn a_cut_or_changed_certificate_gives_no_panic() {
        let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        for end in 0..der.len() {
            assert_eq!(fields(&der[..end]), None, "{end}");
        }
        for at in 0..der.len() {
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = der.clone();
                changed[at] = value;
                let _ = fields(&changed);
            }
        }
        assert_eq!(fields(b""), None);
        assert_eq!(fields(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn names_with_control_characters_are_left_out() {
        assert_eq!(text(b"a\nb"), None);
        assert_eq!(text(b""), None);
        assert_eq!(text(b"\xff"), None);
        assert_eq!(text(b"a b"), Some("a b".into()));
    }
}
