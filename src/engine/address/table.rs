//! The table of PNs and LIDs that the phone sends when the account begins to speak by LID (spec 03 §4.10).

use bytes::Bytes;

use super::learn;
use crate::{
    engine::step::{Miss, Step},
    event::MappingSource,
    jid::Jid,
    proto::{Message as _, e2e, lid_migration::LidMigrationMappingSyncPayload},
};

/// Learns the pairs of the table; from now on users are addressed by LID. Only the own phone may send it.
///
/// # Errors
/// [`Miss`].
pub(crate) fn learn_table(step: &mut Step<'_>, sync: &e2e::LidMigrationMappingSyncMessage) -> Result<(), Miss> {
    let payload = sync.encoded_mapping_payload.clone().unwrap_or_default();
    let Some(pairs) = read(payload) else {
        tracing::warn!("the table of LIDs cannot be read");
        return Ok(());
    };
    let mut all = Ok(());
    for (pn, lid) in &pairs {
        // All are read before one is missed.
        let next = learn(step, pn, lid, MappingSource::Migration);
        all = all.and(next);
    }
    all?;
    if !step.account().lid_migrated {
        tracing::info!(pairs = pairs.len(), "users are addressed by LID from now on");
        step.account_mut().lid_migrated = true;
    }
    Ok(())
}

/// The pairs of a table, the newer LID of each; `None` when it cannot be read.
fn read(payload: Bytes) -> Option<Vec<(Jid, Jid)>> {
    let payload = LidMigrationMappingSyncPayload::decode(payload).ok()?;
    let pair = |pn: Option<u64>, lid: Option<u64>| {
        let (pn, lid) = (pn.filter(|pn| *pn != 0)?, lid.filter(|lid| *lid != 0)?);
        Some((Jid::pn(pn.to_string()), Jid::lid(lid.to_string())))
    };
    let pairs = payload.pn_to_lid_mappings.iter();
    Some(pairs.filter_map(|known| pair(known.pn, known.latest_lid.or(known.assigned_lid))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::lid_migration::LidMigrationMapping;

    #[test]
    fn the_newer_lid_of_each_pair() {
        let mapping = |pn, assigned_lid, latest_lid| LidMigrationMapping { pn, assigned_lid, latest_lid };
        let payload = LidMigrationMappingSyncPayload {
            pn_to_lid_mappings: vec![
                mapping(Some(1), Some(10), None),
                mapping(Some(2), Some(20), Some(21)),
                mapping(Some(3), None, None),
                mapping(None, Some(40), None),
                mapping(Some(0), Some(50), None),
            ],
            chat_db_migration_timestamp: Some(1),
        };
        let pairs = read(payload.encode_to_vec().into()).unwrap();
        assert_eq!(pairs, [(Jid::pn("1"), Jid::lid("10")), (Jid::pn("2"), Jid::lid("21"))]);
        assert_eq!(read(Bytes::from_static(&[0x0A, 9])), None);
    }
}
