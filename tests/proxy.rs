//! An account behind a proxy: it links and works through each kind, it says what is wrong with a proxy that does not do what
//! it should, and it never goes past it.

#[path = "common/account.rs"]
mod account;
#[path = "common/proxy.rs"]
mod proxy;

use std::time::{Duration, Instant};

use account::event;
use proxy::{Manner, TestProxy};
use tokio::net::TcpListener;
use wamd::{
    client::{Client, Network, NetworkError, ProxyError},
    store::AccountId,
};
use wamd_loopback::Loopback;

/// The address of the loopback server under a name.
fn by_name(server: &Loopback) -> String {
    server.ws_url().replace("127.0.0.1", "localhost")
}

/// Links an account through a proxy; gives where the proxy was asked to connect to.
async fn links(manner: Manner, scheme: &str, credentials: &str) -> (Vec<String>, String) {
    let server = Loopback::start().await.expect("a server");
    let proxy = TestProxy::start(manner).await;
    let account = Client::builder(AccountId::new("behind a proxy"))
        .url(by_name(&server))
        .root_key(server.root_public_key())
        .proxy(proxy.url(scheme, credentials))
        .configure(|config| config.pre_key_batch = 20)
        .start()
        .await
        .expect("it starts");
    let mut events = account.events().expect("events");
    account.link_qr().await.expect("linking starts");
    let code = event(&mut events, "session.qr_updated").await;
    server.scan("15550000001", code.data["qr"].as_str().expect("a code")).await.expect("scanned");
    event(&mut events, "session.connected").await;
    drop(events);
    account.shutdown().await;
    let port = server.http_url().rsplit_once(':').expect("a port").1.to_owned();
    (proxy.targets(), port)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_links_through_an_http_proxy() {
    let (targets, port) = links(Manner::Open, "http", "").await;
    // Linking and the login after it.
    assert_eq!(targets, vec![format!("localhost:{port}"); 2]);
    let (targets, _) = links(Manner::Closed("alice", "s3cret: &"), "http", "alice:s3cret%3A%20%26@").await;
    assert_eq!(targets.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_links_through_a_socks_proxy() {
    let (targets, port) = links(Manner::Open, "socks5h", "").await;
    assert_eq!(targets, vec![format!("localhost:{port}"); 2], "the proxy resolves the name");
    let (targets, port) = links(Manner::Open, "socks5", "").await;
    assert_eq!(targets, vec![format!("127.0.0.1:{port}"); 2], "the name is resolved here");
    let (targets, _) = links(Manner::Closed("alice", "s3cret"), "socks5h", "alice:s3cret@").await;
    assert_eq!(targets.len(), 2);
}

/// What comes of a connection through a proxy of this manner.
async fn failure(manner: Manner, scheme: &str, credentials: &str) -> ProxyError {
    let proxy = TestProxy::start(manner).await;
    let network = Network::new(Some(proxy.url(scheme, credentials)), None, Duration::from_secs(2)).expect("a network");
    match network.connect("localhost", 1, false).await.map(drop) {
        Err(NetworkError::Proxy(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_proxy_wants_other_credentials() {
    let closed = || Manner::Closed("alice", "s3cret");
    for scheme in ["http", "socks5", "socks5h"] {
        assert_eq!(failure(closed(), scheme, "").await, ProxyError::Auth, "{scheme}");
        assert_eq!(failure(closed(), scheme, "alice:wrong@").await, ProxyError::Auth, "{scheme}");
        assert_eq!(failure(closed(), scheme, "bob:s3cret@").await, ProxyError::Auth, "{scheme}");
    }
}

#[tokio::test]
async fn a_proxy_refuses() {
    let http = |answer: &[u8]| Manner::Says(answer.to_vec());
    assert_eq!(failure(http(b"HTTP/1.1 403 No\r\n\r\nBecause."), "http", "").await, ProxyError::Status(403));
    let socks = |code: u8| Manner::Says(vec![5, 0, 5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
    for code in [1, 2, 5, 99] {
        assert_eq!(failure(socks(code), "socks5h", "").await, ProxyError::Refused(code));
    }
    assert_eq!(ProxyError::Refused(2).to_string(), "it refuses the connection with code 2: not allowed by its rules");
}

#[tokio::test]
async fn a_proxy_lies() {
    let says = |answer: &[u8]| Manner::Says(answer.to_vec());
    let bad = |error: ProxyError| assert!(matches!(error, ProxyError::BadAnswer(_)), "{error:?}");
    bad(failure(says(b"SSH-2.0-OpenSSH\r\n"), "http", "").await);
    bad(failure(says(b"HTTP/1.1 200 OK\r\n\r\n\x81\x05hello"), "http", "").await);
    bad(failure(says(b"HTTP/1.1 200 OK\r\n\r\n"), "socks5", "").await);
    bad(failure(says(&[5, 2]), "socks5", "").await);
    bad(failure(says(&[5, 7]), "socks5", "u:p@").await);
    bad(failure(says(&[4, 0]), "socks5", "").await);
    bad(failure(says(&[5, 0, 4, 0, 0, 1, 0, 0, 0, 0, 0, 0]), "socks5h", "").await);
    bad(failure(says(&[5, 0, 5, 0, 0, 9, 0, 0, 0, 0, 0, 0]), "socks5h", "").await);
    for scheme in ["http", "socks5h"] {
        bad(failure(Manner::HangsUp, scheme, "").await);
    }
}

#[tokio::test]
async fn a_proxy_says_too_much() {
    let flood = Manner::Floods(b"HTTP/1.1 200 OK\r\nX: ");
    assert_eq!(failure(flood, "http", "").await, ProxyError::TooLong(8 * 1024));
    let flood = Manner::Floods(b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(failure(flood, "http", "").await, ProxyError::TooLong(8 * 1024));
}

#[tokio::test]
async fn a_proxy_says_nothing_or_is_not_there() {
    for scheme in ["http", "https", "socks5h"] {
        let begin = Instant::now();
        assert_eq!(failure(Manner::Silent, scheme, "").await, ProxyError::Timeout(Duration::from_secs(1)), "{scheme}");
        assert!(begin.elapsed() < Duration::from_secs(2), "within the time of the whole connection");
    }
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    for scheme in ["http", "https", "socks5", "socks5h"] {
        let proxy = format!("{scheme}://{gone}").parse().expect("a URL");
        let network = Network::new(Some(proxy), None, Duration::from_secs(2)).expect("a network");
        let outcome = network.connect("127.0.0.1", 1, false).await.map(drop);
        assert!(matches!(outcome, Err(NetworkError::Proxy(ProxyError::Unreachable(_)))), "{scheme}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_says_what_is_wrong_and_does_not_go_past_the_proxy() {
    let server = Loopback::start().await.expect("a server");
    let proxy = TestProxy::start(Manner::Closed("alice", "s3cret")).await;
    for scheme in ["http", "socks5"] {
        let account = Client::builder(AccountId::new("behind a proxy"))
            .url(by_name(&server))
            .root_key(server.root_public_key())
            .proxy(proxy.url(scheme, "alice:wr0ng@"))
            .start()
            .await
            .expect("it starts");
        let mut events = account.events().expect("events");
        account.link_qr().await.expect("linking starts");
        let outage = event(&mut events, "session.disconnected").await;
        let shown = outage.data.to_string();
        assert!(shown.contains("proxy: it does not accept the credentials"), "{shown}");
        assert!(!shown.contains("alice") && !shown.contains("wr0ng"), "{shown}");
        drop(events);
        account.shutdown().await;
    }
    assert!(server.waiting().await.expect("it runs").is_empty(), "nobody came");
    assert!(proxy.targets().is_empty());
}
