//! Adopts or creates the token of a VppToken, and never creates two. A create is not idempotent: its intent is recorded
//! in the status first, and Graph is searched after that.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::draft::{Blocker, Draft, unreachable};
use super::equality::{Comparison, Identity, Likeness, same};
use super::file::{file_may_be_sent, stall_on_file_problem, stall_on_incomplete_spec};
use super::findings::News;
use super::messages::{list_of, list_of_differences, time};
use super::ownership::{stall_on_owner, stall_on_owner_of_file};
use super::settings::{settings, wanted};
use super::step::{NewToken, Step, Write};
use super::vanishing::wait_until_vanished;
use crate::api::conditions::{ConditionType, find};
use crate::api::{AccountType, PendingCreate, Reason, TokenId, Uploaded};
use crate::graph::{Entity, TokenSettings};
use crate::tenant::{Entry, Timings};
use crate::vpptoken::observed::{FileFacts, KnownTenant, Observed, Permission, StepKind};

/// An object that waits for a lock is triggered when the lock is released; as a cache may be late, it is also requeued.
const CREATE_LOCK_RECHECK: SignedDuration = SignedDuration::from_secs(10);
/// A sync moves `lastModifiedDateTime`, too: Graph was seen to set it 3 ms after `lastSyncDateTime`.
const MODIFIED_BY_SYNC: SignedDuration = SignedDuration::from_secs(1);
/// What stalls a create until a person acts.
const NEEDS_ACTION: [Reason; 5] = [
    Reason::AmbiguousMatch,
    Reason::SimilarTokenExists,
    Reason::ClaimedByAnother,
    Reason::OperationNotAllowed,
    Reason::GraphRefused,
];
/// What is wrong with a manifest, or with what its tenant object allows. Nothing is created before that is corrected.
const WRONG_MANIFEST: [Reason; 4] =
    [Reason::ScheduleInvalid, Reason::ScheduleNeverFires, Reason::SettingUnknownToApi, Reason::OperationNotAllowed];
/// Lists that must have been searched before a create of unknown outcome counts as not carried out.
const LISTS_TO_LOOK_THROUGH: usize = 3;

/// The outcome of a create is known when its intent was recorded before this: `knownIds` and the claims show it.
pub(crate) fn outcomes_known_until(now: Timestamp, timings: &Timings) -> Timestamp {
    now.checked_sub(timings.unknown_outcome).unwrap_or(Timestamp::MIN)
}

/// An intent of another object that was recorded after this keeps an object from creating. Neither of the two goes first: each
/// may have recorded its own intent before it saw the other's, as in two processes, so each that sees the other's abandons its
/// own. `known_until` is [`outcomes_known_until`], and `opened` when the session with the tenant began, if there is one: another
/// process may have sent a create long after its intent, and until it ended, just before this one began.
pub(crate) fn rival_intents_since(known_until: Timestamp, opened: Option<Timestamp>) -> Timestamp {
    if opened.is_none_or(|opened| opened > known_until) { Timestamp::MIN } else { known_until }
}

/// Takes over the token that the manifest names.
pub(super) fn bind(draft: &mut Draft, tenant: &KnownTenant, id: &TokenId) -> News {
    // tokenId was set after an intent was recorded. If its create was sent, that is resolved first: its token must not
    // be left behind, and others with this Apple ID must not wait for ever.
    if let Err(news) = resolve(draft, tenant) {
        return news;
    }
    if !tenant.allowed.contains(&Permission::Bind) {
        not_allowed(draft, "Bind", "take over a token by tokenId");
        return News::Progress;
    }
    let snapshot = &tenant.view.snapshot;
    let entry = snapshot.entry(id.as_str()).or_else(|| snapshot.listed().find(|entry| id.matches(&entry.entity.id)));
    match entry.map(|entry| entry.entity.id.clone()) {
        Some(id) if draft.observed.others.claims.contains(&id) => stall_on_owner(draft, &id),
        Some(id) => {
            if let Err(news) = check_namespaces_read(draft) {
                return news;
            }
            draft.set_progress(Reason::Updating, format!("The token {id} is being taken over."));
            draft.step(Step::Bind { id });
        }
        None => look_for_named(draft, tenant, id),
    }
    News::Progress
}

