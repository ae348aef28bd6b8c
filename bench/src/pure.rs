//! What the pure code can do on one core, without sockets or disks: the fold over histories that the simulator wrote, and the
//! simulator itself with all its oracles.

use std::sync::Arc;

use antipode_core::{batch::Batch, ids::RunKey, run::Run};
use antipode_proto::core as wire;
use antipode_simulation::{
    campaign,
    engine::{
        Engine,
        script::{CallStep, RegionSetup, Setup, StartStep, Step},
        span::Span,
    },
    generate::{Options, Profile},
};

use crate::{clock, error::Error};

fn broken(error: &dyn std::fmt::Display) -> Error {
    Error::Pure(error.to_string())
}

/// Longest wait between two acts of the dense world, milliseconds.
const DENSE_MILLIS: i64 = 8;

/// A run as a store holds it.
struct Stored {
    key: RunKey,
    head: wire::RunHead,
    batches: Vec<Arc<Batch>>,
    events: u64,
}

/// Histories of signals, timers, activities and markers: so many signals a run.
fn histories(signals: usize) -> Result<Vec<Stored>, Error> {
    let setup = Setup { regions: vec![RegionSetup::named("east")], ..Setup::default() };
    let mut engine = Engine::new(&setup, None).map_err(|error| broken(&error))?;
    let programs: [&[&str]; 3] = [
        &["signals 1000000"],
        &["activity well", "timer 1s", "marker", "activity heartbeat", "memo", "signals 1000000"],
        &["all activity well & timer 1s & activity well", "signals 1000000"],
    ];
    for (index, program) in programs.iter().enumerate() {
        let start = StartStep {
            workflow: format!("w{index}"),
            region: "east".to_string(),
            program: program.iter().map(ToString::to_string).collect(),
            ..StartStep::default()
        };
        engine.perform(&Step { start: Some(start), ..Step::default() }).map_err(|error| broken(&error))?;
    }
    for _ in 0..signals {
        for index in 0..programs.len() {
            let call =
                CallStep { workflow: format!("w{index}"), region: "east".to_string(), ..CallStep::default() };
            let step = Step { after: Some(Span::millis(2)), signal: Some(call), ..Step::default() };
            engine.perform(&step).map_err(|error| broken(&error))?;
        }
    }
    engine.rest().map_err(|error| broken(&error))?;
    let mut stored = Vec::new();
    for index in 0..programs.len() {
        let runs = engine.stored(0, &format!("w{index}")).map_err(|error| broken(&error))?;
        for kept in runs.into_values() {
            let events = u64::try_from(kept.run.state.next_event.0 - 1).unwrap_or(0);
            stored.push(Stored {
                key: kept.run.key.clone(),
                head: kept.run.head(),
                batches: kept.batches,
                events,
            });
        }
    }
    Ok(stored)
}

/// Folds stored runs again and again; prints events a second.
///
/// # Errors
/// The histories could not be made or folded.
#[expect(clippy::cast_precision_loss, reason = "counts, for rates")]
pub fn fold(seconds: u64) -> Result<(), Error> {
    let stored = histories(1_000)?;
    let sizes: Vec<_> = stored.iter().map(|run| run.events).collect();
    println!("histories of {sizes:?} events");
    let began = clock::now();
    let (mut events, mut batches) = (0, 0);
    while began.elapsed().as_secs() < seconds {
        for run in &stored {
            let folded = Run::restore(run.key.clone(), &run.head, run.batches.iter().cloned())
                .map_err(|error| broken(&error))?;
            std::hint::black_box(&folded);
            events += run.events;
            batches += run.batches.len() as u64;
        }
    }
    let took = began.elapsed().as_secs_f64();
    println!(
        "fold: {:.0} events/s, {:.0} batches/s on one core",
        events as f64 / took,
        batches as f64 / took
    );
    Ok(())
}

/// Runs seeds on one core with all oracles; prints transitions a second and virtual over wall time.
///
/// # Errors
/// A seed failed.
#[expect(clippy::cast_precision_loss, reason = "counts, for rates")]
pub fn simulate(seeds: u64) -> Result<(), Error> {
    println!("| faults | steps/s | transitions/s | transitions a virtual second | virtual over wall |");
    println!("|---|---|---|---|---|");
    let profiles = [Profile::Calm, Profile::HandOver, Profile::Store, Profile::Partition, Profile::All];
    let mut worlds =
        profiles.map(|profile| (profile.name(), seeds, Options { profile, ..Options::default() })).to_vec();
    // Clients that hardly wait, for longer: a world with 50 transitions and more in each virtual second.
    let dense = Options {
        profile: Profile::Calm,
        steps: 20_000,
        pace: Some(Span::millis(DENSE_MILLIS)),
        ..Options::default()
    };
    worlds.push(("calm, dense", seeds.div_ceil(10), dense));
    for (name, seeds, options) in worlds {
        let began = clock::now();
        let summary = campaign::run(1..seeds + 1, &options, 1, false, &|_, _, _| {});
        let took = began.elapsed().as_secs_f64();
        let virtual_seconds = summary.virtual_nanos as f64 / 1e9;
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} | {:.0} |",
            summary.steps as f64 / took,
            summary.transitions as f64 / took,
            summary.transitions as f64 / virtual_seconds.max(1e-9),
            virtual_seconds / took
        );
        if let Some(failed) = summary.failed.first() {
            return Err(Error::Pure(format!("seed {}: {}", failed.seed, failed.finding)));
        }
    }
    Ok(())
}
