//! HTTP CONNECT (RFC 9110 §9.3.6): one request, the head of one answer, and then the stream belongs to us.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use httparse::{EMPTY_HEADER, Response, Status};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use super::{Credentials, ProxyError, authority};

/// Bytes of status line and header fields that are taken; a usual answer has a hundred.
const MAX_ANSWER: usize = 8 * 1024;
/// Header fields that are taken.
const MAX_FIELDS: usize = 64;
/// Read at a time.
const CHUNK: usize = 512;
/// The proxy wants credentials (RFC 9110 §15.5.8).
const AUTHENTICATION_REQUIRED: u16 = 407;

/// Asks an HTTP proxy for a connection to a server; afterwards the stream is that connection.
pub(super) async fn connect(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin + ?Sized),
    host: &str,
    port: u16,
    credentials: Option<&Credentials>,
) -> Result<(), ProxyError> {
    let request = request(host, port, credentials)?;
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let mut answer = Vec::with_capacity(CHUNK);
    let mut total = 0_usize;
    loop {
        let mut chunk = [0; CHUNK];
        let read = stream.read(&mut chunk).await.map_err(failed)?;
        if read == 0 {
            return Err(bad("it has closed the connection"));
        }
        total = total.saturating_add(read);
        answer.extend_from_slice(chunk.get(..read).unwrap_or_default());
        while let Some((status, len)) = head(&answer)? {
            match status {
                // More is to come before the answer.
                100..=199 if status != 101 => drop(answer.drain(..len)),
                // A body that explains a refusal is not read.
                200..=299 if answer.len() == len => return Ok(()),
                // Behind a proxy it is always we who speak first.
                200..=299 => return Err(bad("more than an answer")),
                AUTHENTICATION_REQUIRED => return Err(ProxyError::Auth),
                _ => return Err(ProxyError::Status(status)),
            }
        }
        if total > MAX_ANSWER {
            return Err(ProxyError::TooLong(MAX_ANSWER));
        }
    }
}

/// Status and length of a head, once all of it is there.
fn head(answer: &[u8]) -> Result<Option<(u16, usize)>, ProxyError> {
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    let mut response = Response::new(&mut fields);
    match response.parse(answer) {
        Ok(Status::Partial) => Ok(None),
        Ok(Status::Complete(len)) if len > MAX_ANSWER => Err(ProxyError::TooLong(MAX_ANSWER)),
        Ok(Status::Complete(len)) => match response.code {
            Some(code) => Ok(Some((code, len))),
            None => Err(bad("no status")),
        },
        Err(httparse::Error::TooManyHeaders) => Err(ProxyError::TooLong(MAX_ANSWER)),
        Err(error) => Err(ProxyError::BadAnswer(error.to_string())),
    }
}

/// The request, which holds the credentials.
fn request(host: &str, port: u16, credentials: Option<&Credentials>) -> Result<Zeroizing<String>, ProxyError> {
    // It came out of a URL; nothing else may end up in the head of a request.
    if !host.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ProxyError::Name("it has characters that no name has".to_owned()));
    }
    let target = authority(host, port);
    let mut request = Zeroizing::new(String::with_capacity(1024));
    request.push_str(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"));
    if let Some(Credentials { user, password }) = credentials {
        let pair = Zeroizing::new(format!("{}:{}", user.as_str(), password.as_str()));
        let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        request.push_str("Proxy-Authorization: Basic ");
        request.push_str(&encoded);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    Ok(request)
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn failed(error: std::io::Error) -> ProxyError {
    ProxyError::BadAnswer(error.to_string())
}

fn bad(what: &str) -> ProxyError {
    ProxyError::BadAnswer(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of an answer, sent in pieces of every size.
    async fn check(answer: &[u8], expected: Result<(), ProxyError>) {
        for size in [1, 7, answer.len()] {
            let mut stream = tokio_test_stream(answer, size);
            let outcome = connect(&mut stream, "a.example", 443, None).await;
            assert_eq!(outcome, expected, "{} in pieces of {size}", String::from_utf8_lossy(answer));
        }
    }

    /// A proxy that says this whatever it is asked.
    fn tokio_test_stream(answer: &[u8], size: usize) -> tokio::io::DuplexStream {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let pieces: Vec<Vec<u8>> = answer.chunks(size).map(<[u8]>::to_vec).collect();
        tokio::spawn(async move {
            for piece in pieces {
                if theirs.write_all(&piece).await.is_err() {
                    return;
                }
            }
            let mut asked = Vec::new();
            // Stays open as long as we do.
            let _ = theirs.read_to_end(&mut asked).await;
        });
        ours
    }

    #[tokio::test]
    async fn answers_of_proxies() {
        check(b"HTTP/1.1 200 Connection established\r\n\r\n", Ok(())).await;
        check(b"HTTP/1.0 200 OK\r\nVia: x\r\nContent-Length: 0\r\n\r\n", Ok(())).await;
        check(b"HTTP/1.1 102 Wait\r\n\r\nHTTP/1.1 204 Fine\r\n\r\n", Ok(())).await;
        check(b"HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic\r\n\r\n", Err(ProxyError::Auth)).await;
        check(b"HTTP/1.1 503 No\r\n\r\n", Err(ProxyError::Status(503))).await;
        check(b"HTTP/1.1 101 Switching\r\n\r\n", Err(ProxyError::Status(101))).await;
        check(b"HTTP/1.1 302 Elsewhere\r\nLocation: x\r\n\r\n", Err(ProxyError::Status(302))).await;
        check(&[b'x'; 20_000], Err(ProxyError::BadAnswer("invalid HTTP version".to_owned()))).await;
        let long = [&b"HTTP/1.1 200 OK\r\nX: "[..], &[b'x'; 20_000]].concat();
        check(&long, Err(ProxyError::TooLong(MAX_ANSWER))).await;
        let many = ["HTTP/1.1 200 OK\r\n".to_owned(), "X: y\r\n".repeat(MAX_FIELDS + 1), "\r\n".to_owned()].concat();
        check(many.as_bytes(), Err(ProxyError::TooLong(MAX_ANSWER))).await;
    }

    #[tokio::test]
    async fn a_proxy_that_speaks_first_is_refused() {
        let mut stream = tokio_test_stream(b"HTTP/1.1 200 OK\r\n\r\nhello", 100);
        let outcome = connect(&mut stream, "a.example", 443, None).await;
        assert_eq!(outcome, Err(bad("more than an answer")));
    }

    #[test]
    fn requests_hold_what_they_should() {
        let request = |host: &str| request(host, 443, None).map(|text| text.to_string());
        assert_eq!(request("a.b"), Ok("CONNECT a.b:443 HTTP/1.1\r\nHost: a.b:443\r\n\r\n".to_owned()));
        assert_eq!(request("::1"), Ok("CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n".to_owned()));
        assert!(matches!(request("a\r\nX: y"), Err(ProxyError::Name(_))));
    }
}