/// The token that the manifest names may have been created since the last list: it is asked for until Graph answers.
fn look_for_named(draft: &mut Draft, tenant: &KnownTenant, id: &TokenId) {
    let snapshot = &tenant.view.snapshot;
    let was_answered = snapshot.missing_since(id.as_str()).is_some() || snapshot.is_confirmed_absent(id.as_str());
    if was_answered || stalled_before(draft).is_some_and(|stalled| stalled.reason == Reason::TokenNotFound.as_str()) {
        return draft.stall(
            Reason::TokenNotFound,
            format!(
                "There is no token {id} in this tenant: it was deleted, or tokenId is wrong. Compare it with the ids that \
                 Intune shows; tokenId can't be changed, so delete this VppToken and create it again with the right one."
            ),
        );
    }
    let looked_for = format!("The token {id}, which tokenId names, is being looked for.");
    if let Some(blocker) = draft.offer(tenant, Step::Confirm { id: id.as_str().to_owned() }).blocker {
        let message = format!("{looked_for} {}", blocker.message);
        draft.blockers.push(Blocker { message, ..blocker });
    }
    draft.set_progress(Reason::Updating, looked_for);
}

/// Adopts or creates. `vanished` is the token that it had before, if that has vanished.
pub(super) fn plan(draft: &mut Draft, tenant: &KnownTenant, vanished: Option<&str>) -> News {
    let Some(pending) = draft.status.pending_create.clone() else {
        return begin(draft, tenant, vanished);
    };
    if let Some(unsent) = draft.observed.unsent_intent() {
        send_intent(draft, tenant, &pending, unsent.list_after, vanished);
        return News::Progress;
    }
    match outcome(draft, tenant, &pending) {
        CreateOutcome::NotCarriedOut => {
            // Whatever blocks the next try, others need not wait for this one any more.
            set_creating(draft, vanished);
            draft.step(abandon(&pending));
            News::Progress
        }
        CreateOutcome::Open(news) => news,
    }
}

/// Adopts a token, or records the intent to create one.
fn begin(draft: &mut Draft, tenant: &KnownTenant, vanished: Option<&str>) -> News {
    let Some(new) = usable_file(draft) else { return News::Progress };
    if let Err(news) = check_namespaces_read(draft).and_then(|()| check_turn(draft)) {
        return news;
    }
    match find_match(draft, tenant, new) {
        Match::Adopt { id, uploaded } => draft.step(Step::Adopt { id, uploaded, is_own_create: false }),
        Match::Blocked => {}
        Match::None => {
            if may_create(draft, tenant) && !draft.is_blocked(tenant, StepKind::Create) {
                draft.report_earlier_failure(StepKind::Create);
                set_creating(draft, vanished);
                draft.step(Step::RecordIntent(intent(draft.observed, tenant, new)));
            }
        }
    }
    News::Progress
}

/// Checks that no other create goes first.
fn check_turn(draft: &mut Draft) -> Result<(), News> {
    // An unclaimed token may be the result of the other create.
    if !draft.observed.others.creating {
        return Ok(());
    }
    draft.requeue_at(draft.observed.now.saturating_add(CREATE_LOCK_RECHECK).unwrap_or(Timestamp::MAX));
    if needed_action_before(draft) {
        // It could not create even if the other one were done.
        return Err(News::Nothing);
    }
    draft.wait(
        Reason::WaitingForCreate,
        "Another VppToken with this Apple ID, or with a file of the same organization and expiry, is being created; such \
         creates go one after the other."
            .into(),
    );
    Err(News::Progress)
}

