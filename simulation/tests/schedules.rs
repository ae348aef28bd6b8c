//! Random schedules over two and three regions; a failing seed prints its trace. `SEEDS=A..B` chooses others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use antipode_simulation::schedule;

fn seeds() -> std::ops::Range<u64> {
    let text = std::env::var("SEEDS").unwrap_or_else(|_| "0..150".to_string());
    let (from, to) = text.split_once("..").expect("SEEDS=A..B");
    from.parse().expect("a number")..to.parse().expect("a number")
}

fn sweep(regions: usize) {
    let mut reached = std::collections::BTreeMap::new();
    let mut failed = Vec::new();
    for seed in seeds() {
        let report = match schedule::run(seed, regions, 120) {
            Ok(report) => report,
            Err(failure) => panic!("seed {seed} with {regions} regions: {failure}"),
        };
        for (step, count) in report.steps {
            *reached.entry(step).or_insert(0) += count;
        }
        if !report.findings.is_empty() {
            failed.push(seed);
            if failed.len() == 1 {
                eprintln!("seed {seed}:\n{}\n{}", report.trace.join("\n"), report.findings.join("\n"));
            }
        }
    }
    assert!(failed.is_empty(), "{} failing seeds of {regions} regions: {failed:?}", failed.len());
    // A schedule that reaches nothing proves nothing.
    for step in
        ["force", "cut", "crash", "task completed", "task refused", "activity completed", "activity refused"]
    {
        assert!(reached.get(step).is_some_and(|count| *count > 0), "{step} never happened: {reached:?}");
    }
}

#[test]
fn two_regions() {
    sweep(2);
}

#[test]
fn three_regions() {
    sweep(3);
}
