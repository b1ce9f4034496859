use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use futures_util::FutureExt as _;

use super::*;
use crate::source::memory::Budget;
use evoke_core::bus::Origin;

const OWNERS: Owners = Owners { source: Origin(1), peer: IpAddr::V4(Ipv4Addr::LOCALHOST) };
const TEXT: &[u8] = b"a text that is repeated, a text that is repeated, a text that is repeated";

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// A brotli stream of uncompressed metablocks (RFC 7932, section 9.2), with a window of 16 bits.
fn stored_brotli(data: &[u8]) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.push(0, 1); // WBITS: 16
    for part in data.chunks(1 << 16) {
        bits.push(0, 1); // ISLAST
        bits.push(0, 2); // MNIBBLES: 4
        bits.push(u32::try_from(part.len() - 1).unwrap(), 16);
        bits.push(1, 1); // ISUNCOMPRESSED
        bits.align();
        bits.bytes.extend_from_slice(part);
    }
    bits.push(3, 2); // ISLAST, ISLASTEMPTY
    bits.align();
    bits.bytes
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    open: u32,
    count: u32,
}

impl Bits {
    fn push(&mut self, value: u32, count: u32) {
        for bit in 0..count {
            self.open |= (value >> bit & 1) << self.count;
            self.count += 1;
            if self.count == 8 {
                self.align();
            }
        }
    }

    fn align(&mut self) {
        if self.count > 0 {
            self.bytes.push(u8::try_from(self.open).unwrap());
            (self.open, self.count) = (0, 0);
        }
    }
}

/// Decodes a body. Returns the result, and the number of bytes of memory that the body and the result use together.
async fn run(coding: &str, body: &[u8], max: usize) -> Result<(Bytes, usize), (u16, String)> {
    let budget = Budget::default();
    let memory = budget.register(OWNERS, 0);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_ENCODING, coding.parse().unwrap());
    let body = Bytes::copy_from_slice(body);
    let decoded = match Coding::of(&headers).unwrap() {
        Some(coding) => decode(&Decoders::default(), OWNERS, coding, body, max, &memory).await,
        None => Ok(body),
    };
    decoded.map(|bytes| (bytes, budget.used())).map_err(|problem| (problem.status.as_u16(), problem.detail))
}

#[tokio::test]
async fn each_coding_is_decoded_within_the_limit() {
    let large: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    for data in [TEXT, &large, b"x"] {
        let two_members = [gzip(&data[..1]), gzip(&data[1..])].concat();
        for (coding, body) in [
            ("gzip", gzip(data)),
            ("X-GZIP", two_members),
            ("deflate", zlib(data)),
            ("deflate", deflate(data)),
            ("br", stored_brotli(data)),
        ] {
            let (decoded, held) = run(coding, &body, data.len()).await.unwrap();
            assert!(decoded == data, "{coding} of {} bytes", data.len());
            assert!((body.len() + data.len()..=body.len() + data.len() + 1_024).contains(&held) || data.len() > 1_024);
            let (status, detail) = run(coding, &body, data.len() - 1).await.unwrap_err();
            assert!(status == 413 && detail.contains("decompressed"), "{coding}: {status} {detail}");
        }
        assert_eq!(run("identity", data, 1).await.unwrap().0, data);
    }
    assert_eq!(run("gzip", b"", 1).await.unwrap().0, "");
}

#[tokio::test]
async fn a_bomb_takes_no_more_memory_than_the_limit() {
    let zeros = vec![0; 16 << 20];
    let once = gzip(&zeros);
    let max = 100_000;
    for (coding, body) in [("gzip", once.clone()), ("deflate", zlib(&zeros)), ("br", stored_brotli(&zeros))] {
        assert_eq!(run(coding, &body, max).await.unwrap_err().0, 413);
    }
    // Of a bomb within a bomb, only the outer one is decoded.
    let twice = gzip(&once);
    assert_eq!(run("gzip", &twice, max).await.unwrap().0, once);
    // The time for members and blocks without content is proportional to the size of the body.
    let empty = gzip(b"").repeat(10_000);
    assert_eq!(run("gzip", &empty, max).await.unwrap().0, "");
    let blocks = [b"\x00\x00\x00\xff\xff".repeat(200_000), b"\x03\x00".to_vec()].concat();
    assert_eq!(run("deflate", &blocks, max).await.unwrap().0, "");
}

