//! Tests of each limit of a call.

use tokio::sync::mpsc::unbounded_channel;

use super::*;

/// Starts a server that sends these bytes after the first request and then nothing.
async fn sending(bytes: Vec<u8>) -> Server {
    Server::start(move |mut stream| {
        let bytes = bytes.clone();
        async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(&bytes).await;
            // Waits until the client closes the connection.
            while stream.read_u8().await.is_ok() {}
        }
    })
    .await
}

fn quick() -> Limits {
    let short = Duration::from_millis(100);
    Limits {
        connect_timeout: short,
        first_byte_timeout: short,
        between_bytes_timeout: short,
        ..Limits::within(5 * SECOND)
    }
}

async fn error_of(server: &Server, limits: &Limits) -> Error {
    let owner = owner_of(&server.url());
    match owner.send(get(&server.url()), limits).await {
        Err(error) => error,
        Ok(response) => response.into_body().collect().await.err().unwrap(),
    }
}

#[tokio::test]
async fn every_wait_for_the_peer_is_bounded() {
    let silent = sending(Vec::new()).await;
    assert!(matches!(error_of(&silent, &quick()).await, Error::FirstByteTimeout(_)));
    let half_head = sending(b"HTTP/1.1 200 OK\r\nx: 1\r\n".to_vec()).await;
    assert!(matches!(error_of(&half_head, &quick()).await, Error::FirstByteTimeout(_)));
    let half_body = sending(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec()).await;
    assert!(matches!(error_of(&half_body, &quick()).await, Error::BetweenBytesTimeout(_)));
    let short = Limits::within(Duration::from_millis(100));
    assert_eq!(error_of(&silent, &short).await, Error::Deadline);
    let short = Limits::within(Duration::from_millis(100));
    assert_eq!(error_of(&half_body, &short).await, Error::Deadline);
}

#[tokio::test]
async fn a_wait_has_the_limit_of_the_constants_or_of_the_deadline() {
    let silent = sending(Vec::new()).await;
    let started = std::time::Instant::now();
    assert_eq!(error_of(&silent, &Limits::within(60 * SECOND)).await, Error::FirstByteTimeout(FIRST_BYTE_MAX));
    assert!(started.elapsed() < FIRST_BYTE_MAX + SECOND, "{:?}", started.elapsed());
    let limits = Limits { first_byte_timeout: Duration::MAX, ..Limits::within(SECOND) };
    assert_eq!(error_of(&silent, &limits).await, Error::Deadline);
    let half_body = sending(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec()).await;
    let limits = Limits { between_bytes_timeout: Duration::MAX, ..Limits::within(60 * SECOND) };
    assert_eq!(error_of(&half_body, &limits).await, Error::BetweenBytesTimeout(FIRST_BYTE_MAX));
}

#[tokio::test]
async fn a_response_that_begins_late_is_waited_for_until_the_deadline() {
    let slow = Server::start(|mut stream| async move {
        read_head(&mut stream).await;
        tokio::time::sleep(FIRST_BYTE_MAX + SECOND / 2).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
    })
    .await;
    let limits = Limits { first_byte_timeout: 60 * SECOND, ..Limits::within(60 * SECOND) };
    let response = owner_of(&slow.url()).send(get(&slow.url()), &limits).await.unwrap();
    assert_eq!(text(response).await, "ok");
}

#[tokio::test]
async fn the_head_of_a_response_is_bounded_in_bytes_and_headers() {
    let large = format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(HEAD_BYTES_MAX));
    assert_eq!(error_of(&sending(large.into_bytes()).await, &Limits::within(SECOND)).await, Error::ResponseHead);
    let headers = |count: usize| {
        let names: String = (1..count).map(|at| format!("x-{at}: 1\r\n")).collect();
        format!("HTTP/1.1 200 OK\r\n{names}content-length: 0\r\n\r\n").into_bytes()
    };
    let many = sending(headers(HEADERS_MAX + 1)).await;
    assert_eq!(error_of(&many, &Limits::within(SECOND)).await, Error::ResponseHead);
    let most = sending(headers(HEADERS_MAX)).await;
    let response = owner_of(&most.url()).send(get(&most.url()), &Limits::within(SECOND)).await.unwrap();
    assert_eq!(response.headers().len(), HEADERS_MAX);
}

