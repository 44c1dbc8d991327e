//! The tokio shell: one task owns the [`Server`], one task per websocket moves bytes, and everything else asks the first
//! task through a channel.
//!
//! What a client does not read piles up in memory here: a test server has no reason to be slower than its clients.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::serve::{Listener, ListenerExt as _};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use wamd::clock::Now;
use wamd::crypto::{PrivateKey, PublicKey};
use wamd::jid::Jid;

use crate::{
    AccountView, Config, ConnId, ControlError, Disconnect, Fault, Input, LinkAction, Linked, Output, PasskeyOptions,
    ReceivedMessage, ScanError, ScanOptions, Server, WaitingView, http,
};

/// What goes wrong between a test and a running server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoopbackError {
    /// The server was shut down.
    #[error("the server is gone")]
    Gone,
    /// The phone refuses to scan.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The request cannot be carried out.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// A running server on a socket of this machine. Dropping it stops it.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use wamd_loopback::Loopback;
///
/// let loopback = Loopback::start().await?;
/// println!("connect to {} and trust {:?}", loopback.ws_url(), loopback.root_public_key());
/// let phone = loopback.phone("15551234567").await?;
/// let linked = phone.scan("the text of a QR code").await?;
/// println!("linked as {}", linked.jid);
/// loopback.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Loopback {
    address: SocketAddr,
    root: PublicKey,
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    tasks: Vec<JoinHandle<()>>,
}

/// Where and how a server runs.
#[derive(Debug)]
pub struct Builder {
    listen: SocketAddr,
    config: Config,
    seed: Option<[u8; 32]>,
}

impl Builder {
    /// The address to listen on; `127.0.0.1` and a free port unless given.
    #[must_use]
    pub const fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// The private key of the certificate root, so that the server has the same keys each time.
    #[must_use]
    pub fn root_key(mut self, key: PrivateKey) -> Self {
        self.config.root = Some(key);
        self
    }

    /// The knobs of the machine. A root key given before is kept if the configuration has none.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        let root = config.root.clone().or_else(|| self.config.root.take());
        self.config = Config { root, ..config };
        self
    }

    /// The source of all randomness; the operating system's unless given.
    #[must_use]
    pub const fn seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the server.
    ///
    /// # Errors
    /// The address cannot be listened on, or the operating system has no randomness.
    pub async fn start(self) -> io::Result<Loopback> {
        let seed = match self.seed {
            Some(seed) => seed,
            None => {
                let mut seed = [0; 32];
                getrandom::fill(&mut seed).map_err(io::Error::other)?;
                seed
            }
        };
        let server = Server::new(self.config, seed);
        let root = server.root_public_key();
        let listener = TcpListener::bind(self.listen).await?;
        let address = listener.local_addr()?;
        let listener = prompt(listener);
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let handle = Handle { commands, connections: Arc::new(AtomicU64::new(0)) };
        let (stop, stopped) = oneshot::channel();
        let routes = http::routes(handle.clone());
        let serve = axum::serve(listener, routes).with_graceful_shutdown(async {
            // A dropped sender is as good as a sent stop.
            let _ = stopped.await;
        });
        let machine = tokio::spawn(run(server, inbox));
        let machine_end = machine.abort_handle();
        let listen = tokio::spawn(async move {
            if let Err(error) = serve.await {
                tracing::error!(%error, "the listener failed");
            }
            machine_end.abort();
        });
        Ok(Loopback { address, root, handle, stop: Some(stop), tasks: vec![listen, machine] })
    }
}

/// Accepted sockets send what there is at once: frames are small, and each would wait for the acknowledgement of the one before.
fn prompt(listener: TcpListener) -> impl Listener<Io = TcpStream, Addr = SocketAddr> {
    listener.tap_io(|socket| {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::warn!(%error, "frames may be held back");
        }
    })
}

impl Loopback {
    /// Starts a server on `127.0.0.1` and a free port.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// A server with other settings.
    pub fn builder() -> Builder {
        Builder { listen: SocketAddr::from(([127, 0, 0, 1], 0)), config: Config::default(), seed: None }
    }

