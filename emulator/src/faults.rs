//! Faults on demand: which requests they hit, what they do to them, and the gate at which held requests wait.

use crate::log::Operation;
use crate::settings::{BodyKind, seconds};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::watch;

/// A fault for some of the requests. The first fault in order of injection that hits a request is the one it gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// Only requests of this kind; `None` for all.
    #[serde(default)]
    pub operation: Option<Operation>,
    /// Only requests for this entity; `None` for all.
    #[serde(default)]
    pub id: Option<String>,
    /// Only requests of this tenant; `None` for all.
    #[serde(default)]
    pub tenant: Option<String>,
    /// So many matching requests pass unharmed first.
    #[serde(default)]
    pub skip: u32,
    /// Then so many are hit; `None` for ever.
    #[serde(default)]
    pub times: Option<u32>,
    /// What happens to those.
    pub action: Action,
}

impl Fault {
    /// A fault that hits every request, until narrowed down.
    #[must_use]
    pub fn new(action: Action) -> Self {
        Self { operation: None, id: None, tenant: None, skip: 0, times: None, action }
    }

    /// Only requests of this kind.
    #[must_use]
    pub fn on(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Only requests for this entity.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Only requests of this tenant.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// So many matching requests pass first.
    #[must_use]
    pub fn skip(mut self, requests: u32) -> Self {
        self.skip = requests;
        self
    }

    /// So many are hit.
    #[must_use]
    pub fn times(mut self, requests: u32) -> Self {
        self.times = Some(requests);
        self
    }

    /// One is hit.
    #[must_use]
    pub fn once(self) -> Self {
        self.times(1)
    }

    fn matches(&self, operation: Operation, tenant: Option<&str>, id: Option<&str>) -> bool {
        let same = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found.is_some_and(|found| found.eq_ignore_ascii_case(wanted)))
        };
        self.operation.is_none_or(|wanted| wanted == operation) && same(&self.tenant, tenant) && same(&self.id, id)
    }
}

/// Whether a fault strikes before the request has any effect, or after it had its effect and its answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum When {
    /// The service has not read the request yet: not its access token either.
    Before,
    /// The request had its effect, and the answer is as of now; the client has not seen it.
    After,
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Action {
    /// Waits. The duration is real time, not scaled.
    Delay {
        /// Before or after the effect.
        when: When,
        /// How long.
        #[serde(rename = "seconds", with = "seconds")]
        duration: Duration,
    },
    /// Answers with a status of choice. After the effect, a status below 400 keeps the real answer's body, in the
    /// shape asked for: so a create can succeed and its answer be cut off.
    #[serde(rename_all = "camelCase")]
    Status {
        /// Before or after the effect.
        when: When,
        /// The HTTP status.
        code: u16,
        /// `Retry-After`, as it stands.
        #[serde(default)]
        retry_after: Option<String>,
        /// The shape of the body.
        #[serde(default)]
        body: BodyKind,
    },
    /// Closes the connection without an answer.
    Cut {
        /// Before or after the effect.
        when: When,
    },
    /// After the effect: sends the head and half of the body, then closes the connection.
    CutAnswer,
    /// Holds the request until it is released. After the effect, what is held is the finished answer: a list held so
    /// shows nothing of what happens meanwhile.
    Hold {
        /// Before or after the effect.
        when: When,
    },
}

/// Where held requests wait: each for the next release after its arrival, or for the gate to open for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Gate {
    releases: u64,
    open: bool,
}

/// The state of a fault that is in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultStatus {
    /// Names it in the admin API.
    pub number: u64,
    /// The fault as injected.
    pub fault: Fault,
    /// How many requests it has hit; for a hold, how many arrived at the gate.
    pub hits: u32,
    /// How many requests it holds now.
    pub holding: u32,
}

/// A fault in place.
pub(crate) struct Armed {
    number: u64,
    fault: Fault,
    matched: u32,
    struck: u32,
    /// For a hold: how many have arrived at the gate, and how many wait there.
    arrived: u32,
    holding: u32,
    removed: bool,
    gate: watch::Sender<Gate>,
}

impl Armed {
    fn hits(&self) -> u32 {
        if matches!(self.fault.action, Action::Hold { .. }) { self.arrived } else { self.struck }
    }
}

/// What a request that was hit has to do.
pub(crate) struct Strike {
    pub(crate) number: u64,
    pub(crate) action: Action,
}

/// A request's place at the gate.
pub(crate) struct Place {
    gate: watch::Receiver<Gate>,
    arrived_at: u64,
}

impl Place {
    /// Waits until it is released.
    pub(crate) async fn wait(mut self) {
        let arrived_at = self.arrived_at;
        // An error means that the fault was removed: nothing to wait for.
        let _gone = self.gate.wait_for(|gate| gate.open || gate.releases > arrived_at).await;
    }
}

