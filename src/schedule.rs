//! When the next sync is due: a cron schedule in a time zone, or an interval whose phase comes from the object's UID.
//! Pure: no clock, no I/O.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use crate::api::SyncSpec;

/// The shortest interval between two syncs.
pub const SHORTEST_INTERVAL: SignedDuration = SignedDuration::from_mins(15);

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
        /// What the parser says.
        why: String,
    },
    /// No such zone.
    #[error("there is no time zone \"{0}\". Write an IANA name, for example Europe/Berlin")]
    Zone(String),
    /// Not a duration, or too short.
    #[error("interval \"{0}\" is not a duration of at least 15 minutes. Write for example 6h or 1h30m")]
    Interval(String),
    /// Neither or both.
    #[error("sync needs exactly one of schedule and interval")]
    OneOf,
    /// For example 30 February.
    #[error("schedule \"{0}\" never fires. Write a date that exists, for example \"0 6 1 * *\"")]
    NeverFires(String),
}

impl Schedule {
    /// Reads `spec.sync`. `uid` spreads intervals.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn parse(sync: &SyncSpec, uid: &str) -> Result<Self, ScheduleError> {
        match (&sync.schedule, &sync.interval) {
            (Some(schedule), None) => {
                let cron = CronParser::builder()
                    .seconds(Seconds::Disallowed)
                    .year(Year::Disallowed)
                    .build()
                    .parse(schedule)
                    .map_err(|error| ScheduleError::Cron { schedule: schedule.clone(), why: error.to_string() })?;
                let name = sync.time_zone.as_deref().unwrap_or("UTC");
                let zone = TimeZone::get(name).map_err(|_| ScheduleError::Zone(name.into()))?;
                Ok(Self::Cron { cron: Box::new(cron), zone })
            }
            (None, Some(interval)) => {
                let every = duration(interval)
                    .filter(|every| *every >= SHORTEST_INTERVAL)
                    .ok_or_else(|| ScheduleError::Interval(interval.clone()))?
                    .as_secs();
                Ok(Self::Interval { every, phase: phase(uid, every) })
            }
            _ => Err(ScheduleError::OneOf),
        }
    }

    /// The first time that it is due strictly after `after`.
    ///
    /// Around daylight-saving changes: a fixed time that the clock skips fires at the first moment after the gap; a
    /// fixed time that the clock repeats fires once.
    ///
    /// # Errors
    /// When it never fires again.
    pub fn next_after(&self, after: Timestamp) -> Result<Timestamp, ScheduleError> {
        match self {
            Self::Cron { cron, zone } => cron
                .find_next_occurrence(&after.to_zoned(zone.clone()), false)
                .map(|zoned| zoned.timestamp())
                .map_err(|_| ScheduleError::NeverFires(cron.as_str().into())),
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
    let number = digest.iter().take(7).fold(0i64, |number, byte| (number << 8) | i64::from(*byte));
    number.rem_euclid(every)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cron(schedule: &str, zone: &str) -> Result<Schedule, ScheduleError> {
        let sync = SyncSpec { schedule: Some(schedule.into()), time_zone: Some(zone.into()), interval: None };
        Schedule::parse(&sync, "uid")
    }

    fn interval(text: &str, uid: &str) -> Result<Schedule, ScheduleError> {
        Schedule::parse(&SyncSpec { schedule: None, time_zone: None, interval: Some(text.into()) }, uid)
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_schedule_follows_its_zone() {
        for (schedule, zone, after, next) in [
            ("0 6,18 * * *", "UTC", "2026-11-21T05:59:59Z", "2026-11-21T06:00:00Z"),
            ("0 6,18 * * *", "UTC", "2026-11-21T06:00:00Z", "2026-11-21T18:00:00Z"),
            ("0 6 * * *", "Europe/Berlin", "2026-11-21T00:00:00Z", "2026-11-21T05:00:00Z"),
            ("0 6 * * *", "Europe/Berlin", "2026-07-01T00:00:00Z", "2026-07-01T04:00:00Z"),
            ("30 9 * * MON-FRI", "America/New_York", "2026-11-20T15:00:00Z", "2026-11-23T14:30:00Z"),
            // Spring forward: 02:30 does not exist on 29 March 2026 in Berlin.
            ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),
            // Fall back: 02:30 exists twice on 25 October 2026 in Berlin, and fires at the first.
            ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
            ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
        ] {
            assert_eq!(cron(schedule, zone).unwrap().next_after(at(after)), Ok(at(next)), "{schedule} {zone} {after}");
        }
    }

    #[test]
    fn what_is_not_a_schedule_is_refused_with_an_example() {
        for (schedule, zone) in [
            ("* * * *", "UTC"),
            ("0 0 6 * * *", "UTC"),
            ("0 6 * * * 2027", "UTC"),
            ("61 * * * *", "UTC"),
            ("0 6 * * *", "Mars/Olympus"),
        ] {
            let error = cron(schedule, zone).unwrap_err().to_string();
            assert!(error.contains("for example"), "{error}");
        }
    }

    #[test]
    fn a_date_that_never_comes_never_fires() {
        let schedule = cron("0 0 30 2 *", "UTC").unwrap();
        assert!(matches!(schedule.next_after(at("2026-11-21T00:00:00Z")), Err(ScheduleError::NeverFires(_))));
    }

    #[test]
    fn an_interval_shorter_than_15_minutes_is_refused() {
        for text in ["14m59s", "0s", "-1h", "soon", ""] {
            assert!(matches!(interval(text, "uid"), Err(ScheduleError::Interval(_))), "{text}");
        }
        assert!(interval("15m", "uid").is_ok());
    }

    #[test]
    fn a_thousand_objects_do_not_fire_together() {
        let after = at("2026-11-21T00:00:00Z");
        let mut per_minute = std::collections::BTreeMap::<i64, usize>::new();
        for n in 0..1000 {
            let next = interval("6h", &format!("uid-{n}")).unwrap().next_after(after).unwrap();
            *per_minute.entry((next.as_second() - after.as_second()) / 60).or_default() += 1;
        }
        assert!(per_minute.values().max().unwrap() < &20, "{per_minute:?}");
    }

    proptest! {
        #[test]
        fn the_next_time_is_after_and_within_one_interval(
            after in 0i64..4_000_000_000, minutes in 15i64..20_000, uid in "[a-f0-9]{8}"
        ) {
            let schedule = interval(&format!("{minutes}m"), &uid).unwrap();
            let after = Timestamp::from_second(after).unwrap();
            let next = schedule.next_after(after).unwrap();
            prop_assert!(next > after && next.as_second() - after.as_second() <= minutes * 60);
            let then = schedule.next_after(next).unwrap();
            prop_assert_eq!(then.as_second() - next.as_second(), minutes * 60);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,30}") {
            if let Ok(schedule) = cron(&text, "UTC") {
                let _ = schedule.next_after(Timestamp::UNIX_EPOCH);
            }
        }
    }
}