    /// Where clients connect to.
    pub fn ws_url(&self) -> String {
        format!("ws://{}/ws/chat", self.address)
    }

    /// Where the HTTP interface is.
    pub fn http_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The root that clients must trust.
    pub const fn root_public_key(&self) -> PublicKey {
        self.root
    }

    /// The phone of a number; the account is made if it is new.
    ///
    /// # Errors
    /// [`ControlError::Number`], [`LoopbackError::Gone`].
    pub async fn phone(&self, number: &str) -> Result<Phone, LoopbackError> {
        let asked = number.to_owned();
        let account = self.handle.call(move |server, now| server.phone(now, &asked)).await??;
        Ok(Phone { handle: self.handle.clone(), account })
    }

    /// Scans a QR code with the phone of a number.
    ///
    /// # Errors
    /// [`LoopbackError::Scan`], [`LoopbackError::Gone`].
    pub async fn scan(&self, number: &str, qr: &str) -> Result<Linked, LoopbackError> {
        self.handle.scan(number.to_owned(), qr.to_owned(), ScanOptions::default()).await
    }

    /// Scans a QR code, and behaves as the options say.
    ///
    /// # Errors
    /// As [`Loopback::scan`].
    pub async fn scan_with(&self, number: &str, qr: &str, options: ScanOptions) -> Result<Linked, LoopbackError> {
        self.handle.scan(number.to_owned(), qr.to_owned(), options).await
    }

    /// The clients that wait to be linked, in the order in which they came.
    ///
    /// # Errors
    /// [`LoopbackError::Gone`].
    pub async fn waiting(&self) -> Result<Vec<WaitingView>, LoopbackError> {
        self.handle.call(|server, _| server.waiting()).await
    }

    /// Does something to the client that waits to be linked, the last one that came if there are several.
    ///
    /// # Errors
    /// As [`Server::link_action`], and [`LoopbackError::Gone`].
    pub async fn link_action(&self, action: LinkAction) -> Result<(), LoopbackError> {
        self.handle.link_action(None, action).await
    }

    /// All accounts, by phone number.
    ///
    /// # Errors
    /// [`LoopbackError::Gone`].
    pub async fn accounts(&self) -> Result<Vec<AccountView>, LoopbackError> {
        self.handle.call(|server, _| server.accounts()).await
    }

    /// Ends the connection of a device.
    ///
    /// # Errors
    /// [`LoopbackError::Control`], [`LoopbackError::Gone`].
    pub async fn disconnect(&self, jid: &Jid, how: Disconnect) -> Result<(), LoopbackError> {
        self.handle.disconnect(jid.clone(), how).await
    }

    /// Makes something go wrong.
    ///
    /// # Errors
    /// [`LoopbackError::Control`], [`LoopbackError::Gone`].
    pub async fn fault(&self, fault: Fault) -> Result<(), LoopbackError> {
        self.handle.fault(fault).await
    }

    /// Asks the machine itself, for what has no method here.
    ///
    /// # Errors
    /// [`LoopbackError::Gone`].
    pub async fn with_server<R: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Server, Now) -> R + Send + 'static,
    ) -> Result<R, LoopbackError> {
        self.handle.call(ask).await
    }

    /// Stops the server and waits until it has.
    pub async fn shutdown(mut self) {
        self.stop.take();
        for task in self.tasks.drain(..) {
            // The machine's task is ended from outside, which is no failure.
            let _ = task.await;
        }
    }
}

/// The phone of an account, from outside of the server.
#[derive(Clone, Debug)]
pub struct Phone {
    handle: Handle,
    account: AccountView,
}

impl Phone {
    /// The account as it was when this handle was made.
    pub const fn account(&self) -> &AccountView {
        &self.account
    }

    /// The account by phone number.
    pub const fn jid(&self) -> &Jid {
        &self.account.jid
    }

    /// The account by LID.
    pub const fn lid(&self) -> &Jid {
        &self.account.lid
    }

