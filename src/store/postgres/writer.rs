//! The writer task: what is queued, in groups.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use tokio::sync::{
    mpsc::{UnboundedReceiver, WeakUnboundedSender},
    oneshot,
};

use super::{
    Shared, leases,
    statements::{self, Outcome},
    store_error,
};
use crate::store::{AccountId, Batch, Lease, StoreError, StoreFuture};

/// Writes of one transaction.
const GROUP_WRITES: usize = 256;

/// Bytes of one transaction, after which it takes no further write.
const GROUP_BYTES: usize = 4 << 20;

/// Where an answer goes. Nobody may be waiting any more: that is not an error.
type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// One change of an account.
pub(super) enum Write {
    Batch(Batch),
    Trim(u64),
    Remove,
}

/// A write and where its answer goes.
pub(super) struct WriteJob {
    pub(super) account: AccountId,
    pub(super) write: Write,
    pub(super) reply: Reply<()>,
}

/// What is done with the lease of an account.
pub(super) enum LeaseJob {
    /// With the way back for the release.
    Acquire {
        account: AccountId,
        queue: WeakUnboundedSender<Job>,
        reply: Reply<Lease>,
    },
    Release {
        account: AccountId,
        token: u64,
        reply: Reply<()>,
    },
}

/// What the writer is asked for.
pub(super) enum Job {
    Write(WriteJob),
    /// To say when everything queued before is done.
    Barrier(oneshot::Sender<()>),
    Lease(LeaseJob),
}

impl Write {
    /// Roughly how many bytes it writes.
    fn size(&self) -> usize {
        let Self::Batch(batch) = self else { return 0 };
        let records = batch.puts.iter().map(|(key, value)| key.id.len().saturating_add(value.len()));
        records.chain(batch.events.iter().map(|event| event.body.len())).fold(0, usize::saturating_add)
    }
}

/// Works until the queue is closed and empty; gives all accounts back then.
pub(super) async fn run(shared: Arc<Shared>, mut jobs: UnboundedReceiver<Job>) {
    let renewal = tokio::spawn(leases::renew(Arc::downgrade(&shared), shared.options.lease));
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(job) => Some(job),
            None => jobs.recv().await,
        };
        match first {
            None => break,
            Some(Job::Lease(job)) => settle(&shared, job).await,
            Some(Job::Barrier(done)) => {
                let _ = done.send(());
            }
            Some(Job::Write(write)) => {
                let (group, waiting, after) = gather(write, &mut jobs);
                next = after;
                let results = write_group(&shared, &group).await;
                // Before the answers: who has one may read, and finds the transaction.
                shared.pending.done(group.iter().map(|job| &job.account));
                for (job, result) in group.into_iter().zip(results) {
                    let _ = job.reply.send(result);
                }
                for done in waiting {
                    let _ = done.send(());
                }
            }
        }
    }
    renewal.abort();
    leases::close(&shared).await;
}

/// Takes what is queued: the writes of one transaction, at most one of each account, who waits for them, and the first job that
/// comes after.
fn gather(
    first: WriteJob,
    jobs: &mut UnboundedReceiver<Job>,
) -> (Vec<WriteJob>, Vec<oneshot::Sender<()>>, Option<Job>) {
    let (mut bytes, mut accounts) = (first.write.size(), HashSet::from([first.account.clone()]));
    let (mut group, mut waiting) = (vec![first], Vec::new());
    while group.len() < GROUP_WRITES && bytes < GROUP_BYTES && waiting.len() < GROUP_WRITES {
        match jobs.try_recv() {
            Ok(Job::Write(write)) if accounts.insert(write.account.clone()) => {
                bytes = bytes.saturating_add(write.write.size());
                group.push(write);
            }
            Ok(Job::Barrier(done)) => waiting.push(done),
            Ok(after) => return (group, waiting, Some(after)),
            Err(_) => break,
        }
    }
    (group, waiting, None)
}

