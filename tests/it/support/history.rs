//! Every version of a namespace's VppTokens, in order: what was visible only for a moment is seen too.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use vpptoken_operator::api::{VppToken, VppTokenStatus};

use super::LIMIT;

/// The statuses of the VppTokens of a namespace, from its beginning on.
pub struct History {
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Default)]
struct Shared {
    versions: Mutex<Vec<(String, VppTokenStatus)>>,
    changed: Notify,
}

impl History {
    /// Watches from now on.
    pub async fn begin(api: Api<VppToken>) -> Self {
        let shared = Arc::new(Shared::default());
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let (writer, mut ready) = (Arc::clone(&shared), Some(ready));
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
        Self { shared, task: task.abort_handle() }
    }

    /// Every status of every VppToken so far, with its name, in the order in which they were written.
    pub fn all(&self) -> Vec<(String, VppTokenStatus)> {
        self.shared.versions().clone()
    }

    /// Every status of one VppToken so far.
    pub fn of(&self, name: &str) -> Vec<VppTokenStatus> {
        let all = self.all().into_iter();
        all.filter(|(of, _)| of == name).map(|(_, status)| status).collect()
    }

    /// Waits until some version of a VppToken had such a status.
    pub async fn wait(&self, name: &str, holds: impl Fn(&VppTokenStatus) -> bool) -> bool {
        let waiting = async {
            loop {
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let seen = self.shared.versions().iter().any(|(of, status)| of == name && holds(status));
                if seen {
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
        self.versions().push((object.name_any(), status));
        self.changed.notify_waiters();
    }

    fn versions(&self) -> std::sync::MutexGuard<'_, Vec<(String, VppTokenStatus)>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
