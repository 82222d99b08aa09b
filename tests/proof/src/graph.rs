//! Microsoft Graph: tokens, requests that have a moment at which they are sent, one at which they take effect and one at
//! which they are answered, and lists that show what was.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use vpptoken_operator::graph::{Entity, ErrorKind, GraphError};

use crate::print::Shown;
use crate::universe::{EXPIRY_LAG, FileNumber, NOT_KEPT, REFUSED, SECOND, file, timings};

/// How many seconds a sync takes; one that hangs takes longer than the operator waits for it.
const SYNC_TAKES: i64 = 20;
const SYNC_HANGS_FOR: i64 = 5_000;

/// A token that Graph has.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) apple_id: String,
    pub(crate) organization: &'static str,
    pub(crate) account_type: String,
    pub(crate) country: Option<String>,
    pub(crate) update_apps: Option<bool>,
    pub(crate) file: FileNumber,
    /// The file that it was created with.
    pub(crate) first_file: FileNumber,
    /// The VppToken for which it was created; none when a person did it.
    pub(crate) made_by: Option<String>,
    /// When the create was sent, by which process as long as that lives, and which VppTokens it then knew to have a token or
    /// to create one: for the rules only.
    pub(crate) sent: Timestamp,
    pub(crate) sent_by: Option<usize>,
    pub(crate) rivals: BTreeSet<String>,
    /// The expiry of the old file, which is shown until a time.
    old_expiry: Option<(Timestamp, Timestamp)>,
    pub(crate) last_sync: Option<Timestamp>,
    pub(crate) sync_ends: Option<Timestamp>,
    modified: Timestamp,
    /// Counts changes, but for those by syncs.
    pub(crate) version: u32,
    /// Since when it has looked as it does and belonged to nobody.
    pub(crate) free_since: Timestamp,
    /// A person uploaded the file that it has, or a request that nobody waited for any more did, or one that was decided on
    /// what the token had been before.
    pub(crate) has_anothers_file: bool,
    /// A person changed what it can be recognised by.
    pub(crate) disguised: bool,
}

impl Token {
    pub(crate) fn shows_its_expiry(&self, now: Timestamp) -> bool {
        self.old_expiry.is_none_or(|(_, until)| until <= now)
    }

    fn shown(&self, among: &[Self], now: Timestamp) -> Entity {
        let expiration = match self.old_expiry {
            Some((old, until)) if until > now => old,
            _ => file(self.file).expiration(),
        };
        let is_double = among.iter().any(|other| other.id != self.id && other.location() == self.location());
        let state = if is_double {
            "duplicateLocationId"
        } else if expiration <= now {
            "expired"
        } else {
            "valid"
        };
        let running = self.sync_ends.is_some_and(|ends| ends > now);
        Entity {
            id: self.id.clone(),
            organization_name: Some(self.organization.to_owned()),
            vpp_token_account_type: Some(self.account_type.clone()),
            apple_id: Some(self.apple_id.clone()),
            expiration: Some(expiration),
            last_sync: self.last_sync,
            last_modified: Some(self.modified),
            state: Some(state.to_owned()),
            last_sync_status: Some(
                if running {
                    "inProgress"
                } else if self.last_sync.is_some() {
                    "completed"
                } else {
                    "none"
                }
                .to_owned(),
            ),
            automatically_update_apps: self.update_apps,
            country_or_region: self.country.clone(),
            ..Entity::default()
        }
    }

    pub(crate) fn location(&self) -> char {
        file(self.file).location
    }

    pub(crate) fn looks_like(&self, apple_id: &str, organization: &str) -> bool {
        self.apple_id.eq_ignore_ascii_case(apple_id) && self.organization.eq_ignore_ascii_case(organization)
    }

    pub(crate) fn upload(&mut self, new: FileNumber, slowly: bool, now: Timestamp) {
        if slowly && file(new).expiration() != file(self.file).expiration() && self.shows_its_expiry(now) {
            self.old_expiry = Some((file(self.file).expiration(), now + EXPIRY_LAG));
        } else if !slowly {
            self.old_expiry = None;
        }
        self.file = new;
        self.has_anothers_file = false;
        self.organization = file(new).organization;
        self.changed(now);
    }

