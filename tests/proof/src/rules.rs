//! The rules that are never broken, judged by what is true of Graph and the API server, not by what an operator knows.
//!
//! A rule allows only what no client can know. What that is, is said at each.

use std::collections::BTreeSet;

use vpptoken_operator::api::DeletionPolicy;
use vpptoken_operator::tenant::Field;
use vpptoken_operator::vpptoken::facts::Done;
use vpptoken_operator::vpptoken::world::Permission;

use crate::api::{Change, Definition, Object};
use crate::graph::{Operation, Request};
use crate::universe::{NOT_KEPT, file, timings};
use crate::world::World;

/// Never two.
pub(crate) const NEVER_TWO: &str = "never_two";
/// Never wipe.
pub(crate) const NEVER_WIPE: &str = "never_wipe";
/// Never upload rubbish.
pub(crate) const NEVER_RUBBISH: &str = "never_upload_rubbish";
/// Never recreate to renew.
pub(crate) const NEVER_RECREATE: &str = "never_recreate_to_renew";
/// Never fight.
pub(crate) const NEVER_FIGHT: &str = "never_fight";
/// Never spin.
pub(crate) const NEVER_SPIN: &str = "never_spin";
/// What is suspended or observed is never written to.
pub(crate) const NEVER_WHEN_TOLD_NOT_TO: &str = "suspended_or_observed_never_writes";
/// No older file over a newer one.
pub(crate) const NEVER_OLDER: &str = "no_older_file_over_a_newer_one";
/// Always arrives, and stays there.
pub(crate) const ALWAYS_ARRIVES: &str = "always_arrives";

/// All of them.
pub const RULES: [&str; 9] = [
    NEVER_TWO,
    NEVER_WIPE,
    NEVER_RUBBISH,
    NEVER_RECREATE,
    NEVER_FIGHT,
    NEVER_SPIN,
    NEVER_WHEN_TOLD_NOT_TO,
    NEVER_OLDER,
    ALWAYS_ARRIVES,
];

/// A rule was broken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Broken {
    /// Which.
    pub rule: &'static str,
    /// How.
    pub what: String,
}

fn may_write(object: &Object) -> bool {
    object.deleting.is_none() && !object.spec.suspend && !object.spec.only_observes()
}

impl World {
    fn may_delete(&self, object: &Object) -> bool {
        object.deleting.is_some()
            && object.has_finalizer
            && object.spec.deletion_policy == DeletionPolicy::Delete
            && !object.spec.suspend
            && !object.spec.only_observes()
            && self.api.definition == Definition::There
            && self.api.allowed.contains(&Permission::Delete)
    }

    /// Notes for each reconcile that got leave to write what is true now, and for each token whether it belongs to somebody.
    pub(crate) fn witness(&mut self) {
        for p in 0..self.processes.len() {
            for slot in 0..self.slots() {
                let Some(reconcile) = self.processes[p].running[slot].as_ref().filter(|reconcile| reconcile.has_leave)
                else {
                    continue;
                };
                let truth = self.api.of_uid(&reconcile.uid).cloned();
                let file = self.api.secrets[slot].file().ok();
                let allowed = self.api.allowed.0.clone();
                let writes = truth.as_ref().is_some_and(|object| may_write(object));
                let deletes = truth.as_ref().is_some_and(|object| self.may_delete(object));
                let Some(reconcile) = &mut self.processes[p].running[slot] else { continue };
                let witness = &mut reconcile.witness;
                witness.may_write |= writes;
                witness.may_delete |= deletes;
                witness.files.extend(file);
                witness.allowed.extend(allowed);
                if let Some(object) = truth {
                    witness.organizations.insert(object.spec.organization_name.clone());
                    witness.had_none |= object.token_id().is_none_or(|id| self.graph.token(id).is_none());
                    witness.tokens.extend(object.token_id().map(str::to_owned));
                }
            }
        }
        let claimed: BTreeSet<String> =
            self.api.objects.iter().flatten().filter_map(|object| object.token_id().map(str::to_owned)).collect();
        let now = self.now;
        self.graph.mark(|token| claimed.contains(&token.id).then_some(now));
    }

