//! The statements: what one read, or one group of writes, is in SQL.

use std::collections::HashMap;

use bytes::Bytes;
use deadpool_postgres::Object;
use futures_util::{FutureExt as _, future::join_all};
use smallvec::SmallVec;
use tokio_postgres::{Error, Row, types::ToSql};

use super::{
    Shared, leases, store_error,
    writer::{Write, WriteJob},
};
use crate::store::{AccountId, Key, OutboxEntry, RecordKind, StoreError};

const LOAD: &str = "
    SELECT k.n, r.value FROM unnest($2::int2[], $3::bytea[]) WITH ORDINALITY AS k (kind, id, n)
    JOIN wamd_record AS r ON r.account = $1 AND r.kind = k.kind AND r.id = k.id";
const SCAN: &str = "
    SELECT id, value FROM wamd_record WHERE account = $1 AND kind = $2 AND id >= $3 ORDER BY id LIMIT $4";
const OUTBOX: &str = "SELECT seq, body FROM wamd_outbox WHERE account = $1 AND seq > $2 ORDER BY seq LIMIT $3";
/// From one account to the next by the index, and not over all records.
const ACCOUNTS: &str = "
    WITH RECURSIVE found AS (
        (SELECT account FROM wamd_record ORDER BY account LIMIT 1)
        UNION ALL
        SELECT (SELECT r.account FROM wamd_record AS r WHERE r.account > found.account ORDER BY r.account LIMIT 1)
        FROM found WHERE found.account IS NOT NULL
    )
    SELECT account FROM found WHERE account IS NOT NULL";
const CLEAR: &str = "DELETE FROM wamd_record WHERE account = ANY($1)";
const EMPTY_OUTBOX: &str = "DELETE FROM wamd_outbox WHERE account = ANY($1)";
const DELETE: &str = "
    DELETE FROM wamd_record AS r USING unnest($1::text[], $2::int2[], $3::bytea[]) AS d (account, kind, id)
    WHERE r.account = d.account AND r.kind = d.kind AND r.id = d.id";
const PUT: &str = "
    INSERT INTO wamd_record SELECT * FROM unnest($1::text[], $2::int2[], $3::bytea[], $4::bytea[])
    ON CONFLICT (account, kind, id) DO UPDATE SET value = excluded.value";
const TRIM: &str = "
    DELETE FROM wamd_outbox AS o USING unnest($1::text[], $2::int8[]) AS t (account, through)
    WHERE o.account = t.account AND o.seq <= t.through";
/// Answers what was appended; what is missing there was taken.
const APPEND: &str = "
    INSERT INTO wamd_outbox SELECT * FROM unnest($1::text[], $2::int8[], $3::bytea[])
    ON CONFLICT (account, seq) DO NOTHING RETURNING account, seq";

pub(super) async fn load(client: &Object, account: &AccountId, keys: &[Key]) -> Result<Vec<Option<Bytes>>, StoreError> {
    let kinds: Vec<i16> = keys.iter().map(|key| key.kind as i16).collect();
    let ids: Vec<&[u8]> = keys.iter().map(|key| &key.id[..]).collect();
    let rows = query(client, LOAD, &[&account.as_str(), &kinds, &ids]).await.map_err(|error| store_error(&error))?;
    let mut values = vec![None; keys.len()];
    for row in rows {
        let number: i64 = column(&row, 0)?;
        let place = usize::try_from(number).ok().and_then(|number| values.get_mut(number.checked_sub(1)?));
        if let Some(place) = place {
            *place = Some(bytes(&row, 1)?);
        }
    }
    Ok(values)
}

pub(super) async fn scan(
    client: &Object,
    account: &AccountId,
    kind: RecordKind,
    from: &[u8],
    limit: usize,
) -> Result<Vec<(Key, Bytes)>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let params: &[&(dyn ToSql + Sync)] = &[&account.as_str(), &(kind as i16), &from, &limit];
    let rows = query(client, SCAN, params).await.map_err(|error| store_error(&error))?;
    let record = |row: &Row| Ok((Key { kind, id: SmallVec::from_slice(column(row, 0)?) }, bytes(row, 1)?));
    rows.iter().map(record).collect()
}