    /// A person gave it another look.
    pub(crate) fn disguise(&mut self, now: Timestamp) {
        self.free_since = now;
        self.disguised = true;
    }

    pub(crate) fn changed(&mut self, now: Timestamp) {
        self.version += 1;
        self.modified = now;
    }
}

/// What a request asks for.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Operation {
    Create {
        file: FileNumber,
        apple_id: String,
        account_type: &'static str,
        country: Option<String>,
        update_apps: Option<bool>,
    },
    Update {
        id: String,
        file: Option<FileNumber>,
        apple_id: Option<String>,
        account_type: Option<&'static str>,
        country: Option<String>,
        update_apps: Option<bool>,
    },
    Sync {
        id: String,
        is_scheduled: bool,
    },
    Delete {
        id: String,
    },
    Get {
        id: String,
    },
}

impl Operation {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "POST token",
            Self::Update { file: Some(_), .. } => "PATCH with a file",
            Self::Update { .. } => "PATCH of settings",
            Self::Sync { .. } => "POST sync",
            Self::Delete { .. } => "DELETE",
            Self::Get { .. } => "GET",
        }
    }

    /// The token that it is about.
    pub(crate) fn id(&self) -> Option<&str> {
        match self {
            Self::Create { .. } => None,
            Self::Update { id, .. } | Self::Sync { id, .. } | Self::Delete { id } | Self::Get { id } => Some(id),
        }
    }

    pub(crate) fn is_write(&self) -> bool {
        !matches!(self, Self::Get { .. })
    }
}

/// What came of a request.
pub(crate) type Outcome = Result<Option<Entity>, ErrorKind>;

/// A request on its way.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Request {
    /// The process and the reconcile that wait for the answer; nobody when the process died or gave up.
    pub(crate) owner: Option<(usize, usize)>,
    /// The process that sent it, as long as that lives: for the rules only.
    pub(crate) sent_by: Option<usize>,
    /// Which VppTokens that process knew to have a token or to create one: for the rules only.
    pub(crate) rivals: BTreeSet<String>,
    /// The VppToken.
    pub(crate) uid: String,
    pub(crate) operation: Operation,
    pub(crate) sent: Timestamp,
    /// What came of it, once it took effect.
    pub(crate) outcome: Option<Shown<Outcome>>,
    /// When the create was announced.
    pub(crate) announced: Option<Timestamp>,
    /// The organization that the manifest asked for.
    pub(crate) organization: Option<String>,
    /// Whether the manifest wants no second token of a location.
    pub(crate) is_unique: bool,
    /// The version of the token that the process had seen when it decided.
    pub(crate) seen: Option<u32>,
    /// The version that the request made.
    pub(crate) made: Option<u32>,
}

/// How Graph is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mood {
    Fine,
    Unreachable,
    Throttling,
    Unavailable,
    Forbidden,
    Credentials,
}

impl Mood {
    pub(crate) fn error(self) -> Option<ErrorKind> {
        Some(match self {
            Self::Fine => return None,
            Self::Unreachable => ErrorKind::Unreachable,
            Self::Throttling => ErrorKind::Throttled,
            Self::Unavailable => ErrorKind::Unavailable,
            Self::Forbidden => ErrorKind::Forbidden,
            Self::Credentials => ErrorKind::Credentials,
        })
    }
}

/// The failure as the operator's client words it.
pub(crate) fn failure(kind: ErrorKind) -> GraphError {
    let mut error = GraphError::new(kind, "Graph said no");
    if kind == ErrorKind::Throttled {
        error.retry_after = Some(std::time::Duration::from_secs(7));
    }
    error
}

