//! Steps carried out on a simple Graph until none is left: plan and status come to an end, and end ready.

use super::*;
use crate::api::conditions::{ConditionType, find};
use crate::vpptoken::outcome::Outcome;

/// More than any case needs.
const MAX_STEPS: usize = 20;

/// A VppToken, a Graph that does what is requested, and a clock.
struct Loop {
    observed: Observed,
    graph: Vec<Entity>,
    snapshot: Snapshot,
    steps: Vec<&'static str>,
    /// How long Graph shows what it had before a write.
    lag: SignedDuration,
    shown_from: Vec<(Timestamp, Entity)>,
    answers: Answers,
    object_deleted: bool,
}

/// What Graph answers to a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    /// The token as lists show it.
    AsShown,
    /// Nothing.
    Nothing,
    /// The token as it was asked for, and then it keeps what it had.
    Echo,
}

impl Loop {
    fn of(world: &World) -> Self {
        Self {
            observed: world.observed.clone(),
            graph: world.tokens.clone(),
            snapshot: Snapshot::default(),
            steps: Vec::new(),
            lag: SignedDuration::ZERO,
            shown_from: Vec::new(),
            answers: Answers::AsShown,
            object_deleted: false,
        }
    }

    fn now(&self) -> Timestamp {
        self.observed.now
    }

    /// Time goes on, by both clocks.
    fn pass(&mut self, duration: SignedDuration) {
        self.observed.now += duration;
        self.observed.wall += duration;
    }

    fn list(&mut self) {
        let began = self.now();
        self.pass(SECOND);
        for (from, entity) in std::mem::take(&mut self.shown_from) {
            if from <= began {
                self.graph.retain(|other| other.id != entity.id);
                self.graph.push(entity);
            } else {
                self.shown_from.push((from, entity));
            }
        }
        self.snapshot.merge(began, self.now(), self.graph.clone(), self.observed.timings.settling);
    }

    fn plan(&mut self) -> Plan {
        if let TenantState::Known(tenant) = &mut self.observed.tenant {
            tenant.view.snapshot = Arc::new(self.snapshot.clone());
        }
        plan(&self.observed)
    }

    /// Runs until nothing is left to do and nothing is waited for.
    fn run(&mut self) -> Plan {
        self.list();
        loop {
            let plan = self.plan();
            // As it is reported: decided, carried out, decided again with what was done, written.
            if let Some(step) = &plan.step {
                self.pass(SECOND);
                if let Some(done) = self.act(step) {
                    done.apply(&mut self.observed.status);
                }
                if self.object_deleted {
                    return plan;
                }
                let plan = self.plan();
                if let Some(differing) = &plan.differing {
                    self.observed.attempts.tries.retain(|field, _| differing.contains(field));
                }
                self.observed.status = plan.status;
                assert!(self.steps.len() < MAX_STEPS, "no end: {:?}", self.steps);
                continue;
            }
            self.observed.status = plan.status.clone();
            let is_reconciling = find(&plan.status.conditions, ConditionType::Reconciling).is_some();
            if plan.list_after.is_some() {
                self.list();
            } else if is_reconciling {
                self.pass(plan.requeue_after.unwrap_or(MINUTE * 5).min(MINUTE * 5));
                self.list();
            } else {
                return plan;
            }
            assert!(self.now() < now() + DAY, "no end: {:?} {:?}", self.steps, plan.blockers);
        }
    }

    fn own(id: &str, uploaded: Option<Uploaded>) -> Option<Outcome> {
        Some(Outcome::Owned { id: id.into(), tenant: identity(), uploaded, upload_request: None })
    }

    fn uploaded(&self) -> Uploaded {
        let file = self.observed.file.as_ref().unwrap();
        Uploaded {
            sha256: file.sha256.clone(),
            expiration_date_time: file.expiration,
            organization_name: file.organization_name.clone(),
            time: self.now(),
            encoding: Some(TokenEncoding::AsIs),
            secret_version: Some(FILE_VERSION.into()),
            shown: false,
        }
    }

