//! The HTML report: it is one file without references to others, everything that was recorded is in it, and nothing that a
//! workflow id or a sentence contains can break out of its place. With `ANTIPODE_HTML` naming a folder, the reports of these
//! tests are also written there, to be looked at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "html/story.rs"]
mod story;

use antipode_simulation::{
    html::render,
    scenario,
    trace::{
        Band, Belief, Fate, Finding, Kind, Lane, Line, Message, Recording, TreeBranch, TreeEvent, TreeView,
    },
};
use serde_json::{Value, json};
use story::Story;

const MS: i64 = 1_000_000;
const SECOND: i64 = 1000 * MS;
const NAMES: [&str; 3] = ["east", "west", "north"];

#[test]
fn five_messages() {
    let recording = small();
    assert_eq!(recording.messages.len(), 5);
    let page = write("small", &recording);
    assert_whole(&page, &recording);
    assert!(page.contains("<title>one divergence · antipode sim</title>"));
    assert!(page.contains("data-seed=\"7\""));
}

#[test]
fn five_hundred_messages_and_more() {
    for (name, wanted) in [("large", 500), ("huge", 5000)] {
        let recording = Story::new(17).run(wanted);
        assert!(recording.messages.len() >= wanted);
        // What the story must contain for the report to be worth looking at.
        for fate in [Fate::Delivered, Fate::Dropped, Fate::Cut, Fate::Stale] {
            assert!(recording.messages.iter().any(|message| message.fate == fate), "{name}: no {fate:?}");
        }
        assert!(recording.messages.iter().any(|message| message.copy));
        assert!(recording.trees.iter().any(|tree| tree.branches.len() > 1));
        assert!(recording.bands.len() >= 2 && recording.beliefs.len() >= 6 && !recording.findings.is_empty());
        let page = write(name, &recording);
        assert_whole(&page, &recording);
    }
}

#[test]
fn a_scenario_of_the_engine() {
    let text = include_str!("../scenarios/examples/ex14_split_brain.yaml");
    let script = scenario::parse("ex14_split_brain.yaml", text).unwrap();
    let outcome = scenario::run(&script, true).unwrap();
    let recording = outcome.recording.expect("a recording was asked for");
    let page = write("scenario", &recording);
    let shown = embedded(&page);
    // The page and the command line count the same steps.
    assert_eq!(shown["steps"], json!(outcome.steps));
    assert_eq!(shown, serde_json::to_value(&recording).unwrap());
    // What the page's scripts look for: should the recorder tell it differently, they have to follow.
    let lines = shown["lines"].as_array().unwrap();
    let verdicts: Vec<&Value> = lines.iter().filter(|line| line["kind"] == "verdict").collect();
    assert!(!verdicts.is_empty());
    for verdict in verdicts {
        for field in
            ["verdict", "reason", "incoming", "arithmetic", "winner", "why", "rebuild", "fork", "problem"]
        {
            assert!(verdict["detail"].get(field).is_some(), "{field} is missing in {verdict}");
        }
    }
    assert!(
        lines
            .iter()
            .any(|line| line["kind"] == "failover" && line["text"].as_str().unwrap().starts_with("believes"))
    );
    assert!(shown["messages"].as_array().unwrap().iter().any(|message| message["fate"] == "delivered"));
    assert!(shown["bands"].as_array().unwrap().iter().any(|band| band["kind"] == "cut"));
}

#[test]
fn nothing_is_recorded() {
    let recording = Recording { title: "seed 0".to_owned(), ..Recording::default() };
    let page = write("empty", &recording);
    assert_whole(&page, &recording);
}

#[test]
fn one_file_that_refers_to_no_other() {
    let page = render(&small());
    let (before, after) = around_recording(&page);
    for part in [before, after] {
        for word in [
            "http:",
            "https:",
            "src=",
            "href=",
            "url(",
            "@import",
            "import(",
            "fetch(",
            "XMLHttp",
            "WebSocket",
        ] {
            assert!(!part.contains(word), "{word} refers to something outside");
        }
        assert!(!part.contains("{{"), "a slot is left");
    }
    // The browser is told to see to it as well.
    assert!(before.contains("default-src 'none'"));
    // One script of data and one that runs, one style; none is cut short by what is in it.
    assert_eq!(page.matches("</script>").count(), 2);
    assert_eq!(page.matches("<script").count(), 2);
    assert_eq!(page.matches("</style>").count(), 1);
}

