//! The version of the web client as a runtime value: what the page says, how often it is asked, and that an account whose
//! version was refused goes on with a newer one.

#[path = "common/account.rs"]
mod account;
#[path = "common/proxy.rs"]
mod proxy;
#[path = "common/tls.rs"]
mod tls;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use account::event;
use proxy::{Manner, TestProxy};
use tls::{self_signed, trusting};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ClientConfig, pki_types::CertificateDer},
};
use wamd::{
    client::{
        Client, ClientBuilder, Events, FixedVersion, HttpVersion, Network, NetworkError, ProxyError, VersionError,
        VersionFuture, VersionProvider,
    },
    pairing::payload::{VERSION, Version},
    store::AccountId,
};
use wamd_loopback::{Fault, Loopback};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/javascript\r\n";

/// The page of a test: an HTTP server that always says the same.
struct Page {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    certificate: Option<CertificateDer<'static>>,
}

impl Page {
    /// Says this after a while.
    async fn start(answer: impl Into<Vec<u8>>, pause: Duration) -> Self {
        Self::listen(answer.into(), pause, None).await
    }

    async fn with_tls(answer: impl Into<Vec<u8>>) -> Self {
        Self::listen(answer.into(), Duration::ZERO, Some(self_signed())).await
    }

    async fn listen(answer: Vec<u8>, pause: Duration, tls: Option<(TlsAcceptor, CertificateDer<'static>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(AtomicUsize::new(0));
        let (count, acceptor) = (requests.clone(), tls.as_ref().map(|(acceptor, _)| acceptor.clone()));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (answer, count, acceptor) = (answer.clone(), count.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(tcp, &answer, pause, &count).await,
                        Some(acceptor) => serve(acceptor.accept(tcp).await.ok()?, &answer, pause, &count).await,
                    }
                });
            }
        });
        Self { address, requests, certificate: tls.map(|(_, certificate)| certificate) }
    }

    fn provider(&self) -> HttpVersion {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        HttpVersion::from_url(&format!("{scheme}://localhost:{}/sw.js", self.address.port())).expect("a URL")
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &[u8],
    pause: Duration,
    count: &AtomicUsize,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?.to_ascii_lowercase();
    assert!(head.starts_with("get /sw.js http/1.1\r\n"), "{head}");
    for field in ["host: localhost:", "sec-fetch-site: none", "user-agent: mozilla/5.0"] {
        assert!(head.contains(field), "{head}");
    }
    count.fetch_add(1, Ordering::SeqCst);
    sleep(pause).await;
    stream.write_all(answer).await.ok()?;
    stream.shutdown().await.ok()
}

