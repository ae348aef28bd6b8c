//! Scenarios that would say less than they seem to: an expectation that looks at nothing, an act without the region it is for, a
//! length of time that never ends. Each is refused with line, column and what was expected, in the words of a scenario.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use antipode_simulation::{
    engine::script::Script,
    generate::{self, Options, Profile},
    scenario, shrink,
};

fn read(text: &str) -> Result<Script, scenario::Malformed> {
    scenario::parse("file.yaml", text)
}

/// Steps after one that starts the workflow `w`: they begin on line 4.
fn after_start(steps: &str) -> String {
    format!("name: x\nsteps:\n  - start: {{workflow: w, in: east, id: s0}}\n{steps}\n")
}

fn refused(cases: &[(&str, &[&str])]) {
    for (step, wanted) in cases {
        let text = after_start(step);
        let why = match read(&text) {
            Ok(_) => panic!("{step}: it is accepted"),
            Err(malformed) => malformed.to_string(),
        };
        for part in ["file.yaml: line 4, column "].iter().chain(*wanted) {
            assert!(why.contains(part), "{step}: `{part}` is not in: {why}");
        }
    }
}

/// What no step sends can never be there, so that the scenario would run and fail for nothing.
#[test]
fn a_signal_that_no_step_sends_is_not_expected() {
    refused(&[
        (
            "  - expect: {in: all, workflow: w, signals: [zz]}",
            &["column 46", "no step makes a signal with the request id `zz`: there is none"],
        ),
        // A start is no signal.
        ("  - expect: {workflow: w, signals: [s0]}", &["column 37", "no step makes a signal"]),
        (
            "  - expect: {workflow: w, unclaimed: [s0, zz]}",
            &["column 43", "no step makes a call with the request id `zz`: expected one of s0"],
        ),
        ("  - expect: {workflow: w, waiting: [zz]}", &["column 37", "no step makes a call"]),
    ]);
    let sent = "  - signal: {workflow: w, in: east, id: x}\n  - expect: {workflow: w, signals: [x], waiting: [], unclaimed: [s0]}";
    assert!(read(&after_start(sent)).is_ok());
}

#[test]
fn an_expectation_expects_something() {
    refused(&[
        (
            "  - expect: {in: all, status: running, signals: [zzz], runs: 17}",
            &["column 23", "`status` without `workflow`"],
        ),
        ("  - expect: {runs: 1}", &["column 14", "`runs` without `workflow`"]),
        ("  - expect: {}", &["column 5", "`expect` expects nothing: expected at least one of version"]),
        ("  - expect: {in: all}", &["`expect` expects nothing"]),
        (
            "  - expect: {workflow: w}",
            &["column 14", "nothing is expected of workflow `w`: expected one of status"],
        ),
        ("  - expect: {workflow: w, version: 1}", &["nothing is expected of workflow `w`"]),
        ("  - expect: {workflow: w, run_of: s0, runs: 1}", &["column 27", "`run_of` says of which run"]),
        ("  - expect: {agree: false}", &["column 14", "`agree: false` expects nothing"]),
        ("  - expect: {workflow: w, status: running, agree: false}", &["column 44", "`agree: false`"]),
        ("  - expect: {seen: zombie, never: false}", &["`never: false` expects nothing"]),
        (
            "  - expect: {in: east, workflow: w, agree: true}",
            &["`agree` compares regions: expected `in: all`"],
        ),
        ("  - expect: {agree: true}", &["`agree` without `workflow`"]),
        (
            "  - expect: {seen: zombie, times: 0}",
            &["column 28", "`times: 0` holds whatever happens", "`never: true`"],
        ),
        ("  - expect: {seen: zombie, never: true, times: 2}", &["`never` and `times`"]),
        ("  - expect: {times: 2, version: 1}", &["this needs `seen`"]),
        ("  - expect: {in: west, seen: zombie}", &["column 14", "`in` says nothing here"]),
        ("  - expect: {call: s0}", &["column 14", "expected `is` with ok"]),
        ("  - expect: {is: ok}", &["`is` without `call`"]),
        ("  - expect: {workflow: w, history: []}", &["column 27", "`history: []` says nothing"]),
        (
            "  - expect: {workflow: w, status: running, branches: []}",
            &["column 44", "`branches: []` says nothing"],
        ),
        ("  - expect: {workflow: w, history: [...]}", &["column 27", "every history is so"]),
        ("  - expect: {version: 1, status: }", &["column 26", "`status` has no value"]),
        ("  - on:\n    evict: east", &["column 5", "`on` has no value"]),
        (
            "  - expect: {workflow: w, current: 3@1}",
            &["column 36", "`3@1` is no version history: expected events and versions as in `[(3,1),(5,2)]`"],
        ),
        (
            "  - expect: {workflow: w, branches: ['[(3,1)]', '[(3,1']}",
            &["column 49", "`[(3,1` is no version history"],
        ),
    ]);
    let why =
        read(&after_start("  - expect:\n      in: all\n      status: running")).unwrap_err().to_string();
    assert!(why.contains("line 6, column 7: `status` without `workflow`"), "{why}");
}