fn intent(observed: &Observed, tenant: &KnownTenant, new: NewFile<'_>) -> PendingCreate {
    let NewFile { file, apple_id } = new;
    PendingCreate {
        sha256: file.sha256.clone(),
        since: observed.now,
        apple_id: apple_id.to_owned(),
        organization_name: file.organization_name.clone(),
        expiration_date_time: file.expiration,
        known_ids: known_ids(tenant, new.identity()).cloned().collect(),
    }
}

/// Before a deletion, or a token is taken over by its id: abandons a recorded intent, unless its create may have been
/// carried out.
pub(super) fn resolve(draft: &mut Draft, tenant: &KnownTenant) -> Result<(), News> {
    let Some(pending) = draft.status.pending_create.clone() else {
        return Ok(());
    };
    if draft.observed.unsent_intent().is_none()
        && let CreateOutcome::Open(news) = outcome(draft, tenant, &pending)
    {
        return Err(news);
    }
    draft.step(abandon(&pending));
    Ok(())
}

/// The intent was recorded by this process and not sent: search a list that began after it was recorded, then create.
fn send_intent(
    draft: &mut Draft,
    tenant: &KnownTenant,
    pending: &PendingCreate,
    list_after: Timestamp,
    vanished: Option<&str>,
) {
    set_creating(draft, vanished);
    let Some(new) = usable_file(draft) else {
        return draft.step(abandon(pending));
    };
    let is_as_recorded = pending.sha256 == new.file.sha256 && same(Some(&pending.apple_id), new.apple_id);
    let others = &draft.observed.others;
    if !is_as_recorded || others.creating || others.unread || !may_create(draft, tenant) {
        return draft.step(abandon(pending));
    }
    if tenant.view.snapshot.last_list().is_none_or(|began| began <= list_after) {
        draft.report_earlier_failure(StepKind::Create);
        draft.await_list(list_after);
        draft.blockers.extend(unreachable(tenant));
        return;
    }
    match find_match(draft, tenant, new) {
        Match::Adopt { id, uploaded } => draft.step(Step::Adopt { id, uploaded, is_own_create: false }),
        Match::Blocked => draft.step(abandon(pending)),
        // If the answer got lost, a token that is not in knownIds would be taken for the created one.
        Match::None if known_ids(tenant, new.identity()).any(|id| !pending.known_ids.contains(id)) => {
            draft.step(abandon(pending));
        }
        Match::None => {
            let create = Write::Create(Box::new(new_token(draft.observed, pending, new.file)));
            draft.try_step(tenant, Step::Write(create));
        }
    }
}

/// What is sent to create a token.
fn new_token(observed: &Observed, pending: &PendingCreate, file: &FileFacts) -> NewToken {
    let named = wanted(observed);
    let settings = settings(&observed.spec, |field| named.iter().any(|(wanted, _)| *wanted == field));
    // Without a type, Graph would choose one that can't be changed by a manifest that leaves it out.
    let account_type = observed.spec.vpp_token_account_type.unwrap_or(AccountType::Business);
    NewToken {
        pending: pending.clone(),
        file: file.clone(),
        settings: TokenSettings { vpp_token_account_type: Some(account_type.as_graph()), ..settings },
        named,
        // The file is uploaded with it, which also answers a request for an upload.
        request: observed.object.upload_request.clone(),
    }
}

fn abandon(pending: &PendingCreate) -> Step {
    Step::AbandonIntent { since: pending.since }
}

/// What became of a create whose intent was recorded, and which may have been sent.
enum CreateOutcome {
    /// It is certain that it was not carried out.
    NotCarriedOut,
    /// It may have been carried out: its result was found, or is being looked for.
    Open(News),
}

