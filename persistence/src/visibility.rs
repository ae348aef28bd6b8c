//! Visibility queries: what a list or count asks for. The text form is parsed in `query`.

use antipode_core::ids::NamespaceId;

use crate::rows::VisibilityRow;

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