/// Graph.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Graph {
    tokens: Arc<Vec<Token>>,
    /// What there was, and until when.
    history: Vec<(Timestamp, Arc<Vec<Token>>)>,
    pub(crate) requests: Vec<Request>,
    pub(crate) next_id: u32,
    pub(crate) mood: Mood,
    /// Whether a renewal shows late.
    pub(crate) is_slow: bool,
    /// How many seconds a sync takes.
    pub(crate) sync_takes: i64,
}

impl Graph {
    pub(crate) fn new() -> Self {
        Self {
            tokens: Arc::default(),
            history: Vec::new(),
            requests: Vec::new(),
            next_id: 1,
            mood: Mood::Fine,
            is_slow: false,
            sync_takes: SYNC_TAKES,
        }
    }

    /// Whether a renewal shows late, and whether a sync hangs.
    pub(crate) fn habits(&self) -> (bool, bool) {
        (self.is_slow, self.sync_takes > SYNC_TAKES)
    }

    pub(crate) fn set_habits(&mut self, is_slow: bool, hangs: bool) {
        self.is_slow = is_slow;
        self.sync_takes = if hangs { SYNC_HANGS_FOR } else { SYNC_TAKES };
    }

    pub(crate) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    pub(crate) fn token(&self, id: &str) -> Option<&Token> {
        self.tokens.iter().find(|token| token.id == id)
    }

    /// The tokens, about to be changed; what they were may still be shown for a while.
    pub(crate) fn change(&mut self, now: Timestamp) -> &mut Vec<Token> {
        self.history.push((now, Arc::clone(&self.tokens)));
        Arc::make_mut(&mut self.tokens)
    }

    /// Marks for the rules, which nobody sees.
    pub(crate) fn mark(&mut self, marks: impl Fn(&Token) -> Option<Timestamp>) {
        if self.tokens.iter().any(|token| marks(token).is_some_and(|at| at != token.free_since)) {
            for token in Arc::make_mut(&mut self.tokens) {
                if let Some(at) = marks(token) {
                    token.free_since = at;
                }
            }
        }
    }

    /// What a process knew is forgotten with it.
    pub(crate) fn forget(&mut self, p: usize) {
        for token in Arc::make_mut(&mut self.tokens).iter_mut().filter(|token| token.sent_by == Some(p)) {
            token.sent_by = None;
        }
        for request in self.requests.iter_mut().filter(|request| request.sent_by == Some(p)) {
            request.sent_by = None;
        }
    }

    /// For the rules: whose file a token has.
    pub(crate) fn uploaded_by_another(&mut self, id: &str) {
        if let Some(token) = Arc::make_mut(&mut self.tokens).iter_mut().find(|token| token.id == id) {
            token.has_anothers_file = true;
        }
    }

    /// How many older states a list may still show.
    pub(crate) fn older_states(&self) -> usize {
        self.history.len()
    }

    /// What a list shows: what is, or one of the states that were until a moment ago.
    pub(crate) fn listed(&self, older: usize, now: Timestamp) -> Vec<(Entity, u32, bool)> {
        let tokens = match older {
            0 => &self.tokens,
            back => self.history.len().checked_sub(back).map_or(&self.tokens, |at| &self.history[at].1),
        };
        tokens.iter().map(|token| (token.shown(tokens, now), token.version, token.shows_its_expiry(now))).collect()
    }

    pub(crate) fn shown(&self, id: &str, now: Timestamp) -> Option<Entity> {
        self.token(id).map(|token| token.shown(&self.tokens, now))
    }

    /// Time passed.
    pub(crate) fn passed(&mut self, now: Timestamp) {
        let forgotten = now - timings().settling;
        self.history.retain(|(until, _)| *until > forgotten);
        let ended = |token: &Token| token.sync_ends.is_some_and(|ends| ends <= now);
        if self.tokens.iter().any(ended) {
            for token in self.change(now).iter_mut().filter(|token| token.sync_ends.is_some_and(|ends| ends <= now)) {
                token.last_sync = token.sync_ends.take();
                token.modified = now;
            }
        }
        // For the rules it is known for a while how long that was.
        let shown = |token: &Token| token.old_expiry.is_some_and(|(_, until)| until + timings().unknown_outcome <= now);
        if self.tokens.iter().any(shown) {
            for token in Arc::make_mut(&mut self.tokens).iter_mut().filter(|token| shown(token)) {
                token.old_expiry = None;
            }
        }
    }