/// A page that names this revision, with its length.
fn names(revision: u32) -> String {
    let page = format!(r#"self.x=JSON.parse("{{\"client_revision\":{revision},\"y\":1}}");"#);
    format!("{OK}Content-Length: {}\r\n\r\n{page}", page.len())
}

fn network() -> Network {
    Network::new(None, None, Duration::from_secs(10)).expect("a network")
}

#[tokio::test]
async fn the_page_names_the_version() {
    let page = Page::start(names(7), Duration::ZERO).await;
    let provider = page.provider();
    assert_eq!(provider.known(), None);
    assert_eq!(provider.current(&network(), None).await, Ok(Version::web(7)));
    assert_eq!(provider.known(), Some(Version::web(7)));

    let chunked =
        format!("{OK}Transfer-Encoding: chunked\r\n\r\n10\r\n{{\"client_revisio\r\n8\r\nn\":1045,\r\n0\r\n\r\n");
    let page = Page::start(chunked, Duration::ZERO).await;
    assert_eq!(page.provider().current(&network(), None).await, Ok(Version::web(1045)));
    let until_the_end = format!("{OK}Connection: close\r\n\r\nclient_revision:12");
    let page = Page::start(until_the_end, Duration::ZERO).await;
    assert_eq!(page.provider().current(&network(), None).await, Ok(Version::web(12)));
}

#[tokio::test]
async fn the_page_is_behind_tls_and_a_proxy() {
    let page = Page::with_tls(names(7)).await;
    let tls = trusting([page.certificate.clone().expect("a certificate")]);
    let proxy = TestProxy::start(Manner::Closed("alice", "s3cret")).await;
    let network = |credentials: &str, tls: Option<Arc<ClientConfig>>| {
        Network::new(Some(proxy.url("http", credentials)), tls, Duration::from_secs(10)).expect("a network")
    };
    let found = page.provider().current(&network("alice:s3cret@", Some(tls.clone())), None).await;
    assert_eq!(found, Ok(Version::web(7)));
    assert_eq!(proxy.targets(), [format!("localhost:{}", page.address.port())]);

    let found = page.provider().current(&network("", Some(tls)), None).await;
    assert_eq!(found, Err(VersionError::Network(NetworkError::Proxy(ProxyError::Auth))));
    let found = page.provider().current(&network("alice:s3cret@", None), None).await;
    assert!(matches!(found, Err(VersionError::Network(NetworkError::Tls(_)))), "{found:?}");
    assert_eq!(page.requests(), 1);
}

#[tokio::test]
async fn a_page_that_is_not_right_is_an_error() {
    let check = async |answer: Vec<u8>, expected: Result<Version, VersionError>| {
        let page = Page::start(answer, Duration::ZERO).await;
        let provider = page.provider().timeout(Duration::from_secs(10));
        assert_eq!(provider.current(&network(), None).await, expected);
        assert_eq!(provider.known(), None);
    };
    check(format!("{OK}Content-Length: 2\r\n\r\nhi").into(), Err(VersionError::Missing)).await;
    check(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into(), Err(VersionError::Status(404))).await;
    check(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n".into(), Err(VersionError::Status(302))).await;
    let huge = [format!("{OK}\r\n").into_bytes(), vec![b' '; 5 << 20]].concat();
    check(huge, Err(VersionError::TooLong(4 << 20))).await;

    for answer in ["SSH-2.0\r\n".to_owned(), format!("{OK}Content-Length: 50\r\n\r\nclient_revision:1"), String::new()]
    {
        let page = Page::start(answer.clone(), Duration::ZERO).await;
        let found = page.provider().current(&network(), None).await;
        assert!(matches!(found, Err(VersionError::Http(_))), "{answer}: {found:?}");
    }
    let page = Page::start(names(7), Duration::from_secs(60)).await;
    let limit = Duration::from_millis(200);
    let found = page.provider().timeout(limit).current(&network(), None).await;
    assert_eq!(found, Err(VersionError::Timeout(limit)));
    let nobody = HttpVersion::from_url(&format!("http://{}/sw.js", free().await)).expect("a URL");
    let found = nobody.current(&network(), None).await;
    assert!(matches!(found, Err(VersionError::Network(NetworkError::Unreachable(_)))), "{found:?}");
}

/// An address where nobody listens.
async fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address")
}

#[tokio::test]
async fn however_many_ask_the_page_is_fetched_once() {
    let page = Page::start(names(7), Duration::from_millis(100)).await;
    let (provider, network) = (page.provider(), network());
    let asked = (0..20).map(|_| provider.current(&network, None));
    for found in futures_util::future::join_all(asked).await {
        assert_eq!(found, Ok(Version::web(7)));
    }
    assert_eq!(page.requests(), 1);
    assert_eq!(provider.current(&network, None).await, Ok(Version::web(7)), "it is kept");
    assert_eq!(page.requests(), 1);

    // A failure is shared, too, and is not kept.
    let page = Page::start("HTTP/1.1 500 No\r\n\r\n", Duration::from_millis(100)).await;
    let provider = page.provider();
    let asked = (0..20).map(|_| provider.current(&network, None));
    for found in futures_util::future::join_all(asked).await {
        assert_eq!(found, Err(VersionError::Status(500)));
    }
    assert_eq!(page.requests(), 1);
    assert_eq!(provider.current(&network, None).await, Err(VersionError::Status(500)));
    assert_eq!(page.requests(), 2);
}

#[tokio::test]
async fn a_version_grows_old_and_requests_are_few() {
    let page = Page::start(names(7), Duration::ZERO).await;
    let (provider, network) = (page.provider().max_age(Duration::ZERO).per_hour(2), network());
    for _ in 0..5 {
        assert_eq!(provider.current(&network, None).await, Ok(Version::web(7)), "an old one is better than none");
    }
    assert_eq!(page.requests(), 2, "it is always too old, and asked for twice an hour");
    let found = provider.current(&network, Some(Version::web(7))).await;
    assert!(matches!(found, Err(VersionError::TooOften(pause)) if pause > Duration::from_secs(3_500)), "{found:?}");
    assert_eq!(provider.current(&network, Some(Version::web(6))).await, Ok(Version::web(7)));

    // One that was refused is not too old for its age, and looked up all the same.
    let page = Page::start(names(7), Duration::ZERO).await;
    let provider = page.provider();
    provider.current(&network, None).await.expect("a version");
    let refused = Version::web(7);
    assert_eq!(provider.current(&network, Some(refused)).await, Err(VersionError::NothingNewer(refused)));
    assert_eq!(page.requests(), 2);
}

#[tokio::test]
async fn the_proxy_of_one_account_fails_for_that_account_alone() {
    let page = Page::start(names(7), Duration::ZERO).await;
    let proxy = TestProxy::start(Manner::HangsUp).await;
    let behind = Network::new(Some(proxy.url("http", "")), None, Duration::from_secs(10)).expect("a network");
    let (provider, direct) = (page.provider().per_hour(1), network());
    for _ in 0..3 {
        let (failed, found) = tokio::join!(provider.current(&behind, None), provider.current(&direct, None));
        assert!(matches!(failed, Err(VersionError::Network(NetworkError::Proxy(_))) | Ok(_)), "{failed:?}");
        assert_eq!(found, Ok(Version::web(7)));
    }
    assert_eq!(page.requests(), 1);
}

#[tokio::test]
async fn a_request_that_is_given_up_does_not_block_the_next() {
    let page = Page::start(names(7), Duration::from_millis(200)).await;
    let (provider, network) = (page.provider(), network());
    timeout(Duration::from_millis(50), provider.current(&network, None)).await.expect_err("it takes longer");
    assert_eq!(provider.current(&network, None).await, Ok(Version::web(7)));
}

#[tokio::test]
async fn a_fixed_version_is_what_it_is() {
    let network = network();
    assert_eq!(FixedVersion::default().known(), Some(VERSION));
    let fixed = FixedVersion(Version::web(5));
    assert_eq!(fixed.current(&network, None).await, Ok(Version::web(5)));
    assert_eq!(fixed.current(&network, Some(Version::web(4))).await, Ok(Version::web(5)));
    let refused = Version::web(5);
    assert_eq!(fixed.current(&network, Some(refused)).await, Err(VersionError::NothingNewer(refused)));
}

// ---- accounts -------------------------------------------------------------------------------------------------

fn account(server: &Loopback) -> ClientBuilder {
    Client::builder(AccountId::new("versions"))
        .url(server.ws_url())
        .root_key(server.root_public_key())
        .configure(|config| config.pre_key_batch = 20)
}

/// The names of the events up to this one.
async fn names_until(events: &mut Events, name: &str) -> Vec<String> {
    let mut told = Vec::new();
    let wait = async {
        while told.last().is_none_or(|last| last != name) {
            told.push(events.recv().await.expect("the account runs").event.to_string());
        }
    };
    timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("no {name} in time"));
    told
}