    /// Scans a QR code.
    ///
    /// # Errors
    /// As [`Loopback::scan`].
    pub async fn scan(&self, qr: &str) -> Result<Linked, LoopbackError> {
        self.handle.scan(self.account.number.clone(), qr.to_owned(), ScanOptions::default()).await
    }

    /// Types a pair code; see [`Server::enter_code`].
    ///
    /// # Errors
    /// As [`Server::enter_code`], and [`LoopbackError::Gone`].
    pub async fn enter_code(&self, code: &str) -> Result<(), LoopbackError> {
        self.handle.enter_code(self.account.number.clone(), code.to_owned(), ScanOptions::default()).await
    }

    /// Types a pair code, and behaves as the options say.
    ///
    /// # Errors
    /// As [`enter_code`](Self::enter_code).
    pub async fn enter_code_with(&self, code: &str, options: ScanOptions) -> Result<(), LoopbackError> {
        self.handle.enter_code(self.account.number.clone(), code.to_owned(), options).await
    }

    /// Asks the client that waits for a passkey; see [`Server::begin_passkey`].
    ///
    /// # Errors
    /// As [`Server::begin_passkey`], and [`LoopbackError::Gone`].
    pub async fn begin_passkey(&self, qr: Option<&str>, options: PasskeyOptions) -> Result<(), LoopbackError> {
        self.handle.begin_passkey(self.account.number.clone(), qr.map(str::to_owned), options).await
    }

    /// Declines the link that is going on; see [`Server::refuse_link`].
    ///
    /// # Errors
    /// As [`Server::refuse_link`], and [`LoopbackError::Gone`].
    pub async fn refuse_link(&self) -> Result<(), LoopbackError> {
        self.handle.refuse_link(self.account.number.clone()).await
    }

    /// What the phone has received and could decrypt, oldest first.
    ///
    /// # Errors
    /// [`LoopbackError::Gone`].
    pub async fn received(&self) -> Result<Vec<ReceivedMessage>, LoopbackError> {
        let number = self.account.number.clone();
        self.handle.call(move |server, _| server.received(&number)).await
    }

    /// Sends a text, encrypted for every device of both accounts, and gives its id.
    ///
    /// # Errors
    /// [`ControlError::UnknownDevice`], [`ControlError::Encrypt`], [`LoopbackError::Gone`].
    pub async fn send_text(&self, to: &Jid, text: &str) -> Result<String, LoopbackError> {
        self.handle.send_text(self.account.number.clone(), to.clone(), text.to_owned()).await
    }
}

type Ask = Box<dyn FnOnce(&mut Server, Now) + Send>;

/// What the machine's task is sent.
enum Command {
    Open(ConnId, mpsc::UnboundedSender<Bytes>),
    Input(Input),
    Ask(Ask),
}

/// The way to the machine's task.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    commands: mpsc::Sender<Command>,
    connections: Arc<AtomicU64>,
}

