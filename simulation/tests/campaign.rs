//! Many seeds: when a campaign fails though no seed does, what it tells of that, and what the command line refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use antipode_simulation::{
    campaign::{self, Summary},
    cli::{self, SimCommand},
    generate::{Options, Profile},
};
use clap::Parser;

#[derive(Debug, Parser)]
struct Sim {
    #[command(subcommand)]
    command: SimCommand,
}

fn sim(words: &str) -> (String, String) {
    let words = std::iter::once("sim").chain(words.split_whitespace());
    let mut out = Vec::new();
    let code = cli::run(Sim::try_parse_from(words).unwrap().command, &mut out);
    (String::from_utf8(out).unwrap(), format!("{code:?}"))
}

fn options(profile: Profile, regions: usize) -> Options {
    Options { profile, regions, ..Options::default() }
}

/// So many seeds in which nothing happened.
fn silent(seeds: u64) -> Summary {
    Summary { seeds, ..Summary::default() }
}

/// (profile, regions, seeds, what must be missed, what must not)
#[test]
fn a_campaign_in_which_nothing_happens_fails_in_every_profile() {
    for profile in Profile::ALL {
        for regions in 1..=5 {
            let options = options(*profile, regions);
            let gaps = silent(300).gaps(&options);
            let calls = format!(
                "too few acknowledged calls: 0 per 100 seeds, expected {}",
                if *profile == Profile::Retention { 600 } else { 2_000 }
            );
            assert!(gaps.contains(&calls), "{} {regions}: {gaps:?}", profile.name());
            assert!(
                gaps.iter().any(|gap| gap.starts_with("never reached: stale-task")),
                "{}",
                profile.name()
            );
            assert!(!silent(300).is_good(&options));
            let failovers = gaps.iter().any(|gap| gap.starts_with("too few failovers"));
            assert_eq!(failovers, regions > 1, "{} {regions}", profile.name());
            let forced = regions > 1 && !matches!(profile, Profile::Calm | Profile::HandOver);
            for what in ["too few divergences", "never reached: branched"] {
                let found = gaps.iter().any(|gap| gap.starts_with(what));
                assert_eq!(found, forced, "{} {regions}: {what}", profile.name());
            }
            assert!(!gaps.iter().any(|gap| gap.contains("members-changed")), "{}", profile.name());
        }
    }
}

#[test]
fn what_is_too_little_is_not_judged_and_says_so() {
    let options = options(Profile::Partition, 3);
    assert_eq!(silent(100).not_judged(&options), None);
    let few = silent(99);
    assert!(few.gaps(&options).is_empty() && few.is_good(&options));
    assert!(few.not_judged(&options).unwrap().starts_with("99 seeds are fewer than 100"));
    let short = Options { steps: 1_999, ..options };
    assert!(silent(100).gaps(&short).is_empty());
    assert!(silent(100).not_judged(&short).unwrap().starts_with("1999 steps a seed are fewer than 2000"));
    let (out, code) = sim("run --seeds 1..3 --regions 2 --steps 50");
    assert!(out.contains("\nnot judged: 2 seeds are fewer than 100"), "{out}");
    assert!(code.contains('0'), "{code}");
}

/// Exit code 1 has its reason in the JSON.
#[test]
fn json_says_what_is_missing() {
    let report = serde_json::to_value(silent(100).report(&options(Profile::All, 3))).unwrap();
    assert_eq!(report["good"], false);
    assert_eq!(report["not_judged"], serde_json::Value::Null);
    assert_eq!(report["divergences"], 0);
    assert!(
        report["gaps"]
            .as_array()
            .unwrap()
            .iter()
            .any(|gap| gap == "too few divergences: 0 per 100 seeds, expected 500")
    );
    assert_eq!(report["minima"][1]["what"], "failovers that took effect");
    assert_eq!(
        (&report["minima"][1]["per_hundred_seeds"], &report["minima"][1]["expected"]),
        (&0.into(), &150.into())
    );
    let state = |name: &str| {
        report["states"].as_array().unwrap().iter().find(|state| state["state"] == name).unwrap().clone()
    };
    assert_eq!((&state("branched")["count"], &state("branched")["expected"]), (&0.into(), &true.into()));
    assert_eq!(state("restored")["expected"], false);
    assert_eq!(report["seeds"], 100);
    let (out, _) = sim("run --seeds 1..3 --regions 2 --steps 50 --json");
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&told["seeds"], &told["good"]), (&2.into(), &true.into()));
    assert!(told["not_judged"].as_str().unwrap().starts_with("2 seeds"), "{out}");
    assert!(told["hash"].as_str().unwrap().len() == 16 && told["states"].as_array().unwrap().len() > 25);
}

/// The last seeds there are, by more threads than there are seeds: they end.
#[test]
fn the_last_seeds_end() {
    let options = Options { regions: 1, steps: 20, ..Options::default() };
    let summary = campaign::run(u64::MAX - 1..u64::MAX, &options, 3, false, &|_, _, _| {});
    assert_eq!((summary.seeds, summary.failed.len(), summary.worlds.len()), (1, 0, 0));
}

#[test]
fn the_command_line_refuses_what_would_do_nothing() {
    let error = Sim::try_parse_from(["sim", "run", "--steps", "0"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("'--steps <N>'"), "{error}");
    let (out, code) = sim("explore --below 1");
    assert!(out.is_empty() && code.contains('2'), "{out}{code}");
    assert_eq!(Sim::try_parse_from(["sim", "explore", "x", "--below", "7"]).unwrap_err().exit_code(), 2);
}