/// Writes a group; who breaks a rule fails alone. One result per write, in order.
async fn write_group(shared: &Shared, group: &[WriteJob]) -> Vec<Result<(), StoreError>> {
    let mut results: Vec<Result<(), StoreError>> = vec![Ok(()); group.len()];
    // Each round has fewer.
    let mut places: Vec<usize> = (0..group.len()).collect();
    while !places.is_empty() {
        let jobs: Vec<&WriteJob> = places.iter().filter_map(|place| group.get(*place)).collect();
        let refused = match attempt(shared, &jobs).await {
            Ok(Outcome::Committed) => return results,
            Ok(Outcome::Refused(refused)) => refused,
            // The server took offence at one of them: each on its own shows at which.
            Err(Failure::Statement(_)) if jobs.len() > 1 => {
                for (place, job) in places.iter().zip(&jobs) {
                    let result = match attempt(shared, &[job]).await {
                        Ok(Outcome::Committed) => Ok(()),
                        Ok(Outcome::Refused(refused)) => {
                            Err(refused.into_values().next().unwrap_or(StoreError::Closed))
                        }
                        Err(Failure::Statement(error) | Failure::Connection(error)) => Err(error),
                    };
                    if let Some(slot) = results.get_mut(*place) {
                        *slot = result;
                    }
                }
                return results;
            }
            Err(Failure::Statement(error) | Failure::Connection(error)) => {
                (0..jobs.len()).map(|place| (place, error.clone())).collect()
            }
        };
        let mut left = Vec::new();
        for (n, place) in places.into_iter().enumerate() {
            match (refused.get(&n), results.get_mut(place)) {
                (Some(error), Some(slot)) => *slot = Err(error.clone()),
                _ => left.push(place),
            }
        }
        places = left;
    }
    results
}

/// Why a transaction came to nothing, or may have.
enum Failure {
    /// The server refused a statement: nothing is stored.
    Statement(StoreError),
    /// There is no connection, or none any more.
    Connection(StoreError),
}

async fn attempt(shared: &Shared, jobs: &[&WriteJob]) -> Result<Outcome, Failure> {
    let client = shared.client().await.map_err(Failure::Connection)?;
    let mut is_statement = false;
    let work = async |client: &deadpool_postgres::Object| {
        statements::transaction(shared, client, jobs).await.map_err(|error| {
            is_statement = error.as_db_error().is_some() && !client.is_closed();
            store_error(&error)
        })
    };
    let result = shared.within(client, work).await;
    if matches!(result, Ok(Outcome::Committed)) {
        shared.counters.transactions.fetch_add(1, Ordering::Relaxed);
        shared.counters.writes.fetch_add(jobs.len() as u64, Ordering::Relaxed);
    }
    result.map_err(|error| if is_statement { Failure::Statement(error) } else { Failure::Connection(error) })
}

async fn settle(shared: &Shared, job: LeaseJob) {
    match job {
        // Who gave up before the next one asked is not in its way.
        LeaseJob::Acquire { reply, .. } if reply.is_closed() => {}
        LeaseJob::Acquire { account, queue, reply } => {
            let lease = leases::acquire(shared, &account).await.map(|(token, loss)| {
                let account = account.clone();
                Lease::new(token, move || release(&queue, account, token)).with_loss(loss)
            });
            // Nobody waits for it any more. Dropping it would queue the release behind who asks for the account next.
            if let Err(Ok(lease)) = reply.send(lease)
                && let Err(error) = leases::release(shared, &account, lease.token()).await
            {
                tracing::warn!(%error, "a lease was not given back: it runs out");
            }
        }
        LeaseJob::Release { account, token, reply } => {
            let _ = reply.send(leases::release(shared, &account, token).await);
        }
    }
}

/// Queues the release of a lease. A store that is closed has given all back.
fn release(queue: &WeakUnboundedSender<Job>, account: AccountId, token: u64) -> StoreFuture<'static, ()> {
    let (reply, answer) = oneshot::channel();
    match queue.upgrade().map(|queue| queue.send(Job::Lease(LeaseJob::Release { account, token, reply }))) {
        Some(Ok(())) => Box::pin(async { answer.await.unwrap_or(Err(StoreError::Closed)) }),
        Some(Err(_)) | None => Box::pin(std::future::ready(Ok(()))),
    }
}