/// An intent was recorded, and whether its create was carried out is not known: a token of the file that is not in
/// knownIds is ours.
fn outcome(draft: &mut Draft, tenant: &KnownTenant, pending: &PendingCreate) -> CreateOutcome {
    if let Err(news) = check_namespaces_read(draft) {
        return CreateOutcome::Open(news);
    }
    if found_result(draft, tenant, pending) {
        return CreateOutcome::Open(News::Progress);
    }
    let snapshot = &tenant.view.snapshot;
    let failure = draft.observed.attempts.failures.get(&StepKind::Create);
    // The create may have been sent long after its intent was recorded: by this process at the last failure, or by an
    // earlier process before this one began.
    let sent = failure.filter(|failure| failure.maybe_executed).map(|failure| failure.began);
    // A time in the future was written by a process whose clock was wrong.
    let recorded = Some(pending.since).filter(|since| *since <= draft.observed.now);
    let since = recorded.max(sent).max(Some(tenant.view.opened)).unwrap_or(tenant.view.opened);
    let until = since.saturating_add(draft.observed.timings.unknown_outcome).unwrap_or(Timestamp::MAX);
    let lists = snapshot.lists_since(since);
    if draft.observed.now >= until
        && lists >= LISTS_TO_LOOK_THROUGH
        && snapshot.last_list().is_some_and(|began| began >= until)
    {
        return CreateOutcome::NotCarriedOut;
    }
    let why = failure.map(|failure| format!(" ({})", failure.message)).unwrap_or_default();
    draft.wait(
        Reason::CreateOutcomeUnknown,
        format!(
            "A create was started at {}, and whether Graph carried it out is not known{why}. Graph is being searched for \
             the token; without a result it counts as not carried out after {}.",
            time(pending.since),
            time(until)
        ),
    );
    if draft.observed.now >= until {
        draft.await_list(snapshot.last_list().map_or(until, |began| began.max(until)));
    } else {
        if lists == 0 && since <= draft.observed.now {
            draft.await_list(since);
        } else if lists == 0 {
            // Recorded by a process whose clock was ahead: no list can have begun after that.
            draft.requeue_at(since);
        }
        draft.requeue_at(until);
    }
    CreateOutcome::Open(News::Progress)
}

/// Whether a token may be the result of a create whose outcome is not known. It is taken over; of several, a person says which.
fn found_result(draft: &mut Draft, tenant: &KnownTenant, pending: &PendingCreate) -> bool {
    let identity = Identity {
        organization_name: &pending.organization_name,
        apple_id: &pending.apple_id,
        expiration: pending.expiration_date_time,
    };
    // Also one that distinctFrom lists: knownIds has what was there before. One with another expiry or Apple ID was
    // created by somebody else meanwhile.
    let found: Vec<&Entry> = unclaimed(draft.observed, tenant, identity)
        .filter(|(entry, likeness)| likeness.may_be_result() && !pending.known_ids.contains(&entry.entity.id))
        .map(|(entry, _)| entry)
        .collect();
    let named = draft.observed.spec.token_id.as_ref();
    let is_named = |entry: &&Entry| named.is_some_and(|id| id.matches(&entry.entity.id));
    // Of several, tokenId may name the right one.
    let chosen = found.iter().copied().find(is_named).filter(|_| found.len() > 1);
    match chosen.map_or(found, |entry| vec![entry]).as_slice() {
        [] => return false,
        [_] if chosen.is_some() && !tenant.allowed.contains(&Permission::Bind) => {
            not_allowed(draft, "Bind", "take over a token by tokenId");
        }
        [entry] => {
            let uploaded = Uploaded {
                sha256: pending.sha256.clone(),
                expiration_date_time: pending.expiration_date_time,
                organization_name: pending.organization_name.clone(),
                time: draft.observed.wall_at(pending.since),
                encoding: None,
                secret_version: None,
                shown: false,
            };
            draft.set_progress(Reason::Creating, "The token that was being created is found in Graph.");
            draft.step(Step::Adopt { id: entry.entity.id.clone(), uploaded, is_own_create: true });
        }
        several => {
            let message = format!(
                "A create was sent whose answer was lost, and Graph now has several tokens that could be its result: {}. \
                 Set tokenId to the right one, or remove the others in Intune.",
                list_of(several)
            );
            draft.stall(Reason::AmbiguousMatch, message);
        }
    }
    true
}

