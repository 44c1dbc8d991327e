//! Leases as rows: taken, renewed, given back, and asked for by every write.

use std::{
    collections::{HashMap, HashSet},
    future::{Future, pending},
    sync::Weak,
    time::Duration,
};

use deadpool_postgres::Object;
use tokio::sync::oneshot;
use tokio_postgres::Row;

use super::{Held, Shared, store_error};
use crate::store::{AccountId, StoreError};

/// Takes an account that nobody has, whose lease has run out, or which this store took without hearing of it, because the connection
/// broke. The row is locked by that, so a commit under the old lease is either waited for or fails.
const ACQUIRE: &str = "
    INSERT INTO wamd_lease AS l (account, token, owner, node, until)
    VALUES ($1, nextval('wamd_lease_token'), $2, $3, clock_timestamp() + $4::float8 * interval '1 second')
    ON CONFLICT (account) DO UPDATE
    SET token = excluded.token, owner = excluded.owner, node = excluded.node, until = excluded.until
    WHERE l.until < clock_timestamp() OR l.owner = excluded.owner
    RETURNING token";
const HOLDER: &str = "
    SELECT node, (extract(epoch FROM until) * 1000)::int8 FROM wamd_lease WHERE account = $1";
const RELEASE: &str = "DELETE FROM wamd_lease WHERE account = $1 AND token = $2";
const RELEASE_ALL: &str = "DELETE FROM wamd_lease WHERE owner = $1";
const RENEW: &str = "
    UPDATE wamd_lease SET until = clock_timestamp() + $2::float8 * interval '1 second'
    WHERE owner = $1 AND account = ANY($3)
    RETURNING account";

/// Who has the accounts that are about to be written to, locked against a change until that is committed.
pub(super) const FENCE: &str = "
    SELECT account, token, node, (extract(epoch FROM until) * 1000)::int8, until < clock_timestamp()
    FROM wamd_lease WHERE account = ANY($1) ORDER BY account FOR SHARE";

/// Takes an account; the token of the lease, and when it is lost.
pub(super) async fn acquire(
    shared: &Shared,
    account: &AccountId,
) -> Result<(u64, impl Future<Output = ()> + Send + Sync + use<>), StoreError> {
    let client = shared.client().await?;
    let token = shared.within(client, async |client| take(shared, client, account).await).await?;
    let (loss, lost) = oneshot::channel();
    shared.held().insert(account.clone(), Held { token, loss: Some(loss) });
    let lost = async {
        // Without a word the lease was given back, or the store closed.
        if lost.await.is_err() {
            pending().await
        }
    };
    Ok((token.cast_unsigned(), lost))
}

async fn take(shared: &Shared, client: &Object, account: &AccountId) -> Result<i64, StoreError> {
    let error = |error| store_error(&error);
    let (name, lease) = (account.as_str(), shared.options.lease.max(SHORTEST).as_secs_f64());
    let is_held = shared.held().contains_key(account);
    if !is_held {
        let acquire = client.prepare_cached(ACQUIRE).await.map_err(error)?;
        let node = &shared.options.node;
        let taken = client.query_opt(&acquire, &[&name, &shared.owner, node, &lease]).await.map_err(error)?;
        if let Some(row) = taken {
            return row.try_get(0).map_err(error);
        }
    }
    let holder = client.prepare_cached(HOLDER).await.map_err(error)?;
    let (by, until) = match client.query_opt(&holder, &[&name]).await.map_err(error)? {
        Some(row) => (row.try_get(0).map_err(error)?, row.try_get::<_, i64>(1).map_err(error)?),
        // Given back between the two statements, or lost and not dropped yet.
        None => (String::from("another node"), 0),
    };
    Err(StoreError::Leased { by, until: u64::try_from(until).ok() })
}

/// Gives an account back, if that lease still has it.
pub(super) async fn release(shared: &Shared, account: &AccountId, token: u64) -> Result<(), StoreError> {
    let token = token.cast_signed();
    {
        let mut held = shared.held();
        if held.get(account).is_some_and(|held| held.token == token) {
            held.remove(account);
        }
    }
    let client = shared.client().await?;
    let run = async |client: &Object| {
        let release = client.prepare_cached(RELEASE).await?;
        client.execute(&release, &[&account.as_str(), &token]).await
    };
    shared.within(client, async |client| run(client).await.map_err(|error| store_error(&error))).await.map(drop)
}

/// Gives all accounts back.
pub(super) async fn close(shared: &Shared) {
    if shared.held().is_empty() {
        return;
    }
    let run = async {
        let client = shared.client().await?;
        let run = async |client: &Object| client.execute(RELEASE_ALL, &[&shared.owner]).await;
        shared.within(client, async |client| run(client).await.map_err(|error| store_error(&error))).await
    };
    if let Err(error) = run.await {
        tracing::warn!(%error, "leases were not given back: they run out");
    }
}

/// Renews the leases of a store until it is gone. A lease that was lost is not renewed: it has another owner.
pub(super) async fn renew(store: Weak<Shared>, lease: Duration) {
    let lease = lease.max(SHORTEST);
    loop {
        tokio::time::sleep(lease / 3).await;
        let Some(shared) = store.upgrade() else { return };
        let believed: Vec<(AccountId, i64)> =
            shared.held().iter().map(|(account, held)| (account.clone(), held.token)).collect();
        let accounts: Vec<&str> = believed.iter().map(|(account, _)| account.as_str()).collect();
        if accounts.is_empty() {
            continue;
        }
        let run = async {
            let client = shared.client().await?;
            let run = async |client: &Object| {
                let renew = client.prepare_cached(RENEW).await?;
                let rows = client.query(&renew, &[&shared.owner, &lease.as_secs_f64(), &accounts]).await?;
                rows.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<String>, _>>()
            };
            shared.within(client, async |client| run(client).await.map_err(|error| store_error(&error))).await
        };
        match run.await {
            Ok(renewed) => {
                let mut held = shared.held();
                for (account, token) in believed.iter().filter(|(account, _)| !renewed.contains(account.as_str())) {
                    // It may have been given back, and taken again, meanwhile.
                    if let Some(lost) = held.get_mut(account).filter(|held| held.token == *token)
                        && let Some(loss) = lost.loss.take()
                    {
                        tracing::warn!(%account, "a lease was lost");
                        let _ = loss.send(());
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "leases were not renewed"),
        }
    }
}

/// Whether a store that holds `held` may write to an account with this row, as [`FENCE`] reads it.
pub(super) fn fence(held: Option<i64>, row: Option<&Row>) -> Result<(), StoreError> {
    let Some(row) = row else {
        return held.map_or(Ok(()), |_| Err(StoreError::LeaseLost));
    };
    let error = |error| store_error(&error);
    let (token, until, is_over): (i64, i64, bool) =
        (row.try_get(1).map_err(error)?, row.try_get(3).map_err(error)?, row.try_get(4).map_err(error)?);
    match held {
        Some(held) if held == token => Ok(()),
        Some(_) => Err(StoreError::LeaseLost),
        None if is_over => Ok(()),
        None => Err(StoreError::Leased { by: row.try_get(2).map_err(error)?, until: u64::try_from(until).ok() }),
    }
}

/// The rows of [`FENCE`] by account.
pub(super) fn by_account(rows: &[Row]) -> Result<HashMap<&str, &Row>, StoreError> {
    rows.iter().map(|row| Ok((row.try_get(0).map_err(|error| store_error(&error))?, row))).collect()
}

/// Shorter leases would be renewed all the time.
const SHORTEST: Duration = Duration::from_secs(1);
