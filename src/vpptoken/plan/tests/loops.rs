//! Steps carried out on a toy Graph until none is left: plan and what is written into the status end, and end ready.

use super::*;
use crate::api::conditions::{ConditionType, find};
use crate::vpptoken::facts::Done;

/// More than any way needs.
const MOST_STEPS: usize = 20;

/// A VppToken, a Graph that does what it is told, and a clock.
struct Loop {
    observed: Observed,
    graph: Vec<Entity>,
    snapshot: Snapshot,
    steps: Vec<&'static str>,
    /// How long Graph shows what it had before a write.
    lag: SignedDuration,
    shown_from: Vec<(Timestamp, Entity)>,
    answers: Answers,
    gone: bool,
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
            gone: false,
        }
    }

    fn now(&self) -> Timestamp {
        self.observed.now
    }

    fn list(&mut self) {
        let began = self.now();
        self.observed.now += SECOND;
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
                self.observed.now += SECOND;
                if let Some(done) = self.act(step) {
                    done.apply(&mut self.observed.status);
                }
                if self.gone {
                    return plan;
                }
                let plan = self.plan();
                if let Some(differing) = &plan.differing {
                    self.observed.memory.tries.retain(|field, _| differing.contains(field));
                }
                self.observed.status = plan.status;
                assert!(self.steps.len() < MOST_STEPS, "no end: {:?}", self.steps);
                continue;
            }
            self.observed.status = plan.status.clone();
            let is_reconciling = find(&plan.status.conditions, ConditionType::Reconciling).is_some();
            if plan.list_after.is_some() {
                self.list();
            } else if is_reconciling {
                self.observed.now += plan.again.unwrap_or(MINUTE * 5).min(MINUTE * 5);
                self.list();
            } else {
                return plan;
            }
            assert!(self.now() < now() + DAY, "no end: {:?} {:?}", self.steps, plan.holds);
        }
    }

    fn own(id: &str, uploaded: Option<Uploaded>) -> Option<Done> {
        Some(Done::Owned { id: id.into(), tenant: identity(), uploaded })
    }

    fn uploaded(&self) -> Uploaded {
        let file = self.observed.file.as_ref().unwrap();
        Uploaded {
            sha256: file.sha256.clone(),
            expiration_date_time: file.expiration,
            organization_name: file.organization_name.clone(),
            time: self.now(),
        }
    }

    /// Changes a token as Graph does, which may show it later.
    fn write(&mut self, id: &str, written: &[(Field, String)], change: impl FnOnce(&mut Entity)) {
        let now = self.now();
        let at = self.graph.iter().position(|entity| entity.id == id).expect("a token that Graph has");
        let on_its_way = self.shown_from.iter().rev().find(|(_, entity)| entity.id == id);
        let mut entity = on_its_way.map_or(&self.graph[at], |(_, entity)| entity).clone();
        change(&mut entity);
        self.snapshot.write_begins(id);
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
        self.snapshot.write_ended(id, answer, written, now);
    }

    fn act(&mut self, step: &Step) -> Option<Done> {
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
                self.gone = self.observed.object.deleting.is_some();
                None
            }
            Step::Announce(pending) => {
                self.steps.push("Announce");
                self.observed.memory.unsent_create = Some(UnsentCreate { since: pending.since, list_after: now });
                Some(Done::Announced(pending.clone(), identity()))
            }
            Step::Withdraw => {
                self.steps.push("Withdraw");
                self.observed.memory.unsent_create = None;
                self.observed.status.pending_create.as_ref().map(|pending| Done::Withdrawn { since: pending.since })
            }
            Step::Create => {
                self.steps.push("Create");
                self.observed.memory.unsent_create = None;
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
                self.snapshot.created(entity.clone(), &wanted(&self.observed), now);
                Self::own(&entity.id, Some(file))
            }
            Step::Adopt { id, uploaded } => {
                self.steps.push("Adopt");
                Self::own(id, Some(uploaded.clone()))
            }
            Step::Bind { id } => {
                self.steps.push("Bind");
                Self::own(id, None)
            }
            Step::Upload { id } => {
                self.steps.push("Upload");
                let file = self.uploaded();
                self.write(id, &[], |entity| {
                    entity.expiration = Some(file.expiration_date_time);
                    entity.state = Some("valid".into());
                });
                Some(Done::Uploaded(file))
            }
            Step::Update { id, fields } => {
                self.steps.push("Update");
                let text = |field: Field| fields.get(&field).map(|wanted| wanted.wanted.clone());
                let written: Vec<(Field, String)> =
                    fields.iter().map(|(field, wanted)| (*field, wanted.wanted.clone())).collect();
                for (field, value) in &written {
                    self.observed.memory.tries.entry(*field).or_insert_with(|| (value.clone(), 0)).1 += 1;
                }
                self.write(id, &written, |entity| {
                    entity.country_or_region = text(Field::CountryOrRegion).or(entity.country_or_region.take());
                    entity.apple_id = text(Field::AppleId).or(entity.apple_id.take());
                });
                None
            }
            Step::Note(uploaded) => {
                self.steps.push("Note");
                Some(Done::Uploaded(uploaded.clone()))
            }
            Step::DeclineSync { request, .. } => {
                self.steps.push("DeclineSync");
                Some(Done::SyncDeclined { request: request.clone() })
            }
            Step::Sync { id, request, .. } => {
                self.steps.push("Sync");
                self.write(id, &[], |entity| {
                    entity.last_sync = Some(now);
                    entity.last_sync_status = Some("completed".into());
                });
                Some(Done::Synced { at: now, request: request.clone() })
            }
            Step::Confirm { id } => {
                self.steps.push("Confirm");
                match self.graph.iter().find(|entity| entity.id == *id) {
                    Some(entity) => self.snapshot.found(entity.clone(), now, now),
                    None => self.snapshot.gone(id, now),
                }
                None
            }
            Step::Delete { id } => {
                self.steps.push("Delete");
                self.graph.retain(|entity| entity.id != *id);
                self.snapshot.gone(id, now);
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
    looped.observed.now += MINUTE * 10;
    looped.run();
    assert_eq!(looped.steps, steps, "it does not stay");
    (steps, looped)
}

