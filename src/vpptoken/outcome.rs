//! What was done, as it is written into a status. Pure.

use jiff::{SignedDuration, Timestamp};

use crate::api::{PendingCreate, Uploaded, VppTokenStatus, VppTokenTenant};

/// An outcome that is written into the status.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The intent of a create was recorded, in a tenant.
    IntentRecorded(PendingCreate, VppTokenTenant),
    /// The intent that was recorded at a time is abandoned: the create was not carried out.
    IntentAbandoned {
        /// When it was recorded.
        since: Timestamp,
    },
    /// A token was created, found again after a lost answer, or taken over.
    Owned {
        /// Its id.
        id: String,
        /// Where it lives.
        tenant: VppTokenTenant,
        /// What counts as uploaded to it; nothing of one that was taken over by its id.
        uploaded: Option<Uploaded>,
        /// The request for an upload that this answers.
        upload_request: Option<String>,
    },
    /// A file was uploaded onto the token, or Graph has it already.
    Uploaded {
        /// What counts as uploaded.
        uploaded: Uploaded,
        /// The request that this answers.
        request: Option<String>,
    },
    /// An upload that was asked for is not done.
    UploadDeclined {
        /// The request.
        request: String,
    },
    /// A sync that was asked for is not started.
    SyncDeclined {
        /// The request.
        request: String,
    },
    /// A sync was started.
    Synced {
        /// When.
        at: Timestamp,
        /// When the file was uploaded that it was decided after.
        uploaded: Option<Timestamp>,
        /// The request that it answers.
        request: Option<String>,
    },
}

impl Outcome {
    /// Writes the outcome into a status.
    pub(crate) fn apply(&self, status: &mut VppTokenStatus) {
        match self {
            Self::IntentRecorded(pending, tenant) => {
                status.pending_create = Some(Box::new(pending.clone()));
                status.tenant = Some(tenant.clone());
            }
            Self::IntentAbandoned { since } => {
                status.pending_create.take_if(|pending| pending.since == *since);
            }
            Self::Owned { id, tenant, uploaded, upload_request } => {
                status.token_id = Some(id.clone());
                status.tenant = Some(tenant.clone());
                status.uploaded = uploaded.clone();
                status.pending_create = None;
                status.claimed_by_another = None;
                if upload_request.is_some() {
                    status.last_handled_upload_request.clone_from(upload_request);
                }
            }
            Self::Uploaded { uploaded, request } => {
                let mut uploaded = uploaded.clone();
                let is_handled = request.is_none() || status.last_handled_upload_request == *request;
                let is_known = |known: &Uploaded| known.sha256 == uploaded.sha256 && known.time >= uploaded.time;
                if is_handled && status.uploaded.as_ref().is_some_and(is_known) {
                    // The answer to the write of this was lost, and a sync may have followed.
                    uploaded = status.uploaded.clone().unwrap_or(uploaded);
                } else if let Some(synced) = status.last_sync_trigger_time.filter(|synced| *synced >= uploaded.time) {
                    // The wall clock was set back since that sync. The upload is the later one, and needs a sync.
                    uploaded.time = synced.saturating_add(SignedDuration::from_micros(1)).unwrap_or(synced);
                }
                status.uploaded = Some(uploaded);
                if request.is_some() {
                    status.last_handled_upload_request.clone_from(request);
                }
            }
            Self::UploadDeclined { request } => status.last_handled_upload_request = Some(request.clone()),
            Self::SyncDeclined { request } => status.last_handled_sync_request = Some(request.clone()),
            Self::Synced { at, uploaded, request } => {
                // The wall clock may have been set back since the upload that this sync is for. Another process may have
                // uploaded since then.
                let shown = status.uploaded.as_ref().map(|uploaded| uploaded.time);
                status.last_sync_trigger_time = shown.filter(|_| shown == *uploaded).max(Some(*at));
                if request.is_some() {
                    status.last_handled_sync_request = request.clone();
                }
            }
        }
    }

    /// Whether it must be written even if the status has changed meanwhile. A recorded intent and a declined request
    /// only count when they are written onto the status that they were decided on.
    pub(crate) fn must_persist(&self) -> bool {
        !matches!(self, Self::IntentRecorded(..) | Self::SyncDeclined { .. } | Self::UploadDeclined { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_uploads_and_syncs_does_not_depend_on_the_wall_clock() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let uploaded = |sha256: &str, second| Uploaded {
            sha256: sha256.into(),
            expiration_date_time: at(1_000_000),
            organization_name: "x".into(),
            time: at(second),
            encoding: None,
            secret_version: None,
            shown: false,
        };
        let mut status = VppTokenStatus::default();
        // The wall clock is set back by an hour before every step.
        Outcome::Uploaded { uploaded: uploaded("x", 20_000), request: None }.apply(&mut status);
        let synced = |second, uploaded: Option<i64>| Outcome::Synced {
            at: at(second),
            uploaded: uploaded.map(at),
            request: None,
        };
        synced(16_400, Some(15_000)).apply(&mut status);
        assert_eq!(status.last_sync_trigger_time, Some(at(16_400)), "another process has uploaded since then");
        synced(16_400, Some(20_000)).apply(&mut status);
        assert_eq!(status.last_sync_trigger_time, Some(at(20_000)));
        Outcome::Uploaded { uploaded: uploaded("y", 12_800), request: None }.apply(&mut status);
        assert!(status.uploaded.as_ref().map(|uploaded| uploaded.time) > status.last_sync_trigger_time);
        // What is recorded already is not recorded again as a later upload.
        let before = status.clone();
        synced(21_000, None).apply(&mut status);
        Outcome::Uploaded { uploaded: uploaded("y", 12_800), request: None }.apply(&mut status);
        assert_eq!(status.uploaded, before.uploaded);
        assert_eq!(status.last_sync_trigger_time, Some(at(21_000)));
        // Without such a step, times are kept as they are.
        synced(30_000, None).apply(&mut status);
        Outcome::Uploaded { uploaded: uploaded("z", 40_000), request: None }.apply(&mut status);
        assert_eq!(status.last_sync_trigger_time, Some(at(30_000)));
        assert_eq!(status.uploaded.map(|uploaded| uploaded.time), Some(at(40_000)));
    }
}
