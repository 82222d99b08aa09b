//! How a VppToken comes by its token: never two. Create is not idempotent, so it is announced in the status first, and
//! Graph is looked through after that.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::draft::Draft;
use super::file::{file_may_be_sent, hold_file_problem, hold_incomplete};
use super::same::{same, same_second};
use super::step::Step;
use super::wording::{list_of, time};
use crate::api::conditions::{ConditionType, find};
use crate::api::{ClaimedByAnother, CreationPolicy, PendingCreate, Reason, Uploaded};
use crate::tenant::Entry;
use crate::vpptoken::world::{FileFacts, KnownTenant, Permission, StepKind};

/// Whoever waits for a turn is told; a cache may tell late, so look again.
const TURN: SignedDuration = SignedDuration::from_secs(2);
/// What holds a create until a person does something about it.
const ASKS_FOR_A_PERSON: [Reason; 5] = [
    Reason::AmbiguousMatch,
    Reason::SimilarTokenExists,
    Reason::ClaimedByAnother,
    Reason::OperationNotAllowed,
    Reason::GraphRefused,
];
/// Lists that must have been looked through before a create of unknown outcome counts as not carried out.
const LISTS_TO_LOOK_THROUGH: usize = 3;

/// Takes over the token that the manifest names.
pub(super) fn bind(draft: &mut Draft, tenant: &KnownTenant, id: String) {
    // tokenId was set after a create was announced. One that was sent is resolved first: its token must not be left behind,
    // nor others with this Apple ID wait for ever.
    if let Some(pending) = draft.status.pending_create.clone() {
        if draft.observed.unsent_create().is_none() && !was_not_carried_out(draft, tenant, &pending) {
            return;
        }
        draft.step(Step::Withdraw);
    }
    if !tenant.allowed.contains(&Permission::Bind) {
        return not_allowed(draft, "Bind", "take over a token by tokenId");
    }
    let snapshot = &tenant.view.snapshot;
    let entry =
        snapshot.entry(&id).or_else(|| snapshot.entries().find(|entry| entry.entity.id.eq_ignore_ascii_case(&id)));
    match entry.map(|entry| entry.entity.id.clone()) {
        Some(id) if draft.observed.others.claimed.contains_key(&id) => claimed(draft, &id),
        Some(id) => {
            draft.say_working(Reason::Updating, format!("The token {id} is being taken over."));
            draft.step(Step::Bind { id });
        }
        // It may have come since the last list: asked for once.
        None if !snapshot.is_gone(&id)
            && stalled_before(draft).is_none_or(|stalled| stalled.reason != Reason::TokenNotFound.as_str())
            && draft.unreachable.is_none()
            && draft.observed.failure(StepKind::Confirm).is_none() =>
        {
            draft.wait(Reason::TokenNotFound, format!("The token {id} is being looked for."));
            draft.try_step(Step::Confirm { id });
        }
        None => draft.hold(
            Reason::TokenNotFound,
            format!(
                "There is no token {id} in this tenant: it was deleted, or tokenId is wrong. Compare it with the ids that \
                 Intune shows; tokenId can't be changed, so delete this VppToken and create it again with the right one."
            ),
        ),
    }
}

/// Adopts or creates.
pub(super) fn plan(draft: &mut Draft, tenant: &KnownTenant) {
    if let Some(pending) = draft.status.pending_create.clone() {
        match draft.observed.unsent_create() {
            Some(unsent) => announced(draft, tenant, &pending, unsent.list_after),
            None => {
                if was_not_carried_out(draft, tenant, &pending) {
                    // Whatever may hold the next try, nobody waits for this one any more.
                    say_creating(draft);
                    draft.step(Step::Withdraw);
                }
            }
        }
        return;
    }
    let Some(NewFile { file, apple_id }) = usable_file(draft) else { return };
    // A token that belongs to nobody yet may be what the other one has just created.
    if draft.observed.others.creating {
        draft.look_at(draft.observed.now.saturating_add(TURN).unwrap_or(Timestamp::MAX));
        if stalled_before(draft).is_some_and(|stalled| ASKS_FOR_A_PERSON.iter().any(|it| it.as_str() == stalled.reason))
        {
            // It would not create either if it had its turn.
            draft.is_silent = true;
            return;
        }
        return draft.wait(
            Reason::WaitingForTurn,
            "Another VppToken with this Apple ID is being created; creates go one after the other.".into(),
        );
    }
    let holds = draft.holds.len();
    if let Some(adopt) = choose(draft, tenant, file, apple_id) {
        draft.step(adopt);
        return;
    }
    if draft.holds.len() > holds || !may_create(draft, tenant) || draft.is_held_back(StepKind::Create) {
        return;
    }
    let known = look_alikes(tenant, apple_id, &file.organization_name);
    let pending = PendingCreate {
        sha256: file.sha256.clone(),
        since: draft.observed.now,
        apple_id: apple_id.to_owned(),
        organization_name: file.organization_name.clone(),
        expiration_date_time: file.expiration,
        known_ids: known.map(|entry| entry.entity.id.clone()).collect(),
    };
    draft.say_failed_before(StepKind::Create);
    say_creating(draft);
    draft.step(Step::Announce(pending));
}

