//! The token file: what is wrong with it, and whether it may be sent.

use super::draft::Draft;
use super::equality::same;
use super::messages::{cut, time};
use crate::api::{Reason, TokenSecretRef, VppTokenSpec};
use crate::graph::Entity;
use crate::vpptoken::observed::{FileFacts, FileProblem};

/// The API server refuses such a manifest, unless it was stored before that rule existed.
pub(super) fn stall_on_incomplete_spec(draft: &mut Draft) {
    draft.stall(
        Reason::SecretNotFound,
        "The manifest lacks tokenSecretRef or appleId, which managementPolicy: Manage needs.",
    );
}

fn secret_name(spec: &VppTokenSpec) -> &str {
    spec.token_secret_ref.as_ref().map_or("", |reference| &reference.name)
}

pub(super) fn stall_on_file_problem(draft: &mut Draft, problem: &FileProblem) {
    let Some(TokenSecretRef { name, key }) = &draft.observed.spec.token_secret_ref else {
        return stall_on_incomplete_spec(draft);
    };
    match problem {
        FileProblem::NotNamed => stall_on_incomplete_spec(draft),
        FileProblem::SecretNotFound => draft.wait(
            Reason::SecretNotFound,
            format!("Secret \"{name}\" is not there. Create it with the token file under the key \"{key}\"."),
        ),
        FileProblem::NotReadable => draft.wait(
            Reason::SecretNotReadable,
            format!(
                "Kubernetes refuses to show Secret \"{name}\" to the operator. Give its ServiceAccount the right to get \
                 Secrets in this namespace (the chart's watchNamespaces)."
            ),
        ),
        FileProblem::KeyNotFound => draft.wait(
            Reason::SecretKeyNotFound,
            format!("Secret \"{name}\" has no key \"{key}\". Add the token file under that key, or correct tokenSecretRef.key."),
        ),
        FileProblem::Malformed(what) => draft.stall(
            Reason::TokenFileMalformed,
            format!(
                "Key \"{key}\" of Secret \"{name}\" is not a token file: {what}. Download the token again from Apple and put \
                 the file there as it is."
            ),
        ),
    }
}

/// Whether a file is of the organization that the manifest asks for; if not, a blocker is added.
pub(super) fn is_wanted_organization(draft: &mut Draft, file: &FileFacts) -> bool {
    let spec = &draft.observed.spec;
    let Some(wanted) = spec.organization_name.as_ref().filter(|wanted| !same(Some(&file.organization_name), wanted))
    else {
        return true;
    };
    let message = format!(
        "The token file in Secret \"{}\" is of organization \"{}\", and the manifest asks for \"{wanted}\". Put the right \
         file there, or correct organizationName.",
        secret_name(spec),
        file.organization_name
    );
    draft.stall(Reason::OrganizationMismatch, message);
    false
}

/// Whether a file may be uploaded: onto a token, or as a new one. If not, a blocker is added.
pub(super) fn file_may_be_sent(draft: &mut Draft, file: &FileFacts, onto: Option<&Entity>) -> bool {
    let spec = &draft.observed.spec;
    let secret = secret_name(spec);
    if !is_wanted_organization(draft, file) {
        return false;
    }
    if file.expiration <= draft.observed.wall {
        let message = format!(
            "The token file in Secret \"{secret}\" expired at {}. Download a new one from Apple.",
            time(file.expiration)
        );
        draft.stall(Reason::TokenFileExpired, message);
        return false;
    }
    draft.requeue_at_wall(file.expiration);
    let Some(entity) = onto else { return true };
    // Graph may show the old expiry for a while after a renewal, or none at all. Once it has shown the new one, only
    // what it shows now counts.
    let uploaded = draft.status.uploaded.as_ref().filter(|uploaded| !uploaded.shown || entity.expiration.is_none());
    if let Some(expiration) = uploaded.map(|uploaded| uploaded.expiration_date_time).max(entity.expiration)
        && file.expiration.as_second() < expiration.as_second()
    {
        let message = format!(
            "The token file in Secret \"{secret}\" expires at {}, before the one that Graph has ({}). It is older; put the \
             newer file there.",
            time(file.expiration),
            time(expiration)
        );
        draft.stall(Reason::TokenFileOlder, message);
        return false;
    }
    if spec.organization_name.is_none() && !same(entity.organization_name.as_deref(), &file.organization_name) {
        let message = format!(
            "The token file in Secret \"{secret}\" is of organization \"{}\", and the token in Graph of \"{}\". Put the right \
             file there; if the organization was renamed, set organizationName to the new name.",
            file.organization_name,
            cut(entity.organization_name.as_deref().unwrap_or_default(), 512)
        );
        draft.stall(Reason::OrganizationMismatch, message);
        return false;
    }
    true
}
