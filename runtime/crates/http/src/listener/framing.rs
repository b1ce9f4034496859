//! A filter in front of the HTTP/1 parser, against request smuggling.
//!
//! RFC 9112 lets a server accept some malformed requests. A proxy and the server behind it may then disagree about
//! where such a request ends. These requests have a bare line feed as a line end (section 2.2), `Content-Length` beside
//! `Transfer-Encoding` (section 6.3), a repeated `Content-Length`, or a `Host` that is invalid or repeated (section
//! 3.2). The parser behind this filter accepts these requests. The filter follows the framing of requests and reports
//! where a request becomes ambiguous; [`super::stream`] passes on no byte after that point.

use super::host::is_host;

/// The longest accepted line of `Host` and of the headers that decide on framing, in bytes. A host name has at most 253
/// characters.
const LINE_MAX: usize = 288;
const HTTP_11: u64 = u64::from_be_bytes(*b"HTTP/1.1");

/// The framing state of one connection.
#[derive(Default)]
pub(super) struct FramingFilter {
    position: Position,
    line: Line,
    head: Head,
    /// True if the connection has had a request. The preface of HTTP/2 is only valid before the first request.
    had_request: bool,
    /// True if a byte arrived after the end of the last request. Empty lines before a request count, too: otherwise, a
    /// peer that sends only empty lines after a request would keep the connection open for `Limits::keep_alive` and not
    /// for the shorter `Limits::idle`.
    has_begun: bool,
}

#[derive(Default, Clone, Copy)]
enum Position {
    #[default]
    RequestLine,
    Headers,
    /// The number of body bytes that follow.
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// HTTP/2 framing is never ambiguous.
    Http2,
}

/// The current line, without its line end.
#[derive(Default)]
struct Line {
    /// The first [`LINE_MAX`] bytes of the line.
    start: Vec<u8>,
    /// The length of the line in bytes.
    len: usize,
    /// The last 8 bytes of the line.
    tail: u64,
    /// True if the last byte was a carriage return.
    cr: bool,
}

#[derive(Default)]
struct Head {
    http_11: bool,
    hosts: usize,
    content_length: Option<u64>,
    chunked: bool,
}

struct Ambiguous;

impl FramingFilter {
    /// Returns true if a part of the head of a request was read, and the rest is missing.
    pub(super) fn is_in_head(&self) -> bool {
        match self.position {
            Position::RequestLine | Position::Headers => self.has_begun,
            _ => false,
        }
    }

    /// Advances over `bytes`. `Err` contains the number of unambiguous bytes; all bytes after them must be dropped.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            match self.position {
                Position::Http2 => return Ok(()),
                Position::Body(left) | Position::Chunk(left) => {
                    let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    rest = rest.get(skipped..).unwrap_or_default();
                    let left = left - skipped as u64;
                    self.position = match self.position {
                        Position::Body(_) if left == 0 => {
                            self.has_begun = false;
                            Position::RequestLine
                        }
                        Position::Body(_) => Position::Body(left),
                        _ if left == 0 => Position::ChunkEnd,
                        _ => Position::Chunk(left),
                    };
                }
                _ => {
                    self.has_begun = true;
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
        let (line, before) = (&self.line, self.position);
        self.position = match before {
            // Empty lines before a request are skipped (RFC 9112, section 2.2).
            Position::RequestLine if line.len == 0 => Position::RequestLine,
            Position::RequestLine if !self.had_request && line.start == b"PRI * HTTP/2.0" => Position::Http2,
            Position::RequestLine => {
                self.had_request = true;
                self.head = Head { http_11: line.tail == HTTP_11, ..Head::default() };
                Position::Headers
            }
            Position::Headers if line.len == 0 => self.head.end()?,
            Position::Headers => {
                self.head.header(line)?;
                Position::Headers
            }
            Position::ChunkSize => match chunk_size(&line.start).ok_or(Ambiguous)? {
                0 => Position::Trailers,
                size => Position::Chunk(size),
            },
            Position::ChunkEnd if line.len == 0 => Position::ChunkSize,
            Position::ChunkEnd => return Err(Ambiguous),
            Position::Trailers if line.len == 0 => Position::RequestLine,
            position => position,
        };
        if matches!((before, self.position), (Position::Headers | Position::Trailers, Position::RequestLine)) {
            self.has_begun = false;
        }
        Ok(())
    }
}