/// What an expectation looks at in a run is not so where there is no such run; and of no region nothing is so.
#[test]
fn an_expectation_of_what_is_not_there_fails() {
    let text = "name: x\nsteps:\n  - cut: {}\n  - start: {workflow: w, in: east, id: s0}\n  - expect: {in: west, workflow: w, signals: []}\n";
    let outcome = scenario::run(&read(text).unwrap(), false).unwrap();
    let found: Vec<_> = outcome.findings.iter().map(|finding| finding.text.as_str()).collect();
    assert_eq!(found, ["step 3: west has no such run of w"]);
    let text = "name: x\nworld: {regions: [{name: east}]}\nsteps:\n  - crash: {region: east}\n  - expect: {in: all, version: 7}\n";
    let outcome = scenario::run(&read(text).unwrap(), false).unwrap();
    let found: Vec<_> = outcome.findings.iter().map(|finding| finding.text.as_str()).collect();
    assert_eq!(found, ["step 2: no region is up of which this could be expected"]);
}

#[test]
fn an_act_names_what_it_is_for() {
    refused(&[
        (
            "  - start: {workflow: v}",
            &["column 5", "`start` has no `in`: expected a region, one of east, west"],
        ),
        ("  - start: {in: east}", &["`start` has no `workflow`"]),
        ("  - signal_with_start: {workflow: v}", &["`signal_with_start` has no `in`"]),
        ("  - signal: {workflow: w}", &["`signal` has no `in`"]),
        ("  - signal: {in: west}", &["`signal` has no `workflow`: expected the id of a workflow"]),
        ("  - cancel: {in: west}", &["`cancel` has no `workflow`"]),
        ("  - terminate: {workflow: w}", &["`terminate` has no `in`"]),
        ("  - signal: {workflow: w, in: all}", &["column 31", "expected one region of east, west"]),
        (
            "  - on: {in: all, version: 2}\n    evict: east",
            &["column 14", "expected one region of east, west"],
        ),
        ("  - namespace: {description: x}", &["`namespace` has no `in`"]),
        ("  - namespace: {in: east}", &["`namespace` changes nothing"]),
        ("  - crash: {}", &["`crash` has no `region`"]),
        ("  - hand_over: {}", &["`hand_over` has no `to`"]),
        ("  - hold: {workflow: w}", &["`hold` has no `from`"]),
        ("  - hold: {from: east}", &["`hold` has no `workflow`"]),
        ("  - force: ''", &["`force` names no region"]),
        ("  - workers: {in: east}", &["`workers` does nothing"]),
        ("  - workers: {in: east, stop: true, start: true}", &["expected one or the other"]),
        ("  - cut: {from: east, to: east}", &["column 23", "there is no link from east to east"]),
        ("  - cut: {between: [east, east]}", &["`east` stands there twice"]),
        ("  - cut: {between: []}", &["`between: []` says nothing"]),
        ("  - cut: {from: east, between: [east, west]}", &["`between` is both directions"]),
        ("  - restore: east", &["column 5", "east has no backup: expected a step `backup: east` before"]),
    ]);
    let twice = "  - backup: east\n  - restore: east\n  - restore: east";
    let why = read(&after_start(twice)).unwrap_err().to_string();
    assert!(why.contains("line 6, column 5: east has no backup"), "{why}");
}

