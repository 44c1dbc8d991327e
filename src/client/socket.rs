//! The websocket: one task per connection that moves frames, and nothing else (spec 01 §1.1).

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        handshake::client::Request,
        http::{HeaderValue, Uri, header},
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{
    client::{
        Error,
        network::{Network, Stream},
    },
    engine::{ConnectionId, Input},
};

/// The real server.
pub const DEFAULT_URL: &str = "wss://web.whatsapp.com/ws/chat";
/// Bytes of the read and of the write buffer of a connection; the library's default is 128 KiB each.
pub const SOCKET_BUFFER: usize = 4 * 1024;

/// All clients send it, and the server demands it (spec 01 §1.1).
const ORIGIN: &str = "https://web.whatsapp.com";
/// Largest websocket message taken: a frame has at most 16 MiB.
const MAX_MESSAGE: usize = 20 * 1024 * 1024;
/// How long a clean close may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Messages of the server that may wait for the driver: beyond, the socket is not read.
const INBOUND_CAPACITY: usize = 4;

/// Knows how to reach the server.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    request: Request,
    host: String,
    port: u16,
    secure: bool,
    pub(super) network: Network,
}

/// The driver's end of a connection. Dropping it closes the connection after what is queued was sent.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) id: ConnectionId,
    outbound: mpsc::UnboundedSender<Bytes>,
    pub(super) inbound: mpsc::Receiver<Input>,
}

impl Socket {
    /// Queues a message.
    pub(super) fn send(&self, bytes: Bytes) {
        // A socket task that is gone has said so by an input already.
        let _ = self.outbound.send(bytes);
    }
}

impl Connector {
    pub(super) fn new(url: &str, network: Network) -> Result<Self, Error> {
        let bad = || Error::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let host = uri.host().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
        let secure = match uri.scheme_str() {
            Some("wss") => true,
            Some("ws") => false,
            _ => return Err(bad()),
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let mut request = uri.into_client_request().map_err(|_| bad())?;
        request.headers_mut().insert(header::ORIGIN, HeaderValue::from_static(ORIGIN));
        Ok(Self { request, host, port, secure, network })
    }

    /// Opens a connection in a task of its own. What comes of it arrives as inputs.
    pub(super) fn open(&self, id: ConnectionId) -> Socket {
        let (outbound, to_send) = mpsc::unbounded_channel();
        let (received, inbound) = mpsc::channel(INBOUND_CAPACITY);
        let connector = self.clone();
        tokio::spawn(async move {
            let connected = tokio::select! {
                connected = connector.connect() => connected,
                // The driver has given it up; a server that says nothing must not keep it.
                () = received.closed() => return,
            };
            let reason = match connected {
                Ok(stream) => {
                    if received.send(Input::Opened(id)).await.is_err() {
                        return;
                    }
                    pump(stream, id, to_send, &received).await
                }
                Err(error) => error,
            };
            let _ = received.send(Input::Closed(id, reason)).await;
        });
        Socket { id, outbound, inbound }
    }

    async fn connect(&self) -> Result<WebSocketStream<Box<dyn Stream>>, String> {
        let stream = self.network.connect(&self.host, self.port, self.secure).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let config = WebSocketConfig::default()
            .read_buffer_size(SOCKET_BUFFER)
            .write_buffer_size(SOCKET_BUFFER)
            .max_write_buffer_size(MAX_MESSAGE)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let upgraded = client_async_with_config(self.request.clone(), stream, Some(config)).await;
        let (stream, _) = upgraded.map_err(|error| error.to_string())?;
        Ok(stream)
    }
}

/// Moves messages both ways until either side ends. Reads only while the driver takes what was read.
async fn pump(
    mut stream: WebSocketStream<Box<dyn Stream>>,
    id: ConnectionId,
    mut to_send: mpsc::UnboundedReceiver<Bytes>,
    received: &mpsc::Sender<Input>,
) -> String {
    loop {
        tokio::select! {
            // The driver's wishes first: a close must not wait for a server that keeps talking.
            biased;
            outbound = to_send.recv() => match outbound {
                Some(bytes) => tokio::select! {
                    sent = stream.send(Message::Binary(bytes)) => if let Err(error) = sent {
                        return error.to_string();
                    },
                    // A server that does not read must not keep it either.
                    () = given_up(received) => return String::new(),
                },
                None => {
                    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                    let _ = tokio::time::timeout(CLOSE_TIMEOUT, stream.close(Some(frame))).await;
                    return String::new();
                }
            },
            message = next(&mut stream, received) => match message {
                Some((permit, Ok(Message::Binary(bytes)))) => permit.send(Input::Received(id, bytes)),
                Some((_, Ok(Message::Close(_)))) | None => return "closed by the server".to_owned(),
                // Text is ignored, pings are answered by the library.
                Some((_, Ok(_))) => {}
                Some((_, Err(error))) => return error.to_string(),
            },
        }
    }
}

/// The driver has closed the connection, and what was queued had its time to leave.
async fn given_up(received: &mpsc::Sender<Input>) {
    received.closed().await;
    tokio::time::sleep(CLOSE_TIMEOUT).await;
}

type Received = Result<Message, tokio_tungstenite::tungstenite::Error>;

/// Room at the driver first, then a message of the server.
async fn next<'a>(
    stream: &mut WebSocketStream<Box<dyn Stream>>,
    received: &'a mpsc::Sender<Input>,
) -> Option<(mpsc::Permit<'a, Input>, Received)> {
    let permit = received.reserve().await.ok()?;
    Some((permit, stream.next().await?))
}
