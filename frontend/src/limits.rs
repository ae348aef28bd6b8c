//! Limits of the API, with the incumbent's values.

use std::time::Duration;

/// Largest request that is read; larger ones are RESOURCE_EXHAUSTED.
pub const MESSAGE_BYTES_MAX: usize = 128 << 20;
/// Largest payloads of one field.
pub const BLOB_BYTES_MAX: usize = 2 << 20;
/// Largest memo.
pub const MEMO_BYTES_MAX: usize = 2 << 20;
/// Largest search attributes of a run, all together.
pub const SEARCH_ATTRIBUTES_BYTES_MAX: usize = 40 << 10;
/// Longest id, name or type.
pub const ID_BYTES_MAX: usize = 1000;
/// Names of task queues that start so are the server's own.
pub const RESERVED_QUEUE_PREFIX: &str = "/_sys/";
/// Workflow task timeout when a start names none.
pub const TASK_TIMEOUT_DEFAULT_SECONDS: i64 = 10;
/// Longest workflow task timeout.
pub const TASK_TIMEOUT_MAX_SECONDS: i64 = 120;
/// Events a page of history.
pub const HISTORY_PAGE_MAX: usize = 256;
/// Runs a page of a list.
pub const LIST_PAGE_MAX: usize = 1000;
/// Namespaces a page of a list.
pub const NAMESPACE_PAGE_DEFAULT: usize = 100;
/// Shortest retention of a global namespace (R204).
pub const RETENTION_GLOBAL_MIN_SECONDS: i64 = 24 * 3600;
/// Shortest retention of a local namespace (R204).
pub const RETENTION_LOCAL_MIN_SECONDS: i64 = 3600;
/// Calls that wait for a hand-over at once (F2); more are UNAVAILABLE.
pub const HELD_MAX: usize = 1000;
/// How long a call without a deadline is held.
pub const HELD_DEFAULT: Duration = Duration::from_secs(30);
/// How long UpdateNamespace waits for the active region before it forces the failover.
pub const ACTIVE_ANSWERS_WITHIN: Duration = Duration::from_secs(2);
