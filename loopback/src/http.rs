//! The port: websockets for clients, JSON for tests in other languages.
//!
//! A request with an `Upgrade` header becomes a websocket, whatever its path. See the README of the crate for the requests
//! under `/control`.

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use wamd::jid::Jid;

use crate::shell::{Handle, LoopbackError};
use crate::{ConnId, Disconnect, Fault, GroupChange, GroupSpec, LinkAction, PasskeyOptions, ScanOptions};

/// All routes of the server.
pub(crate) fn routes(handle: Handle) -> Router {
    Router::new()
        .route("/control/health", get(health))
        .route("/control/accounts", get(accounts))
        .route("/control/phones", post(phones))
        .route("/control/scan", post(scan))
        .route("/control/pair-code", post(pair_code))
        .route("/control/passkey", post(passkey))
        .route("/control/refuse", post(refuse))
        .route("/control/waiting", get(waiting))
        .route("/control/link", post(link))
        .route("/control/disconnect", post(disconnect))
        .route("/control/messages", post(send_message))
        .route("/control/received", post(received))
        .route("/control/audience", post(audience))
        .route("/control/groups", get(groups).post(create_group))
        .route("/control/groups/change", post(change_group))
        .route("/control/faults", post(faults))
        .fallback(|| async { Refusal::new(StatusCode::NOT_FOUND, "not_found", "no such path") })
        .method_not_allowed_fallback(|| async {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "no such method here")
        })
        .layer(middleware::from_fn_with_state(handle.clone(), upgrade))
        .with_state(handle)
}

/// Takes websocket requests out, whatever their path.
async fn upgrade(State(handle): State<Handle>, mut request: Request, next: Next) -> Response {
    if !is_websocket(request.headers()) {
        return next.run(request).await;
    }
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned() else {
        return Refusal::new(StatusCode::BAD_REQUEST, "bad_upgrade", "no Sec-WebSocket-Key").into_response();
    };
    let pending = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match pending.await {
            Ok(upgraded) => {
                let stream = TokioIo::new(upgraded);
                let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(websocket_config())).await;
                handle.serve(socket).await;
            }
            Err(error) => tracing::debug!(%error, "an upgrade failed"),
        }
    });
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()));
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept.unwrap_or_else(|_| HeaderValue::from_static(""))),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(8 << 10)
        .write_buffer_size(8 << 10)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

async fn health() -> axum::Json<Value> {
    axum::Json(json!({ "status": "ok" }))
}