async fn demand(server: &Loopback, version: Version) {
    let version = Some([version.primary, version.secondary, version.tertiary]);
    server.fault(Fault::MinimumVersion { version }).await.expect("it runs");
}

async fn link(server: &Loopback, account: &Client, events: &mut Events) {
    account.link_qr().await.expect("linking starts");
    let code = event(events, "session.qr_updated").await;
    server.scan("15550000001", code.data["qr"].as_str().expect("a code")).await.expect("scanned");
    event(events, "session.connected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_override_is_stated() {
    let server = Loopback::start().await.expect("a server");
    demand(&server, Version::web(2_000_000_000)).await;
    let account = account(&server).version(Version::web(2_000_000_000)).start().await.expect("it starts");
    let mut events = account.events().expect("events");
    link(&server, &account, &mut events).await;
    drop(events);
    account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_stops_while_it_asks() {
    let server = Loopback::start().await.expect("a server");
    let page = Page::start(names(7), Duration::from_secs(60)).await;
    let account = account(&server).versions(page.provider()).start().await.expect("it starts");
    account.link_qr().await.expect("linking starts");
    while page.requests() == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    let begin = Instant::now();
    account.shutdown().await;
    assert!(begin.elapsed() < Duration::from_secs(5), "it does not wait for the page");
}
#[tokio::test(flavor = "multi_thread")]
async fn the_version_of_the_page_is_stated_before_it_is_demanded() {
    let server = Loopback::start().await.expect("a server");
    let page = Page::start(names(2_000_000_000), Duration::ZERO).await;
    let provider = Arc::new(page.provider());
    let account = account(&server).shared_versions(provider.clone()).start().await.expect("it starts");
    let mut events = account.events().expect("events");
    link(&server, &account, &mut events).await;
    while provider.known().is_none() {
        sleep(Duration::from_millis(10)).await;
    }
    account.disconnect().await.expect("it disconnects");

    demand(&server, Version::web(2_000_000_000)).await;
    account.connect().await.expect("it connects");
    let told = names_until(&mut events, "session.connected").await;
    assert!(!told.contains(&"session.outdated".to_owned()), "{told:?}");
    assert_eq!(page.requests(), 1, "the version of the page is kept");
    drop(events);
    account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_account_connects_with_the_version_of_the_page() {
    let server = Loopback::start().await.expect("a server");
    // Slow enough that the account does not know it before it is refused.
    let page = Page::start(names(2_000_000_000), Duration::from_millis(500)).await;
    demand(&server, Version::web(2_000_000_000)).await;
    let account = account(&server).versions(page.provider()).start().await.expect("it starts");
    let mut events = account.events().expect("events");
    account.link_qr().await.expect("linking starts");
    let outdated = event(&mut events, "session.outdated").await;
    assert_eq!(outdated.data["version"], VERSION.to_string());
    let code = event(&mut events, "session.qr_updated").await;
    server.scan("15550000001", code.data["qr"].as_str().expect("a code")).await.expect("scanned");
    event(&mut events, "session.connected").await;
    assert_eq!(page.requests(), 1, "who waits for an answer does not ask again");

    // The next demand is met by a caller.
    demand(&server, Version::web(2_000_000_001)).await;
    account.reconnect().await.expect("it connects");
    event(&mut events, "session.outdated").await;
    account.set_version(Version::web(2_000_000_001)).await.expect("a version");
    account.connect().await.expect("it connects");
    event(&mut events, "session.connected").await;
    drop(events);
    account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_newer_version_an_account_stays_outdated() {
    let server = Loopback::start().await.expect("a server");
    demand(&server, Version::web(2_000_000_000)).await;
    let page = Page::start(names(7), Duration::ZERO).await;
    for builder in [account(&server), account(&server).versions(page.provider())] {
        let account = builder.start().await.expect("it starts");
        let mut events = account.events().expect("events");
        account.link_qr().await.expect("linking starts");
        event(&mut events, "session.outdated").await;
        let more = timeout(Duration::from_millis(500), events.recv()).await;
        assert!(more.is_err(), "{more:?}");
        assert_eq!(account.snapshot().state.as_str(), "OUTDATED");
        drop(events);
        account.shutdown().await;
    }
}

/// Answers a refusal after a while, and nothing else. Without an answer it panics.
#[derive(Debug)]
struct Slow(Option<Version>);

impl VersionProvider for Slow {
    fn current<'a>(&'a self, _: &'a Network, refused: Option<Version>) -> VersionFuture<'a> {
        Box::pin(async move {
            let version = self.0.expect("a version");
            if refused.is_none() {
                return Err(VersionError::Missing);
            }
            sleep(Duration::from_millis(500)).await;
            Ok(version)
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_panics_takes_no_account_with_it() {
    let server = Loopback::start().await.expect("a server");
    let account = account(&server).versions(Slow(None)).start().await.expect("it starts");
    let mut events = account.events().expect("events");
    link(&server, &account, &mut events).await;
    demand(&server, Version::web(2_000_000_000)).await;
    account.reconnect().await.expect("it runs");
    event(&mut events, "session.outdated").await;
    account.disconnect().await.expect("it still runs");
    drop(events);
    account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_being_looked_up_does_not_replace_a_newer_version_of_the_caller() {
    let server = Loopback::start().await.expect("a server");
    let [looked_up, wanted] = [1_900_000_000, 2_000_000_000].map(Version::web);
    let account = account(&server).versions(Slow(Some(looked_up))).start().await.expect("it starts");
    let mut events = account.events().expect("events");
    demand(&server, wanted).await;
    account.link_qr().await.expect("linking starts");
    event(&mut events, "session.outdated").await;
    account.set_version(wanted).await.expect("it runs");
    event(&mut events, "session.qr_updated").await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(account.snapshot().version, wanted);
    drop(events);
    account.shutdown().await;
}

/// Never answers the first question.
#[derive(Debug)]
struct Stuck(AtomicBool, Version);

impl VersionProvider for Stuck {
    fn current<'a>(&'a self, _: &'a Network, _: Option<Version>) -> VersionFuture<'a> {
        Box::pin(async move {
            if !self.0.swap(true, Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            Ok(self.1)
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_does_not_answer_is_asked_again() {
    let server = Loopback::start().await.expect("a server");
    let wanted = Version::web(2_000_000_000);
    let provider = Stuck(AtomicBool::new(false), wanted);
    let account = account(&server)
        .versions(provider)
        .configure(|config| config.version_timeout = Duration::from_millis(300))
        .start()
        .await
        .expect("it starts");
    let mut events = account.events().expect("events");
    link(&server, &account, &mut events).await;
    sleep(Duration::from_millis(600)).await;
    demand(&server, wanted).await;
    account.reconnect().await.expect("it runs");
    event(&mut events, "session.connected").await;
    assert_eq!(account.snapshot().version, wanted);
    drop(events);
    account.shutdown().await;
}
