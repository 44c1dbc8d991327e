//! The statements: what one read or write of the store is in SQL.
//!
//! An account's number is looked up in each transaction and never remembered: another process may have removed the
//! account, and its number may be another's by now.

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Statement, Transaction, TransactionBehavior, params};
use smallvec::SmallVec;

use super::{
    leases::{self, Leases},
    store_error,
};
use crate::store::{AccountId, Batch, Key, OutboxEntry, RecordKind, StoreError};

/// One change of an account.
pub(super) enum Write {
    Batch(Batch),
    Trim(u64),
    Remove,
}

impl Write {
    /// Roughly how many bytes it writes.
    pub(super) fn size(&self) -> usize {
        let Self::Batch(batch) = self else { return 0 };
        let records = batch.puts.iter().map(|(key, value)| key.id.len() + value.len());
        records.chain(batch.events.iter().map(|event| event.body.len())).fold(0, usize::saturating_add)
    }
}

/// Prepared reads on a connection.
pub(super) struct Reads<'c> {
    conn: &'c Connection,
    account: Statement<'c>,
    load: Statement<'c>,
    scan: Statement<'c>,
    outbox: Statement<'c>,
    accounts: Statement<'c>,
}

/// Prepared writes on a connection.
pub(super) struct Writes<'c> {
    conn: &'c Connection,
    account: Statement<'c>,
    lease: Statement<'c>,
    add_account: Statement<'c>,
    put: Statement<'c>,
    delete: Statement<'c>,
    append: Statement<'c>,
    trim: Statement<'c>,
    clear: Statement<'c>,
    remove: [Statement<'c>; 3],
}

/// Why a transaction has no effect.
pub(super) enum Failure {
    /// It could not begin: no write can succeed now.
    Begin(StoreError),
    /// A write in it failed, or its end.
    Inside(StoreError),
}

const ACCOUNT: &str = "SELECT id FROM account WHERE name = ?1";

impl<'c> Reads<'c> {
    pub(super) fn prepare(conn: &'c Connection) -> Result<Self, StoreError> {
        Ok(Self {
            conn,
            account: prepare(conn, ACCOUNT)?,
            load: prepare(conn, "SELECT value FROM record WHERE account = ?1 AND kind = ?2 AND id = ?3")?,
            scan: prepare(
                conn,
                "SELECT id, value FROM record WHERE account = ?1 AND kind = ?2 AND id >= ?3 ORDER BY id LIMIT ?4",
            )?,
            outbox: prepare(
                conn,
                "SELECT seq, body FROM outbox WHERE account = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
            )?,
            accounts: prepare(
                conn,
                "SELECT name FROM account AS a WHERE EXISTS (SELECT 1 FROM record WHERE account = a.id) ORDER BY name",
            )?,
        })
    }

    pub(super) fn load(&mut self, account: &AccountId, keys: &[Key]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.of_account(
            account,
            || vec![None; keys.len()],
            |reads, account| {
                keys.iter()
                    .map(|key| {
                        let key = params![account, key.kind as u8, key.id.as_slice()];
                        reads.load.query_row(key, |row| bytes(row, 0)).optional()
                    })
                    .collect()
            },
        )
    }

    pub(super) fn scan(
        &mut self,
        account: &AccountId,
        kind: RecordKind,
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.of_account(account, Vec::new, |reads, account| {
            reads
                .scan
                .query_map(params![account, kind as u8, from, limit], |row| {
                    let id = SmallVec::from_slice(row.get_ref(0)?.as_blob()?);
                    Ok((Key { kind, id }, bytes(row, 1)?))
                })?
                .collect()
        })
    }

    pub(super) fn outbox(
        &mut self,
        account: &AccountId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        // Nothing is stored beyond i64, so the largest one excludes and includes the same rows.
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.of_account(account, Vec::new, |reads, account| {
            reads
                .outbox
                .query_map(params![account, after, limit], |row| {
                    Ok(OutboxEntry { seq: row.get::<_, i64>(0)?.cast_unsigned(), body: bytes(row, 1)? })
                })?
                .collect()
        })
    }

    pub(super) fn accounts(&mut self) -> Result<Vec<AccountId>, StoreError> {
        let names = self.accounts.query_map([], |row| Ok(AccountId::new(row.get_ref(0)?.as_str()?)));
        names.and_then(Iterator::collect).map_err(|error| store_error(&error))
    }

    /// Reads in one transaction: several rows are of one moment.
    fn of_account<T>(
        &mut self,
        account: &AccountId,
        absent: impl FnOnce() -> T,
        read: impl FnOnce(&mut Self, i64) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let run = |reads: &mut Self| {
            let conn = reads.conn;
            let _moment = conn.unchecked_transaction()?;
            match account_number(&mut reads.account, account)? {
                Some(number) => read(reads, number),
                None => Ok(absent()),
            }
        };
        run(self).map_err(|error| store_error(&error))
    }
}