/// What is found of a token that is about to be created.
enum Match {
    /// Graph has it already.
    Adopt { id: String, uploaded: Uploaded },
    /// It may be there, or must not be created yet: a blocker says why.
    Blocked,
    /// Nothing that could be it.
    None,
}

/// Searches the tokens: an unclaimed exact match is taken over, a similar one stalls.
fn find_match(draft: &mut Draft, tenant: &KnownTenant, new: NewFile<'_>) -> Match {
    if let Some(id) = token_with_the_file(draft, new) {
        stall_on_owner_of_file(
            draft,
            &id,
            "The very file was uploaded to it: if this VppToken is for another location, put that location's file into the \
             Secret.",
        );
        return Match::Blocked;
    }
    let similar: Vec<(&Entry, Likeness)> = unclaimed(draft.observed, tenant, new.identity())
        .filter(|(entry, likeness)| likeness.is_similar() && !is_distinct(draft, &entry.entity.id))
        .collect();
    let exact: Vec<&Entry> =
        similar.iter().filter(|(_, likeness)| likeness.is_exact()).map(|(entry, _)| *entry).collect();
    match exact.as_slice() {
        [] => {}
        [entry] if tenant.allowed.contains(&Permission::Adopt) => {
            draft.set_progress(Reason::Creating, "Graph already has this token; it is being taken over.");
            let uploaded = found_uploaded(draft, new.file, entry);
            return Match::Adopt { id: entry.entity.id.clone(), uploaded };
        }
        [_] => {
            not_allowed(draft, "Adopt", "take over a token that Graph already has");
            return Match::Blocked;
        }
        several => {
            let message = format!(
                "Graph has several tokens that match the file exactly, and none of them belongs to a VppToken: {}. Remove \
                 all but one in Intune, set tokenId to the right one, or list those of other locations in distinctFrom.",
                list_of(several)
            );
            draft.stall(Reason::AmbiguousMatch, message);
            return Match::Blocked;
        }
    }
    // Only now: an unclaimed exact match is of this location, though the file of another location expires in the same
    // second.
    if let Some(id) = token_of_other(draft, tenant, new) {
        let advice = format!("If the Secret has the file of another location, list {id} in distinctFrom.");
        stall_on_owner_of_file(draft, &id, &advice);
        return Match::Blocked;
    }
    if !similar.is_empty() {
        stall_on_similar(draft, tenant, new, &similar);
        return Match::Blocked;
    }
    if awaits_missing(draft, tenant, new) { Match::Blocked } else { Match::None }
}

/// A token that could be taken over, or that would stall the create, may only be hidden by Graph for a while: until it
/// has vanished, none is created.
fn awaits_missing(draft: &mut Draft, tenant: &KnownTenant, new: NewFile<'_>) -> bool {
    let snapshot = &tenant.view.snapshot;
    let claims = &draft.observed.others.claims;
    let missing = snapshot.missing().map(|entry| (&entry.entity, Likeness::of(&entry.entity, new.identity())));
    let mut missing = missing
        .filter(|(entity, likeness)| likeness.is_similar() && !is_distinct(draft, &entity.id))
        .filter(|(entity, likeness)| !claims.contains(&entity.id) || likeness.is_exact())
        .filter_map(|(entity, _)| Some((entity.id.clone(), snapshot.missing_since(&entity.id)?)));
    let Some((id, since)) = missing.next() else { return false };
    let note = " It may be of the location of the token file, so none is created before that.";
    wait_until_vanished(draft, tenant, &id, since, note);
    true
}

