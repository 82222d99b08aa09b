//! What to do next, and what to say: a pure, total function of what was observed. All policy lives in this room.
//!
//! A hold stops only what it concerns: a malformed file blocks the upload, while schedule, drift and deletion of the
//! token that Graph already has go on.

mod creating;
mod deleting;
mod managing;
mod saying;
mod syncing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

pub use managing::wanted;
pub(crate) use saying::{failure_sentence, permission_sentence};

use super::world::{KnownTenant, Observed, Permission, StepKind, TenantState};
use crate::api::conditions::{ConditionType, Saying};
use crate::api::{DeletionPolicy, PendingCreate, Reason, Uploaded, VppTokenSpec, VppTokenStatus};
use crate::graph::{Entity, ErrorKind};
use crate::tenant::{Entry, Field, Priority};

/// Credentials that are refused, or a permission that is missing, count as needing a person after this long.
const PATIENCE_WITH_CREDENTIALS: SignedDuration = SignedDuration::from_mins(10);
/// So many polls without a list, and nothing is known any more.
const STALE_POLLS: i32 = 3;
/// What is held is looked at again this often, even if nothing seems to have changed.
const SLOW_LOOK: SignedDuration = SignedDuration::from_mins(10);
/// Everything is looked at again this often.
const SLOWEST_LOOK: SignedDuration = SignedDuration::from_hours(1);
/// A token has to be absent from so many lists before it is asked for.
const LISTS_TO_VANISH: usize = 2;
/// More claimed tokens than this, and more than half of all, gone at once are a fault.
const MANY_VANISHED: usize = 3;

/// One step towards what the manifest asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Put our finalizer on the object, before there is anything to delete.
    AddFinalizer,
    /// Take our finalizer off.
    RemoveFinalizer {
        /// Why, when a person should know.
        warning: Option<String>,
    },
    /// Announce a create in the status.
    Announce(PendingCreate),
    /// Forget an announced create that was not sent.
    Withdraw,
    /// Create the token that was announced.
    Create,
    /// Take over a token that matches exactly, or that an announced create made.
    Adopt {
        /// Its id.
        id: String,
        /// What counts as uploaded to it.
        uploaded: Uploaded,
    },
    /// Take over the token that the manifest names by its id.
    Bind {
        /// Its id.
        id: String,
    },
    /// Upload a new file, or change settings; each in a request of its own, so that one refused does not hold up the other.
    Update {
        /// The token.
        id: String,
        /// Whether the file is uploaded.
        upload: bool,
        /// What to set, and what Graph had.
        fields: BTreeMap<Field, Wanted>,
    },
    /// Say that a sync which was asked for is not started.
    DeclineSync {
        /// The request.
        request: String,
        /// What of the manifest forbids it.
        because: &'static str,
    },
    /// Start a sync.
    Sync {
        /// The token.
        id: String,
        /// How urgent.
        priority: Priority,
        /// The request that this answers.
        request: Option<String>,
    },
    /// Ask for a token that lists lack.
    Confirm {
        /// Its id.
        id: String,
    },
    /// Delete the token in Graph.
    Delete {
        /// Its id.
        id: String,
    },
}

impl Step {
    /// The kind, of those that can fail each for itself.
    pub fn kind(&self) -> Option<StepKind> {
        Some(match self {
            Self::Create => StepKind::Create,
            Self::Update { upload: true, .. } => StepKind::Upload,
            Self::Update { .. } => StepKind::Update,
            Self::Sync { .. } => StepKind::Sync,
            Self::Delete { .. } => StepKind::Delete,
            Self::Confirm { .. } => StepKind::Confirm,
            _ => return None,
        })
    }

    /// How urgent it is; none when it changes nothing in Graph.
    pub fn priority(&self) -> Option<Priority> {
        match self {
            Self::Create | Self::Update { .. } | Self::Delete { .. } => Some(Priority::Person),
            Self::Sync { priority, .. } => Some(*priority),
            _ => None,
        }
    }
}

/// A value to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What Graph has, in text.
    pub found: Option<String>,
    /// What the manifest asks for, in text.
    pub wanted: String,
}

/// Something that is stopped, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Why.
    pub reason: Reason,
    /// What to do about it.
    pub message: String,
    /// Whether it needs a person; otherwise it is expected to end by itself.
    pub needs_person: bool,
}