impl<'c> Writes<'c> {
    pub(super) fn prepare(conn: &'c Connection) -> Result<Self, StoreError> {
        Ok(Self {
            conn,
            account: prepare(conn, ACCOUNT)?,
            lease: prepare(conn, leases::STORED)?,
            add_account: prepare(conn, "INSERT INTO account (name) VALUES (?1)")?,
            put: prepare(
                conn,
                "INSERT INTO record (account, kind, id, value) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET value = excluded.value",
            )?,
            delete: prepare(conn, "DELETE FROM record WHERE account = ?1 AND kind = ?2 AND id = ?3")?,
            append: prepare(conn, "INSERT INTO outbox (account, seq, body) VALUES (?1, ?2, ?3)")?,
            trim: prepare(conn, "DELETE FROM outbox WHERE account = ?1 AND seq <= ?2")?,
            clear: prepare(conn, "DELETE FROM record WHERE account = ?1")?,
            remove: [
                prepare(conn, "DELETE FROM record WHERE account = ?1")?,
                prepare(conn, "DELETE FROM outbox WHERE account = ?1")?,
                prepare(conn, "DELETE FROM account WHERE id = ?1")?,
            ],
        })
    }

    /// Applies all writes in one transaction, or none.
    pub(super) fn transaction<'w>(
        &mut self,
        leases: &Leases,
        writes: impl Iterator<Item = (&'w AccountId, &'w Write)>,
    ) -> Result<(), Failure> {
        let transaction = Transaction::new_unchecked(self.conn, TransactionBehavior::Immediate)
            .map_err(|error| Failure::Begin(store_error(&error)))?;
        for (account, write) in writes {
            let fenced = leases::stored(&mut self.lease, account).and_then(|stored| leases.fence(account, stored));
            fenced.and_then(|()| self.apply(account, write)).map_err(Failure::Inside)?;
        }
        transaction.commit().map_err(|error| Failure::Inside(store_error(&error)))
    }

    fn apply(&mut self, account: &AccountId, write: &Write) -> Result<(), StoreError> {
        let number = account_number(&mut self.account, account).map_err(|error| store_error(&error))?;
        match (write, number) {
            (Write::Batch(batch), number) => self.batch(account, number, batch),
            (_, None) => Ok(()),
            (Write::Trim(through), Some(number)) => {
                let through = i64::try_from(*through).unwrap_or(i64::MAX);
                self.trim.execute(params![number, through]).map(drop).map_err(|error| store_error(&error))
            }
            (Write::Remove, Some(number)) => self
                .remove
                .iter_mut()
                .try_for_each(|statement| statement.execute([number]).map(drop))
                .map_err(|error| store_error(&error)),
        }
    }

    fn batch(&mut self, account: &AccountId, number: Option<i64>, batch: &Batch) -> Result<(), StoreError> {
        let number = match number {
            Some(number) => number,
            None if batch.puts.is_empty() && batch.events.is_empty() => return Ok(()),
            None => self.add_account.insert([account.as_str()]).map_err(|error| store_error(&error))?,
        };
        self.records(number, batch).map_err(|error| store_error(&error))?;
        for OutboxEntry { seq, body } in &batch.events {
            let Ok(row) = i64::try_from(*seq) else {
                return Err(StoreError::Backend(format!("event number {seq} is out of range")));
            };
            self.append.execute(params![number, row, &body[..]]).map_err(|error| match error.sqlite_error_code() {
                Some(ErrorCode::ConstraintViolation) => StoreError::Conflict { seq: *seq },
                _ => store_error(&error),
            })?;
        }
        Ok(())
    }

    fn records(&mut self, account: i64, batch: &Batch) -> rusqlite::Result<()> {
        if batch.clear {
            self.clear.execute([account])?;
        }
        for key in &batch.deletes {
            self.delete.execute(params![account, key.kind as u8, key.id.as_slice()])?;
        }
        for (key, value) in &batch.puts {
            self.put.execute(params![account, key.kind as u8, key.id.as_slice(), &value[..]])?;
        }
        Ok(())
    }
}

fn prepare<'c>(conn: &'c Connection, sql: &str) -> Result<Statement<'c>, StoreError> {
    conn.prepare(sql).map_err(|error| match error.sqlite_error_code() {
        // The only thing that may be wrong with a fixed statement is the schema it is for.
        Some(ErrorCode::Unknown) => StoreError::Damaged("a table or column is missing".into()),
        _ => store_error(&error),
    })
}

fn account_number(statement: &mut Statement<'_>, account: &AccountId) -> rusqlite::Result<Option<i64>> {
    statement.query_row([account.as_str()], |row| row.get(0)).optional()
}

fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    Ok(Bytes::copy_from_slice(row.get_ref(column)?.as_blob()?))
}