async fn accounts(State(handle): State<Handle>) -> Result<axum::Json<Value>, Refusal> {
    let accounts = handle.call(|server, _| server.accounts()).await?;
    Ok(axum::Json(json!({ "accounts": accounts })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Number {
    number: String,
}

async fn phones(State(handle): State<Handle>, body: Json<Number>) -> Result<axum::Json<Value>, Refusal> {
    let number = body.0.number;
    let account = handle.call(move |server, now| server.phone(now, &number)).await?.map_err(LoopbackError::from)?;
    Ok(axum::Json(json!(account)))
}

#[derive(Deserialize)]
struct Scan {
    number: String,
    qr: String,
    #[serde(default)]
    options: ScanOptions,
}

async fn scan(State(handle): State<Handle>, body: Json<Scan>) -> Result<axum::Json<Value>, Refusal> {
    let Scan { number, qr, options } = body.0;
    Ok(axum::Json(json!(handle.scan(number, qr, options).await?)))
}

#[derive(Deserialize)]
struct PairCode {
    number: String,
    code: String,
    #[serde(default)]
    options: ScanOptions,
}

async fn pair_code(State(handle): State<Handle>, body: Json<PairCode>) -> Result<axum::Json<Value>, Refusal> {
    let PairCode { number, code, options } = body.0;
    handle.enter_code(number, code, options).await?;
    Ok(axum::Json(json!({})))
}

#[derive(Deserialize)]
struct Passkey {
    number: String,
    #[serde(default)]
    qr: Option<String>,
    #[serde(default)]
    options: PasskeyOptions,
}

async fn passkey(State(handle): State<Handle>, body: Json<Passkey>) -> Result<axum::Json<Value>, Refusal> {
    let Passkey { number, qr, options } = body.0;
    handle.begin_passkey(number, qr, options).await?;
    Ok(axum::Json(json!({})))
}

async fn refuse(State(handle): State<Handle>, body: Json<Number>) -> Result<axum::Json<Value>, Refusal> {
    handle.refuse_link(body.0.number).await?;
    Ok(axum::Json(json!({})))
}

async fn waiting(State(handle): State<Handle>) -> Result<axum::Json<Value>, Refusal> {
    let waiting = handle.call(|server, _| server.waiting()).await?;
    Ok(axum::Json(json!({ "waiting": waiting })))
}

/// The action's fields stand under `do`, because they are checked for unknown ones.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    #[serde(default)]
    conn: Option<u64>,
    r#do: LinkAction,
}

async fn link(State(handle): State<Handle>, body: Json<Link>) -> Result<axum::Json<Value>, Refusal> {
    handle.link_action(body.0.conn.map(ConnId), body.0.r#do).await?;
    Ok(axum::Json(json!({})))
}

#[derive(Deserialize)]
struct Ending {
    jid: Jid,
    #[serde(default)]
    code: Option<Disconnect>,
}

async fn disconnect(State(handle): State<Handle>, body: Json<Ending>) -> Result<axum::Json<Value>, Refusal> {
    handle.disconnect(body.0.jid, body.0.code.unwrap_or_default()).await?;
    Ok(axum::Json(json!({})))
}

#[derive(Deserialize)]
struct Text {
    number: String,
    to: Jid,
    text: String,
}

async fn send_message(State(handle): State<Handle>, body: Json<Text>) -> Result<axum::Json<Value>, Refusal> {
    let Text { number, to, text } = body.0;
    Ok(axum::Json(json!({ "id": handle.send_text(number, to, text).await? })))
}

async fn received(State(handle): State<Handle>, body: Json<Number>) -> Result<axum::Json<Value>, Refusal> {
    let messages = handle.call(move |server, _| server.received(&body.0.number)).await?;
    Ok(axum::Json(json!({ "messages": messages })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Post {
    number: String,
    to: Jid,
    audience: Vec<Jid>,
    text: String,
}

async fn audience(State(handle): State<Handle>, body: Json<Post>) -> Result<axum::Json<Value>, Refusal> {
    let Post { number, to, audience, text } = body.0;
    let sent = handle.call(move |server, now| server.send_to_audience(now, &number, &to, &audience, &text)).await?;
    Ok(axum::Json(json!({ "id": sent.map_err(LoopbackError::from)? })))
}

async fn groups(State(handle): State<Handle>) -> Result<axum::Json<Value>, Refusal> {
    let groups = handle.call(|server, _| server.groups()).await?;
    Ok(axum::Json(json!({ "groups": groups })))
}

async fn create_group(State(handle): State<Handle>, body: Json<GroupSpec>) -> Result<axum::Json<Value>, Refusal> {
    let group = handle.call(move |server, now| server.create_group(now, &body.0)).await?;
    Ok(axum::Json(json!(group.map_err(LoopbackError::from)?)))
}

/// The change's fields stand under `do`, because they are checked for unknown ones.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupOrder {
    group: Jid,
    #[serde(default)]
    by: Option<Jid>,
    r#do: GroupChange,
}

async fn change_group(State(handle): State<Handle>, body: Json<GroupOrder>) -> Result<axum::Json<Value>, Refusal> {
    let GroupOrder { group, by, r#do: change } = body.0;
    let changed = handle.call(move |server, now| server.change_group(now, &group, by.as_ref(), change)).await?;
    changed.map_err(LoopbackError::from)?;
    Ok(axum::Json(json!({})))
}

async fn faults(State(handle): State<Handle>, body: Json<Fault>) -> Result<axum::Json<Value>, Refusal> {
    handle.fault(body.0).await?;
    Ok(axum::Json(json!({})))
}

/// A JSON body, whatever its content type says.
struct Json<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|error| Refusal::new(error.status(), "bad_body", &error.body_text()))?;
        serde_json::from_slice(&body)
            .map(Self)
            .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, "bad_json", &error.to_string()))
    }
}

/// An error of the HTTP interface: `{"error":{"code","text"}}`.
struct Refusal {
    status: StatusCode,
    code: &'static str,
    text: String,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, text: &str) -> Self {
        Self { status, code, text: text.to_owned() }
    }
}

impl From<LoopbackError> for Refusal {
    fn from(error: LoopbackError) -> Self {
        use crate::{ControlError, ScanError};
        let text = error.to_string();
        let (status, code) = match error {
            LoopbackError::Gone => (StatusCode::SERVICE_UNAVAILABLE, "gone"),
            LoopbackError::Scan(error) => {
                let status = match error {
                    ScanError::Number | ScanError::Malformed(_) => StatusCode::BAD_REQUEST,
                    ScanError::UnknownRef | ScanError::ExpiredRef => StatusCode::NOT_FOUND,
                    ScanError::AlreadyScanned | ScanError::TooManyDevices => StatusCode::CONFLICT,
                    ScanError::NoiseKey | ScanError::IdentityKey => StatusCode::UNPROCESSABLE_ENTITY,
                };
                (status, error.code())
            }
            LoopbackError::Control(error) => {
                let status = match error {
                    ControlError::Number => StatusCode::BAD_REQUEST,
                    ControlError::UnknownDevice | ControlError::UnknownGroup | ControlError::NotWaiting => {
                        StatusCode::NOT_FOUND
                    }
                    ControlError::NotConnected | ControlError::NoMessage => StatusCode::CONFLICT,
                    ControlError::Unencodable | ControlError::Encrypt(_) | ControlError::Refused(_) => {
                        StatusCode::UNPROCESSABLE_ENTITY
                    }
                };
                (status, error.code())
            }
        };
        Self { status, code, text }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "code": self.code, "text": self.text } });
        (self.status, axum::Json(body)).into_response()
    }
}

/// A frame has at most 16 MiB; a websocket message may hold several.
const MAX_MESSAGE: usize = 20 << 20;