pub(super) async fn outbox(
    client: &Object,
    account: &AccountId,
    after: u64,
    limit: usize,
) -> Result<Vec<OutboxEntry>, StoreError> {
    let (after, limit) = (number(after), i64::try_from(limit).unwrap_or(i64::MAX));
    let params: &[&(dyn ToSql + Sync)] = &[&account.as_str(), &after, &limit];
    let rows = query(client, OUTBOX, params).await.map_err(|error| store_error(&error))?;
    let event = |row: &Row| Ok(OutboxEntry { seq: column::<i64>(row, 0)?.cast_unsigned(), body: bytes(row, 1)? });
    rows.iter().map(event).collect()
}

pub(super) async fn accounts(client: &Object) -> Result<Vec<AccountId>, StoreError> {
    let rows = query(client, ACCOUNTS, &[]).await.map_err(|error| store_error(&error))?;
    rows.iter().map(|row| column::<&str>(row, 0).map(AccountId::new)).collect()
}

/// The rows of a group of writes, by statement.
#[derive(Default)]
struct Rows<'a> {
    /// Of all writes.
    accounts: Vec<&'a str>,
    removed: Vec<&'a str>,
    cleared: Vec<&'a str>,
    deletes: (Vec<&'a str>, Vec<i16>, Vec<&'a [u8]>),
    puts: (Vec<&'a str>, Vec<i16>, Vec<&'a [u8]>),
    values: Vec<&'a [u8]>,
    trims: (Vec<&'a str>, Vec<i64>),
    events: (Vec<&'a str>, Vec<i64>, Vec<&'a [u8]>),
}

