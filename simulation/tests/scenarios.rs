//! All scenarios: every file runs and finds nothing; every example, law, incident and scenario of the reference has one; and a
//! file that is none says where it is wrong, and what was expected there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use antipode_simulation::{
    engine::{script::Script, seen::Seen},
    scenario,
};

fn scenarios() -> BTreeMap<String, Script> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut found = BTreeMap::new();
    for path in scenario::files(&root).unwrap() {
        let file = path.strip_prefix(&root).unwrap().display().to_string();
        let script = scenario::parse(&file, &std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|malformed| panic!("{malformed}"));
        found.insert(file, script);
    }
    found
}

/// A file's name without folder and ending.
fn stem(file: &str) -> &str {
    Path::new(file).file_stem().unwrap().to_str().unwrap()
}

#[test]
fn all_scenarios_hold() {
    let (mut passed, mut pending) = (0, 0);
    let mut broken = Vec::new();
    let mut seen = Seen::default();
    for (file, script) in scenarios() {
        if script.pending.is_some() {
            pending += 1;
            broken.extend(scenario::holds_already(&script).map(|why| format!("{file}: {why}")));
            continue;
        }
        match scenario::run(&script, false) {
            Err(failure) => broken.push(format!("{file}: {failure}")),
            Ok(outcome) if outcome.findings.is_empty() => {
                passed += 1;
                seen.add(&outcome.seen);
            }
            Ok(outcome) => {
                let findings: Vec<_> = outcome.findings.iter().map(ToString::to_string).collect();
                broken.push(format!("{file}:\n  {}", findings.join("\n  ")));
            }
        }
    }
    println!("{passed} scenarios hold, {pending} are pending, {} are broken", broken.len());
    println!("{} interesting states were reached", seen.iter().count());
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(passed >= 140, "{passed} are fewer than there were");
}

/// A run of a scenario is a function of the scenario: twice the same, recorded or not.
#[test]
fn a_scenario_runs_the_same_twice() {
    let all = scenarios();
    for file in
        ["laws/drop_by_anchor.yaml", "upstream/s610_crash_between_writes.yaml", "laws/record_overtaken.yaml"]
    {
        let hashes: BTreeSet<String> =
            [false, true, false].map(|recorded| scenario::run(&all[file], recorded).unwrap().hash).into();
        assert_eq!(hashes.len(), 1, "{file}");
    }
}

#[test]
fn every_file_says_what_it_shows() {
    for (file, script) in scenarios() {
        assert_eq!(script.name, stem(&file), "{file}: the name is the file's");
        assert!(script.about.ends_with('.'), "{file}: `about` is a sentence");
        assert!(!script.cites.is_empty(), "{file} stands for nothing");
        if let Some(why) = &script.pending {
            assert!(
                why.contains("not built") || why.contains(':'),
                "{file} does not say what it waits for: {why}"
            );
        } else {
            let expects = script.steps.iter().filter(|step| step.expect.is_some()).count();
            assert!(expects > 0, "{file} expects nothing");
        }
    }
}

const LAWS: [(&str, u32); 8] =
    [("A", 10), ("B", 9), ("C", 9), ("D", 6), ("E", 4), ("F", 5), ("G", 3), ("H", 2)];

/// The laws' interleavings by name.
const NAMED_LAWS: [(&str, &str); 22] = [
    ("A1", "drop_by_anchor"),
    ("A2", "lww_buffer"),
    ("A3", "mark_never_branches"),
    ("A4", "transient_wft_append"),
    ("B1", "own_losing_signal"),
    ("B2", "double_reapply_over_can"),
    ("B4", "terminate_stranger"),
    ("B5", "terminate_if_running_split"),
    ("B6", "retention_revives_zombie"),
    ("B8", "can_seen_half"),
    ("C1", "serial_gap"),
    ("C4", "done_mark_lie"),
    ("C7", "survivor_relay"),
    ("D1", "dedup_on_uncommitted"),
    ("D2", "orphan_commit"),
    ("D3", "zero_row_fence"),
    ("E1", "quarantine_rpo_lie"),
    ("E2", "restore_source"),
    ("E2", "restore_peer"),
    ("F1", "thaw_after_flip"),
    ("F3", "stale_force"),
    ("H1", "year_ahead"),
];

/// Cadence's replication scenarios: the eighteen of its present state, and three of earlier ones.
const CADENCE: [&str; 21] = [
    "activeactive",
    "activeactive_child",
    "activeactive_cron",
    "activeactive_invalid_cluster_attribute",
    "activeactive_regional_failover",
    "activeactive_regional_failover_start_same_wfid",
    "activeactive_regional_failover_start_same_wfid_2",
    "activeactive_same_wfid",
    "activeactive_same_wfid_signalwithstart",
    "activeactive_same_wfid_signalwithstart_delayed",
    "activeactive_signalwithstart_terminateifrunning",
    "activeactive_simultaneous_start",
    "activeactive_start_terminateifrunning",
    "activepassive_to_activeactive",
    "activityretryfailover",
    "activityretryfailoverstress",
    "budget_manager",
    "clusterredirection",
    "default",
    "dlq",
    "reset",
];

