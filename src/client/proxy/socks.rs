//! SOCKS5 (RFC 1928) with user and password (RFC 1929). Every answer has a length that is known before it is read, at most
//! 262 bytes.
//!
//! ```text
//!  05 n methods ─▶ 05 method ─▶ [01 user password ─▶ 01 status] ─▶ 05 01 00 address port ─▶ 05 code 00 address port
//! ```

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use super::{Credentials, ProxyError};

const VERSION: u8 = 5;
const AUTH_VERSION: u8 = 1;
const NO_AUTH: u8 = 0;
const PASSWORD: u8 = 2;
const NOTHING_FITS: u8 = 0xFF;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Addresses of one name that are tried.
const MAX_TARGETS: usize = 4;

/// Where the proxy is to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Address(SocketAddr),
    Name(String, u16),
}

/// What to ask the proxy for, one after the other.
pub(super) async fn targets(host: &str, port: u16, remote_names: bool) -> Result<Vec<Target>, ProxyError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![Target::Address((address, port).into())]);
    }
    if remote_names {
        return Ok(vec![Target::Name(host.to_owned(), port)]);
    }
    let resolved = tokio::net::lookup_host((host, port)).await;
    let resolved = resolved.map_err(|error| ProxyError::Name(error.to_string()))?;
    Ok(resolved.take(MAX_TARGETS).map(Target::Address).collect())
}

/// Asks for a connection; afterwards the stream is that connection.
pub(super) async fn connect(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    target: &Target,
    credentials: Option<&Credentials>,
) -> Result<(), ProxyError> {
    let methods: &[u8] = if credentials.is_some() { &[VERSION, 2, NO_AUTH, PASSWORD] } else { &[VERSION, 1, NO_AUTH] };
    stream.write_all(methods).await.map_err(failed)?;
    let [version, method] = read(stream).await?;
    if version != VERSION {
        return Err(bad("it does not speak SOCKS5"));
    }
    match (method, credentials) {
        (NO_AUTH, _) => {}
        (PASSWORD, Some(credentials)) => authenticate(stream, credentials).await?,
        (NOTHING_FITS, _) => return Err(ProxyError::Auth),
        _ => return Err(bad("it wants what was not offered")),
    }
    stream.write_all(&request(target)?).await.map_err(failed)?;
    let [version, code, _, kind] = read(stream).await?;
    if version != VERSION {
        return Err(bad("it does not speak SOCKS5"));
    }
    if code != 0 {
        return Err(ProxyError::Refused(code));
    }
    // Where the proxy connects from: read, and of no interest.
    let rest = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => {
            let [len] = read(stream).await?;
            usize::from(len)
        }
        _ => return Err(bad("an address of an unknown kind")),
    };
    let mut bound = [0; 255 + 2];
    let bound = bound.get_mut(..rest + 2).ok_or_else(|| bad("an address of an unknown kind"))?;
    stream.read_exact(bound).await.map_err(failed)?;
    Ok(())
}

async fn authenticate(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    credentials: &Credentials,
) -> Result<(), ProxyError> {
    let mut request = Zeroizing::new(vec![AUTH_VERSION]);
    for text in [&credentials.user, &credentials.password] {
        request.push(u8::try_from(text.len()).map_err(|_| ProxyError::Auth)?);
        request.extend_from_slice(text.as_bytes());
    }
    stream.write_all(&request).await.map_err(failed)?;
    match read(stream).await? {
        [AUTH_VERSION, 0] => Ok(()),
        [AUTH_VERSION, _] => Err(ProxyError::Auth),
        _ => Err(bad("it does not speak RFC 1929")),
    }
}

fn request(target: &Target) -> Result<Vec<u8>, ProxyError> {
    let mut request = vec![VERSION, CONNECT, 0];
    let port = match target {
        Target::Address(address) => {
            match address.ip() {
                IpAddr::V4(ip) => {
                    request.push(IPV4);
                    request.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    request.push(IPV6);
                    request.extend_from_slice(&ip.octets());
                }
            }
            address.port()
        }
        Target::Name(name, port) => {
            let len = u8::try_from(name.len()).map_err(|_| ProxyError::Name("it is too long".to_owned()))?;
            request.extend_from_slice(&[NAME, len]);
            request.extend_from_slice(name.as_bytes());
            *port
        }
    };
    request.extend_from_slice(&port.to_be_bytes());
    Ok(request)
}

async fn read<const N: usize>(stream: &mut (impl AsyncRead + Unpin)) -> Result<[u8; N], ProxyError> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(failed)?;
    Ok(bytes)
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn failed(error: io::Error) -> ProxyError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => bad("it has closed the connection"),
        _ => ProxyError::BadAnswer(error.to_string()),
    }
}

fn bad(what: &str) -> ProxyError {
    ProxyError::BadAnswer(what.to_owned())
}

/// What a code means (RFC 1928 §6).
pub(super) const fn reason(code: u8) -> &'static str {
    match code {
        1 => "general failure",
        2 => "not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "time to live expired",
        7 => "command not supported",
        8 => "kind of address not supported",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_the_rfc() {
        let address = |text: &str| Target::Address(text.parse().expect("an address"));
        assert_eq!(request(&address("1.2.3.4:443")), Ok(vec![5, 1, 0, 1, 1, 2, 3, 4, 1, 187]));
        let v6 = [&[5, 1, 0, 4][..], &[0; 15], &[1, 0, 80]].concat();
        assert_eq!(request(&address("[::1]:80")), Ok(v6));
        assert_eq!(request(&Target::Name("ab".to_owned(), 258)), Ok(vec![5, 1, 0, 3, 2, b'a', b'b', 1, 2]));
        assert!(matches!(request(&Target::Name("x".repeat(256), 1)), Err(ProxyError::Name(_))));
    }

    #[tokio::test]
    async fn names_are_resolved_where_they_should_be() {
        assert_eq!(targets("a.invalid", 5, true).await, Ok(vec![Target::Name("a.invalid".to_owned(), 5)]));
        assert_eq!(targets("127.0.0.1", 5, true).await, Ok(vec![Target::Address(([127, 0, 0, 1], 5).into())]));
        let local = targets("localhost", 5, false).await.expect("it resolves");
        assert!(local.iter().all(|target| matches!(target, Target::Address(at) if at.ip().is_loopback())));
        assert!(matches!(targets(&"x".repeat(64), 5, false).await, Err(ProxyError::Name(_))));
    }
}