/// What to do and what to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The next step, if any.
    pub step: Option<Step>,
    /// When to look again, if nothing happens before.
    pub again: Option<SignedDuration>,
    /// A list has to begin after this time before it can go on.
    pub list_after: Option<Timestamp>,
    /// What is stopped.
    pub holds: Vec<Hold>,
    /// Settings that Graph has otherwise than the manifest asks, or may only have echoed; none when they were not compared.
    pub differing: Option<BTreeSet<Field>>,
    /// When the list that this was planned on began.
    pub planned_on: Option<Timestamp>,
    /// The whole status to write.
    pub status: VppTokenStatus,
}

impl Plan {
    /// How long to wait before looking again, if nothing happens before: what nobody tells of, such as the last words of a
    /// process that led before, does not stay for ever.
    pub fn next_look(&self) -> SignedDuration {
        match self.step {
            Some(_) => SignedDuration::ZERO,
            None => self.again.unwrap_or(SLOWEST_LOOK).min(SLOWEST_LOOK),
        }
    }

    /// Whether its step is tried for the first time. What failed before keeps saying so until it succeeds: no attempt is told.
    pub fn is_first_try(&self, observed: &Observed) -> bool {
        let kind = self.step.as_ref().and_then(Step::kind);
        kind.is_none_or(|kind| observed.failure(kind).is_none())
    }
}

/// Decides.
pub fn plan(observed: &Observed) -> Plan {
    let mut draft = Draft::new(observed);
    if observed.object.deleting.is_some() {
        deleting::plan(&mut draft);
    } else {
        living(&mut draft);
    }
    draft.finish()
}

fn living(draft: &mut Draft) {
    alive(draft);
    if let Some(because) = only_reads(&draft.observed.spec) {
        syncing::decline(draft, because);
    }
}

/// What of a manifest says that nothing is written to Graph, if anything does.
fn only_reads(spec: &VppTokenSpec) -> Option<&'static str> {
    if spec.only_observes() { Some("managementPolicy: Observe") } else { spec.suspend.then_some("suspend: true") }
}

fn alive(draft: &mut Draft) {
    let observed = draft.observed;
    let wants_finalizer = observed.spec.deletion_policy == DeletionPolicy::Delete && !observed.spec.only_observes();
    if wants_finalizer && !observed.object.has_finalizer {
        draft.say_working(Reason::Finalizing, "The finalizer for deletionPolicy: Delete is being written.");
        draft.step(Step::AddFinalizer);
    } else if !wants_finalizer && observed.object.has_finalizer {
        draft.step(Step::RemoveFinalizer { warning: None });
    }
    let Some(tenant) = usable_tenant(draft) else {
        if observed.unsent_create().is_some() {
            // Nobody should wait for a create that can't be sent.
            draft.step(Step::Withdraw);
        }
        return;
    };
    if wants_finalizer && !tenant.allowed.contains(&Permission::Delete) {
        draft.hold(
            Reason::OperationNotAllowed,
            "The ClusterGraphTenant does not allow Delete, so deletionPolicy: Delete can't be followed. Set deletionPolicy: \
             Retain, or have Delete added to allowedOperations.",
        );
    }
    if !observed.spec.only_observes() {
        managing::hold_unknown_settings(draft, tenant);
    }
    if !tenant_was_read(draft, tenant) {
        return;
    }
    if let Some(id) = draft.status.token_id.clone() {
        match tenant.view.snapshot.entry(&id) {
            Some(entry) => {
                hold_another_token_id(draft, &id);
                return managing::plan(draft, tenant, entry);
            }
            None if many_vanished(draft, tenant) => {
                return draft.hold(
                    Reason::ManyVanished,
                    "Most of the tenant's tokens that VppTokens have seem to be gone at once. That looks like a fault, so \
                     none is created again. If they were deleted on purpose, delete their VppTokens and create them again.",
                );
            }
            None if !vanished(draft, tenant, &id) => return,
            None => forget_vanished(draft),
        }
    }
    match observed.spec.token_id.clone() {
        Some(id) => creating::bind(draft, tenant, id),
        None => creating::plan(draft, tenant),
    }
}

