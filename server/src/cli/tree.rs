//! A run's tree of branches as text. The current branch is the trunk; every other branch hangs where it left the trunk,
//! with the events that only it has. Below stand the winner and why it won.

use std::io::{self, Write};

use antipode_proto::admin::{BranchInfo, InspectRunReply};

use super::run::current;

/// Events shown of one branch; those before them are counted.
const EVENTS_SHOWN: usize = 12;

pub(super) fn draw(out: &mut dyn Write, reply: &InspectRunReply) -> io::Result<()> {
    writeln!(out, "{}  run {}  {} ({})", reply.workflow_id, reply.run_id, reply.status, reply.state)?;
    writeln!(out)?;
    let Some(trunk) = current(reply) else {
        return writeln!(out, "the run has no branch");
    };
    let losers = losers(reply);
    let mut from = 1;
    let mut at = 0;
    while at < losers.len() {
        let fork = losers[at].1.fork_event_id;
        let together = losers[at..].iter().take_while(|(_, branch)| branch.fork_event_id == fork).count();
        if fork >= from {
            writeln!(out, "●  {}", span(trunk, from, fork))?;
            from = fork + 1;
        }
        for (index, branch) in &losers[at..at + together] {
            lost(out, *index, branch)?;
        }
        at += together;
    }
    winner(out, reply, trunk, from, losers.is_empty())?;
    verdict(out, reply)
}

/// All branches but the current one, by the place where they left it.
fn losers(reply: &InspectRunReply) -> Vec<(usize, &BranchInfo)> {
    let mut losers: Vec<_> = reply
        .branches
        .iter()
        .enumerate()
        .filter(|(index, _)| u32::try_from(*index) != Ok(reply.current))
        .collect();
    losers.sort_by_key(|(index, branch)| (branch.fork_event_id, *index));
    losers
}

fn lost(out: &mut dyn Write, index: usize, branch: &BranchInfo) -> io::Result<()> {
    let own = span(branch, branch.fork_event_id + 1, i64::MAX);
    writeln!(out, "├──○  branch {}  {own}  lost  chain {}", index + 1, branch.chain)?;
    events(out, "│      ", &branch.events)
}

fn winner(
    out: &mut dyn Write,
    reply: &InspectRunReply,
    trunk: &BranchInfo,
    from: i64,
    alone: bool,
) -> io::Result<()> {
    // When nothing follows the last fork, the trunk's end is the fork itself.
    let end = trunk.items.last().map_or(0, |item| item.event_id);
    let own = if from > end { format!("ends at #{end}") } else { span(trunk, from, i64::MAX) };
    let mark = if alone { "the only branch" } else { "current" };
    writeln!(out, "●  branch {}  {own}  {mark}  chain {}", reply.current + 1, trunk.chain)?;
    let own: Vec<String> = trunk.events.iter().filter(|event| id_of(event) >= from).cloned().collect();
    events(out, "   ", &own)
}

/// The id at the beginning of an event's line, `#11@2 WorkflowExecutionSignaled`; what has none is always shown.
fn id_of(event: &str) -> i64 {
    let digits = event.trim_start_matches('#').split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(i64::MAX)
}

fn events(out: &mut dyn Write, indent: &str, events: &[String]) -> io::Result<()> {
    // The end of a branch says more than its beginning.
    let earlier = events.len().saturating_sub(EVENTS_SHOWN);
    if earlier > 0 {
        writeln!(out, "{indent}({earlier} earlier)")?;
    }
    events[earlier..].iter().try_for_each(|event| writeln!(out, "{indent}{event}"))
}

fn verdict(out: &mut dyn Write, reply: &InspectRunReply) -> io::Result<()> {
    writeln!(out)?;
    for (index, branch) in reply.branches.iter().enumerate() {
        let items: Vec<String> =
            branch.items.iter().map(|item| format!("#{}@{}", item.event_id, item.version)).collect();
        let mark = if u32::try_from(index) == Ok(reply.current) { "  <- current" } else { "" };
        let batches = if branch.batches == 1 { "batch" } else { "batches" };
        let items = items.join(" ");
        writeln!(out, "branch {}: {items}  ({} {batches}){mark}", index + 1, branch.batches)?;
    }
    if !reply.why.is_empty() {
        writeln!(out, "\nwhy: {}", reply.why)?;
    }
    if !reply.unclaimed.is_empty() {
        let many = reply.unclaimed.len();
        let events = if many == 1 { "accepted event was" } else { "accepted events were" };
        writeln!(out, "{many} {events} not applied; `antipode run inspect` lists them")?;
    }
    Ok(())
}