/// Before a deletion: what became of a create that was announced.
pub(super) fn resolve(draft: &mut Draft, tenant: &KnownTenant) {
    let unsent = draft.observed.unsent_create().is_some();
    let Some(pending) = draft.status.pending_create.clone() else {
        return;
    };
    if unsent || was_not_carried_out(draft, tenant, &pending) {
        draft.holds.clear();
        draft.step(Step::Withdraw);
    }
}

/// Announced by this process and not sent: look through a list that began after the announcement, then create.
fn announced(draft: &mut Draft, tenant: &KnownTenant, pending: &PendingCreate, list_after: Timestamp) {
    say_creating(draft);
    let Some(NewFile { file, apple_id }) = usable_file(draft) else {
        return draft.step(Step::Withdraw);
    };
    let is_as_announced = pending.sha256 == file.sha256 && same(Some(&pending.apple_id), apple_id);
    if !is_as_announced || draft.observed.others.creating || !may_create(draft, tenant) {
        return draft.step(Step::Withdraw);
    }
    if tenant.view.snapshot.last_list().is_none_or(|began| began <= list_after) {
        draft.say_failed_before(StepKind::Create);
        draft.list_after = Some(list_after);
        if let Some((reason, sentence)) = draft.unreachable.clone() {
            draft.wait(reason, sentence);
        }
        return;
    }
    let holds = draft.holds.len();
    match choose(draft, tenant, file, apple_id) {
        Some(adopt) => draft.step(adopt),
        None if draft.holds.len() > holds => draft.step(Step::Withdraw),
        // If the answer got lost, a token that the announcement does not know would be taken for the created one.
        None if look_alikes(tenant, apple_id, &file.organization_name)
            .any(|entry| !pending.known_ids.contains(&entry.entity.id)) =>
        {
            draft.step(Step::Withdraw);
        }
        None => {
            draft.try_step(Step::Create);
        }
    }
}

/// A create was announced, and whether it was carried out is not known: whatever token of the file is not one of the known
/// ones is ours. True when it is certain that it was not carried out.
fn was_not_carried_out(draft: &mut Draft, tenant: &KnownTenant, pending: &PendingCreate) -> bool {
    let snapshot = &tenant.view.snapshot;
    let found: Vec<&Entry> = candidates(draft, tenant, &pending.apple_id, &pending.organization_name)
        .into_iter()
        .filter(|entry| !pending.known_ids.contains(&entry.entity.id))
        // Another file's is what a person created meanwhile: it would count as having this file.
        .filter(|entry| entry.entity.expiration.is_none_or(|at| same_second(Some(at), pending.expiration_date_time)))
        .collect();
    let named = draft.observed.spec.token_id.as_deref();
    let is_named = |entry: &&Entry| named.is_some_and(|id| entry.entity.id.eq_ignore_ascii_case(id));
    // Of several, a person may have said which.
    let chosen = found.iter().copied().find(is_named).filter(|_| found.len() > 1);
    let found = chosen.map_or(found, |entry| vec![entry]);
    match found.as_slice() {
        [] => {}
        [_] if chosen.is_some() && !tenant.allowed.contains(&Permission::Bind) => {
            not_allowed(draft, "Bind", "take over a token by tokenId");
            return false;
        }
        [entry] => {
            let uploaded = Uploaded {
                sha256: pending.sha256.clone(),
                expiration_date_time: pending.expiration_date_time,
                organization_name: pending.organization_name.clone(),
                time: pending.since,
            };
            draft.say_working(Reason::Creating, "The token that was being created is found in Graph.");
            draft.step(Step::Adopt { id: entry.entity.id.clone(), uploaded });
            return false;
        }
        several => {
            let message = format!(
                "A create was sent whose answer was lost, and Graph now has several tokens that could be its result: {}. \
                 Set tokenId to the right one, or remove the others in Intune.",
                list_of(several)
            );
            draft.hold(Reason::AmbiguousMatch, message);
            return false;
        }
    }
    let failure = draft.observed.memory.failures.get(&StepKind::Create);
    // It may have been sent long after it was announced: by this process at the last failure, by another one that is no more
    // before this one began.
    let sent = failure.filter(|failure| failure.maybe_executed).map(|failure| failure.began);
    let since = pending.since.max(tenant.view.opened).max(sent.unwrap_or(Timestamp::MIN));
    let until = since.saturating_add(draft.observed.timings.unknown_outcome).unwrap_or(Timestamp::MAX);
    let lists = snapshot.lists_since(since);
    if draft.observed.now >= until
        && lists >= LISTS_TO_LOOK_THROUGH
        && snapshot.last_list().is_some_and(|began| began >= until)
    {
        return true;
    }
    let why = failure.map(|failure| format!(" ({})", failure.message)).unwrap_or_default();
    draft.wait(
        Reason::CreateOutcomeUnknown,
        format!(
            "A create was announced at {}, and whether Graph carried it out is not known{why}. Graph is being searched for \
             the token; without a result it counts as not carried out after {}.",
            time(pending.since),
            time(until)
        ),
    );
    if draft.observed.now >= until {
        draft.list_after = Some(until.max(snapshot.last_list().unwrap_or(until)));
    } else {
        if lists == 0 && since <= draft.observed.now {
            draft.list_after = Some(since);
        } else if lists == 0 {
            // Announced by a process whose clock was ahead: no list can have begun after that.
            draft.look_at(since);
        }
        draft.look_at(until);
    }
    false
}

