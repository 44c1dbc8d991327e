//! Proxies: HTTP CONNECT (RFC 9110 §9.3.6) and SOCKS5 (RFC 1928, RFC 1929), one per account.

mod http;
mod socks;

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc, time::Duration};

use tokio_rustls::rustls::ClientConfig;
use tokio_tungstenite::tungstenite::http::Uri;
use zeroize::Zeroizing;

use crate::client::network::{self, Stream};

/// A proxy, as a URL names it: `http://user:password@host:port`, `https://…`, `socks5://…`, `socks5h://…`.
///
/// With `socks5` names of servers are resolved here, with `socks5h` and with HTTP the proxy resolves them. `https` speaks
/// TLS to the proxy, with the account's configuration. User and password may be percent-encoded, as all that has a
/// meaning in a URL must be. The default ports are 80, 443 and 1080.
///
/// ```
/// use wamd::client::Proxy;
///
/// let proxy: Proxy = "socks5h://alice:s%20cret@proxy.example:1080".parse()?;
/// assert_eq!(proxy.to_string(), "socks5h://proxy.example:1080");
/// assert!(!format!("{proxy:?}").contains("cret"));
/// assert!("ftp://proxy.example".parse::<Proxy>().is_err());
/// # Ok::<(), wamd::client::ProxyUrlError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    credentials: Option<Credentials>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Https,
    Socks5 { remote_names: bool },
}

/// User and password. Overwritten when dropped, shown nowhere.
#[derive(Clone, PartialEq, Eq)]
struct Credentials {
    user: Zeroizing<String>,
    password: Zeroizing<String>,
}

/// Why a text is not the URL of a proxy. It does not repeat the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyUrlError {
    /// It is no URL with a host.
    #[error("not the URL of a proxy")]
    Malformed,
    /// The scheme is another one.
    #[error("a proxy has the scheme http, https, socks5 or socks5h")]
    Scheme,
    /// It has a path or a query.
    #[error("the URL of a proxy ends after the port")]
    Path,
    /// User or password are malformed, or cannot be told to such a proxy.
    #[error("the user or the password of the proxy is malformed or too long")]
    Credentials,
}

/// What failed at the proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// Nobody listens there, or its name does not resolve.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// It has shown no certificate that is trusted, or has broken TLS.
    #[error("TLS: {0}")]
    Tls(String),
    /// It wants credentials, or others.
    #[error("it does not accept the credentials")]
    Auth,
    /// An HTTP proxy refuses the connection with this status.
    #[error("it refuses the connection with status {0}")]
    Status(u16),
    /// A SOCKS proxy refuses the connection with this code (RFC 1928 §6).
    #[error("it refuses the connection with code {0}: {why}", why = socks::reason(*.0))]
    Refused(u8),
    /// The server's name does not resolve here, and the proxy was not to be asked.
    #[error("the name of the server does not resolve: {0}")]
    Name(String),
    /// It does not answer as a proxy does.
    #[error("bad answer: {0}")]
    BadAnswer(String),
    /// Its answer is longer than this many bytes.
    #[error("its answer is longer than {0} bytes")]
    TooLong(usize),
    /// It has not answered in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

impl Proxy {
    /// Connects to a server through the proxy.
    pub(super) async fn connect(
        &self,
        host: &str,
        port: u16,
        tls: &Arc<ClientConfig>,
    ) -> Result<Box<dyn Stream>, ProxyError> {
        let tcp = || async { network::tcp(&self.host, self.port).await.map_err(ProxyError::Unreachable) };
        let credentials = self.credentials.as_ref();
        match self.kind {
            Kind::Http => {
                let mut stream = tcp().await?;
                http::connect(&mut stream, host, port, credentials).await?;
                Ok(Box::new(stream))
            }
            Kind::Https => {
                let stream = network::encrypt(Box::new(tcp().await?), &self.host, tls).await;
                let mut stream = stream.map_err(ProxyError::Tls)?;
                http::connect(&mut stream, host, port, credentials).await?;
                Ok(stream)
            }
            Kind::Socks5 { remote_names } => {
                let mut refused = ProxyError::Name("no address".to_owned());
                for target in socks::targets(host, port, remote_names).await? {
                    let mut stream = tcp().await?;
                    match socks::connect(&mut stream, &target, credentials).await {
                        Ok(()) => return Ok(Box::new(stream)),
                        // Perhaps the proxy has no way to this address, and one to the next.
                        Err(error @ ProxyError::Refused(_)) => refused = error,
                        Err(error) => return Err(error),
                    }
                }
                Err(refused)
            }
        }
    }
}

impl FromStr for Proxy {
    type Err = ProxyUrlError;

