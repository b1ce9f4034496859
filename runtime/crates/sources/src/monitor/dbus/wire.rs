//! Encodes method calls and parses replies (D-Bus Specification 0.43, "Message Protocol").
//!
//! All numbers are little-endian, as on every machine that Evoke runs on. Values are aligned to their size and
//! structures to 8 bytes, counted from the start of the message.

use std::fmt;

/// The length of the fixed part of a message, before its header fields.
pub(super) const PREFIX_BYTES: usize = 16;
/// Maximum length of a message: enough for a reply with some 10,000 units. The specification allows 128 MiB.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 << 20;

const VERSION: u8 = 1;
/// The type of a method call.
const METHOD_CALL: u8 = 1;
/// The flag of a call that must not start the service if the service is not running.
const NO_AUTO_START: u8 = 2;

/// The codes of header fields.
mod field {
    pub(super) const PATH: u8 = 1;
    pub(super) const INTERFACE: u8 = 2;
    pub(super) const MEMBER: u8 = 3;
    pub(super) const ERROR_NAME: u8 = 4;
    pub(super) const REPLY_SERIAL: u8 = 5;
    pub(super) const DESTINATION: u8 = 6;
    pub(super) const SIGNATURE: u8 = 8;
}

#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Call<'a> {
    pub(in super::super) destination: &'a str,
    pub(in super::super) path: &'a str,
    pub(in super::super) interface: &'a str,
    pub(in super::super) member: &'a str,
    pub(in super::super) arguments: &'a [Argument<'a>],
}

#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Argument<'a> {
    Text(&'a str),
    Texts(&'a [&'a str]),
}

impl Call<'_> {
    /// Returns the bytes of the message. `serial` must not be 0.
    pub(super) fn encode(&self, serial: u32) -> Vec<u8> {
        let mut body = Writer::default();
        let mut signature = String::new();
        for argument in self.arguments {
            match argument {
                Argument::Text(text) => {
                    signature.push('s');
                    body.text(text);
                }
                Argument::Texts(texts) => {
                    signature.push_str("as");
                    body.array(|body| texts.iter().for_each(|text| body.text(text)));
                }
            }
        }
        let mut message = Writer(vec![b'l', METHOD_CALL, NO_AUTO_START, VERSION]);
        message.u32(length(body.0.len()));
        message.u32(serial);
        message.array(|header| {
            for (code, kind, text) in [
                (field::PATH, "o", self.path),
                (field::INTERFACE, "s", self.interface),
                (field::MEMBER, "s", self.member),
                (field::DESTINATION, "s", self.destination),
            ] {
                header.field(code, kind);
                header.text(text);
            }
            if !signature.is_empty() {
                header.field(field::SIGNATURE, "g");
                header.signature(&signature);
            }
        });
        message.align(8);
        message.0.append(&mut body.0);
        message.0
    }
}

/// Converts a length. Lengths here come from settings, which are far smaller than 4 GiB, so none is cut.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[derive(Debug, Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, number: u32) {
        self.align(4);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Writes a string or an object path.
    fn text(&mut self, text: &str) {
        self.u32(length(text.len()));
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(signature.as_bytes());
        self.0.push(0);
    }

    /// Writes the beginning of a header field: its code and the type of its value. The caller writes the value.
    fn field(&mut self, code: u8, kind: &str) {
        self.align(8);
        self.0.push(code);
        self.signature(kind);
    }

    /// Writes the length of an array and then its elements. The first element must not need padding after the length,
    /// as in all arrays of this client. D-Bus does not count such padding in the length, but this function would.
    fn array(&mut self, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let start = self.0.len();
        elements(self);
        let bytes = length(self.0.len() - start).to_le_bytes();
        if let Some(slot) = self.0.get_mut(start - 4..start) {
            slot.copy_from_slice(&bytes);
        }
    }
}

/// Why a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Malformed {
    /// The message violates the format, or its values have other types than expected.
    Format,
    /// The message is longer than [`MESSAGE_BYTES_MAX`].
    TooLong,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format => f.write_str("the bus sent a malformed message"),
            Self::TooLong => write!(f, "the bus sent a message of more than {} MiB", MESSAGE_BYTES_MAX >> 20),
        }
    }
}

