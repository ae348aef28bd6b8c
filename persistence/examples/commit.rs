//! What a commit costs: logical transactions a second and processor time of each, by group size. One logical transaction
//! is a batch of 800 bytes, a run head of 500, a current record, a dispatch row and a visibility row. Runs live for four
//! transactions, as a workflow with one task does.
//!
//! `cargo run --release -p antipode-persistence --example commit [folder]`

use std::{path::PathBuf, sync::Arc};

use antipode_core::{
    chain::ChainValue,
    ids::{RunKey, Sequence},
};
use antipode_env::{Clock, StoreExecutor, SystemClock};
use antipode_persistence::{
    SqliteStore,
    conformance::{
        Failure,
        fixture::{self, Owner},
    },
    rows::{BatchRow, DispatchChange, Group, TaskKind},
    sqlite::{Location, Options},
    store::ShardStore,
};
use bytes::Bytes;

/// Transactions of a run.
const STEPS: u64 = 4;
const QUEUE: &str = "a task queue";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let folder =
        std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("antipode-commit"), PathBuf::from);
    println!(
        "{:>6} {:>10} {:>12} {:>12} {:>12} {:>12}",
        "group", "txn/s", "commits/s", "user us/txn", "sys us/txn", "KiB/txn"
    );
    for (size, total) in [(1, 4_000), (16, 64_000), (64, 128_000), (256, 256_000)] {
        let _ = std::fs::remove_dir_all(&folder);
        measure(&folder, size, total).await?;
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

async fn measure(folder: &std::path::Path, size: u64, total: u64) -> Result<(), Failure> {
    let store = SqliteStore::open(Options {
        location: Location::File(folder.join("commit.db")),
        identity: fixture::identity(),
        executor: StoreExecutor::Threaded,
    })?;
    let mut owner = Owner::acquire(&store, 1).await?;
    let mut groups = Vec::new();
    let mut runs = 0;
    for number in 0..total / size {
        groups.push(group(&mut owner, size, number, &mut runs)?);
    }
    let (cpu, written, started) = (cpu_micros()?, written_bytes()?, SystemClock.now());
    let commits = groups.len() as f64;
    for group in groups {
        store.shard_commit(group).await?;
    }
    let seconds = (SystemClock.now() - started) as f64 / 1e9;
    let (user, system) = cpu_micros()?;
    let (user, system) = ((user - cpu.0) as f64 / total as f64, (system - cpu.1) as f64 / total as f64);
    let kib = (written_bytes()? - written) as f64 / 1024.0 / total as f64;
    let (rate, commits) = (total as f64 / seconds, commits / seconds);
    println!("{size:>6} {rate:>10.0} {commits:>12.0} {user:>12.1} {system:>12.1} {kib:>12.1}");
    Ok(())
}

/// One transition of each of `size` runs; every fourth group starts new runs.
fn group(owner: &mut Owner, size: u64, number: u64, runs: &mut u64) -> Result<Group, Failure> {
    let step = number % STEPS;
    if step == 0 {
        *runs += size;
    }
    let mut group = owner.group(size);
    for index in 0..size {
        let at = Sequence(group.after.0 + 1 + index);
        add(&mut group, &run_key(*runs - size + index), step, at)?;
    }
    Ok(group)
}

/// Ids as clients make them: random.
fn run_key(number: u64) -> RunKey {
    let mixed = |salt: u64| {
        let high = (number ^ salt).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31);
        u128::from(high.wrapping_mul(0xBF58_476D_1CE4_E5B9)) << 64 | u128::from(high)
    };
    fixture::key(&format!("workflow-{:032x}", mixed(1)), mixed(2))
}

fn add(group: &mut Group, key: &RunKey, step: u64, at: Sequence) -> Result<(), Failure> {
    let previous = if step == 0 { ChainValue::NONE } else { ChainValue([1; 16]) };
    let batch = fixture::batch(key, i64::try_from(step)? + 1, previous, at, 560)?;
    group.batches.push(BatchRow { sequence: at, batch: Arc::new(batch) });
    let mut row = fixture::run(key, at, (step == 1).then_some(i64::try_from(at.0)? * 1_000));
    row.head = Bytes::from(vec![3; 500]);
    group.runs.push(row);
    if step == 0 || step + 1 == STEPS {
        group.currents.push(fixture::current(key, fixture::VERSION, 1, at.0));
        let close = (step > 0).then_some(i64::try_from(at.0)?);
        group.visibility.push(fixture::visible(
            key,
            i64::try_from(at.0)?,
            close,
            if step > 0 { 2 } else { 1 },
        ));
    }
    if step.is_multiple_of(2) {
        group.dispatch.push(fixture::offered(key, QUEUE, TaskKind::Workflow, at.0));
    } else {
        let (key, queue) = (key.clone(), QUEUE.to_string());
        group.dispatch.push(DispatchChange::Remove { key, queue, kind: TaskKind::Workflow });
    }
    Ok(())
}

/// Processor time of the process in its own code and in the kernel's, from the kernel's books (ticks of 10 ms).
fn cpu_micros() -> Result<(u64, u64), Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    Ok((ticks(11) * 10_000, ticks(12) * 10_000))
}

fn written_bytes() -> Result<u64, Failure> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    Ok(line.and_then(|text| text.parse().ok()).unwrap_or(0))
}
