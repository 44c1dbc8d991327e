//! A proxy for tests: HTTP CONNECT and SOCKS5 on one port, written from the RFCs alone.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this module, and is a crate")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use wamd::client::Proxy;

/// What the proxy of a test does.
#[derive(Clone, Debug)]
pub enum Manner {
    /// Connects whoever asks, to wherever it wants.
    Open,
    /// Connects whoever has these credentials.
    Closed(&'static str, &'static str),
    /// Says these bytes to whatever it hears first, and keeps the connection open.
    Says(Vec<u8>),
    /// Says these bytes over and over.
    Floods(&'static [u8]),
    /// Takes connections and hangs up at once.
    HangsUp,
    /// Takes connections and never says a word.
    Silent,
}

/// A proxy on this machine, HTTP and SOCKS5 on one port.
pub struct TestProxy {
    pub address: SocketAddr,
    /// Where it was asked to connect to.
    targets: Arc<Mutex<Vec<String>>>,
}

impl TestProxy {
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let targets = Arc::new(Mutex::new(Vec::new()));
        let seen = targets.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, manner.clone(), seen.clone()));
            }
        });
        Self { address, targets }
    }

    pub fn url(&self, scheme: &str, credentials: &str) -> Proxy {
        format!("{scheme}://{credentials}{}", self.address).parse().expect("a URL")
    }

    pub fn targets(&self) -> Vec<String> {
        self.targets.lock().expect("not poisoned").clone()
    }
}

async fn serve(mut stream: TcpStream, manner: Manner, targets: Arc<Mutex<Vec<String>>>) -> Option<()> {
    let credentials = match manner {
        Manner::Open => None,
        Manner::Closed(user, password) => Some((user, password)),
        Manner::HangsUp => return None,
        Manner::Silent => return std::future::pending().await,
        Manner::Says(bytes) => {
            stream.read_u8().await.ok()?;
            stream.write_all(&bytes).await.ok()?;
            return std::future::pending().await;
        }
        Manner::Floods(bytes) => loop {
            stream.write_all(bytes).await.ok()?;
        },
    };
    let target = match stream.read_u8().await.ok()? {
        5 => socks(&mut stream, credentials).await?,
        _ => http(&mut stream, credentials).await?,
    };
    targets.lock().expect("not poisoned").push(target.clone());
    let mut server = TcpStream::connect(&target).await.ok()?;
    copy_bidirectional(&mut stream, &mut server).await.ok()?;
    Some(())
}

/// A SOCKS5 server after the version byte, written from the RFCs alone; gives where to connect to.
async fn socks(stream: &mut TcpStream, credentials: Option<(&str, &str)>) -> Option<String> {
    let methods = bytes(stream).await?;
    match credentials {
        None => stream.write_all(&[5, 0]).await.ok()?,
        Some(_) if !methods.contains(&2) => {
            stream.write_all(&[5, 0xFF]).await.ok()?;
            return None;
        }
        Some((user, password)) => {
            stream.write_all(&[5, 2]).await.ok()?;
            assert_eq!(stream.read_u8().await.ok()?, 1);
            let given = (bytes(stream).await?, bytes(stream).await?);
            let right = given == (user.into(), password.into());
            stream.write_all(&[1, u8::from(!right)]).await.ok()?;
            if !right {
                return None;
            }
        }
    }
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.ok()?;
    assert_eq!(head[..3], [5, 1, 0]);
    let host = match head[3] {
        1 => {
            let mut ip = [0; 4];
            stream.read_exact(&mut ip).await.ok()?;
            std::net::Ipv4Addr::from(ip).to_string()
        }
        3 => String::from_utf8(bytes(stream).await?).ok()?,
        4 => {
            let mut ip = [0; 16];
            stream.read_exact(&mut ip).await.ok()?;
            // The loopback server listens on version 4 only: as a proxy without version 6 says it.
            stream.write_all(&[5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
            return None;
        }
        other => panic!("address kind {other}"),
    };
    let port = stream.read_u16().await.ok()?;
    // Where it connects from, as a name, which is the least usual form.
    stream.write_all(&[5, 0, 0, 3, 1, b'x', 0, 1]).await.ok()?;
    Some(format!("{host}:{port}"))
}

/// A byte of length, and that many.
async fn bytes(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut text = vec![0; usize::from(stream.read_u8().await.ok()?)];
    stream.read_exact(&mut text).await.ok()?;
    Some(text)
}

/// An HTTP proxy after the first byte; gives where to connect to.
async fn http(stream: &mut TcpStream, credentials: Option<(&str, &str)>) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let target = lines.next()?.strip_prefix("ONNECT ")?.strip_suffix(" HTTP/1.1")?.to_owned();
    assert!(lines.clone().any(|line| line == format!("Host: {target}")), "{head}");
    if let Some((user, password)) = credentials {
        let expected = format!("Proxy-Authorization: Basic {}", STANDARD.encode(format!("{user}:{password}")));
        if !lines.any(|line| line == expected) {
            let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n";
            stream.write_all(refusal).await.ok()?;
            return None;
        }
    }
    stream.write_all(b"HTTP/1.1 200 Connection established\r\nVia: a test\r\n\r\n").await.ok()?;
    Some(target)
}