/// Returns the length of a message from its first 16 bytes.
pub(super) fn message_bytes(prefix: &[u8; PREFIX_BYTES]) -> Result<usize, Malformed> {
    if prefix[0] != b'l' || prefix[3] != VERSION {
        return Err(Malformed::Format);
    }
    let mut cursor = Cursor { bytes: prefix, at: 4 };
    let body = cursor.u32()? as usize;
    cursor.u32()?;
    let fields = cursor.u32()? as usize;
    let total = PREFIX_BYTES.saturating_add(fields).next_multiple_of(8).saturating_add(body);
    if total > MESSAGE_BYTES_MAX { Err(Malformed::TooLong) } else { Ok(total) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Return,
    Error,
    Other,
}

#[derive(Debug)]
pub(in super::super) struct Message {
    pub(super) kind: Kind,
    /// For a reply: the serial number of its call.
    pub(super) reply_serial: Option<u32>,
    /// The name of the error; empty for other messages.
    pub(super) error_name: String,
    signature: String,
    bytes: Vec<u8>,
    body_at: usize,
}

impl Message {
    /// Parses a whole message.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Self, Malformed> {
        let kind = match bytes.get(1) {
            Some(2) => Kind::Return,
            Some(3) => Kind::Error,
            _ => Kind::Other,
        };
        let mut cursor = Cursor { bytes: &bytes, at: PREFIX_BYTES - 4 };
        let end = PREFIX_BYTES + cursor.u32()? as usize;
        let (mut reply_serial, mut error_name, mut signature) = (None, String::new(), String::new());
        while cursor.at < end {
            cursor.align(8);
            let code = cursor.byte()?;
            match (code, cursor.signature()?) {
                (field::REPLY_SERIAL, "u") => reply_serial = Some(cursor.u32()?),
                (field::ERROR_NAME, "s") => error_name = cursor.text()?.to_owned(),
                (field::SIGNATURE, "g") => signature = cursor.signature()?.to_owned(),
                (_, "s" | "o") => _ = cursor.text()?,
                (_, "g") => _ = cursor.signature()?,
                (_, "u") => _ = cursor.u32()?,
                _ => return Err(Malformed::Format),
            }
        }
        Ok(Self { kind, reply_serial, error_name, signature, body_at: end.next_multiple_of(8), bytes })
    }

    /// Returns the body. Returns an error if the body does not have this signature (the types of its values).
    pub(in super::super) fn body(&self, signature: &str) -> Result<Cursor<'_>, Malformed> {
        if self.signature == signature { Ok(self.any_body()) } else { Err(Malformed::Format) }
    }

    /// Returns the text of an error; empty if the error has no text.
    pub(super) fn error_text(&self) -> String {
        let text = if self.signature.starts_with('s') { self.any_body().text().unwrap_or_default() } else { "" };
        text.to_owned()
    }

    fn any_body(&self) -> Cursor<'_> {
        Cursor { bytes: &self.bytes, at: self.body_at }
    }
}

/// Reads the values of a message one after another.
#[derive(Debug)]
pub(in super::super) struct Cursor<'m> {
    bytes: &'m [u8],
    at: usize,
}