/// Looks through the tokens that nobody has: an exact match is taken over, a similar one makes it stop. None when there is
/// neither, or when it stops.
fn choose(draft: &mut Draft, tenant: &KnownTenant, file: &FileFacts, apple_id: &str) -> Option<Step> {
    let is_exact = |entry: &&Entry| same_second(entry.entity.expiration, file.expiration);
    if let Some(id) = anothers(draft, tenant, file, apple_id) {
        claimed_by_file(draft, &id);
        return None;
    }
    let similar = candidates(draft, tenant, apple_id, &file.organization_name);
    let exact: Vec<&Entry> = similar.iter().copied().filter(is_exact).collect();
    match exact.as_slice() {
        [] => {}
        [entry] if tenant.allowed.contains(&Permission::Adopt) => {
            draft.say_working(Reason::Creating, "Graph already has this token; it is being taken over.");
            return Some(Step::Adopt { id: entry.entity.id.clone(), uploaded: found_uploaded(draft, file, entry) });
        }
        [_] => {
            not_allowed(draft, "Adopt", "take over a token that Graph already has");
            return None;
        }
        several => {
            let message = format!(
                "Graph has several tokens that match the file exactly, and none of them belongs to a VppToken: {}. Remove \
                 all but one in Intune, or set tokenId to the right one.",
                list_of(several)
            );
            draft.hold(Reason::AmbiguousMatch, message);
            return None;
        }
    }
    if !similar.is_empty() && draft.observed.spec.creation_policy == CreationPolicy::Unique {
        let message = format!(
            "Graph has tokens with this Apple ID and organization that belong to no VppToken: {}. One of them may be an \
             older file of the same location, and two tokens of one location stop its syncing. Set tokenId to take one \
             over{}, or creationPolicy: Always to create another one all the same.",
            list_of(&similar),
            if tenant.allowed.contains(&Permission::Bind) { "" } else { " (once the ClusterGraphTenant allows Bind)" },
        );
        draft.hold(Reason::SimilarTokenExists, message);
    }
    None
}

/// The token that the file belongs to, if another VppToken has it.
fn anothers(draft: &Draft, tenant: &KnownTenant, file: &FileFacts, apple_id: &str) -> Option<String> {
    let others = &draft.observed.others;
    let taken = look_alikes(tenant, apple_id, &file.organization_name)
        .filter(|entry| others.claimed.contains_key(&entry.entity.id));
    let taken: Vec<&Entry> = taken.collect();
    // Also before a list shows its token, or the new expiry.
    let uploaded = others.files.get(&file.sha256).filter(|id| !tenant.view.snapshot.is_gone(id));
    let by_expiry = || taken.iter().find(|entry| same_second(entry.entity.expiration, file.expiration));
    // Once found, it stays so: two files of one location may be renewed one after the other.
    let spec = &draft.observed.spec;
    let before = draft.status.claimed_by_another.as_ref().filter(|before| {
        spec.creation_policy == CreationPolicy::Unique
            && spec.token_secret_ref.as_ref() == Some(&before.token_secret_ref)
    });
    let before = taken.iter().find(|entry| before.is_some_and(|before| before.token_id == entry.entity.id));
    let id_of = |entry: &&Entry| entry.entity.id.clone();
    uploaded.cloned().or_else(|| before.or_else(by_expiry).map(id_of))
}

