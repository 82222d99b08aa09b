//! The server itself: one state behind one lock, and the requests to it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Method, Request};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use crate::answer::Answer;
use crate::failure::{self, Failure};
use crate::journal::Write;
use crate::request::Call;
use crate::resource::{BUILT_IN, Definitions, Role};
use crate::state::State;
use crate::{delete, discovery, read, watch, write};

/// Returns the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// For how long old versions can be read and watched from; none: until `compact` is called. Kubernetes keeps 5 minutes.
    pub history: Option<Duration>,
    /// The resources that are deleted first with a namespace, as `secrets` or `vpptokens.vpptoken.io`. All others
    /// follow in the order of these names.
    pub deletion_order: Vec<String>,
    /// How long the controllers of namespaces and definitions wait between steps, when they run by themselves.
    pub controller_delay: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history: Some(Duration::from_secs(300)),
            deletion_order: Vec::new(),
            controller_delay: Duration::from_millis(100),
        }
    }
}

/// A Kubernetes API server in memory. Clones are the same server.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) shared: Shared,
    pub(crate) options: Arc<Options>,
}

/// What a watch needs of its server.
#[derive(Clone)]
pub(crate) struct Shared {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

impl ApiServer {
    /// A server that serves Kubernetes' own resources and those of the definitions, with the namespaces that every cluster
    /// has.
    pub fn new(clock: Clock, definitions: &Definitions, options: Options) -> Self {
        let now = clock();
        let (state, is_new) = match definitions.beginning(now) {
            Some(state) => (state, false),
            None => (State::new(), true),
        };
        let server = Self { shared: Shared { state: Arc::new(Mutex::new(state)), clock }, options: Arc::new(options) };
        if is_new {
            server.begin(definitions, now);
            definitions.remember(now, &server.shared.lock());
        }
        server
    }

    fn begin(&self, definitions: &Definitions, now: Timestamp) {
        {
            let mut state = self.shared.lock();
            for resource in BUILT_IN.iter() {
                state.serve(Arc::clone(resource));
            }
            for (manifest, resource) in definitions.all() {
                crate::definitions::install(&mut state, manifest, Arc::clone(resource), now);
            }
        }
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            self.apply_as(
                "system:apiserver",
                &serde_json::json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }),
            );
        }
    }

    /// Answers a request, at once and as a whole.
    pub fn call(&self, request: Request<Vec<u8>>, user: &str) -> Answer {
        self.answer(request, user, None)
    }

    /// Answers a request as a cache would that has received nothing after a revision. Only reads with
    /// `resourceVersion=0` can lag; all others are answered as usual.
    pub fn call_at(&self, request: Request<Vec<u8>>, user: &str, revision: u64) -> Answer {
        self.answer(request, user, Some(revision))
    }

    fn answer(&self, request: Request<Vec<u8>>, user: &str, lagging: Option<u64>) -> Answer {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        if let Some(history) = self.options.history {
            state.compact_older(SignedDuration::try_from(history).unwrap_or(SignedDuration::MAX), now);
        }
        let (parts, body) = request.into_parts();
        if let Some(found) = discovery::answer(&state, &parts) {
            return found;
        }
        let Some(call) = Call::read(&state, &parts, body, user) else { return failure::nothing_at(&parts) };
        let is_everywhere = call.resource.is_namespaced && call.namespace.is_empty();
        if is_everywhere && parts.method != Method::GET && call.resource.role == Role::Custom {
            return failure::page_not_found();
        }
        let answer = match (&parts.method, call.name.is_some()) {
            (&Method::GET, false) if call.query.flag("watch") => {
                watch::start(&state, &self.shared, &call, now, lagging).map(Answer::Watch)
            }
            (&Method::GET, true) => read::get(&state, &call, lagging),
            (&Method::GET, false) => read::list(&state, &call, lagging),
            (&Method::POST, false) if !is_everywhere => write::create(&mut state, &call, now),
            (&Method::PUT, true) => write::replace(&mut state, &call, now),
            (&Method::PATCH, true) => write::patch(&mut state, &call, now),
            (&Method::DELETE, true) if call.subresource.is_empty() => delete::one(&mut state, &call, now),
            (&Method::DELETE, false) => delete::many(&mut state, &call, now),
            (&Method::PUT | &Method::PATCH, false) if call.resource.role == Role::Custom => {
                Err(Failure::bad_request("name must be provided"))
            }
            (method, _) => Err(Failure::method_not_allowed(&call.resource, &method.as_str().to_lowercase())),
        };
        answer.unwrap_or_else(|failure| failure.answer())
    }

    /// The server's revision: that of the last write.
    pub fn revision(&self) -> u64 {
        self.shared.lock().revision
    }

    /// Forgets all versions but the current ones: watches from older ones, and pages of older lists, get 410.
    pub fn compact(&self) {
        let mut state = self.shared.lock();
        let revision = state.revision;
        state.compact(revision);
    }

    /// Notified of every change. Call `notified()` before reading, so that no change is missed.
    pub fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.lock().changed)
    }

    /// All writes that were carried out.
    pub fn writes(&self) -> Vec<Arc<Write>> {
        self.writes_from(0)
    }

    /// The writes that were carried out after the first so many.
    pub fn writes_from(&self, first: usize) -> Vec<Arc<Write>> {
        self.shared.lock().writes.get(first..).map(<[_]>::to_vec).unwrap_or_default()
    }
}
