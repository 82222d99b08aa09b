//! Carries out one step and returns its result.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use secrecy::SecretString;
use serde_json::json;

use super::at_graph::StepResult;
use super::claims::CreateKey;
use super::context::{Context, uid};
use super::error::Error;
use super::local_state::ReadFile;
use super::observe::{VersionedFile, read_file};
use super::observed::{DecidedOn, FileFacts, FileProblem, StepKind, TryStart, UnsentIntent};
use super::outcome::Outcome;
use super::plan::{EventNote, NewToken, Step, Wanted, Write};
use super::stripped::Stripped;
use crate::api::{EntraTenant, FINALIZER, NamespacedName, PendingCreate, Uploaded, VppToken};
use crate::graph::{GraphError, TokenPatch, TokenPost, TokenSettings};
use crate::tenant::{Field, IntentPermit, Session, Tenant, TenantKey, WritePermit};
use crate::token_file::TokenFile;

/// A permit for a step.
#[derive(Debug)]
pub(crate) enum Permit {
    /// To record the intent of a create; none if the last try to record it has left one.
    Intent(Option<IntentPermit>),
    /// To send a write.
    Write(WritePermit),
}

/// Carries out one step. What fails in Graph is remembered and shown, not an error.
///
/// # Errors
/// When Kubernetes can't be read or written.
pub(crate) async fn act(
    context: &Context,
    object: &VppToken,
    decided_on: &DecidedOn,
    step: &Step,
    permit: Option<Permit>,
) -> Result<StepResult, Error> {
    let actor = || Actor::new(context, object, decided_on);
    match step {
        Step::AbandonIntent { since } => {
            unlock_create(context, uid(object)?);
            Ok(StepResult { outcome: Some(Outcome::IntentAbandoned { since: *since }), ..StepResult::default() })
        }
        Step::Note(uploaded) => Ok(StepResult {
            outcome: Some(Outcome::Uploaded { uploaded: uploaded.clone(), request: None }),
            ..StepResult::default()
        }),
        Step::DeclineSync { request } => Ok(StepResult {
            outcome: Some(Outcome::SyncDeclined { request: request.clone() }),
            event: Some(EventNote::sync_declined()),
            ..StepResult::default()
        }),
        Step::DeclineUpload { request } => Ok(StepResult {
            outcome: Some(Outcome::UploadDeclined { request: request.clone() }),
            event: Some(EventNote::upload_declined()),
            ..StepResult::default()
        }),
        Step::AddFinalizer => finalizer(context, object, true).await,
        Step::RemoveFinalizer { warning } => {
            let mut result = finalizer(context, object, false).await?;
            result.event = warning.as_deref().map(EventNote::retained);
            Ok(result)
        }
        Step::RecordIntent(pending) => {
            let Some(Permit::Intent(permit)) = permit else { return Ok(StepResult::default()) };
            Ok(actor()?.map_or_else(StepResult::default, |actor| actor.record_intent(permit, pending)))
        }
        Step::Adopt { id, uploaded, is_own_create } => {
            let event = EventNote::adopted(id, *is_own_create);
            let adopt = |actor: Actor<'_>| actor.take_ownership(id, Some(uploaded.clone()), None, event);
            Ok(actor()?.map_or_else(StepResult::default, adopt))
        }
        Step::Bind { id } => {
            let bind = |actor: Actor<'_>| actor.take_ownership(id, None, None, EventNote::bound(id));
            Ok(actor()?.map_or_else(StepResult::default, bind))
        }
        Step::Confirm { id } | Step::ConfirmUpload { id } => {
            if let Some(actor) = actor()? {
                actor.confirm(id, step.writes()).await;
            }
            Ok(StepResult::default())
        }
        Step::Write(write) => {
            let Some(Permit::Write(permit)) = permit else { return Ok(StepResult::default()) };
            match actor()? {
                Some(actor) => actor.write(write, permit).await,
                None => Ok(StepResult::default()),
            }
        }
    }
}