impl<'m> Cursor<'m> {
    fn take(&mut self, count: usize) -> Result<&'m [u8], Malformed> {
        let end = self.at.checked_add(count).ok_or(Malformed::Format)?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed::Format)?;
        self.at = end;
        Ok(taken)
    }

    pub(in super::super) fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.take(1)?.first().copied().ok_or(Malformed::Format)
    }

    pub(in super::super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.align(4);
        let bytes = self.take(4)?.try_into().map_err(|_| Malformed::Format)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Reads a string or an object path.
    pub(in super::super) fn text(&mut self) -> Result<&'m str, Malformed> {
        let bytes = self.u32()? as usize;
        self.terminated(bytes)
    }

    pub(in super::super) fn signature(&mut self) -> Result<&'m str, Malformed> {
        let bytes = usize::from(self.byte()?);
        self.terminated(bytes)
    }

    fn terminated(&mut self, bytes: usize) -> Result<&'m str, Malformed> {
        let text = std::str::from_utf8(self.take(bytes)?).map_err(|_| Malformed::Format)?;
        if self.byte()? == 0 { Ok(text) } else { Err(Malformed::Format) }
    }

    /// Reads an array of structures.
    pub(in super::super) fn structures<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let bytes = self.u32()? as usize;
        self.align(8);
        let end = self.at.checked_add(bytes).ok_or(Malformed::Format)?;
        let mut all = Vec::new();
        while self.at < end {
            self.align(8);
            all.push(read(self)?);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a reply to the call with the serial number 7.
    fn reply(signature: &str, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut content = Writer::default();
        body(&mut content);
        let mut message = Writer(vec![b'l', 2, 0, VERSION]);
        message.u32(length(content.0.len()));
        message.u32(1);
        message.array(|header| {
            header.field(field::REPLY_SERIAL, "u");
            header.u32(7);
            header.field(field::SIGNATURE, "g");
            header.signature(signature);
        });
        message.align(8);
        message.0.append(&mut content.0);
        message.0
    }

    #[test]
    fn a_call_has_the_bytes_of_the_specification() {
        let call = Call { destination: "d.e", path: "/p", interface: "i.f", member: "M", arguments: &[] };
        let expected = b"l\x01\x02\x01\0\0\0\0\x09\0\0\0\x3c\0\0\0\
            \x01\x01o\0\x02\0\0\0/p\0\0\0\0\0\0\
            \x02\x01s\0\x03\0\0\0i.f\0\0\0\0\0\
            \x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0\
            \x06\x01s\0\x03\0\0\0d.e\0\0\0\0\0";
        assert_eq!(call.encode(9), expected);
    }

    #[test]
    fn a_reply_is_read_and_a_cut_one_is_malformed_at_every_byte() {
        let bytes = reply("a(su)", |body| {
            body.u32(20);
            body.align(8);
            body.text("ab");
            body.u32(5);
            body.align(8);
            body.u32(0);
        });
        // The second structure of this reply is incomplete.
        let message = Message::parse(bytes).unwrap();
        assert_eq!((message.kind, message.reply_serial), (Kind::Return, Some(7)));
        let mut read = |cursor: &mut Cursor<'_>| Ok((cursor.text()?.to_owned(), cursor.u32()?));
        assert_eq!(message.body("a(su)").unwrap().structures(&mut read), Err(Malformed::Format));
        assert!(message.body("s").is_err());

        let bytes = reply("s", |body| body.text("systemd"));
        assert_eq!(Message::parse(bytes.clone()).unwrap().body("s").unwrap().text(), Ok("systemd"));
        for cut in 0..bytes.len() {
            let read = Message::parse(bytes[..cut].to_vec());
            let text = read.and_then(|message| message.body("s")?.text().map(str::to_owned));
            assert!(text.is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn no_bytes_cause_a_panic_or_an_endless_loop() {
        let bytes = reply("a(su)", |body| {
            body.u32(12);
            body.align(8);
            body.text("ab");
            body.u32(5);
        });
        for at in 0..bytes.len() {
            for value in [0, 1, 8, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                if let Ok(message) = Message::parse(changed) {
                    let read = |cursor: &mut Cursor<'_>| Ok((cursor.text()?.len(), cursor.u32()?));
                    let _ = message.body("a(su)").and_then(|mut body| body.structures(read));
                }
            }
        }
    }

    #[test]
    fn the_length_is_checked_before_a_message_is_read() {
        let prefix = |body: u32, fields: u32| {
            let mut prefix = [b'l', 2, 0, VERSION, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
            prefix[4..8].copy_from_slice(&body.to_le_bytes());
            prefix[12..].copy_from_slice(&fields.to_le_bytes());
            prefix
        };
        assert_eq!(message_bytes(&prefix(3, 5)), Ok(27));
        assert_eq!(message_bytes(&prefix(u32::MAX, u32::MAX)), Err(Malformed::TooLong));
        assert_eq!(message_bytes(&prefix(4 << 20, 0)), Err(Malformed::TooLong));
        let mut other = prefix(0, 0);
        other[0] = b'B';
        assert_eq!(message_bytes(&other), Err(Malformed::Format));
    }
}
