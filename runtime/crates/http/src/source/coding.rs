//! Decodes compressed request bodies (RFC 9110, section 8.4): `gzip`, `deflate` and `br`.
//!
//! The size of the result is limited by `max_body` of the source. The memory of the result is reserved before the bytes
//! are decoded, and is counted like the memory of the body itself. The time of the work is proportional to the sizes of
//! the body and the result, and other tasks can run in between. The memory of the decoders themselves is bounded by
//! [`BROTLI_KIB`] and [`DEFLATES_KIB`]; a body waits until there is room for its decoder, but not longer than
//! [`WAIT_MAX`]. Sources and peers have shares of this memory, see [`room`].

mod room;

use std::io::{self, BufRead, ErrorKind, Read};
use std::time::Duration;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue};
use http::{HeaderMap, StatusCode};
use tokio::time::timeout;

use self::room::{Held, Room};
use super::memory::{Memory, Owners};
use crate::problem::Problem;
use evoke_manifest::parser::excerpt;

/// The memory for all decoders of brotli at the same time, in KiB. The largest decoder needs 20 MiB.
const BROTLI_KIB: u32 = 24 * 1024;
/// The memory for all decoders of gzip and deflate at the same time, in KiB. This memory is separate, because a single
/// decoder of brotli can use most of [`BROTLI_KIB`].
const DEFLATES_KIB: u32 = 8 * 1024;
/// The memory of a decoder for gzip or deflate, in KiB: the window of 32 KiB, and tables.
const DEFLATE_KIB: u32 = 64;
/// The memory of a decoder for brotli without its window, in KiB: 256 tables of each of three kinds.
const BROTLI_TABLES_KIB: u32 = 4 * 1024;
/// The longest wait for a decoder. The limit is needed because a body that waits is complete, so it keeps its memory
/// even if other bodies need it.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// The number of bytes of a body that are decoded before other tasks can run. The number is small, because a few bytes
/// can define a table that takes microseconds to build.
const INPUT_TURN: usize = 4 * 1024;
/// The most bytes that one call of a decoder adds to the result.
const OUTPUT_STEP: usize = 64 * 1024;
/// The number of bytes that a decoder adds to the result before other tasks can run.
const OUTPUT_TURN: usize = 4 * OUTPUT_STEP;
/// The supported codings, as a client names them in `Content-Encoding`.
const SUPPORTED: &str = "gzip, deflate, br";

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    /// The zlib format (RFC 1950). Raw DEFLATE data (RFC 1951), which some clients send, is also accepted.
    Deflate,
    Brotli,
}

/// Limits the memory of the running decoders; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Decoders {
    brotli: Room,
    deflates: Room,
}

impl Default for Decoders {
    fn default() -> Self {
        Self { brotli: Room::new(BROTLI_KIB), deflates: Room::new(DEFLATES_KIB) }
    }
}

impl Decoders {
    /// Waits until there is room for a decoder of this body. Returns an error after [`WAIT_MAX`].
    async fn acquire(&self, owners: Owners, coding: Coding, body: &[u8]) -> Result<Held, Problem> {
        let (room, kib) = match coding {
            Coding::Gzip | Coding::Deflate => (&self.deflates, DEFLATE_KIB),
            Coding::Brotli => (&self.brotli, BROTLI_TABLES_KIB + (1 << brotli_window_bits(body).saturating_sub(10))),
        };
        let busy = || Problem::later(WAIT_MAX, "too many compressed bodies wait for their decoder; retry later");
        timeout(WAIT_MAX, room.acquire(kib, owners)).await.ok().and_then(Result::ok).ok_or_else(busy)
    }
}

