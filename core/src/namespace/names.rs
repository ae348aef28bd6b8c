//! Which namespace shows which name (F4). Two regions that cannot see each other may register one name: both namespaces
//! live on, the older keeps the name, the other is shown under a derived one until somebody renames it. Derived from the set
//! of records, stored nowhere, hence the same everywhere.

use std::collections::{BTreeMap, BTreeSet};

use super::Record;
use crate::{ids::NamespaceId, region::Regions};

/// The names that namespaces are found under. Deleted ones have none.
#[must_use]
pub fn resolve_names<'a>(
    records: impl IntoIterator<Item = &'a Record>,
    regions: &Regions,
) -> BTreeMap<NamespaceId, String> {
    let mut living: Vec<&Record> = records.into_iter().filter(|record| !record.is_deleted()).collect();
    living.sort_by_key(|record| (record.name.stamp, record.id));
    let registered: BTreeSet<&str> = living.iter().map(|record| record.name()).collect();
    let mut taken = BTreeSet::new();
    let mut names = BTreeMap::new();
    for record in living {
        let mut name = record.name().to_owned();
        if taken.contains(&name) {
            name = conflict_name(record, regions);
            if taken.contains(&name) || registered.contains(name.as_str()) {
                // A third namespace, or somebody who registered such a name: the id is unique.
                name = format!("{name}-{}", record.id);
            }
        }
        taken.insert(name.clone());
        names.insert(record.id, name);
    }
    names
}

fn conflict_name(record: &Record, regions: &Regions) -> String {
    let region = record.name.stamp.region;
    let region = regions.by_id(region).map_or_else(|| region.0.to_string(), |r| r.name.clone());
    format!("{}.conflict-{region}", record.name())
}