#[tokio::test]
async fn damaged_incomplete_and_longer_bodies_are_refused() {
    for (coding, body) in
        [("gzip", gzip(TEXT)), ("deflate", zlib(TEXT)), ("deflate", deflate(TEXT)), ("br", stored_brotli(TEXT))]
    {
        for length in 1..body.len() {
            // Raw DEFLATE data has no checksum, but data without its last block is incomplete.
            let result = run(coding, &body[..length], 1_000).await;
            assert_eq!(result.unwrap_err().0, 400, "{coding} cut to {length} bytes");
        }
        let longer = [&body[..], b"more"].concat();
        assert_eq!(run(coding, &longer, 1_000).await.unwrap_err().0, 400, "{coding} with more bytes");
    }
    let mut damaged = gzip(TEXT);
    let at = damaged.len() - 6;
    damaged[at] ^= 1;
    assert_eq!(run("gzip", &damaged, 1_000).await.unwrap_err().0, 400);
    for coding in ["gzip", "deflate", "br"] {
        assert_eq!(run(coding, b"\xff\xff\xffplain", 1_000).await.unwrap_err().0, 400, "{coding}");
    }
}

#[test]
fn unknown_and_several_codings_are_refused_with_the_supported_ones() {
    let of = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_ENCODING, value.parse().unwrap());
        }
        Coding::of(&headers)
    };
    assert_eq!(of(&[]).unwrap(), None);
    assert_eq!(of(&["Identity"]).unwrap(), None);
    assert_eq!(of(&[" br "]).unwrap(), Some(Coding::Brotli));
    for values in [&["zstd"][..], &["gzip, gzip"], &["gzip", "gzip"], &["identity", "gzip"], &["gzip,identity"]] {
        let response = of(values).unwrap_err().response();
        assert_eq!(
            (response.status().as_u16(), response.headers()[ACCEPT_ENCODING].as_bytes()),
            (415, SUPPORTED.as_bytes())
        );
    }
}

#[tokio::test]
async fn a_brotli_window_is_counted_and_a_larger_one_than_the_standard_allows_is_refused() {
    // WBITS: 24, 22, 17, 16, 10.
    for (first, bits) in [(0x0F, 24), (0x0B, 22), (0x01, 17), (0x00, 16), (0x21, 10)] {
        assert_eq!(brotli_window_bits(&[first]), bits);
    }
    let decoders = Decoders::default();
    let largest = decoders.acquire(OWNERS, Coding::Brotli, &[0x0F]).await.unwrap();
    assert_eq!(largest.kib(), 20 * 1024);
    // Decoders of brotli that use all of their memory do not delay gzip.
    let other = Owners { source: Origin(2), ..OWNERS };
    let _rest = decoders.brotli.acquire(4 * 1024, other).await.unwrap();
    assert!(decoders.acquire(OWNERS, Coding::Gzip, &[]).now_or_never().is_some());
    assert!(decoders.acquire(other, Coding::Brotli, &[0x00]).now_or_never().is_none());
    drop(largest);
    // The large window extension: 1 << 30 bytes.
    assert_eq!(run("br", &[0x11, 0x1E, 0, 0, 0, 0], 1_000).await.unwrap_err().0, 400);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_finds_no_decoder_is_refused_after_a_while() {
    let budget = Budget::default();
    let memory = budget.register(OWNERS, 0);
    let decoders = Decoders::default();
    let all = decoders.deflates.acquire(DEFLATES_KIB, OWNERS).await.unwrap();
    let started = tokio::time::Instant::now();
    let run = || decode(&decoders, OWNERS, Coding::Gzip, gzip(TEXT).into(), 1_000, &memory);
    let response = run().await.unwrap_err().response();
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].as_bytes()), (503, &b"5"[..]));
    assert_eq!(started.elapsed().as_secs(), WAIT_MAX.as_secs());
    drop(all);
    assert_eq!(run().await.unwrap(), TEXT);
}
