//! What every backend must do, as functions over any store: a backend passes when each of them returns. [`suite!`] makes a
//! test of each, so that a new one is run for all backends.
//!
//! [`suite!`]: crate::conformance_suite

pub mod commits;
pub mod deletes;
pub mod fixture;
pub mod lists;
pub mod logs;
pub mod records;

/// Why a backend does not pass.
#[derive(Debug)]
pub struct Failure(pub String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Result of one check.
pub type Outcome = Result<(), Failure>;

/// Ends the check unless the two are equal.
macro_rules! ensure_eq {
    ($left:expr, $right:expr, $($why:tt)+) => {
        // A match, so that what the operands borrow lives to its end.
        match (&$left, &$right) {
            (left, right) => {
                if left != right {
                    let why = format!($($why)+);
                    return Err($crate::conformance::Failure(format!(
                        "{why}\n  left: {left:?}\n right: {right:?}"
                    )));
                }
            }
        }
    };
}

/// Ends the check unless this holds.
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err(crate::conformance::Failure(format!($($why)+)));
        }
    };
}

pub(crate) use {ensure, ensure_eq};

/// A test of each check; `$make` is an expression that gives a new, empty store (and what must live as long as it).
#[macro_export]
macro_rules! conformance_suite {
    ($make:expr) => {
        $crate::conformance_suite!(@ $make,
            commits::a_stale_owner_is_fenced,
            commits::a_wrong_position_is_fenced,
            commits::a_group_is_all_or_nothing,
            commits::a_group_holds_many_rows,
            commits::a_group_that_contradicts_itself_is_rejected,
            commits::a_run_never_moves_back,
            commits::a_current_record_is_never_lowered,
            commits::shards_commit_at_the_same_time,
            commits::one_failing_shard_does_not_hurt_the_others,
            commits::runs_of_other_shards_are_not_seen,
            deletes::a_deletion_takes_everything_of_a_run,
            deletes::a_deletion_is_all_or_nothing,
            deletes::the_log_passes_over_deleted_runs,
            deletes::a_row_takes_the_place_of_a_deleted_run,
            deletes::a_record_is_forgotten_by_name,
            logs::a_run_is_read_in_commit_order,
            logs::the_log_is_read_by_position,
            logs::a_run_that_moved_forward_stands_there_once,
            logs::pages_are_complete_for_their_range,
            logs::the_log_ends_at_the_committed_position,
            lists::wake_ups_come_for_the_asked_namespaces,
            lists::the_backlog_comes_in_order,
            lists::the_backlog_pages_split_no_position,
            lists::obligations_come_when_due,
            lists::lists_are_ordered_and_paged,
            lists::superseded_runs_are_shown_to_who_asks_for_runs,
            lists::counts_group_by_status,
            lists::conditions_select,
            lists::a_bad_page_token_is_refused,
            records::namespaces_are_written_by_compare_and_swap,
            records::positions_only_grow,
            records::regions_and_quarantine_are_kept,
            records::a_run_is_quarantined_by_each_source_apart,
        );
    };
    (@ $make:expr, $($part:ident::$name:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                let (store, _kept) = $make;
                if let Err(failure) = $crate::conformance::$part::$name(&store).await {
                    panic!("{}", failure.0);
                }
            }
        )+
    };
}
