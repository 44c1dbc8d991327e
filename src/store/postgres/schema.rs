//! Tables, and the settings of a connection.

use deadpool_postgres::{ClientWrapper, HookError, Object};

use super::store_error;
use crate::store::StoreError;

/// The schema. Step `n` leads from version `n` to `n + 1`; a step that was released never changes.
const STEPS: &[&str] = &[
    // "C": names are compared byte by byte. Values are ciphertexts or small: compressing them is a waste.
    "CREATE TABLE wamd_record (
         account text COLLATE \"C\" NOT NULL, kind int2 NOT NULL, id bytea NOT NULL, value bytea NOT NULL,
         PRIMARY KEY (account, kind, id)
     );
     CREATE TABLE wamd_outbox (
         account text COLLATE \"C\" NOT NULL, seq int8 NOT NULL, body bytea NOT NULL, PRIMARY KEY (account, seq)
     );
     CREATE TABLE wamd_lease (
         account text COLLATE \"C\" PRIMARY KEY, token int8 NOT NULL, owner text NOT NULL, node text NOT NULL,
         until timestamptz NOT NULL
     );
     CREATE SEQUENCE wamd_lease_token;
     ALTER TABLE wamd_record ALTER COLUMN value SET STORAGE EXTERNAL;
     ALTER TABLE wamd_outbox ALTER COLUMN body SET STORAGE EXTERNAL;",
];

/// What a new connection is told.
pub(super) async fn settle(client: &mut ClientWrapper) -> Result<(), HookError> {
    let settings = "SELECT set_config('synchronous_commit', 'on', false)
                    WHERE current_setting('synchronous_commit') = 'off'";
    client.batch_execute(settings).await.map_err(HookError::Backend)
}

/// Makes the tables, or brings them up to date, in one transaction. Of two nodes that try, the second finds it done.
pub(super) async fn migrate(client: &Object) -> Result<(), StoreError> {
    let error = |error| store_error(&error);
    // The number is `wamd` in ASCII.
    let begin = "BEGIN; SELECT pg_advisory_xact_lock(2002873700);
                 CREATE TABLE IF NOT EXISTS wamd_schema (version int8 NOT NULL);";
    client.batch_execute(begin).await.map_err(error)?;
    let row = client.query_opt("SELECT version FROM wamd_schema", &[]).await.map_err(error)?;
    let version: i64 = row.map_or(Ok(0), |row| row.try_get(0)).map_err(error)?;
    let steps = usize::try_from(version).ok().and_then(|version| STEPS.get(version..));
    let Some(steps) = steps else {
        return Err(StoreError::Incompatible(format!("version {version}, at most {} is known", STEPS.len())));
    };
    for step in steps {
        client.batch_execute(step).await.map_err(error)?;
    }
    let version = STEPS.len();
    let end = format!("DELETE FROM wamd_schema; INSERT INTO wamd_schema VALUES ({version}); COMMIT");
    client.batch_execute(&end).await.map_err(error)
}
