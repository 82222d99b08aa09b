//! When the next sync is due: a cron schedule in a time zone, or an interval whose phase comes from the object's UID.
//! Pure: no clock, no I/O. What people may write, and what happens when clocks change: docs/schedules.md.

use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, Weekday};
use jiff::civil::{Date, DateTime, date};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use crate::api::SyncSpec;

/// The shortest time between two syncs, of an interval and of a schedule.
pub const MIN_INTERVAL: SignedDuration = SignedDuration::from_mins(15);
/// The longest: a year.
pub const MAX_INTERVAL: SignedDuration = SignedDuration::from_hours(8760);

/// Where croner does not search past a jump of the clock, the search goes on past at most this many changes of it.
const MAX_CHANGES: usize = 32;
/// Changes of a zone's clock are checked this far ahead: the dates that a rule such as "the last Sunday in March" falls
/// on repeat within 40 years, and no zone lists single changes for more than 70.
const CHANGES_AHEAD: SignedDuration = SignedDuration::from_hours(100 * 366 * 24);
/// `MIN_INTERVAL` in minutes.
const MIN_MINUTES: i64 = MIN_INTERVAL.as_mins();

/// A schedule that was checked.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// Five-field cron expression in a time zone.
    Cron {
        /// The expression.
        cron: Box<Cron>,
        /// Its zone.
        zone: TimeZone,
    },
    /// Every so often, spread over objects.
    Interval {
        /// Seconds between two syncs.
        every: i64,
        /// Seconds by which this object is shifted: from 0 to `every`.
        phase: i64,
    },
}

/// Why there is no next sync.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not a five-field cron expression.
    #[error(
        "schedule \"{schedule}\" can't be read: {why}. Write five fields (minute hour day-of-month month day-of-week), for example \"0 6,18 * * *\""
    )]
    Cron {
        /// As written.
        schedule: String,
        /// What is wrong with it.
        why: String,
    },
    /// No such zone.
    #[error("there is no time zone \"{0}\". Write an IANA name, for example Europe/Berlin")]
    Zone(String),
    /// Not a duration, too short or too long.
    #[error("interval \"{0}\" is not a duration from 15 minutes to 8760 hours. Write for example 6h or 1h30m")]
    Interval(String),
    /// Neither or both.
    #[error("sync needs exactly one of schedule and interval")]
    OneOf,
    /// For example 30 February.
    #[error("schedule \"{0}\" never fires. Write a date that exists, for example \"0 6 1 * *\"")]
    NeverFires(String),
    /// Two runs are closer than [`MIN_INTERVAL`].
    #[error(
        "schedule \"{schedule}\" fires at {first} and again at {second}, and two syncs must be at least 15 minutes apart. Write for example \"*/15 * * * *\", or an interval such as 30m"
    )]
    TooFrequent {
        /// As written.
        schedule: String,
        /// The earlier of the two runs.
        first: String,
        /// The later one.
        second: String,
    },
}

impl Schedule {
    /// Reads `spec.sync`. `uid` spreads intervals; how often a schedule fires is judged from `now` on.
    ///
    /// # Errors
    /// When it can't be read, never fires, or fires more often than every [`MIN_INTERVAL`].
    pub fn parse(sync: &SyncSpec, uid: &str, now: Timestamp) -> Result<Self, ScheduleError> {
        match (&sync.schedule, &sync.interval) {
            (Some(schedule), None) => {
                let (cron, zone) = read(schedule, sync.time_zone.as_deref().unwrap_or("UTC"))?;
                match Pace::of(&cron).runs_too_close(&zone, now) {
                    None => Ok(Self::Cron { cron: Box::new(cron), zone }),
                    Some((first, second)) => {
                        Err(ScheduleError::TooFrequent { schedule: schedule.clone(), first, second })
                    }
                }
            }
            (None, Some(interval)) => {
                let every = duration(interval)
                    .filter(|every| (MIN_INTERVAL..=MAX_INTERVAL).contains(every))
                    .ok_or_else(|| ScheduleError::Interval(interval.clone()))?
                    .as_secs();
                Ok(Self::Interval { every, phase: phase(uid, every) })
            }
            _ => Err(ScheduleError::OneOf),
        }
    }

    /// The first time that it is due strictly after `after`.
    ///
    /// When the clock changes, it matters whether minute and hour are each one number (a fixed time) or not:
    ///
    /// | | the clock skips an hour | the clock repeats an hour |
    /// |---|---|---|
    /// | fixed time in that hour | one run, at the first moment after the gap, if the day still matches | one run, the first time |
    /// | anything else | no runs for what was skipped | a run each time |
    ///
    /// So what runs every few minutes or hours keeps running at that pace, and what runs once a day runs once that day.
    /// Where a zone's clock jumps over more than two hours (a change of the date line), a fixed time on the skipped day
    /// has no run.
    ///
    /// # Errors
    /// When it never fires again: after the year 4999.
    pub fn next_after(&self, after: Timestamp) -> Result<Timestamp, ScheduleError> {
        match self {
            Self::Cron { cron, zone } => {
                let next = |from: Timestamp, inclusive: bool| {
                    let found = cron.find_next_occurrence(&from.to_zoned(zone.clone()), inclusive).ok()?;
                    Some(found.timestamp())
                };
                // Croner gives up at a jump of more than two hours; past it the search goes on.
                let past_a_jump =
                    || zone.following(after).take(MAX_CHANGES).find_map(|change| next(change.timestamp(), true));
                next(after, false).or_else(past_a_jump).ok_or_else(|| ScheduleError::NeverFires(cron.as_str().into()))
            }
            Self::Interval { every, phase } => {
                let since_phase = after.as_second() - phase;
                let next = (since_phase.div_euclid(*every) + 1) * every + phase;
                Timestamp::from_second(next).map_err(|_| ScheduleError::NeverFires(format!("every {every} s")))
            }
        }
    }
}

