//! Behind TLS it is the same protocol: `wss://` with a certificate that the configuration trusts, and none that it does
//! not; and the same for a proxy.

#[path = "common/account.rs"]
mod account;
#[path = "common/proxy.rs"]
mod proxy;
#[path = "common/tls.rs"]
mod tls;

use std::net::SocketAddr;

use account::event;
use proxy::{Manner, TestProxy};
use tls::{self_signed, trusting};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::rustls::pki_types::CertificateDer;
use wamd::{
    client::{Client, ClientBuilder},
    store::AccountId,
};
use wamd_loopback::Loopback;

/// A TLS server in front of the loopback server; gives its port and its certificate.
async fn front(to: SocketAddr) -> (u16, CertificateDer<'static>) {
    let (acceptor, certificate) = self_signed();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust us ends here.
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                let mut plain = TcpStream::connect(to).await.expect("the loopback server");
                let _ = copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    (port, certificate)
}

fn client(server: &Loopback, port: u16) -> ClientBuilder {
    Client::builder(AccountId::new("tls"))
        .url(format!("wss://localhost:{port}/ws/chat"))
        .root_key(server.root_public_key())
        .configure(|config| config.pre_key_batch = 20)
}

fn address(server: &Loopback) -> SocketAddr {
    server.http_url().trim_start_matches("http://").parse().expect("an address")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_certificate_is_the_way_in() {
    let server = Loopback::start().await.expect("a server");
    let (port, certificate) = front(address(&server)).await;
    links(&server, client(&server, port).tls(trusting([certificate]))).await;
}

async fn links(server: &Loopback, account: ClientBuilder) {
    let account = account.start().await.expect("it starts");
    let mut events = account.events().expect("events");
    account.link_qr().await.expect("linking starts");
    let code = event(&mut events, "session.qr_updated").await;
    server.scan("15550000001", code.data["qr"].as_str().expect("a code")).await.expect("scanned");
    event(&mut events, "session.connected").await;
    drop(events);
    account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_may_be_behind_tls_and_the_server_again() {
    let server = Loopback::start().await.expect("a server");
    let (port, certificate) = front(address(&server)).await;
    let proxy = TestProxy::start(Manner::Closed("alice", "s3cret")).await;
    let (secure, its) = front(proxy.address).await;
    let url = |scheme: &str, port: u16| format!("{scheme}://alice:s3cret@localhost:{port}").parse().expect("a URL");
    let tls = trusting([certificate.clone(), its]);
    links(&server, client(&server, port).tls(tls).proxy(url("https", secure))).await;
    links(
        &server,
        client(&server, port).tls(trusting([certificate.clone()])).proxy(url("socks5h", proxy.address.port())),
    )
    .await;
    assert_eq!(proxy.targets(), vec![format!("localhost:{port}"); 4]);

    // The proxy's certificate is checked like any other.
    let account = client(&server, port).tls(trusting([certificate])).proxy(url("https", secure));
    let account = account.start().await.expect("it starts");
    let mut events = account.events().expect("events");
    account.link_qr().await.expect("linking starts");
    let outage = event(&mut events, "session.disconnected").await;
    let detail = outage.data["detail"].as_str().expect("a reason");
    assert!(detail.starts_with("proxy: TLS: ") && detail.contains("certificate"), "{detail}");
    drop(events);
    account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_certificate_is_not() {
    let server = Loopback::start().await.expect("a server");
    let (port, _) = front(address(&server)).await;
    // With the roots of the world, as without a configuration of one's own.
    let account = client(&server, port).start().await.expect("it starts");
    let mut events = account.events().expect("events");
    account.link_qr().await.expect("linking starts");
    let outage = event(&mut events, "session.disconnected").await;
    assert!(outage.data["detail"].as_str().expect("a reason").contains("certificate"), "{}", outage.data);
    assert!(outage.data["willReconnect"].as_bool().expect("a flag"));
    drop(events);
    account.shutdown().await;
}