    /// When something happens here by itself next.
    pub(crate) fn next_event(&self, now: Timestamp) -> Option<Timestamp> {
        let times = self.tokens.iter().flat_map(|token| [token.sync_ends, token.old_expiry.map(|(_, until)| until)]);
        times.flatten().filter(|time| *time > now).min()
    }

    /// A new token.
    pub(crate) fn add(
        &mut self,
        file_number: FileNumber,
        apple_id: &str,
        made_by: Option<String>,
        now: Timestamp,
    ) -> String {
        let id = format!("t{}", self.next_id);
        self.next_id += 1;
        let token = Token {
            id: id.clone(),
            apple_id: apple_id.to_owned(),
            organization: file(file_number).organization,
            account_type: "business".into(),
            country: None,
            update_apps: None,
            file: file_number,
            first_file: file_number,
            made_by,
            sent: now,
            sent_by: None,
            rivals: BTreeSet::new(),
            old_expiry: None,
            last_sync: None,
            sync_ends: None,
            modified: now,
            version: 1,
            free_since: now,
            has_anothers_file: false,
            disguised: false,
        };
        self.change(now).push(token);
        id
    }

    /// Carries a request out, unless Graph does not want it.
    pub(crate) fn carry_out(&mut self, request: &Request, now: Timestamp) -> Outcome {
        let (slowly, sync_takes) = (self.is_slow, self.sync_takes);
        match &request.operation {
            Operation::Create { file, apple_id, account_type, country, update_apps } => {
                if country.as_deref() == Some(REFUSED) {
                    return Err(ErrorKind::Refused);
                }
                let id = self.add(*file, apple_id, Some(request.uid.clone()), now);
                if let Some(token) = Arc::make_mut(&mut self.tokens).iter_mut().find(|token| token.id == id) {
                    token.account_type = (*account_type).to_owned();
                    token.country = country.clone().filter(|country| country != NOT_KEPT);
                    token.update_apps = *update_apps;
                    token.sent = request.sent;
                    token.sent_by = request.sent_by;
                    token.rivals = request.rivals.clone();
                }
                Ok(self.shown(&id, now))
            }
            Operation::Update { id, file, apple_id, account_type, country, update_apps } => {
                if self.token(id).is_none() {
                    return Err(ErrorKind::NotFound);
                }
                if country.as_deref() == Some(REFUSED) {
                    return Err(ErrorKind::Refused);
                }
                if let Some(token) = self.change(now).iter_mut().find(|token| token.id == *id) {
                    if let Some(file) = file {
                        token.upload(*file, slowly, now);
                    }
                    if let Some(apple_id) = apple_id {
                        token.apple_id = apple_id.clone();
                    }
                    if let Some(account_type) = account_type {
                        token.account_type = (*account_type).to_owned();
                    }
                    if let Some(country) = country.as_ref().filter(|country| *country != NOT_KEPT) {
                        token.country = Some(country.clone());
                    }
                    if update_apps.is_some() {
                        token.update_apps = *update_apps;
                    }
                    token.changed(now);
                }
                Ok(self.shown(id, now))
            }
            Operation::Sync { id, .. } => {
                if self.token(id).is_none() {
                    return Err(ErrorKind::NotFound);
                }
                if let Some(token) = self.change(now).iter_mut().find(|token| token.id == *id) {
                    token.sync_ends = Some(now + SECOND * i32::try_from(sync_takes).unwrap_or(i32::MAX));
                }
                Ok(None)
            }
            Operation::Delete { id } => {
                if self.token(id).is_some() {
                    self.change(now).retain(|token| token.id != *id);
                }
                Ok(None)
            }
            Operation::Get { id } => self.shown(id, now).map(Some).ok_or(ErrorKind::NotFound),
        }
    }
}