#[tokio::test]
async fn bodies_are_bounded_in_both_directions_over_all_calls_of_an_allowance() {
    let (seen, _requests) = unbounded_channel();
    let server = Server::answering(OK, seen).await;
    let owner = owner_of(&server.url());
    let limits = Limits { allowance: Arc::new(Allowance::new(10, 5)), ..Limits::within(SECOND) };
    for _ in 0..2 {
        let response = owner.send(get(&server.url()), &limits).await.unwrap();
        assert_eq!(text(response).await, "ok");
    }
    let response = owner.send(get(&server.url()), &limits).await.unwrap();
    let error = response.into_body().collect().await.err().unwrap();
    assert_eq!(error, Error::ResponseBytes(5));
    let post = Request::post(server.url()).body(full(vec![b'x'; 11])).unwrap();
    assert_eq!(owner.send(post, &limits).await.err(), Some(Error::RequestBytes(10)));
}

#[tokio::test]
async fn the_part_of_a_response_that_is_beyond_the_allowance_counts_too() {
    let limits = Limits { allowance: Arc::new(Allowance::new(0, 5)), ..Limits::within(5 * SECOND) };
    let six = sending(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n123456".to_vec()).await;
    assert_eq!(error_of(&six, &limits).await, Error::ResponseBytes(5));
    // All of these bytes would have been within the allowance.
    let one = sending(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1".to_vec()).await;
    assert_eq!(error_of(&one, &limits).await, Error::ResponseBytes(5));
}

#[tokio::test]
async fn a_peer_that_does_not_read_and_a_body_that_fails_end_the_call() {
    let silent = Server::start(|stream| async move {
        // The server accepts the connection and never reads from it.
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let owner = owner_of(&silent.url());
    let endless = futures_util::stream::repeat_with(|| Ok(http_body::Frame::data(Bytes::from(vec![0; 64 * 1024]))));
    let post = Request::post(silent.url()).body(StreamBody::new(endless).boxed_unsync()).unwrap();
    let limits = Limits { allowance: Arc::new(Allowance::new(u64::MAX, 0)), ..quick() };
    assert!(matches!(owner.send(post, &limits).await.err(), Some(Error::FirstByteTimeout(_))));

    let failing = futures_util::stream::once(async { Err::<http_body::Frame<Bytes>, BodyError>("no more".into()) });
    let post = Request::post(silent.url()).body(StreamBody::new(failing).boxed_unsync()).unwrap();
    assert_eq!(owner.send(post, &quick()).await.err(), Some(Error::RequestBody("no more".into())));
}

#[tokio::test]
async fn a_body_that_the_caller_makes_slowly_is_no_time_out_of_the_peer() {
    let server = Server::start(|mut stream| async move {
        let head = read_head(&mut stream).await.unwrap();
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        let mut body = Vec::new();
        while !body.ends_with(b"0\r\n\r\n") {
            body.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(OK.as_bytes()).await.unwrap();
    })
    .await;
    let owner = owner_of(&server.url());
    let (sender, receiver) = unbounded_channel::<Result<http_body::Frame<Bytes>, BodyError>>();
    let parts =
        futures_util::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    let post = Request::post(server.url()).body(StreamBody::new(parts).boxed_unsync()).unwrap();
    let limits = quick();
    let sent = owner.send(post, &limits);
    let pause = 3 * limits.first_byte_timeout;
    let parts = async move {
        let mut pause = tokio::time::interval(pause);
        pause.tick().await;
        for _ in 0..2 {
            pause.tick().await;
            sender.send(Ok(http_body::Frame::data(Bytes::from_static(b"part")))).unwrap();
        }
    };
    let (response, ()) = futures_util::future::join(sent, parts).await;
    assert_eq!(text(response.unwrap()).await, "ok");
}

#[tokio::test]
async fn calls_at_once_are_bounded_for_each_owner() {
    let silent = sending(Vec::new()).await;
    let owner = owner_of(&silent.url());
    let limits = Limits::within(5 * SECOND);
    let calls: Vec<_> = (0..CALLS_MAX)
        .map(|_| {
            let (owner, limits, request) = (owner.clone(), limits.clone(), get(&silent.url()));
            tokio::spawn(async move { owner.send(request, &limits).await.err() })
        })
        .collect();
    while silent.accepted() < CALLS_MAX {
        tokio::task::yield_now().await;
    }
    assert_eq!(owner.send(get(&silent.url()), &limits).await.err(), Some(Error::TooManyCalls));
    for call in calls {
        call.abort();
        let _ = call.await;
    }
    // The permits are free again.
    assert!(matches!(owner.send(get(&silent.url()), &quick()).await.err(), Some(Error::FirstByteTimeout(_))));
}