async fn finalizer(context: &Context, object: &VppToken, add: bool) -> Result<StepResult, Error> {
    let mut finalizers: Vec<String> = object.finalizers().to_vec();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if add {
        finalizers.push(FINALIZER.to_owned());
    }
    let patch = json!({ "metadata": { "resourceVersion": object.resource_version(), "finalizers": finalizers } });
    let api = context.api(object)?;
    let patched = api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
    match patched {
        Ok(Stripped(patched)) => {
            context.apply_newest(&Arc::new(patched));
            Ok(StepResult { object_changed: true, ..StepResult::default() })
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            Ok(StepResult { object_changed: true, ..StepResult::default() })
        }
        Err(error) => Err(error.into()),
    }
}

/// Carries out the steps that need the tenant.
struct Actor<'a> {
    context: &'a Context,
    object: &'a VppToken,
    decided_on: &'a DecidedOn,
    uid: &'a str,
    tenant: Arc<Tenant>,
    session: Arc<Session>,
}

impl<'a> Actor<'a> {
    /// None when there is no session with the tenant that the decision was made for any more.
    fn new(context: &'a Context, object: &'a VppToken, decided_on: &'a DecidedOn) -> Result<Option<Self>, Error> {
        let Some(tenant) = context.registry.tenant_of(object) else { return Ok(None) };
        let Ok(session) = &tenant.session else { return Ok(None) };
        if decided_on.tenant.as_ref() != Some(&tenant.identity) {
            return Ok(None);
        }
        let session = Arc::clone(session);
        Ok(Some(Self { context, object, decided_on, uid: uid(object)?, tenant, session }))
    }

    async fn write(&self, write: &Write, permit: WritePermit) -> Result<StepResult, Error> {
        match write {
            Write::Create(new) => self.create(permit, new).await,
            Write::Upload { id, file, request } => self.upload(permit, id, file, request).await,
            Write::Update { id, changes, settings } => Ok(self.update(permit, id, changes, settings).await),
            Write::Sync { id, request, .. } => Ok(self.sync(permit, id, request).await),
            Write::Delete { id } => Ok(self.delete(permit, id).await),
        }
    }

    async fn confirm(&self, id: &str, before_write: bool) {
        let began = self.context.clock.now();
        let outcome = match before_write {
            true => self.session.confirm_before_write(id).await,
            false => self.session.confirm(id).await,
        };
        self.record_result(StepKind::Confirm, &outcome, began, None);
    }

    async fn delete(&self, permit: WritePermit, id: &str) -> StepResult {
        let began = self.context.clock.now();
        let outcome = self.session.delete(permit, id).await;
        self.record_result(StepKind::Delete, &outcome, began, None);
        let event = outcome.ok().map(|()| EventNote::deleted(id));
        StepResult { event, ..StepResult::default() }
    }

    /// The intent is remembered as unsent before the status is written: that write may take effect without an answer.
    fn record_intent(&self, permit: Option<IntentPermit>, pending: &PendingCreate) -> StepResult {
        if !self.lock_create(pending, permit) {
            return StepResult::default();
        }
        remember_intent(self.context, self.uid, pending, false);
        let outcome = Outcome::IntentRecorded(pending.clone(), self.tenant.identity.clone());
        StepResult { outcome: Some(outcome), ..StepResult::default() }
    }

    fn lock_create(&self, pending: &PendingCreate, permit: Option<IntentPermit>) -> bool {
        let who = NamespacedName::of(self.object);
        let tenant = self.tenant.identity.entra_tenant();
        let keys = CreateKey::of_pending(pending);
        self.context.local_state.lock_create(&tenant, &keys, self.uid, &who, self.context.clock.now(), permit)
    }

    /// The token belongs to this object from now on, unless another object has taken it meanwhile.
    fn take_ownership(
        &self,
        id: &str,
        uploaded: Option<Uploaded>,
        upload_request: Option<String>,
        event: EventNote,
    ) -> StepResult {
        let entra_tenant = self.tenant.identity.entra_tenant();
        if !self.context.local_state.claim(&entra_tenant, id, self.uid) {
            return StepResult::default();
        }
        trigger_stalled(self.context, &entra_tenant);
        let tenant = self.tenant.identity.clone();
        let outcome = Outcome::Owned { id: id.to_owned(), tenant, uploaded, upload_request };
        StepResult { outcome: Some(outcome), event: Some(event), ..StepResult::default() }
    }