    fn from_str(url: &str) -> Result<Self, ProxyUrlError> {
        let uri: Uri = url.trim().parse().map_err(|_| ProxyUrlError::Malformed)?;
        let (kind, default_port) = match uri.scheme_str() {
            Some("http") => (Kind::Http, 80),
            Some("https") => (Kind::Https, 443),
            Some("socks5") => (Kind::Socks5 { remote_names: false }, 1080),
            Some("socks5h") => (Kind::Socks5 { remote_names: true }, 1080),
            Some(_) => return Err(ProxyUrlError::Scheme),
            None => return Err(ProxyUrlError::Malformed),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(ProxyUrlError::Path);
        }
        let authority = uri.authority().ok_or(ProxyUrlError::Malformed)?;
        let (credentials, place) = match authority.as_str().rsplit_once('@') {
            None => (None, authority.as_str()),
            Some((text, place)) => (Some(Credentials::parse(text, kind)?), place),
        };
        let host = authority.host();
        let port = match place.strip_prefix(host).ok_or(ProxyUrlError::Malformed)? {
            "" => default_port,
            port => port.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or(ProxyUrlError::Malformed)?,
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        if host.is_empty() || port == 0 {
            return Err(ProxyUrlError::Malformed);
        }
        Ok(Self { kind, host, port, credentials })
    }
}

impl Credentials {
    fn parse(text: &str, kind: Kind) -> Result<Self, ProxyUrlError> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let (user, password) = (percent_decode(user)?, percent_decode(password)?);
        let fits = match kind {
            // RFC 7617 §2: the first colon ends the user.
            Kind::Http | Kind::Https => !user.contains(':'),
            // RFC 1929 §2: one byte of length each.
            Kind::Socks5 { .. } => (1..=255).contains(&user.len()) && password.len() <= 255,
        };
        if fits { Ok(Self { user, password }) } else { Err(ProxyUrlError::Credentials) }
    }
}

fn percent_decode(text: &str) -> Result<Zeroizing<String>, ProxyUrlError> {
    let mut decoded = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        decoded.push(match byte {
            b'%' => match (digit(), digit()) {
                (Some(high), Some(low)) => u8::try_from(high << 4 | low).map_err(|_| ProxyUrlError::Credentials)?,
                _ => return Err(ProxyUrlError::Credentials),
            },
            other => other,
        });
    }
    let text = str::from_utf8(&decoded).map_err(|_| ProxyUrlError::Credentials)?;
    Ok(Zeroizing::new(text.to_owned()))
}

impl fmt::Display for Proxy {
    /// The URL without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Socks5 { remote_names: false } => "socks5",
            Kind::Socks5 { remote_names: true } => "socks5h",
        };
        write!(f, "{scheme}://{}", authority(&self.host, self.port))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = self.credentials.as_ref().map(|_| "[redacted]");
        f.debug_struct("Proxy").field("url", &self.to_string()).field("credentials", &credentials).finish()
    }
}

/// `host:port`, an IPv6 address in brackets.
pub(super) fn authority(host: &str, port: u16) -> String {
    match host.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> (Kind, String, u16, Option<(String, String)>) {
        let proxy: Proxy = url.parse().expect("a proxy");
        let credentials = proxy.credentials.map(|own| (own.user.to_string(), own.password.to_string()));
        (proxy.kind, proxy.host, proxy.port, credentials)
    }

    #[test]
    fn urls_name_proxies() {
        let own = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        let socks = |remote_names| Kind::Socks5 { remote_names };
        assert_eq!(parts("http://p"), (Kind::Http, "p".to_owned(), 80, None));
        assert_eq!(parts(" http://p:3128/\n"), (Kind::Http, "p".to_owned(), 3128, None));
        assert_eq!(parts("https://u:w@p"), (Kind::Https, "p".to_owned(), 443, own("u", "w")));
        assert_eq!(parts("http://u@p"), (Kind::Http, "p".to_owned(), 80, own("u", "")));
        assert_eq!(parts("http://u:a:b@p"), (Kind::Http, "p".to_owned(), 80, own("u", "a:b")));
        assert_eq!(parts("socks5://[::1]"), (socks(false), "::1".to_owned(), 1080, None));
        assert_eq!(parts("socks5h://u%40:%2f%C3%a9@p:1"), (socks(true), "p".to_owned(), 1, own("u@", "/é")));
    }

    #[test]
    fn other_texts_do_not() {
        let check = |url: &str, error: ProxyUrlError| assert_eq!(url.parse::<Proxy>(), Err(error), "{url}");
        for url in ["", "p", "p:80", "http://", "http://p:0", "http://p:", "http://p:x", "http://p:70000"] {
            check(url, ProxyUrlError::Malformed);
        }
        for url in ["ftp://p", "socks4://p", "ws://p"] {
            check(url, ProxyUrlError::Scheme);
        }
        for url in ["http://p/path", "http://p?query"] {
            check(url, ProxyUrlError::Path);
        }
        for url in ["http://u%3Ax:w@p", "http://u:%4@p", "http://u:%zz@p", "socks5://:w@p", "http://u:%ff@p"] {
            check(url, ProxyUrlError::Credentials);
        }
        check(&format!("socks5://u:{}@p", "w".repeat(256)), ProxyUrlError::Credentials);
    }

    #[test]
    fn neither_user_nor_password_is_shown() {
        for url in ["http://alice:secret@p:1", "socks5://alice:secret@p:1"] {
            let proxy: Proxy = url.parse().expect("a proxy");
            let shown = format!("{proxy} {proxy:?} {proxy:#?}");
            assert!(!shown.contains("alice") && !shown.contains("secret"), "{shown}");
            assert!(shown.contains("p:1") && shown.contains("[redacted]"));
        }
    }

    #[test]
    fn addresses_of_version_6_stand_in_brackets() {
        assert_eq!(authority("::1", 5), "[::1]:5");
        assert_eq!(authority("127.0.0.1", 5), "127.0.0.1:5");
        assert_eq!(authority("a.example", 5), "a.example:5");
    }
}
