//! How an account is put together.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::{
    client::{
        Client, Delivery, Error, FixedVersion, Proxy, VersionProvider,
        driver::{Consumer, Driver, Setup},
        network::Network,
        socket::{Connector, DEFAULT_URL},
    },
    crypto::PublicKey,
    engine::Config,
    pairing::payload::Version,
    store::{AccountId, MemoryStore, Store},
};

/// Events that wait in the channel to the consumer; more wait in the store.
const DEFAULT_EVENT_CAPACITY: usize = 256;

/// Describes an account; made by [`Client::builder`].
#[derive(Debug)]
pub struct ClientBuilder {
    account: AccountId,
    config: Config,
    store: Option<Arc<dyn Store>>,
    url: String,
    tls: Option<Arc<tokio_rustls::rustls::ClientConfig>>,
    proxy: Option<Proxy>,
    versions: Option<Arc<dyn VersionProvider>>,
    event_capacity: usize,
}

impl ClientBuilder {
    pub(super) fn new(account: AccountId) -> Self {
        Self {
            config: Config::new(account.clone()),
            account,
            store: None,
            url: DEFAULT_URL.to_owned(),
            tls: None,
            proxy: None,
            versions: None,
            event_capacity: DEFAULT_EVENT_CAPACITY,
        }
    }

    /// Where the account is kept. Default: a [`MemoryStore`], which forgets it when the program ends.
    #[must_use]
    pub fn store(self, store: impl Store) -> Self {
        self.shared_store(Arc::new(store))
    }

    /// Where the account is kept, shared with other accounts.
    #[must_use]
    pub fn shared_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// The server, `wss://…` or `ws://…` (a loopback server). Default: [`DEFAULT_URL`].
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = url.into();
        self
    }

    /// Trusts servers whose certificates go back to this key, instead of the real ones.
    #[must_use]
    pub fn root_key(mut self, root: PublicKey) -> Self {
        self.config.certificates.roots = vec![root];
        self
    }

    /// TLS with a configuration of your own (roots, client certificates, crypto provider). Default: ring and the roots
    /// of Mozilla.
    #[must_use]
    pub fn tls(mut self, config: Arc<tokio_rustls::rustls::ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Goes through a proxy, with the websocket and with all that the account fetches. Nothing goes past it: a proxy that
    /// fails is an outage. Default: none; the environment is not looked at.
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// States this version of the web client. Default: the one that this crate was checked with.
    #[must_use]
    pub fn version(self, version: Version) -> Self {
        self.versions(FixedVersion(version))
    }

    /// Who knows the current version of the web client: asked when the account begins to connect, and when the server
    /// refuses the version as outdated. Default: nobody.
    #[must_use]
    pub fn versions(self, provider: impl VersionProvider) -> Self {
        self.shared_versions(Arc::new(provider))
    }

    /// As [`versions`](Self::versions), shared with other accounts.
    #[must_use]
    pub fn shared_versions(mut self, provider: Arc<dyn VersionProvider>) -> Self {
        self.versions = Some(provider);
        self
    }

    /// Changes the engine's configuration.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// How many events may wait in the channel to the consumer, at least 1.
    #[must_use]
    pub fn event_capacity(mut self, events: usize) -> Self {
        self.event_capacity = events.max(1);
        self
    }

    /// Starts the account's task on the current tokio runtime. It loads the account and stays offline until
    /// [`Client::connect`] or [`Client::link_qr`]; events that were not acknowledged come first.
    ///
    /// # Errors
    /// [`Error::Store`] when the outbox cannot be read, or with [`StoreError::Leased`](crate::store::StoreError::Leased) when the account runs
    /// elsewhere and is not given back within 5 s; [`Error::Url`], [`Error::Random`].
    pub async fn start(mut self) -> Result<Client, Error> {
        let store = self.store.take().unwrap_or_else(|| Arc::new(MemoryStore::new()));
        let consumer = Consumer::Own(self.event_capacity);
        self.run(store, consumer).await
    }

    /// Starts it as one of many, which share the store and the consumer of events.
    pub(super) async fn start_in(
        self,
        store: Arc<dyn Store>,
        consumer: mpsc::Sender<Delivery>,
    ) -> Result<Client, Error> {
        self.run(store, Consumer::Shared(consumer)).await
    }

    async fn run(mut self, store: Arc<dyn Store>, consumer: Consumer) -> Result<Client, Error> {
        let network = Network::new(self.proxy, self.tls, self.config.handshake_timeout)?;
        let connector = Connector::new(&self.url, network)?;
        if let Some(known) = self.versions.as_ref().and_then(|provider| provider.known()) {
            self.config.client.version = known;
        }
        Driver::start(Setup {
            account: self.account,
            config: self.config,
            store,
            connector,
            versions: self.versions,
            consumer,
        })
        .await
    }
}
