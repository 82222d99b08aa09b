//! Every switch of the emulator, with the default that Microsoft's documentation or captures suggest. What can only be
//! found out with a real tenant is a switch here rather than fixed in code.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The switches. In JSON (admin API, `--set`) names are camelCase and durations are seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Settings {
    /// Where to listen; read at start only. Port 0 takes a free one. Default `127.0.0.1:0`.
    pub listen: SocketAddr,
    /// Emulated durations (sync, access-token lifetime, lags, throttling window) are divided by this. Default 1.
    pub time_scale: f64,
    /// Added to the emulator's wall clock, in seconds: moves it past a token file's expiry. Default 0.
    pub clock_offset_seconds: i64,
    /// How many requests the log keeps; the oldest go first. Counters are not affected. Default 100,000.
    pub log_capacity: usize,

    /// Lifetime of an access token. Default 3599 s.
    #[serde(with = "seconds")]
    pub access_token_lifetime: Duration,
    /// Resources for which `{resource}/.default` is accepted as scope; empty accepts any URL. Default empty.
    pub graph_resources: BTreeSet<String>,

    /// Request limits; `None` switches throttling off. Default: Microsoft's numbers.
    pub throttle: Option<Throttle>,
    /// How a 429 gives the time to wait. Default whole seconds.
    pub retry_after: RetryAfter,

    /// Entries per page of a list. Default 100.
    pub page_size: usize,
    /// What a page's `@odata.nextLink` remembers. Default the last entry shown.
    pub paging: Paging,
    /// A list shows the collection as it was this long ago: creations, changes and deletions are late, whoever made them.
    /// GET shows the present. Default zero.
    #[serde(with = "seconds")]
    pub list_lag: Duration,

    /// What is expected in `token`. Default the file's text as it is.
    pub token_encoding: TokenEncoding,
    /// Whether a byte-order mark and white space around the token file's text are tolerated. Default no.
    pub tolerate_whitespace: bool,
    /// What happens to a file that has expired. Default accepted, with state `expired`.
    pub expired_file: ExpiredFile,
    /// After an upload onto an existing entity, its old `expirationDateTime` is shown for this long. Default zero.
    #[serde(with = "seconds")]
    pub expiry_lag: Duration,
    /// Whether entities with equal Apple ID and organization are marked as duplicates and stop syncing. Default no.
    pub mark_duplicates: bool,
    /// The `state` of a duplicate. Default `duplicateLocationId`.
    pub duplicate_state: String,
    /// The `state` of a new entity until its first sync ends. Default `valid`.
    pub initial_state: String,
    /// Whether uploading a new file ends a forced state of `invalid` or `expired`. Default yes.
    pub renewal_cures: bool,

    /// Properties that a create must have. Default `token`.
    pub required_on_create: BTreeSet<String>,
    /// Whether a create must have `@odata.type`. Default no.
    pub require_odata_type: bool,
    /// What happens to a property that Graph does not know. Default refused with 400.
    pub unknown_properties: Treatment,
    /// What happens to a property that only the server may set. Default ignored.
    pub server_owned_properties: Treatment,
    /// Properties that are accepted and silently not kept. Default none.
    pub not_kept: BTreeSet<String>,
    /// What beta shows as the `locationName` of an uploaded token. Default its organization's name.
    pub location_name: LocationName,
    /// In which order beta shows `roleScopeTagIds`. Default sorted.
    pub scope_tag_order: ScopeTagOrder,
    /// Whether a write without `Content-Length` (or chunks) is refused with 411. Default yes.
    pub require_content_length: bool,

    /// How long a sync takes; a very long one is a sync that hangs. Default 3 s.
    #[serde(with = "seconds")]
    pub sync_duration: Duration,
    /// What `syncLicenses` answers. Default the bare entity.
    pub sync_answer: SyncAnswer,
    /// What `syncLicenses` does while a sync is in progress. Default 200, and nothing else.
    pub sync_while_syncing: SyncWhileSyncing,
    /// Whether a sync of an expired, invalid, foreign or duplicate token fails. Default yes.
    pub unusable_sync_fails: bool,
    /// Whether a failed sync sets `lastSyncDateTime` too. Default no.
    pub failed_sync_sets_date: bool,

    /// What a successful PATCH answers. Default 200 with the entity.
    pub update_answer: UpdateAnswer,
    /// How timestamps are written. Default seven fractional digits and `Z`.
    pub timestamps: TimestampStyle,
    /// How `lastSyncDateTime` looks before the first sync. Default `0001-01-01T00:00:00Z`.
    pub never_synced: NeverSynced,
    /// Leaves `@odata.type` out of entities. Default no.
    pub omit_odata_type: bool,
    /// Properties left out of every entity, such as `state`. Default none.
    pub omit_properties: BTreeSet<String>,
    /// Properties added to every entity, undocumented ones or, such as a `state` that nobody knows, in place of the real
    /// ones. Default none.
    pub extra_properties: Map<String, Value>,

    /// The shape of all error bodies of Graph. Default Graph's JSON.
    pub error_body: BodyKind,
    /// HTTP status for a token file that is refused. Default 400.
    pub bad_token_status: u16,
    /// Error code for a token file that is refused. Default `BadRequest`.
    pub bad_token_code: String,
    /// Whether the error for a refused token file quotes what was sent, to test that a client scrubs it. Default no.
    pub echo_token_in_errors: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            time_scale: 1.0,
            clock_offset_seconds: 0,
            log_capacity: 100_000,
            access_token_lifetime: Duration::from_secs(3599),
            graph_resources: BTreeSet::new(),
            throttle: Some(Throttle::default()),
            retry_after: RetryAfter::default(),
            page_size: 100,
            paging: Paging::default(),
            list_lag: Duration::ZERO,
            token_encoding: TokenEncoding::default(),
            tolerate_whitespace: false,
            expired_file: ExpiredFile::default(),
            expiry_lag: Duration::ZERO,
            mark_duplicates: false,
            duplicate_state: "duplicateLocationId".to_owned(),
            initial_state: "valid".to_owned(),
            renewal_cures: true,
            required_on_create: BTreeSet::from(["token".to_owned()]),
            require_odata_type: false,
            unknown_properties: Treatment::Refuse,
            server_owned_properties: Treatment::Ignore,
            not_kept: BTreeSet::new(),
            location_name: LocationName::default(),
            scope_tag_order: ScopeTagOrder::default(),
            require_content_length: true,
            sync_duration: Duration::from_secs(3),
            sync_answer: SyncAnswer::default(),
            sync_while_syncing: SyncWhileSyncing::default(),
            unusable_sync_fails: true,
            failed_sync_sets_date: false,
            update_answer: UpdateAnswer::default(),
            timestamps: TimestampStyle::default(),
            never_synced: NeverSynced::default(),
            omit_odata_type: false,
            omit_properties: BTreeSet::new(),
            extra_properties: Map::new(),
            error_body: BodyKind::default(),
            bad_token_status: 400,
            bad_token_code: "BadRequest".to_owned(),
            echo_token_in_errors: false,
        }
    }
}