/// The events from `from` to `to` of a branch with their versions: `#1..#10 @1, #11..#14 @2`.
fn span(branch: &BranchInfo, from: i64, to: i64) -> String {
    let mut spans = Vec::new();
    let mut start = 1;
    for item in &branch.items {
        let (first, last) = (start.max(from), item.event_id.min(to));
        if first == last {
            spans.push(format!("#{first} @{}", item.version));
        } else if first < last {
            spans.push(format!("#{first}..#{last} @{}", item.version));
        }
        start = item.event_id + 1;
    }
    if spans.is_empty() { "no event of its own".to_string() } else { spans.join(", ") }
}

#[cfg(test)]
mod tests {
    use antipode_proto::core::VersionItem;

    use super::*;

    fn branch(items: &[(i64, i64)], fork: i64, events: &[&str]) -> BranchInfo {
        BranchInfo {
            items: items.iter().map(|&(event_id, version)| VersionItem { event_id, version }).collect(),
            chain: format!("c{}", items.len()),
            fork_event_id: fork,
            fork_version: 1,
            batches: 2,
            events: events.iter().map(ToString::to_string).collect(),
        }
    }

    fn drawn(branches: Vec<BranchInfo>, current: u32) -> String {
        let reply = InspectRunReply {
            workflow_id: "order-17".into(),
            run_id: "r1".into(),
            state: "Running".into(),
            status: "Running".into(),
            branches,
            current,
            why: "branch 2 has the highest last version (2 > 1)".into(),
            ..Default::default()
        };
        let mut out = Vec::new();
        draw(&mut out, &reply).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_tree_of_one_divergence() {
        let lost = branch(&[(12, 1)], 10, &["#11 WorkflowExecutionSignaled", "#12 WorkflowTaskScheduled"]);
        let won = branch(
            &[(10, 1), (15, 2)],
            0,
            &["#10@1 WorkflowTaskCompleted", "#11@2 WorkflowExecutionSignaled"],
        );
        let expected = "\
order-17  run r1  Running (Running)

●  #1..#10 @1
├──○  branch 1  #11..#12 @1  lost  chain c1
│      #11 WorkflowExecutionSignaled
│      #12 WorkflowTaskScheduled
●  branch 2  #11..#15 @2  current  chain c2
   #11@2 WorkflowExecutionSignaled

branch 1: #12@1  (2 batches)
branch 2: #10@1 #15@2  (2 batches)  <- current

why: branch 2 has the highest last version (2 > 1)
";
        assert_eq!(drawn(vec![lost, won], 1), expected);
    }

    #[test]
    fn branches_hang_where_they_left_and_in_that_order() {
        let late = branch(&[(10, 1), (13, 2)], 12, &[]);
        let early = branch(&[(7, 1)], 5, &[]);
        let won = branch(&[(10, 1), (12, 2), (20, 3)], 0, &[]);
        let text = drawn(vec![late, early, won], 2);
        let lines: Vec<_> = text.lines().skip(2).take(5).collect();
        assert_eq!(
            lines,
            [
                "●  #1..#5 @1",
                "├──○  branch 2  #6..#7 @1  lost  chain c1",
                "●  #6..#10 @1, #11..#12 @2",
                "├──○  branch 1  #13 @2  lost  chain c2",
                "●  branch 3  #13..#20 @3  current  chain c3",
            ]
        );
    }

    #[test]
    fn of_a_long_branch_the_end_is_shown() {
        let many: Vec<String> = (1..=20).map(|id| format!("#{id}@1 Event")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let text = drawn(vec![branch(&[(20, 1)], 0, &many)], 0);
        assert!(text.contains("   (8 earlier)\n   #9@1 Event\n"), "{text}");
        assert!(text.contains("#20@1 Event"), "{text}");
    }

    #[test]
    fn a_run_that_never_diverged_has_one_line() {
        let text = drawn(vec![branch(&[(4, 1)], 0, &[])], 0);
        assert!(text.contains("●  branch 1  #1..#4 @1  the only branch"), "{text}");
    }
}
