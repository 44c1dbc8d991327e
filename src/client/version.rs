//! Which version of the web client to state: a fixed one, or the one that the web page names (spec 01 §3.6).

use std::{collections::VecDeque, fmt, future::Future, pin::Pin, time::Duration};

use hyper::{
    Request, StatusCode, Uri,
    body::{Body as _, Incoming},
    client::conn::http1,
    header::{ACCEPT, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{
    client::network::{Network, NetworkError},
    pairing::payload::{VERSION, Version},
};

/// A version, later.
pub type VersionFuture<'a> = Pin<Box<dyn Future<Output = Result<Version, VersionError>> + Send + 'a>>;

/// Knows which version of the web client is current. One value can serve any number of accounts.
pub trait VersionProvider: fmt::Debug + Send + Sync + 'static {
    /// The version to begin with, if there is one without asking anybody.
    fn known(&self) -> Option<Version> {
        None
    }

    /// The current version. `refused` is one that the server has just refused as outdated: only a newer one is an answer.
    /// `network` is that of the account which asks.
    ///
    /// It is asked when an account begins to connect and when its version was refused. The future may be dropped at any
    /// time; while it is there, an account does not ask again. One that panics, or takes longer than
    /// [`Config::version_timeout`](crate::engine::Config::version_timeout), has no answer.
    fn current<'a>(&'a self, network: &'a Network, refused: Option<Version>) -> VersionFuture<'a>;
}

/// Why there is no (newer) version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VersionError {
    /// The newest version that is known is not newer than the one that was refused.
    #[error("no version newer than {0} is known")]
    NothingNewer(Version),
    /// The page has been asked for too often; the next time is after this pause.
    #[error("the version was looked up too often, again in {} s", .0.as_secs())]
    TooOften(Duration),
    /// No connection to the page.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// HTTP failed.
    #[error("HTTP: {0}")]
    Http(String),
    /// The page answers with another status than 200.
    #[error("status {0}")]
    Status(u16),
    /// The page is longer than this many bytes.
    #[error("the page is longer than {0} bytes")]
    TooLong(usize),
    /// The page does not name a version.
    #[error("the page names no client revision")]
    Missing,
    /// The page did not come in time.
    #[error("no page within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// A provider of the embedding program failed.
    #[error("{0}")]
    Other(String),
}

/// Always the same version; by default the one that this crate was checked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedVersion(pub Version);

impl Default for FixedVersion {
    fn default() -> Self {
        Self(VERSION)
    }
}

impl VersionProvider for FixedVersion {
    fn known(&self) -> Option<Version> {
        Some(self.0)
    }

    fn current<'a>(&'a self, _: &'a Network, refused: Option<Version>) -> VersionFuture<'a> {
        Box::pin(std::future::ready(newer(self.0, refused)))
    }
}

/// The version that WhatsApp's web page names, fetched through the account's proxy and with its TLS.
///
/// A version is kept for [`max_age`](Self::max_age) and shared by all accounts that use this value; however many ask at
/// a time, there is one request, and never more of them than [`per_hour`](Self::per_hour). An account whose proxy fails has
/// not asked: its error is its own.
///
/// ```no_run
/// # async fn example() -> Result<(), wamd::Error> {
/// use std::sync::Arc;
/// use wamd::{client::{Client, HttpVersion}, store::AccountId};
///
/// let versions = Arc::new(HttpVersion::default());
/// let sales = Client::builder(AccountId::new("sales")).shared_versions(versions.clone()).start().await?;
/// let support = Client::builder(AccountId::new("support")).shared_versions(versions).start().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct HttpVersion {
    url: Uri,
    max_age: Duration,
    limit: Duration,
    per_hour: usize,
    state: Mutex<State>,
    /// What the state holds, for those who cannot wait for it.
    known: std::sync::Mutex<Option<Version>>,
}

/// What is known from earlier requests. Locked while a request is under way: whoever comes meanwhile finds its result.
#[derive(Debug, Default)]
struct State {
    /// The last version, and when it came.
    version: Option<(Version, Instant)>,
    /// When the last request ended, and how.
    last: Option<(Instant, Result<Version, VersionError>)>,
    /// When the requests of the last hour began.
    begun: VecDeque<Instant>,
}

