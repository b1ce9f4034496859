//! Tests with a bus that breaks the protocol.

use tokio::net::UnixListener;

use super::*;

/// Runs a bus that authenticates the client, replies to its first call (`Hello`), and then sends the bytes `sent`.
/// Makes a second call to this bus, and returns its result.
async fn hostile(sent: Vec<u8>) -> Result<Message, CallError> {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("bus")).unwrap();
    let bus = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        for (expected, reply) in [("\0AUTH EXTERNAL\r\n", "DATA\r\n"), ("DATA\r\n", "OK 1234\r\n"), ("BEGIN\r\n", "")] {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            assert_eq!(line, expected);
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
        stream.write_all(&reply(1, "s", b"\x04\0\0\0:1.7\0")).await.unwrap();
        // An error is possible: the client may close the connection before it has read everything.
        let _ = stream.write_all(&sent).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let mut connection = Connection::open(&format!("unix:path={}", folder.path().join("bus").display())).await.unwrap();
    let call = Call { destination: "a.b", path: "/", interface: "a.b", member: "C", arguments: &[] };
    let result = connection.call(&call).await;
    drop(connection);
    bus.await.unwrap();
    result
}

/// Builds a reply to the call with this serial number.
fn reply(serial: u8, signature: &str, body: &[u8]) -> Vec<u8> {
    let mut fields = vec![5, 1, b'u', 0, serial, 0, 0, 0, 8, 1, b'g', 0];
    fields.push(u8::try_from(signature.len()).unwrap());
    fields.extend_from_slice(signature.as_bytes());
    fields.push(0);
    let mut message = vec![b'l', 2, 0, 1];
    message.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    message.extend_from_slice(&[9, 0, 0, 0]);
    message.extend_from_slice(&u32::try_from(fields.len()).unwrap().to_le_bytes());
    message.append(&mut fields);
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend_from_slice(body);
    message
}

fn lost(result: Result<Message, CallError>) -> String {
    match result {
        Err(CallError::Lost(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_reply_that_is_announced_as_huge_is_not_waited_for() {
    let mut huge = reply(2, "s", b"");
    huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(lost(hostile(huge).await).contains("more than 4 MiB"));
}

#[tokio::test]
async fn a_malformed_reply_ends_the_connection_and_an_end_is_no_reply() {
    assert!(lost(hostile(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await).contains("malformed"));
    let whole = reply(2, "s", b"\x02\0\0\0ok\0");
    assert_eq!(hostile(whole.clone()).await.unwrap().body("s").unwrap().text(), Ok("ok"));
    assert!(lost(hostile(whole[..whole.len() - 1].to_vec()).await).contains("closed the connection"));
    assert!(lost(hostile(Vec::new()).await).contains("broke"));
}

#[tokio::test]
async fn replies_to_other_calls_are_skipped_up_to_a_limit() {
    let other = reply(77, "s", b"\x02\0\0\0no\0");
    let own = reply(2, "s", b"\x02\0\0\0ok\0");
    let found = hostile([other.clone(), other.clone(), own].concat()).await.unwrap();
    assert_eq!(found.body("s").unwrap().text(), Ok("ok"));
    let endless = other.repeat(SKIPPED_BYTES_MAX / other.len() + 2);
    assert!(lost(hostile(endless).await).contains("other messages"));
}

#[tokio::test]
async fn a_bus_that_is_away_and_an_address_elsewhere_are_reported() {
    for (address, reason) in [
        ("unix:path=/nowhere/bus", "cannot connect to the bus at /nowhere/bus"),
        ("unix:abstract=evoke-no-such-bus", "cannot connect to the bus at @evoke-no-such-bus"),
        ("unixexec:path=/bin/true", "not the address of a socket of this machine"),
        ("tcp:host=localhost,port=1", "not the address of a socket of this machine"),
        ("unix:path=%zz", "not the address of a socket of this machine"),
        ("", "not the address of a message bus"),
    ] {
        let error = Connection::open(address).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{address}: {error}");
    }
}

#[test]
fn addresses_are_lists_with_escapes() {
    let found: Vec<_> = sockets("unix:path=/a%20b,guid=12;tcp:host=x;unix:guid=1,abstract=c").collect();
    assert_eq!((&found[0], &found[2]), (&Ok(PathBuf::from("/a b")), &Ok(PathBuf::from("\0c"))));
    assert!(found[1].is_err() && found.len() == 3);
}