    /// Other VppTokens that a process knows to have tokens.
    pub(crate) fn known_claims(&self, p: usize, uid: &str) -> BTreeSet<(String, String)> {
        let cached = self.processes[p].cache.iter().flatten().filter(|object| object.uid != uid);
        cached.filter_map(|object| Some((object.uid.clone(), object.token_id()?.to_owned()))).collect()
    }

    /// A change is decided upon: not again what was accepted a moment ago and may only not show yet, nor of a token that is
    /// known to be gone.
    pub(crate) fn check_update(&mut self, p: usize, id: &str, fields: &[(Field, String)]) {
        let now = self.now;
        let session = &self.processes[p].session;
        let again = fields.iter().find(|(field, value)| {
            let accepted = session.accepted.get(&(id.to_owned(), *field));
            accepted.is_some_and(|(before, at)| before == value && now < *at + timings().settling)
        });
        if let Some((field, value)) = again.cloned() {
            self.breaks(NEVER_FIGHT, format!("{} of {id} is set to {value} again at once", field.as_str()));
        }
        self.check_not_gone(p, id);
    }

    /// A file that a process uploaded is not uploaded again, whatever became of the status.
    pub(crate) fn check_upload(&mut self, p: usize, uid: &str, id: &str, number: u8) {
        if self.processes[p].session.uploaded.get(&(uid.to_owned(), id.to_owned())) == Some(&number) {
            self.breaks(NEVER_SPIN, format!("{} is uploaded onto {id} again", file(number).sha256));
        }
    }

    /// A request for a sync that a process answered is not answered again.
    pub(crate) fn check_sync(&mut self, p: usize, uid: &str, request: Option<&str>) {
        if request
            .is_some_and(|request| self.processes[p].session.synced.contains(&(uid.to_owned(), request.to_owned())))
        {
            self.breaks(NEVER_SPIN, format!("a sync that was asked for is started twice for {uid}"));
        }
    }

    /// What a process was told is gone is not taken over, nor written to, because of a list that is behind.
    pub(crate) fn check_not_gone(&mut self, p: usize, id: &str) {
        if self.processes[p].session.gone.contains(id) {
            self.breaks(
                NEVER_SPIN,
                format!("{id} is taken for one that is there, and the process knows that it is gone"),
            );
        }
    }

    /// VppTokens that a process knows to have tokens or to create them.
    pub(crate) fn known_rivals(&self, p: usize) -> BTreeSet<String> {
        let cached = self.processes[p].cache.iter().flatten();
        let rivals = cached.filter(|object| {
            object.status.as_ref().is_some_and(|status| status.token_id.is_some() || status.pending_create.is_some())
        });
        rivals.map(|object| object.uid.clone()).collect()
    }

