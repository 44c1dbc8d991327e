//! How an account reaches the world: directly or through its proxy, and with its TLS (spec 01 §1.1).

use std::{
    fmt::{self, Display},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

use crate::client::{
    Error,
    proxy::{Proxy, ProxyError},
};

/// A connection, whatever it goes through.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why a connection could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The name does not resolve, or nobody listens there.
    #[error("{0}")]
    Unreachable(String),
    /// The proxy is the reason.
    #[error("proxy: {0}")]
    Proxy(#[from] ProxyError),
    /// The server has shown no certificate that is trusted, or has broken TLS.
    #[error("TLS: {0}")]
    Tls(String),
    /// It took too long.
    #[error("no connection within {} ms", .0.as_millis())]
    Timeout(Duration),
}

/// Makes the connections of one account. Cheap to clone.
#[derive(Clone)]
pub struct Network {
    proxy: Option<Arc<Proxy>>,
    tls: Arc<ClientConfig>,
    limit: Duration,
}

impl Network {
    /// The way of an account, which [`ClientBuilder`](crate::client::ClientBuilder) makes of its settings. Without a
    /// configuration of TLS it is ring and the roots of Mozilla. A connection is made within `limit`, or not at all.
    ///
    /// # Errors
    /// [`Error::Url`] when TLS cannot be configured, which does not happen with ring.
    pub fn new(proxy: Option<Proxy>, tls: Option<Arc<ClientConfig>>, limit: Duration) -> Result<Self, Error> {
        let tls = match tls {
            Some(config) => config,
            None => Arc::new(default_tls()?),
        };
        Ok(Self { proxy: proxy.map(Arc::new), tls, limit })
    }

    /// Connects to a server through the account's proxy; with `secure` through TLS, too. `host` is a name, or an
    /// address without brackets.
    ///
    /// # Errors
    /// What failed, see [`NetworkError`]. An account gives it the time of
    /// [`Config::handshake_timeout`](crate::engine::Config::handshake_timeout).
    pub async fn connect(&self, host: &str, port: u16, secure: bool) -> Result<Box<dyn Stream>, NetworkError> {
        // The caller has the same limit: the reason is to be there before that.
        let limit = self.limit / 8 * 7;
        timeout(limit, self.dial(host, port, secure)).await.unwrap_or(Err(NetworkError::Timeout(limit)))
    }

    async fn dial(&self, host: &str, port: u16, secure: bool) -> Result<Box<dyn Stream>, NetworkError> {
        let stream: Box<dyn Stream> = match &self.proxy {
            None => Box::new(tcp(host, port).await.map_err(NetworkError::Unreachable)?),
            Some(proxy) => {
                // Half of it is for what lies beyond the proxy.
                let limit = self.limit / 2;
                let through = timeout(limit, proxy.connect(host, port, &self.tls)).await;
                through.unwrap_or(Err(ProxyError::Timeout(limit)))?
            }
        };
        if secure { encrypt(stream, host, &self.tls).await.map_err(NetworkError::Tls) } else { Ok(stream) }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("proxy", &self.proxy).field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// A TCP connection for small frames.
pub(super) async fn tcp(host: &str, port: u16) -> Result<TcpStream, String> {
    let tcp = TcpStream::connect((host, port)).await.map_err(text)?;
    tcp.set_nodelay(true).map_err(text)?;
    Ok(tcp)
}

/// TLS over whatever there is.
pub(super) async fn encrypt(
    stream: Box<dyn Stream>,
    host: &str,
    config: &Arc<ClientConfig>,
) -> Result<Box<dyn Stream>, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(text)?;
    Ok(Box::new(TlsConnector::from(config.clone()).connect(name, stream).await.map_err(text)?))
}

/// TLS with ring and Mozilla's roots, which all accounts share; sessions are resumed within one account only. Never installs
/// a provider for the process.
pub(super) fn default_tls() -> Result<ClientConfig, Error> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }));
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Url(error.to_string()))?;
    Ok(builder.with_root_certificates(roots.clone()).with_no_client_auth())
}

fn text(error: impl Display) -> String {
    error.to_string()
}