/// Reads a duration as manifests write it (`6h`, `1h30m`).
pub fn duration(text: &str) -> Option<SignedDuration> {
    text.parse().ok().filter(|duration: &SignedDuration| duration.is_positive())
}

fn phase(uid: &str, every: i64) -> i64 {
    let digest = Sha256::digest(uid.as_bytes());
    let number = digest.iter().take(7).fold(0i64, |number, byte| number * 256 + i64::from(*byte));
    number.rem_euclid(every)
}

/// One of the five fields.
struct Field {
    name: &'static str,
    least: u8,
    most: u8,
    /// Names that stand for numbers, the first for `least`.
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", least: 0, most: 59, names: &[] },
    Field { name: "hour", least: 0, most: 23, names: &[] },
    Field { name: "day-of-month", least: 1, most: 31, names: &[] },
    Field {
        name: "month",
        least: 1,
        most: 12,
        names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    },
    Field { name: "day-of-week", least: 0, most: 7, names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"] },
];

/// The expression in numbers only, or what is wrong with it.
///
/// Croner by itself takes more than cron knows, and some of it by accident: names in any field and run together, lists with
/// nothing in them (it searches them for thousands of years, minute by minute), `L`, `W`, `#` and `+`. What is refused here
/// can be allowed later; the other way round is not possible.
fn in_numbers(schedule: &str) -> Result<String, String> {
    if schedule.trim_start().starts_with('@') {
        return Err("names such as @daily are not taken".into());
    }
    let texts: Vec<&str> = schedule.split_whitespace().collect();
    if texts.len() != FIELDS.len() {
        return Err(format!("it has {} fields", texts.len()));
    }
    let fields: Result<Vec<String>, String> = FIELDS
        .iter()
        .zip(texts)
        .map(|(field, text)| field.in_numbers(text).map_err(|why| format!("{} \"{text}\": {why}", field.name)))
        .collect();
    Ok(fields?.join(" "))
}

impl Field {
    fn in_numbers(&self, text: &str) -> Result<String, String> {
        let parts: Vec<String> = text.split(',').map(|part| self.part(part)).collect::<Result<_, _>>()?;
        if parts.len() > 1 && parts.iter().any(|part| part == "*") {
            return Err("* stands alone".into());
        }
        Ok(parts.join(","))
    }

    /// One part of a list: `*`, a value or a range, and a step.
    fn part(&self, part: &str) -> Result<String, String> {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let by = match step.map(|step| number(step).filter(|step| (1..=self.most).contains(step))) {
            None => 1,
            Some(Some(by)) => by,
            Some(None) => return Err(format!("a step is a number from 1 to {}", self.most)),
        };
        let stepped = |range: String| if by == 1 { range } else { format!("{range}/{by}") };
        match range.split_once('-') {
            None if matches!(range, "*" | "?") => Ok(stepped("*".into())),
            None => {
                let value = self.value(range)?;
                match step {
                    None => Ok(value.to_string()),
                    Some(_) => Err(format!("a step needs a range or *, for example {value}-{}/{by}", self.most)),
                }
            }
            Some((first, last)) => {
                let first = self.value(first)?;
                // A week that ends with its Sunday.
                let last = if last.eq_ignore_ascii_case("SUN") { self.value(last)? + 7 } else { self.value(last)? };
                if first > last {
                    return Err("the range ends before it begins; write two, separated by a comma".into());
                }
                // What is one number counts as one.
                if last - first < by { Ok(first.to_string()) } else { Ok(stepped(format!("{first}-{last}"))) }
            }
        }
    }

    fn value(&self, text: &str) -> Result<u8, String> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let named = named.and_then(|index| u8::try_from(index).ok()).map(|index| index + self.least);
        named.or_else(|| number(text)).filter(|value| (self.least..=self.most).contains(value)).ok_or_else(|| {
            let names = match (self.names.first(), self.names.last()) {
                (Some(first), Some(last)) => format!(" or a name from {first} to {last}"),
                _ => String::new(),
            };
            format!("expected a number from {} to {}{names}", self.least, self.most)
        })
    }
}

fn number(text: &str) -> Option<u8> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A cron expression and its zone.
fn read(schedule: &str, zone: &str) -> Result<(Cron, TimeZone), ScheduleError> {
    let wrong = |why| ScheduleError::Cron { schedule: schedule.into(), why };
    let cron = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build()
        .parse(&in_numbers(schedule).map_err(wrong)?)
        .map_err(|error| wrong(error.to_string()))?;
    if !has_a_date(&cron) {
        return Err(ScheduleError::NeverFires(schedule.into()));
    }
    let zone = TimeZone::get(zone).map_err(|_| ScheduleError::Zone(zone.into()))?;
    Ok((cron, zone))
}

/// Whether a date exists that it names: 29 February does, 30 February does not. A named day of the week always comes.
fn has_a_date(cron: &Cron) -> bool {
    let pattern = &cron.pattern;
    let first_day = pattern.days.values().first().copied().unwrap_or(u16::MAX);
    let longest = |month: u16| match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    !pattern.is_dow_wildcard() || pattern.months.values().into_iter().any(|month| first_day <= longest(month))
}

/// How close two runs of a cron expression come to each other.
struct Pace<'a> {
    cron: &'a Cron,
    /// Minutes of the day at which it fires, in order.
    minutes: Vec<i64>,
}

