//! `antipode link cut|heal|status|hold-run|release-run`.

use std::io::Write;

use antipode_proto::admin::{
    self, LinkStatusReply, SetLinkRequest, link_status_reply::Peer, set_link_request::Action,
};
use serde_json::{Value, json};

use super::{Error, LinkCommand, Output, Target, connect::Connected, output};

pub(super) async fn run(command: LinkCommand, out: &mut dyn Write) -> Result<(), Error> {
    match command {
        LinkCommand::Status { target } => {
            let node = Connected::to(&target).await?;
            let reply = node.answer(node.client().link_status(admin::LinkStatusRequest {})).await?;
            match target.output {
                Output::Json => output::json(out, &status_json(&reply))?,
                Output::Human => status_human(out, &reply)?,
            }
            Ok(())
        }
        LinkCommand::Cut { from, to, both, target } => {
            set(out, &target, requests(Action::Cut, &from, &to, both)).await
        }
        LinkCommand::Heal { from, to, both, target } => {
            set(out, &target, requests(Action::Heal, &from, &to, both)).await
        }
        LinkCommand::HoldRun { run, from, to, target } => {
            set(out, &target, vec![request(Action::HoldRun, &from, &to, run)]).await
        }
        LinkCommand::ReleaseRun { run, from, to, target } => {
            set(out, &target, vec![request(Action::ReleaseRun, &from, &to, run)]).await
        }
    }
}

fn requests(action: Action, from: &str, to: &str, both: bool) -> Vec<SetLinkRequest> {
    let mut requests = vec![request(action, from, to, String::new())];
    if both {
        requests.push(request(action, to, from, String::new()));
    }
    requests
}

fn request(action: Action, from: &str, to: &str, run_id: String) -> SetLinkRequest {
    SetLinkRequest { action: action.into(), from: from.to_string(), to: to.to_string(), run_id }
}

async fn set(out: &mut dyn Write, target: &Target, requests: Vec<SetLinkRequest>) -> Result<(), Error> {
    let node = Connected::to(target).await?;
    let mut cut = Vec::new();
    for request in requests {
        cut = node.answer(node.client().set_link(request)).await?.cut;
    }
    match target.output {
        Output::Json => output::json(out, &json!({ "cut": cut }))?,
        Output::Human if cut.is_empty() => writeln!(out, "no link of this node is cut")?,
        Output::Human => writeln!(out, "cut: {}", cut.join(", "))?,
    }
    Ok(())
}

fn status_human(out: &mut dyn Write, reply: &LinkStatusReply) -> std::io::Result<()> {
    if reply.peers.is_empty() {
        return writeln!(out, "this node has no peers");
    }
    let rows: Vec<Vec<String>> = reply.peers.iter().map(row).collect();
    let heading =
        ["PEER", "ADDRESS", "TO IT", "FROM IT", "NOT PROVED BY IT", "QUARANTINED", "CLOCK", "LAST ERROR"];
    output::table(out, &heading, &rows)
}

fn row(peer: &Peer) -> Vec<String> {
    let direction = |cut, up| match (cut, up) {
        (true, _) => "cut",
        (false, true) => "up",
        (false, false) => "down",
    };
    vec![
        peer.region.clone(),
        peer.address.clone(),
        direction(peer.cut_out, peer.sending).to_string(),
        direction(peer.cut_in, peer.receiving).to_string(),
        peer.lag_entries.to_string(),
        peer.quarantined.to_string(),
        peer.clock_skew_millis.map_or_else(|| "-".to_string(), |millis| format!("{millis:+} ms")),
        peer.last_error.clone(),
    ]
}

fn status_json(reply: &LinkStatusReply) -> Value {
    let peers: Vec<Value> = reply.peers.iter().map(peer_json).collect();
    json!({ "peers": peers })
}

fn peer_json(peer: &Peer) -> Value {
    let shard = |shard: &admin::link_status_reply::ShardPosition| {
        json!({
            "shard": shard.shard,
            "committed": shard.committed,
            "proof_by_peer": shard.proof_by_peer,
            "proof_of_peer": shard.proof_of_peer,
        })
    };
    json!({
        "region": peer.region,
        "address": peer.address,
        "sending": peer.sending,
        "receiving": peer.receiving,
        "cut_out": peer.cut_out,
        "cut_in": peer.cut_in,
        "lag_entries": peer.lag_entries,
        "quarantined": peer.quarantined,
        "clock_skew_millis": peer.clock_skew_millis,
        "last_error": peer.last_error,
        "shards": peer.shards.iter().map(shard).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_are_two_requests() {
        let asked = requests(Action::Cut, "east", "west", true);
        let pairs: Vec<_> =
            asked.iter().map(|request| (request.from.as_str(), request.to.as_str())).collect();
        assert_eq!(pairs, [("east", "west"), ("west", "east")]);
        assert_eq!(requests(Action::Cut, "east", "west", false).len(), 1);
    }

    #[test]
    fn a_cut_direction_is_shown_as_cut_also_while_its_stream_is_up() {
        let peer = Peer {
            region: "west".into(),
            sending: true,
            receiving: true,
            cut_out: true,
            ..Default::default()
        };
        let mut out = Vec::new();
        status_human(&mut out, &LinkStatusReply { peers: vec![peer] }).unwrap();
        let text = String::from_utf8(out).unwrap();
        let cells: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells, ["west", "cut", "up", "0", "0", "-"]);
    }

    /// H2: an operator sees how far a peer's clock is off, and which way.
    #[test]
    fn the_skew_of_a_peer_has_its_sign() {
        let shown = |millis| row(&Peer { clock_skew_millis: millis, ..Default::default() })[6].clone();
        assert_eq!(shown(Some(40_000)), "+40000 ms");
        assert_eq!(shown(Some(-2)), "-2 ms");
        assert_eq!(shown(None), "-");
    }
}