/// The page that names the version.
const PAGE: &str = "https://web.whatsapp.com/sw.js";
/// Bytes of the page that are read; it has some ten thousand.
const MAX_PAGE: usize = 4 * 1024 * 1024;
/// Bytes of its status line and header fields.
const MAX_HEAD: usize = 64 * 1024;
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Without a browser's name the page is another one.
const BROWSER: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36";
const NAME: &[u8] = b"client_revision";

impl Default for HttpVersion {
    fn default() -> Self {
        Self {
            url: Uri::from_static(PAGE),
            max_age: 24 * HOUR,
            limit: Duration::from_secs(20),
            per_hour: 4,
            state: Mutex::default(),
            known: std::sync::Mutex::default(),
        }
    }
}

impl HttpVersion {
    /// Fetches another page than WhatsApp's, `http` or `https`.
    ///
    /// # Errors
    /// [`VersionError::Http`] when this is no such URL.
    pub fn from_url(url: &str) -> Result<Self, VersionError> {
        let bad = || VersionError::Http(format!("not a web address: {url}"));
        let url: Uri = url.parse().map_err(|_| bad())?;
        let fine = matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
        if fine { Ok(Self { url, ..Self::default() }) } else { Err(bad()) }
    }

    /// How old a version may become before it is fetched again. Default: 24 h.
    #[must_use]
    pub const fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// How long one request may take. Default: 20 s.
    #[must_use]
    pub const fn timeout(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// How many requests there may be within one hour, at least 1. Default: 4.
    #[must_use]
    pub fn per_hour(mut self, requests: usize) -> Self {
        self.per_hour = requests.max(1);
        self
    }

    async fn look_up(&self, network: &Network, refused: Option<Version>) -> Result<Version, VersionError> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        // Somebody has asked for it while we waited.
        if let Some((ended, outcome)) = &state.last
            && *ended >= asked
        {
            return outcome.clone().and_then(|version| newer(version, refused));
        }
        let now = Instant::now();
        if let Some((version, since)) = state.version
            && now.duration_since(since) < self.max_age
            && newer(version, refused).is_ok()
        {
            return Ok(version);
        }
        if let Some(pause) = state.pause(now, self.per_hour) {
            // An old version is better than none, unless it is known to be too old.
            let old = state.version.ok_or(VersionError::TooOften(pause))?.0;
            return newer(old, refused).map_err(|_| VersionError::TooOften(pause));
        }
        state.begun.push_back(now);
        let outcome = timeout(self.limit, self.fetch(network)).await;
        let outcome = outcome.unwrap_or(Err(VersionError::Timeout(self.limit)));
        let ended = Instant::now();
        if let Ok(version) = outcome {
            state.version = Some((version, ended));
            *self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(version);
        }
        if let Err(VersionError::Network(NetworkError::Proxy(_))) = outcome {
            // The page was not asked, and others have another way to it.
            state.begun.pop_back();
        } else {
            state.last = Some((ended, outcome.clone()));
        }
        outcome.and_then(|version| newer(version, refused))
    }

    async fn fetch(&self, network: &Network) -> Result<Version, VersionError> {
        let host = self.url.host().unwrap_or_default();
        let secure = self.url.scheme_str() == Some("https");
        let port = self.url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = network.connect(host.trim_matches(['[', ']']), port, secure).await?;
        let mut http = http1::Builder::new();
        let (mut sender, connection) =
            http.max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let page = async {
            let response = sender.send_request(self.request()?).await.map_err(failed)?;
            match response.status() {
                StatusCode::OK => read(response.into_body()).await,
                status => Err(VersionError::Status(status.as_u16())),
            }
        };
        tokio::pin!(page, connection);
        let page = tokio::select! {
            biased;
            page = &mut page => page?,
            // Its failure is that of the page, too.
            _ = &mut connection => page.await?,
        };
        revision(&page).map(Version::web).ok_or(VersionError::Missing)
    }

    fn request(&self) -> Result<Request<String>, VersionError> {
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let host = self.url.authority().map_or("", |authority| authority.as_str());
        Request::get(path)
            .header(HOST, host)
            .header(USER_AGENT, BROWSER)
            .header(ACCEPT, "*/*")
            .header("sec-fetch-site", "none")
            .body(String::new())
            .map_err(|error| VersionError::Http(error.to_string()))
    }
}

