//! Figures for Prometheus. Labels are names of our own objects, operations and statuses: nothing that grows without bound.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::watch_state::{Kind, WatchState};
use super::watches::Scope;
use crate::api::conditions::{ConditionType, find};
use crate::api::{VppToken, VppTokenStatus};
use crate::graph::Operation;
use crate::vpptoken::caches::Caches;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: OperationLabel,
    status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct OperationLabel(Operation);

impl EncodeLabelValue for OperationLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    operation: OperationLabel,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    kind: &'static str,
    namespace: String,
}

impl WatchLabels {
    /// Without a namespace: all of them.
    fn of(kind: Kind, scope: &Scope) -> Self {
        Self { kind: kind.as_str(), namespace: scope.0.clone().unwrap_or_default() }
    }
}

/// All figures.
pub(super) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<DurationLabels, Histogram, fn() -> Histogram>,
    reconciles: Family<OutcomeLabels, Counter>,
    reconcile_seconds: Histogram,
    watch_failures: Family<WatchLabels, Counter>,
    session_restarts: Counter,
}

/// Writes the figures of the VppTokens, one after the other, from the cache as it is at a scrape.
struct TokenCollector(Caches);

impl std::fmt::Debug for TokenCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCollector").finish_non_exhaustive()
    }
}

impl Collector for TokenCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let tokens: Vec<Arc<VppToken>> = self.0.all_tokens().collect();
        let mut gauge = |name, help, unit, value: fn(&VppTokenStatus) -> Option<i64>| {
            let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            for token in &tokens {
                let Some(value) = token.status.as_ref().and_then(value) else { continue };
                let metadata = [&token.metadata.namespace, &token.metadata.name];
                let [namespace, name] = metadata.map(|text| text.as_deref().unwrap_or_default());
                family.encode_family(&[("namespace", namespace), ("name", name)])?.encode_gauge(&value)?;
            }
            Ok(())
        };
        gauge("ready", "Whether Graph has what the VppToken asks for.", None, |status| {
            let ready = find(&status.conditions, ConditionType::Ready);
            Some(i64::from(ready.is_some_and(|ready| ready.status == "True")))
        })?;
        gauge("expiration_timestamp", "When the token in Graph expires.", Some(&Unit::Seconds), |status| {
            status.expiration_date_time.map(Timestamp::as_second)
        })?;
        gauge("last_sync_timestamp", "When Graph ended the last sync.", Some(&Unit::Seconds), |status| {
            status.last_sync_date_time.map(Timestamp::as_second)
        })
    }
}

/// 10 ms to 40 s: a request ends after 30 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 2.0, 13))
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds),
            reconciles: Family::default(),
            reconcile_seconds: seconds(),
            watch_failures: Family::default(),
            session_restarts: Counter::default(),
        }
    }
}

impl Metrics {
    /// A request to Microsoft ended.
    pub(super) fn requested(&self, operation: Operation, status: Option<u16>, took: Duration) {
        let labels = DurationLabels { operation: OperationLabel(operation) };
        self.request_seconds.get_or_create(&labels).observe(took.as_secs_f64());
        let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        self.requests.get_or_create(&RequestLabels { operation: OperationLabel(operation), status }).inc();
    }

    /// A reconcile ended.
    pub(super) fn reconciled(&self, ok: bool, took: Duration) {
        self.reconcile_seconds.observe(took.as_secs_f64());
        self.reconciles.get_or_create(&OutcomeLabels { outcome: if ok { "ok" } else { "error" } }).inc();
    }

    /// A try to list or watch failed.
    pub(super) fn watch_failed(&self, kind: Kind, scope: &Scope) {
        self.watch_failures.get_or_create(&WatchLabels::of(kind, scope)).inc();
    }

    /// The task of a session ended, which is a fault.
    pub(super) fn session_restarted(&self) {
        self.session_restarts.inc();
    }

    /// The figures as OpenMetrics text. Those of the tokens are taken from the cache as it is now, so that none outlives
    /// its object.
    pub(super) fn encode(&self, caches: &Caches, watches: &[WatchState]) -> Result<String, std::fmt::Error> {
        let watch_up = Family::<WatchLabels, Gauge>::default();
        for state in watches {
            watch_up.get_or_create(&WatchLabels::of(state.kind, &state.scope)).set(i64::from(state.is_up()));
        }
        let mut registry = Registry::with_prefix("vpptoken");
        registry.register(
            "graph_requests",
            "Requests to Microsoft, by operation and HTTP status",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "graph_request_duration",
            "How long requests to Microsoft took",
            Unit::Seconds,
            self.request_seconds.clone(),
        );
        registry.register("reconciles", "Reconciles, by outcome", self.reconciles.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "How long reconciles took",
            Unit::Seconds,
            self.reconcile_seconds.clone(),
        );
        registry.register("watch_up", "Whether a kind of object can be read in a watched namespace", watch_up);
        registry.register(
            "watch_failures",
            "Failed tries to list or watch a kind of object, by watched namespace",
            self.watch_failures.clone(),
        );
        registry.register(
            "session_restarts",
            "Sessions with a tenant that ended by a fault of the operator and were opened again",
            self.session_restarts.clone(),
        );
        registry.register_collector(Box::new(TokenCollector(caches.clone())));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::vpptoken::caches::TokenCache;

    #[test]
    fn each_vpp_token_has_the_figures_that_its_status_has() {
        let (tokens, mut writer) = reflector::store();
        let token = |name: &str, status: serde_json::Value| {
            let token: VppToken = serde_json::from_value(json!({
                "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken",
                "metadata": { "name": name, "namespace": "devices" }, "spec": {}, "status": status,
            }))
            .unwrap();
            Event::Apply(token)
        };
        let ready = json!([{
            "type": "Ready", "status": "True", "reason": "UpToDate", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]);
        writer.apply_watcher_event(&token("new", json!(null)));
        writer.apply_watcher_event(&token(
            "berlin",
            json!({
                "conditions": ready, "expirationDateTime": "1970-01-01T00:01:00Z",
                "lastSyncDateTime": "1970-01-01T00:02:00Z",
            }),
        ));
        let (namespaces, _) = reflector::store();
        let caches = Caches { tokens: vec![TokenCache::new(None, tokens)], secrets: Vec::new(), namespaces };
        let text = Metrics::default().encode(&caches, &[]).unwrap();
        let expected = "\
# HELP vpptoken_ready Whether Graph has what the VppToken asks for.
# TYPE vpptoken_ready gauge
vpptoken_ready{namespace=\"devices\",name=\"berlin\"} 1
# HELP vpptoken_expiration_timestamp_seconds When the token in Graph expires.
# TYPE vpptoken_expiration_timestamp_seconds gauge
# UNIT vpptoken_expiration_timestamp_seconds seconds
vpptoken_expiration_timestamp_seconds{namespace=\"devices\",name=\"berlin\"} 60
# HELP vpptoken_last_sync_timestamp_seconds When Graph ended the last sync.
# TYPE vpptoken_last_sync_timestamp_seconds gauge
# UNIT vpptoken_last_sync_timestamp_seconds seconds
vpptoken_last_sync_timestamp_seconds{namespace=\"devices\",name=\"berlin\"} 120
# EOF
";
        assert!(text.ends_with(expected), "{text}");
    }
}
