//! `wamd-loopback`: the server as a program. Prints one line of JSON when it listens, and serves until it is told to stop.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Parser;
use wamd::crypto::PrivateKey;
use wamd_loopback::Loopback;

/// A WhatsApp-like server with simulated phones, for tests.
#[derive(Parser)]
struct Options {
    /// Address to listen on: websockets and the HTTP control interface.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// File with the private key of the certificate root, 64 hex digits; made if it is missing.
    #[arg(long)]
    root_key_file: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let options = Options::parse();
    let mut builder = Loopback::builder().listen(options.listen);
    if let Some(path) = &options.root_key_file {
        builder = builder.root_key(root_key(path)?);
    }
    let loopback = builder.start().await?;
    let stop = stop_signal()?;
    let line = serde_json::json!({
        "listening": loopback.ws_url(),
        "http": loopback.http_url(),
        "root_public_key": hex::encode(loopback.root_public_key().as_bytes()),
    });
    #[expect(clippy::print_stdout, reason = "the line is what starts whoever started the program")]
    {
        println!("{line}");
    }
    stop.await?;
    loopback.shutdown().await;
    Ok(())
}

/// Reads the root key, or makes one.
fn root_key(path: &Path) -> io::Result<PrivateKey> {
    let mut key = [0; 32];
    match std::fs::read_to_string(path) {
        Ok(text) => hex::decode_to_slice(text.trim(), &mut key)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            getrandom::fill(&mut key).map_err(io::Error::other)?;
            std::fs::write(path, hex::encode(key))?;
        }
        Err(error) => return Err(error),
    }
    Ok(PrivateKey::from_bytes(key))
}

/// Listens for Ctrl-C and SIGTERM from now on: whoever reads the line of the start may stop the program at once.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = io::Result<()>>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        }
    })
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "as on the other systems")]
fn stop_signal() -> io::Result<impl Future<Output = io::Result<()>>> {
    Ok(tokio::signal::ctrl_c())
}
