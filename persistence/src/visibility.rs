//! Visibility queries: what a list or count asks for. The text form is parsed in `query`.

use antipode_core::ids::NamespaceId;

use crate::{Error, rows::VisibilityRow};

/// A list or count.
#[derive(Clone, Debug)]
pub struct Query {
    /// Namespace.
    pub namespace: NamespaceId,
    /// Condition; none: all.
    pub filter: Option<crate::query::Expression>,
    /// Group a count by execution status.
    pub group_by_status: bool,
    /// Rows a page.
    pub page_size: usize,
    /// Continue after this row: opaque bytes from the page before; empty: from the first.
    pub page_token: Vec<u8>,
}

/// One page of rows.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Rows.
    pub rows: Vec<VisibilityRow>,
    /// Token of the next page; empty at the end.
    pub next_page_token: Vec<u8>,
}

/// A count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// All that match.
    pub total: i64,
    /// Status and count, when grouped.
    pub groups: Vec<(i32, i64)>,
}

/// Where a row stands in a list: greater comes first. Open runs close at the end of time; runs that are equal otherwise come
/// youngest first, by the order in which the store first saw them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) close: i64,
    pub(crate) start: i64,
    pub(crate) id: i64,
}

impl Place {
    /// What stands for the close time of an open run.
    pub(crate) const OPEN: i64 = i64::MAX;

    pub(crate) fn of_row(row: &VisibilityRow, id: i64) -> Self {
        Self { close: row.close.map_or(Self::OPEN, |close| close.0), start: row.start.0, id }
    }

    /// As a page token.
    pub(crate) fn to_token(self) -> Vec<u8> {
        let mut token = vec![1];
        for part in [self.close, self.start, self.id] {
            token.extend(part.to_be_bytes());
        }
        token
    }

    /// From a page token; none for the first page.
    pub(crate) fn of_token(token: &[u8]) -> Result<Option<Self>, Error> {
        let invalid = || Error::Invalid("invalid page token".to_string());
        let parts = match token {
            [] => return Ok(None),
            [1, parts @ ..] if parts.len() == 24 => parts,
            _ => return Err(invalid()),
        };
        let part = |index: usize| {
            parts[index * 8..index * 8 + 8].try_into().map(i64::from_be_bytes).map_err(|_| invalid())
        };
        Ok(Some(Self { close: part(0)?, start: part(1)?, id: part(2)? }))
    }
}
