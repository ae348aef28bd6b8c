fn main() {
    let path = std::env::args().nth(1).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let script = antipode_simulation::scenario::parse(&path, &text).unwrap();
    let outcome = antipode_simulation::scenario::run(&script, true).unwrap();
    for line in &outcome.recording.as_ref().unwrap().lines {
        println!(
            "{:>9.3}ms {:<5} {:<9} {} {}",
            line.at as f64 / 1e6,
            line.region.map_or(String::new(), |r| r.to_string()),
            line.kind.word(),
            line.workflow.clone().unwrap_or_default(),
            line.text
        );
    }
    for f in &outcome.findings {
        println!("{f}");
    }
    println!("{} {} steps {} transitions", outcome.hash, outcome.steps, outcome.transitions);
}