    /// A request is sent: it must rest on what was true at some moment since there was leave to write.
    pub(crate) fn check_sent(&mut self, p: usize, slot: usize, request: &Request) {
        if !request.operation.is_write() {
            return;
        }
        self.witness();
        let Some(reconcile) = self.processes[p].running[slot].as_deref() else { return };
        let witness = reconcile.witness.clone();
        let name = request.operation.name();
        let sent_file = match &request.operation {
            Operation::Create { file, .. } => Some(*file),
            Operation::Update { file, .. } => *file,
            _ => None,
        };
        if let Operation::Delete { id } = &request.operation {
            // What was done and could not be recorded yet counts as recorded.
            let unrecorded = self.processes[p].desk().page(&request.uid).unrecorded;
            let is_recorded = witness.tokens.contains(id)
                || unrecorded.iter().any(|done| matches!(done, Done::Owned { id: of, .. } if of == id));
            if !witness.may_delete {
                self.breaks(NEVER_WIPE, format!("{id} of {} is deleted, and nothing says so", request.uid));
            } else if !is_recorded {
                self.breaks(NEVER_WIPE, format!("{id} is deleted, and the status of {} does not name it", request.uid));
            } else if witness
                .claims
                .iter()
                .any(|(uid, of)| of == id && self.api.of_uid(uid).is_some_and(|other| other.token_id() == Some(id)))
            {
                self.breaks(NEVER_WIPE, format!("{id} is deleted, and another VppToken has it"));
            }
        } else if !witness.may_write {
            self.breaks(NEVER_WHEN_TOLD_NOT_TO, format!("{name} for {}, which allows no writes", request.uid));
        }
        if matches!(request.operation, Operation::Create { .. }) {
            if !witness.allowed.contains(&Permission::Create) {
                self.breaks(NEVER_TWO, "a token is created although the tenant does not allow it");
            }
            if !witness.had_none {
                self.breaks(NEVER_RECREATE, format!("{} has a token and gets another one", request.uid));
            }
        }
        if let Some(number) = sent_file {
            if file(number).expiration() <= request.sent {
                self.breaks(NEVER_RUBBISH, format!("an expired file is sent for {}", request.uid));
            }
            if !witness.files.contains(&number) {
                self.breaks(NEVER_RUBBISH, format!("a file is sent for {} that its Secret did not have", request.uid));
            }
            if !witness.organizations.iter().any(|wanted| {
                wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(file(number).organization))
            }) {
                self.breaks(NEVER_RUBBISH, format!("a file of another organization is sent for {}", request.uid));
            }
        }
        if let Operation::Update { id, .. } | Operation::Sync { id, .. } = &request.operation
            && let Some(own) = self.api.of_uid(&request.uid).cloned()
        {
            // Which of two is the elder can be known once the cache shows both.
            let elder = witness.claims.iter().find(|(uid, of)| {
                of == id
                    && self.api.of_uid(uid).is_some_and(|other| {
                        other.token_id() == Some(id) && (other.created, &other.uid) < (own.created, &own.uid)
                    })
            });
            if let Some((elder, _)) = elder {
                let what = format!("{name}: {} writes to {id}, which belongs to {elder}", request.uid);
                self.breaks(NEVER_FIGHT, what);
            }
        }
    }

    /// A request takes effect.
    pub(crate) fn check_effect(&mut self, request: &Request) {
        let now = self.now;
        match &request.operation {
            Operation::Create { file: number, apple_id, country, .. } => {
                if country.as_deref() == Some(crate::universe::REFUSED) {
                    return;
                }
                self.check_create(request, *number, apple_id);
            }
            Operation::Update { id, file: number, apple_id, account_type, country, update_apps } => {
                let Some(token) = self.graph.token(id).cloned() else { return };
                // What happened to the token after the process was last shown it, it can't know.
                let is_as_seen = request.seen == Some(token.version) && token.shows_its_expiry(now);
                if let Some(number) = number {
                    let (sent, has) = (file(*number), file(token.file));
                    if is_as_seen && sent.expiration() < has.expiration() {
                        self.breaks(NEVER_OLDER, format!("{} over {} on {id}", sent.sha256, has.sha256));
                    }
                    if is_as_seen
                        && request.organization.is_none()
                        && !token.organization.eq_ignore_ascii_case(sent.organization)
                    {
                        self.breaks(NEVER_RUBBISH, format!("a file of {} onto {id}", sent.organization));
                    }
                } else {
                    let changes = apple_id.as_ref().is_some_and(|value| *value != token.apple_id)
                        || account_type.is_some_and(|value| value != token.account_type)
                        || country.as_ref().is_some_and(|value| Some(value) != token.country.as_ref())
                        || update_apps.is_some_and(|value| Some(value) != token.update_apps);
                    if is_as_seen && !changes {
                        self.breaks(
                            NEVER_SPIN,
                            format!("{:?} changes nothing, as the process had seen", request.operation),
                        );
                    }
                }
            }
            _ => {}
        }
    }

    /// Graph accepted settings, and the process was told so: what it was not told, or forgot when it died, is no try.
    pub(crate) fn check_accepted(&mut self, p: usize, slot: usize, id: &str, fields: &[(Field, String)]) {
        let now = self.now;
        let accepted = fields.iter().map(|(field, value)| ((id.to_owned(), *field), (value.clone(), now)));
        self.processes[p].session.accepted.extend(accepted);
        if fields.iter().any(|(field, value)| *field == Field::CountryOrRegion && value == NOT_KEPT) {
            self.not_kept[slot] += 1;
            // Each process may find out for itself.
            if self.not_kept[slot] > 3 * u32::try_from(self.processes.len()).unwrap_or(1) {
                self.breaks(NEVER_FIGHT, format!("a value that {id} does not keep is sent for ever"));
            }
        }
    }

    fn check_create(&mut self, request: &Request, number: u8, apple_id: &str) {
        let sent = file(number);
        // A list that began after the announcement shows what has been there for longer than lists lag.
        let announced = request.announced.unwrap_or(request.sent);
        let mut broken = None;
        for token in self.graph.tokens() {
            let is_anothers = self.has_other(&request.uid, &token.id);
            // One that a person gave another look can't be known for what it is; one that another VppToken with the same
            // file came by first is that one's.
            if token.made_by.as_deref() == Some(&request.uid) && !token.disguised && !is_anothers {
                broken = Some(format!("{} gets a second token beside {}", request.uid, token.id));
            } else if token.looks_like(apple_id, sent.organization) {
                let is_exact = token.file == number;
                let shows_its_file = token.shows_its_expiry(announced);
                let is_visible = token.free_since + timings().settling <= announced;
                // Before a list shows it, only the process that sent the first of the two knows of it, and whoever was shown
                // the announcement; with its VppToken that goes.
                let is_second = token.sent < request.sent;
                let is_told = if is_second {
                    token.made_by.as_ref().is_some_and(|maker| request.rivals.contains(maker))
                } else {
                    token.rivals.contains(&request.uid)
                };
                let is_known = is_visible || is_told || token.sent_by.is_some() && token.sent_by == request.sent_by;
                if is_exact && token.first_file == number && token.made_by.is_some() && !token.disguised && is_known {
                    broken = Some(format!("{} gets a second token with the file of {}", request.uid, token.id));
                } else if !is_anothers && is_visible && (is_exact && shows_its_file || request.is_unique) {
                    broken = Some(format!("{} gets a token although {} looks like it", request.uid, token.id));
                }
            }
        }
        if let Some(what) = broken {
            self.breaks(NEVER_TWO, what);
        }
    }

    /// Whether another VppToken has a token: by its status, or in the memory of a process.
    pub(crate) fn has_other(&self, uid: &str, id: &str) -> bool {
        let by_status = self.api.objects.iter().flatten().any(|other| other.uid != uid && other.token_id() == Some(id));
        by_status
            || self.processes.iter().filter(|process| process.is_alive).any(|process| {
                let claims = process
                    .desk()
                    .claims(&vpptoken_operator::vpptoken::observe::tenant_name(&crate::universe::identity()));
                claims.iter().any(|(of, ids)| of != uid && ids.iter().any(|of| of == id))
            })
    }

    /// A change to a VppToken by an operator takes effect.
    pub(crate) fn check_change(&mut self, slot: usize, uid: &str, version: u64, change: &Change) {
        let Some(object) = self.api.get(slot).filter(|object| object.version == version).cloned() else { return };
        match change {
            Change::Status(_) if object.uid != uid => {
                self.breaks(NEVER_FIGHT, "a status lands on another object of the same name");
            }
            Change::Status(status) if object.status.as_deref() == Some(&**status) => {
                self.breaks(NEVER_SPIN, format!("the status of {uid} is written although nothing changed"));
            }
            Change::Finalizer(false) if self.may_delete(&object) && !self.api.namespace_deleting => {
                let left = self.graph.tokens().iter().find(|token| {
                    let is_its = object.token_id() == Some(&token.id)
                        || token.made_by.as_deref() == Some(uid) && !token.disguised;
                    is_its && !self.has_other(uid, &token.id)
                });
                if let Some(id) = left.map(|token| token.id.clone()) {
                    self.breaks(ALWAYS_ARRIVES, format!("{uid} goes with policy Delete, and leaves {id}"));
                }
            }
            _ => {}
        }
    }
}