#[test]
fn hostile_text_stays_text() {
    let hostile = "</script><script>alert(1)</script><!-- <SCRIPT --> ]]> {{script}} \" ' \\ &amp; \u{2028}\u{2029} \0 é 漢 🦀";
    let mut recording = small();
    recording.title = hostile.to_owned();
    recording.seed = u64::MAX;
    recording.lanes[0].name = hostile.to_owned();
    recording.lines[0].text = hostile.to_owned();
    recording.lines[0].workflow = Some(hostile.to_owned());
    recording.messages[0].text = hostile.to_owned();
    recording.messages[0].workflows = vec![hostile.to_owned()];
    recording.findings[0].text = hostile.to_owned();
    let page = write("hostile", &recording);
    assert_whole(&page, &recording);
    let lower = page.to_lowercase();
    assert_eq!(lower.matches("</script").count(), 2);
    assert_eq!(lower.matches("<script").count(), 2);
    assert!(!page.contains("<!-- <"), "a comment would hide the end of the script");
    assert!(!recording_in(&page).contains(['<', '>', '&', '\u{2028}', '\u{2029}']));
    assert!(page.contains("<title>&lt;/script&gt;&lt;script&gt;alert(1)"));
    assert!(page.contains(&format!("data-seed=\"{}\"", u64::MAX)), "the seed is exact");
}

/// The report, written to the folder that the environment names.
fn write(name: &str, recording: &Recording) -> String {
    let page = render(recording);
    if let Ok(folder) = std::env::var("ANTIPODE_HTML") {
        std::fs::write(format!("{folder}/{name}.html"), &page).unwrap();
    }
    page
}

/// Everything that was recorded is in the page, and reads as it was.
fn assert_whole(page: &str, recording: &Recording) {
    let shown = embedded(page);
    assert_eq!(shown, serde_json::to_value(recording).unwrap());
    for (name, length) in [
        ("lanes", recording.lanes.len()),
        ("lines", recording.lines.len()),
        ("messages", recording.messages.len()),
        ("bands", recording.bands.len()),
        ("beliefs", recording.beliefs.len()),
        ("trees", recording.trees.len()),
        ("findings", recording.findings.len()),
    ] {
        assert_eq!(shown[name].as_array().map(Vec::len), Some(length), "{name}");
    }
}

/// What stands before and after the recording.
fn around_recording(page: &str) -> (&str, &str) {
    let (before, rest) =
        page.split_once("<script type=\"application/json\" id=\"recording\">").expect("a recording");
    let (_, after) = rest.split_once("</script>").expect("its end");
    (before, after)
}

/// The script of the recording as a browser reads it: up to the first end of a script.
fn recording_in(page: &str) -> &str {
    let (before, after) = around_recording(page);
    let script = &page[before.len()..page.len() - after.len() - "</script>".len()];
    script.split_once('>').expect("the end of its tag").1
}

/// The recording, parsed.
fn embedded(page: &str) -> Value {
    serde_json::from_str(recording_in(page)).expect("JSON")
}

fn line(step: u64, at: i64, kind: Kind, region: Option<usize>, text: impl Into<String>) -> Line {
    Line { step, at, kind, region, workflow: None, run: None, text: text.into(), detail: None }
}

fn lanes() -> Vec<Lane> {
    let lane = |(name, initial): (&&str, u32)| Lane { name: (*name).to_owned(), initial, shards: 2 };
    NAMES.iter().zip(1..).map(lane).collect()
}

fn belief(at: i64, region: usize, version: i64, phase: &'static str) -> Belief {
    let active = NAMES[(version % 10 - 1) as usize].to_owned();
    let writable = active == NAMES[region] && phase == "active";
    Belief { at, region, namespace: "default".to_owned(), version, active, phase, writable }
}