impl<'a> Rows<'a> {
    fn of(group: &[&'a WriteJob]) -> Self {
        let mut rows = Self::default();
        for WriteJob { account, write, .. } in group {
            let account = account.as_str();
            rows.accounts.push(account);
            match write {
                Write::Remove => rows.removed.push(account),
                Write::Trim(through) => {
                    rows.trims.0.push(account);
                    rows.trims.1.push(number(*through));
                }
                Write::Batch(batch) => {
                    if batch.clear {
                        rows.cleared.push(account);
                    }
                    for key in &batch.deletes {
                        rows.deletes.0.push(account);
                        rows.deletes.1.push(key.kind as i16);
                        rows.deletes.2.push(&key.id);
                    }
                    for (key, value) in &batch.puts {
                        rows.puts.0.push(account);
                        rows.puts.1.push(key.kind as i16);
                        rows.puts.2.push(&key.id);
                        rows.values.push(value);
                    }
                    for OutboxEntry { seq, body } in &batch.events {
                        rows.events.0.push(account);
                        rows.events.1.push(number(*seq));
                        rows.events.2.push(body);
                    }
                }
            }
        }
        rows
    }
}

/// What a group of writes came to.
pub(super) enum Outcome {
    /// All are stored.
    Committed,
    /// These break a rule, by their place in the group. Nothing is stored.
    Refused(HashMap<usize, StoreError>),
}

/// Writes a group, with at most one write of an account, in one transaction.
///
/// # Errors
/// What the server or the connection says. The connection is in an unknown state then.
pub(super) async fn transaction(shared: &Shared, client: &Object, group: &[&WriteJob]) -> Result<Outcome, Error> {
    let rows = Rows::of(group);
    let (deletes, puts, trims, events) = (&rows.deletes, &rows.puts, &rows.trims, &rows.events);
    // Each with whether there is anything to do. Sent in this order, without waiting for answers.
    let removed = !rows.removed.is_empty();
    let statements: [(bool, &str, &[&(dyn ToSql + Sync)]); 8] = [
        (true, leases::FENCE, &[&rows.accounts]),
        (removed, CLEAR, &[&rows.removed]),
        (removed, EMPTY_OUTBOX, &[&rows.removed]),
        (!rows.cleared.is_empty(), CLEAR, &[&rows.cleared]),
        (!deletes.0.is_empty(), DELETE, &[&deletes.0, &deletes.1, &deletes.2]),
        (!puts.0.is_empty(), PUT, &[&puts.0, &puts.1, &puts.2, &rows.values]),
        (!trims.0.is_empty(), TRIM, &[&trims.0, &trims.1]),
        (!events.0.is_empty(), APPEND, &[&events.0, &events.1, &events.2]),
    ];
    let mut prepared = Vec::new();
    for (is_needed, sql, params) in statements {
        if is_needed {
            prepared.push((client.prepare_cached(sql).await?, params));
        }
    }
    let begin = async { client.batch_execute("BEGIN").await.map(|()| Vec::new()) };
    let mut sent = vec![begin.boxed()];
    sent.extend(prepared.iter().map(|(statement, params)| client.query(statement, params).boxed()));
    // A future sends its statement when it is polled first, which happens in order.
    let answers = join_all(sent).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let refused = refused(shared, group, &answers);
    if refused.is_empty() {
        client.batch_execute("COMMIT").await?;
        return Ok(Outcome::Committed);
    }
    client.batch_execute("ROLLBACK").await?;
    Ok(Outcome::Refused(refused))
}

/// Which writes of a group lack a lease or append an event that is there.
fn refused(shared: &Shared, group: &[&WriteJob], answers: &[Vec<Row>]) -> HashMap<usize, StoreError> {
    let mut refused = HashMap::new();
    let fence = answers.get(1).map(Vec::as_slice).unwrap_or_default();
    let appended = answers.last().map(Vec::as_slice).unwrap_or_default();
    let (leases, appended) = match (leases::by_account(fence), numbers(appended)) {
        (Ok(leases), Ok(appended)) => (leases, appended),
        (Err(error), _) | (_, Err(error)) => return (0..group.len()).map(|place| (place, error.clone())).collect(),
    };
    let held = shared.held();
    for (place, job) in group.iter().enumerate() {
        let fenced =
            leases::fence(held.get(&job.account).map(|held| held.token), leases.get(job.account.as_str()).copied());
        let conflict = || {
            let Write::Batch(batch) = &job.write else { return Ok(()) };
            let mut appended = appended.get(job.account.as_str()).cloned().unwrap_or_default();
            for OutboxEntry { seq, .. } in &batch.events {
                // Once for each row: the second event with one number finds none.
                let Some(row) = appended.iter().position(|number| number == seq) else {
                    return Err(StoreError::Conflict { seq: *seq });
                };
                appended.swap_remove(row);
            }
            Ok(())
        };
        if let Err(error) = fenced.and_then(|()| conflict()) {
            refused.insert(place, error);
        }
    }
    refused
}

/// What was appended, by account.
fn numbers(rows: &[Row]) -> Result<HashMap<&str, Vec<u64>>, StoreError> {
    let mut numbers: HashMap<&str, Vec<u64>> = HashMap::new();
    // The rows of another statement, if no event was appended: those have no columns.
    for row in rows.iter().filter(|row| row.columns().len() == 2) {
        numbers.entry(column(row, 0)?).or_default().push(column::<i64>(row, 1)?.cast_unsigned());
    }
    Ok(numbers)
}

async fn query(client: &Object, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
    let statement = client.prepare_cached(sql).await?;
    client.query(&statement, params).await
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, StoreError> {
    row.try_get(column).map_err(|_| StoreError::Damaged("a column is of an unexpected type".into()))
}

fn bytes(row: &Row, place: usize) -> Result<Bytes, StoreError> {
    column(row, place).map(Bytes::copy_from_slice)
}

/// Nothing is stored beyond `i64`, so the largest one excludes and includes the same rows.
fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}