const INCIDENTS: [&str; 11] = [
    "t10286_parent_child",
    "t11999_dlq_write_fails",
    "t12007_dlq_multi_page_merge",
    "t10436_shard_mismatch",
    "t10224_ack_1to2",
    "t4348_retention_outage",
    "t8229_handover_crash",
    "t4020_timer_gap",
    "t11411_stale_delete",
    "c5006_buffered_events",
    "c807_fast_failback",
];

const DOCUMENTED: [&str; 5] = [
    "doc version change",
    "doc version history without conflict",
    "doc version history with conflict",
    "doc zombie workflow",
    "doc stale task",
];

#[test]
fn everything_that_was_asked_for_has_a_scenario() {
    let all = scenarios();
    let cited: BTreeSet<&str> =
        all.values().flat_map(|script| script.cites.iter().map(String::as_str)).collect();
    let mut missing = Vec::new();
    let mut ids: Vec<String> = (1..=15).map(|number| format!("EX{number}")).collect();
    ids.extend(DOCUMENTED.map(String::from));
    for (letter, count) in LAWS {
        ids.extend((1..=count).map(|number| format!("{letter}{number}")));
    }
    missing.extend(ids.into_iter().filter(|id| !cited.contains(id.as_str())));
    for number in (500..=549).chain(600..=617) {
        let (id, begins) = (format!("S{number}"), format!("upstream/s{number}_"));
        let own = all.iter().any(|(file, script)| file.starts_with(&begins) && script.cites.contains(&id));
        missing.extend((!own).then_some(id));
    }
    let files = |folder: &str, names: &[&str]| -> Vec<String> {
        let wanted = names.iter().map(|name| format!("{folder}/{name}.yaml"));
        wanted.filter(|file| !all.contains_key(file)).collect()
    };
    missing.extend(files("cadence", &CADENCE));
    missing.extend(files("incidents", &INCIDENTS));
    for (law, name) in NAMED_LAWS {
        let script = all.get(&format!("laws/{name}.yaml"));
        missing.extend(
            (!script.is_some_and(|script| script.cites.iter().any(|id| id == law))).then(|| name.to_string()),
        );
    }
    assert!(missing.is_empty(), "no scenario stands for {}", missing.join(", "));
}

fn why(text: &str) -> String {
    scenario::parse("file.yaml", text).unwrap_err().to_string()
}