    async fn create(&self, permit: WritePermit, new: &NewToken) -> Result<StepResult, Error> {
        let Some(read) = self.read_decided(&new.file).await? else { return Ok(StepResult::default()) };
        let file = &read.file;
        let token =
            TokenPost { token: self.to_send(file), sensitive: file.sensitive(), settings: new.settings.clone() };
        let pending = &new.pending;
        // A lock that has expired is taken again, unless another object has it.
        if !self.lock_create(pending, None) || !self.context.local_state.set_create_in_flight(self.uid, true) {
            // The object was deleted meanwhile, or another object has the lock: the next reconcile sees that.
            return Ok(StepResult::default());
        }
        // The create may be sent from here on: any interruption leaves its outcome unknown.
        self.context.local_state.change(self.uid, |state| state.attempts.unsent_intent = None);
        let began = self.context.clock.now();
        let guard = CreateGuard { context: self.context, uid: self.uid };
        let outcome = self.session.create(permit, &token, &new.named).await;
        drop(guard);
        self.record_result(StepKind::Create, &outcome, began, None);
        match outcome {
            Ok(entity) => {
                let uploaded = Some(self.uploaded(&read));
                let request = new.request.clone();
                self.unlock_if_deleted();
                Ok(self.take_ownership(&entity.id, uploaded, request, EventNote::created(&entity.id)))
            }
            Err(error) if error.maybe_executed() => {
                self.session.want_list_after(self.context.clock.now());
                Ok(StepResult::default())
            }
            Err(_) => {
                self.unlock_if_deleted();
                let outcome = Some(Outcome::IntentAbandoned { since: pending.since });
                Ok(StepResult { outcome, ..StepResult::default() })
            }
        }
    }

    /// The outcome of a create is known. Its locks are released with the status that shows it, because others see the intent
    /// until then; of an object that was deleted, at once.
    fn unlock_if_deleted(&self) {
        if !self.context.local_state.is_known(self.uid) {
            unlock_create(self.context, self.uid);
        }
    }

    async fn upload(
        &self,
        permit: WritePermit,
        id: &str,
        decided: &FileFacts,
        request: &Option<String>,
    ) -> Result<StepResult, Error> {
        let Some(read) = self.read_decided(decided).await? else { return Ok(StepResult::default()) };
        let file = &read.file;
        let patch = TokenPatch {
            token: Some(self.to_send(file)),
            sensitive: file.sensitive(),
            settings: TokenSettings::default(),
        };
        let began = self.context.clock.now();
        let outcome = self.session.update(permit, id, &patch, &[]).await;
        self.record_result(StepKind::Upload, &outcome, began, None);
        if outcome.is_err() {
            return Ok(StepResult::default());
        }
        let event = Some(EventNote::uploaded(id, file.expiration));
        let outcome = Outcome::Uploaded { uploaded: self.uploaded(&read), request: request.clone() };
        Ok(StepResult { outcome: Some(outcome), event, ..StepResult::default() })
    }

    async fn update(
        &self,
        permit: WritePermit,
        id: &str,
        changes: &BTreeMap<Field, Wanted>,
        settings: &TokenSettings,
    ) -> StepResult {
        let patch = TokenPatch { token: None, sensitive: Vec::new(), settings: settings.clone() };
        let written: Vec<(Field, String)> =
            changes.iter().map(|(field, wanted)| (*field, wanted.wanted.clone())).collect();
        let began = self.context.clock.now();
        let outcome = self.session.update(permit, id, &patch, &written).await;
        self.record_result(StepKind::Update, &outcome, began, None);
        if outcome.is_err() {
            return StepResult::default();
        }
        self.context.local_state.change(self.uid, |state| state.attempts.record_sent(written));
        StepResult { event: Some(EventNote::updated(changes)), ..StepResult::default() }
    }

