//! The rendered condition selects in SQLite what the evaluator selects in memory, and the text of an expression parses to
//! it: for any expression over any rows. Values are drawn from few, so that conditions meet rows.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use antipode_core::ids::Timestamp;
use antipode_env::StoreExecutor;
use antipode_persistence::{
    MemoryStore, SqliteStore, Store,
    conformance::fixture::{Owner, identity, key, namespace, visible},
    query::{Attribute, Comparison, Expression, Kind, Purpose, Test, Value, parse},
    rows::VisibilityRow,
    sqlite::{Location, Options},
    visibility::Query,
};
use proptest::prelude::*;

const TEXTS: [&str; 9] = [
    "a",
    "ab",
    "abc",
    "b",
    "it's \"so\" \\ `x`",
    "100%_",
    "",
    "Ωμέγα",
    "00000000-0000-0000-0000-000000000002",
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => prop::sample::select(&TEXTS[..]).prop_map(str::to_string), 1 => ".{0,5}"]
        .prop_filter("a zero byte ends texts in some databases", |text| !text.contains('\0'))
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![8 => -1..6_i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN + 1)]
}

fn value(kind: Kind) -> BoxedStrategy<Value> {
    match kind {
        Kind::Keyword => text().prop_map(Value::Text).boxed(),
        Kind::Status => (1..=8_i64).prop_map(Value::Number).boxed(),
        _ => number().prop_map(Value::Number).boxed(),
    }
}

fn test(kind: Kind) -> BoxedStrategy<Test> {
    let all = [
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::GreaterOrEqual,
    ];
    let comparisons = if kind == Kind::Status { all[..2].to_vec() } else { all.to_vec() };
    let compare =
        (prop::sample::select(comparisons), value(kind)).prop_map(|(op, value)| Test::Compare(op, value));
    let list = prop::collection::vec(value(kind), 1..4).prop_map(Test::In);
    let mut tests = vec![(4, compare.boxed()), (2, list.boxed()), (1, Just(Test::Null).boxed())];
    if kind != Kind::Status {
        let between = (value(kind), value(kind)).prop_map(|(low, high)| Test::Between(low, high));
        tests.push((2, between.boxed()));
    }
    if kind == Kind::Keyword {
        tests.push((2, text().prop_map(Test::StartsWith).boxed()));
    }
    prop::strategy::Union::new_weighted(tests).boxed()
}

fn expression() -> impl Strategy<Value = Expression> {
    let leaf = prop::sample::select(&Attribute::ALL[..]).prop_flat_map(|attribute| {
        test(attribute.kind()).prop_map(move |test| Expression::Test(attribute, test))
    });
    leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::Or),
            inner.prop_map(|part| Expression::Not(Box::new(part))),
        ]
    })
}

/// A row's parts, small numbers all.
type Parts = (String, String, i32, i64, i64, Option<i64>, i64);

fn parts() -> impl Strategy<Value = Parts> {
    (
        text().prop_filter("an API never gives an empty workflow id", |text| !text.is_empty()),
        text(),
        1..=8_i32,
        0..5_i64,
        0..5_i64,
        prop::option::of(0..9_i64),
        0..5_i64,
    )
}

fn row(
    (workflow, kind, status, start, execution, close, length): Parts,
    run: u128,
    superseded: bool,
) -> VisibilityRow {
    let mut row = visible(&key(&workflow, run), start, close, status);
    row.workflow_type.clone_from(&kind);
    row.task_queue = kind;
    row.execution = Timestamp(execution);
    (row.history_length, row.history_size, row.transitions) = (length, length + 1, length + 2);
    row.superseded = superseded;
    row
}

async fn store_rows(store: &impl Store, rows: &[VisibilityRow]) {
    let mut owner = Owner::acquire(store, 1).await.unwrap();
    let keys: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
    let mut group = owner.started(&keys).unwrap();
    group.visibility = rows.to_vec();
    store.shard_commit(group).await.unwrap();
}

async fn selected(store: &impl Store, filter: &Expression) -> (Vec<VisibilityRow>, Vec<(i32, i64)>) {
    let mut query = Query {
        namespace: namespace(1),
        filter: Some(filter.clone()),
        group_by_status: true,
        page_size: 3,
        page_token: Vec::new(),
    };
    let mut rows = Vec::new();
    loop {
        let page = store.visibility_list(&query).await.unwrap();
        rows.extend(page.rows);
        query.page_token = page.next_page_token;
        if query.page_token.is_empty() {
            let count = store.visibility_count(&query).await.unwrap();
            assert_eq!(count.total, i64::try_from(rows.len()).unwrap());
            return (rows, count.groups);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_selects_what_the_evaluator_selects(
        rows in prop::collection::vec((parts(), any::<bool>()), 1..12),
        expressions in prop::collection::vec(expression(), 12),
    ) {
        let rows: Vec<_> =
            (1..).zip(rows).map(|(run, (parts, hidden))| row(parts, run, hidden && run % 3 == 0)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let memory = MemoryStore::new(identity());
            let sqlite = SqliteStore::open(Options {
                location: Location::Memory,
                identity: identity(),
                executor: StoreExecutor::Inline,
            })
            .unwrap();
            store_rows(&memory, &rows).await;
            store_rows(&sqlite, &rows).await;
            for expression in &expressions {
                let (found, expected) =
                    (selected(&sqlite, expression).await, selected(&memory, expression).await);
                assert_eq!(found, expected, "{expression}");
            }
        });
    }

    #[test]
    fn the_text_of_an_expression_parses_to_it(expression in expression()) {
        let parsed = parse(&expression.to_string(), Purpose::List).unwrap();
        prop_assert_eq!(parsed.filter, Some(expression));
    }
}