impl Coding {
    /// Returns the coding of a body; `None` for a body that is sent as it is.
    ///
    /// # Errors
    /// 415 with `Accept-Encoding` for an unknown coding, and for more than one header `Content-Encoding`.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let value = if values.next().is_some() { b"(several headers)" } else { value.as_bytes() };
        let name = String::from_utf8_lossy(value).trim().to_ascii_lowercase();
        match name.as_str() {
            "" | "identity" => Ok(None),
            "gzip" | "x-gzip" => Ok(Some(Self::Gzip)),
            "deflate" => Ok(Some(Self::Deflate)),
            "br" => Ok(Some(Self::Brotli)),
            _ => {
                let detail = format!(
                    "the Content-Encoding `{}` is not supported; send the body with one of {SUPPORTED}, or uncompressed",
                    excerpt(&name)
                );
                Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
                    .with_header(ACCEPT_ENCODING, HeaderValue::from_static(SUPPORTED)))
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
        }
    }
}

/// Returns the binary logarithm of the window size that a brotli stream declares (RFC 7932, section 9.1).
fn brotli_window_bits(body: &[u8]) -> u32 {
    let first = body.first().copied().unwrap_or_default();
    match (first & 1, first >> 1 & 7, first >> 4 & 7) {
        (0, ..) => 16,
        (_, 0, 0) => 17,
        (_, 0, n) => 8 + u32::from(n),
        (_, n, _) => 17 + u32::from(n),
    }
}

/// Decodes a body of `owners` to at most `max` bytes. `memory` is the memory permit of the body, which grows by the
/// size of the result. An empty body stays empty.
///
/// # Errors
/// 413 for a larger result, 400 if the body is not valid data of the coding, and 503 if no memory or no decoder is free.
pub(super) async fn decode(
    decoders: &Decoders,
    owners: Owners,
    coding: Coding,
    body: Bytes,
    max: usize,
    memory: &Memory,
) -> Result<Bytes, Problem> {
    if body.is_empty() {
        return Ok(body);
    }
    let _room = decoders.acquire(owners, coding, &body).await?;
    let mut decoder = Decoder::new(coding, &body);
    let malformed =
        |detail: &str| Problem::malformed(format!("the body is not valid {} data: {detail}", coding.name()));
    let mut result: Vec<u8> = Vec::new();
    let (mut length, mut turn) = (0, 0);
    loop {
        if length == result.len() {
            // One byte more than allowed shows that the result is too large.
            let larger = (length * 2).max(body.len()).max(1_024).min(max.saturating_add(1));
            memory.grow(body.len() + larger)?;
            result.reserve_exact(larger - length);
            result.resize(larger, 0);
        }
        let end = result.len().min(length + OUTPUT_STEP);
        let space = result.get_mut(length..end).unwrap_or_default();
        match decoder.read(space).map_err(|Damaged| malformed("it is damaged or incomplete"))? {
            Step::Pause => turn = OUTPUT_TURN,
            Step::End => break,
            Step::Bytes(read) => {
                length += read;
                turn += read;
            }
        }
        if length > max {
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the decompressed body is larger than the {max} bytes that this source accepts (`max_body`)"),
            ));
        }
        if turn >= OUTPUT_TURN {
            turn = 0;
            tokio::task::yield_now().await;
        }
    }
    if decoder.has_rest() {
        return Err(malformed("there are bytes after the end of the data"));
    }
    result.truncate(length);
    Ok(result.into())
}

/// The body is not valid data of its coding. The messages of the decoders are dropped, because they do not help a
/// client.
struct Damaged;

enum Step {
    Bytes(usize),
    /// [`INPUT_TURN`] bytes of the body were decoded, so other tasks can run.
    Pause,
    End,
}