    /// Changes a token as Graph does, which may show it later.
    fn write(&mut self, id: &str, written: &[(Field, String)], change: impl FnOnce(&mut Entity)) {
        let now = self.now();
        let at = self.graph.iter().position(|entity| entity.id == id).expect("a token that Graph has");
        let on_its_way = self.shown_from.iter().rev().find(|(_, entity)| entity.id == id);
        let mut entity = on_its_way.map_or(&self.graph[at], |(_, entity)| entity).clone();
        change(&mut entity);
        self.snapshot.record_write_started(id);
        let echo = entity.clone();
        if self.answers != Answers::Echo {
            if self.lag.is_zero() {
                self.graph[at] = entity;
            } else {
                self.shown_from.push((now + self.lag, entity));
            }
        }
        let answer = match self.answers {
            Answers::AsShown => Some(self.graph[at].clone()),
            Answers::Nothing => None,
            Answers::Echo => Some(echo),
        };
        self.snapshot.record_write_ended(id, answer, written, now);
    }

    fn act(&mut self, step: &Step) -> Option<Outcome> {
        let now = self.now();
        match step {
            Step::AddFinalizer => {
                self.steps.push("AddFinalizer");
                self.observed.object.has_finalizer = true;
                None
            }
            Step::RemoveFinalizer { .. } => {
                self.steps.push("RemoveFinalizer");
                self.observed.object.has_finalizer = false;
                self.object_deleted = self.observed.object.deleting.is_some();
                None
            }
            Step::RecordIntent(pending) => {
                self.steps.push("RecordIntent");
                self.observed.attempts.unsent_intent = Some(UnsentIntent { since: pending.since, list_after: now });
                Some(Outcome::IntentRecorded(pending.clone(), identity()))
            }
            Step::AbandonIntent { since } => {
                self.steps.push("AbandonIntent");
                self.observed.attempts.unsent_intent = None;
                Some(Outcome::IntentAbandoned { since: *since })
            }
            Step::Write(Write::Create(new)) => {
                self.steps.push("Create");
                self.observed.attempts.unsent_intent = None;
                let file = self.uploaded();
                let entity = Entity {
                    apple_id: self.observed.spec.apple_id.clone(),
                    organization_name: Some(file.organization_name.clone()),
                    expiration: Some(file.expiration_date_time),
                    last_sync: None,
                    last_sync_status: Some("none".into()),
                    ..token(&format!("created-{}", self.graph.len()))
                };
                self.graph.push(entity.clone());
                self.snapshot.record_created(entity.clone(), &new.named, now);
                Self::own(&entity.id, Some(file))
            }
            Step::Adopt { id, uploaded, .. } => {
                self.steps.push("Adopt");
                Self::own(id, Some(uploaded.clone()))
            }
            Step::Bind { id } => {
                self.steps.push("Bind");
                Self::own(id, None)
            }
            Step::ConfirmUpload { id } => {
                self.steps.push("ConfirmUpload");
                // As a reconcile does, which has a permit by now.
                self.observed.live_since = Some(now - SECOND);
                let entity = self.graph.iter().find(|entity| entity.id == *id).expect("a token that Graph has").clone();
                self.snapshot.record_found(entity, now, now);
                None
            }
            Step::Write(Write::Upload { id, request, .. }) => {
                self.steps.push("Upload");
                self.observed.live_since = None;
                let file = self.uploaded();
                self.write(id, &[], |entity| {
                    entity.expiration = Some(file.expiration_date_time);
                    entity.state = Some("valid".into());
                });
                Some(Outcome::Uploaded { uploaded: file, request: request.clone() })
            }
            Step::Write(Write::Update { id, changes, .. }) => {
                self.steps.push("Update");
                let text = |field: Field| changes.get(&field).map(|wanted| wanted.wanted.clone());
                let written: Vec<(Field, String)> =
                    changes.iter().map(|(field, wanted)| (*field, wanted.wanted.clone())).collect();
                for (field, value) in &written {
                    self.observed.attempts.tries.entry(*field).or_insert_with(|| (value.clone(), 0)).1 += 1;
                }
                self.write(id, &written, |entity| {
                    entity.country_or_region = text(Field::CountryOrRegion).or(entity.country_or_region.take());
                    entity.apple_id = text(Field::AppleId).or(entity.apple_id.take());
                });
                None
            }
            Step::Note(uploaded) => {
                self.steps.push("Note");
                Some(Outcome::Uploaded { uploaded: uploaded.clone(), request: None })
            }
            Step::DeclineUpload { request } => {
                self.steps.push("DeclineUpload");
                Some(Outcome::UploadDeclined { request: request.clone() })
            }
            Step::DeclineSync { request } => {
                self.steps.push("DeclineSync");
                Some(Outcome::SyncDeclined { request: request.clone() })
            }
            Step::Write(Write::Sync { id, request, .. }) => {
                self.steps.push("Sync");
                self.write(id, &[], |entity| {
                    entity.last_sync = Some(now);
                    entity.last_sync_status = Some("completed".into());
                });
                let uploaded = self.observed.status.uploaded.as_ref().map(|uploaded| uploaded.time);
                Some(Outcome::Synced { at: now, uploaded, request: request.clone() })
            }
            Step::Confirm { id } => {
                self.steps.push("Confirm");
                match self.graph.iter().find(|entity| entity.id == *id) {
                    Some(entity) => self.snapshot.record_found(entity.clone(), now, now),
                    None => self.snapshot.record_missing(id, now, now, self.observed.timings.vanished_after),
                }
                None
            }
            Step::Write(Write::Delete { id }) => {
                self.steps.push("Delete");
                self.graph.retain(|entity| entity.id != *id);
                self.snapshot.record_deleted(id, now);
                None
            }
        }
    }
}