/// `tokenId` was set after this VppToken had come by another token.
fn hold_another_token_id(draft: &mut Draft, id: &str) {
    if let Some(other) = draft.observed.spec.token_id.as_ref().filter(|other| !other.eq_ignore_ascii_case(id)) {
        let message = format!(
            "This VppToken has the token {id}, and tokenId names {other}. To take that one over, delete this VppToken and \
             create it again; with deletionPolicy: Retain its token stays in Graph."
        );
        draft.hold(Reason::AlreadyBound, message);
    }
}

/// The tenant, if it can be used and is the one that the token lives in.
fn usable_tenant<'a>(draft: &mut Draft<'a>) -> Option<&'a KnownTenant> {
    let reference = &draft.observed.spec.tenant_ref;
    match &draft.observed.tenant {
        TenantState::NotFound => {
            let (kind, name) = (reference.kind, &reference.name);
            draft.wait(
                Reason::TenantNotFound,
                format!(
                    "{kind} \"{name}\" is not there. Create it; tenantRef can't be changed, so if that is wrong, delete this \
                     VppToken and create it again."
                ),
            );
            None
        }
        TenantState::NamespaceNotAllowed => {
            draft.hold(
                Reason::NamespaceNotAllowed,
                format!(
                    "ClusterGraphTenant \"{}\" does not allow this namespace. Have it added to allowedNamespaces, or use a \
                     GraphTenant of your own.",
                    reference.name
                ),
            );
            None
        }
        TenantState::Unusable { reason, message } => {
            draft.wait(*reason, message.clone());
            // Right after a start nobody has looked for the tenant yet.
            draft.is_silent = *reason == Reason::TenantNotRead && has_said(draft);
            None
        }
        TenantState::Known(tenant) => {
            if (draft.status.token_id.is_some() || draft.status.pending_create.is_some())
                && let Some(before) = &draft.status.tenant
                && (before.cloud, before.tenant_id.to_lowercase())
                    != (tenant.identity.cloud, tenant.identity.tenant_id.to_lowercase())
            {
                draft.hold(
                    Reason::TenantChanged,
                    format!(
                        "The token lives in tenant {}, and tenantRef now leads to another tenant. Nothing is done there. \
                         Delete this VppToken and create it again to use the other tenant.",
                        before.tenant_id
                    ),
                );
                return None;
            }
            Some(tenant)
        }
    }
}

/// Whether the tenant's tokens are known. Credentials that are refused are said even so.
fn tenant_was_read(draft: &mut Draft, tenant: &KnownTenant) -> bool {
    let now = draft.observed.now;
    let read_at = tenant.view.snapshot.read_at();
    if let Some(problem) = &tenant.view.problem {
        let error = &problem.error;
        let sentence = saying::failure_sentence(&error.sentence, error.code.as_deref());
        draft.unreachable = Some((saying::transient_reason(error.kind), sentence.clone()));
        match error.kind {
            ErrorKind::Credentials => draft.impatient(Reason::CredentialsRefused, sentence, problem.since),
            ErrorKind::Forbidden | ErrorKind::Unauthorized => {
                draft.impatient(Reason::PermissionMissing, saying::permission_sentence(&sentence), problem.since);
            }
            kind if read_at.is_none() => {
                draft.wait(saying::transient_reason(kind), sentence);
                draft.is_silent = has_said(draft);
            }
            _ => {}
        }
    }
    let Some(read_at) = read_at else {
        if tenant.view.problem.is_none() {
            draft.wait(Reason::TenantNotRead, "The tenant's tokens are being listed for the first time.".into());
            draft.is_silent = has_said(draft);
        }
        let opened = tenant.view.opened;
        if draft.is_silent && now > stale_after(opened, tenant) {
            draft.is_silent = false;
            draft.holds.clear();
            draft.stale = Some("The tenant's tokens could not be listed; what is shown may be out of date.".into());
        } else if draft.is_silent {
            draft.look_at(stale_after(opened, tenant));
        }
        // Any list will do.
        draft.list_after = Some(Timestamp::MIN);
        return false;
    };
    let stale_at = stale_after(read_at, tenant);
    if now > stale_at {
        draft.stale = Some(format!(
            "The tenant's tokens could last be listed at {}; what is shown may be out of date.",
            saying::time(read_at)
        ));
        if tenant.view.problem.is_none() {
            // The process slept: nobody tells of a list that changes nothing, unless it is waited for.
            draft.list_after = tenant.view.snapshot.last_list();
        }
    } else if tenant.view.problem.is_some() {
        draft.look_at(stale_at);
    }
    true
}

