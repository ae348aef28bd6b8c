//! Processor time and memory of a process, read from `/proc`.

use std::{fs, time::Duration};

use crate::error::{Error, Result};

/// What a process has used and holds.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// User and system time of all its threads, also of those that ended.
    pub cpu: Duration,
    /// Resident memory, in units of 10^6 bytes.
    pub resident_mb: f64,
}

/// Usage of a process.
///
/// # Errors
/// When it is gone or `/proc` reads differently.
pub fn usage(pid: u32) -> Result<Usage> {
    read(&pid.to_string(), pid)
}

/// Usage of this process.
///
/// # Errors
/// When `/proc` reads differently.
pub fn own() -> Result<Usage> {
    read("self", std::process::id())
}

fn read(name: &str, pid: u32) -> Result<Usage> {
    let wrong = |why: String| Error::Process { pid, why };
    let text = |file: &str| {
        fs::read_to_string(format!("/proc/{name}/{file}")).map_err(|error| wrong(format!("{file}: {error}")))
    };
    let ticks = ticks(&text("stat")?).ok_or_else(|| wrong("stat has no utime and stime".to_string()))?;
    let kilobytes = resident(&text("status")?).ok_or_else(|| wrong("status has no VmRSS".to_string()))?;
    let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    Ok(Usage { cpu: Duration::from_secs_f64(seconds), resident_mb: kilobytes as f64 * 1024.0 / 1e6 })
}

/// The second field is the program's name in parentheses and may hold anything, so fields count from the last `)`.
fn ticks(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    let user: u64 = fields.get(11)?.parse().ok()?;
    let system: u64 = fields.get(12)?.parse().ok()?;
    Some(user + system)
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_program_name() {
        let stat = "77 (a) b (c) S 1 77 77 0 -1 4194560 100 0 0 0 12 30 0 0 20 0 4 0 100 1 2 3";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("77 (a S 1"), None);
    }

    #[test]
    fn memory_is_the_resident_line() {
        assert_eq!(resident("Name:\tx\nVmHWM:\t 9 kB\nVmRSS:\t   2048 kB\n"), Some(2048));
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(own().unwrap().resident_mb > 0.1);
    }
}