/// A second entry for one location stops the syncing of both, so a person has to decide.
fn stall_on_similar(draft: &mut Draft, tenant: &KnownTenant, new: NewFile<'_>, similar: &[(&Entry, Likeness)]) {
    let may_bind = tenant.allowed.contains(&Permission::Bind);
    let differs_in_apple_id = similar
        .iter()
        .any(|(_, likeness)| (likeness.apple_id, likeness.expiration) == (Comparison::Different, Comparison::Equal));
    let mistyped = if differs_in_apple_id {
        format!(
            " One has the organization and the expiry of the file and another Apple ID: the appleId of the manifest, {}, may \
             be mistyped; then correct it.",
            new.apple_id
        )
    } else {
        String::new()
    };
    let message = format!(
        "Graph has tokens that belong to no VppToken and may be of the same location as the token file: {}. Two tokens of \
         one location stop its syncing.{mistyped} Set tokenId to take one over{}, or list those of other locations in \
         distinctFrom.",
        list_of_differences(similar, may_bind),
        if may_bind { "" } else { " (once the ClusterGraphTenant allows Bind)" },
    );
    draft.stall(Reason::SimilarTokenExists, message);
}

/// The token that another VppToken uploaded the very same file to: no two locations have the same file.
fn token_with_the_file(draft: &Draft, new: NewFile<'_>) -> Option<String> {
    // Also before a list shows that token, or its new expiry, and while it seems to have vanished: the other one decides that.
    draft.observed.others.claims.token_with_file(&new.file.sha256).map(str::to_owned)
}

/// The token of another VppToken that the file seems to belong to.
fn token_of_other(draft: &Draft, tenant: &KnownTenant, new: NewFile<'_>) -> Option<String> {
    let claims = &draft.observed.others.claims;
    let taken: Vec<(&Entry, Likeness)> = compared(tenant, new.identity())
        .filter(|(entry, likeness)| likeness.is_of_apple_id() && claims.contains(&entry.entity.id))
        .filter(|(entry, _)| !is_distinct(draft, &entry.entity.id))
        .collect();
    // Once found, it stays so: two files of one location may be renewed one after the other.
    let secret = draft.observed.spec.token_secret_ref.as_ref();
    let before = draft.status.claimed_by_another.as_ref();
    let before = before.filter(|before| secret == Some(&before.token_secret_ref)).map(|before| &before.token_id);
    let remembered = || taken.iter().find(|(entry, _)| Some(&entry.entity.id) == before);
    let by_expiry = || taken.iter().find(|(_, likeness)| likeness.is_exact());
    let (entry, _) = remembered().or_else(by_expiry)?;
    Some(entry.entity.id.clone())
}

/// An exact match may have got its file at any time. It counts as uploaded at its last sync, or now if it never synced, or
/// was changed since: by the upload, perhaps, which a sync has to follow.
fn found_uploaded(draft: &Draft, file: &FileFacts, entry: &Entry) -> Uploaded {
    let Entity { last_sync, last_modified, .. } = entry.entity;
    let is_older = |synced: &Timestamp| last_modified.is_some_and(|at| at.duration_since(*synced) > MODIFIED_BY_SYNC);
    file.as_uploaded(last_sync.filter(|synced| !is_older(synced)).unwrap_or(draft.observed.wall), false)
}

/// Whether the manifest says that a token is of another location.
fn is_distinct(draft: &Draft, id: &str) -> bool {
    draft.observed.spec.distinct_from.iter().any(|distinct| distinct.matches(id))
}

/// The tokens that may have the Apple ID or the expiry of an identity, each compared with it; no other is like it.
fn compared<'a>(tenant: &'a KnownTenant, identity: Identity<'a>) -> impl Iterator<Item = (&'a Entry, Likeness)> {
    let alike = tenant.view.snapshot.known_like(identity.apple_id, identity.expiration);
    alike.map(move |entry| (entry, Likeness::of(&entry.entity, identity)))
}

/// Tokens that no other VppToken has.
fn unclaimed<'a>(
    observed: &'a Observed,
    tenant: &'a KnownTenant,
    identity: Identity<'a>,
) -> impl Iterator<Item = (&'a Entry, Likeness)> {
    let claims = &observed.others.claims;
    compared(tenant, identity).filter(|(entry, _)| !claims.contains(&entry.entity.id))
}