fn stale_after(time: Timestamp, tenant: &KnownTenant) -> Timestamp {
    time.saturating_add(tenant.view.poll_interval.saturating_mul(STALE_POLLS)).unwrap_or(Timestamp::MAX)
}

/// Whether everything was said of this very manifest before, so that a start of the operator changes nothing about it.
fn has_said(draft: &Draft) -> bool {
    let before = &draft.observed.status;
    before.token_id.is_some()
        && before.observed_generation == Some(draft.observed.object.generation)
        && crate::api::conditions::find(&before.conditions, ConditionType::TokenValid).is_some()
}

/// Whether a token that the snapshot lacks is gone for certain: two lists that began after our last write to it settled,
/// also when another process wrote it, and a GET that answers 404.
fn vanished(draft: &mut Draft, tenant: &KnownTenant, id: &str) -> bool {
    let snapshot = &tenant.view.snapshot;
    if snapshot.is_gone(id) {
        return true;
    }
    draft.wait(Reason::Vanished, format!("Graph's list lacks the token {id}; it is being looked for."));
    let written = draft.status.uploaded.as_ref().map(|uploaded| uploaded.time).max(draft.status.last_sync_trigger_time);
    let settled = written.and_then(|at| at.checked_add(draft.observed.timings.settling).ok()).unwrap_or(Timestamp::MIN);
    if draft.observed.now < settled {
        draft.look_at(settled);
    } else if snapshot.lists_since(settled) < LISTS_TO_VANISH {
        draft.list_after = snapshot.last_list().max(Some(settled));
    } else {
        draft.try_step(Step::Confirm { id: id.to_owned() });
    }
    false
}

/// The token is gone: from here on it is as if there had never been one.
fn forget_vanished(draft: &mut Draft) {
    draft.vanished = draft.status.token_id.take();
    draft.status.uploaded = None;
    draft.status.last_sync_trigger_time = None;
    draft.status.tenant = None;
    clear_mirror(&mut draft.status);
}

fn clear_mirror(status: &mut VppTokenStatus) {
    status.state = None;
    status.last_sync_status = None;
    status.last_sync_date_time = None;
    status.expiration_date_time = None;
    status.organization_name = None;
    status.vpp_token_account_type = None;
    status.apple_id = None;
    status.country_or_region = None;
    status.automatically_update_apps = None;
    status.display_name = None;
    status.location_name = None;
    status.role_scope_tag_ids = None;
    status.data_sharing_consent_granted = None;
    status.claim_token_management_from_external_mdm = None;
    status.last_modified_date_time = None;
}

/// Whether so many of the tenant's claimed tokens are missing that creating them again would be folly.
fn many_vanished(draft: &Draft, tenant: &KnownTenant) -> bool {
    let claimed = &draft.observed.others.claimed;
    let is_there = |id: &String| tenant.view.snapshot.entry(id).is_some_and(Entry::is_present);
    let missing = claimed.keys().filter(|id| !is_there(id)).count() + 1;
    missing > MANY_VANISHED && missing * 2 > claimed.len() + 1
}

/// Equal for a person: case and surrounding space don't matter, and what Graph leaves out counts as equal.
fn same(found: Option<&str>, wanted: &str) -> bool {
    found.is_none_or(|found| found.trim().to_lowercase() == wanted.trim().to_lowercase())
}

/// Graph's times have fractions, a file's have none.
fn same_second(one: Option<Timestamp>, other: Timestamp) -> bool {
    one.is_some_and(|one| one.as_second() == other.as_second())
}

/// A plan in the making.
struct Draft<'a> {
    observed: &'a Observed,
    status: VppTokenStatus,
    step: Option<Step>,
    again: Option<Timestamp>,
    list_after: Option<Timestamp>,
    holds: Vec<Hold>,
    working: Option<(Reason, String)>,
    differing: Option<BTreeSet<Field>>,
    unreachable: Option<(Reason, String)>,
    stale: Option<String>,
    /// Nothing new can be said, so that what was said stays.
    is_silent: bool,
    vanished: Option<String>,
    sync_held: Option<Hold>,
    entity: Option<Entity>,
    sayings: Vec<Saying>,
}