/// EX8 in five messages: one run, two writers, one loser, with a finding that no engine should ever have.
fn small() -> Recording {
    let [sent, cut] = [2 * MS, 40 * MS];
    let message = |id: u64, (from, to), kind, (sent, arrived), fate, text: &str| Message {
        id,
        from,
        to,
        kind,
        sent,
        arrived,
        fate,
        copy: false,
        workflows: if kind == "ack" { vec![] } else { vec!["order-7".to_owned()] },
        text: text.to_owned(),
    };
    let on = |mut line: Line| {
        line.workflow = Some("order-7".to_owned());
        line.run = Some("5f0c2a11".to_owned());
        line
    };
    let mut verdict =
        on(line(6, 96 * MS, Kind::Verdict, Some(1), "NewBranch: west keeps [1..2@1 3..4@12]; 3@1 lost"));
    verdict.detail = Some(json!({
        "verdict": "NewBranch", "reason": "the batch before has another successor on a stored branch",
        "incoming": "[1..3@1]", "incoming_chain": "9f3c11aa52e07d40", "local": "[1..2@1 3..4@12]", "ancestor": "2@1",
        "arithmetic": ["stored @12 > incoming @1: step back in the stored list", "both have @1: min(2, 3) = 2, ancestor 2@1"],
        "winner": "[1..2@1 3..4@12]", "why": "its last version @12 is higher than @1",
        "rebuild": false, "fork": false, "problem": null,
    }));
    let event = |id, version, kind: &str| TreeEvent { id, version, kind: kind.to_owned() };
    let (start, task) = (event(1, 1, "WorkflowExecutionStarted"), event(2, 1, "WorkflowTaskScheduled"));
    let lost = event(3, 1, "WorkflowExecutionSignaled");
    let won = [event(3, 12, "WorkflowExecutionSignaled"), event(4, 12, "WorkflowTaskScheduled")];
    let branch = |items: &str, current, fork: Option<&str>, why: &str, events: Vec<TreeEvent>| TreeBranch {
        items: items.to_owned(),
        chain: format!("{:016x}", items.len() * 77_777_777),
        current,
        fork: fork.map(str::to_owned),
        why: why.to_owned(),
        events,
    };
    let tree = |at, step, region, branches| TreeView {
        at,
        step,
        region,
        workflow: "order-7".to_owned(),
        run: "5f0c2a11".to_owned(),
        state: "open",
        current_run: true,
        branches,
    };
    let only = "it is the only branch";
    let base = branch("[1..2@1]", true, None, only, vec![start.clone(), task.clone()]);
    let ours = branch(
        "[1..2@1 3..4@12]",
        true,
        None,
        only,
        [vec![start.clone(), task.clone()], won.to_vec()].concat(),
    );
    let theirs = branch("[1..3@1]", true, None, only, vec![start, task, lost.clone()]);
    let both = {
        let why = "lost to [1..2@1 3..4@12]: its last version @12 is higher than @1";
        let ours = TreeBranch { why: "its last version @12 is higher than @1".to_owned(), ..ours.clone() };
        vec![ours, branch("[1..3@1]", false, Some("2@1"), why, vec![lost])]
    };
    Recording {
        title: "one divergence".to_owned(),
        seed: 7,
        lanes: lanes()[..2].to_vec(),
        end: 150 * MS,
        steps: 12,
        lines: vec![
            on(line(1, sent, Kind::Client, Some(0), "StartWorkflow order-7: started 5f0c2a11")),
            on(line(2, 30 * MS, Kind::Shard, Some(1), "Create: stored [1..2@1]")),
            line(3, cut, Kind::Fault, None, "cut east → west"),
            line(4, 50 * MS, Kind::Failover, Some(1), "forced failover of default to west: @1 → @12"),
            on(line(4, 52 * MS, Kind::Client, Some(0), "SignalWorkflow order-7: accepted as 3@1")),
            on(line(5, 60 * MS, Kind::Client, Some(1), "SignalWorkflow order-7: accepted as 3@12")),
            line(5, 80 * MS, Kind::Fault, None, "east → west is whole again"),
            verdict,
            on(line(
                7,
                120 * MS,
                Kind::Finding,
                None,
                "V07: the signal acknowledged as 3@1 is listed nowhere",
            )),
        ],
        messages: vec![
            message(1, (0, 1), "entries", (sent, 30 * MS), Fate::Delivered, "order-7 1..2@1"),
            message(2, (1, 0), "ack", (30 * MS, 58 * MS), Fate::Delivered, "through 1"),
            message(3, (0, 1), "entries", (52 * MS, 79 * MS), Fate::Cut, "order-7 3@1"),
            message(4, (1, 0), "entries", (60 * MS, 90 * MS), Fate::Delivered, "order-7 3..4@12"),
            message(5, (0, 1), "entries", (81 * MS, 96 * MS), Fate::Delivered, "order-7 3@1 again"),
        ],
        bands: vec![Band::Cut { from: 0, to: 1, since: cut, until: Some(80 * MS) }],
        beliefs: vec![
            belief(0, 0, 1, "active"),
            belief(0, 1, 1, "active"),
            belief(50 * MS, 1, 12, "active"),
            belief(90 * MS, 0, 12, "active"),
        ],
        trees: vec![
            tree(sent, 1, 0, vec![base.clone()]),
            tree(30 * MS, 2, 1, vec![base]),
            tree(52 * MS, 4, 0, vec![theirs]),
            tree(60 * MS, 5, 1, vec![ours]),
            tree(90 * MS, 5, 0, both.clone()),
            tree(96 * MS, 6, 1, both),
        ],
        findings: vec![Finding {
            oracle: "V07".to_owned(),
            at: 120 * MS,
            step: 7,
            text: "the signal acknowledged as 3@1 is listed nowhere".to_owned(),
        }],
    }
}
