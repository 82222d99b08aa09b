//! What a collection was a while ago: lists that lag show that. Nothing is remembered while they don't.

use crate::clock::Now;
use crate::settings::Settings;
use crate::stored::Stored;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::time::Instant;

/// The entries as they were until a moment.
#[derive(Debug)]
struct Past {
    until: Instant,
    entries: Vec<Arc<Stored>>,
}

/// The past of a collection, oldest first, as far back as lists lag.
#[derive(Debug, Default)]
pub(crate) struct History {
    past: VecDeque<Past>,
}

impl History {
    /// Remembers the entries as they are before something changes them.
    pub(crate) fn remember(&mut self, entries: &[Arc<Stored>], now: Now, settings: &Settings) {
        let lag = settings.scaled(settings.list_lag);
        let then = now.back_by(lag).instant;
        while self.past.front().is_some_and(|past| past.until <= then) {
            self.past.pop_front();
        }
        // What is changed twice at one moment was never seen in between.
        if !lag.is_zero() && self.past.back().is_none_or(|past| past.until < now.instant) {
            self.past.push_back(Past { until: now.instant, entries: entries.to_vec() });
        }
    }

    /// The entries that a list shows now, and the moment as of which it shows them.
    pub(crate) fn listed<'a>(
        &'a self,
        present: &'a [Arc<Stored>],
        now: Now,
        settings: &Settings,
    ) -> (&'a [Arc<Stored>], Now) {
        let then = now.back_by(settings.scaled(settings.list_lag));
        let past = self.past.iter().find(|past| past.until > then.instant);
        (past.map_or(present, |past| past.entries.as_slice()), then)
    }
}
