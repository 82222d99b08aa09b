//! What is expected of a plan: one valid world, one thing changed, and what is decided and reported then.

use super::*;
use crate::api::conditions::ConditionStatus::{False, True};
use crate::api::conditions::{ConditionStatus, ConditionType, find};

/// What is expected of a plan.
#[derive(Clone, Debug)]
pub(super) struct Want {
    step: Option<Step>,
    blockers: Vec<Reason>,
    ready: (ConditionStatus, Reason),
    also: Option<ConditionType>,
    valid: Option<(ConditionStatus, Reason)>,
    synced: Option<(ConditionStatus, Reason)>,
    requeue_after: Option<SignedDuration>,
    list_after: Option<Timestamp>,
}

/// Ready, with nothing to do.
pub(super) fn ready() -> Want {
    Want {
        step: None,
        blockers: Vec::new(),
        ready: (True, Reason::UpToDate),
        also: None,
        valid: Some((True, Reason::Valid)),
        synced: Some((True, Reason::SyncCompleted)),
        requeue_after: None,
        list_after: None,
    }
}

/// At work.
pub(super) fn working(reason: Reason) -> Want {
    Want { ready: (False, reason), also: Some(ConditionType::Reconciling), ..ready() }
}

/// Waiting for what ends by itself.
pub(super) fn waiting(reason: Reason) -> Want {
    working(reason).blockers(&[reason])
}

/// A person is needed.
pub(super) fn stalled(reason: Reason) -> Want {
    Want { ready: (False, reason), also: Some(ConditionType::Stalled), ..ready() }.blockers(&[reason])
}

impl Want {
    fn also_if(&self, type_: ConditionType) -> Option<(ConditionStatus, Reason)> {
        (self.also == Some(type_)).then_some((True, self.ready.1))
    }

    pub(super) fn step(self, step: Step) -> Self {
        Self { step: Some(step), ..self }
    }

    pub(super) fn blockers(self, blockers: &[Reason]) -> Self {
        Self { blockers: blockers.to_vec(), ..self }
    }

    pub(super) fn ready(self, status: ConditionStatus, reason: Reason) -> Self {
        Self { ready: (status, reason), also: None, ..self }
    }

    pub(super) fn valid(self, status: ConditionStatus, reason: Reason) -> Self {
        Self { valid: Some((status, reason)), ..self }
    }

    pub(super) fn synced(self, status: ConditionStatus, reason: Reason) -> Self {
        Self { synced: Some((status, reason)), ..self }
    }

    /// Nothing is known of a token.
    pub(super) fn no_token(self) -> Self {
        Self { valid: None, synced: None, ..self }
    }

    pub(super) fn requeue_after(self, wait: SignedDuration) -> Self {
        Self { requeue_after: Some(wait), ..self }
    }

    pub(super) fn list_after(self, time: Timestamp) -> Self {
        Self { list_after: Some(time), ..self }
    }
}

/// A step as rows name it: what is sent exactly, and when an intent was recorded, follow from the world.
fn brief(step: &Option<Step>) -> String {
    match step {
        Some(Step::Write(Write::Create(_))) => "Create".into(),
        Some(Step::AbandonIntent { .. }) => "AbandonIntent".into(),
        Some(Step::Write(Write::Update { id, changes, .. })) => format!("Update {id} {changes:?}"),
        step => format!("{step:?}"),
    }
}

/// When the intent was recorded that a step is for.
fn since_of(step: &Option<Step>) -> Option<Timestamp> {
    match step {
        Some(Step::Write(Write::Create(new))) => Some(new.pending.since),
        Some(Step::AbandonIntent { since }) => Some(*since),
        _ => None,
    }
}

/// What is changed in the world, and what is expected then.
pub(super) type Row = (&'static str, fn(&mut World), Want);

pub(super) fn check(base: fn() -> World, rows: &[Row]) {
    let wrong: Vec<String> = rows.iter().flat_map(|row| differences(base, row)).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn differences(base: fn() -> World, (name, change, want): &Row) -> Vec<String> {
    let mut world = base();
    change(&mut world);
    let plan = plan(&world.observe());
    let mut wrong = Vec::new();
    let mut compare = |what: &str, found: String, wanted: String| {
        if found != wanted {
            wrong.push(format!("{name}: {what} is {found}, wanted {wanted}"));
        }
    };
    let blockers: Vec<Reason> = plan.blockers.iter().map(|blocker| blocker.reason).collect();
    compare("step", brief(&plan.step), brief(&want.step));
    if let Some(since) = since_of(&plan.step) {
        let pending = world.status.pending_create.as_ref().map(|pending| pending.since);
        compare("its intent", format!("{since}"), pending.map_or_else(String::new, |since| format!("{since}")));
    }
    compare("blockers", format!("{blockers:?}"), format!("{:?}", want.blockers));
    compare("list_after", format!("{:?}", plan.list_after), format!("{:?}", want.list_after));
    compare("generation", format!("{:?}", plan.status.observed_generation), "Some(3)".into());
    // Unless a row says otherwise: at once after a step, in ten minutes while something is blocked, else after an hour.
    let usual = match (&want.step, want.blockers.is_empty()) {
        (Some(_), _) => SignedDuration::ZERO,
        (None, false) => MINUTE * 10,
        (None, true) => HOUR,
    };
    match want.requeue_after {
        Some(requeue_after) => {
            compare("the delay", format!("{:?}", plan.requeue_after), format!("{:?}", Some(requeue_after)))
        }
        None => compare("the delay", format!("{:?}", plan.requeue_after()), format!("{usual:?}")),
    }
    for (type_, wanted) in [
        (ConditionType::Ready, Some(want.ready)),
        (ConditionType::Reconciling, want.also_if(ConditionType::Reconciling)),
        (ConditionType::Stalled, want.also_if(ConditionType::Stalled)),
        (ConditionType::TokenValid, want.valid),
        (ConditionType::Synced, want.synced),
    ] {
        let found = find(&plan.status.conditions, type_).map(|it| format!("{} {}", it.status, it.reason));
        let wanted = wanted.map(|(status, reason)| format!("{} {reason}", status.as_str()));
        compare(type_.as_str(), format!("{found:?}"), format!("{wanted:?}"));
    }
    wrong
}
