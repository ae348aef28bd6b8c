//! Derived indexes and visibility, in memory.

use antipode_core::ids::{NamespaceId, RunKey, Sequence, ShardId, Timestamp};
use async_trait::async_trait;

use super::MemoryStore;
use crate::{
    Error,
    query::Attribute,
    rows::{DispatchRow, TaskKind, VisibilityRow},
    store::{IndexStore, VisibilityStore},
    visibility::{Count, Page, Place, Query},
};

#[async_trait]
impl IndexStore for MemoryStore {
    async fn wake_due(
        &self,
        shard: ShardId,
        namespaces: &[NamespaceId],
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, RunKey)>, Error> {
        let state = self.state();
        let due = state
            .wakes
            .iter()
            .filter(|(of, namespace, at, _)| *of == shard && namespaces.contains(namespace) && *at < until);
        let mut due: Vec<_> = due.map(|(_, _, at, key)| (*at, key.clone())).collect();
        due.sort_by_key(|(at, _)| *at);
        due.truncate(limit);
        Ok(due)
    }

    async fn dispatch_backlog(
        &self,
        shard: ShardId,
        namespaces: &[NamespaceId],
        queue: Option<(&str, TaskKind)>,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<DispatchRow>, Error> {
        let state = self.state();
        let wanted = state.dispatch.iter().filter(|((key, name, kind), (of, order))| {
            *of == shard
                && *order > after
                && namespaces.contains(&key.namespace)
                && queue.is_none_or(|wanted| wanted == (name.as_str(), *kind))
        });
        let mut rows: Vec<_> = wanted
            .map(|((key, queue, kind), (_, order))| DispatchRow {
                key: key.clone(),
                queue: queue.clone(),
                kind: *kind,
                order: *order,
            })
            .collect();
        rows.sort_by_key(|row| row.order);
        cut(&mut rows, limit);
        Ok(rows)
    }

    async fn obligation_due(
        &self,
        shard: ShardId,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, RunKey)>, Error> {
        let state = self.state();
        let due = state.obligations.iter().filter(|(_, (of, at))| *of == shard && *at < until);
        let mut due: Vec<_> = due.map(|(key, (_, at))| (*at, key.clone())).collect();
        due.sort_by_key(|(at, _)| *at);
        due.truncate(limit);
        Ok(due)
    }
}

/// Cuts a page behind the last row of a position, so that "after that position" skips nothing.
pub(crate) fn cut(rows: &mut Vec<DispatchRow>, limit: usize) {
    if let Some(last) = limit.checked_sub(1).and_then(|last| rows.get(last)).map(|row| row.order) {
        rows.truncate(rows.partition_point(|row| row.order <= last));
    } else if limit == 0 {
        rows.clear();
    }
}

fn wanted(query: &Query, row: &VisibilityRow) -> bool {
    let asks_for_run = query.filter.as_ref().is_some_and(|filter| filter.names(Attribute::RunId));
    row.key.namespace == query.namespace
        && (!row.superseded || asks_for_run)
        && query.filter.as_ref().is_none_or(|filter| filter.matches(row))
}

#[async_trait]
impl VisibilityStore for MemoryStore {
    async fn visibility_list(&self, query: &Query) -> Result<Page, Error> {
        let after = Place::of_token(&query.page_token)?;
        let state = self.state();
        let place = |(id, row): &(i64, VisibilityRow)| Place::of_row(row, *id);
        let mut found: Vec<_> = state
            .visibility
            .values()
            .filter(|stored| wanted(query, &stored.1))
            .filter(|stored| after.is_none_or(|after| place(stored) < after))
            .collect();
        found.sort_by_key(|stored| std::cmp::Reverse(place(stored)));
        let size = query.page_size.max(1);
        let more = found.len() > size;
        found.truncate(size);
        let next_page_token = match found.last() {
            Some(last) if more => place(last).to_token(),
            _ => Vec::new(),
        };
        Ok(Page { rows: found.into_iter().map(|(_, row)| row.clone()).collect(), next_page_token })
    }

    async fn visibility_count(&self, query: &Query) -> Result<Count, Error> {
        let state = self.state();
        let mut groups = std::collections::BTreeMap::<i32, i64>::new();
        for (_, row) in state.visibility.values().filter(|(_, row)| wanted(query, row)) {
            *groups.entry(row.status).or_default() += 1;
        }
        let total = groups.values().sum();
        let groups = if query.group_by_status { groups.into_iter().collect() } else { Vec::new() };
        Ok(Count { total, groups })
    }

    async fn visibility_get(&self, key: &RunKey) -> Result<Option<VisibilityRow>, Error> {
        Ok(self.state().visibility.get(key).map(|(_, row)| row.clone()))
    }
}
