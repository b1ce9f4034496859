//! A filter before the HTTP/1 parser, against request smuggling.
//!
//! RFC 9112 lets a server be lenient where two servers in a row may then disagree on where a request ends: a bare
//! line feed as a line end (section 2.2), `Content-Length` beside `Transfer-Encoding` (section 6.3), a repeated
//! `Content-Length`, more than one `Host` (section 3.2). The parser behind this is lenient in these. The filter
//! follows the framing of requests and says where one becomes ambiguous; [`super::stream`] lets nothing through from
//! there on.

/// The longest name and value of a header that decide on framing, with room to see that one is longer.
const LINE_MAX: usize = 64;
const HTTP_11: u64 = u64::from_be_bytes(*b"HTTP/1.1");

/// Where in the requests of a connection the bytes have come to.
#[derive(Default)]
pub(super) struct Strict {
    place: Place,
    line: Line,
    head: Head,
    /// Whether a request was seen: the preface of HTTP/2 can only be the first.
    served: bool,
}

#[derive(Default, Clone, Copy)]
enum Place {
    #[default]
    RequestLine,
    Headers,
    /// Bytes of the body that follow.
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// HTTP/2 is framed without ambiguity.
    Http2,
}

/// What the current line holds, without its end.
#[derive(Default)]
struct Line {
    /// Its first [`LINE_MAX`] bytes.
    start: Vec<u8>,
    /// How many there are.
    len: usize,
    /// The last 8 of them.
    tail: u64,
    /// Whether a carriage return was last.
    cr: bool,
}

#[derive(Default)]
struct Head {
    http_11: bool,
    hosts: usize,
    content_length: Option<u64>,
    chunked: bool,
}

/// The request is ambiguous.
struct Ambiguous;

impl Strict {
    /// Follows what was read. `Err` says how many of these bytes are good; what follows them is not, ever.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            match self.place {
                Place::Http2 => return Ok(()),
                Place::Body(left) | Place::Chunk(left) => {
                    let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    rest = rest.get(skipped..).unwrap_or_default();
                    let left = left - skipped as u64;
                    self.place = match self.place {
                        Place::Body(_) if left == 0 => Place::RequestLine,
                        Place::Body(_) => Place::Body(left),
                        _ if left == 0 => Place::ChunkEnd,
                        _ => Place::Chunk(left),
                    };
                }
                _ => {
                    if byte != b'\n' {
                        self.line.push(byte);
                    } else if !self.line.cr || self.line_ended().is_err() {
                        return Err(bytes.len() - rest.len());
                    } else {
                        self.line.clear();
                    }
                    rest = after;
                }
            }
        }
        Ok(())
    }

    fn line_ended(&mut self) -> Result<(), Ambiguous> {
        let line = &self.line;
        self.place = match self.place {
            // Empty lines before a request are passed over (RFC 9112, section 2.2).
            Place::RequestLine if line.len == 0 => Place::RequestLine,
            Place::RequestLine if !self.served && line.start == b"PRI * HTTP/2.0" => Place::Http2,
            Place::RequestLine => {
                self.served = true;
                self.head = Head { http_11: line.tail == HTTP_11, ..Head::default() };
                Place::Headers
            }
            Place::Headers if line.len == 0 => self.head.end()?,
            Place::Headers => {
                self.head.header(line)?;
                Place::Headers
            }
            Place::ChunkSize => match chunk_size(&line.start).ok_or(Ambiguous)? {
                0 => Place::Trailers,
                size => Place::Chunk(size),
            },
            Place::ChunkEnd if line.len == 0 => Place::ChunkSize,
            Place::ChunkEnd => return Err(Ambiguous),
            Place::Trailers if line.len == 0 => Place::RequestLine,
            place => place,
        };
        Ok(())
    }
}

impl Line {
    fn push(&mut self, byte: u8) {
        // A carriage return in the middle of a line is refused by the parser: it need not be kept.
        self.cr = byte == b'\r';
        if self.cr {
            return;
        }
        if self.start.len() < LINE_MAX {
            self.start.push(byte);
        }
        self.len += 1;
        self.tail = self.tail << 8 | u64::from(byte);
    }

    fn clear(&mut self) {
        self.start.clear();
        (self.len, self.tail, self.cr) = (0, 0, false);
    }
}

impl Head {
    fn header(&mut self, line: &Line) -> Result<(), Ambiguous> {
        // A folded line (RFC 9112, section 5.2) could hide a header from the next reader.
        if line.start.first().is_some_and(|&byte| matches!(byte, b' ' | b'\t')) {
            return Err(Ambiguous);
        }
        let Some(colon) = line.start.iter().position(|&byte| byte == b':') else { return Ok(()) };
        let (name, value) = line.start.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let whole = line.len == line.start.len();
        if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            if !whole || self.content_length.is_some() {
                return Err(Ambiguous);
            }
            self.content_length = Some(number(value, 10).ok_or(Ambiguous)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if !whole || self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Ambiguous);
            }
            self.chunked = true;
        }
        Ok(())
    }

    /// What follows the head.
    fn end(&self) -> Result<Place, Ambiguous> {
        if self.hosts > 1 || (self.http_11 && self.hosts == 0) {
            return Err(Ambiguous);
        }
        match (self.chunked, self.content_length) {
            (true, Some(_)) => Err(Ambiguous),
            (true, None) => Ok(Place::ChunkSize),
            (false, None | Some(0)) => Ok(Place::RequestLine),
            (false, Some(length)) => Ok(Place::Body(length)),
        }
    }
}

/// The size of a chunk, without its extensions (RFC 9112, section 7.1).
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|&byte| byte == b';').next()?.trim_ascii_end();
    // Fewer than a line keeps: none of them is missing here.
    if digits.len() > 16 {
        return None;
    }
    number(digits, 16)
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    // `from_str_radix` would take a sign.
    if !digits.first()?.is_ascii_hexdigit() {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    /// Passes `text` in one piece and byte by byte, which must agree; whether all of it is good.
    fn passes(text: &str) -> bool {
        let whole = Strict::default().pass(text.as_bytes());
        let mut strict = Strict::default();
        let pieces = text.as_bytes().chunks(1).position(|byte| strict.pass(byte).is_err());
        assert_eq!(whole.err(), pieces, "{text:?}");
        whole.is_ok()
    }

    #[test]
    fn clear_requests_pass_in_a_row() {
        for text in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length:  5 \r\n\r\na\nb\nc",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\n\n\n\n\r\nA \r\n0123456789\r\n0\r\nx: y\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            assert!(passes(text), "{text:?}");
            assert!(passes(&text.repeat(3)), "three times {text:?}");
            assert!(!passes(&format!("{text}\n")), "{text:?} and a bare line feed");
        }
    }

    #[test]
    fn ambiguous_requests_do_not_pass() {
        for text in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000003\r\nabc\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: y\n\r\n",
        ] {
            assert!(!passes(text), "{text:?}");
        }
    }

    #[test]
    fn a_long_header_that_decides_on_nothing_passes() {
        assert!(passes(&format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", "x".repeat(10_000))));
        let padded = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}5\r\n\r\n", "0".repeat(100));
        assert!(!passes(&padded));
    }

    #[test]
    fn http_2_is_left_alone_and_only_at_the_start() {
        assert!(passes("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\n\n\n"));
        assert!(!passes("GET / HTTP/1.0\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\n"));
    }
}