    async fn sync(&self, permit: WritePermit, id: &str, request: &Option<String>) -> StepResult {
        let last_sync = self.session.view().snapshot.entry(id).and_then(|entry| entry.entity.last_sync);
        let (began, at) = (self.context.clock.now(), self.context.clock.wall());
        let outcome = self.session.sync(permit, id).await;
        self.record_result(StepKind::Sync, &outcome, began, last_sync);
        if outcome.is_err() {
            return StepResult::default();
        }
        let event = EventNote::sync_started(request.as_deref());
        let outcome = Outcome::Synced { at, uploaded: self.decided_on.uploaded, request: request.clone() };
        StepResult { outcome: Some(outcome), event, ..StepResult::default() }
    }

    /// Reads the file now; none if it is not the one that the decision was made on.
    async fn read_decided(&self, decided: &FileFacts) -> Result<Option<VersionedFile>, Error> {
        let read = read_file(self.context, self.object).await?;
        let facts = read.as_ref().map(|read| read.facts(self.tenant.encoding)).map_err(Clone::clone);
        if facts.as_ref().is_ok_and(|facts| facts.sha256 == decided.sha256) {
            return Ok(read.ok());
        }
        // The next decision is made on this one, although the watch has not shown it yet.
        let of = (decided.secret_version.clone(), self.tenant.encoding);
        let read = (facts != Err(FileProblem::NotReadable)).then(|| Box::new(ReadFile { of, file: facts }));
        self.context.local_state.change(self.uid, |state| state.file = read);
        Ok(None)
    }

    fn to_send(&self, file: &TokenFile) -> SecretString {
        file.to_send(self.tenant.encoding)
    }

    fn uploaded(&self, read: &VersionedFile) -> Uploaded {
        read.facts(self.tenant.encoding).as_uploaded(self.context.clock.wall(), false)
    }

    /// Remembers a failure with its growing delay, and forgets it after a success. `last_sync` is what Graph showed
    /// before a sync was sent.
    fn record_result<T>(
        &self,
        kind: StepKind,
        outcome: &Result<T, GraphError>,
        began: Timestamp,
        last_sync: Option<Timestamp>,
    ) {
        let inputs = self.decided_on.inputs.clone();
        let start = TryStart { began, began_wall: self.context.clock.wall_at(began), last_sync };
        self.context.local_state.change(self.uid, |state| match outcome {
            Ok(_) => {
                state.attempts.failures.remove(&kind);
            }
            Err(error) => {
                tracing::warn!(step = ?kind, %error, "graph refused or failed a step");
                let jitter = self.context.random.fraction();
                state.attempts.record_failure(kind, error, inputs, start, self.context.clock.now(), jitter);
            }
        });
    }
}

/// Marks a create as in flight until its answer, or until it is interrupted; then its outcome is unknown.
struct CreateGuard<'a> {
    context: &'a Context,
    uid: &'a str,
}

impl Drop for CreateGuard<'_> {
    fn drop(&mut self) {
        self.context.local_state.set_create_in_flight(self.uid, false);
    }
}

/// Remembers that an intent was not sent. A list that begins after now is searched before it is. `is_recorded` when its status is
/// written, as others can read it only then.
pub(super) fn remember_intent(context: &Context, uid: &str, pending: &PendingCreate, is_recorded: bool) {
    let unsent = UnsentIntent { since: pending.since, list_after: context.clock.now(), is_recorded };
    context.local_state.change(uid, |state| state.attempts.unsent_intent = Some(unsent));
}

/// A token has an owner now: triggers the objects that are stalled because of unclaimed tokens.
fn trigger_stalled(context: &Context, tenant: &EntraTenant) {
    let leads_there = |key: &TenantKey| context.leads_to(key, tenant);
    context.trigger_all(context.local_state.references(|references| references.awaiting_claim(leads_there)));
}

/// Releases the object's locks to create, and triggers the objects that waited for them.
pub(super) fn unlock_create(context: &Context, uid: &str) {
    context.local_state.change(uid, |state| state.attempts.unsent_intent = None);
    context.trigger_all(context.local_state.unlock_create(uid));
}
