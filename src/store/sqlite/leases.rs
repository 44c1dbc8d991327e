//! Which process runs which account.
//!
//! A row says who has a lease; a lock of the operating system says whether that one is alive. Each store that has a lease holds
//! the lock of a file of its own, `<database>-owner-<id>`, as long as it lives. The lock goes with the process whatever ends it, so after a
//! crash the account is free at once, and there is no time to wait out and no clock to trust.
//!
//! Files are made, locked, looked at and removed within write transactions only: nobody sees one that is not locked yet.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OptionalExtension as _, Statement, Transaction, TransactionBehavior, params};

use super::{open::private_file, store_error};
use crate::store::{AccountId, StoreError};

/// The leases of one store.
pub(super) struct Leases {
    database: PathBuf,
    owner: Option<Owner>,
    held: HashMap<AccountId, i64>,
}

/// What happens to the lease of an account.
#[derive(Clone, Copy)]
pub(super) enum Change<'a> {
    Acquire(&'a AccountId),
    /// With its token: if that lease still has the account.
    Release(&'a AccountId, i64),
}

/// The life of a store, as others see it.
struct Owner {
    id: String,
    /// Locked until it is dropped.
    _file: File,
}

impl Leases {
    pub(super) fn new(database: &Path) -> Self {
        Self { database: database.to_owned(), owner: None, held: HashMap::new() }
    }

    /// Takes accounts and gives some back, in order and in one transaction. One result per change: the token of the lease.
    pub(super) fn settle(&mut self, conn: &Connection, changes: &[Change<'_>]) -> Vec<Result<u64, StoreError>> {
        let run = |leases: &mut Self| {
            let transaction = begin(conn)?;
            let results: Vec<_> = changes.iter().map(|change| leases.change(&transaction, *change)).collect();
            transaction.commit().map_err(|error| store_error(&error))?;
            Ok(results)
        };
        let results = run(self).unwrap_or_else(|error: StoreError| vec![Err(error); changes.len()]);
        for (change, result) in changes.iter().zip(&results) {
            match (*change, result) {
                (Change::Acquire(account), Ok(token)) => drop(self.held.insert(account.clone(), *token)),
                (Change::Release(account, token), _) if self.held.get(account) == Some(&token) => {
                    self.held.remove(account);
                }
                _ => {}
            }
        }
        results.into_iter().map(|result| result.map(i64::cast_unsigned)).collect()
    }

    fn change(&mut self, transaction: &Transaction<'_>, change: Change<'_>) -> Result<i64, StoreError> {
        let account = match change {
            Change::Acquire(account) => account,
            Change::Release(account, token) => {
                let delete = "DELETE FROM lease WHERE account = ?1 AND token = ?2";
                let deleted = transaction.execute(delete, params![account.as_str(), token]);
                return deleted.map(|_| token).map_err(|error| store_error(&error));
            }
        };
        let mut statement = transaction.prepare(STORED).map_err(|error| store_error(&error))?;
        if let Some((_, owner)) = stored(&mut statement, account)? {
            self.refuse_alive(&owner)?;
        }
        let owner = match &self.owner {
            Some(owner) => owner.id.clone(),
            None => self.come_alive(transaction)?,
        };
        let insert = || {
            transaction.execute("DELETE FROM lease WHERE account = ?1", [account.as_str()])?;
            transaction.execute("INSERT INTO lease (account, owner) VALUES (?1, ?2)", params![account.as_str(), owner])
        };
        insert().map_err(|error| store_error(&error))?;
        Ok(transaction.last_insert_rowid())
    }

    /// Whether this store may write to an account of which this is stored.
    pub(super) fn fence(&self, account: &AccountId, stored: Option<(i64, String)>) -> Result<(), StoreError> {
        match (self.held.get(account), stored) {
            (Some(held), Some((token, _))) if *held == token => Ok(()),
            (Some(_), _) => Err(StoreError::LeaseLost),
            (None, Some((_, owner))) => self.refuse_alive(&owner),
            (None, None) => Ok(()),
        }
    }

    /// Gives everything back. What cannot be removed now belongs to nobody alive all the same.
    pub(super) fn close(self, conn: &Connection) {
        let Some(owner) = self.owner else { return };
        if let Err(error) = conn.execute("DELETE FROM lease WHERE owner = ?1", [&owner.id]) {
            tracing::warn!(error = %store_error(&error), "leases were not removed");
        }
        let _ = fs::remove_file(owner_file(&self.database, &owner.id));
    }

    fn refuse_alive(&self, owner: &str) -> Result<(), StoreError> {
        // What stands in the database is part of a path.
        let is_ours = owner.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if !is_ours || !is_alive(&owner_file(&self.database, owner)) {
            return Ok(());
        }
        let process = owner.split('-').next().unwrap_or_default();
        Err(StoreError::Leased { by: format!("process {process}"), until: None })
    }

    /// Makes and locks the file that says that this store lives, and removes those of the dead.
    fn come_alive(&mut self, transaction: &Transaction<'_>) -> Result<String, StoreError> {
        let random: String = transaction
            .query_row("SELECT lower(hex(randomblob(8)))", [], |row| row.get(0))
            .map_err(|error| store_error(&error))?;
        let id = format!("{}-{random}", std::process::id());
        bury(&self.database);
        let file = private_file().open(owner_file(&self.database, &id)).map_err(io_error)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::Error(error) => io_error(error),
            TryLockError::WouldBlock => StoreError::Backend("a new file is locked".into()),
        })?;
        self.owner = Some(Owner { id: id.clone(), _file: file });
        Ok(id)
    }
}

/// Who has an account: the token, and the owner.
pub(super) fn stored(statement: &mut Statement<'_>, account: &AccountId) -> Result<Option<(i64, String)>, StoreError> {
    let row = statement.query_row([account.as_str()], |row| Ok((row.get(0)?, row.get(1)?)));
    row.optional().map_err(|error| store_error(&error))
}

pub(super) const STORED: &str = "SELECT token, owner FROM lease WHERE account = ?1";

fn begin(conn: &Connection) -> Result<Transaction<'_>, StoreError> {
    Transaction::new_unchecked(conn, TransactionBehavior::Immediate).map_err(|error| store_error(&error))
}

fn owner_file(database: &Path, id: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(format!("-owner-{id}"));
    path.into()
}

/// Whether somebody holds the lock of a file. In doubt somebody does.
fn is_alive(path: &Path) -> bool {
    match OpenOptions::new().write(true).open(path) {
        Ok(file) => file.try_lock().is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Removes the files that processes left behind when they were killed.
fn bury(database: &Path) {
    let (Some(directory), Some(name)) = (database.parent(), database.file_name()) else { return };
    let prefix = format!("{}-owner-", name.to_string_lossy());
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)) {
        if !is_alive(&path.path()) {
            let _ = fs::remove_file(path.path());
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn io_error(error: io::Error) -> StoreError {
    StoreError::Backend(format!("cannot lock a file beside the database: {error}"))
}
