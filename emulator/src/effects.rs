//! What was done to the collections, in order: what a judge compares with what should have been done.

use crate::entity::Entity;
use crate::log::Operation;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::VecDeque;

/// Who asked for an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum By {
    /// The request with this sequence number, see [`RequestRecord`](crate::RequestRecord).
    Request(u64),
    /// A person in the portal.
    Hand,
}

/// One create, update, delete or `syncLicenses` that was carried out. Refused requests have no effect. What comes of it
/// later without being asked for, such as the end of a sync, is none of its own. Tokens are shown by digest only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Effect {
    /// Counts up from 1; never reused.
    pub sequence: u64,
    /// When, on the emulator's wall clock.
    pub at: Timestamp,
    /// [`Create`](Operation::Create), [`Update`](Operation::Update), [`Delete`](Operation::Delete) or
    /// [`SyncLicenses`](Operation::SyncLicenses). A sync that is accepted while another is in progress changes nothing.
    pub operation: Operation,
    /// The tenant, in lower case.
    pub tenant: String,
    /// The entity.
    pub id: String,
    /// The entity as it was shown before; `None` for a create.
    pub before: Option<Entity>,
    /// The entity as it was shown after; `None` for a delete.
    pub after: Option<Entity>,
    /// Who asked for it.
    pub by: By,
}

/// The effects, as many as are kept.
#[derive(Default)]
pub(crate) struct Effects {
    kept: VecDeque<Effect>,
    last_sequence: u64,
}

impl Effects {
    /// Adds an effect, and numbers it.
    pub(crate) fn push(&mut self, mut effect: Effect, capacity: usize) {
        self.last_sequence += 1;
        effect.sequence = self.last_sequence;
        self.kept.push_back(effect);
        while self.kept.len() > capacity.max(1) {
            self.kept.pop_front();
        }
    }

    /// The effects, oldest first.
    pub(crate) fn all(&self) -> impl DoubleEndedIterator<Item = &Effect> + ExactSizeIterator {
        self.kept.iter()
    }
}