impl<'a> Pace<'a> {
    fn of(cron: &'a Cron) -> Self {
        let minutes = cron.pattern.minutes.values();
        let in_hour = |hour: u16| minutes.iter().map(move |minute| i64::from(hour) * 60 + i64::from(*minute));
        Self { minutes: cron.pattern.hours.values().into_iter().flat_map(in_hour).collect(), cron }
    }

    /// Two runs that are less than [`MIN_INTERVAL`] apart, if there are any: on one day, over midnight, or where the zone
    /// changes its clock.
    fn runs_too_close(&self, zone: &TimeZone, now: Timestamp) -> Option<(String, String)> {
        self.on_one_day().or_else(|| self.over_midnight()).or_else(|| self.over_a_change_of_the_clock(zone, now))
    }

    fn on_one_day(&self) -> Option<(String, String)> {
        let close = self.minutes.iter().zip(self.minutes.iter().skip(1)).find(|(a, b)| *b - *a < MIN_MINUTES);
        close.map(|(a, b)| (time_of_day(*a), time_of_day(*b)))
    }

    fn over_midnight(&self) -> Option<(String, String)> {
        let (first, last) = (*self.minutes.first()?, *self.minutes.last()?);
        // In 28 years every date falls on every day of the week.
        let mut days = date(2001, 1, 1).series(jiff::ToSpan::days(1)).take_while(|day| day.year() < 2030);
        let mut is_day_and_next = || {
            let mut before = false;
            days.any(|day| std::mem::replace(&mut before, self.is_day(day)) && before)
        };
        let is_close = 24 * 60 - last + first < MIN_MINUTES && is_day_and_next();
        is_close.then(|| (time_of_day(last), time_of_day(first)))
    }

    fn over_a_change_of_the_clock(&self, zone: &TimeZone, now: Timestamp) -> Option<(String, String)> {
        // A fixed time runs once a day. And since clocks change by a multiple of 15 minutes, runs at the same minute of each
        // quarter of an hour stay 15 minutes apart.
        let same_in_quarter = self.minutes.iter().all(|minute| (minute - self.minutes[0]) % MIN_MINUTES == 0);
        if self.minutes.len() < 2 || same_in_quarter {
            return None;
        }
        let until = now.saturating_add(CHANGES_AHEAD).unwrap_or(Timestamp::MAX);
        let mut offset = zone.to_offset(now);
        for change in zone.following(now).take_while(|change| change.timestamp() < until) {
            let at = change.timestamp();
            let (old, new) = (offset.to_datetime(at), change.offset().to_datetime(at));
            if old == new {
                continue;
            }
            offset = change.offset();
            let minute = SignedDuration::from_mins;
            let before = (1..MIN_MINUTES).find(|by| self.is_run(old.saturating_sub(minute(*by))));
            let after = (0..MIN_MINUTES).find(|by| self.is_run(new.saturating_add(minute(*by))));
            if let (Some(before), Some(after)) = (before, after)
                && before + after < MIN_MINUTES
            {
                let shown = |time: Timestamp| time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M%:z").to_string();
                return Some((shown(at - minute(before)), shown(at + minute(after))));
            }
        }
        None
    }

    fn is_run(&self, time: DateTime) -> bool {
        let minute = i64::from(time.hour()) * 60 + i64::from(time.minute());
        self.minutes.binary_search(&minute).is_ok() && self.is_day(time.date())
    }

    fn is_day(&self, day: Date) -> bool {
        let (year, month, number) =
            (day.year().into(), day.month().unsigned_abs().into(), day.day().unsigned_abs().into());
        let weekday = Weekday::from_days_from_sunday(day.weekday().to_sunday_zero_offset().unsigned_abs().into());
        let pattern = &self.cron.pattern;
        matches!(pattern.month_match(month), Ok(true))
            && matches!(pattern.day_match(year, month, number, weekday), Ok(true))
    }
}

