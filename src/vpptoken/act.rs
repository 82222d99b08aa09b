//! Carries out one step, and says what came of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use secrecy::SecretString;
use serde_json::json;

use super::facts::Done;
use super::observe::{read_file, tenant_name};
use super::plan::{Step, Wanted};
use super::world::{Observed, StepKind, TenantState, UnsentCreate};
use super::{Context, Error, namespace, tenant_key, uid};
use crate::api::{AccountType, FINALIZER, PendingCreate, Uploaded, VppToken};
use crate::graph::{GraphError, NewToken, TokenPatch, TokenSettings};
use crate::tenant::{Field, Sent, Session, Tenant, clock};
use crate::token_file::TokenFile;

/// An event to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// Whether a person should worry.
    pub warning: bool,
    /// What, in one CamelCase word.
    pub reason: &'static str,
    /// A sentence.
    pub note: String,
}

fn happened(reason: &'static str, note: impl Into<String>) -> Option<Happened> {
    Some(Happened { warning: false, reason, note: note.into() })
}

/// What came of a step.
#[derive(Clone, Debug, Default)]
pub struct Acted {
    /// What to write into the status.
    pub done: Option<Done>,
    /// What to show.
    pub event: Option<Happened>,
    /// The step changed the object itself: its watch brings it back, and the status is written then.
    pub object_changed: bool,
}

/// Carries out one step. What fails in Graph is remembered and shown, not an error.
///
/// # Errors
/// When Kubernetes can't be read or written.
pub async fn act(
    context: &Context,
    object: &VppToken,
    observed: &Observed,
    step: &Step,
    leave: Option<Sent>,
) -> Result<Acted, Error> {
    match step {
        Step::Withdraw => {
            end_turn(context, uid(object)?);
            let pending = observed.status.pending_create.as_ref();
            let done = pending.map(|pending| Done::Withdrawn { since: pending.since });
            Ok(Acted { done, ..Acted::default() })
        }
        Step::Note(uploaded) => Ok(Acted { done: Some(Done::Uploaded(uploaded.clone())), ..Acted::default() }),
        Step::DeclineSync { request, because } => Ok(Acted {
            done: Some(Done::SyncDeclined { request: request.clone() }),
            event: happened("SyncNotStarted", format!("A sync was requested and not started, because of {because}.")),
            ..Acted::default()
        }),
        Step::AddFinalizer => finalizer(context, object, true).await,
        Step::RemoveFinalizer { warning } => {
            let mut acted = finalizer(context, object, false).await?;
            acted.event = warning.clone().map(|note| Happened { warning: true, reason: "TokenRetained", note });
            Ok(acted)
        }
        _ => {
            let Some(Some(tenant)) = tenant_key(object).and_then(|key| context.directory.find(&key)) else {
                return Ok(Acted::default());
            };
            let (Ok(session), TenantState::Known(known)) = (&tenant.session, &observed.tenant) else {
                return Ok(Acted::default());
            };
            if known.identity != tenant.identity {
                // Another tenant meanwhile: nothing that was decided holds.
                return Ok(Acted::default());
            }
            let actor = Actor { context, object, observed, uid: uid(object)?, tenant: &tenant, session };
            actor.act(step, leave).await
        }
    }
}

async fn finalizer(context: &Context, object: &VppToken, add: bool) -> Result<Acted, Error> {
    let mut finalizers: Vec<String> = object.finalizers().to_vec();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if add {
        finalizers.push(FINALIZER.to_owned());
    }
    let patch = json!({ "metadata": { "resourceVersion": object.resource_version(), "finalizers": finalizers } });
    let api: Api<VppToken> = context.api(object)?;
    let patched = api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
    match patched {
        Ok(patched) => {
            context.desk.change(uid(object)?, |page| page.version = patched.resource_version());
            Ok(Acted { object_changed: true, ..Acted::default() })
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            Ok(Acted { object_changed: true, ..Acted::default() })
        }
        Err(error) => Err(error.into()),
    }
}

