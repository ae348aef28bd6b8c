//! The schema and its versions. `user_version` of the file is the number of the last migration; each runs in a transaction
//! of its own that ends with its number, so a crash between two leaves a file that goes on where it stopped.

use std::path::Path;

use antipode_core::ids::Incarnation;
use rusqlite::{Connection, params};

use super::damaged;
use crate::{Error, rows::Identity};

/// "ANTP": marks our files in their header.
pub(super) const APPLICATION_ID: i32 = 0x414E_5450;

const MIGRATIONS: [&str; 3] = [
    include_str!("../../schema/sqlite/0001_first.sql"),
    include_str!("../../schema/sqlite/0002_retention.sql"),
    include_str!("../../schema/sqlite/0003_quarantine.sql"),
];

/// Version of the schema that this binary writes.
pub const VERSION: u32 = MIGRATIONS.len() as u32;

/// Fills an empty database.
pub(super) fn create(connection: &Connection, identity: &Identity) -> Result<(), Error> {
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    for number in 0..VERSION {
        apply(connection, number)?;
    }
    connection.execute(
        "INSERT INTO store (one, region, initial, increment, shards, cluster_id, incarnation)
         VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            identity.region,
            identity.initial,
            identity.increment,
            identity.shards,
            identity.cluster_id,
            identity.incarnation.0.cast_signed(),
        ],
    )?;
    Ok(())
}

/// Brings an older file to this version.
pub(super) fn migrate(connection: &Connection, path: &Path) -> Result<(), Error> {
    let stored: u32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| damaged(path, &error))?;
    check_version(stored, path)?;
    for number in stored..VERSION {
        apply(connection, number)?;
    }
    Ok(())
}

/// Refuses files of a later binary.
pub(super) fn check_version(stored: u32, path: &Path) -> Result<(), Error> {
    if stored > VERSION {
        return Err(Error::Foreign(format!(
            "{} has schema version {stored}, this binary knows versions up to {VERSION}: use a newer binary",
            path.display()
        )));
    }
    Ok(())
}

fn apply(connection: &Connection, number: u32) -> Result<(), Error> {
    let Some(text) = usize::try_from(number).ok().and_then(|number| MIGRATIONS.get(number)) else {
        return Err(Error::Database(format!("there is no schema version {}", number + 1)));
    };
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(text)?;
    transaction.pragma_update(None, "user_version", number + 1)?;
    transaction.commit()?;
    Ok(())
}

/// Who the file belongs to.
pub(super) fn identity_read(connection: &Connection) -> Result<Identity, Error> {
    let row = connection.query_row(
        "SELECT region, initial, increment, shards, cluster_id, incarnation FROM store",
        [],
        |row| {
            Ok(Identity {
                region: row.get(0)?,
                initial: row.get(1)?,
                increment: row.get(2)?,
                shards: row.get(3)?,
                cluster_id: row.get(4)?,
                incarnation: Incarnation(row.get::<_, i64>(5)?.cast_unsigned()),
            })
        },
    );
    Ok(row?)
}

/// Refuses a file of another region. Cluster id and incarnation are the file's own.
pub(super) fn check_identity(stored: &Identity, wanted: &Identity, path: &Path) -> Result<(), Error> {
    let name = |identity: &Identity| {
        format!(
            "region {} (initial version {}, increment {}, {} shards)",
            identity.region, identity.initial, identity.increment, identity.shards
        )
    };
    let same = |identity: &Identity| {
        (identity.region.clone(), identity.initial, identity.increment, identity.shards)
    };
    if same(stored) != same(wanted) {
        return Err(Error::Foreign(format!(
            "{} belongs to {}, not to {}",
            path.display(),
            name(stored),
            name(wanted)
        )));
    }
    Ok(())
}
