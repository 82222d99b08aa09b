//! One entry with what the service remembers about it, and how it looks at a moment.

use crate::clock::Now;
use crate::entity::Entity;
use crate::settings::Settings;
use jiff::Timestamp;
use std::sync::Arc;
use tokio::time::Instant;

/// One entry.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// Position in lists; never reused.
    pub(crate) position: u64,
    /// `state` in here is not used: it is computed when the entry is read.
    pub(crate) entity: Entity,
    pub(crate) forced_state: Option<String>,
    pub(crate) sync_ends: Option<Instant>,
    /// The old expiry that is shown until then.
    pub(crate) lagging: Option<(Option<Timestamp>, Instant)>,
}

impl Stored {
    /// The entry as it is shown at a moment, among all entries of its collection.
    pub(crate) fn view(&self, among: &[Arc<Self>], now: Now, settings: &Settings) -> Entity {
        let mut entity = self.entity.clone();
        if let Some((old, until)) = self.lagging
            && now.instant < until
        {
            entity.expiration_date_time = old;
        }
        entity.state = if let Some(forced) = &self.forced_state {
            forced.clone()
        } else if settings.mark_duplicates && self.has_duplicate(among) {
            settings.duplicate_state.clone()
        } else if entity.expiration_date_time.is_some_and(|at| at <= now.wall) {
            "expired".to_owned()
        } else if entity.syncs == 0 {
            settings.initial_state.clone()
        } else {
            "valid".to_owned()
        };
        entity
    }

    fn has_duplicate(&self, among: &[Arc<Self>]) -> bool {
        let same = |other: &Self| {
            other.entity.apple_id == self.entity.apple_id
                && other.entity.organization_name == self.entity.organization_name
        };
        among.iter().any(|other| other.position != self.position && same(other))
    }
}