/// An exact match was not uploaded by us, so it counts as uploaded before its last sync; one that never synced is new.
fn found_uploaded(draft: &Draft, file: &FileFacts, entry: &Entry) -> Uploaded {
    Uploaded {
        sha256: file.sha256.clone(),
        expiration_date_time: file.expiration,
        organization_name: file.organization_name.clone(),
        time: entry.entity.last_sync.unwrap_or(draft.observed.now),
    }
}

/// Tokens that belong to no other VppToken, with this Apple ID and organization.
fn candidates<'a>(draft: &Draft, tenant: &'a KnownTenant, apple_id: &str, organization: &str) -> Vec<&'a Entry> {
    let claimed = &draft.observed.others.claimed;
    look_alikes(tenant, apple_id, organization).filter(|entry| !claimed.contains_key(&entry.entity.id)).collect()
}

/// Tokens with this Apple ID and organization, also those that another VppToken has: it may let go of them.
fn look_alikes<'a>(tenant: &'a KnownTenant, apple_id: &str, organization: &str) -> impl Iterator<Item = &'a Entry> {
    tenant.view.snapshot.not_gone().filter(move |entry| looks_like(entry, apple_id, organization))
}

fn looks_like(entry: &Entry, apple_id: &str, organization: &str) -> bool {
    same(entry.entity.apple_id.as_deref(), apple_id) && same(entry.entity.organization_name.as_deref(), organization)
}

/// What a token is created of.
struct NewFile<'a> {
    file: &'a FileFacts,
    apple_id: &'a str,
}

/// The token file and its Apple ID, if the file may be uploaded as a new token.
fn usable_file<'a>(draft: &mut Draft<'a>) -> Option<NewFile<'a>> {
    let observed = draft.observed;
    let Some(apple_id) = observed.spec.apple_id.as_deref() else {
        hold_incomplete(draft);
        return None;
    };
    match &observed.file {
        Err(problem) => {
            hold_file_problem(draft, problem);
            None
        }
        Ok(file) => file_may_be_sent(draft, file, None).then_some(NewFile { file, apple_id }),
    }
}

fn may_create(draft: &mut Draft, tenant: &KnownTenant) -> bool {
    if !tenant.allowed.contains(&Permission::Create) {
        not_allowed(draft, "Create", "create a token");
        return false;
    }
    if draft.observed.spec.suspend {
        draft.hold(Reason::Suspended, "While suspend is true, the token is not created in Graph.");
        return false;
    }
    true
}

fn say_creating(draft: &mut Draft) {
    match draft.vanished.clone() {
        Some(id) => {
            draft.say_working(Reason::Vanished, format!("The token {id} is gone from Graph; it is created again."))
        }
        None => draft.say_working(Reason::Creating, "The token is being created in Graph."),
    }
}

/// What the status says of this very manifest, if it says that it needs a person.
fn stalled_before<'a>(draft: &Draft<'a>) -> Option<&'a Condition> {
    let before = &draft.observed.status;
    find(&before.conditions, ConditionType::Stalled)
        .filter(|_| before.observed_generation == Some(draft.observed.object.generation))
}

/// Another VppToken has the token that the file belongs to.
fn claimed_by_file(draft: &mut Draft, id: &str) {
    let secret = draft.observed.spec.token_secret_ref.clone();
    draft.status.claimed_by_another =
        secret.map(|token_secret_ref| ClaimedByAnother { token_id: id.to_owned(), token_secret_ref });
    draft.hold(
        Reason::ClaimedByAnother,
        format!(
            "The token file belongs to the token {id} in Graph, which another VppToken has. Delete one of the two. If the \
             Secret has the file of another location by now, set creationPolicy: Always."
        ),
    );
}

/// Another VppToken has the token.
pub(super) fn claimed(draft: &mut Draft, id: &str) {
    draft.hold(
        Reason::ClaimedByAnother,
        format!("The token {id} in Graph already belongs to another VppToken. Delete one of the two."),
    );
}

fn not_allowed(draft: &mut Draft, operation: &str, what: &str) {
    draft.hold(
        Reason::OperationNotAllowed,
        format!("The ClusterGraphTenant does not allow to {what}. Have {operation} added to allowedOperations."),
    );
}