impl Handle {
    pub(crate) async fn call<R: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Server, Now) -> R + Send + 'static,
    ) -> Result<R, LoopbackError> {
        let (reply, answer) = oneshot::channel();
        let ask: Ask = Box::new(move |server, now| {
            // Nobody may be waiting any more.
            let _ = reply.send(ask(server, now));
        });
        self.commands.send(Command::Ask(ask)).await.map_err(|_| LoopbackError::Gone)?;
        answer.await.map_err(|_| LoopbackError::Gone)
    }

    pub(crate) async fn scan(&self, number: String, qr: String, options: ScanOptions) -> Result<Linked, LoopbackError> {
        Ok(self.call(move |server, now| server.scan(now, &number, &qr, &options)).await??)
    }

    pub(crate) async fn enter_code(
        &self,
        number: String,
        code: String,
        options: ScanOptions,
    ) -> Result<(), LoopbackError> {
        Ok(self.call(move |server, now| server.enter_code(now, &number, &code, &options)).await??)
    }

    pub(crate) async fn begin_passkey(
        &self,
        number: String,
        qr: Option<String>,
        options: PasskeyOptions,
    ) -> Result<(), LoopbackError> {
        let begin = move |server: &mut Server, now| server.begin_passkey(now, &number, qr.as_deref(), &options);
        self.call(begin).await??;
        Ok(())
    }

    pub(crate) async fn refuse_link(&self, number: String) -> Result<(), LoopbackError> {
        Ok(self.call(move |server, now| server.refuse_link(now, &number)).await??)
    }

    pub(crate) async fn link_action(&self, conn: Option<ConnId>, action: LinkAction) -> Result<(), LoopbackError> {
        Ok(self.call(move |server, now| server.link_action(now, conn, action)).await??)
    }

    pub(crate) async fn disconnect(&self, jid: Jid, how: Disconnect) -> Result<(), LoopbackError> {
        Ok(self.call(move |server, now| server.disconnect(now, &jid, how)).await??)
    }

    pub(crate) async fn fault(&self, fault: Fault) -> Result<(), LoopbackError> {
        Ok(self.call(move |server, now| server.fault(now, fault)).await??)
    }

    pub(crate) async fn send_text(&self, number: String, to: Jid, text: String) -> Result<String, LoopbackError> {
        Ok(self.call(move |server, now| server.send_text(now, &number, &to, &text)).await??)
    }

    /// Moves bytes between a websocket and the machine until one of them is done.
    pub(crate) async fn serve<S>(self, socket: WebSocketStream<S>)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let id = ConnId(self.connections.fetch_add(1, Ordering::Relaxed));
        let (outbox, mut outgoing) = mpsc::unbounded_channel();
        if self.commands.send(Command::Open(id, outbox)).await.is_err() {
            return;
        }
        let (mut sink, mut stream) = socket.split();
        let write = async {
            while let Some(bytes) = outgoing.recv().await {
                if sink.send(Message::Binary(bytes)).await.is_err() {
                    return;
                }
            }
            // The client may be gone already.
            let _ = sink.close().await;
        };
        let read = async {
            while let Some(Ok(message)) = stream.next().await {
                let Message::Binary(bytes) = message else { continue };
                if self.commands.send(Command::Input(Input::Bytes(id, bytes))).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = write => {}
            () = read => {}
        }
        // The machine may be gone already.
        let _ = self.commands.send(Command::Input(Input::Closed(id))).await;
    }
}

/// The machine's task.
async fn run(mut server: Server, mut commands: mpsc::Receiver<Command>) {
    let start = Instant::now();
    let mut sockets: BTreeMap<ConnId, mpsc::UnboundedSender<Bytes>> = BTreeMap::new();
    loop {
        let deadline = server.deadline().unwrap_or(IDLE);
        let command = tokio::select! {
            command = commands.recv() => match command {
                Some(command) => command,
                None => return,
            },
            () = tokio::time::sleep_until(start + deadline.min(IDLE)) => Command::Input(Input::Tick),
        };
        let now = Now { mono: start.elapsed(), wall_ms: wall_ms() };
        match command {
            Command::Open(id, socket) => {
                sockets.insert(id, socket);
                server.handle(now, Input::Opened(id));
            }
            Command::Input(input) => {
                if let Input::Closed(id) = &input {
                    sockets.remove(id);
                }
                server.handle(now, input);
            }
            Command::Ask(ask) => ask(&mut server, now),
        }
        while let Some(output) = server.poll() {
            match output {
                Output::Send(id, bytes) => {
                    if let Some(socket) = sockets.get(&id) {
                        // A client that is gone is reported by its own task.
                        let _ = socket.send(bytes);
                    }
                }
                Output::Close(id) => {
                    sockets.remove(&id);
                }
            }
        }
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Requests that may wait; when the machine is busy, sockets are not read.
const COMMANDS: usize = 256;

/// How long to sleep when nothing is due, from the start of the server.
const IDLE: Duration = Duration::from_secs(60 * 60 * 24 * 365);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_sockets_hold_nothing_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut listener = prompt(listener);
        let (_client, (accepted, _)) = tokio::join!(TcpStream::connect(address), listener.accept());
        assert!(accepted.nodelay().unwrap());
    }
}