impl VersionProvider for HttpVersion {
    fn known(&self) -> Option<Version> {
        *self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn current<'a>(&'a self, network: &'a Network, refused: Option<Version>) -> VersionFuture<'a> {
        Box::pin(self.look_up(network, refused))
    }
}

impl State {
    /// How long no request may begin.
    fn pause(&mut self, now: Instant, per_hour: usize) -> Option<Duration> {
        while self.begun.front().is_some_and(|begun| now.duration_since(*begun) >= HOUR) {
            self.begun.pop_front();
        }
        let oldest = self.begun.front().filter(|_| self.begun.len() >= per_hour)?;
        Some(HOUR.saturating_sub(now.duration_since(*oldest)))
    }
}

fn newer(version: Version, refused: Option<Version>) -> Result<Version, VersionError> {
    match refused {
        Some(refused) if version <= refused => Err(VersionError::NothingNewer(refused)),
        _ => Ok(version),
    }
}

async fn read(mut body: Incoming) -> Result<Vec<u8>, VersionError> {
    let mut page = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame.map_err(failed)?.into_data() else { continue };
        if page.len().saturating_add(data.len()) > MAX_PAGE {
            return Err(VersionError::TooLong(MAX_PAGE));
        }
        page.extend_from_slice(&data);
    }
    Ok(page)
}

/// The digits after `"client_revision":`, whose quotes may be escaped. Places that look otherwise are skipped.
fn revision(page: &[u8]) -> Option<u32> {
    let places = page.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME);
    places.filter_map(|(place, _)| number(page.get(place.checked_add(NAME.len())?..)?)).next()
}

fn number(text: &[u8]) -> Option<u32> {
    let text = skip(text, |byte| matches!(byte, b'\\' | b'"' | b'\''));
    let text = skip(text, |byte| byte.is_ascii_whitespace()).strip_prefix(b":")?;
    let text = skip(text, |byte| byte.is_ascii_whitespace());
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    str::from_utf8(text.get(..digits)?).ok()?.parse().ok()
}

fn skip(text: &[u8], what: impl Fn(u8) -> bool) -> &[u8] {
    let count = text.iter().take_while(|byte| what(**byte)).count();
    text.get(count..).unwrap_or_default()
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn failed(error: hyper::Error) -> VersionError {
    VersionError::Http(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_found_however_they_are_quoted() {
        let check = |page: &str, expected: Option<u32>| assert_eq!(revision(page.as_bytes()), expected, "{page}");
        check(r#"x{"client_revision":1045649367,"x":1}"#, Some(1_045_649_367));
        check(r#"JSON.parse("{\"client_revision\":1045649367,\"a\":2}")"#, Some(1_045_649_367));
        check(r#"\\\"client_revision\\\":7}"#, Some(7));
        check(r"client_revision : 8;", Some(8));
        check(r"{client_revision:9}", Some(9));
        check(r#"client_revision()+ "client_revision":10"#, Some(10));
        check(r#""client_revision":null, "client_revision":4294967296, "client_revision":11"#, Some(11));
        for none in ["", "client_revisio", "client_revision", "client_revision:", r#""client_revision":"12""#] {
            check(none, None);
        }
        assert_eq!(revision(&[0xFF; 100]), None);
    }

    #[test]
    fn only_newer_versions_answer_a_refusal() {
        let (old, new) = (Version::web(1), Version::web(2));
        assert_eq!(newer(new, Some(old)), Ok(new));
        assert_eq!(newer(old, None), Ok(old));
        for refused in [old, new] {
            assert_eq!(newer(old, Some(refused)), Err(VersionError::NothingNewer(refused)));
        }
    }

    #[test]
    fn web_addresses_only() {
        for bad in ["", "sw.js", "/sw.js", "ftp://a.example/", "wss://a.example"] {
            assert!(matches!(HttpVersion::from_url(bad), Err(VersionError::Http(_))), "{bad}");
        }
        assert!(HttpVersion::from_url("http://[::1]:5/a?b").is_ok());
    }

    #[test]
    fn an_hour_has_so_many_requests() {
        let mut state = State::default();
        let start = Instant::now();
        let minute = |minutes: u64| start + Duration::from_secs(60 * minutes);
        for begun in [0, 10, 20] {
            assert_eq!(state.pause(minute(begun), 3), None);
            state.begun.push_back(minute(begun));
        }
        assert_eq!(state.pause(minute(30), 3), Some(Duration::from_secs(1_800)));
        assert_eq!(state.pause(minute(60), 3), None, "the first one is an hour ago");
        assert_eq!(state.begun.len(), 2);
    }
}