/// Runs to the end, which is ready and stays, and returns the steps.
#[track_caller]
fn arrives(mut looped: Loop) -> (Vec<&'static str>, Loop) {
    let plan = looped.run();
    let ready = find(&plan.status.conditions, ConditionType::Ready).expect("Ready");
    assert_eq!(ready.status, "True", "{}: {}", ready.reason, ready.message);
    let steps = looped.steps.clone();
    looped.pass(MINUTE * 10);
    looped.run();
    assert_eq!(looped.steps, steps, "it does not stay");
    (steps, looped)
}

#[test]
fn from_nothing_a_token_is_created_and_synced() {
    let (steps, looped) = arrives(Loop::of(&World::new_object()));
    assert_eq!(steps, ["RecordIntent", "Create", "Sync"]);
    assert_eq!(looped.graph.len(), 1);
}

#[test]
fn with_deletion_policy_delete_the_finalizer_comes_first() {
    let mut world = World::new_object();
    world.spec.deletion_policy = DeletionPolicy::Delete;
    assert_eq!(arrives(Loop::of(&world)).0, ["AddFinalizer", "RecordIntent", "Create", "Sync"]);
}

#[test]
fn an_exact_match_is_taken_over_without_a_write() {
    let mut world = World::new_object();
    world.tokens = vec![token("t2")];
    assert_eq!(arrives(Loop::of(&world)).0, ["Adopt"]);
}

#[test]
fn in_a_cluster_that_is_built_anew_an_exact_match_is_taken_over_beside_other_locations() {
    let mut world = World::new_object();
    world.tokens = vec![Entity { expiration: Some(in_(DAY * 10)), ..token("t2") }, token("t3"), token("t4")];
    // From Git, where it has been since the first of them was created.
    world.distinct(&["t2", "t4"]);
    let (steps, looped) = arrives(Loop::of(&world));
    assert_eq!(steps, ["Adopt"]);
    assert_eq!(looped.observed.status.token_id.as_deref(), Some("t3"));
}