impl<'a> Draft<'a> {
    fn new(observed: &'a Observed) -> Self {
        let mut status = observed.status.clone();
        status.observed_generation = Some(observed.object.generation);
        Self {
            observed,
            status,
            step: None,
            again: None,
            list_after: None,
            holds: Vec::new(),
            working: None,
            differing: None,
            unreachable: None,
            stale: None,
            is_silent: false,
            vanished: None,
            sync_held: None,
            entity: None,
            sayings: Vec::new(),
        }
    }

    /// The first step wins: steps are offered in the order of their importance.
    fn step(&mut self, step: Step) {
        self.step.get_or_insert(step);
    }

    /// A step that needs Graph: not while Graph can't be reached, nor while the last failure of its kind holds it back, nor a
    /// write when the manifest forbids it. True when it is taken, or would be but for an earlier one.
    fn try_step(&mut self, step: Step) -> bool {
        if step.priority().is_some() && only_reads(&self.observed.spec).is_some() {
            return false;
        }
        if step.kind().is_some_and(|kind| self.is_held_back(kind)) {
            return false;
        }
        self.step(step);
        true
    }

    /// Whether a kind of step has to wait, and says why.
    fn is_held_back(&mut self, kind: StepKind) -> bool {
        if let Some((reason, sentence)) = self.unreachable.clone() {
            self.wait(reason, sentence);
            return true;
        }
        if let TenantState::Known(tenant) = &self.observed.tenant
            && let Some(until) = tenant.view.paused_until.filter(|until| *until > self.observed.now)
        {
            self.wait(Reason::Throttled, format!("Graph asked to wait until {}.", saying::time(until)));
            self.look_at(until);
            return true;
        }
        let Some(failure) = self.observed.failure(kind).cloned() else {
            return false;
        };
        let looked_since = match &self.observed.tenant {
            TenantState::Known(tenant) => tenant.view.snapshot.last_list().is_some_and(|began| began > failure.at),
            _ => true,
        };
        if (failure.maybe_executed || failure.kind == ErrorKind::NotFound) && !looked_since {
            // Look before trying again: it may have happened.
            saying::say_failure(self, &failure);
            self.list_after = Some(self.list_after.map_or(failure.at, |already| already.max(failure.at)));
            return true;
        }
        if self.observed.now < failure.not_before {
            saying::say_failure(self, &failure);
            self.look_at(failure.not_before);
            return true;
        }
        false
    }

    /// Something needs a person.
    fn hold(&mut self, reason: Reason, message: impl Into<String>) {
        self.holds.push(Hold { reason, message: message.into(), needs_person: true });
    }

    /// Something is expected to come by itself.
    fn wait(&mut self, reason: Reason, message: String) {
        self.holds.push(Hold { reason, message, needs_person: false });
    }

    /// Something that may come by itself, but needs a person after a while.
    fn impatient(&mut self, reason: Reason, message: String, since: Timestamp) {
        let patient_until = since.saturating_add(PATIENCE_WITH_CREDENTIALS).unwrap_or(Timestamp::MAX);
        let needs_person = self.observed.now >= patient_until;
        if !needs_person {
            self.look_at(patient_until);
        }
        self.holds.push(Hold { reason, message, needs_person });
    }

    /// The operator is at work.
    fn say_working(&mut self, reason: Reason, message: impl Into<String>) {
        let message = message.into();
        self.working.get_or_insert((reason, message));
    }

    /// Look again at a time, if not before.
    fn look_at(&mut self, time: Timestamp) {
        self.again = Some(self.again.map_or(time, |already| already.min(time)));
    }

    fn finish(mut self) -> Plan {
        let now = self.observed.now;
        if !self.holds.is_empty() {
            // Whatever should end it tells; if that is missed, it ends a little later.
            self.look_at(now.saturating_add(SLOW_LOOK).unwrap_or(Timestamp::MAX));
        }
        saying::conclude(&mut self);
        let planned_on = match &self.observed.tenant {
            TenantState::Known(tenant) => tenant.view.snapshot.last_list(),
            _ => None,
        };
        let again = self.again.map(|time| time.duration_since(now).max(SignedDuration::from_millis(100)));
        if !self.is_silent {
            let generation = self.observed.object.generation;
            self.status.conditions =
                crate::api::conditions::merge(&self.observed.status.conditions, &self.sayings, generation, now);
        }
        Plan {
            step: self.step,
            again,
            list_after: self.list_after,
            holds: self.holds,
            differing: self.differing,
            planned_on,
            status: self.status,
        }
    }
}