/// (what is wrong, the file, what the message must say)
#[test]
fn a_malformed_file_says_where_and_what_was_expected() {
    for (case, text, wanted) in [
        (
            "an unknown key",
            "name: x\nsteps:\n  - sgnal: {workflow: w, in: east}\n",
            &["file.yaml", "line 3", "column 5", "sgnal", "signal"][..],
        ),
        (
            "an unknown key inside an act",
            "name: x\nsteps:\n  - signal: {workflow: w, inn: east}\n",
            &["line 3", "column 27", "inn", "expected one of", "workflow"],
        ),
        (
            "a wrong type",
            "name: x\nworld:\n  increment: ten\nsteps: []\n",
            &["line 3", "column 14", "expected a whole number"],
        ),
        (
            "a length of time without a unit",
            "name: x\nsteps:\n  - wait: 5\n",
            &["line 3", "column 11", "`5` is no length of time: expected a number with us, ms, s, m, h or d"],
        ),
        (
            "two acts in a step",
            "name: x\nsteps:\n  - wait: 1s\n  - force: west\n    cut: {}\n",
            &["line 4, column 5", "step 2 has 2 acts", "expected exactly one of start, signal"],
        ),
        ("no act in a step", "name: x\nsteps:\n  - after: 1s\n", &["line 3, column 5", "step 1 has 0 acts"]),
        (
            "an unknown region",
            "name: x\nsteps:\n  - wait: 1s\n  - force: wset\n",
            &["line 4, column 12", "there is no region `wset`: expected one of east, west"],
        ),
        (
            "an unknown region in a list",
            "name: x\nsteps:\n  - cut: {between: [east, wst]}\n",
            &["line 3, column 27", "there is no region `wst`"],
        ),
        (
            "an unknown active region",
            "name: x\nworld: {active: nort}\nsteps: []\n",
            &["line 2, column 17", "there is no region `nort`"],
        ),
        (
            "a state that does not exist",
            "name: x\nsteps:\n  - expect: {seen: brnched, never: true}\n",
            &["line 3, column 20", "nothing is called `brnched`", "branched"],
        ),
        (
            "a workflow that does what no workflow does",
            "name: x\nsteps:\n  - start: {workflow: w, in: east, program: [activty, complete]}\n",
            &["line 3, column 46", "`activty` is no step of a workflow: expected activity"],
        ),
        (
            "a region without shards",
            "name: x\nworld: {regions: [{name: east, shards: 0}]}\nsteps: []\n",
            &["line 2, column 32", "`shards: 0`: expected 1 to 1024"],
        ),
        (
            "a retention below nothing",
            "name: x\nworld: {retention: -5s}\nsteps: []\n",
            &["line 2, column 9", "`retention: -5s`: expected 0s"],
        ),
        (
            "a share above all",
            "name: x\nsteps:\n  - net: {drop: 1001}\n",
            &["line 3, column 11", "`drop: 1001`: expected 0 to 1000"],
        ),
        (
            "lengths that begin with the longer one",
            "name: x\nworld: {net: {delay: [10ms, 1ms]}}\nsteps: []\n",
            &["line 2, column 15", "`delay: [10ms, 1ms]`: expected the shortest and the longest"],
        ),
        (
            "a policy that does not exist",
            "name: x\nsteps:\n  - start: {workflow: w, in: east, conflict: replace}\n",
            &["line 3, column 46", "`conflict: replace`: expected one of fail, use-existing"],
        ),
        (
            "a status that no run has",
            "name: x\nsteps:\n  - start: {workflow: w, in: east}\n  - expect: {workflow: w, status: runing}\n",
            &["line 4, column 35", "`status: runing`: expected one of running, completed"],
        ),
        (
            "an expectation about a workflow that nobody names",
            "name: x\nsteps:\n  - start: {workflow: w, in: east}\n  - expect: {workflow: v, signals: []}\n",
            &["line 4, column 24", "no step makes a workflow `v`: expected one of w"],
        ),
        (
            "a moment that waits for a call that nobody makes",
            "name: x\nsteps:\n  - on: {answered: s0}\n    wait: 1s\n",
            &["line 3, column 20", "no step makes a call with the request id `s0`: there is none"],
        ),
        (
            "an event that is none",
            "name: x\nsteps:\n  - start: {workflow: w, in: east}\n  - on: {in: east, workflow: w, event: five}\n    wait: 1s\n",
            &["line 4, column 40", "expected an event as in `12@1`"],
        ),
        (
            "a scenario without steps",
            "name: x\n",
            &["line 1", "a scenario without `steps` shows nothing: expected at least one step"],
        ),
        (
            "a scenario that waits for nothing",
            "name: x\npending: \"\"\nsteps:\n  - wait: 1s\n",
            &["line 2", "is no reason: expected what it waits for"],
        ),
        (
            "a scenario that waits without a reason",
            "name: x\npending: true\nsteps:\n  - wait: 1s\n",
            &["line 2", "`pending: true` is no reason: expected what it waits for"],
        ),
        (
            "too many regions",
            "name: x\nworld: {regions: []}\nsteps: []\n",
            &["`regions` has 0: expected 1 to 5"],
        ),
    ] {
        let why = why(text);
        for part in wanted {
            assert!(why.contains(part), "{case}: `{part}` is not in: {why}");
        }
    }
}

/// A scenario that waits for a feature and holds without it shows nothing.
#[test]
fn what_is_pending_may_not_hold() {
    let script = |pending: &str, status: &str| {
        let text = format!(
            "name: x\n{pending}steps:\n  - start: {{workflow: w, in: east, program: [complete]}}\n  - settle: cut\n  \
             - expect: {{in: east, workflow: w, status: {status}}}\n"
        );
        scenario::parse("x.yaml", &text).unwrap()
    };
    let waits = "pending: \"x: not built\"\n";
    let why = scenario::holds_already(&script(waits, "completed")).unwrap();
    assert!(why.starts_with("pending, and holds"), "{why}");
    assert_eq!(scenario::holds_already(&script(waits, "running")), None);
    assert_eq!(scenario::holds_already(&script("", "completed")), None);
}

/// An expectation that does not hold is a finding of its step, and the run ends there.
#[test]
fn an_expectation_can_fail() {
    let text = "name: x\nsteps:\n  - start: {workflow: w, in: east, id: s0, program: [complete]}\n  - settle: cut\n  \
                - expect: {in: east, workflow: w, status: running}\n  - expect: {version: 7}\n";
    let outcome = scenario::run(&scenario::parse("x.yaml", text).unwrap(), false).unwrap();
    let found: Vec<_> = outcome.findings.iter().map(|finding| finding.text.as_str()).collect();
    assert_eq!(found, ["step 3: east: status of w: expected \"running\", found \"completed\""]);
}