enum Decoder<'b> {
    Gzip(Box<MultiGzDecoder<Paced<'b>>>),
    Zlib(Box<ZlibDecoder<Paced<'b>>>),
    Deflate(Box<DeflateDecoder<Paced<'b>>>),
    Brotli(Box<Brotli<'b>>),
}

impl<'b> Decoder<'b> {
    fn new(coding: Coding, body: &'b [u8]) -> Self {
        // In the zlib format (RFC 1950, section 2.2), the compression method is 8, and the number in the first two
        // bytes is a multiple of 31.
        let is_zlib = matches!(*body, [method, flags, ..]
            if method & 0x0F == 8 && (u16::from(method) << 8 | u16::from(flags)).is_multiple_of(31));
        let paced = Paced { rest: body, turn: INPUT_TURN };
        match coding {
            Coding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(paced))),
            Coding::Deflate if is_zlib => Self::Zlib(Box::new(ZlibDecoder::new(paced))),
            Coding::Deflate => Self::Deflate(Box::new(DeflateDecoder::new(paced))),
            Coding::Brotli => Self::Brotli(Box::new(Brotli::new(body))),
        }
    }

    /// Decodes the next bytes into `space`, which is not empty.
    fn read(&mut self, space: &mut [u8]) -> Result<Step, Damaged> {
        let read = match self {
            Self::Gzip(decoder) => decoder.read(space),
            Self::Zlib(decoder) => decoder.read(space),
            Self::Deflate(decoder) => decoder.read(space),
            Self::Brotli(decoder) => return decoder.read(space),
        };
        match read {
            Ok(0) => Ok(Step::End),
            Ok(read) => Ok(Step::Bytes(read)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Step::Pause),
            Err(_) => Err(Damaged),
        }
    }

    /// Returns true if the body has bytes after the end of the coded data.
    fn has_rest(&self) -> bool {
        match self {
            Self::Gzip(decoder) => !decoder.get_ref().rest.is_empty(),
            Self::Zlib(decoder) => !decoder.get_ref().rest.is_empty(),
            Self::Deflate(decoder) => !decoder.get_ref().rest.is_empty(),
            Self::Brotli(decoder) => decoder.at < decoder.body.len(),
        }
    }
}

/// A body that a decoder reads in parts of [`INPUT_TURN`] bytes. After each part, one read fails with `WouldBlock`, so
/// that other tasks can run. The next read continues after the part.
struct Paced<'b> {
    rest: &'b [u8],
    turn: usize,
}

impl BufRead for Paced<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.turn == 0 {
            self.turn = INPUT_TURN;
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(self.rest.get(..self.turn).unwrap_or(self.rest))
    }

    fn consume(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
        self.turn = self.turn.saturating_sub(count);
    }
}

impl Read for Paced<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

/// A brotli decoder over a whole body. It refuses windows larger than 16 MiB, because only an extension of RFC 7932 has
/// them.
struct Brotli<'b> {
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    body: &'b [u8],
    /// The number of bytes of `body` that were read.
    at: usize,
    made: usize,
    is_done: bool,
}

impl<'b> Brotli<'b> {
    fn new(body: &'b [u8]) -> Self {
        let new = StandardAlloc::default;
        Self { state: BrotliState::new_strict(new(), new(), new()), body, at: 0, made: 0, is_done: false }
    }

    fn read(&mut self, space: &mut [u8]) -> Result<Step, Damaged> {
        if self.is_done {
            return Ok(Step::End);
        }
        let input = self.body.get(..self.at + INPUT_TURN).unwrap_or(self.body);
        let (mut left, mut free, mut written) = (input.len() - self.at, space.len(), 0);
        let result = BrotliDecompressStream(
            &mut left,
            &mut self.at,
            input,
            &mut free,
            &mut written,
            space,
            &mut self.made,
            &mut self.state,
        );
        match result {
            BrotliResult::ResultSuccess => self.is_done = true,
            BrotliResult::NeedsMoreOutput => {}
            BrotliResult::NeedsMoreInput if input.len() < self.body.len() => {}
            BrotliResult::NeedsMoreInput | BrotliResult::ResultFailure => return Err(Damaged),
        }
        Ok(if written == 0 { Step::Pause } else { Step::Bytes(written) })
    }
}

#[cfg(test)]
mod tests;