struct Actor<'a> {
    context: &'a Context,
    object: &'a VppToken,
    observed: &'a Observed,
    uid: &'a str,
    tenant: &'a Tenant,
    session: &'a Session,
}

impl Actor<'_> {
    async fn act(&self, step: &Step, leave: Option<Sent>) -> Result<Acted, Error> {
        match (step, leave) {
            (Step::Announce(pending), _) => self.announce(pending),
            (Step::Adopt { id, uploaded }, _) => {
                let event = if self.observed.status.pending_create.is_some() && self.observed.unsent_create().is_none()
                {
                    happened("Created", format!("Found the token {id}, which a create whose answer was lost has made."))
                } else {
                    happened("Adopted", format!("Took over the token {id}, which Graph already had."))
                };
                Ok(self.own(id, Some(uploaded.clone()), event))
            }
            (Step::Bind { id }, _) => {
                Ok(self.own(id, None, happened("Bound", format!("Took over the token {id} by its id."))))
            }
            (Step::Confirm { id }, _) => {
                let outcome = self.session.confirm(id).await;
                self.noted(StepKind::Confirm, &outcome, clock::now());
                Ok(Acted::default())
            }
            (Step::Create, Some(leave)) => self.create(leave).await,
            (Step::Upload { id }, Some(leave)) => self.upload(leave, id).await,
            (Step::Update { id, fields }, Some(leave)) => Ok(self.update(leave, id, fields).await),
            (Step::Sync { id, request, .. }, Some(leave)) => Ok(self.sync(leave, id, request).await),
            (Step::Delete { id }, Some(leave)) => Ok(self.delete(leave, id).await),
            // Nothing is written without leave, and the others are done elsewhere.
            _ => Ok(Acted::default()),
        }
    }

    async fn delete(&self, leave: Sent, id: &str) -> Acted {
        let began = clock::now();
        let outcome = self.session.delete(leave, id).await;
        self.noted(StepKind::Delete, &outcome, began);
        let event = outcome.ok().and_then(|()| happened("Deleted", format!("Deleted the token {id} in Graph.")));
        Acted { event, ..Acted::default() }
    }

    /// Known not to be sent, from before the announcement is written: its write may take effect without an answer.
    fn announce(&self, pending: &PendingCreate) -> Result<Acted, Error> {
        let tenant = &self.tenant.identity;
        if !self.take_turn(&pending.apple_id)? {
            return Ok(Acted::default());
        }
        announced(self.context, self.uid, pending);
        Ok(Acted { done: Some(Done::Announced(pending.clone(), tenant.clone())), ..Acted::default() })
    }

    fn take_turn(&self, apple_id: &str) -> Result<bool, Error> {
        let who = (namespace(self.object)?.to_owned(), self.object.name_any());
        let tenant = tenant_name(&self.tenant.identity);
        Ok(self.context.desk.take_turn(&tenant, apple_id, self.uid, who, clock::now()))
    }

    /// A token is this object's from now on, unless another one took it meanwhile.
    fn own(&self, id: &str, uploaded: Option<Uploaded>, event: Option<Happened>) -> Acted {
        if !self.context.desk.claim(&tenant_name(&self.tenant.identity), id, self.uid) {
            return Acted::default();
        }
        end_turn(self.context, self.uid);
        let done = Done::Owned { id: id.to_owned(), tenant: self.tenant.identity.clone(), uploaded };
        Acted { done: Some(done), event, ..Acted::default() }
    }

    async fn create(&self, leave: Sent) -> Result<Acted, Error> {
        let Some(file) = self.file_as_decided().await? else { return Ok(Acted::default()) };
        let spec = &self.observed.spec;
        let written = super::plan::wanted(self.observed);
        let token = NewToken {
            token: self.to_send(&file),
            sensitive: file.sensitive(),
            settings: TokenSettings {
                vpp_token_account_type: Some(spec.vpp_token_account_type.unwrap_or(AccountType::Business).as_graph()),
                ..self.settings(|field| written.iter().any(|(wanted, _)| *wanted == field))
            },
        };
        // A turn that lasted too long is taken again, unless another has it.
        let apple_id = spec.apple_id.as_deref().unwrap_or_default();
        if !self.take_turn(apple_id)? || !self.context.desk.keep_turn(self.uid, true) {
            // The object went meanwhile, or another one's turn began: that is seen at the next look.
            return Ok(Acted::default());
        }
        // From here on it may be sent: whatever interrupts this leaves an unknown outcome.
        self.context.desk.change(self.uid, |page| page.memory.unsent_create = None);
        let began = clock::now();
        let sending = Sending { context: self.context, uid: self.uid };
        let outcome = self.session.create(leave, &token, &written).await;
        drop(sending);
        self.noted(StepKind::Create, &outcome, began);
        match outcome {
            Ok(entity) => {
                let note = format!("Created the token {} in Graph.", entity.id);
                let acted = self.own(&entity.id, Some(self.uploaded(&file)), happened("Created", note));
                // Also when the object went meanwhile: what there is, is known.
                end_turn(self.context, self.uid);
                Ok(acted)
            }
            Err(error) if error.maybe_executed() => {
                self.session.want_list_after(clock::now());
                Ok(Acted::default())
            }
            Err(_) => {
                end_turn(self.context, self.uid);
                let pending = self.observed.status.pending_create.as_ref();
                Ok(Acted { done: pending.map(|pending| Done::Withdrawn { since: pending.since }), ..Acted::default() })
            }
        }
    }

    async fn upload(&self, leave: Sent, id: &str) -> Result<Acted, Error> {
        let Some(file) = self.file_as_decided().await? else { return Ok(Acted::default()) };
        let patch = TokenPatch {
            token: Some(self.to_send(&file)),
            sensitive: file.sensitive(),
            settings: TokenSettings::default(),
        };
        let began = clock::now();
        let outcome = self.session.update(leave, id, &patch, &[]).await;
        self.noted(StepKind::Upload, &outcome, began);
        if outcome.is_err() {
            return Ok(Acted::default());
        }
        let until = file.expiration.strftime("%Y-%m-%dT%H:%M:%SZ");
        let event =
            happened("Uploaded", format!("Uploaded the token file that expires at {until} onto the token {id}."));
        Ok(Acted { done: Some(Done::Uploaded(self.uploaded(&file))), event, ..Acted::default() })
    }

    async fn update(&self, leave: Sent, id: &str, fields: &BTreeMap<Field, Wanted>) -> Acted {
        let patch = TokenPatch {
            token: None,
            sensitive: Vec::new(),
            settings: self.settings(|field| fields.contains_key(&field)),
        };
        let written: Vec<(Field, String)> =
            fields.iter().map(|(field, wanted)| (*field, wanted.wanted.clone())).collect();
        let began = clock::now();
        let outcome = self.session.update(leave, id, &patch, &written).await;
        self.noted(StepKind::Update, &outcome, began);
        if outcome.is_err() {
            return Acted::default();
        }
        self.context.desk.change(self.uid, |page| page.memory.tried(written));
        let changes = fields.iter().map(|(field, Wanted { found, wanted })| {
            format!("{} from {} to {wanted}", field.as_str(), found.as_deref().unwrap_or("nothing"))
        });
        let changes = changes.collect::<Vec<_>>().join(", ");
        Acted { event: happened("Updated", format!("Changed {changes}.")), ..Acted::default() }
    }

    async fn sync(&self, leave: Sent, id: &str, request: &Option<String>) -> Acted {
        let at = clock::now();
        let outcome = self.session.sync(leave, id).await;
        self.noted(StepKind::Sync, &outcome, at);
        if outcome.is_err() {
            return Acted::default();
        }
        let event = request.as_ref().and_then(|_| happened("SyncStarted", "Started a sync, as requested."));
        Acted { done: Some(Done::Synced { at, request: request.clone() }), event, ..Acted::default() }
    }

    /// The file, read now, if it still is the one that the decision was made on.
    async fn file_as_decided(&self) -> Result<Option<TokenFile>, Error> {
        let decided = self.observed.file.as_ref().ok().map(|file| file.sha256.clone());
        let file = read_file(self.context, self.object).await?.ok();
        Ok(file.filter(|file| Some(file.sha256(self.tenant.encoding)) == decided))
    }

    /// What the manifest asks for, of some fields.
    fn settings(&self, is_sent: impl Fn(Field) -> bool) -> TokenSettings {
        let spec = &self.observed.spec;
        TokenSettings {
            apple_id: spec.apple_id.clone().filter(|_| is_sent(Field::AppleId)),
            vpp_token_account_type: spec
                .vpp_token_account_type
                .filter(|_| is_sent(Field::AccountType))
                .map(AccountType::as_graph),
            country_or_region: spec.country_or_region.clone().filter(|_| is_sent(Field::CountryOrRegion)),
            automatically_update_apps: spec
                .automatically_update_apps
                .filter(|_| is_sent(Field::AutomaticallyUpdateApps)),
            display_name: spec.display_name.clone().filter(|_| is_sent(Field::DisplayName)),
            role_scope_tag_ids: spec.role_scope_tag_ids.clone().filter(|_| is_sent(Field::RoleScopeTagIds)),
            data_sharing_consent_granted: spec
                .data_sharing_consent_granted
                .filter(|_| is_sent(Field::DataSharingConsentGranted)),
            claim_token_management_from_external_mdm: spec
                .claim_token_management_from_external_mdm
                .filter(|_| is_sent(Field::ClaimTokenManagement)),
        }
    }

    fn to_send(&self, file: &TokenFile) -> SecretString {
        file.to_send(self.tenant.encoding)
    }

    fn uploaded(&self, file: &TokenFile) -> Uploaded {
        Uploaded {
            sha256: file.sha256(self.tenant.encoding),
            expiration_date_time: file.expiration,
            organization_name: file.organization_name.clone(),
            time: clock::now(),
        }
    }

    /// Remembers a failure with its growing delay, and forgets it after a success.
    fn noted<T>(&self, kind: StepKind, outcome: &Result<T, GraphError>, began: Timestamp) {
        let inputs = self.observed.inputs();
        self.context.desk.change(self.uid, |page| match outcome {
            Ok(_) => {
                page.memory.failures.remove(&kind);
            }
            Err(error) => {
                tracing::warn!(step = ?kind, %error, "graph refused or failed a step");
                let jitter = f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 255.0;
                page.memory.failed(kind, error, inputs, began, clock::now(), jitter);
            }
        });
    }
}

/// A create on its way, which keeps the turn of its object until its answer, or until whatever else ends the waiting; then
/// its outcome is unknown.
struct Sending<'a> {
    context: &'a Context,
    uid: &'a str,
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.context.desk.keep_turn(self.uid, false);
    }
}

/// Remembers that an announced create was not sent; a list that begins after now is looked through before it is.
pub(super) fn announced(context: &Context, uid: &str, pending: &PendingCreate) {
    let unsent = UnsentCreate { since: pending.since, list_after: clock::now() };
    context.desk.change(uid, |page| page.memory.unsent_create = Some(unsent));
}

/// Ends the object's turn to create, and wakes whoever waited for it.
pub(super) fn end_turn(context: &Context, uid: &str) {
    context.desk.change(uid, |page| page.memory.unsent_create = None);
    for (namespace, name) in context.desk.end_turn(uid) {
        (context.wake)(&namespace, &name);
    }
}
