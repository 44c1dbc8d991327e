//! A [`SenderKeyStore`] in memory, for tests, benches and simulated phones. Nothing is ever missing.

use std::{collections::BTreeMap, convert::Infallible};

use super::{OwnSenderKey, SenderKeyName, SenderKeyPageId, SenderKeyRecord, SenderKeyStore};
use crate::signal::{SignalError, SkippedPage};

/// All sender keys of one device as values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemorySenderKeyStore {
    own: BTreeMap<SenderKeyName, OwnSenderKey>,
    records: BTreeMap<SenderKeyName, SenderKeyRecord>,
    pages: BTreeMap<(SenderKeyName, SenderKeyPageId), SkippedPage>,
}

impl MemorySenderKeyStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Pages of skipped message keys of a sender.
    pub fn page_count(&self, name: &SenderKeyName) -> usize {
        self.pages.keys().filter(|(owner, _)| owner == name).count()
    }

    /// Writes every record and reads it back, as a restart does.
    ///
    /// # Errors
    /// A record does not decode, which is a defect of its encoding.
    pub fn reload(&mut self) -> Result<(), SignalError> {
        for key in self.own.values_mut() {
            *key = OwnSenderKey::decode(&key.encode())?;
        }
        for record in self.records.values_mut() {
            *record = SenderKeyRecord::decode(&record.encode())?;
        }
        for page in self.pages.values_mut() {
            *page = SkippedPage::decode(&page.encode())?;
        }
        Ok(())
    }

    /// Every record, encoded, in a fixed order with its name in front: equal exactly when the stores are.
    pub fn encode(&self) -> Vec<Vec<u8>> {
        let label = |kind: &str, name: &SenderKeyName, id: &[u32]| {
            format!("{kind} {} {} {id:?}", name.group(), name.sender().as_str()).into_bytes()
        };
        let mut out = Vec::new();
        for (name, key) in &self.own {
            out.extend([label("own", name, &[]), key.encode()]);
        }
        for (name, record) in &self.records {
            out.extend([label("record", name, &[]), record.encode()]);
        }
        for ((name, id), page) in &self.pages {
            out.extend([label("page", name, &[id.serial.0, id.page]), page.encode()]);
        }
        out
    }
}

impl SenderKeyStore for MemorySenderKeyStore {
    type Miss = Infallible;

    fn own_sender_key(&mut self, name: &SenderKeyName) -> Result<Option<OwnSenderKey>, Infallible> {
        Ok(self.own.get(name).cloned())
    }

    fn sender_key(&mut self, name: &SenderKeyName) -> Result<Option<SenderKeyRecord>, Infallible> {
        Ok(self.records.get(name).cloned())
    }

    fn sender_key_page(
        &mut self,
        name: &SenderKeyName,
        id: SenderKeyPageId,
    ) -> Result<Option<SkippedPage>, Infallible> {
        Ok(self.pages.get(&(name.clone(), id)).cloned())
    }

    fn put_own_sender_key(&mut self, name: &SenderKeyName, key: OwnSenderKey) {
        self.own.insert(name.clone(), key);
    }

    fn delete_own_sender_key(&mut self, name: &SenderKeyName) {
        self.own.remove(name);
    }

    fn put_sender_key(&mut self, name: &SenderKeyName, record: SenderKeyRecord) {
        match self.records.get_mut(name) {
            Some(old) => *old = record,
            None => drop(self.records.insert(name.clone(), record)),
        }
    }

    fn delete_sender_key(&mut self, name: &SenderKeyName) {
        self.records.remove(name);
    }

    fn put_sender_key_page(&mut self, name: &SenderKeyName, id: SenderKeyPageId, page: SkippedPage) {
        self.pages.insert((name.clone(), id), page);
    }

    fn delete_sender_key_page(&mut self, name: &SenderKeyName, id: SenderKeyPageId) {
        self.pages.remove(&(name.clone(), id));
    }
}
