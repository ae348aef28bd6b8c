//! Lists and counts of runs (C8), from rows that were written in the commits of the runs.

use antipode_core::ids::{RunKey, Timestamp};
use async_trait::async_trait;
use rusqlite::{OptionalExtension, Row, params_from_iter};

use super::{
    SqliteStore,
    columns::{bytes, run_key},
    render::Rendered,
};
use crate::{
    Error,
    query::Attribute,
    rows::VisibilityRow,
    store::VisibilityStore,
    visibility::{Count, Page, Place, Query},
};

const COLUMNS: &str = "namespace, workflow, run, workflow_type, task_queue, status, start, execution, close, \
     history_length, history_size, transitions, memo, search_attributes, first_run, superseded, id";

#[async_trait]
impl VisibilityStore for SqliteStore {
    async fn visibility_list(&self, query: &Query) -> Result<Page, Error> {
        let size = query.page_size.max(1);
        let mut select =
            Rendered { sql: format!("SELECT {COLUMNS} FROM visibility WHERE "), ..Rendered::default() };
        wanted(&mut select, query);
        if let Some(after) = Place::of_token(&query.page_token)? {
            select.sql.push_str(" AND (closes, start, id) < (");
            for (index, part) in [after.close, after.start, after.id].into_iter().enumerate() {
                select.sql.push_str(if index > 0 { "," } else { "" });
                select.bind(part);
            }
            select.sql.push(')');
        }
        select.sql.push_str(" ORDER BY closes DESC, start DESC, id DESC LIMIT ");
        // One more than asked for tells whether there is a next page.
        select.bind(i64::try_from(size).unwrap_or(i64::MAX).saturating_add(1));
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&select.sql)?;
            let mut rows = statement.query(params_from_iter(select.parameters.iter()))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push((visibility_row(row)?, row.get::<_, i64>(16)?));
            }
            let more = found.len() > size;
            found.truncate(size);
            let next_page_token = match found.last() {
                Some((row, id)) if more => Place::of_row(row, *id).to_token(),
                _ => Vec::new(),
            };
            Ok(Page { rows: found.into_iter().map(|(row, _)| row).collect(), next_page_token })
        })
        .await
    }

    async fn visibility_count(&self, query: &Query) -> Result<Count, Error> {
        let grouped = query.group_by_status;
        let columns = if grouped { "status, count(*)" } else { "0, count(*)" };
        let mut select =
            Rendered { sql: format!("SELECT {columns} FROM visibility WHERE "), ..Rendered::default() };
        wanted(&mut select, query);
        if grouped {
            select.sql.push_str(" GROUP BY status ORDER BY status");
        }
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&select.sql)?;
            let mut rows = statement.query(params_from_iter(select.parameters.iter()))?;
            let mut count = Count::default();
            while let Some(row) = rows.next()? {
                let group = (row.get(0)?, row.get(1)?);
                count.total += group.1;
                if grouped {
                    count.groups.push(group);
                }
            }
            Ok(count)
        })
        .await
    }

    async fn visibility_get(&self, key: &RunKey) -> Result<Option<VisibilityRow>, Error> {
        let key = key.clone();
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM visibility WHERE id =
                     (SELECT id FROM runs WHERE namespace = ?1 AND workflow = ?2 AND run = ?3)"
            ))?;
            let parameters = (key.namespace.0.as_bytes(), key.workflow.as_str(), key.run.0.as_bytes());
            statement.query_row(parameters, |row| Ok(visibility_row(row))).optional()?.transpose()
        })
        .await
    }
}

/// Appends what a query asks for. Superseded runs are shown to those who ask for runs by id (A9).
fn wanted(select: &mut Rendered, query: &Query) {
    select.sql.push_str("namespace = ");
    select.bind(query.namespace.0.as_bytes().to_vec());
    if !query.filter.as_ref().is_some_and(|filter| filter.names(Attribute::RunId)) {
        select.sql.push_str(" AND superseded = 0");
    }
    if let Some(filter) = &query.filter {
        select.sql.push_str(" AND ");
        select.condition(filter);
    }
}

fn visibility_row(row: &Row<'_>) -> Result<VisibilityRow, Error> {
    let close: Option<i64> = row.get(8)?;
    Ok(VisibilityRow {
        key: run_key(row, 0)?,
        workflow_type: row.get(3)?,
        task_queue: row.get(4)?,
        status: row.get(5)?,
        start: Timestamp(row.get(6)?),
        execution: Timestamp(row.get(7)?),
        close: close.map(Timestamp),
        history_length: row.get(9)?,
        history_size: row.get(10)?,
        transitions: row.get(11)?,
        memo: bytes(row, 12)?,
        search_attributes: bytes(row, 13)?,
        first_run: row.get(14)?,
        superseded: row.get(15)?,
    })
}