#[test]
fn two_locations_whose_files_expire_in_the_same_second_have_a_token_each() {
    let mut world = World::new_object();
    world.tokens = vec![token("t2")];
    world.claimed("t2", ago(DAY), "uid-1");
    let mut looped = Loop::of(&world);
    let plan = looped.run();
    assert_eq!((plan.blockers[0].reason, looped.steps.len()), (Reason::ClaimedByAnother, 0));
    looped.observed.spec.distinct_from = vec!["t2".into()];
    let (steps, looped) = arrives(looped);
    assert_eq!(steps, ["RecordIntent", "Create", "Sync"]);
    assert_eq!((looped.graph.len(), looped.observed.status.claimed_by_another), (2, None));
}

#[test]
fn with_a_mistyped_apple_id_nothing_is_created_and_once_corrected_the_token_is_taken_over() {
    let mut world = World::new_object();
    world.tokens = vec![token("t2")];
    world.spec.apple_id = Some("vpp.berlln@contoso.example".into());
    let mut looped = Loop::of(&world);
    let plan = looped.run();
    assert_eq!((plan.blockers[0].reason, looped.steps.len()), (Reason::SimilarTokenExists, 0));
    looped.observed.spec.apple_id = Some(APPLE_ID.into());
    let (steps, looped) = arrives(looped);
    assert_eq!((steps, looped.graph.len()), (vec!["Adopt"], 1));
}

#[test]
fn a_token_bound_by_its_id_is_uploaded_to_and_synced() {
    let mut world = World::new_object();
    world.tokens = vec![Entity { expiration: Some(in_(DAY * 10)), ..token("t2") }];
    world.spec.token_id = Some("t2".into());
    assert_eq!(arrives(Loop::of(&world)).0, ["Bind", "ConfirmUpload", "Upload", "Sync"]);
}

#[test]
fn a_renewal_is_uploaded_onto_the_same_id_and_synced() {
    let (steps, looped) = arrives(Loop::of(&renewal()));
    assert_eq!(steps, ["ConfirmUpload", "Upload", "Sync"]);
    assert_eq!(looped.observed.status.token_id.as_deref(), Some(OURS));
}

#[test]
fn a_renewal_of_an_expired_token_waits_until_graph_shows_it() {
    let mut world = renewal();
    world.token().state = Some("expired".into());
    world.token().expiration = Some(ago(DAY));
    let mut looped = Loop::of(&world);
    looped.lag = MINUTE * 12;
    let (steps, looped) = arrives(looped);
    assert_eq!(steps, ["ConfirmUpload", "Upload", "Sync"]);
    assert!(looped.now() >= now() + MINUTE * 12);
}

#[test]
fn drift_is_put_back_with_one_write_also_when_graph_shows_it_late() {
    assert_eq!(arrives(Loop::of(&drift())).0, ["Update"]);
    let mut late = Loop::of(&drift());
    late.lag = SECOND * 45;
    assert_eq!(arrives(late).0, ["Update"]);
}

#[test]
fn a_setting_that_graph_does_not_keep_is_sent_three_times_and_then_reported() {
    let mut looped = Loop::of(&drift());
    looped.lag = DAY * 10;
    let plan = looped.run();
    assert_eq!(looped.steps, ["Update", "Update", "Update"]);
    assert_eq!(plan.blockers[0].reason, Reason::SettingNotAccepted);
}

#[test]
fn a_setting_that_graph_echoes_and_does_not_keep_is_reported_too() {
    let mut looped = Loop::of(&drift());
    looped.answers = Answers::Echo;
    let mut plan = looped.run();
    for _ in 0..5 {
        looped.pass(MINUTE * 5);
        plan = looped.run();
    }
    assert_eq!(looped.steps, ["Update", "Update", "Update"]);
    assert_eq!(plan.blockers[0].reason, Reason::SettingNotAccepted);
}

#[test]
fn a_write_that_is_answered_with_nothing_is_not_sent_again() {
    let mut looped = Loop::of(&drift());
    (looped.answers, looped.lag) = (Answers::Nothing, SECOND * 30);
    assert_eq!(arrives(looped).0, ["Update"]);
}