/// All faults, in order of injection. Removed ones stay for their hit counts, which handles may still ask for.
#[derive(Default)]
pub(crate) struct Faults {
    armed: Vec<Armed>,
}

impl Faults {
    /// Puts a fault in place, and names it.
    pub(crate) fn inject(&mut self, fault: Fault) -> u64 {
        let number = self.armed.len() as u64 + 1;
        let gate = watch::Sender::new(Gate::default());
        self.armed.push(Armed { number, fault, matched: 0, struck: 0, arrived: 0, holding: 0, removed: false, gate });
        number
    }

    /// The fault that hits a request, if any does.
    pub(crate) fn strike(&mut self, operation: Operation, tenant: Option<&str>, id: Option<&str>) -> Option<Strike> {
        self.armed.iter_mut().filter(|armed| !armed.removed).find_map(|armed| {
            let exhausted = armed.fault.times.is_some_and(|times| armed.struck >= times);
            if exhausted || !armed.fault.matches(operation, tenant, id) {
                return None;
            }
            armed.matched += 1;
            if armed.matched <= armed.fault.skip {
                return None;
            }
            armed.struck += 1;
            Some(Strike { number: armed.number, action: armed.fault.action.clone() })
        })
    }

    /// A request that a fault holds arrives at the gate.
    pub(crate) fn arrive(&mut self, number: u64) -> Option<Place> {
        let armed = self.armed.iter_mut().find(|armed| armed.number == number)?;
        armed.arrived += 1;
        armed.holding += 1;
        let gate = armed.gate.subscribe();
        let arrived_at = gate.borrow().releases;
        Some(Place { gate, arrived_at })
    }

    /// A request that a fault held goes on.
    pub(crate) fn depart(&mut self, number: u64) {
        if let Some(armed) = self.armed.iter_mut().find(|armed| armed.number == number) {
            armed.holding = armed.holding.saturating_sub(1);
        }
    }

    /// How many requests a fault has hit; for a hold, how many arrived at the gate.
    pub(crate) fn hits(&self, number: u64) -> u32 {
        self.find(number).map_or(0, Armed::hits)
    }

    /// How many requests a fault holds now.
    pub(crate) fn holding(&self, number: u64) -> u32 {
        self.find(number).map_or(0, |armed| armed.holding)
    }

    /// Releases the requests that a fault holds now; returns whether there is such a fault.
    pub(crate) fn release(&mut self, number: u64) -> bool {
        self.find(number).is_some_and(|armed| {
            armed.gate.send_modify(|gate| gate.releases += 1);
            true
        })
    }

    /// Removes a fault and releases the requests that it holds; returns whether it was in place.
    pub(crate) fn remove(&mut self, number: u64) -> bool {
        self.armed.iter_mut().find(|armed| armed.number == number && !armed.removed).is_some_and(|armed| {
            armed.removed = true;
            armed.gate.send_modify(|gate| gate.open = true);
            true
        })
    }

    /// The faults in place.
    pub(crate) fn status(&self) -> Vec<FaultStatus> {
        self.armed
            .iter()
            .filter(|armed| !armed.removed)
            .map(|armed| FaultStatus {
                number: armed.number,
                fault: armed.fault.clone(),
                hits: armed.hits(),
                holding: armed.holding,
            })
            .collect()
    }

    fn find(&self, number: u64) -> Option<&Armed> {
        self.armed.iter().find(|armed| armed.number == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_hits_after_its_skips_and_only_so_often() {
        let mut faults = Faults::default();
        faults.inject(Fault::new(Action::Cut { when: When::Before }).on(Operation::List).skip(1).times(2));
        let hits: Vec<bool> = (0..5).map(|_| faults.strike(Operation::List, None, None).is_some()).collect();
        assert_eq!(hits, [false, true, true, false, false]);
        assert!(faults.strike(Operation::Get, None, None).is_none());
    }

    #[test]
    fn a_fault_is_narrowed_down_by_tenant_and_id_without_regard_to_case() {
        let mut faults = Faults::default();
        faults.inject(Fault::new(Action::Cut { when: When::Before }).tenant("T").id("ab"));
        assert!(faults.strike(Operation::Get, Some("t"), Some("AB")).is_some());
        assert!(faults.strike(Operation::Get, Some("t"), Some("cd")).is_none());
        assert!(faults.strike(Operation::Get, None, Some("ab")).is_none());
    }

    #[test]
    fn a_fault_reads_and_writes_as_json() {
        let json = r#"{"operation":"create","action":{"status":{"when":"after","code":503,"retryAfter":"2.128"}}}"#;
        let fault: Fault = serde_json::from_str(json).unwrap();
        let body = BodyKind::Json;
        let action = Action::Status { when: When::After, code: 503, retry_after: Some("2.128".to_owned()), body };
        assert_eq!(fault, Fault::new(action).on(Operation::Create));
        assert_eq!(serde_json::from_str::<Fault>(&serde_json::to_string(&fault).unwrap()).unwrap(), fault);
    }
}