#[test]
fn a_length_of_time_and_a_number_have_bounds() {
    refused(&[
        ("  - wait: -5s", &["column 5", "`wait: -5s`: expected 0s to 400d"]),
        ("  - wait: 2000000h", &["`wait: 2000000h`: expected 0s to 400d"]),
        ("  - at: -1s\n    evict: east", &["`at: -1s`"]),
        ("  - after: 401d\n    evict: east", &["`after: 401d`"]),
        ("  - start: {workflow: v, in: east, run_timeout: -5s}", &["column 36", "`run_timeout: -5s`"]),
        ("  - start: {workflow: v, in: east, delay: -5s}", &["`delay: -5s`"]),
        ("  - start: {workflow: v, in: east, program: [timer -5s]}", &["column 46", "`timer: -5s`"]),
        (
            "  - start: {workflow: v, in: east, program: [marker, all timer 9h & timer -5s]}",
            &["`timer: -5s`"],
        ),
        ("  - start: {workflow: v, in: east, attempts: -1}", &["`attempts: -1`"]),
        ("  - crash: {region: east, down: -1s}", &["`down: -1s`"]),
        ("  - hand_over: {to: west, deadline: -1s}", &["`deadline: -1s`"]),
        ("  - slow: {in: east, commit: -1s}", &["`commit: -1s`"]),
        ("  - skew: {in: east, by: -401d}", &["`by: -401d`: expected at most 400d, forward or back"]),
        ("  - namespace: {in: east, retention: 1500ms}", &["`retention: 1500ms`: expected whole seconds"]),
        ("  - fail: {in: east, how: reject, times: 0}", &["column 35", "`times: 0`: expected 1 to 10000"]),
        ("  - fail: {in: east, how: reject, times: 4294967295}", &["expected 1 to 10000"]),
        ("  - net: {answers: 1001}", &["column 11", "`answers: 1001`: expected 0 to 1000"]),
        ("  - workers: {in: east, lose: 1001}", &["`lose: 1001`: expected 0 to 1000"]),
    ]);
    for (text, wanted) in [
        (after_start("  - at: 1s\n    after: 1s\n    evict: east"), "line 5, column 5: `at` and `after`"),
        (
            after_start("  - wait: 390d\n  - after: 20d\n    evict: east"),
            "line 5, column 5: with this the scenario waits",
        ),
        ("name: x\nworld:\n  net: {drop: 1001}\n".to_string(), "line 3, column 9: `drop: 1001`"),
        ("name: x\nworld:\n  think: [-1s, 1s]\n".to_string(), "line 3, column 3: `think: [-1s, 1s]`"),
        ("name: x\nworld:\n  commit: [1s, 401d]\n".to_string(), "line 3, column 3: `commit: [1s, 401d]`"),
        ("name: x\nworld:\n  retention: -1s\n".to_string(), "line 3, column 3: `retention: -1s`"),
    ] {
        let why = read(&text).unwrap_err().to_string();
        assert!(why.contains(wanted), "`{wanted}` is not in: {why}");
    }
}

#[test]
fn a_moment_waits_for_something() {
    refused(&[
        ("  - on: {}\n    evict: east", &["column 5", "`on` waits for nothing"]),
        ("  - on: {in: east}\n    evict: east", &["column 10", "nothing is waited for in east"]),
        ("  - on: {in: east, workflow: w}\n    evict: east", &["workflow `w` is not waited for"]),
        ("  - on: {in: east, event: 3@1}\n    evict: east", &["`event` without `workflow`"]),
        ("  - on: {workflow: w, event: 3@1}\n    evict: east", &["`event` without `in`"]),
        ("  - on: {version: 2}\n    evict: east", &["`version` without `in`"]),
        ("  - on: {in: east, answered: s0}\n    evict: east", &["nothing is waited for in east"]),
        ("  - on: {seen: zombie, times: 0}\n    evict: east", &["column 24", "expected 1 or more"]),
        ("  - on: {answered: s0, times: 2}\n    evict: east", &["`seen` with what is counted"]),
    ]);
}

/// A moment that never comes is told as the scenario writes it.
#[test]
fn a_moment_that_never_comes_is_told_in_words() {
    let text = after_start("  - on: {in: west, workflow: w, event: 9@7, committing: true}\n    evict: east");
    let outcome = scenario::run(&read(&text).unwrap(), false).unwrap();
    let found: Vec<_> = outcome.findings.iter().map(|finding| finding.text.as_str()).collect();
    assert_eq!(
        found,
        [
            "step 2: this moment never came, nor within 1h: `on: {in: west, workflow: w, event: 9@7, committing: true}`"
        ]
    );
}

/// A request id that comes again is the retry of one call, not the name of two.
#[test]
fn a_request_id_is_that_of_one_call() {
    refused(&[
        (
            "  - start: {workflow: v, in: east, id: s0}",
            &["column 40", "the request id `s0` is that of another call, of step 1"],
        ),
        ("  - signal: {workflow: w, in: east, id: s0}", &["the request id `s0` is that of another call"]),
        ("  - start: {workflow: w, in: east, id: s0, program: [complete]}", &["is that of another call"]),
    ]);
    read(&after_start("  - start: {workflow: w, in: west, id: s0, once: true}")).unwrap();
}