/// The tokens that could be mistaken for the result of a create, now or when Graph shows more of them: also those that
/// another VppToken has, which may give them up, those that are missing, and those that are known to be of other locations.
fn known_ids<'a>(tenant: &'a KnownTenant, identity: Identity<'a>) -> impl Iterator<Item = &'a String> {
    let missing = tenant.view.snapshot.missing().map(|entry| &entry.entity);
    let tokens = compared(tenant, identity).map(|(entry, _)| &entry.entity).chain(missing);
    tokens.filter(move |entity| Likeness::of(entity, identity).may_be_similar()).map(|entity| &entity.id)
}

/// What a token is created from.
#[derive(Clone, Copy)]
struct NewFile<'a> {
    file: &'a FileFacts,
    apple_id: &'a str,
}

impl<'a> NewFile<'a> {
    fn identity(self) -> Identity<'a> {
        let organization_name = &self.file.organization_name;
        Identity { organization_name, apple_id: self.apple_id, expiration: self.file.expiration }
    }
}

/// The token file and its Apple ID, if the file may be uploaded as a new token.
fn usable_file<'a>(draft: &mut Draft<'a>) -> Option<NewFile<'a>> {
    let observed = draft.observed;
    let Some(apple_id) = observed.spec.apple_id.as_deref() else {
        stall_on_incomplete_spec(draft);
        return None;
    };
    match &observed.file {
        Err(problem) => {
            stall_on_file_problem(draft, problem);
            None
        }
        Ok(file) => file_may_be_sent(draft, file, None).then_some(NewFile { file, apple_id }),
    }
}

fn may_create(draft: &mut Draft, tenant: &KnownTenant) -> bool {
    if draft.blockers.iter().any(|blocker| WRONG_MANIFEST.contains(&blocker.reason)) {
        return false;
    }
    if !tenant.allowed.contains(&Permission::Create) {
        not_allowed(draft, "Create", "create a token");
        return false;
    }
    if draft.observed.spec.suspend {
        draft.stall(Reason::Suspended, "While suspend is true, the token is not created in Graph.");
        return false;
    }
    true
}

fn set_creating(draft: &mut Draft, vanished: Option<&str>) {
    match vanished {
        Some(id) => {
            draft.set_progress(Reason::Vanished, format!("The token {id} is gone from Graph; it is created again."))
        }
        None => draft.set_progress(Reason::Creating, "The token is being created in Graph."),
    }
}

/// The condition Stalled of the same generation, if there is one.
fn stalled_before<'a>(draft: &Draft<'a>) -> Option<&'a Condition> {
    let before = &draft.observed.status;
    find(&before.conditions, ConditionType::Stalled)
        .filter(|_| before.observed_generation == Some(draft.observed.object.generation))
}

/// Whether the status of the same generation shows that a person has to act before a create.
fn needed_action_before(draft: &Draft) -> bool {
    stalled_before(draft).is_some_and(|stalled| NEEDS_ACTION.iter().any(|it| it.as_str() == stalled.reason))
}

/// A watched namespace was never read: a token that seems unclaimed may belong to a VppToken there, or be the result of
/// a create there. Until it is read, nothing can be done that depends on whose a token is.
pub(super) fn check_namespaces_read(draft: &mut Draft) -> Result<(), News> {
    if !draft.observed.others.unread {
        return Ok(());
    }
    if needed_action_before(draft) {
        // It could not create even if that namespace were read.
        return Err(News::Nothing);
    }
    draft.wait(
        Reason::NamespaceNotRead,
        "The operator can't read all of the namespaces that it watches, so it does not know which tokens the VppTokens \
         there have. Its log and the metric vpptoken_watch_up name the namespace: restore the operator's rights there, or \
         stop watching it."
            .into(),
    );
    Err(News::Progress)
}

fn not_allowed(draft: &mut Draft, operation: &str, what: &str) {
    draft.stall(
        Reason::OperationNotAllowed,
        format!("The ClusterGraphTenant does not allow to {what}. Have {operation} added to allowedOperations."),
    );
}