#[test]
fn a_token_that_was_deleted_in_the_portal_is_created_again() {
    let mut world = World::ready();
    world.tokens.clear();
    assert_eq!(arrives(Loop::of(&world)).0, ["Confirm", "Confirm", "RecordIntent", "Create", "Sync"]);
}

#[test]
fn a_create_whose_answer_was_lost_is_found_again() {
    let mut world = unknown();
    world.tokens = vec![Entity { last_sync: None, ..token("t2") }];
    assert_eq!(arrives(Loop::of(&world)).0, ["Adopt", "Sync"]);
}

#[test]
fn a_create_that_was_never_carried_out_is_sent_again_after_the_window() {
    let (steps, looped) = arrives(Loop::of(&unknown()));
    assert_eq!(steps, ["AbandonIntent", "RecordIntent", "Create", "Sync"]);
    assert!(looped.now() >= ago(MINUTE * 5) + MINUTE * 15);
}

#[test]
fn a_deletion_ends_and_graph_keeps_or_loses_the_token_as_the_policy_says() {
    let mut deleted = Loop::of(&deleting());
    deleted.run();
    assert_eq!((deleted.steps.as_slice(), deleted.graph.len()), (["Delete", "RemoveFinalizer"].as_slice(), 0));
    let mut world = deleting();
    world.spec.deletion_policy = DeletionPolicy::Retain;
    let mut retained = Loop::of(&world);
    retained.run();
    assert_eq!((retained.steps.as_slice(), retained.graph.len()), (["RemoveFinalizer"].as_slice(), 1));
}

#[test]
fn a_deletion_finds_what_a_lost_create_made_before_it_deletes_it() {
    let mut world = unknown();
    world.being_deleted();
    world.tokens = vec![token("t2")];
    let mut looped = Loop::of(&world);
    looped.run();
    assert_eq!(looped.steps, ["Adopt", "Delete", "RemoveFinalizer"]);
    assert!(looped.graph.is_empty());
}

#[test]
fn an_observed_token_is_mirrored_and_not_touched_whatever_differs() {
    let mut looped = Loop::of(&observed_by_id());
    let before = looped.graph.clone();
    looped.observed.object.sync_request = Some("now".into());
    let (steps, looped) = arrives(looped);
    assert_eq!(steps, ["Bind", "DeclineSync"]);
    assert_eq!(looped.graph, before);
    assert_eq!(looped.observed.status.country_or_region.as_deref(), Some("fr"));
}

#[test]
fn what_was_due_while_suspended_is_done_when_it_is_over() {
    let mut world = renewal();
    world.spec.suspend = true;
    world.token().country_or_region = Some("us".into());
    world.object.sync_request = Some("now".into());
    let mut looped = Loop::of(&world);
    let plan = looped.run();
    assert_eq!(plan.blockers[0].reason, Reason::Suspended);
    assert_eq!(looped.steps, [""; 0]);
    looped.observed.spec.suspend = false;
    assert_eq!(arrives(looped).0, ["ConfirmUpload", "Upload", "Update", "Sync"]);
}

#[test]
fn a_requested_upload_is_done_once_and_synced() {
    let mut world = World::ready();
    world.object.upload_request = Some("now".into());
    let (steps, looped) = arrives(Loop::of(&world));
    assert_eq!(steps, ["ConfirmUpload", "Upload", "Sync"]);
    assert_eq!(looped.observed.status.last_handled_upload_request.as_deref(), Some("now"));
}

#[test]
fn what_was_replaced_in_intune_is_uploaded_again_on_request() {
    let mut looped = Loop::of(&World::ready());
    looped.run();
    assert!(looped.observed.status.uploaded.as_ref().unwrap().shown);
    looped.graph[0].expiration = Some(in_(DAY * 16));
    looped.list();
    let plan = looped.run();
    assert_eq!((looped.steps.as_slice(), plan.blockers[0].reason), ([].as_slice(), Reason::ReplacedInIntune));
    looped.observed.object.upload_request = Some("now".into());
    assert_eq!(arrives(looped).0, ["ConfirmUpload", "Upload", "Sync"]);
}