#[test]
fn a_world_is_one_that_can_be() {
    for (world, wanted) in [
        ("increment: 0", "line 3, column 3: `increment: 0`: expected 3 to 2147483647"),
        ("increment: 1", "line 3, column 3: `increment: 1`: expected 3 to 2147483647"),
        (
            "increment: 2",
            "line 3, column 3: `increment: 2`: expected 3 to 2147483647, more than there are regions",
        ),
        ("increment: 4294967295", "line 3, column 3: `increment: 4294967295`: expected 3 to 2147483647"),
        (
            "increment: 4294967296",
            "line 3, column 14: `world.increment`: expected a whole number from 0 to 4294967295",
        ),
        (
            "regions: [{name: east}, {name: east}]",
            "line 3, column 28: `name: east`: expected a name that no other region has",
        ),
        ("regions: [{name: east}, {name: ''}]", "line 3, column 28: `name: `: expected a name"),
        ("regions: [{name: all}]", "line 3, column 14: `name: all`: expected a name"),
        ("regions: []", "line 3, column 3: `regions` has 0: expected 1 to 5"),
        ("members: [east, east]", "line 3, column 3: `east` stands there twice"),
        ("members: [west]", "line 3, column 3: `east` is active and is not among them"),
        ("regions: [{name: east, skew: 500d}]", "line 3, column 26: `skew: 500d`: expected at most 400d"),
    ] {
        let why = read(&format!("name: x\nworld:\n  {world}\n")).unwrap_err().to_string();
        assert!(why.contains(wanted), "{world}: `{wanted}` is not in: {why}");
    }
}

/// What the reader of YAML finds is told in our words: no type names of a programming language, no advice to a programmer.
#[test]
fn what_is_no_yaml_is_told_in_our_words() {
    for (text, wanted) in [
        ("", "line 1, column 1: the file is empty"),
        ("about: x\n", "line 1, column 1: `name` is missing"),
        ("name: x\nname: y\n", "line 2, column 1: `name` stands here a second time"),
        ("name: x\nworld: 7\n", "line 2, column 8: `world`: expected fields with values, as in `{in: east}`"),
        (
            "name: x\nsteps: 7\n",
            "line 2, column 8: `steps`: expected a list of steps, each of them after `- `",
        ),
        ("name: ''\n", "line 1, column 1: `name` is empty"),
        (
            "name: x\nsteps:\n\t- wait: 1s\n",
            "line 3, column 2: this is not YAML: expected spaces, and not a tab",
        ),
        ("name: x: y\n", "line 1, column 8: this is not YAML: expected one `: ` a line"),
        ("name: x\nworld:\n  local: maybe\n", "line 3, column 10: `world.local`: expected true or false"),
        (
            "name: x\nworld: {net: {delay: 5ms}}\n",
            "line 2, column 22: `world.net.delay`: expected two lengths of time, as in `[1ms, 5ms]`",
        ),
        ("name: x\nworld: {commit: [1ms]}\n", "`world.commit`: 1 stand here: expected two lengths of time"),
        (
            "name: x\nsteps:\n  - start: [w]\n",
            "line 3, column 12: `steps.start`: expected fields with values",
        ),
        ("name: x\nsteps:\n  - force: {in: east}\n", "line 3, column 12: `steps.force`: expected one word"),
        (
            "name: x\nsteps:\n  - settle: het\n",
            "line 3, column 13: `steps.settle`: `het`: expected one of cut, heal",
        ),
        ("name: x\n---\nname: y\n", "line 3, column 1: a second document begins"),
        ("name: x\nsteps: [}\n", "line 2, column 8: this is not YAML"),
        (
            "name: x\nsteps:\n  - force: east\n   wait: 1\n",
            "line 4, column 4: this is not YAML: expected a line that is indented like",
        ),
    ] {
        let why = read(text).unwrap_err().to_string();
        assert!(why.contains(wanted), "{text:?}: `{wanted}` is not in: {why}");
        for word in [
            "mapping start",
            "sequence start",
            "DuplicateKeyPolicy",
            "Options",
            "-->",
            "<input>",
            "u32",
            "boolean",
        ] {
            assert!(!why.contains(word), "{text:?}: `{word}` is in: {why}");
        }
    }
    let why = scenario::parse_bytes("file.yaml", b"name: x\nabout: \xc3\xa9\xff\n").unwrap_err().to_string();
    assert_eq!(why, "file.yaml: line 2, column 9: the byte 0xff is no text: expected a file in UTF-8");
}

/// What a seed writes is a scenario by the same rules, so that what shrinking leaves of it runs as a file.
#[test]
fn what_a_seed_writes_is_accepted() {
    let mut steps = 0;
    for profile in Profile::ALL {
        for seed in 1..9 {
            let options = Options { profile: *profile, steps: 600, ..Options::default() };
            let (_, script) = generate::run(seed, &options, false).unwrap();
            steps += script.steps.len();
            let text = shrink::to_yaml(&script);
            if let Err(malformed) = read(&text) {
                panic!("{} {seed}: {malformed}", profile.name());
            }
        }
    }
    assert!(steps > 1_000, "{steps} steps say little");
}