impl Line {
    fn push(&mut self, byte: u8) {
        // The parser rejects a carriage return in the middle of a line, so the filter need not store it.
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
        // A folded line (RFC 9112, section 5.2) could hide a header from the next server.
        if line.start.first().is_some_and(|&byte| matches!(byte, b' ' | b'\t')) {
            return Err(Ambiguous);
        }
        let Some(colon) = line.start.iter().position(|&byte| byte == b':') else { return Ok(()) };
        let (name, value) = line.start.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let whole = line.len == line.start.len();
        if name.eq_ignore_ascii_case(b"host") {
            if !whole || !is_host(value) {
                return Err(Ambiguous);
            }
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

    /// Returns the position after the head.
    fn end(&self) -> Result<Position, Ambiguous> {
        if self.hosts > 1 || (self.http_11 && self.hosts == 0) {
            return Err(Ambiguous);
        }
        match (self.chunked, self.content_length) {
            (true, Some(_)) => Err(Ambiguous),
            (true, None) => Ok(Position::ChunkSize),
            (false, None | Some(0)) => Ok(Position::RequestLine),
            (false, Some(length)) => Ok(Position::Body(length)),
        }
    }
}

/// Parses the size of a chunk, without its extensions (RFC 9112, section 7.1).
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|&byte| byte == b';').next()?.trim_ascii_end();
    // A `u64` has at most 16 hexadecimal digits. `Line::start` has room for more, so the digits are complete here.
    if digits.len() > 16 {
        return None;
    }
    number(digits, 16)
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    // `from_str_radix` would accept a sign.
    if !digits.first()?.is_ascii_hexdigit() {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes `text` to one filter in one piece and to another filter byte by byte, and checks that both filters agree.
    /// Returns true if the whole text is unambiguous.
    fn is_unambiguous(text: &str) -> bool {
        let whole = FramingFilter::default().advance(text.as_bytes());
        let mut filter = FramingFilter::default();
        let pieces = text.as_bytes().chunks(1).position(|byte| filter.advance(byte).is_err());
        assert_eq!(whole.err(), pieces, "{text:?}");
        whole.is_ok()
    }

    #[test]
    fn unambiguous_requests_pass_one_after_another() {
        for text in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length:  5 \r\n\r\na\nb\nc",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\n\n\n\n\r\nA \r\n0123456789\r\n0\r\nx: y\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            assert!(is_unambiguous(text), "{text:?}");
            assert!(is_unambiguous(&text.repeat(3)), "three times {text:?}");
            assert!(!is_unambiguous(&format!("{text}\n")), "{text:?} and a bare line feed");
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
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a/b\r\n\r\n",
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
            assert!(!is_unambiguous(text), "{text:?}");
        }
    }

    #[test]
    fn a_long_header_without_meaning_for_framing_passes() {
        assert!(is_unambiguous(&format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", "x".repeat(10_000))));
        let padded = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}5\r\n\r\n", "0".repeat(400));
        assert!(!is_unambiguous(&padded));
    }

    #[test]
    fn a_host_may_be_as_long_as_a_name_and_no_longer() {
        let name = |length: usize| format!("GET / HTTP/1.1\r\nHost: {}:65535\r\n\r\n", "a".repeat(length));
        assert!(is_unambiguous(&name(253)));
        assert!(!is_unambiguous(&name(300)));
    }

    #[test]
    fn the_filter_is_in_a_head_from_its_first_byte_to_its_last() {
        let mut filter = FramingFilter::default();
        let text = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
        let in_head: Vec<bool> = text
            .chunks(1)
            .map(|byte| {
                filter.advance(byte).unwrap();
                filter.is_in_head()
            })
            .collect();
        assert!(in_head[..text.len() - 3].iter().all(|in_head| *in_head));
        assert_eq!(in_head[text.len() - 3..], [false; 3]);
    }

    #[test]
    fn http_2_is_not_filtered_and_recognised_only_at_the_start() {
        assert!(is_unambiguous("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\n\n\n"));
        assert!(!is_unambiguous("GET / HTTP/1.0\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\n"));
    }
}