#[test]
fn a_file_that_is_older_than_what_graph_has_when_it_is_asked_is_not_uploaded() {
    let mut looped = Loop::of(&renewal());
    looped.list();
    // Someone uploads a newer file in the portal after the last list.
    looped.graph[0].expiration = Some(in_(DAY * 400));
    let first = looped.plan().step.unwrap();
    assert!(matches!(first, Step::ConfirmUpload { .. }));
    looped.pass(SECOND);
    looped.act(&first);
    let then = looped.plan();
    assert_eq!((then.step, then.blockers[0].reason), (None, Reason::TokenFileOlder));
}

#[test]
fn a_requested_sync_is_started_once() {
    let mut world = World::ready();
    world.object.sync_request = Some("now".into());
    assert_eq!(arrives(Loop::of(&world)).0, ["Sync"]);
}

#[test]
fn an_upload_whose_answer_was_lost_is_noted_and_synced_once() {
    let mut world = World::ready();
    world.file().sha256 = "digest-2".into();
    world.file().expiration = in_(DAY * 365);
    world.token().expiration = Some(in_(DAY * 365));
    assert_eq!(arrives(Loop::of(&world)).0, ["Note", "Sync"]);
}

#[test]
fn only_the_first_try_of_a_change_is_reported() {
    let mut world = World::ready();
    world.spec.country_or_region = Some("us".into());
    let reports = |world: &World| {
        let observed = world.observe();
        let plan = plan(&observed);
        assert_eq!(plan.step.as_ref().and_then(Step::kind), Some(StepKind::Update));
        assert_eq!(plan.is_reported_first(&observed), plan.is_first_try(&observed));
        plan.is_first_try(&observed)
    };
    assert!(reports(&world));
    world.failed(StepKind::Sync, ErrorKind::Unavailable);
    assert!(reports(&world), "something else failed");
    world.failed(StepKind::Update, ErrorKind::Throttled).not_before = ago(SECOND);
    assert!(!reports(&world), "it failed, and is tried again now");
    world.observed.attempts.failures.get_mut(&StepKind::Update).unwrap().inputs.generation += 1;
    assert!(reports(&world), "another manifest failed");
}

#[test]
fn what_is_due_is_reported_first_when_it_makes_the_object_unready() {
    let observed = World::ready().observe();
    let base = plan(&observed);
    let is_first = |step: Option<Step>| Plan { step, ..base.clone() }.is_reported_first(&observed);
    assert!(is_first(Some(Step::AddFinalizer)));
    assert!(is_first(Some(Step::ConfirmUpload { id: OURS.into() })));
    assert!(is_first(Some(upload_now(World::ready().file(), None))));
    assert!(is_first(Some(update(&[]))));
    assert!(!is_first(Some(Step::Write(Write::Sync {
        id: OURS.into(),
        priority: Priority::Interactive,
        request: None
    }))));
    assert!(!is_first(Some(create())), "its intent has reported it");
    let mut failing = deleting();
    failing.failed(StepKind::Delete, ErrorKind::Unavailable);
    let retried = Plan { step: Some(delete()), ..base.clone() };
    assert!(retried.is_reported_first(&failing.observe()), "a token is deleted only when the status names it");
    assert!(!is_first(None));
}

#[test]
fn a_plan_knows_on_which_list_it_was_made() {
    let world = World::ready();
    assert_eq!(plan(&world.observe()).planned_on, world.lists.iter().map(|(began, _)| *began).max());
}

#[test]
fn everything_is_requeued_within_the_hour() {
    let mut plan = plan(&World::ready().observe());
    assert!(plan.requeue_after > Some(DAY), "nothing is due");
    assert_eq!(plan.requeue_after(), HOUR);
    plan.requeue_after = None;
    assert_eq!(plan.requeue_after(), HOUR);
    plan.requeue_after = Some(MINUTE);
    assert_eq!(plan.requeue_after(), MINUTE);
    plan.step = Some(Step::AddFinalizer);
    assert_eq!(plan.requeue_after(), SignedDuration::ZERO);
}
