//! Constants of a query in their written forms: statuses, points in time, lengths of time.

use antipode_core::ids::{Nanos, Timestamp};

/// Names and numbers of `temporal.api.enums.v1.WorkflowExecutionStatus`.
const STATUSES: [(&str, i64); 8] = [
    ("Running", 1),
    ("Completed", 2),
    ("Failed", 3),
    ("Canceled", 4),
    ("Terminated", 5),
    ("ContinuedAsNew", 6),
    ("TimedOut", 7),
    ("Paused", 8),
];

/// By short name or by the name of the enum.
pub(super) fn status_parse(text: &str) -> Option<i64> {
    let plain = |name: &str| name.replace('_', "").to_ascii_uppercase();
    let long = text.strip_prefix("WORKFLOW_EXECUTION_STATUS_").map(plain);
    STATUSES
        .into_iter()
        .find(|(name, _)| *name == text || long.as_deref() == Some(plain(name).as_str()))
        .map(|(_, number)| number)
}

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// RFC 3339, or Unix nanoseconds in digits.
#[must_use]
pub fn time_parse(text: &str) -> Option<Timestamp> {
    if let Ok(nanos) = text.parse() {
        return Some(Timestamp(nanos));
    }
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (clock, zone) = time.split_at(time.find(['Z', 'z', '+', '-'])?);
    let (clock, fraction) = clock.split_once('.').map_or((clock, "0"), |(clock, rest)| (clock, rest));
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let in_range = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !in_range {
        return None;
    }
    let seconds = days_before(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let nanos = seconds.checked_sub(zone_parse(zone)?)?.checked_mul(NANOS_PER_SECOND)?;
    nanos.checked_add(fraction_parse(fraction)?).map(Timestamp)
}

/// RFC 3339 in UTC with nanoseconds.
#[must_use]
pub fn time_format(time: Timestamp) -> String {
    let (seconds, nanos) = (time.0.div_euclid(NANOS_PER_SECOND), time.0.rem_euclid(NANOS_PER_SECOND));
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date_of(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Exactly three numbers of these widths.
fn numbers(text: &str, separator: char, widths: [usize; 3]) -> Option<[i64; 3]> {
    let mut found = [0; 3];
    let mut parts = text.split(separator);
    for (slot, width) in found.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *slot = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

fn fraction_parse(digits: &str) -> Option<i64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Digits beyond nanoseconds are cut, as the API's own types do.
    format!("{digits:0<9.9}").parse().ok()
}

/// Seconds east of UTC.
fn zone_parse(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let [hours, minutes, _] = numbers(&format!("{}:00", zone.get(1..)?), ':', [2, 2, 2])?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date. Years begin in March here, so that the leap day is the last.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - 719_468
}

fn date_of(days: i64) -> (i64, i64, i64) {
    // The quotient is at most one year off, which the comparison mends.
    let mut year = 1970 + days.div_euclid(366);
    while days_before(year + 1, 1, 1) <= days {
        year += 1;
    }
    let mut month = 12;
    while days_before(year, month, 1) > days {
        month -= 1;
    }
    (year, month, days - days_before(year, month, 1) + 1)
}

/// A Go duration ("1h30m", "300ms", "-1.5s"), "HH:MM:SS", or nanoseconds in digits.
#[must_use]
pub fn duration_parse(text: &str) -> Option<Nanos> {
    if let Ok(nanos) = text.parse() {
        return Some(Nanos(nanos));
    }
    if let Some([hours, minutes, seconds]) = clock_parse(text) {
        let seconds = hours.checked_mul(3600)?.checked_add(minutes * 60 + seconds)?;
        return seconds.checked_mul(NANOS_PER_SECOND).map(Nanos);
    }
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_i64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, after) = rest.split_at(digits);
        let unit_length = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_length);
        total = total.checked_add(amount_parse(amount, unit_nanos(unit)?)?)?;
        rest = after;
    }
    Some(Nanos(sign * total))
}

fn clock_parse(text: &str) -> Option<[i64; 3]> {
    let (hours, rest) = text.split_once(':')?;
    let [minutes, seconds, _] = numbers(&format!("{rest}:00"), ':', [2, 2, 2])?;
    let digits = !hours.is_empty() && hours.bytes().all(|byte| byte.is_ascii_digit());
    (digits && minutes < 60 && seconds < 60).then_some([hours.parse().ok()?, minutes, seconds])
}

fn unit_nanos(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => NANOS_PER_SECOND,
        "m" => 60 * NANOS_PER_SECOND,
        "h" => 3600 * NANOS_PER_SECOND,
        "d" => 86_400 * NANOS_PER_SECOND,
        _ => return None,
    })
}

fn amount_parse(amount: &str, unit: i64) -> Option<i64> {
    let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = i128::from(whole) * i128::from(unit);
    let mut scale = i128::from(unit);
    for digit in fraction.chars() {
        scale /= 10;
        nanos += i128::from(digit.to_digit(10)?) * scale;
    }
    i64::try_from(nanos).ok()
}