fn time_of_day(minute: i64) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::DateTime;
    use jiff::tz::AmbiguousOffset;
    use proptest::prelude::*;
    use proptest::sample::select;
    use std::collections::BTreeSet;
    use std::fmt;
    use std::time::{Duration, Instant};

    /// The page that people read is what is tested.
    const PAGE: &str = include_str!("../docs/schedules.md");

    fn cron(schedule: &str, zone: &str) -> Result<Schedule, ScheduleError> {
        let sync = SyncSpec { schedule: Some(schedule.into()), time_zone: Some(zone.into()), interval: None };
        Schedule::parse(&sync, "uid", at("2026-01-01T00:00:00Z"))
    }

    /// However often it fires.
    fn as_often_as_it_says(schedule: &str, zone: &str) -> Result<Schedule, ScheduleError> {
        read(schedule, zone).map(|(cron, zone)| Schedule::Cron { cron: Box::new(cron), zone })
    }

    fn interval(text: &str, uid: &str) -> Result<Schedule, ScheduleError> {
        let sync = SyncSpec { schedule: None, time_zone: None, interval: Some(text.into()) };
        Schedule::parse(&sync, uid, Timestamp::UNIX_EPOCH)
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn runs(schedule: &Schedule, after: Timestamp, count: usize) -> Vec<Timestamp> {
        let next = |after: &Timestamp| schedule.next_after(*after).ok();
        std::iter::successors(next(&after), next).take(count).collect()
    }

    /// The rows of the page's table under a heading, and of each cell what is written `like this`.
    fn rows(heading: &str) -> Vec<Vec<Vec<&'static str>>> {
        let (_, section) = PAGE.split_once(&format!("\n## {heading}\n")).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let codes = |cell: &'static str| cell.split('`').skip(1).step_by(2).collect();
        let row = |line: &'static str| line.trim_matches('|').split('|').map(codes).collect();
        section.lines().filter(|line| line.starts_with('|')).skip(2).map(row).collect()
    }

    #[test]
    fn what_the_page_says_of_writing_schedules_holds() {
        let rows = rows("What you can write");
        assert!(rows.len() >= 9, "{rows:?}");
        for row in rows {
            let (written, same) = (row[0][0], row[2][0]);
            let (first, second) = (cron(written, "UTC").unwrap(), cron(same, "UTC").unwrap());
            let after = at("2026-01-01T00:00:00Z");
            assert_eq!(runs(&first, after, 500), runs(&second, after, 500), "{written} and {same}");
            assert_eq!(runs(&first, after, 500).len(), 500, "{written}");
        }
    }

    #[test]
    fn what_the_page_says_is_refused_is_refused_with_what_to_write() {
        let rows = rows("What is refused");
        assert!(rows.len() >= 9, "{rows:?}");
        for row in rows {
            let refused = &row[0];
            assert!(!refused.is_empty(), "{row:?}");
            for written in refused {
                let error = cron(written, "UTC").unwrap_err().to_string();
                assert!(error.contains("for example"), "{error}");
                assert!(error.contains(row[1][0]), "{error} lacks {}", row[1][0]);
            }
        }
    }

    #[test]
    fn what_the_page_says_of_runs_that_are_too_close_is_in_the_message() {
        let rows = rows("How often");
        assert!(rows.len() >= 6, "{rows:?}");
        for row in rows {
            let ([schedule, zone], [first, second]) = (&row[1][..], &row[2][..]) else { panic!("{row:?}") };
            let error = cron(schedule, zone).unwrap_err().to_string();
            assert!(error.contains(&format!("fires at {first} and again at {second}, and")), "{error}");
            assert!(error.contains("Write for example \"*/15 * * * *\""), "{error}");
        }
    }

    #[test]
    fn what_the_page_says_happens_when_the_clock_changes_happens() {
        let rows = rows("When the clock changes");
        assert!(rows.len() >= 14, "{rows:?}");
        for row in rows {
            let [schedule, zone] = row[1][..] else { panic!("{row:?}") };
            let parsed = cron(schedule, zone).unwrap();
            let zone = TimeZone::get(zone).unwrap();
            let expected: Vec<&str> = row[2].clone();
            assert!(expected.len() > 2, "{row:?}");
            let first = at(&expected[0].replace(' ', "T"));
            let fired = runs(&parsed, first - SignedDuration::from_secs(1), expected.len());
            let fired: Vec<String> =
                fired.iter().map(|at| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M%:z").to_string()).collect();
            assert_eq!(fired, expected, "{row:?}");
        }
    }

    #[test]
    fn however_one_number_is_written_the_time_is_fixed() {
        // 02:30 comes twice on this day.
        let day = at("2026-10-24T22:00:00Z");
        for schedule in ["30 2 25 * *", "30-30 2 25 * *", "30-45/20 02 25 * *", "30 2-3/2 25 * *", "30,30 2 25 * *"] {
            let fired = runs(&cron(schedule, "Europe/Berlin").unwrap(), day, 2);
            assert_eq!(fired, [at("2026-10-25T00:30:00Z"), at("2026-11-25T01:30:00Z")], "{schedule}");
        }
        let several = runs(&cron("30-50/20 2 25 * *", "Europe/Berlin").unwrap(), day, 2);
        assert_eq!(several, [at("2026-10-25T00:30:00Z"), at("2026-10-25T00:50:00Z")]);
    }

    #[test]
    fn a_schedule_follows_its_zone() {
        for (schedule, zone, after, next) in [
            ("0 6,18 * * *", "UTC", "2026-11-21T05:59:59Z", "2026-11-21T06:00:00Z"),
            ("0 6,18 * * *", "UTC", "2026-11-21T06:00:00Z", "2026-11-21T18:00:00Z"),
            ("0 6 * * *", "Europe/Berlin", "2026-11-21T00:00:00Z", "2026-11-21T05:00:00Z"),
            ("0 6 * * *", "Europe/Berlin", "2026-07-01T00:00:00Z", "2026-07-01T04:00:00Z"),
            ("30 9 * * MON-FRI", "America/New_York", "2026-11-20T15:00:00Z", "2026-11-23T14:30:00Z"),
            ("0 6 * * *", "Asia/Kolkata", "2026-11-21T00:30:00Z", "2026-11-22T00:30:00Z"),
            ("0 6 * * *", "UTC", "2026-11-21T05:59:59.999Z", "2026-11-21T06:00:00Z"),
            ("0 6 * * *", "UTC", "2026-11-21T06:00:00.001Z", "2026-11-22T06:00:00Z"),
        ] {
            assert_eq!(cron(schedule, zone).unwrap().next_after(at(after)), Ok(at(next)), "{schedule} {zone} {after}");
        }
        let without = SyncSpec { schedule: Some("0 6 * * *".into()), time_zone: None, interval: None };
        let next =
            Schedule::parse(&without, "uid", Timestamp::UNIX_EPOCH).unwrap().next_after(at("2026-07-01T00:00:00Z"));
        assert_eq!(next, Ok(at("2026-07-01T06:00:00Z")), "without a zone: UTC");
        assert_eq!(
            cron("0 6 * * *", "Mars/Olympus").unwrap_err().to_string(),
            "there is no time zone \"Mars/Olympus\". Write an IANA name, for example Europe/Berlin"
        );
    }

    #[test]
    fn errors_name_the_field_and_what_is_expected_there() {
        for (schedule, why) in [
            ("60 * * * *", "minute \"60\": expected a number from 0 to 59"),
            ("0 25 * * *", "hour \"25\": expected a number from 0 to 23"),
            ("0 6 0 * *", "day-of-month \"0\": expected a number from 1 to 31"),
            ("0 6 * 13 *", "month \"13\": expected a number from 1 to 12 or a name from JAN to DEC"),
            ("0 6 * * 8", "day-of-week \"8\": expected a number from 0 to 7 or a name from SUN to SAT"),
            ("0 6-25 * * *", "hour \"6-25\": expected a number from 0 to 23"),
            ("*/60 * * * *", "minute \"*/60\": a step is a number from 1 to 59"),
            ("*/x * * * *", "minute \"*/x\": a step is a number from 1 to 59"),
            ("5/15 * * * *", "minute \"5/15\": a step needs a range or *, for example 5-59/15"),
            ("0 22-2 * * *", "hour \"22-2\": the range ends before it begins; write two, separated by a comma"),
            ("0 *,6 * * *", "hour \"*,6\": * stands alone"),
            ("* * * *", "it has 4 fields"),
            (" @daily", "names such as @daily are not taken"),
        ] {
            let error = ScheduleError::Cron { schedule: schedule.into(), why: why.into() };
            assert_eq!(cron(schedule, "UTC").unwrap_err(), error);
        }
    }

    #[test]
    fn a_date_that_never_comes_never_fires() {
        for (schedule, fires) in [
            ("0 0 30 2 *", false),
            ("0 0 31 2,4,6,9,11 *", false),
            ("0 0 31 4 *", false),
            ("0 0 31 6 *", false),
            ("0 0 31 9 *", false),
            ("0 0 31 11 *", false),
            ("0 0 30-31 2 *", false),
            ("0 0 31 JUN ?", false),
            ("0 0 29 2 *", true),
            ("0 0 29-31 2 *", true),
            ("0 0 30 4 *", true),
            ("0 0 31 4-5 *", true),
            ("0 0 31 1 *", true),
            // Day of month or day of week: the Mondays come.
            ("0 0 30 2 MON", true),
        ] {
            let parsed = cron(schedule, "UTC");
            if fires {
                assert!(parsed.unwrap().next_after(at("2096-03-01T00:00:00Z")).is_ok(), "{schedule}");
            } else {
                assert_eq!(parsed.unwrap_err(), ScheduleError::NeverFires(schedule.into()));
            }
        }
    }

    #[test]
    fn a_leap_day_comes_even_after_a_year_without_one() {
        let leap = cron("0 0 29 2 *", "UTC").unwrap();
        let expected = [at("2104-02-29T00:00:00Z"), at("2108-02-29T00:00:00Z")];
        assert_eq!(runs(&leap, at("2096-03-01T00:00:00Z"), 2), expected);
    }

    #[test]
    fn a_day_that_the_zone_skips_has_no_run_and_ends_nothing() {
        // Samoa went from 29 to 31 December 2011 in one step.
        for (schedule, after, next) in [
            ("0 12 * * *", "2011-12-29T22:00:00Z", "2011-12-30T22:00:00Z"),
            // With changes of the clock in between.
            ("0 12 30 12 *", "2011-01-05T00:00:00Z", "2012-12-29T22:00:00Z"),
            // The first moment after the jump is no exception.
            ("0 0 30,31 12 *", "2011-12-29T22:00:00Z", "2011-12-30T10:00:00Z"),
        ] {
            let next_after = cron(schedule, "Pacific/Apia").unwrap().next_after(at(after));
            assert_eq!(next_after, Ok(at(next)), "{schedule}");
        }
    }

    #[test]
    fn the_slowest_expressions_are_quick() {
        for (schedule, zone, after) in [
            ("0 0 29 2 *", "America/New_York", "2096-03-01T00:00:00Z"),
            ("59 23 29 2 *", "Australia/Lord_Howe", "2196-03-01T00:00:00Z"),
            ("0 0 29 2 1", "UTC", "2096-03-01T00:00:00Z"),
            ("0 0 30 2 *", "UTC", "2026-03-01T00:00:00Z"),
            ("0 12 30 12 *", "Pacific/Apia", "2000-01-01T00:00:00Z"),
            ("* * * * *", "Europe/Berlin", "9999-01-01T00:00:00Z"),
            (", * * * *", "UTC", "2026-03-01T00:00:00Z"),
            ("0 , * * *", "UTC", "2026-03-01T00:00:00Z"),
            ("0 0 * * L", "UTC", "2026-03-01T00:00:00Z"),
            // No run is too close, for which every midnight and every change of the clock is looked at.
            ("0,59 0,23 29 * *", "America/New_York", "2026-03-01T00:00:00Z"),
            (&"1,".repeat(100_000), "UTC", "2026-03-01T00:00:00Z"),
        ] {
            let began = Instant::now();
            let _ = as_often_as_it_says(schedule, zone).map(|parsed| parsed.next_after(at(after)));
            let _ = cron(schedule, zone);
            assert!(began.elapsed() < Duration::from_secs(1), "{schedule:.20} took {:?}", began.elapsed());
        }
    }

    #[test]
    fn an_interval_out_of_its_bounds_is_refused() {
        for text in ["14m59s", "0s", "-1h", "-15m", "soon", "", "8760h1s", "2562047788015215h"] {
            let error = interval(text, "uid").unwrap_err();
            assert_eq!(error, ScheduleError::Interval(text.into()));
            assert!(error.to_string().contains("Write for example 6h"), "{error}");
        }
        assert!(interval("15m", "uid").is_ok());
        assert!(interval("8760h", "uid").is_ok());
    }

    #[test]
    fn exactly_one_of_schedule_and_interval_is_needed() {
        let neither = SyncSpec { schedule: None, time_zone: None, interval: None };
        let both = SyncSpec { schedule: Some("0 6 * * *".into()), time_zone: None, interval: Some("6h".into()) };
        for sync in [neither, both] {
            assert_eq!(Schedule::parse(&sync, "uid", Timestamp::UNIX_EPOCH).unwrap_err(), ScheduleError::OneOf);
        }
    }

    #[test]
    fn a_thousand_objects_do_not_fire_together() {
        let after = at("2026-11-21T00:00:00Z");
        let mut per_minute = [0; 360];
        for n in 0..1000 {
            let uid = format!("5f9ad6ad-97a4-4ca1-8d2c-0e6d4e2f{n:04x}");
            let next = interval("6h", &uid).unwrap().next_after(after).unwrap();
            per_minute[usize::try_from((next.as_second() - after.as_second() - 1) / 60).unwrap()] += 1;
        }
        // Fewer than three on average; each hour has about its sixth.
        assert!(per_minute.iter().max().unwrap() <= &12, "{per_minute:?}");
        for hour in per_minute.chunks(60) {
            let in_hour: i32 = hour.iter().sum();
            assert!((120..=215).contains(&in_hour), "{per_minute:?}");
        }
    }

    #[test]
    fn an_interval_keeps_its_phase_across_restarts_and_versions() {
        // Written down: a change of the phase would move all syncs of everybody at an upgrade.
        let schedule = interval("6h", "5f9ad6ad-97a4-4ca1-8d2c-0e6d4e2f7b10").unwrap();
        let expected = [at("2026-11-21T04:53:48Z"), at("2026-11-21T10:53:48Z")];
        assert_eq!(runs(&schedule, at("2026-11-21T00:00:00Z"), 2), expected);
        assert_eq!(schedule.next_after(expected[0] - SignedDuration::from_nanos(1)), Ok(expected[0]));
    }

    #[test]
    fn two_runs_are_never_less_than_fifteen_minutes_apart() {
        let day = ["00:00", "00:01"];
        for (schedule, zone, runs) in [
            ("* * * * *", "UTC", Some(day)),
            ("*/14 * * * *", "UTC", Some(["00:00", "00:14"])),
            ("*/15 * * * *", "Europe/Berlin", None),
            ("*/25 * * * *", "UTC", Some(["00:50", "01:00"])),
            // No two hours follow each other, and the clock is never changed.
            ("*/25 1-23/2 * * *", "UTC", None),
            ("0,59 0,23 * * *", "UTC", Some(["23:59", "00:00"])),
            // Which days follow each other.
            ("0,59 0,23 1 * *", "UTC", None),
            ("0,59 0,23 1,31 4 *", "UTC", None),
            ("0,59 0,23 1,31 * *", "UTC", Some(["23:59", "00:00"])),
            ("0,59 0,23 28 2 *", "UTC", None),
            ("0,59 0,23 29,1 2,3 *", "UTC", Some(["23:59", "00:00"])),
            ("0,59 0,23 * * MON,WED,FRI", "UTC", None),
            ("0,59 0,23 * * SUN,SAT", "UTC", Some(["23:59", "00:00"])),
            ("0,59 0,23 13 * FRI", "UTC", Some(["23:59", "00:00"])),
            ("0,59 0,23 31,1 12,1 *", "UTC", Some(["23:59", "00:00"])),
            // 60 minutes of the clock, one of which an hour of summer time takes away.
            ("5,50 1,3 * * *", "Europe/Berlin", None),
            ("4,50 1,3 * * *", "Asia/Kolkata", None),
            ("4,50 1,3 * * *", "Europe/Berlin", Some(["2026-03-29 01:50+01:00", "2026-03-29 03:04+02:00"])),
            // In 2026 it is the 29th; the 28th comes as the last Sunday of a March in 2027.
            ("4,50 1,3 28 3 *", "Europe/Berlin", Some(["2027-03-28 01:50+01:00", "2027-03-28 03:04+02:00"])),
            ("4,50 1,3 24 3 *", "Europe/Berlin", None),
            ("4,50 1,3 * * MON-SAT", "Europe/Berlin", None),
            ("5,55 2 * * *", "Europe/Berlin", Some(["2026-10-25 02:55+02:00", "2026-10-25 02:05+01:00"])),
            ("5,49 2 * * *", "Europe/Berlin", None),
            ("32,59 1 * * *", "Australia/Lord_Howe", Some(["2026-04-05 01:59+11:00", "2026-04-05 01:32+10:30"])),
            ("59 1 * * *", "Australia/Lord_Howe", None),
            // A fixed time that the clock skips runs after the gap, and once that day.
            ("30 2 * * *", "Europe/Berlin", None),
            // For the time of Ramadan, whose dates a database lists one by one.
            ("50,4 1,3 * * *", "Africa/Casablanca", Some(["2026-03-22 01:50+00:00", "2026-03-22 03:04+01:00"])),
        ] {
            let refused = match cron(schedule, zone) {
                Ok(_) => None,
                Err(ScheduleError::TooFrequent { first, second, .. }) => Some([first, second]),
                Err(error) => panic!("{schedule}: {error}"),
            };
            let expected = runs.map(|runs| runs.map(str::to_owned));
            assert_eq!(refused, expected, "{schedule} {zone}");
        }
        // What lies in the past does not count.
        let sync = |schedule: &str, zone: &str| SyncSpec {
            schedule: Some(schedule.into()),
            time_zone: Some(zone.into()),
            interval: None,
        };
        let sao_paulo = sync("4,50 1,23 * * *", "America/Sao_Paulo");
        for (now, is_taken) in [("2010-01-01T00:00:00Z", false), ("2026-01-01T00:00:00Z", true)] {
            assert_eq!(Schedule::parse(&sao_paulo, "uid", at(now)).is_ok(), is_taken, "{now}");
        }
    }

    /// Why a schedule of one minute in each quarter of an hour is accepted without a search.
    #[test]
    fn clocks_change_by_a_multiple_of_fifteen_minutes() {
        let now = at("2026-01-01T00:00:00Z");
        let mut changes = 0;
        for name in jiff::tz::db().available() {
            let zone = TimeZone::get(name.as_str()).unwrap();
            let mut offset = zone.to_offset(now);
            for change in zone.following(now).take(200) {
                let by = change.offset().seconds() - offset.seconds();
                let at = change.timestamp();
                assert!(by % 900 == 0 && (by == 0 || at.as_second() % 60 == 0), "{name:?} by {by} s at {at}");
                offset = change.offset();
                changes += 1;
            }
        }
        assert!(changes > 10_000, "{changes}");
    }

    /// A field as it is written, and the numbers that it stands for.
    #[derive(Clone)]
    struct Written {
        text: String,
        values: BTreeSet<i8>,
    }

    impl fmt::Debug for Written {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str(&self.text)
        }
    }

    impl Written {
        fn has(&self, value: i8) -> bool {
            self.values.contains(&value)
        }
    }

    fn field(least: i8, most: i8) -> impl Strategy<Value = Written> {
        let stepped =
            move |first: i8, last: i8, step: i8| (first..=last).step_by(usize::try_from(step).unwrap()).collect();
        prop_oneof![
            2 => Just(Written { text: "*".into(), values: (least..=most).collect() }),
            4 => (least..=most).prop_map(|one| Written { text: one.to_string(), values: [one].into() }),
            1 => (1..=most).prop_map(move |step| Written { text: format!("*/{step}"), values: stepped(least, most, step) }),
            1 => (least..=most, least..=most).prop_map(|(a, b)| Written { text: format!("{a},{b}"), values: [a, b].into() }),
            1 => (least..=most, least..=most, 1..=most).prop_map(move |(a, b, step)| {
                let (first, last) = (a.min(b), a.max(b));
                Written { text: format!("{first}-{last}/{step}"), values: stepped(first, last, step) }
            }),
        ]
    }

    /// The rules of the page, minute by minute.
    struct Rules {
        fields: [Written; 5],
        zone: TimeZone,
    }

    impl Rules {
        fn is_day(&self, time: DateTime) -> bool {
            let [_, _, day, month, weekday] = &self.fields;
            let is_star = |field: &Written| matches!(field.text.as_str(), "*" | "*/1");
            let days = (day.has(time.day()), weekday.has(time.weekday().to_sunday_zero_offset()));
            month.has(time.month())
                && match (is_star(day), is_star(weekday)) {
                    (false, false) => days.0 || days.1,
                    _ => days.0 && days.1,
                }
        }

        fn is_time(&self, time: DateTime) -> bool {
            self.fields[0].has(time.minute()) && self.fields[1].has(time.hour())
        }

        fn is_fixed(&self) -> bool {
            self.fields[..2].iter().all(|field| field.values.len() == 1)
        }

        fn fires_at(&self, at: Timestamp) -> bool {
            let minute = SignedDuration::from_mins(1);
            let now = at.to_zoned(self.zone.clone()).datetime();
            let second_time = || {
                let ambiguous = self.zone.to_ambiguous_zoned(now);
                matches!(ambiguous.offset(), AmbiguousOffset::Fold { .. })
                    && ambiguous.later().unwrap().timestamp() == at
            };
            if self.is_time(now) && self.is_day(now) && !(self.is_fixed() && second_time()) {
                return true;
            }
            let mut skipped = (at - minute).to_zoned(self.zone.clone()).datetime() + minute;
            while skipped < now {
                if self.is_fixed() && self.is_time(skipped) && self.is_day(skipped) && self.is_day(now) {
                    return true;
                }
                skipped += minute;
            }
            false
        }

        fn first(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
            let first = Timestamp::from_second((after.as_second().div_euclid(60) + 1) * 60).unwrap();
            std::iter::successors(Some(first), |at| Some(*at + SignedDuration::from_mins(1)))
                .take_while(|at| *at <= until)
                .find(|at| self.fires_at(*at))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn around_changes_of_the_clock_runs_are_those_of_the_rules(
            minute in field(0, 59), hour in field(0, 23), day in field(1, 31), month in field(1, 12), weekday in field(0, 6),
            (zone, change) in select(vec![
                ("Europe/Berlin", "2026-03-29T01:00:00Z"),
                ("Europe/Berlin", "2026-10-25T01:00:00Z"),
                ("America/New_York", "2026-03-08T07:00:00Z"),
                ("America/New_York", "2026-11-01T06:00:00Z"),
                ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
                ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
                ("America/Sao_Paulo", "2018-11-04T03:00:00Z"),
                ("America/Sao_Paulo", "2019-02-17T02:00:00Z"),
                ("America/Nuuk", "2027-03-28T01:00:00Z"),
                ("America/Nuuk", "2027-10-31T01:00:00Z"),
                ("Asia/Kolkata", "2026-03-01T00:00:00Z"),
            ]),
            before in -10_000i64..80_000,
        ) {
            let fields = [minute, hour, day, month, weekday];
            let text = fields.each_ref().map(|field| field.text.as_str()).join(" ");
            let after = at(change) - SignedDuration::from_secs(before);
            let until = after + SignedDuration::from_hours(30);
            match as_often_as_it_says(&text, zone) {
                Ok(schedule) => {
                    let rules = Rules { fields, zone: TimeZone::get(zone).unwrap() };
                    let next = schedule.next_after(after).unwrap();
                    let expected = rules.first(after, until);
                    prop_assert_eq!(Some(next).filter(|next| *next <= until), expected, "{} {} {}", text, zone, after);
                }
                Err(error) => prop_assert_eq!(error, ScheduleError::NeverFires(text)),
            }
        }

        /// Judged in two ways: from what the fields say, and from the runs themselves.
        #[test]
        fn a_schedule_is_refused_exactly_if_two_runs_are_too_close(
            minute in prop_oneof![
                (0i8..=59, 0i8..=59).prop_map(|(a, b)| format!("{a},{b}")),
                (1i8..=59).prop_map(|step| format!("*/{step}")),
                (0i8..=59).prop_map(|one| one.to_string()),
                // Close where a clock changes.
                select(vec!["4,50".into(), "5,55".into(), "32,59".to_owned()]),
            ],
            hour in prop_oneof![
                (0i8..=23, 0i8..=23).prop_map(|(a, b)| format!("{a},{b}")),
                (0i8..=3).prop_map(|one| one.to_string()),
                select(vec!["*".into(), "0,23".into(), "1,3".into(), "1-3".to_owned()]),
            ],
            days in select(vec!["* * *", "25-31 3,10 *", "* * SUN", "29 2,3 SAT", "1,31 * *", "28,1 2,3 *", "13 * FRI"]),
            zone in select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Nuuk", "Africa/Casablanca"]),
            now in 1_767_225_600i64..2_398_377_600,
        ) {
            let now = Timestamp::from_second(now).unwrap();
            let text = format!("{minute} {hour} {days}");
            let sync = SyncSpec { schedule: Some(text.clone()), time_zone: Some(zone.into()), interval: None };
            let schedule = as_often_as_it_says(&text, zone).unwrap();
            let too_close = |runs: &[Timestamp]| runs.windows(2).any(|two| two[1].duration_since(two[0]) < MIN_INTERVAL);
            match Schedule::parse(&sync, "uid", now) {
                Ok(_) => {
                    prop_assert!(!too_close(&runs(&schedule, now, 300)), "{} {} from {}", text, zone, now);
                    let zone = TimeZone::get(zone).unwrap();
                    for change in zone.following(now).take(30) {
                        let before = change.timestamp() - SignedDuration::from_mins(16);
                        prop_assert!(!too_close(&runs(&schedule, before, 4)), "{} at {}", text, change.timestamp());
                    }
                }
                Err(ScheduleError::TooFrequent { .. }) => {
                    // Those of the next forty years.
                    let mut last = None;
                    let next = |after: &Timestamp| schedule.next_after(*after).ok();
                    let found = std::iter::successors(next(&now), next)
                        .take_while(|run| *run < now + SignedDuration::from_hours(41 * 366 * 24))
                        .any(|run| last.replace(run).is_some_and(|last| run.duration_since(last) < MIN_INTERVAL));
                    prop_assert!(found, "{} {} from {}", text, zone, now);
                }
                Err(error) => prop_assert!(false, "{}", error),
            }
        }

        #[test]
        fn an_interval_comes_within_its_length_and_does_not_drift(
            after in 0i64..4_000_000_000, minutes in 15i64..=525_600, uid in "[a-f0-9]{8}"
        ) {
            let schedule = interval(&format!("{minutes}m"), &uid).unwrap();
            let after = Timestamp::from_second(after).unwrap();
            let mut last = schedule.next_after(after).unwrap();
            prop_assert!(last > after && last.as_second() - after.as_second() <= minutes * 60);
            for next in runs(&schedule, last, 20) {
                prop_assert_eq!(next.as_second() - last.as_second(), minutes * 60);
                last = next;
            }
            // Read again, as after a restart.
            prop_assert_eq!(interval(&format!("{minutes}m"), &uid).unwrap().next_after(after), schedule.next_after(after));
        }

        #[test]
        fn no_time_is_too_early_or_too_late(
            second in prop_oneof![
                Timestamp::MIN.as_second()..Timestamp::MIN.as_second() + 100_000_000,
                Timestamp::MAX.as_second() - 100_000_000..=Timestamp::MAX.as_second(),
                Timestamp::MIN.as_second()..=Timestamp::MAX.as_second(),
            ],
            schedule in select(vec![
                cron("0 0 29 2 *", "Pacific/Apia"), as_often_as_it_says("* * * * *", "Asia/Kolkata"),
                cron("59 23 * * *", "America/Nuuk"),
                interval("15m", "a"), interval("8760h", "b"),
            ]),
        ) {
            let after = Timestamp::from_second(second).unwrap();
            match schedule.unwrap().next_after(after) {
                Ok(next) => prop_assert!(next > after),
                Err(error) => prop_assert!(matches!(error, ScheduleError::NeverFires(_)) && after.as_second() > 95_000_000_000),
            }
        }

        #[test]
        fn any_text_is_read_or_refused(
            text in prop_oneof![".{0,30}", "[0-9*/,?LW#+@A-Z -]{0,30}", "([0-9*/,A-Z-]{1,5} ){4}[0-9*/,A-Z-]{1,5}"]
        ) {
            match cron(&text, "UTC") {
                Ok(schedule) => prop_assert!(schedule.next_after(Timestamp::UNIX_EPOCH).is_ok(), "{}", text),
                Err(ScheduleError::Cron { .. } | ScheduleError::NeverFires(_) | ScheduleError::TooFrequent { .. }) => {}
                Err(error) => prop_assert!(false, "{}", error),
            }
            prop_assert_eq!(in_numbers(&text).is_ok(), !matches!(cron(&text, "UTC"), Err(ScheduleError::Cron { .. })));
        }
    }
}
