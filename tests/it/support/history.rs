//! Every version of a namespace's VppTokens, in order: what was visible only for a moment is seen too.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kube::api::ListParams;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use vpptoken_operator::api::{VppToken, VppTokenStatus};

use super::LIMIT;

/// The statuses of the VppTokens of a namespace, from its beginning on.
pub(crate) struct History {
    api: Api<VppToken>,
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Default)]
struct Shared {
    versions: Mutex<Vec<Version>>,
    changed: Notify,
}

struct Version {
    name: String,
    resource_version: u64,
    status: VppTokenStatus,
}

impl History {
    /// Watches from now on.
    pub(crate) async fn begin(api: Api<VppToken>) -> Self {
        let shared = Arc::new(Shared::default());
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let (writer, mut ready) = (Arc::clone(&shared), Some(ready));
        let reader = api.clone();
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => writer.add(&object),
                    Ok(Event::InitDone) => {
                        if let Some(ready) = ready.take() {
                            let _ = ready.send(());
                        }
                    }
                    // The API server may be down in some tests.
                    Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                    Ok(_) => {}
                }
            }
        });
        tokio::time::timeout(LIMIT, is_ready).await.unwrap().unwrap();
        Self { api: reader, shared, task: task.abort_handle() }
    }

    /// Every status of every VppToken until now, with its name, in the order in which they were written.
    pub(crate) async fn all(&self) -> Vec<(String, VppTokenStatus)> {
        self.catch_up().await;
        let versions = self.shared.versions();
        versions.iter().map(|version| (version.name.clone(), version.status.clone())).collect()
    }

    /// Every status of one VppToken until now.
    pub(crate) async fn of(&self, name: &str) -> Vec<VppTokenStatus> {
        let all = self.all().await.into_iter();
        all.filter(|(of, _)| of == name).map(|(_, status)| status).collect()
    }

    /// The watch may be behind what the test has read: waits until it has shown the present version of each object.
    async fn catch_up(&self) {
        for object in self.api.list(&ListParams::default()).await.unwrap() {
            let (name, present) = (object.name_any(), resource_version(&object));
            let seen = |version: &Version| version.name == name && version.resource_version >= present;
            assert!(self.wait_version(seen).await, "the watch does not show {name} as it is now");
        }
    }

    /// Waits until some version of a VppToken had such a status.
    pub(crate) async fn wait(&self, name: &str, holds: impl Fn(&VppTokenStatus) -> bool) -> bool {
        self.wait_version(|version| version.name == name && holds(&version.status)).await
    }

    async fn wait_version(&self, holds: impl Fn(&Version) -> bool) -> bool {
        let waiting = async {
            loop {
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.shared.versions().iter().any(&holds) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.is_ok()
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn add(&self, object: &VppToken) {
        let status = object.status.clone().unwrap_or_default();
        self.versions().push(Version { name: object.name_any(), resource_version: resource_version(object), status });
        self.changed.notify_waiters();
    }

    fn versions(&self) -> std::sync::MutexGuard<'_, Vec<Version>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of one kind, later versions have higher numbers.
fn resource_version(object: &VppToken) -> u64 {
    object.resource_version().unwrap().parse().unwrap()
}
