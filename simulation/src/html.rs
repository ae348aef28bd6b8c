//! The report of `antipode sim replay --html`: one HTML file that needs nothing but a browser. The recording stands in it as
//! JSON; drawing, filters and steps are the scripts beside this file. Here the parts are only joined, and escaped, because
//! workflow ids and sentences come from anywhere.

use crate::trace::Recording;

/// The page, with `{{slot}}` where a part goes.
const PAGE: &str = include_str!("html/report.html");

/// The style, light and dark.
const STYLE: &str = include_str!("html/report.css");

/// The scripts in the order in which they are run: later files use earlier ones.
const SCRIPTS: [&str; 11] = [
    include_str!("html/format.js"),
    include_str!("html/model.js"),
    include_str!("html/axis.js"),
    include_str!("html/glyphs.js"),
    include_str!("html/view.js"),
    include_str!("html/lanes.js"),
    include_str!("html/chart.js"),
    include_str!("html/list.js"),
    include_str!("html/tree.js"),
    include_str!("html/detail.js"),
    include_str!("html/report.js"),
];

/// The whole report: one file without any reference to another.
#[must_use]
pub fn render(recording: &Recording) -> String {
    let data = serde_json::to_string(recording)
        .unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }).to_string());
    fill(PAGE, |slot| match slot {
        "title" => Some(text(&recording.title)),
        // A seed can be greater than what a script's number holds exactly.
        "seed" => Some(recording.seed.to_string()),
        "style" => Some(STYLE.to_owned()),
        "script" => Some(SCRIPTS.concat()),
        "recording" => Some(json(&data)),
        _ => None,
    })
}

/// Puts parts into their slots in a single pass, so that a part may itself contain what looks like a slot.
fn fill(page: &str, part: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(page.len());
    let mut rest = page;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        match after.split_once("}}").and_then(|(slot, behind)| Some((part(slot)?, behind))) {
            Some((part, behind)) => {
                out.push_str(&part);
                rest = behind;
            }
            None => {
                out.push_str("{{");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Text between tags or in an attribute.
fn text(raw: &str) -> String {
    raw.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// JSON between script tags. These characters only occur within JSON's strings, where an escape means the same; without
/// them no string can end the script, or begin a comment in which its end isn't seen.
fn json(raw: &str) -> String {
    raw.replace('&', "\\u0026")
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}
