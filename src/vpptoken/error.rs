//! Why a reconcile failed.

use std::sync::Arc;

/// What could not be read from or written to Kubernetes. Failures of Graph are not errors here but part of what is
/// observed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused, or could not be reached.
    #[error("Kubernetes: {0}")]
    Kubernetes(#[source] Arc<kube::Error>),
    /// The object has no UID or namespace, which no object from an API server lacks.
    #[error("the object has no {0}")]
    Incomplete(&'static str),
    /// The reconcile, or the step at Graph, panicked. The panic's own message is not shown, because it may quote a secret.
    #[error("a fault of the operator: what was done for this object panicked")]
    Panicked,
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Kubernetes(Arc::new(error))
    }
}