#[test]
fn from_nothing_a_token_is_created_and_synced() {
    let (steps, looped) = arrives(Loop::of(&World::new_object()));
    assert_eq!(steps, ["Announce", "Create", "Sync"]);
    assert_eq!(looped.graph.len(), 1);
}

#[test]
fn with_deletion_policy_delete_the_finalizer_comes_first() {
    let mut world = World::new_object();
    world.spec.deletion_policy = DeletionPolicy::Delete;
    assert_eq!(arrives(Loop::of(&world)).0, ["AddFinalizer", "Announce", "Create", "Sync"]);
}

#[test]
fn an_exact_match_is_taken_over_without_a_write() {
    let mut world = World::new_object();
    world.tokens = vec![token("t2")];
    assert_eq!(arrives(Loop::of(&world)).0, ["Adopt"]);
}

#[test]
fn a_token_bound_by_its_id_is_uploaded_to_and_synced() {
    let mut world = World::new_object();
    world.tokens = vec![Entity { expiration: Some(in_(DAY * 10)), ..token("t2") }];
    world.spec.token_id = Some("t2".into());
    assert_eq!(arrives(Loop::of(&world)).0, ["Bind", "Upload", "Sync"]);
}

#[test]
fn a_renewal_is_uploaded_onto_the_same_id_and_synced() {
    let (steps, looped) = arrives(Loop::of(&renewal()));
    assert_eq!(steps, ["Upload", "Sync"]);
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
    assert_eq!(steps, ["Upload", "Sync"]);
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
    assert_eq!(plan.holds[0].reason, Reason::SettingNotAccepted);
}

#[test]
fn a_setting_that_graph_echoes_and_does_not_keep_is_reported_too() {
    let mut looped = Loop::of(&drift());
    looped.answers = Answers::Echo;
    let mut plan = looped.run();
    for _ in 0..5 {
        looped.observed.now += MINUTE * 5;
        plan = looped.run();
    }
    assert_eq!(looped.steps, ["Update", "Update", "Update"]);
    assert_eq!(plan.holds[0].reason, Reason::SettingNotAccepted);
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
    assert_eq!(arrives(Loop::of(&world)).0, ["Confirm", "Announce", "Create", "Sync"]);
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
    assert_eq!(steps, ["Withdraw", "Announce", "Create", "Sync"]);
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
    assert_eq!(plan.holds[0].reason, Reason::Suspended);
    assert_eq!(looped.steps, ["DeclineSync"]);
    looped.observed.spec.suspend = false;
    assert_eq!(arrives(looped).0, ["DeclineSync", "Upload", "Update", "Sync"]);
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
fn only_the_first_try_of_a_change_is_told() {
    let mut world = World::ready();
    world.spec.country_or_region = Some("us".into());
    let tells = |world: &World| {
        let observed = world.observe();
        let plan = plan(&observed);
        assert_eq!(plan.step.as_ref().and_then(Step::kind), Some(StepKind::Update));
        assert_eq!(plan.is_told_first(&observed), plan.is_first_try(&observed));
        plan.is_first_try(&observed)
    };
    assert!(tells(&world));
    world.failed(StepKind::Sync, ErrorKind::Unavailable);
    assert!(tells(&world), "something else failed");
    world.failed(StepKind::Update, ErrorKind::Throttled).not_before = ago(SECOND);
    assert!(!tells(&world), "it failed, and is tried again now");
    world.observed.memory.failures.get_mut(&StepKind::Update).unwrap().inputs.generation += 1;
    assert!(tells(&world), "another manifest failed");
}

#[test]
fn what_is_due_is_told_first_when_it_makes_the_object_unready() {
    let observed = World::ready().observe();
    let base = plan(&observed);
    let told = |step: Option<Step>| Plan { step, ..base.clone() }.is_told_first(&observed);
    let fields = BTreeMap::new();
    assert!(told(Some(Step::AddFinalizer)));
    assert!(told(Some(Step::Upload { id: OURS.into() })));
    assert!(told(Some(Step::Update { id: OURS.into(), fields })));
    assert!(!told(Some(Step::Sync { id: OURS.into(), priority: Priority::Person, request: None })));
    assert!(!told(Some(Step::Create)), "its announcement has told of it");
    assert!(!told(None));
}

#[test]
fn a_plan_knows_on_which_list_it_was_made() {
    let world = World::ready();
    assert_eq!(plan(&world.observe()).planned_on, world.lists.iter().map(|(began, _)| *began).max());
}

#[test]
fn everything_is_looked_at_again_within_the_hour() {
    let mut plan = plan(&World::ready().observe());
    assert!(plan.again > Some(DAY), "nothing is due");
    assert_eq!(plan.next_look(), HOUR);
    plan.again = None;
    assert_eq!(plan.next_look(), HOUR);
    plan.again = Some(MINUTE);
    assert_eq!(plan.next_look(), MINUTE);
    plan.step = Some(Step::AddFinalizer);
    assert_eq!(plan.next_look(), SignedDuration::ZERO);
}