impl Settings {
    /// An emulated duration in real time.
    #[must_use]
    pub fn scaled(&self, duration: Duration) -> Duration {
        let scaled = duration.as_secs_f64() / self.time_scale;
        // A scale of zero or less, or one that makes a duration endless, would stop time: it stays real then.
        if self.time_scale > 0.0 { Duration::try_from_secs_f64(scaled).unwrap_or(duration) } else { duration }
    }

    /// These settings with the given properties (camelCase) replaced, or a sentence about what is wrong with them.
    ///
    /// # Errors
    /// A property that does not exist, or a value of the wrong kind.
    pub fn with(&self, changes: Map<String, Value>) -> Result<Self, String> {
        let mut all = match serde_json::to_value(self) {
            Ok(Value::Object(all)) => all,
            Ok(_) | Err(_) => return Err("the settings in use can't be written as JSON".to_owned()),
        };
        all.extend(changes);
        serde_json::from_value(Value::Object(all)).map_err(|error| error.to_string())
    }
}

/// Limits of requests in a window of time, as documented for Intune's enrollment-onboarding resources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Throttle {
    /// The window, which slides. Default 20 s.
    #[serde(with = "seconds")]
    pub window: Duration,
    /// Writes per app and tenant. Default 100.
    pub writes_per_app: usize,
    /// Writes per tenant. Default 200.
    pub writes_per_tenant: usize,
    /// Requests of any kind per app and tenant. Default 1,000.
    pub requests_per_app: usize,
    /// Requests of any kind per tenant. Default 2,000.
    pub requests_per_tenant: usize,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(20),
            writes_per_app: 100,
            writes_per_tenant: 200,
            requests_per_app: 1_000,
            requests_per_tenant: 2_000,
        }
    }
}

