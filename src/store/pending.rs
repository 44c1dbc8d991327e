//! Which accounts have writes under way: their reads line up behind them, and no others do.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::AccountId;

/// How many writes each account has queued or under way.
#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<HashMap<AccountId, u32>>);

impl Pending {
    pub(super) fn add(&self, account: &AccountId) {
        let mut counts = self.lock();
        match counts.get_mut(account) {
            Some(count) => *count = count.saturating_add(1),
            None => drop(counts.insert(account.clone(), 1)),
        }
    }

    /// Whether a read must wait for writes: of one account, or of all.
    pub(super) fn concerns(&self, account: Option<&AccountId>) -> bool {
        let counts = self.lock();
        account.map_or(!counts.is_empty(), |account| counts.contains_key(account))
    }

    pub(super) fn done<'a>(&self, accounts: impl Iterator<Item = &'a AccountId>) {
        let mut counts = self.lock();
        for account in accounts {
            match counts.get_mut(account) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(counts.remove(account)),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AccountId, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
