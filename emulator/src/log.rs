//! What the emulator has seen: one record per request, and counters. No record holds a token, a secret or a value from
//! a body.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// The kinds of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Operation {
    /// An access token from the token endpoint.
    Token,
    /// A page of the list; [`RequestRecord::page`] has its number.
    List,
    /// One entity.
    Get,
    /// A new entity.
    Create,
    /// A PATCH.
    Update,
    /// A DELETE.
    Delete,
    /// The action `syncLicenses`.
    SyncLicenses,
    /// Anything else.
    Other,
}

impl Operation {
    /// Whether it changes something in Graph.
    #[must_use]
    pub fn is_write(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Delete | Self::SyncLicenses)
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Not yet.
    Pending,
    /// With this HTTP status.
    Answered(u16),
    /// The emulator closed the connection without a (whole) answer, because of a fault.
    Cut,
    /// The connection ended before the answer was sent: the client closed it, or the emulator went down. The request
    /// may still have had its effect.
    Lost,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestRecord {
    /// Counts up from 1, in order of arrival; never reused.
    pub sequence: u64,
    /// What was asked for.
    pub operation: Operation,
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The tenant: from the path of the token endpoint, or from the access token.
    pub tenant: Option<String>,
    /// The app, from the access token or the token request.
    pub client_id: Option<String>,
    /// The entity; for a create, the one it made.
    pub id: Option<String>,
    /// For a list, the number of the page; 1 is the first.
    pub page: Option<u32>,
    /// Names of the properties in the body (of the parameters, at the token endpoint), sorted.
    pub properties: Vec<String>,
    /// SHA-256, in hexadecimal, of the exact string in the property `token`.
    pub token_sha256: Option<String>,
    /// `User-Agent`, if sent.
    pub user_agent: Option<String>,
    /// `client-request-id`, if sent.
    pub client_request_id: Option<String>,
    /// The `request-id` of the answer.
    pub request_id: String,
    /// When the head of the request was there.
    pub began: Timestamp,
    /// When the request was carried out (or refused); `None` if a fault was in the way.
    pub carried_out: Option<Timestamp>,
    /// When the answer was handed to the connection, or the connection ended.
    pub ended: Option<Timestamp>,
    /// How it ended.
    pub outcome: Outcome,
    /// The number of the fault that hit it.
    pub fault: Option<u64>,
}

impl RequestRecord {
    /// The HTTP status, if there was an answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self.outcome {
            Outcome::Answered(status) => Some(status),
            Outcome::Pending | Outcome::Cut | Outcome::Lost => None,
        }
    }

    /// Whether this is a page of a list other than the first.
    #[must_use]
    pub fn is_follow_up(&self) -> bool {
        self.page.is_some_and(|page| page > 1)
    }

    /// Whether the body had this property.
    #[must_use]
    pub fn has(&self, property: &str) -> bool {
        self.properties.iter().any(|name| name == property)
    }
}

/// The records, as many as are kept, and the counters since they were cleared.
#[derive(Default)]
pub(crate) struct Log {
    records: VecDeque<RequestRecord>,
    last_sequence: u64,
    counters: BTreeMap<Operation, usize>,
}

impl Log {
    /// Adds a request that just arrived, and numbers it.
    pub(crate) fn begin(&mut self, mut record: RequestRecord, capacity: usize) -> u64 {
        self.last_sequence += 1;
        record.sequence = self.last_sequence;
        *self.counters.entry(record.operation).or_default() += 1;
        self.records.push_back(record);
        while self.records.len() > capacity.max(1) {
            self.records.pop_front();
        }
        self.last_sequence
    }

    /// Changes a record, if it is still kept.
    pub(crate) fn note(&mut self, sequence: u64, change: impl FnOnce(&mut RequestRecord)) {
        let found = self.records.binary_search_by_key(&sequence, |record| record.sequence);
        if let Some(record) = found.ok().and_then(|index| self.records.get_mut(index)) {
            change(record);
        }
    }

    /// Ends a record, unless it has ended.
    pub(crate) fn end(&mut self, sequence: u64, outcome: Outcome, at: Timestamp) {
        self.note(sequence, |record| {
            if record.outcome == Outcome::Pending {
                record.outcome = outcome;
                record.ended = Some(at);
                tracing::info!(
                    sequence,
                    method = record.method,
                    path = record.path,
                    outcome = ?record.outcome,
                    fault = record.fault,
                    request_id = record.request_id,
                    "request"
                );
            }
        });
    }

    /// The records, oldest first.
    pub(crate) fn records(&self) -> impl DoubleEndedIterator<Item = &RequestRecord> {
        self.records.iter()
    }

    /// How many requests of a kind arrived.
    pub(crate) fn count(&self, operation: Operation) -> usize {
        self.counters.get(&operation).copied().unwrap_or_default()
    }

    /// All counters that are not zero.
    pub(crate) fn counters(&self) -> &BTreeMap<Operation, usize> {
        &self.counters
    }

    /// Forgets records and counters; requests in progress are forgotten too. Sequence numbers go on.
    pub(crate) fn clear(&mut self) {
        self.records.clear();
        self.counters.clear();
    }
}