macro_rules! switch {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }
    };
}

switch! {
    /// How a 429 gives the time to wait.
    RetryAfter {
        /// Whole seconds, rounded up.
        #[default]
        WholeSeconds,
        /// Seconds with a fraction, such as `2.128`.
        Fractional,
        /// No `Retry-After` at all.
        Absent,
    }
}

switch! {
    /// What a page's `@odata.nextLink` remembers.
    Paging {
        /// The last entry shown: removing an entry moves nothing.
        #[default]
        AfterEntry,
        /// The number of entries shown: removing one between two pages makes the next page skip one.
        ByOffset,
    }
}

switch! {
    /// What is expected in the property `token`.
    TokenEncoding {
        /// The token file's text.
        #[default]
        AsIs,
        /// The token file's text, base64-encoded once more.
        Base64,
    }
}

switch! {
    /// What happens to a token file that has expired.
    ExpiredFile {
        /// Accepted; the entity's state is `expired`.
        #[default]
        Accept,
        /// Refused like a malformed one.
        Refuse,
    }
}

switch! {
    /// What happens to a property that should not be in a body.
    Treatment {
        /// It is ignored.
        #[default]
        Ignore,
        /// The request is refused with 400.
        Refuse,
    }
}

switch! {
    /// What beta shows as the `locationName` of an uploaded token.
    LocationName {
        /// The organization that the file names.
        #[default]
        Organization,
        /// Null, unless a person sets one.
        Null,
    }
}

switch! {
    /// In which order beta shows `roleScopeTagIds`.
    ScopeTagOrder {
        /// Sorted as text, whatever was sent.
        #[default]
        Sorted,
        /// As they were sent.
        AsSent,
        /// Backwards.
        Reversed,
    }
}

switch! {
    /// What a successful `syncLicenses` answers.
    SyncAnswer {
        /// 200 with the entity.
        #[default]
        Entity,
        /// 200 with `{"value": entity}`.
        Wrapped,
        /// 200 with `null`.
        Null,
        /// 204 without a body.
        NoContent,
    }
}

switch! {
    /// What `syncLicenses` does while a sync is in progress.
    SyncWhileSyncing {
        /// Answers as usual; the sync in progress goes on.
        #[default]
        Accept,
        /// 409.
        Conflict,
        /// 400.
        BadRequest,
    }
}

switch! {
    /// What a successful PATCH answers.
    UpdateAnswer {
        /// 200 with the entity.
        #[default]
        Entity,
        /// 204 without a body.
        NoContent,
    }
}

switch! {
    /// How timestamps are written.
    TimestampStyle {
        /// `2027-01-22T17:32:07.0000000Z`
        #[default]
        SevenDigits,
        /// `2027-01-22T17:32:07Z`
        NoFraction,
        /// `2027-01-22T09:32:07.0000000-08:00`
        Offset,
    }
}

switch! {
    /// How `lastSyncDateTime` looks before the first sync.
    NeverSynced {
        /// `0001-01-01T00:00:00Z`
        #[default]
        ZeroDate,
        /// `null`
        Null,
        /// The property is left out.
        Absent,
    }
}

switch! {
    /// The shape of an error body.
    BodyKind {
        /// Graph's JSON.
        #[default]
        Json,
        /// No body.
        Empty,
        /// A page of HTML, as gateways send.
        Html,
        /// JSON that ends in the middle, with a `Content-Length` that fits.
        CutOff,
    }
}

/// Durations as seconds, with a fraction where needed.
pub(crate) mod seconds {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use std::time::Duration;

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
